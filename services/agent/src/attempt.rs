//! One thing that is tried again and again: whether it runs now, and when it may be tried next.

use std::time::Duration;

use runtime::backoff::{Backoff, random_seed};
use tokio::time::Instant;

use crate::config::Pace;

/// The longest pause after failures of the node's own (hooks, proofs).
const LONGEST_FAILURE_PAUSE: Duration = Duration::from_secs(60);

/// The state of one repeated attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    running: bool,
    next: Option<Instant>,
    backoff: Backoff,
}

impl Attempt {
    /// Something that is asked of a gateway.
    pub(crate) fn new(pace: &Pace) -> Self {
        let backoff = Backoff::new(pace.retry_min, pace.retry_max, random_seed());
        Self {
            running: false,
            next: None,
            backoff,
        }
    }

    /// Something that the node does by itself, and that does not get better quickly.
    pub(crate) fn after_failures(pace: &Pace) -> Self {
        let longest = LONGEST_FAILURE_PAUSE.max(pace.failure_pause);
        Self {
            running: false,
            next: None,
            backoff: Backoff::new(pace.failure_pause, longest, random_seed()),
        }
    }

    /// May it be tried now?
    pub(crate) fn is_due(&self) -> bool {
        !self.running && self.next.is_none_or(|next| Instant::now() >= next)
    }

    /// It runs now.
    pub(crate) fn start(&mut self) {
        self.running = true;
    }

    /// It has succeeded: the next time is at once.
    pub(crate) fn succeed(&mut self) {
        self.running = false;
        self.next = None;
        self.backoff.reset();
    }

    /// One step of several has succeeded: the next is due at once, and the pauses stay as long as they have grown.
    pub(crate) fn proceed(&mut self) {
        self.running = false;
        self.next = None;
    }

    /// It has failed: the next time is after a pause.
    pub(crate) fn fail(&mut self) {
        let pause = self.backoff.next_pause();
        self.wait(pause);
    }

    /// What it waited for no longer holds: it may be tried at once, unless it runs.
    pub(crate) fn hurry(&mut self) {
        self.next = None;
    }

    /// It is to be tried after this pause.
    pub(crate) fn wait(&mut self, pause: Duration) {
        self.running = false;
        self.next = Some(Instant::now() + pause);
    }
}
