//! A refusal at 3 a.m.: what, who, am I in danger, the consequence, the remedies, and the dangerous way last.

use api::{
    Problem,
    problem::{Connections, GateDetails, Laggard, TimeConditionDoc},
    shape::Status,
};
use domain::{AuthorityType, Code, Phase};

use super::status::{laggards, seen};
use crate::text::{Look, count, utc, wrap};

use instead::instead;

mod instead;

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
            if problem.status < 500 {
                out.push_str("Nothing was changed.\n");
            }
            instead(&mut out, problem, asked);
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
        "Nothing was changed. The {name} CA stays in {}, {}{}{deadline}.",
        gate.from,
        trusted_in(gate.from),
        danger(gate)
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
        remedies(out, gate, look);
    }
    ways(out, code, gate);
}

/// Am I in danger? As the oracle counted it; where nobody counted, nothing is claimed.
fn danger(gate: &GateDetails) -> String {
    match gate.broken_now {
        None => String::new(),
        Some(Connections { broken: 0, .. }) => ", nothing is broken".into(),
        Some(Connections { broken, total }) => {
            format!(", but {broken} of {total} connections are broken already")
        }
    }
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
    lines.extend(beside_nodes(gate));
    if !lines.is_empty() {
        out.push_str(&format!("\n{}\n", lines.join("\n")));
    }
}

/// What a gate waits for that no node can bring.
pub(crate) fn beside_nodes(gate: &GateDetails) -> Vec<String> {
    let mut lines = Vec::new();
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
        for holder in condition.holders.iter().take(NAMED) {
            lines.push(format!(
                "  {holder}  holds a certificate of the retiring CA, at most until {}",
                utc(condition.until)
            ));
        }
        let more = condition.holders.len().saturating_sub(NAMED);
        if more > 0 {
            lines.push(format!("  ... {more} more"));
        }
    }
    if let Some(until) = gate.published_until {
        lines.push(format!(
            "  the new key is published until {} before it signs",
            utc(until)
        ));
    }
    lines
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
fn remedies(out: &mut String, gate: &GateDetails, look: &Look) {
    let lagging = &gate.lagging;
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
                "  {name:width$}  {}, {}\n{indent}test   carousel probe {name}\n",
                standing(laggard, gate),
                seen(laggard, look)
            ));
        } else {
            out.push_str(&format!(
                "  {name:width$}  catches up by itself when it returns, while the old CA is trusted\n{indent}gone?  carousel nodes exclude {name} --reason \"...\"\n"
            ));
        }
    }
}

/// Said after a forced step: who cannot come in any more, and how they get in again.
pub fn locked_out(condition: &TimeConditionDoc) -> String {
    format!(
        "locked out: {}, whose certificates would have lasted until {} at most; an administrator gives them new ones \
         (carousel users rm NAME, carousel users add NAME)",
        some(&condition.holders),
        utc(condition.until)
    )
}

/// What forcing would cost, as the oracle counted it: never more and never less than it does.
fn price(gate: &GateDetails) -> String {
    let mut parts = Vec::new();
    let is_lagging = |name: &String| gate.lagging.iter().any(|l| l.name == *name);
    match (&gate.cut_off[..], gate.if_forced) {
        (_, None) => parts.push("what it breaks was not counted".into()),
        ([], Some(Connections { broken: 0, .. })) => {}
        ([], Some(Connections { broken, total })) => {
            parts.push(format!("{broken} of {total} connections stay broken"));
        }
        (cut_off, Some(_)) if cut_off.len() == gate.lagging.len() && cut_off.iter().all(is_lagging) => {
            parts.push(format!(
                "cuts off the {} above",
                count(cut_off.len() as u64, "node")
            ));
        }
        (cut_off, Some(_)) => parts.push(format!("cuts off {}", some(cut_off))),
    }
    if let Some(condition) = &gate.time_condition {
        parts.push(format!(
            "locks out {} until they get a new certificate",
            some(&condition.holders)
        ));
    }
    if !gate.consumers.is_empty() {
        parts.push(format!("leaves {} behind", some(&gate.consumers)));
    }
    if gate.published_until.is_some() {
        parts.push("who has not read the new key yet cannot verify by it".into());
    }
    if parts.is_empty() {
        return "nothing would break".into();
    }
    parts.join("; ")
}

fn some(names: &[String]) -> String {
    let shown = names.iter().take(NAMED).map(String::as_str);
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if names.len() > NAMED {
        text.push_str(&format!(" and {} more", names.len() - NAMED));
    }
    text
}

/// What is known of a node that is online and lags. That it works on it nobody knows.
fn standing(laggard: &Laggard, gate: &GateDetails) -> String {
    let has_reported = !matches!(laggard.missing.as_str(), "stale_facts" | "no_facts");
    match gate.since {
        _ if has_reported => "has reported since the step, and still lacks it".into(),
        Some(step) => format!("has not reported since the step ({})", utc(step)),
        None => "has not reported since the step".into(),
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
        let price = wrap(&format!("(recorded; {})", price(gate)), 60, "          ");
        out.push_str(&format!("Override  add --force --reason \"...\"  {price}\n"));
    } else {
        out.push_str("Wait      carousel check      (this cannot be overridden)\n");
    }
    out.push_str(&format!("More      carousel explain {code}\n"));
}

#[cfg(test)]
mod tests;
