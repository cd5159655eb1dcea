//! Phase commands: given when the control plane's own parts can follow, answered when they have.

use api::command::CommandAnswer;
use domain::{
    Answer, AuthorityType, ClusterState, Code, Command, Given, Phase, decide, gate::lagging_members,
};
use tokio::time::Instant;

use super::{Asked, plan, reads};
use crate::{
    app::{App, PATIENCE},
    body,
    reply::{self, No, Reply},
};

/// `POST /v1/rotate`.
pub(super) async fn rotate(asked: &Asked) -> Reply {
    let (wanted, rotate) = body::rotation(&asked.body)?;
    let authority_type = rotate.authority_type;
    let command = asked.command(wanted);
    let deadline = Instant::now() + PATIENCE;
    wait_for_own_parts(&asked.app, &command, deadline).await;
    // Asked before the step: afterwards nobody waits for them any more.
    let app = &asked.app;
    let to = rotate.target.filter(|_| rotate.force);
    let locked_out = to.and_then(|to| {
        app.fold
            .read(|s| plan::locked_out_by(s, authority_type, to, s.now(app.now())))
    });
    let answered = match asked.execute(command).await {
        Ok(answered) => answered,
        Err(no) => return Err(explained(&asked.app, no)),
    };
    let warning = match &answered.answer {
        Answer::Phase {
            phase, noop: false, ..
        } => {
            let holds = asked
                .app
                .wait_until(deadline, |s| {
                    own_parts_hold(&asked.app, s, authority_type, *phase)
                })
                .await;
            holds
                .is_none()
                .then(|| lagging_in_words(&asked.app, authority_type))
        }
        _ => None,
    };
    reply::json(&CommandAnswer {
        position: answered.position,
        locked_out: locked_out.filter(|_| is_step(&answered.answer)),
        answer: answered.answer,
        warning,
    })
}

/// Was a phase entered by this command?
fn is_step(answer: &Answer) -> bool {
    matches!(answer, Answer::Phase { noop: false, .. })
}

/// A command that finds only the control plane's own parts lagging waits for them: a person cannot do
/// anything about those. Decided on the state without sending it, because a refusal is on record and a
/// repeated command gets its first answer again.
async fn wait_for_own_parts(app: &App, command: &Command, deadline: Instant) {
    let would_wait = |state: &ClusterState| {
        let given = Given {
            now: state.now(app.now()),
            fresh: [command.id.0; 4],
            serials: [[0; 16]; 2],
            clock_suspect: false,
            sha256: execution::sha256,
        };
        let own = |code| matches!(code, Code::MembersLagging | Code::KeyMissing);
        matches!(decide(state, command, &given), Err(refusal) if own(refusal.code))
    };
    app.wait_until(deadline, |state| (!would_wait(state)).then_some(()))
        .await;
}

/// Key made, bundle signed, this gateway at the row, every other running member too.
fn own_parts_hold(
    app: &App,
    state: &ClusterState,
    authority_type: AuthorityType,
    phase: Phase,
) -> Option<()> {
    let of = state.types.get(&authority_type)?;
    if of.phase != phase {
        // Somebody has gone on already: then everything had followed, or was waited for by that command.
        return Some(());
    }
    let keys = of.rotation.is_none() || of.phase == Phase::Rollback || of.prepared_is_complete();
    let bundle = of.bundle.as_ref().is_some_and(|b| b.revision >= of.row_position);
    let members = lagging_members(state, authority_type, of).is_empty();
    (keys && bundle && members && app.holds_rows(state)).then_some(())
}

fn lagging_in_words(app: &App, authority_type: AuthorityType) -> String {
    app.fold.read(|state| {
        let Some(of) = state.types.get(&authority_type) else {
            return String::new();
        };
        let mut missing = vec![];
        if of.rotation.is_some() && of.phase != Phase::Rollback && !of.prepared_is_complete() {
            missing.push("the signer has not made the new key".to_owned());
        }
        if of.bundle.as_ref().is_none_or(|b| b.revision < of.row_position) {
            missing.push("the signer has not signed the new trust bundle".to_owned());
        }
        for member in lagging_members(state, authority_type, of) {
            missing.push(format!(
                "the {} {} {}",
                member.service,
                member.member,
                member.missing.in_words(of.phase)
            ));
        }
        if missing.is_empty() {
            missing.push("this gateway has not reported the new row".to_owned());
        }
        format!(
            "accepted, but after {} s {}; nodes follow once that is done",
            PATIENCE.as_secs(),
            missing.join(", ")
        )
    })
}

/// Adds to a closed gate what a person at 3 a.m. needs: who is there, and what would break.
fn explained(app: &App, mut no: No) -> No {
    if let Some(gate) = &mut no.0.gate {
        reads::see(app, &mut gate.lagging, app.now());
        app.fold.read(|s| plan::consequences(s, gate));
    }
    no
}
