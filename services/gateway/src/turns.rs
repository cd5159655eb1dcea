//! One after the other: what concerns every stream at one moment is said at a pace.
//!
//! A changed row is work for the whole fleet: each node that is told dials, asks and reports. Told at one moment, all of
//! them would stand before whoever else comes, an operator among them; the last would not be served sooner for it.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// So many a second: about what one core serves of what follows from it.
const PER_SECOND: u32 = 500;
/// The longest time over which streams come back: nobody is away for longer than three of its beats.
const LONGEST_SPAN: Duration = Duration::from_secs(10);

/// The turns of the streams.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<Duration>);

impl Turns {
    /// Takes the next turn and says how long it is until then, at the monotonic time `now`.
    pub(crate) fn take(&self, now: Duration) -> Duration {
        // One number, whole at every moment.
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (*free).max(now);
        *free = at + span(1);
        at - now
    }
}

/// The time over which so many streams should come back when they are lost at one moment.
pub(crate) fn coming_back(streams: usize) -> Duration {
    span(u32::try_from(streams).unwrap_or(u32::MAX)).min(LONGEST_SPAN)
}

fn span(turns: u32) -> Duration {
    (Duration::from_secs(1) / PER_SECOND).saturating_mul(turns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_of_one_moment_lie_apart_and_nothing_is_saved_up() {
        let turns = Turns::default();
        let now = Duration::from_secs(100);
        let waits: Vec<_> = (0..1_000).map(|_| turns.take(now)).collect();
        assert_eq!(waits[0], Duration::ZERO);
        assert_eq!(waits[999], span(999));
        assert!(span(999) > Duration::from_secs(1), "not at one moment");
        let later = now + Duration::from_secs(60);
        assert_eq!(turns.take(later), Duration::ZERO);
        assert_eq!(turns.take(later), span(1), "a minute of rest is no credit");
    }

    #[test]
    fn many_come_back_over_a_longer_time_than_few_and_none_stays_away_for_long() {
        assert!(coming_back(12) < Duration::from_millis(50));
        assert_eq!(coming_back(2_000), Duration::from_secs(4));
        assert_eq!(coming_back(1_000_000), LONGEST_SPAN);
    }
}
