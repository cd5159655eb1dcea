//! The log's events in order, with a look ahead: a decision is judged when the state is the one that it was made on,
//! and its events stand a little further on.

use domain::{Event, Position};
use eventlog::EventLog;
use execution::codec;

use super::BATCH;
use crate::audit::ReplayError;

/// How many events a look ahead gives at least, where the log has them: more than any order leads to.
const LOOK: u64 = 64;
/// How far ahead events are kept. What stands further on (its append was held up for long) is read by itself.
const FAR: u64 = 16 * BATCH as u64;

/// A window over the log, up to the last event that can be decoded.
pub(super) struct Ahead<'l> {
    log: &'l dyn EventLog,
    end: u64,
    /// The position of the first event in the window.
    from: u64,
    window: Vec<Event>,
    far: Vec<Event>,
}

impl<'l> Ahead<'l> {
    pub(super) fn new(log: &'l dyn EventLog, end: Position) -> Self {
        Self {
            log,
            end: end.0,
            from: 1,
            window: vec![],
            far: vec![],
        }
    }

    /// The events from a position on: at least all that were appended with the first one, where it is one of
    /// several. None behind the end.
    pub(super) async fn from(&mut self, position: Position) -> Result<&[Event], ReplayError> {
        let position = position.0;
        if position > self.end || position < self.from {
            return Ok(&[]);
        }
        if position > self.loaded() + FAR {
            self.far = read(self.log, position, self.end).await?;
            return Ok(&self.far);
        }
        let place = |from: u64| usize::try_from(position - from).expect("the window is in memory");
        while self.loaded() < self.end {
            let ends = self.window.get(place(self.from)).zip(self.window.last());
            // Appended as one, they were decided as one; a forger's log must not be read into memory as a whole.
            let is_whole = ends.is_some_and(|(first, last)| {
                let of = first.header.decided_at;
                of.is_none() || of != last.header.decided_at || self.loaded() >= position + FAR
            });
            if self.loaded() >= position + LOOK && is_whole {
                break;
            }
            let more = read(self.log, self.loaded() + 1, self.end).await?;
            if more.is_empty() {
                break;
            }
            self.window.extend(more);
        }
        Ok(self.window.get(place(self.from)..).unwrap_or_default())
    }

    /// Nothing before this position is asked for any more.
    pub(super) fn forget_before(&mut self, position: Position) {
        let gone = usize::try_from(position.0.saturating_sub(self.from)).expect("the window is in memory");
        // Moving what is left costs time, so much goes at once.
        if gone >= BATCH {
            self.window.drain(..gone.min(self.window.len()));
            self.from = position.0;
        }
    }

    /// The last position in the window.
    fn loaded(&self) -> u64 {
        self.from + self.window.len() as u64 - 1
    }
}

/// One batch of decoded events, not beyond the end.
async fn read(log: &dyn EventLog, from: u64, end: u64) -> Result<Vec<Event>, ReplayError> {
    let batch = log.read(from, BATCH).await?;
    let within = batch.iter().filter(|record| record.position <= end);
    Ok(within.map(codec::decode).collect::<Result<_, _>>()?)
}
