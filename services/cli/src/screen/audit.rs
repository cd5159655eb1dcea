//! The log as people read it: rows, one event in full, differences, and what a verification found.

use std::collections::BTreeMap;

use api::{
    audit::{DiffDoc, EventAudit, VerifyOutcome, VerifyReport},
    shape::Status,
};
use domain::{Credential, Event, Fact, Principal, Timestamp, event::GateRecord, plain};

use super::{
    describe::{Described, Names, author, describe},
    lists::role_name,
};
use crate::text::{Cell, Look, Paint, moment, thousands, utc};

/// Events of a kind that are further apart than this are not folded into one row.
const FOLD_GAP_MS: u64 = 60_000;
const HEADS: [&str; 4] = ["POS", "TIME (UTC)", "WHO", "WHAT"];
/// Widths of the columns where later rows are not known yet.
const USUAL: Widths = [7, 23, 16, 47];

/// How wide the columns before the last are.
type Widths = [usize; 4];

/// One row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    position: u64,
    first: Timestamp,
    last: Timestamp,
    events: u64,
    said: Described,
}

/// Rows for these events, oldest first; runs of reports and of certificates become one row each unless `all`.
pub fn rows<'a>(events: impl IntoIterator<Item = &'a Event>, names: &Names, all: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    // The open row of each foldable kind, by its place in `rows`.
    let mut open: BTreeMap<&'static str, usize> = BTreeMap::new();
    for event in events {
        let Some(kind) = fold_kind(&event.fact).filter(|_| !all) else {
            open.clear();
            rows.push(single(event, names));
            continue;
        };
        let place = open
            .get(kind)
            .copied()
            .filter(|at| event.header.time.since_ms(rows[*at].last) <= FOLD_GAP_MS);
        match place {
            Some(at) => {
                rows[at].events += 1;
                rows[at].last = event.header.time;
            }
            None => {
                open.insert(kind, rows.len());
                rows.push(single(event, names));
            }
        }
        let row = &mut rows[open[kind]];
        if row.events > 1 {
            row.said.what = folded(kind, row.events);
            row.said.who = kind.into();
        }
    }
    rows
}

/// What is folded with its like.
fn fold_kind(fact: &Fact) -> Option<&'static str> {
    match fact {
        Fact::NodeReported(f) if f.report.failure.is_none() => Some("nodes"),
        Fact::AuthorizationGranted(_) | Fact::CertificateIssued(_) => Some("signer"),
        Fact::AuthorityBundleSigned(_) => Some("bundles"),
        Fact::MemberReported(_) => Some("gateway"),
        _ => None,
    }
}

fn folded(kind: &str, events: u64) -> String {
    match kind {
        "nodes" => format!("{events} node reports"),
        "signer" => format!("{events} events: certificates authorised and issued"),
        "bundles" => format!("{events} trust bundles signed"),
        _ => format!("{events} reports of gateways"),
    }
}

fn single(event: &Event, names: &Names) -> Row {
    Row {
        position: event.header.position.0,
        first: event.header.time,
        last: event.header.time,
        events: 1,
        said: describe(event, names),
    }
}

/// The whole table. A reason is never cut.
pub fn table(rows: &[Row], look: &Look) -> String {
    let mut widths = HEADS.map(str::len);
    for row in rows {
        let texts = texts(row, look);
        for (width, text) in widths.iter_mut().zip(&texts) {
            *width = (*width).max(text.chars().count());
        }
    }
    let lines = rows.iter().map(|row| line_of(row, &widths, look));
    std::iter::once(head_of(&widths)).chain(lines).collect()
}

/// The head above what is followed.
pub fn head() -> String {
    head_of(&USUAL)
}

/// One row of what is followed: the columns are fixed, and a long cell pushes the rest on.
pub fn line(row: &Row, look: &Look) -> String {
    line_of(row, &USUAL, look)
}

fn head_of(widths: &Widths) -> String {
    let cells: Vec<String> = HEADS
        .iter()
        .zip(widths)
        .map(|(head, width)| format!("{head:width$}"))
        .collect();
    format!("{}  WHY\n", cells.join("  "))
}

fn line_of(row: &Row, widths: &Widths, look: &Look) -> String {
    let paints = [Paint::Plain, Paint::Plain, Paint::Plain, row.said.paint];
    let cells: Vec<String> = texts(row, look)
        .into_iter()
        .zip(paints)
        .zip(widths)
        .map(|((text, paint), width)| Cell::painted(paint, text).padded(*width, look))
        .collect();
    format!("{}  {}\n", cells.join("  "), row.said.why)
}

fn texts(row: &Row, look: &Look) -> [String; 4] {
    let folded = row.events > 1;
    let position = if folded {
        format!("{}{}", row.position, look.ellipsis())
    } else {
        row.position.to_string()
    };
    let time = if folded {
        span_of(row.first, row.last)
    } else {
        moment(row.first)
    };
    // Short pins hold the one sign beyond ASCII.
    let what = row.said.what.replace('…', look.ellipsis());
    [position, time, row.said.who.clone(), what]
}

/// From when to when, to the second: what both share is written once.
fn span_of(first: Timestamp, last: Timestamp) -> String {
    let (from, to) = (moment(first), moment(last));
    let (from, to) = (&from[..19], &to[..19]);
    if from == to {
        from.into()
    } else if from[..17] == to[..17] {
        format!("{from}-{}", &to[17..])
    } else {
        format!("{from}-{}", &to[11..])
    }
}

/// One event in full.
pub fn show(
    event: &Event,
    type_name: &str,
    audit: Option<&EventAudit>,
    traceparent: Option<&str>,
    led_to: &[String],
    names: &Names,
) -> String {
    let header = &event.header;
    let said = describe(event, names);
    let mut out = format!("Event {}   {type_name}   {}\n", header.position, header.id);
    out.push_str(&format!("When   {} UTC\n", moment(header.time)));
    let by = match &header.credential {
        Some(Credential::Certificate(digest)) => format!(", certificate {digest}"),
        Some(Credential::Subject(subject)) => format!(", by a message on {}", plain(subject)),
        None => String::new(),
    };
    out.push_str(&format!(
        "Who    {} ({}){by}\n",
        author(event, names),
        standing(&header.actor, audit)
    ));
    out.push_str(&format!("What   {}\n", said.what));
    if let Fact::CommandRefused(f) = &event.fact {
        out.push_str(&format!("       {}\n", f.text));
    }
    out.push_str(&format!("Why    {}\n", said.why));
    if let Fact::RotationPhaseEntered(f) = &event.fact {
        // Nothing is counted for the step into a rotation.
        let is_evaluated = f.gate != GateRecord::default();
        out.push_str(&if is_evaluated {
            format!(
                "Gate   at position {}: required {}, reached {}, excluded {}, overridden {}\n",
                f.gate.position, f.gate.required, f.gate.reached, f.gate.excluded, f.gate.overridden
            )
        } else {
            "Gate   none: this step waits for nobody\n".into()
        });
        if !f.passed_over.is_empty() {
            out.push_str(&format!("Over   {}\n", f.passed_over.join(", ")));
        }
    }
    if let Some(command) = &header.command {
        out.push_str(&format!("Cause  command {}\n", command.id));
    }
    for (at, line) in led_to.iter().enumerate() {
        out.push_str(if at == 0 { "Led to " } else { "       " });
        out.push_str(line);
        out.push('\n');
    }
    if let Some(audit) = audit {
        let verdict = match audit.outcome {
            VerifyOutcome::Ok => "",
            VerifyOutcome::Failed => "FAILED: ",
            VerifyOutcome::Skipped => "not decided again: ",
        };
        out.push_str(&format!("Check  {verdict}{}\n", audit.text));
    }
    if let Some(trace) = traceparent {
        out.push_str(&format!("Trace  {trace}\n"));
    }
    let before = header.position.0.saturating_sub(1);
    out.push_str(&format!(
        "\nState before and after: carousel audit diff {before} {}     Raw: --format=json\n",
        header.position
    ));
    out
}

/// What the actor was: an operator by the roles of then, everybody else by the principal.
fn standing(actor: &Principal, audit: Option<&EventAudit>) -> String {
    let roles: Vec<_> = audit
        .into_iter()
        .flat_map(|audit| &audit.roles)
        .map(|role| role_name(*role))
        .collect();
    if roles.is_empty() {
        actor.to_string()
    } else {
        roles.join(", ")
    }
}

/// What differs between two moments.
pub fn diff(diff: &DiffDoc, look: &Look) -> String {
    let mut out = format!("From position {} to {}\n", diff.before, diff.after);
    if diff.changes.is_empty() {
        out.push_str("Nothing differs.\n");
    }
    for change in &diff.changes {
        out.push_str(&format!("{}\n", change.path));
        if let Some(before) = &change.before {
            out.push_str(&format!("  {}\n", look.paint(Paint::Bad, &format!("- {before}"))));
        }
        if let Some(after) = &change.after {
            out.push_str(&format!("  {}\n", look.paint(Paint::Good, &format!("+ {after}"))));
        }
    }
    out
}

/// `audit verify`: a line per check with counts, and the verdict.
pub fn verification(report: &VerifyReport, look: &Look) -> String {
    let width = report
        .checks
        .iter()
        .map(|c| c.name.chars().count())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for check in &report.checks {
        let symbol = match check.outcome {
            VerifyOutcome::Ok => look.done(),
            VerifyOutcome::Failed => look.failed(),
            VerifyOutcome::Skipped => look.attention(),
        };
        let place = match check.position {
            Some(position) if check.outcome == VerifyOutcome::Failed => format!("position {position}: "),
            _ => String::new(),
        };
        out.push_str(&format!(
            "{symbol} {:width$}  {place}{}\n",
            check.name, check.text
        ));
    }
    let verdict = if report.verified {
        "Verified"
    } else {
        "NOT verified:"
    };
    out.push_str(&format!(
        "{verdict} {} up to position {} in {:.1} s.\n",
        report.cluster,
        thousands(report.position.0),
        report.seconds
    ));
    out
}

/// The sentence above a replayed view.
pub fn as_of(then: &Status, look: &Look) -> String {
    let when = then.time.map_or_else(String::new, |time| {
        format!(", {} ({} ago)", utc(time), look.ago(time))
    });
    format!("As of position {}{when}\n", then.position)
}

#[cfg(test)]
mod tests;
