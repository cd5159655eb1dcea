//! One event by itself, decided again like each of them when the whole log is verified.

use api::{
    At,
    audit::{EventAudit, VerifyOutcome},
};
use domain::{
    ClusterState, Event, Position, Principal,
    decide::again::{again, is_of_one},
};
use eventlog::EventLog;
use execution::codec;

use super::{
    BATCH,
    actors::{self, Roles},
    decisions::is_sum,
};
use crate::audit::{ReplayError, replay};

/// Decides one event again on the state that it was decided on, and says what its actor was there.
///
/// # Errors
/// [`ReplayError::NotYet`] for a position behind the end, and as the log cannot be read.
pub(in crate::audit) async fn event(
    log: &dyn EventLog,
    position: Position,
) -> Result<EventAudit, ReplayError> {
    let missing = || ReplayError::NotYet {
        end: Position(position.0.saturating_sub(1)),
        wanted: position,
    };
    let stored = log.read(position.0, 1).await?;
    let event = codec::decode(stored.first().ok_or_else(missing)?)?;
    let decided_at = event.header.decided_at.filter(|at| *at < position);
    let before = decided_at.unwrap_or(Position(position.0 - 1));
    let state = replay(log, At::Position(before)).await?;
    let (outcome, text) = match decided_at {
        None if event.header.decided_at.is_some() => (
            VerifyOutcome::Failed,
            "says that it was decided on a state that is not before it".into(),
        ),
        None => (
            VerifyOutcome::Skipped,
            "of an older version, which did not say on which state it was decided".into(),
        ),
        Some(_) if is_sum(&event) => (
            VerifyOutcome::Skipped,
            "several refusals counted as one, or one under a command id that was used before".into(),
        ),
        Some(_) => match decided_again(log, &state, &event).await? {
            Ok(()) => (
                VerifyOutcome::Ok,
                "decided again from the log: same answer".into(),
            ),
            Err(why) => (VerifyOutcome::Failed, why),
        },
    };
    let roles = match &event.header.actor {
        Principal::User(name) => state.users.get(name).cloned().unwrap_or_default(),
        _ => Default::default(),
    };
    Ok(EventAudit {
        position,
        outcome,
        text,
        roles,
    })
}

/// Finds the append that the event is of, and decides that.
async fn decided_again(
    log: &dyn EventLog,
    state: &ClusterState,
    event: &Event,
) -> Result<Result<(), String>, ReplayError> {
    let position = event.header.position.0;
    // Of one append are neighbours only, and at least one event came before all of them.
    let from = position.saturating_sub(BATCH as u64).max(state.position.0 + 1);
    let end = position + BATCH as u64;
    let mut events = vec![];
    loop {
        // An answer may be short where events are large: only an empty one is the end.
        let next = from + events.len() as u64;
        let read = log.read(next, 2 * BATCH).await?;
        let is_end = read.is_empty();
        for record in &read {
            events.push(codec::decode(record)?);
        }
        if is_end || from + events.len() as u64 > end {
            break;
        }
    }
    let at = usize::try_from(position - from).expect("what is read is in memory");
    if events.len() <= at {
        return Ok(Err(format!("position {position} cannot be read again")));
    }
    let before = events[..at].iter().rev();
    let mut first = at - before.take_while(|other| is_of_one(event, other)).count();
    // Several appends of one moment look like one: whichever covers the event is its own.
    loop {
        match again(state, &events[first..], execution::sha256) {
            Ok(covered) if first + covered > at => {
                return Ok(actors::check(state, &Roles::default(), event));
            }
            Err(difference) if first == at => return Ok(Err(difference.to_string())),
            Ok(covered) => first += covered,
            Err(_) => first += 1,
        }
    }
}
