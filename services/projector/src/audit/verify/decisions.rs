//! Everything that was decided, decided again in the state that it was decided on.

use std::{iter::Peekable, vec};

use domain::{ClusterState, Event, Fact, Position, decide::again::again, event::CommandRefused};

use super::{
    Check,
    actors::{self, Roles},
    ahead::Ahead,
    count,
    issuance::Issuance,
    survey::DecidedAt,
    thousands,
};
use crate::audit::ReplayError;

/// How far whoever decides may be behind the log. A state that is older than this was chosen, not lagging behind.
const BEHIND_MS: u64 = 600_000;

/// The decisions of a log, in the order of the states that they were made on.
pub(super) struct Decisions {
    wanted: Peekable<vec::IntoIter<DecidedAt>>,
    accepted: u64,
    refused: u64,
    /// What nobody sent as a command: reports, steps of the schedule, duties of the signer.
    others: u64,
    /// Refusals whose order is not recorded.
    counted: u64,
}

impl Decisions {
    pub(super) fn new(mut wanted: Vec<DecidedAt>) -> Self {
        wanted.sort_unstable_by_key(|of| (of.at, of.event));
        Self {
            wanted: wanted.into_iter().peekable(),
            accepted: 0,
            refused: 0,
            others: 0,
            counted: 0,
        }
    }

    /// Decides again whatever was decided on this state.
    pub(super) async fn on(
        &mut self,
        state: &ClusterState,
        log: &mut Ahead<'_>,
        check: &mut Check,
        issuance: &mut Issuance,
    ) -> Result<(), ReplayError> {
        let is_on = |of: &DecidedAt| of.at == state.position;
        if self.wanted.peek().is_none_or(|of| !is_on(of)) {
            return Ok(());
        }
        let next = log.from(Position(state.position.0 + 1)).await?;
        let followed = next.first().map(|event| event.header.time);
        let mut covered_up_to = Position(0);
        while let Some(of) = self.wanted.next_if(is_on) {
            if of.event <= covered_up_to {
                continue;
            }
            let events = log.from(of.event).await?;
            let Some(first) = events.first() else { continue };
            let covered = match self.decide(state, events) {
                Ok(covered) => covered,
                Err((at, why)) => {
                    check.fail(Some(at), why);
                    1
                }
            };
            covered_up_to = Position(of.event.0 + covered as u64 - 1);
            let behind_ms = followed.map_or(0, |time| first.header.time.since_ms(time));
            if behind_ms > BEHIND_MS {
                let why = format!(
                    "decided on the state at position {}, which was {} s old by then",
                    of.at,
                    behind_ms / 1_000
                );
                check.fail(Some(of.event), why);
            }
            if let Err(why) = condition(&of, first) {
                check.fail(Some(of.event), why);
            }
            for event in &events[..covered] {
                check.take(
                    event.header.position,
                    actors::check(state, &Roles::default(), event),
                );
                issuance.decided_on(state, event);
            }
        }
        Ok(())
    }

    /// How many events the decision covers, or the first one that it does not lead to.
    fn decide(&mut self, state: &ClusterState, events: &[Event]) -> Result<usize, (Position, String)> {
        let first = &events[0];
        if is_sum(first) {
            self.counted += refusals(&first.fact);
            return Ok(1);
        }
        let covered = again(state, events, execution::sha256).map_err(|difference| {
            let at = difference.position().unwrap_or(first.header.position);
            (at, difference.to_string())
        })?;
        match (&first.fact, &first.header.command) {
            (Fact::CommandRefused(_), _) => self.refused += 1,
            (_, Some(_)) => self.accepted += 1,
            (_, None) => self.others += 1,
        }
        Ok(covered)
    }

    /// What was done, in words.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{} decided again: {} accepted, {} refused, all as recorded; {}",
            count(self.accepted + self.refused, "command"),
            thousands(self.accepted),
            thousands(self.refused),
            count(self.others, "other decision")
        );
        if self.counted > 0 {
            text.push_str(&format!(
                "; {} without an id of its own, counted alone",
                count(self.counted, "refusal")
            ));
        }
        text
    }
}

/// The condition of the append: nothing came in between on the subject of its first fact. Refusals have none.
fn condition(of: &DecidedAt, first: &Event) -> Result<(), String> {
    if of.tail <= of.at || matches!(first.fact, Fact::CommandRefused(_)) {
        return Ok(());
    }
    Err(format!(
        "decided on the state at position {}, but position {} changed what it stands on before it was appended",
        of.at, of.tail
    ))
}

/// Several refusals as one are of several commands, and do not say what was asked for. One of an id that was answered
/// before does not bear it, and without it would not have been refused.
pub(super) fn is_sum(event: &Event) -> bool {
    matches!(&event.fact, Fact::CommandRefused(_)) && event.header.command.is_none()
}

fn refusals(fact: &Fact) -> u64 {
    match fact {
        Fact::CommandRefused(CommandRefused { count, .. }) => u64::from(*count),
        _ => 0,
    }
}
