//! Is the clock to be believed? A machine that wakes up in the wrong year must not rotate anything.

use domain::{Event, Fact, Position, Timestamp};
use runtime::clock::{ClockWatch, SharedClock};

use crate::kept::BelievedClock;

/// The clock may be this much behind the log's last event.
const BEHIND_MS: u64 = 60_000;

/// Watches the wall clock against the monotonic one and against the log.
pub(crate) struct ClockJudge {
    clock: SharedClock,
    watch: ClockWatch,
    /// The last acceptance by an operator: when, and how far the clock was behind then.
    accepted: Option<(Timestamp, u64)>,
    /// Where that stands in the log.
    taken_in: Position,
    /// The machine's boot, which does not change under a running process.
    boot: Option<String>,
}

impl ClockJudge {
    /// Goes on with the clock that the last run believed, within the same boot of the machine: a jump before or
    /// during a restart stays one. Over a boot nothing can be compared but the log's last event.
    pub(crate) fn new(clock: SharedClock, kept: Option<BelievedClock>) -> Self {
        let boot = clock.boot();
        let kept = kept.filter(|kept| Some(&kept.boot) == boot.as_ref());
        let (watch, taken_in) = match kept {
            Some(kept) => (ClockWatch::resume(clock.clone(), kept.offset_ms), kept.accepted),
            None => (ClockWatch::new(clock.clone()), Position(0)),
        };
        Self {
            watch,
            clock,
            accepted: None,
            taken_in,
            boot,
        }
    }

    /// An operator has accepted the clock, now or before this process began.
    pub(crate) fn accepted(&mut self, event: &Event) {
        if let Fact::ClusterClockAccepted(f) = &event.fact {
            self.accepted = Some((event.header.time, f.behind_ms));
            // One that an earlier run has taken in was said of another jump.
            if event.header.position > self.taken_in {
                self.taken_in = event.header.position;
                self.watch.accept();
            }
        }
    }

    /// What the next run goes on with.
    pub(crate) fn believed(&self) -> Option<BelievedClock> {
        Some(BelievedClock {
            boot: self.boot.clone()?,
            offset_ms: self.watch.believed_offset_ms(),
            accepted: self.taken_in,
        })
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

    use domain::{EventId, Header, Principal, event::ClusterClockAccepted, id::SystemActor};
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
        let mut judge = ClockJudge::new(clock.clone(), None);
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
        let mut judge = ClockJudge::new(clock.clone(), None);
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
        let mut judge = ClockJudge::new(clock.clone(), None);
        judge.accepted(&accepted(START - 1, 7_200_000));
        assert!(judge.suspicion(Timestamp(START + 7_000_000)).is_some());
    }
    #[test]
    fn a_jump_survives_a_restart_and_an_earlier_acceptance_does_not_heal_it() {
        let clock = ManualClock::new(START);
        let mut judge = ClockJudge::new(clock.clone(), None);
        judge.accepted(&accepted(START, 0));
        clock.jump_ms(7_200_000);
        assert!(judge.suspicion(Timestamp(START)).is_some());
        let mut again = ClockJudge::new(clock.clone(), judge.believed());
        again.accepted(&accepted(START, 0));
        assert!(
            again
                .suspicion(Timestamp(START))
                .unwrap()
                .contains("jumped by 7200 s")
        );
        clock.jump_ms(-7_200_000);
        assert_eq!(again.suspicion(Timestamp(START)), None, "it agrees again");
    }

    #[test]
    fn over_a_boot_of_the_machine_nothing_is_compared() {
        let clock = ManualClock::new(START);
        let judge = ClockJudge::new(clock.clone(), None);
        clock.jump_ms(7_200_000);
        let kept = judge.believed().map(|kept| BelievedClock {
            boot: "another".into(),
            ..kept
        });
        assert_eq!(
            ClockJudge::new(clock.clone(), kept).suspicion(Timestamp(START)),
            None
        );
    }
}
