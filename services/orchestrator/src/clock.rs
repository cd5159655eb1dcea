//! Is the clock to be believed? A machine that wakes up in the wrong year must not rotate anything.

use domain::{Event, Fact, Timestamp};
use runtime::clock::{ClockWatch, SharedClock};

/// The clock may be this much behind the log's last event.
const BEHIND_MS: u64 = 60_000;

/// Watches the wall clock against the monotonic one and against the log.
pub(crate) struct ClockJudge {
    clock: SharedClock,
    watch: ClockWatch,
    /// The last acceptance by an operator: when, and how far the clock was behind then.
    accepted: Option<(Timestamp, u64)>,
}

impl ClockJudge {
    pub(crate) fn new(clock: SharedClock) -> Self {
        Self {
            watch: ClockWatch::new(clock.clone()),
            clock,
            accepted: None,
        }
    }

    /// An operator has accepted the clock, now or before this process began.
    pub(crate) fn accepted(&mut self, event: &Event) {
        if let Fact::ClusterClockAccepted(f) = &event.fact {
            self.accepted = Some((event.header.time, f.behind_ms));
            self.watch.accept();
        }
    }

    /// Why the clock is not believed, if it is not.
    pub(crate) fn suspicion(&mut self, last_event: Timestamp) -> Option<String> {
        let now = Timestamp(self.clock.now_ms());
        let behind_ms = last_event.since_ms(now);
        // An accepted clock is believed until it has caught up; from then on the rule holds again.
        let allowed_ms = match self.accepted {
            Some((at, accepted_ms)) if now < at => accepted_ms.saturating_add(BEHIND_MS),
            _ => BEHIND_MS,
        };
        let jump = self.watch.check();
        if behind_ms > allowed_ms {
            return Some(format!(
                "the clock is {} s behind the last event of the log",
                behind_ms / 1_000
            ));
        }
        jump.map(|jump| format!("the clock jumped by {} s", jump.by_ms / 1_000))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::{EventId, Header, Position, Principal, event::ClusterClockAccepted, id::SystemActor};
    use runtime::clock::ManualClock;

    use super::*;

    const START: i64 = 1_790_000_000_000;

    fn accepted(at: i64, behind_ms: u64) -> Event {
        let header = Header {
            position: Position(9),
            id: EventId(uuid::Uuid::nil()),
            time: Timestamp(at),
            actor: Principal::System(SystemActor::Host),
            credential: None,
            command: None,
            reason: None,
            decided_at: None,
        };
        Event {
            header,
            fact: ClusterClockAccepted { behind_ms }.into(),
        }
    }

    #[test]
    fn a_clock_behind_the_log_is_suspect_until_it_agrees_again() {
        let clock = ManualClock::new(START);
        let mut judge = ClockJudge::new(clock.clone());
        assert_eq!(judge.suspicion(Timestamp(START + 60_000)), None);
        assert!(
            judge
                .suspicion(Timestamp(START + 60_001))
                .unwrap()
                .contains("behind")
        );
        clock.advance(Duration::from_secs(5));
        assert_eq!(judge.suspicion(Timestamp(START + 60_001)), None);
    }

    #[test]
    fn a_jump_is_suspect_until_an_operator_accepts_it() {
        let clock = ManualClock::new(START);
        let mut judge = ClockJudge::new(clock.clone());
        clock.jump_ms(-7_200_000);
        assert!(judge.suspicion(Timestamp(START)).is_some());
        judge.accepted(&accepted(START, 7_200_000));
        assert_eq!(judge.suspicion(Timestamp(START)), None);
        clock.jump_ms(-7_200_000);
        assert!(
            judge.suspicion(Timestamp(START)).is_some(),
            "another jump is another question"
        );
    }

    #[test]
    fn an_acceptance_ends_when_the_clock_has_caught_up() {
        let clock = ManualClock::new(START);
        let mut judge = ClockJudge::new(clock.clone());
        judge.accepted(&accepted(START - 1, 7_200_000));
        assert!(judge.suspicion(Timestamp(START + 7_000_000)).is_some());
    }
}
