//! What to do instead of a step that is not legal now.

use api::Problem;
use domain::{AuthorityType, Code, Phase};

use super::Asked;

/// What can be done instead of a step that is not legal now. The one step that cannot be taken back is never offered
/// here: whoever asked for another one does not mean it.
pub(super) fn instead(out: &mut String, problem: &Problem, asked: Asked<'_>) {
    match problem.code {
        Code::RotationInProgress => in_progress(out, asked),
        Code::IllegalTransition => {
            if let Some((current, wanted)) = spoken_of(&problem.detail) {
                illegal(out, current, wanted, asked.authority);
            }
        }
        _ => {}
    }
}

/// The current phase and the one that was asked for, as the domain's sentence names them.
fn spoken_of(detail: &str) -> Option<(Phase, Phase)> {
    let phase_after = |mark: &str| {
        let (_, rest) = detail.split_once(mark)?;
        rest.split([',', ' ', ';']).next()?.parse::<Phase>().ok()
    };
    let current = phase_after("current phase is ").or_else(|| phase_after(" from phase "))?;
    Some((current, phase_after(" to phase ")?))
}

fn illegal(out: &mut String, current: Phase, wanted: Phase, authority: Option<AuthorityType>) {
    let name = authority.map_or("TYPE", AuthorityType::name);
    let step = |phase: Phase| format!("carousel auth rotate --manual --type={name} --phase={phase}");
    let next = current.next().filter(|next| *next != Phase::Standby);
    let next = next.map_or_else(String::new, |next| format!("Next: {}\n", step(next)));
    match (current, wanted) {
        // Nothing is there to go back from, or to finish.
        (Phase::Standby, Phase::Rollback | Phase::Standby) => out.push_str("Next: carousel status\n"),
        (Phase::Standby, Phase::Init | Phase::UpdateClients | Phase::UpdateServers) => {
            out.push_str(&format!("Next: {}\n", step(Phase::Init)));
        }
        // All that is left of a rollback is its end, which destroys the new key.
        (Phase::Rollback, _) => {
            out.push_str(&format!("Next: carousel auth rotate --type={name} --plan\n"));
        }
        // The end lies ahead, or is meant as the way out of the rotation.
        (_, Phase::Standby) => {
            out.push_str(&next);
            out.push_str(&format!("Go back: {}\n", step(Phase::Rollback)));
        }
        (current, wanted) if wanted > current => out.push_str(&next),
        (_, Phase::Init | Phase::UpdateClients | Phase::UpdateServers | Phase::Rollback) => {
            out.push_str(&format!("Go back: {}\n", step(Phase::Rollback)));
        }
    }
}

/// Where the rotation that is in the way stands, and how it goes on.
fn in_progress(out: &mut String, asked: Asked<'_>) {
    let found = asked.authority.and_then(|authority| {
        let status = asked.status?;
        status.authorities.iter().find(|a| a.authority_type == authority)
    });
    let Some(found) = found else {
        out.push_str("Next: carousel status\n");
        return;
    };
    let (name, rotation) = (found.authority_type, &found.rotation);
    out.push_str(&format!(
        "The {name} CA is in {} (mode: {}).\n",
        rotation.phase, rotation.mode
    ));
    let next = rotation.phase.next().filter(|next| *next != Phase::Standby);
    let next = match next {
        _ if rotation.mode == "automatic" || found.nodes.lagging > 0 => {
            format!("carousel wait --type={name}")
        }
        Some(next) => format!("carousel auth rotate --manual --type={name} --phase={next}"),
        None => format!("carousel auth rotate --type={name} --plan"),
    };
    out.push_str(&format!("Next: {next}\n"));
}
