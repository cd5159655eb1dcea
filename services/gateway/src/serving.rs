//! May this member serve? Only while it has read back from the log a report of its own that it sent less
//! than 20 s ago, and only from when it held the row at the log's end [M].
//!
//! The orchestrator stops waiting for a member that was silent for 30 s. A member that was frozen (a paused
//! machine, a stuck disk) and wakes up must not go on serving with what it believed before: by then the
//! rotation may have gone on without it. So the clock that counts is the monotonic one, which counts sleep.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use runtime::clock::SharedClock;
use tokio_util::sync::CancellationToken;

/// How old the sending of the last report that was read back may be.
pub(crate) const FRESH: Duration = Duration::from_secs(20);

/// The answer, shared by the member's loop, which sets it, and every request, which asks.
#[derive(Debug)]
pub(crate) struct Serving {
    clock: SharedClock,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    begun: bool,
    /// When the last report that was read back was sent.
    heard: Duration,
    why: String,
    /// Cancelled when what was begun ends; the next beginning has another one.
    term: CancellationToken,
}

impl Serving {
    /// A member that has not begun.
    pub(crate) fn new(clock: SharedClock) -> Self {
        let why = "it has not reported the current row yet".to_owned();
        Self {
            clock,
            state: Mutex::new(State {
                begun: false,
                heard: Duration::ZERO,
                why,
                term: CancellationToken::new(),
            }),
        }
    }

    /// The monotonic time, for stamping a report before it is sent.
    pub(crate) fn stamp(&self) -> Duration {
        self.clock.monotonic()
    }

    /// Begins: a report sent at `sent`, when the member held the row at the log's end, was read back.
    pub(crate) fn begin(&self, sent: Duration) {
        let mut state = self.lock();
        state.term.cancel();
        state.term = CancellationToken::new();
        state.begun = true;
        state.heard = sent;
        self.lapse(&mut state);
    }

    /// A heartbeat sent at `sent` was read back. It keeps a member that serves serving; it never begins.
    pub(crate) fn heard(&self, sent: Duration) {
        let mut state = self.lock();
        // First whether it lapsed before: a heartbeat after a long freeze must not revive what was believed then.
        self.lapse(&mut state);
        state.heard = state.heard.max(sent);
    }

    /// Ends, until it begins again.
    pub(crate) fn end(&self, why: &str) {
        let mut state = self.lock();
        state.begun = false;
        state.term.cancel();
        state.why = why.to_owned();
    }

    /// Does it serve? If not, why.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut state = self.lock();
        self.lapse(&mut state);
        if state.begun {
            Ok(())
        } else {
            Err(state.why.clone())
        }
    }

    /// The term in which it serves now; cancelled when that ends. If it does not serve, why.
    pub(crate) fn term(&self) -> Result<CancellationToken, String> {
        self.check()?;
        Ok(self.lock().term.clone())
    }

    /// Does it serve, and without a break since that term began? What was found out before a break may be of a
    /// state that everybody else has left.
    pub(crate) fn still(&self, term: &CancellationToken) -> Result<(), String> {
        self.check()?;
        if term.is_cancelled() {
            return Err("it has begun anew since this was asked".into());
        }
        Ok(())
    }

    fn lapse(&self, state: &mut State) {
        let age = self.clock.monotonic().saturating_sub(state.heard);
        if state.begun && age >= FRESH {
            state.begun = false;
            state.term.cancel();
            state.why = format!(
                "its own report was not read back from the log for {} s",
                age.as_secs()
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves a whole state behind: every change is one assignment after another.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use runtime::clock::ManualClock;

    use super::*;

    #[test]
    fn a_member_serves_from_its_report_on_and_for_twenty_seconds_after_each_heartbeat() {
        let clock = ManualClock::new(0);
        clock.advance(Duration::from_secs(100));
        let serving = Serving::new(clock.clone());
        assert!(serving.check().is_err(), "it has not begun");
        serving.heard(serving.stamp());
        assert!(serving.check().is_err(), "a heartbeat never begins");
        serving.begin(serving.stamp());
        assert_eq!(serving.check(), Ok(()));
        clock.advance(FRESH - Duration::from_millis(1));
        assert_eq!(serving.check(), Ok(()));
        serving.heard(serving.stamp());
        clock.advance(FRESH - Duration::from_millis(1));
        assert_eq!(serving.check(), Ok(()));
        clock.advance(Duration::from_millis(1));
        assert!(serving.check().is_err());
    }

    #[test]
    fn a_member_that_was_frozen_does_not_serve_again_by_a_heartbeat_alone() {
        let clock = ManualClock::new(0);
        let serving = Serving::new(clock.clone());
        serving.begin(serving.stamp());
        clock.advance(Duration::from_secs(31));
        // It wakes up, and the first thing it does is its heartbeat.
        serving.heard(serving.stamp());
        assert!(serving.check().is_err(), "what it believes is 31 s old");
        serving.begin(serving.stamp());
        assert_eq!(serving.check(), Ok(()));
    }

    #[test]
    fn what_was_asked_before_a_break_is_not_answered_after_it() {
        let clock = ManualClock::new(0);
        let serving = Serving::new(clock.clone());
        assert!(serving.term().is_err());
        serving.begin(serving.stamp());
        let term = serving.term().unwrap();
        assert_eq!(serving.still(&term), Ok(()));
        clock.advance(FRESH);
        assert!(serving.still(&term).is_err() && term.is_cancelled());
        serving.begin(serving.stamp());
        assert_eq!(serving.check(), Ok(()));
        assert!(serving.still(&term).is_err(), "it serves again, but not those");
        let term = serving.term().unwrap();
        serving.end("stopping");
        assert!(term.is_cancelled());
    }

    #[test]
    fn a_report_that_took_too_long_to_be_read_back_begins_nothing() {
        let clock = ManualClock::new(0);
        let serving = Serving::new(clock.clone());
        let sent = serving.stamp();
        clock.advance(FRESH);
        serving.begin(sent);
        assert!(serving.check().is_err());
    }
}
