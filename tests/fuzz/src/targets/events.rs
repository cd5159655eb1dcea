//! Records of the log: decoding, older shapes, and the fold.

use std::{fs, path::Path, sync::OnceLock};

use domain::{Event, desired, duty, evolve::apply, standing};
use eventlog::{Stored, Subject};
use execution::codec::{Circumstances, decode, encode};
use serde_json::Value;

use crate::{Form, edit, made::made, speaks};

pub(crate) fn run(input: &[u8]) {
    let data = match Form::of(input) {
        Form::Raw(raw) => raw.to_vec(),
        Form::Edits(_, mut u) => {
            let goldens = goldens();
            let which = u.int_in_range(0..=goldens.len() - 1).unwrap_or(0);
            let mut document = goldens[which].clone();
            // An input that ends early leaves the document as it is by then.
            let _ = edit::json(&mut u, &mut document);
            let mut data = serde_json::to_vec(&document).expect("JSON is written");
            if u.ratio(1, 8).unwrap_or(false) {
                let _ = edit::bytes(&mut u, &mut data);
            }
            data
        }
    };
    match decode(&stored(data)) {
        Err(error) => speaks(&error),
        Ok(event) => {
            repeats(&event);
            folds(&event);
        }
    }
}

/// What was read is written and read again to the same.
fn repeats(event: &Event) {
    let header = &event.header;
    let circumstances = Circumstances {
        time: header.time,
        actor: header.actor.clone(),
        credential: header.credential.clone(),
        command: header.command.clone(),
        reason: header.reason.clone(),
        decided_at: header.decided_at,
        traceparent: None,
        service: "orchestrator",
    };
    let new = encode(&made().cluster, &event.fact, &circumstances);
    let again = decode(&stored(new.data.to_vec())).expect("what this version writes it reads");
    assert_eq!(again.fact, event.fact);
    let again = domain::Header {
        id: header.id,
        ..again.header
    };
    assert_eq!(again, *header);
}

/// The fold takes every event in every state, counts as it would from the beginning, and what is made of a state is made.
fn folds(event: &Event) {
    for state in &made().states {
        let mut state = state.clone();
        for _ in 0..2 {
            apply(&mut state, event);
            assert_eq!(standing::miscounted(&state), None);
            duty(&state, event);
            domain::owed(&state, state.time);
            for node in state.nodes.keys() {
                desired(&state, node);
            }
        }
    }
}

fn stored(data: Vec<u8>) -> Stored {
    Stored {
        position: 1_000,
        subject: Subject::parse("carousel.v1.acme_cluster.evt.node.x").expect("a subject"),
        data: data.into(),
    }
}

/// One event of each type and of each older shape.
fn goldens() -> &'static [Value] {
    static GOLDENS: OnceLock<Vec<Value>> = OnceLock::new();
    GOLDENS.get_or_init(|| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../golden/events");
        let mut paths: Vec<_> = fs::read_dir(dir)
            .expect("the golden events are there")
            .map(|entry| entry.expect("a directory is listed").path())
            .collect();
        paths.sort();
        let read = |path| serde_json::from_slice(&fs::read(path).expect("readable")).expect("JSON");
        paths.into_iter().map(read).collect()
    })
}
