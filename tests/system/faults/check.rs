//! What must be true of a run, whatever happened in it. Reads the record and the log alone, so that a kept record can be
//! judged again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::record::{Entry, Line};

/// The control plane of 40 nodes under a flood holds less than this, in a debug build too.
const SERVE_KIB: u64 = 512 * 1024;
/// An agent likewise.
const AGENT_KIB: u64 = 128 * 1024;
/// So many events may 20,000 bad joins and as many bad requests leave in the log: equal refusals within a minute are
/// one, and those of strangers one in all.
const FLOOD_EVENTS: u64 = 40;

/// The name that the flood asks for.
pub(crate) const EVIL: &str = "evil.test";

/// Everything that was wrong, in words; nothing is well.
pub(crate) fn violations(lines: &[Line], events: &[Value]) -> Vec<String> {
    let mut found = vec![];
    found.extend(gaps(events));
    found.extend(acknowledged_once(lines, events));
    found.extend(issued_as_authorised(events));
    for line in lines {
        let alone = judged_alone(&line.entry).into_iter();
        found.extend(
            alone
                .chain(flooded(&line.entry, events))
                .map(|why| said(line, &why)),
        );
    }
    found.extend(never_tried(lines, events));
    found
}

/// A run in which something did not happen says nothing about it.
fn never_tried(lines: &[Line], events: &[Value]) -> Vec<String> {
    let mut missing = vec![];
    let ended: BTreeSet<&str> = lines
        .iter()
        .filter_map(|line| match &line.entry {
            Entry::Fault { kind, state, .. } if state == "ends" => Some(kind.as_str()),
            _ => None,
        })
        .collect();
    let (mut good, mut truths, mut lies) = (0, 0, 0);
    for line in lines {
        match &line.entry {
            Entry::Began { faults, .. } => {
                let never = faults.iter().filter(|fault| !ended.contains(fault.as_str()));
                missing.extend(never.map(|fault| format!("the fault {fault} never happened")));
            }
            Entry::Handshakes { good: more, .. } => good += more,
            Entry::Claim {
                is_true, believed, ..
            } => {
                truths += u32::from(*is_true && *believed);
                lies += u32::from(!is_true);
            }
            Entry::Flood { answers, .. } => {
                let kinds = ["join", "request"].into_iter();
                let unheard = kinds.filter(|kind| !answers.keys().any(|of| is_judged(of, kind)));
                missing.extend(unheard.map(|kind| format!("no bad {kind} was looked at: {answers:?}")));
            }
            _ => {}
        }
    }
    let completed = events.iter().filter(|event| completes(event)).count();
    let enough = [
        ("connection between nodes that was good", good > 0),
        ("lie", lies > 0),
        ("truth that was believed from whoever lied before", truths > 0),
        // One more is made at the end, when everything is whole.
        ("rotation that was completed under fire", completed > 1),
    ];
    let none = enough.iter().filter(|(_, enough)| !enough);
    missing.extend(none.map(|(what, _)| format!("there was no {what}")));
    missing
}

fn completes(event: &Value) -> bool {
    let (from, to) = (text(&event["data"], "from"), text(&event["data"], "to"));
    is(event, "rotation.phase-entered") && (from, to) == ("update_servers", "standby")
}

/// `join 401`: an answer of this kind that is more than a word about the rate.
fn is_judged(answer: &str, kind: &str) -> bool {
    answer.starts_with(kind) && !answer.ends_with(" 429")
}

/// What a flood left in the log, if it is too much.
fn flooded(entry: &Entry, events: &[Value]) -> Option<String> {
    let Entry::Flood {
        from,
        to,
        joins,
        requests,
        ..
    } = entry
    else {
        return None;
    };
    let grown = refusals(events, *from, *to);
    (grown > FLOOD_EVENTS)
        .then(|| format!("{joins} bad joins and {requests} bad requests left {grown} events"))
}

fn said(line: &Line, why: &str) -> String {
    format!("at {:.1} s: {why}", line.at_ms as f64 / 1000.0)
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn is(event: &Value, fact: &str) -> bool {
    text(event, "type") == format!("carousel.{fact}.v1")
}

/// Positions count from one without a gap.
fn gaps(events: &[Value]) -> Option<String> {
    let wrong = (1_u64..)
        .zip(events)
        .find(|(position, event)| event["position"] != *position);
    wrong.map(|(position, event)| format!("position {position} holds {}", event["position"]))
}

/// What was answered with yes is in the log once, however often it was asked; and no command was done twice.
fn acknowledged_once(lines: &[Line], events: &[Value]) -> Vec<String> {
    let mut done: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    let facts = [
        "rotation.phase-entered",
        "access.token-created",
        "command.noop",
        "node.removed",
        "node.excluded",
        "cluster.clock-accepted",
    ];
    for event in events
        .iter()
        .filter(|event| facts.iter().any(|fact| is(event, fact)))
    {
        done.entry(text(event, "causationid")).or_default().push(event);
    }
    // Steps of the schedule are nobody's command.
    done.remove("");
    let twice = done.iter().filter(|(_, events)| events.len() > 1);
    let mut found: Vec<_> = twice
        .map(|(id, events)| format!("command {id} was done twice: {events:?}"))
        .collect();
    let mut answers: BTreeMap<&str, &Value> = BTreeMap::new();
    for line in lines {
        let Entry::Command {
            command,
            id: Some(id),
            code: 0,
            answer,
            ..
        } = &line.entry
        else {
            continue;
        };
        if !done.contains_key(id.as_str()) {
            found.push(said(
                line,
                &format!("{command} ({id}) was acknowledged and is not in the log"),
            ));
        }
        let first = answers.entry(id).or_insert(answer);
        if first["answer"] != answer["answer"] || first["id"] != answer["id"] {
            found.push(said(
                line,
                &format!("{command} ({id}) was answered {first} and later {answer}"),
            ));
        }
    }
    found
}

/// Each certificate is what one authorisation before it says, the only one for it, and for nobody who was removed or
/// whose authorisation was void.
fn issued_as_authorised(events: &[Value]) -> Vec<String> {
    let (mut granted, mut void) = (BTreeMap::new(), BTreeSet::new());
    let (mut issued, mut removed) = (BTreeSet::new(), BTreeSet::new());
    let mut found = vec![];
    for event in events {
        let (data, position) = (&event["data"], &event["position"]);
        let authorization = text(data, "authorization");
        if is(event, "authorization.granted") {
            granted.insert(authorization, data);
        } else if is(event, "authorization.voided") {
            void.insert(authorization);
        } else if is(event, "node.removed") {
            removed.insert(format!("node/{}", text(data, "node")));
        } else if is(event, "certificate.issued") {
            let same = |grant: &&&Value| {
                ["holder", "issuer", "spki", "usage", "type"]
                    .iter()
                    .all(|f| grant[f] == data[f])
            };
            if granted.get(authorization).filter(same).is_none() {
                found.push(format!(
                    "position {position}: a certificate that nobody authorised"
                ));
            }
            if !issued.insert(authorization) {
                found.push(format!(
                    "position {position}: a second certificate for {authorization}"
                ));
            }
            if void.contains(authorization) || removed.contains(text(data, "holder")) {
                found.push(format!(
                    "position {position}: a certificate after its authorisation was void"
                ));
            }
        }
    }
    found
}

/// How many refusals the log took in from one position to another, and whatever else names who must not get in.
fn refusals(events: &[Value], from: u64, to: u64) -> u64 {
    let within = |event: &&Value| event["position"].as_u64().is_some_and(|at| at > from && at <= to);
    let count = events.iter().filter(within).filter(|e| {
        is(e, "command.refused") || is(e, "certificate.refused") || text(&e["data"], "hostname") == EVIL
    });
    count.count() as u64
}

/// What a line says by itself.
fn judged_alone(entry: &Entry) -> Option<String> {
    match entry {
        Entry::Distrust {
            from,
            to,
            why,
            excused,
        } if excused.is_empty() => Some(format!("{from} and {to} lost each other: {why}")),
        Entry::Claim {
            claim,
            is_true: false,
            answer,
            believed: true,
        } => Some(format!("a lie was believed: {claim}, {answer}")),
        Entry::Memory { process, peak_kib } => {
            let most = if process == "serve" { SERVE_KIB } else { AGENT_KIB };
            (*peak_kib > most).then(|| format!("{process} held {peak_kib} KiB, more than {most}"))
        }
        // What the API says has a code of its own; the words are those of the command line.
        Entry::Command {
            command,
            id: None,
            code,
            said,
            ..
        } => unclear(*code, said).map(|why| format!("{command}: {why} (exit code {code})\n{said}")),
        Entry::Died { process, said } => Some(format!("{process} ended by itself:\n{said}")),
        Entry::Start {
            on,
            must_fail,
            ready,
            holds,
            said,
        } => {
            if *holds == Some(false) {
                Some(format!("serve started on {on}, and the log does not hold"))
            } else if *must_fail && *ready {
                Some(format!("serve started on {on}"))
            } else if !ready && (said.contains("panicked") || said.trim().is_empty()) {
                Some(format!("serve on {on} did not say what is wrong:\n{said}"))
            } else {
                None
            }
        }
        Entry::Ended {
            verify_code,
            differing,
            ..
        } => {
            let well = *verify_code == 0 && differing.is_empty();
            (!well).then(|| format!("at the end: {entry:?}"))
        }
        Entry::Began { .. }
        | Entry::Fault { .. }
        | Entry::Handshakes { .. }
        | Entry::Distrust { .. }
        | Entry::Claim { .. }
        | Entry::Command { .. }
        | Entry::Flood { .. } => None,
    }
}

/// What is wrong with how a command said no. It may have warned of something else before, as that the identity could not be
/// renewed yet.
fn unclear(code: i32, said: &str) -> Option<&'static str> {
    if said.contains("panicked") {
        return Some("it panicked");
    }
    let warned = said
        .split_inclusive('\n')
        .take_while(|line| line.starts_with("! "));
    let said = &said[warned.map(str::len).sum::<usize>()..];
    let refusal = said
        .strip_prefix("refused: ")
        .and_then(|rest| rest.split_once(": "));
    match code {
        0 => None,
        3 if refusal.is_none_or(|(code, _)| domain_code(code).is_none()) => Some("a refusal without a code"),
        3 => None,
        4 if !said.starts_with("unreachable: ") => Some("it does not say that nobody answered"),
        4 | 5 => None,
        _ => Some("neither refused, nor unreachable, nor not yet"),
    }
}

fn domain_code(name: &str) -> Option<domain::Code> {
    domain::Code::ALL.iter().copied().find(|code| code.name() == name)
}

#[cfg(test)]
mod tests;
