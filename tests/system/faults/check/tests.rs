use serde_json::json;

use super::*;

fn event(position: u64, fact: &str, cause: &str, data: Value) -> Value {
    json!({"position": position, "type": format!("carousel.{fact}.v1"), "causationid": cause, "data": data})
}

fn grant(authorization: &str) -> Value {
    json!({"authorization": authorization, "holder": "node/a", "issuer": "x", "spki": "k", "usage": "both", "type": "host"})
}

fn good() -> (Vec<Line>, Vec<Value>) {
    let done = json!({"from": "update_servers", "to": "standby"});
    let events = vec![
        event(1, "access.token-created", "c1", json!({})),
        event(2, "authorization.granted", "", grant("a1")),
        event(3, "certificate.issued", "", grant("a1")),
        event(4, "authorization.granted", "", grant("a2")),
        event(5, "node.removed", "c2", json!({"node": "a"})),
        event(6, "rotation.phase-entered", "", done.clone()),
        event(7, "rotation.phase-entered", "", done),
    ];
    let mut lines = ["c1", "c1", "c2"].map(|id| line(acknowledged(id))).to_vec();
    let everything = [
        Entry::Began {
            log: "Embedded".into(),
            seed: 1,
            seconds: 1,
            nodes: 2,
            faults: vec!["Killed".into()],
        },
        Entry::Fault {
            kind: "Killed".into(),
            target: "a".into(),
            state: "ends".into(),
            note: String::new(),
        },
        Entry::Handshakes {
            good: 1,
            unavailable: 0,
        },
        claim(false, false),
        claim(true, true),
        flood(7),
    ];
    lines.extend(everything.map(line));
    (lines, events)
}

fn claim(is_true: bool, believed: bool) -> Entry {
    Entry::Claim {
        claim: "c".into(),
        is_true,
        answer: "a".into(),
        believed,
    }
}

fn flood(to: u64) -> Entry {
    let answers = ["join 401", "join 429", "request 400"].map(|of| (of.to_owned(), 1));
    Entry::Flood {
        joins: 1,
        requests: 1,
        answers: BTreeMap::from(answers),
        from: 5,
        to,
        seconds: 1.0,
    }
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
        plant(&|_, e| e.push(event(8, "access.token-created", "c1", json!({})))),
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
        plant(&|_, e| e.push(event(8, "certificate.issued", "", grant("a1")))),
    );
    expect(
        "was void",
        plant(&|_, e| e.push(event(8, "certificate.issued", "", grant("a2")))),
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
    expect("believed", plant(&|l, _| l.push(line(claim(false, true)))));
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
                holds: None,
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
                seconds: 1.0,
            }))
        }),
    );
    expect(
        "does not hold",
        plant(&|l, _| {
            l.push(line(Entry::Start {
                on: "x".into(),
                must_fail: false,
                ready: true,
                holds: Some(false),
                said: "x".into(),
            }))
        }),
    );
    expect(
        "left 41 events",
        plant(&|l, e| {
            e.extend((8..48).map(|at| event(at, "command.refused", "", json!({}))));
            e.push(event(48, "node.joined", "", json!({"hostname": EVIL})));
            l.push(line(flood(48)));
        }),
    );
}

#[test]
fn a_run_in_which_something_never_happened_proves_nothing() {
    let without = |gone: fn(&Entry) -> bool| plant(&|l, _| l.retain(|line| !gone(&line.entry)));
    expect(
        "the fault Killed never happened",
        without(|e| matches!(e, Entry::Fault { .. })),
    );
    expect(
        "no connection between nodes",
        without(|e| matches!(e, Entry::Handshakes { .. })),
    );
    expect(
        "no lie",
        without(|e| matches!(e, Entry::Claim { is_true: false, .. })),
    );
    expect(
        "no truth",
        without(|e| matches!(e, Entry::Claim { is_true: true, .. })),
    );
    expect("no rotation", plant(&|_, e| drop(e.pop())));
    let only_limited = |l: &mut Vec<Line>, _: &mut Vec<Value>| {
        for line in l {
            if let Entry::Flood { answers, .. } = &mut line.entry {
                answers.remove("join 401");
            }
        }
    };
    expect("no bad join was looked at", plant(&only_limited));
}

#[test]
fn a_no_must_be_in_words_that_help() {
    for (code, said) in [
        (3, "refused: nodes_lagging: two nodes"),
        (4, "unreachable: nobody at"),
        (5, "not yet"),
        (0, ""),
        // The identity was to be renewed just then.
        (
            4,
            "! admin.identity could not be renewed: reset by peer\nunreachable: https://cp: refused\n",
        ),
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
