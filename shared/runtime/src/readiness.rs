//! What a process still waits for before it may be sent work.
//!
//! Each part registers itself and says what it waits for, in words: `/readyz` and the log then name the part and the
//! reason, not just "not ready". A part that cannot go on (a gap in the log) is failed, which `/livez` shows.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The state of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PartState {
    /// It works.
    Ready,
    /// It will work once this has happened.
    Waiting(String),
    /// It cannot go on; somebody has to look.
    Failed(String),
}

/// The state of all parts of a process; cheap to clone, one per process.
#[derive(Debug, Clone)]
pub struct Readiness {
    parts: Arc<watch::Sender<BTreeMap<&'static str, PartState>>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// A process without parts; it is ready once its first part is.
    #[must_use]
    pub fn new() -> Self {
        Self {
            parts: Arc::new(watch::Sender::new(BTreeMap::new())),
        }
    }

    /// Registers a part, which waits for `reason` from now on.
    #[must_use]
    pub fn part(&self, name: &'static str, reason: &str) -> Part {
        let part = Part {
            name,
            readiness: self.clone(),
        };
        part.waiting(reason);
        part
    }

    /// Whether all parts are ready, and there is at least one.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        all_ready(&self.parts.borrow())
    }

    /// Whether no part has failed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self
            .parts
            .borrow()
            .values()
            .any(|state| matches!(state, PartState::Failed(_)))
    }

    /// Waits until all parts are ready.
    pub async fn until_ready(&self) {
        let mut parts = self.parts.subscribe();
        parts
            .wait_for(all_ready)
            .await
            .expect("self holds the sender, so the channel cannot close");
    }

    /// All parts by name.
    #[must_use]
    pub fn parts(&self) -> BTreeMap<&'static str, PartState> {
        self.parts.borrow().clone()
    }

    /// One line per part, for `/readyz` and for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let line = |(name, state): (&&str, &PartState)| match state {
            PartState::Ready => format!("{name}: ready\n"),
            PartState::Waiting(reason) => format!("{name}: waiting for {reason}\n"),
            PartState::Failed(reason) => format!("{name}: failed: {reason}\n"),
        };
        self.parts.borrow().iter().map(line).collect()
    }

    /// The same with marks, as probes of other programs write it: `[+]log ok`, `[-]gateway waiting for the log`.
    #[must_use]
    pub fn marked(&self) -> String {
        let line = |(name, state): (&&str, &PartState)| match state {
            PartState::Ready => format!("[+]{name} ok\n"),
            PartState::Waiting(reason) => format!("[-]{name} waiting for {reason}\n"),
            PartState::Failed(reason) => format!("[-]{name} failed: {reason}\n"),
        };
        self.parts.borrow().iter().map(line).collect()
    }
}

/// One part of a process; it is out of the account once this is dropped, unless it has failed: a process that goes on
/// without a part that could not must not look ready.
#[derive(Debug)]
pub struct Part {
    name: &'static str,
    readiness: Readiness,
}

impl Part {
    /// The part works.
    pub fn ready(&self) {
        self.set(PartState::Ready);
    }

    /// The part waits for `reason` ("the log", "a report of its own read back").
    pub fn waiting(&self, reason: &str) {
        self.set(PartState::Waiting(reason.to_owned()));
    }

    /// The part cannot go on.
    pub fn failed(&self, reason: &str) {
        self.set(PartState::Failed(reason.to_owned()));
    }

    fn set(&self, state: PartState) {
        self.readiness.parts.send_if_modified(|parts| {
            if parts.get(self.name) == Some(&state) {
                return false;
            }
            tracing::debug!(part = self.name, ?state, "readiness changed");
            parts.insert(self.name, state);
            true
        });
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.readiness.parts.send_if_modified(|parts| {
            let has_failed = matches!(parts.get(self.name), Some(PartState::Failed(_)));
            !has_failed && parts.remove(self.name).is_some()
        });
    }
}

fn all_ready(parts: &BTreeMap<&'static str, PartState>) -> bool {
    !parts.is_empty() && parts.values().all(|state| *state == PartState::Ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_only_when_every_part_is() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready(), "nothing has started yet");
        let log = readiness.part("log", "the broker");
        let gateway = readiness.part("gateway", "the log");
        log.ready();
        assert!(!readiness.is_ready());
        assert_eq!(readiness.describe(), "gateway: waiting for the log\nlog: ready\n");
        assert_eq!(readiness.marked(), "[-]gateway waiting for the log\n[+]log ok\n");
        gateway.ready();
        assert!(readiness.is_ready());
        log.waiting("the broker");
        assert!(!readiness.is_ready(), "a part may fall back");
    }

    #[test]
    fn a_failed_part_makes_the_process_not_alive_also_when_its_task_has_ended() {
        let readiness = Readiness::new();
        let log = readiness.part("log", "the broker");
        assert!(readiness.is_alive());
        log.failed("gap after position 41");
        assert!(!readiness.is_alive());
        let gateway = readiness.part("gateway", "the log");
        gateway.ready();
        drop(log);
        assert!(!readiness.is_alive() && !readiness.is_ready());
        drop(gateway);
        assert_eq!(readiness.describe(), "log: failed: gap after position 41\n");
    }

    #[tokio::test]
    async fn waiting_for_readiness_ends_when_the_last_part_is_ready() {
        let readiness = Readiness::new();
        let part = readiness.part("log", "the broker");
        let waiting = readiness.until_ready();
        part.ready();
        waiting.await;
    }
}
