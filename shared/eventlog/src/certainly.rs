//! An append whose outcome is known, whatever the network does to the answer.

use std::time::Duration;

use uuid::Uuid;

use crate::{Append, AppendError, EventLog, Outcome, ReadError, Stored, event_id};

/// How often an append is tried or looked for before its outcome is left unknown (about 20 s in all).
const ATTEMPTS: u32 = 12;

/// How many records a search for a lost append reads at once.
const SEARCH_BATCH: usize = 512;

/// Appends, and after a lost answer reads the subject to learn what became of it, then tries again.
///
/// The ids of the events decide: an event that stands in the log under its id was stored, whoever's answer was
/// lost. A repeated conditional append cannot be stored twice, because its condition holds only once. Without
/// a condition it is repeated only after a search that did not find it. [`Outcome::Unknown`] remains
/// only when the log stays unreachable for all attempts; then [`append_after_doubt`] goes on.
pub async fn append_certainly(log: &dyn EventLog, append: Append) -> Result<Outcome, AppendError> {
    let floor = append.expected;
    settle(log, append, floor, None).await
}

/// The same for an append that was sent already and whose answer was lost: it is looked for before it is sent
/// again. Sent first, an event without a condition would be stored a second time.
///
/// `floor` is a position that the log had reached before that first attempt: its events lie behind it.
pub async fn append_after_doubt(
    log: &dyn EventLog,
    append: Append,
    floor: u64,
    lost: String,
) -> Result<Outcome, AppendError> {
    settle(log, append, Some(floor), Some(lost)).await
}

/// `floor`: behind which position the append's events can lie, if that is known; `doubt`: why it may be stored
/// already.
async fn settle(
    log: &dyn EventLog,
    append: Append,
    mut floor: Option<u64>,
    mut doubt: Option<String>,
) -> Result<Outcome, AppendError> {
    append.check()?;
    let mut refusal = None;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(pause(attempt)).await;
        }
        // Without a condition the search needs to know where the log ended before the first attempt.
        let Some(floor) = known_floor(log, &mut floor, &mut refusal).await else {
            continue;
        };
        if doubt.is_some() {
            match find(log, &append, floor).await {
                Ok(Some(outcome)) => return Ok(outcome),
                Ok(None) => {}
                Err(error) if error.is_transient() => continue,
                Err(error) => return Ok(Outcome::Unknown(error.to_string())),
            }
        }
        // A crash between here and the answer leaves what `find` finds by the same ids.
        match log.append(append.clone()).await {
            Ok(Outcome::Unknown(why)) => doubt = Some(why),
            // After a doubt the conflict may be with our own earlier attempt, which arrived late.
            Ok(Outcome::Conflict { tail }) if doubt.is_some() => match find(log, &append, floor).await {
                Ok(found) => return Ok(found.unwrap_or(Outcome::Conflict { tail })),
                Err(_) => continue,
            },
            Ok(outcome) => return Ok(outcome),
            Err(error) if error.is_transient() => refusal = Some(error),
            Err(error) => return doubt.map_or(Err(error), |why| Ok(Outcome::Unknown(why))),
        }
    }
    match (doubt, refusal) {
        (None, Some(error)) => Err(error),
        (Some(why), _) => Ok(Outcome::Unknown(why)),
        (None, None) => Ok(Outcome::Unknown("the log gave no answer".into())),
    }
}

async fn known_floor(
    log: &dyn EventLog,
    floor: &mut Option<u64>,
    refusal: &mut Option<AppendError>,
) -> Option<u64> {
    if floor.is_none() {
        match log.last_position().await {
            Ok(position) => *floor = Some(position),
            Err(error) => {
                *refusal = Some(AppendError::Unreachable {
                    detail: error.to_string(),
                })
            }
        }
    }
    *floor
}

/// Looks for the append's first event behind `floor`: first on the subject's tail, then record by record.
async fn find(log: &dyn EventLog, append: &Append, floor: u64) -> Result<Option<Outcome>, ReadError> {
    let Some(tail) = log
        .tail(&append.subject)
        .await?
        .filter(|tail| tail.position > floor)
    else {
        return Ok(None);
    };
    if let Some(outcome) = recognise(append, &tail) {
        return Ok(Some(outcome));
    }
    let mut next = floor + 1;
    while next < tail.position {
        let records = log.read(next, SEARCH_BATCH).await?;
        let Some(last) = records.last().map(|record| record.position) else {
            return Ok(None);
        };
        if let Some(outcome) = records.iter().find_map(|record| recognise(append, record)) {
            return Ok(Some(outcome));
        }
        next = last + 1;
    }
    Ok(None)
}

/// Where the append lies if this record is one of its events; its events are neighbours in the log.
fn recognise(append: &Append, record: &Stored) -> Option<Outcome> {
    if record.subject != append.subject {
        return None;
    }
    let id: Uuid = event_id(&record.data)?;
    let index = append.events.iter().position(|event| event.id == id)? as u64;
    let first = record.position.checked_sub(index)?;
    Some(Outcome::Stored {
        first,
        last: first + append.events.len() as u64 - 1,
    })
}

/// Exponential from 20 ms to 2 s, a random half of it, so that writers who collided do not collide again.
fn pause(attempt: u32) -> Duration {
    let most = 20u64.saturating_mul(1 << attempt.min(10)).min(2_000);
    Duration::from_millis(rand::random_range(most / 2..=most))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{Fault, MemoryLog, conformance::event};

    fn single(expected: Option<u64>) -> Append {
        Append::one(event("t.a", 1), expected)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_answer_is_cleared_up_and_nothing_is_stored_twice() {
        for expected in [Some(0), None] {
            let log = MemoryLog::new();
            log.inject(Fault::LostAnswer);
            let outcome = append_certainly(&log, single(expected)).await.unwrap();
            assert_eq!(outcome, Outcome::Stored { first: 1, last: 1 });
            assert_eq!(log.last_position().await.unwrap(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_append_whose_answer_was_lost_earlier_is_looked_for_before_it_is_sent_again() {
        for (fault, expected) in [
            (Fault::LostAnswer, None),
            (Fault::LostAnswer, Some(1)),
            (
                Fault::LostAnswerThen(vec![Append::one(event("t.a", 9), None)]),
                None,
            ),
            (Fault::LostRequest, None),
            (Fault::LostRequest, Some(1)),
        ] {
            let log = MemoryLog::new();
            log.append(single(None)).await.unwrap();
            let mine = Append::one(event("t.a", 2), expected);
            log.inject(fault.clone());
            let Ok(Outcome::Unknown(lost)) = log.append(mine.clone()).await else {
                panic!("{fault:?} has an answer")
            };
            let outcome = append_after_doubt(&log, mine.clone(), 1, lost).await.unwrap();
            assert_eq!(outcome, Outcome::Stored { first: 2, last: 2 }, "{fault:?}");
            let all = log.read(1, 10).await.unwrap();
            let copies = all.iter().filter(|record| record.data == mine.events[0].data);
            assert_eq!(copies.count(), 1, "{fault:?}, {expected:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_request_is_sent_again() {
        for expected in [Some(0), None] {
            let log = MemoryLog::new();
            log.inject(Fault::LostRequest);
            log.inject(Fault::LostRequest);
            let outcome = append_certainly(&log, single(expected)).await.unwrap();
            assert_eq!(outcome, Outcome::Stored { first: 1, last: 1 });
            assert_eq!(log.last_position().await.unwrap(), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_append_that_others_have_written_behind_is_still_found() {
        let log = Arc::new(MemoryLog::new());
        let mine = Append {
            subject: Subject::parse("t.a").unwrap(),
            expected: Some(0),
            events: vec![event("t.a", 1), event("t.b", 2)],
        };
        log.append(Append::one(event("t.z", 0), None)).await.unwrap();
        log.inject(Fault::LostAnswerThen(vec![Append::one(event("t.a", 9), None)]));
        let outcome = append_certainly(&*log, mine).await.unwrap();
        assert_eq!(outcome, Outcome::Stored { first: 2, last: 3 });
        assert_eq!(log.last_position().await.unwrap(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn somebody_elses_event_is_a_conflict_also_after_a_doubt() {
        let log = MemoryLog::new();
        log.append(single(None)).await.unwrap();
        log.inject(Fault::LostRequest);
        let outcome = append_certainly(&log, Append::one(event("t.a", 2), Some(0)))
            .await
            .unwrap();
        assert_eq!(outcome, Outcome::Conflict { tail: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_log_is_said_at_once_and_a_busy_one_is_tried_again() {
        let log = MemoryLog::new();
        log.inject(Fault::Refuse(AppendError::Full {
            detail: "test".into(),
        }));
        assert!(matches!(
            append_certainly(&log, single(None)).await,
            Err(AppendError::Full { .. })
        ));
        log.inject(Fault::Refuse(AppendError::Busy {
            detail: "test".into(),
        }));
        assert!(matches!(
            append_certainly(&log, single(None)).await,
            Ok(Outcome::Stored { .. })
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_never_answers_leaves_the_outcome_unknown() {
        let log = MemoryLog::new();
        for _ in 0..ATTEMPTS {
            log.inject(Fault::LostRequest);
        }
        assert!(matches!(
            append_certainly(&log, single(Some(0))).await,
            Ok(Outcome::Unknown(_))
        ));
    }

    use crate::Subject;
}
