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

/// Everything that was wrong, in words; nothing is well.
pub(crate) fn violations(lines: &[Line], events: &[Value]) -> Vec<String> {
    let mut found = vec![];
    found.extend(gaps(events));
    found.extend(acknowledged_once(lines, events));
    found.extend(issued_as_authorised(events));
    found.extend(
        lines
            .iter()
            .filter_map(|line| judged_alone(&line.entry).map(|why| said(line, &why))),
    );
    for line in lines {
        if let Entry::Flood {
            from,
            to,
            joins,
            requests,
            ..
        } = &line.entry
        {
            let grown = refusals(events, *from, *to);
            if grown > FLOOD_EVENTS {
                let why = format!("{joins} bad joins and {requests} bad requests left {grown} events");
                found.push(said(line, &why));
            }
        }
    }
    found
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

/// How many refusals the log took in from one position to another.
fn refusals(events: &[Value], from: u64, to: u64) -> u64 {
    let within = |event: &&Value| event["position"].as_u64().is_some_and(|at| at > from && at <= to);
    let count = events
        .iter()
        .filter(within)
        .filter(|e| is(e, "command.refused") || is(e, "certificate.refused"));
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
        Entry::Lie {
            claim,
            answer,
            believed: true,
        } => Some(format!("a lie was believed: {claim}, {answer}")),
        Entry::Memory { process, peak_kib } => {
            let most = if process == "serve" { SERVE_KIB } else { AGENT_KIB };
            (*peak_kib > most).then(|| format!("{process} held {peak_kib} KiB, more than {most}"))
        }
        Entry::Command {
            command, code, said, ..
        } => unclear(*code, said).map(|why| format!("{command}: {why} (exit code {code})\n{said}")),
        Entry::Died { process, said } => Some(format!("{process} ended by itself:\n{said}")),
        Entry::Start {
            on,
            must_fail,
            ready,
            said,
        } => {
            if *must_fail && *ready {
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
            settled,
            ..
        } => {
            let well = *verify_code == 0 && differing.is_empty() && *settled;
            (!well).then(|| format!("at the end: {entry:?}"))
        }
        Entry::Began { .. }
        | Entry::Fault { .. }
        | Entry::Handshakes { .. }
        | Entry::Distrust { .. }
        | Entry::Lie { .. }
        | Entry::Flood { .. } => None,
    }
}

/// What is wrong with how a command said no.
fn unclear(code: i32, said: &str) -> Option<&'static str> {
    if said.contains("panicked") {
        return Some("it panicked");
    }
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
mod tests {
    use serde_json::json;

    use super::*;

    fn event(position: u64, fact: &str, cause: &str, data: Value) -> Value {
        json!({"position": position, "type": format!("carousel.{fact}.v1"), "causationid": cause, "data": data})
    }

    fn grant(authorization: &str) -> Value {
        json!({"authorization": authorization, "holder": "node/a", "issuer": "x", "spki": "k", "usage": "both", "type": "host"})
    }

    fn good() -> (Vec<Line>, Vec<Value>) {
        let events = vec![
            event(1, "access.token-created", "c1", json!({})),
            event(2, "authorization.granted", "", grant("a1")),
            event(3, "certificate.issued", "", grant("a1")),
            event(4, "authorization.granted", "", grant("a2")),
            event(5, "node.removed", "c2", json!({"node": "a"})),
        ];
        let lines = ["c1", "c1", "c2"].map(|id| line(acknowledged(id))).to_vec();
        (lines, events)
    }

    fn line(entry: Entry) -> Line {
        Line { at_ms: 0, entry }
    }

    fn acknowledged(id: &str) -> Entry {
        Entry::Command {
            command: "tokens".into(),
            id: Some(id.into()),
            code: 0,
            answer: json!({"id": id}),
            said: String::new(),
        }
    }

    type Change<'a> = &'a dyn Fn(&mut Vec<Line>, &mut Vec<Value>);

    fn plant(change: Change<'_>) -> Vec<String> {
        let (mut lines, mut events) = good();
        change(&mut lines, &mut events);
        violations(&lines, &events)
    }

    fn expect(what: &str, found: Vec<String>) {
        assert!(found.iter().any(|f| f.contains(what)), "{what}: {found:?}");
    }

    #[test]
    fn a_good_record_has_no_violation_and_each_one_planted_in_the_log_is_found() {
        let (lines, events) = good();
        assert_eq!(violations(&lines, &events), Vec::<String>::new());
        expect("position 2 holds 3", plant(&|_, e| drop(e.remove(1))));
        expect(
            "is not in the log",
            plant(&|l, _| l.push(line(acknowledged("c3")))),
        );
        expect(
            "done twice",
            plant(&|_, e| e.push(event(6, "access.token-created", "c1", json!({})))),
        );
        expect(
            "later",
            plant(&|l, _| {
                l.push(line(Entry::Command {
                    command: "tokens".into(),
                    id: Some("c1".into()),
                    code: 0,
                    answer: json!({"id": "c4"}),
                    said: String::new(),
                }));
            }),
        );
        expect(
            "nobody authorised",
            plant(&|_, e| e[2]["data"]["holder"] = json!("node/b")),
        );
        expect(
            "a second certificate",
            plant(&|_, e| e.push(event(6, "certificate.issued", "", grant("a1")))),
        );
        expect(
            "was void",
            plant(&|_, e| e.push(event(6, "certificate.issued", "", grant("a2")))),
        );
    }

    #[test]
    fn each_violation_planted_in_the_record_is_found() {
        let lost = |excused: Vec<String>| Entry::Distrust {
            from: "a".into(),
            to: "b".into(),
            why: "issuer".into(),
            excused,
        };
        expect("lost each other", plant(&|l, _| l.push(line(lost(vec![])))));
        assert!(plant(&|l, _| l.push(line(lost(vec!["restored".into()])))).is_empty());
        expect(
            "believed",
            plant(&|l, _| {
                l.push(line(Entry::Lie {
                    claim: "c".into(),
                    answer: "a".into(),
                    believed: true,
                }))
            }),
        );
        expect(
            "held",
            plant(&|l, _| {
                l.push(line(Entry::Memory {
                    process: "serve".into(),
                    peak_kib: SERVE_KIB + 1,
                }))
            }),
        );
        expect(
            "started on",
            plant(&|l, _| {
                l.push(line(Entry::Start {
                    on: "x".into(),
                    must_fail: true,
                    ready: true,
                    said: "x".into(),
                }))
            }),
        );
        expect(
            "at the end",
            plant(&|l, _| {
                l.push(line(Entry::Ended {
                    verify_code: 0,
                    differing: vec!["nodes".into()],
                    settled: true,
                    seconds: 1.0,
                }))
            }),
        );
        expect(
            "left 41 events",
            plant(&|l, e| {
                e.extend((6..47).map(|at| event(at, "command.refused", "", json!({}))));
                l.push(line(Entry::Flood {
                    joins: 1,
                    requests: 1,
                    answers: BTreeMap::new(),
                    from: 5,
                    to: 46,
                    seconds: 1.0,
                }));
            }),
        );
    }

    #[test]
    fn a_no_must_be_in_words_that_help() {
        for (code, said) in [
            (3, "refused: nodes_lagging: two nodes"),
            (4, "unreachable: nobody at"),
            (5, "not yet"),
            (0, ""),
        ] {
            assert_eq!(unclear(code, said), None, "{said}");
        }
        for (code, said) in [
            (3, "refused: oh_no: x"),
            (3, "no"),
            (1, "failed: x"),
            (4, "x"),
            (3, "refused: stale_view: thread panicked at"),
        ] {
            assert!(unclear(code, said).is_some(), "{code} {said}");
        }
    }
}
