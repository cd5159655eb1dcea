//! A refusal at 3 a.m.: what, who, am I in danger, the consequence, the remedies, and the dangerous way last.

use api::{
    Problem,
    problem::{GateDetails, Laggard},
    shape::Status,
};
use domain::{AuthorityType, Code, Phase};

use super::status::{laggards, seen};
use crate::text::{Look, count, utc, wrap};

/// How many laggards are named one by one.
const NAMED: usize = 10;

/// What the caller knew when it asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// What it saw before, if it looked.
    pub status: Option<&'a Status>,
    /// The type that it named.
    pub authority: Option<AuthorityType>,
}

/// The page.
pub fn page(problem: &Problem, asked: Asked<'_>, look: &Look) -> String {
    let mut out = format!(
        "{} {}\n",
        look.paint(crate::text::Paint::Bad, "refused:"),
        first(problem)
    );
    match &problem.gate {
        Some(gate) => closed_gate(&mut out, problem.code, gate, asked.status, look),
        None => {
            if let Some(next) = next_step(problem, asked.authority) {
                out.push_str(&format!("Next: {next}\n"));
            }
            if problem.status < 500 {
                out.push_str("Nothing was changed.\n");
            }
            if let Some(seconds) = problem.retry_after_s {
                out.push_str(&format!("Again: in {seconds} s\n"));
            }
            out.push_str(&format!("More: carousel explain {}\n", problem.code));
        }
    }
    out
}

fn first(problem: &Problem) -> String {
    format!("{}: {}", problem.code, problem.detail)
}

/// The step that is legal from the phase that the domain's sentence names.
fn next_step(problem: &Problem, authority: Option<AuthorityType>) -> Option<String> {
    if problem.code != Code::IllegalTransition {
        return None;
    }
    let current: Phase = problem
        .detail
        .split_once("current phase is ")
        .or_else(|| problem.detail.split_once(" from phase "))
        .and_then(|(_, rest)| rest.split([',', ' ', ';']).next())
        .and_then(|word| word.parse().ok())?;
    let next = current.next().unwrap_or(Phase::Init);
    let name = authority.map_or("TYPE", AuthorityType::name);
    Some(format!(
        "carousel auth rotate --manual --type={name} --phase={next}"
    ))
}

fn closed_gate(out: &mut String, code: Code, gate: &GateDetails, status: Option<&Status>, look: &Look) {
    let name = gate.authority_type;
    who(out, gate, look);
    let mode = status
        .and_then(|s| {
            s.authorities
                .iter()
                .find(|a| a.authority_type == gate.authority_type)
        })
        .map(|a| a.rotation.mode.as_str());
    let deadline = match mode {
        Some("manual") => ", and there is no deadline (mode: manual)",
        Some("automatic") => "; the rotation goes on by itself when the gate opens (mode: automatic)",
        _ => "",
    };
    let safe = format!(
        "Nothing was changed. The {name} CA stays in {}, {}, nothing is broken{deadline}.",
        gate.from,
        trusted_in(gate.from)
    );
    out.push_str(&format!("\n{}\n", wrap(&safe, 84, "")));
    if let Some(connections) = gate.if_forced.filter(|c| c.broken > 0) {
        let text = format!(
            "If the {name} CA entered {} now, {} of {} connections would break.",
            gate.to, connections.broken, connections.total
        );
        out.push_str(&format!("\n{}\n", wrap(&text, 84, "")));
    }
    if !gate.lagging.is_empty() {
        out.push('\n');
        remedies(out, &gate.lagging, look);
    }
    ways(out, code, gate);
}

fn trusted_in(phase: Phase) -> &'static str {
    if phase.row().trusts_prepared {
        "old and new CA are both trusted"
    } else {
        "one CA is trusted"
    }
}

/// Who lags, and whatever else the gate waits for.
fn who(out: &mut String, gate: &GateDetails, look: &Look) {
    let mut lines: Vec<String> = Vec::new();
    if gate.lagging.len() > NAMED {
        lines.extend(grouped(&gate.lagging));
    }
    lines.extend(laggards(
        &gate.lagging,
        u32::try_from(gate.lagging.len()).unwrap_or(u32::MAX),
        look,
    ));
    if gate.lagging.len() > NAMED {
        lines.push(format!(
            "      all of them: carousel get nodes --lagging={}",
            gate.authority_type
        ));
    }
    for member in &gate.members {
        lines.push(format!("  {}  {}", member.name, member.text));
    }
    if !gate.keys_missing.is_empty() {
        lines.push(format!(
            "  the new key ({}) is not made yet",
            gate.keys_missing.join(", ")
        ));
    }
    for consumer in &gate.consumers {
        lines.push(format!("  {consumer}  external consumer, has not attested"));
    }
    if let Some(condition) = &gate.time_condition {
        let holders = condition.holders.join(", ");
        lines.push(format!("  until {}: {holders}", utc(condition.until)));
    }
    if let Some(until) = gate.published_until {
        lines.push(format!(
            "  the new key is published until {} before it signs",
            utc(until)
        ));
    }
    if !lines.is_empty() {
        out.push_str(&format!("\n{}\n", lines.join("\n")));
    }
}

/// Many laggards: by what is missing, with counts, the most frequent first.
fn grouped(lagging: &[Laggard]) -> Vec<String> {
    let mut groups: std::collections::BTreeMap<&str, u32> = std::collections::BTreeMap::new();
    for laggard in lagging {
        *groups.entry(&laggard.text).or_default() += 1;
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    groups
        .into_iter()
        .map(|(text, n)| format!("  {n:>6}  {text}"))
        .collect()
}

/// What to look at, node by node.
fn remedies(out: &mut String, lagging: &[Laggard], look: &Look) {
    let width = lagging
        .iter()
        .take(NAMED)
        .map(|l| l.name.chars().count())
        .max()
        .unwrap_or(0);
    for laggard in lagging.iter().take(NAMED) {
        let name = &laggard.name;
        let indent = " ".repeat(width + 4);
        if let Some(failure) = &laggard.failure {
            out.push_str(&format!(
                "  {name:width$}  its {} failed {}:\n{indent}{}\n{indent}look   ssh {name} journalctl -u carousel-agent -n 50\n{indent}test   carousel probe {name}\n",
                failure.step,
                count(failure.count, "time"),
                failure.detail
            ));
        } else if laggard.status.online {
            out.push_str(&format!(
                "  {name:width$}  works on it ({})\n{indent}test   carousel probe {name}\n",
                seen(laggard, look)
            ));
        } else {
            out.push_str(&format!(
                "  {name:width$}  catches up by itself when it returns, while the old CA is trusted\n{indent}gone?  carousel nodes exclude {name} --reason \"...\"\n"
            ));
        }
    }
}

/// The ways out, the dangerous one last, and only where it would work.
fn ways(out: &mut String, code: Code, gate: &GateDetails) {
    let name = gate.authority_type;
    out.push('\n');
    if matches!(
        gate.from,
        Phase::Init | Phase::UpdateClients | Phase::UpdateServers
    ) {
        out.push_str(&format!(
            "Go back   carousel auth rotate --manual --type={name} --phase=rollback\n"
        ));
    }
    let forceable = gate.members.is_empty() && gate.keys_missing.is_empty();
    if forceable {
        let cut_off = match gate.lagging.len() {
            0 => "recorded".into(),
            n => format!("recorded; cuts off the {} above", count(n as u64, "node")),
        };
        out.push_str(&format!("Override  add --force --reason \"...\"  ({cut_off})\n"));
    } else {
        out.push_str("Wait      carousel check      (this cannot be overridden)\n");
    }
    out.push_str(&format!("More      carousel explain {code}\n"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::samples::{self, look};

    fn lagging() -> Problem {
        let mut problem = Problem::new(Code::NodesLagging, "2 of 12 nodes have not reached init");
        problem.gate = Some(Box::new(samples::gate()));
        problem
    }

    fn asked(status: &Status) -> Asked<'_> {
        Asked {
            status: Some(status),
            authority: None,
        }
    }

    #[test]
    fn a_closed_gate_says_what_who_that_nothing_is_broken_and_the_dangerous_way_last() {
        let text = page(&lagging(), asked(&samples::status()), &look());
        let expected = "\
refused: nodes_lagging: 2 of 12 nodes have not reached init

  db-07   does not trust the new CA  online, seen 38 s ago, reload fails (4 times)
  edge-3  does not trust the new CA  offline since 2026-09-20 01:45 UTC (15 min)

Nothing was changed. The host CA stays in init, old and new CA are both trusted,
nothing is broken, and there is no deadline (mode: manual).

If the host CA entered update_clients now, 20 of 132 connections would break.

  db-07   its reload failed 4 times:
          `systemctl reload postgresql` exited 1
          look   ssh db-07 journalctl -u carousel-agent -n 50
          test   carousel probe db-07
  edge-3  catches up by itself when it returns, while the old CA is trusted
          gone?  carousel nodes exclude edge-3 --reason \"...\"

Go back   carousel auth rotate --manual --type=host --phase=rollback
Override  add --force --reason \"...\"  (recorded; cuts off the 2 nodes above)
More      carousel explain nodes_lagging
";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_cannot_be_forced_does_not_offer_force() {
        let mut problem = lagging();
        problem.gate.as_mut().unwrap().keys_missing = vec!["tls".into()];
        let text = page(&problem, Asked::default(), &look());
        assert!(!text.contains("--force"), "{text}");
    }

    #[test]
    fn many_laggards_are_grouped_by_what_is_missing() {
        let mut problem = lagging();
        let gate = problem.gate.as_mut().unwrap();
        let one = gate.lagging[1].clone();
        gate.lagging = (0..30)
            .map(|n| Laggard {
                name: format!("n{n}"),
                ..one.clone()
            })
            .collect();
        let text = page(&problem, Asked::default(), &look());
        assert!(text.contains("      30  does not trust the new CA\n"), "{text}");
        assert!(
            text.contains("... 20 more\n") && text.contains("get nodes --lagging=host"),
            "{text}"
        );
    }

    #[test]
    fn a_wrong_step_names_the_one_that_is_legal_now() {
        let detail = "can only switch to phase update_servers from update_clients, current phase is init";
        let asked = Asked {
            authority: Some(AuthorityType::Host),
            ..Asked::default()
        };
        let text = page(&Problem::new(Code::IllegalTransition, detail), asked, &look());
        assert!(
            text.starts_with(&format!("refused: illegal_transition: {detail}\n")),
            "{text}"
        );
        assert!(text.contains("--type=host --phase=update_clients\n"), "{text}");
    }
}
