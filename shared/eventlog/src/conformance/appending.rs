//! Order, conditions, atomicity and racing writers.

use bytes::Bytes;
use futures::future::join_all;

use super::{Store, at, event, on};
use crate::{Append, AppendError, MAX_EVENT_BYTES, MAX_EVENTS, Outcome, SharedLog, Stored};

/// The first event has position 1, the next one 2, and what is read is what was appended.
pub async fn positions_are_gapless_and_bytes_come_back_unchanged(store: &mut dyn Store) {
    let log = store.open().await;
    assert_eq!(log.last_position().await.unwrap(), 0, "a fresh log is not empty");
    assert_eq!(log.tail(&at("t.a")).await.unwrap(), None);
    assert_eq!(log.read(1, 10).await.unwrap(), []);
    let contents = [
        vec![],
        b"{}".to_vec(),
        (0..=255).collect(),
        vec![7; MAX_EVENT_BYTES],
    ];
    for (index, content) in contents.iter().enumerate() {
        let mut new = event(at("t.a").as_str(), 0);
        new.data = Bytes::from(content.clone());
        let position = index as u64 + 1;
        let outcome = log.append(Append::one(new, None)).await.unwrap();
        assert_eq!(
            outcome,
            Outcome::Stored {
                first: position,
                last: position
            }
        );
    }
    for subject in ["t.b", "t.a", "t.c"] {
        log.append(on(subject, None, 2)).await.unwrap();
    }
    let records = everything(&log).await;
    assert_eq!(records.len(), 10);
    for (record, content) in records.iter().zip(&contents) {
        assert_eq!(record.data, content);
        assert_eq!(record.subject, at("t.a"));
    }
    assert_eq!(log.last_position().await.unwrap(), 10);
    assert_eq!(log.tail(&at("t.a")).await.unwrap().unwrap(), records[7]);
    assert_eq!(log.read(4, 2).await.unwrap(), records[3..5]);
    assert_eq!(log.read(3, 7).await.unwrap()[..], records[2..9]);
    assert_eq!(log.read(10, 10).await.unwrap(), records[9..]);
    assert_eq!(log.read(11, 10).await.unwrap(), []);
    assert_eq!(log.read(0, 1).await.unwrap(), records[..1]);
    assert_eq!(log.read(1, 0).await.unwrap(), []);
}

/// A condition is the position of the subject's last record; a conflict says which one it is.
pub async fn a_condition_holds_or_nothing_is_stored(store: &mut dyn Store) {
    let log = store.open().await;
    log.append(on("t.other", None, 3)).await.unwrap();
    let tries = [
        (Some(1), Outcome::Conflict { tail: 0 }),
        (Some(0), Outcome::Stored { first: 4, last: 4 }),
        (Some(0), Outcome::Conflict { tail: 4 }),
        (Some(3), Outcome::Conflict { tail: 4 }),
        (Some(5), Outcome::Conflict { tail: 4 }),
        (Some(4), Outcome::Stored { first: 5, last: 5 }),
        (None, Outcome::Stored { first: 6, last: 6 }),
        (Some(5), Outcome::Conflict { tail: 6 }),
        (Some(6), Outcome::Stored { first: 7, last: 7 }),
    ];
    for (expected, outcome) in tries {
        assert_eq!(
            log.append(on("t.a", expected, 1)).await.unwrap(),
            outcome,
            "expected {expected:?}"
        );
    }
    for (expected, outcome) in [
        (Some(6), Outcome::Conflict { tail: 7 }),
        (Some(0), Outcome::Conflict { tail: 7 }),
        (Some(7), Outcome::Stored { first: 8, last: 10 }),
    ] {
        assert_eq!(
            log.append(on("t.a", expected, 3)).await.unwrap(),
            outcome,
            "expected {expected:?}, 3 events"
        );
    }
    assert_eq!(everything(&log).await.len(), 10);
}

/// What happens on another subject, also on one below the same family, breaks no condition.
pub async fn conditions_stand_on_one_subject_only(store: &mut dyn Store) {
    let log = store.open().await;
    log.append(on("node.a", Some(0), 1)).await.unwrap();
    log.append(on("node.a-b", Some(0), 1)).await.unwrap();
    log.append(on("node.a_b", Some(0), 1)).await.unwrap();
    assert_eq!(
        log.append(on("node.a", Some(1), 1)).await.unwrap(),
        Outcome::Stored { first: 4, last: 4 }
    );
    // The second event's subject has records already: its condition is not asked for.
    let mixed = Append {
        subject: at("node.c"),
        expected: Some(0),
        events: vec![
            event(at("node.c").as_str(), 0),
            event(at("node.a").as_str(), 1),
            event(at("node.c").as_str(), 2),
        ],
    };
    assert_eq!(
        log.append(mixed).await.unwrap(),
        Outcome::Stored { first: 5, last: 7 }
    );
    assert_eq!(log.tail(&at("node.a")).await.unwrap().unwrap().position, 6);
    assert_eq!(log.tail(&at("node.c")).await.unwrap().unwrap().position, 7);
}

/// The largest append is one act: all its events are neighbours, and a conflict stores none of them.
pub async fn a_thousand_events_are_stored_together_or_not_at_all(store: &mut dyn Store) {
    let log = store.open().await;
    let most = MAX_EVENTS as u64;
    log.append(on("t.a", None, 1)).await.unwrap();
    let racing = {
        let log = log.clone();
        async move {
            for _ in 0..20 {
                log.append(on("t.z", None, 1)).await.unwrap();
            }
        }
    };
    let (outcome, ()) = futures::future::join(log.append(on("t.b", Some(0), most)), racing).await;
    let Ok(Outcome::Stored { first, last }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(last - first + 1, most);
    let records = everything(&log).await;
    assert_eq!(records.len(), 21 + MAX_EVENTS);
    let stretch = &records[first as usize - 1..last as usize];
    assert!(
        stretch.iter().all(|record| record.subject == at("t.b")),
        "another event came in between"
    );
    let outcome = log.append(on("t.b", Some(1), most)).await.unwrap();
    assert_eq!(outcome, Outcome::Conflict { tail: last });
    assert_eq!(
        log.last_position().await.unwrap(),
        21 + most,
        "half of a refused append is there"
    );
}

/// Limits are the same in every store, and nothing of a refused append is kept.
pub async fn what_is_too_large_is_refused_and_leaves_nothing(store: &mut dyn Store) {
    let log = store.open().await;
    let refused = log.append(on("t.a", None, MAX_EVENTS as u64 + 1)).await;
    assert!(
        matches!(refused, Err(AppendError::TooManyEvents { .. })),
        "{refused:?}"
    );
    let mut large = on("t.a", None, 3);
    large.events[1].data = Bytes::from(vec![7; MAX_EVENT_BYTES + 1]);
    let refused = log.append(large).await;
    assert!(
        matches!(refused, Err(AppendError::TooLarge { .. })),
        "{refused:?}"
    );
    let mut large = on("t.a", None, 17);
    for new in &mut large.events {
        new.data = Bytes::from(vec![7; MAX_EVENT_BYTES]);
    }
    let refused = log.append(large).await;
    assert!(
        matches!(refused, Err(AppendError::TooLarge { .. })),
        "{refused:?}"
    );
    let refused = log.append(on("t.a", None, 0)).await;
    assert!(matches!(refused, Err(AppendError::Invalid { .. })), "{refused:?}");
    let mut elsewhere = on("t.a", None, 1);
    elsewhere.subject = at("t.b");
    let refused = log.append(elsewhere).await;
    assert!(matches!(refused, Err(AppendError::Invalid { .. })), "{refused:?}");
    assert_eq!(log.last_position().await.unwrap(), 0);
    assert_eq!(
        log.append(on("t.a", Some(0), 1)).await.unwrap(),
        Outcome::Stored { first: 1, last: 1 }
    );
}

/// One bad append among good ones is refused alone, and those that share a subject take effect in order.
pub async fn independent_appends_have_their_own_outcomes(store: &mut dyn Store) {
    let log = store.open().await;
    let mut appends: Vec<Append> = (0..40)
        .map(|n| on(&format!("t.n{n}"), Some(0), 1 + n % 3))
        .collect();
    appends[7].expected = Some(99);
    appends.push(on("t.n0", Some(1), 1));
    appends.push(on("t.n1", Some(1), 1));
    appends.push(on("t.n8", Some(0), 1));
    appends[0] = on("t.n0", None, 1);
    let events: u64 = appends.iter().map(|append| append.events.len() as u64).sum();
    let refused: u64 = [7, 41, 42]
        .iter()
        .map(|index| appends[*index].events.len() as u64)
        .sum();
    let answers = log.append_all(appends.clone()).await;
    assert_eq!(answers.len(), appends.len());
    for (index, answer) in answers.iter().enumerate() {
        match (index, answer) {
            (7, Ok(Outcome::Conflict { tail: 0 })) | (41 | 42, Ok(Outcome::Conflict { .. })) => {}
            (40, Ok(Outcome::Stored { .. } | Outcome::Conflict { .. })) => {}
            (0..40, Ok(Outcome::Stored { first, last })) => {
                let records = log.read(*first, (last + 1 - first) as usize).await.unwrap();
                let expected: Vec<_> = appends[index].events.iter().map(|event| &event.data).collect();
                assert_eq!(
                    records.iter().map(|record| &record.data).collect::<Vec<_>>(),
                    expected
                );
            }
            (index, answer) => panic!("append {index}: {answer:?}"),
        }
    }
    let chained = matches!(answers[40], Ok(Outcome::Stored { .. }));
    assert_eq!(
        everything(&log).await.len() as u64,
        events - refused - u64::from(!chained)
    );
    assert_eq!(log.append_all(Vec::new()).await.len(), 0);
}

/// A group that has no conflict, as when a fleet reports: every answer names the place of its own events.
pub async fn many_appends_at_once_keep_their_places(store: &mut dyn Store) {
    let log = store.open().await;
    let appends: Vec<Append> = (0..300)
        .map(|n| on(&format!("node.n{n}"), Some(0), 1 + n % 3))
        .collect();
    let answers = log.append_all(appends.clone()).await;
    let records = everything(&log).await;
    for (append, answer) in appends.iter().zip(answers) {
        let Ok(Outcome::Stored { first, last }) = answer else {
            panic!("{answer:?}")
        };
        let stretch = &records[first as usize - 1..last as usize];
        let have: Vec<_> = stretch.iter().map(|record| &record.data).collect();
        assert_eq!(
            have,
            append.events.iter().map(|event| &event.data).collect::<Vec<_>>()
        );
    }
    assert_eq!(records.len(), 600);
}

/// Eight writers on two handles append to one subject, each on what it has read: a chain without a fork.
pub async fn concurrent_writers_have_one_winner_per_position(store: &mut dyn Store) {
    let handles = [store.open().await, store.open().await];
    let writers = (0..8).map(|index| write_on_top(handles[index % 2].clone(), 15));
    let stored: u64 = join_all(writers).await.into_iter().sum();
    let records = everything(&handles[0]).await;
    assert_eq!(records.len() as u64, stored, "an answer and the log disagree");
    assert_eq!(stored, 8 * 15);
    let mut previous = 0;
    for record in records {
        let built_on: u64 = std::str::from_utf8(&record.data).unwrap().parse().unwrap();
        assert_eq!(
            built_on, previous,
            "position {} was decided on a stale state",
            record.position
        );
        previous = record.position;
    }
}

/// Appends its own expectation as data until it has won `wins` times.
async fn write_on_top(log: SharedLog, wins: u64) -> u64 {
    let subject = at("t.contended");
    let mut won = 0;
    while won < wins {
        let tail = log
            .tail(&subject)
            .await
            .unwrap()
            .map_or(0, |record| record.position);
        let mut new = event(subject.as_str(), 0);
        new.data = Bytes::from(tail.to_string());
        match log.append(Append::one(new, Some(tail))).await {
            Ok(Outcome::Stored { .. }) => won += 1,
            Ok(Outcome::Conflict { .. }) => {}
            Err(error) if error.is_transient() => {}
            other => panic!("{other:?}"),
        }
    }
    won
}

/// The whole log, read in stretches; checks that the positions have no hole.
pub(super) async fn everything(log: &SharedLog) -> Vec<Stored> {
    let mut records: Vec<Stored> = Vec::new();
    loop {
        let more = log.read(records.len() as u64 + 1, 300).await.unwrap();
        if more.is_empty() {
            break;
        }
        records.extend(more);
    }
    for (index, record) in records.iter().enumerate() {
        assert_eq!(record.position, index as u64 + 1);
    }
    records
}
