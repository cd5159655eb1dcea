//! How long the orchestrator has been running since each step: lagging policies act on nobody's word but time
//! that was spent listening, and restarts do not reset the sum [M].

use std::{collections::BTreeMap, time::Duration};

use domain::{AuthorityType, ClusterState, command::Mode};

use crate::kept::Sum;

/// A longer time between two ticks was not spent listening: the machine slept, or this process stood still.
const AWAY: Duration = Duration::from_secs(5);

/// How long this process has been running, and the sums of all semi-automatic rotations in progress.
pub(crate) struct Uptime {
    sums: BTreeMap<AuthorityType, Sum>,
    started: Duration,
    last: Duration,
}

impl Uptime {
    /// Goes on with the sums that were kept.
    pub(crate) fn new(sums: BTreeMap<AuthorityType, Sum>, mono: Duration) -> Self {
        Self {
            sums,
            started: mono,
            last: mono,
        }
    }

    /// Adds the time since the last call to every step that is still the current one.
    ///
    /// The monotonic clock counts on while the machine sleeps, as leases need it. Time that was slept through is
    /// no running time: it counts like the time between a stop and a start, and the answer is true.
    #[must_use]
    pub(crate) fn count(&mut self, state: &ClusterState, mono: Duration) -> bool {
        let passed = mono.saturating_sub(self.last);
        self.last = mono;
        let was_away = passed > AWAY;
        if was_away {
            self.started = mono;
        }
        let passed_ms = if was_away { 0 } else { millis(passed) };
        let mut sums = BTreeMap::new();
        for (t, of) in &state.types {
            let Some(rotation) = of.rotation.as_ref().filter(|r| r.mode == Mode::Automatic) else {
                continue;
            };
            let before = self
                .sums
                .get(t)
                .filter(|s| (s.rotation, s.phase) == (rotation.id, of.phase));
            // A step counts from when it was first seen: never more than was spent listening.
            let uptime_ms = before.map_or(0, |sum| sum.uptime_ms.saturating_add(passed_ms));
            sums.insert(
                *t,
                Sum {
                    rotation: rotation.id,
                    phase: of.phase,
                    uptime_ms,
                },
            );
        }
        self.sums = sums;
        was_away
    }

    /// The sum since the current step of this type.
    pub(crate) fn since_step_ms(&self, authority_type: AuthorityType) -> u64 {
        self.sums.get(&authority_type).map_or(0, |sum| sum.uptime_ms)
    }

    /// The time since the start, or since it was last away.
    pub(crate) fn total_ms(&self, mono: Duration) -> u64 {
        millis(mono.saturating_sub(self.started))
    }

    /// What is to be kept.
    pub(crate) fn sums(&self) -> &BTreeMap<AuthorityType, Sum> {
        &self.sums
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::{
        Phase, RotationId, Timestamp,
        command::LaggingPolicy,
        state::{Rotation, TypeState},
    };

    use super::*;

    const T: AuthorityType = AuthorityType::Host;

    fn state(phase: Phase) -> ClusterState {
        let rotation = Rotation {
            id: RotationId(uuid::Uuid::from_u128(1)),
            started: Timestamp(0),
            mode: Mode::Automatic,
            grace_period_ms: 3_000,
            on_lagging: LaggingPolicy::Proceed,
            stepped: Timestamp(0),
            held: None,
            excluded: BTreeSet::new(),
        };
        let of = TypeState {
            phase,
            rotation: Some(rotation),
            ..TypeState::default()
        };
        ClusterState {
            types: BTreeMap::from([(T, of)]),
            ..ClusterState::default()
        }
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Ticks every second from one time to another.
    fn run(uptime: &mut Uptime, phase: Phase, from: u64, to: u64) {
        for second in from..=to {
            assert!(!uptime.count(&state(phase), s(second)));
        }
    }

    #[test]
    fn a_restart_goes_on_with_the_sum_and_the_time_between_does_not_count() {
        let mut first = Uptime::new(BTreeMap::new(), s(10));
        run(&mut first, Phase::Init, 10, 17);
        let mut second = Uptime::new(first.sums().clone(), s(500));
        run(&mut second, Phase::Init, 500, 503);
        assert_eq!(second.since_step_ms(T), 10_000);
        assert_eq!(second.total_ms(s(503)), 3_000);
    }

    #[test]
    fn time_that_was_slept_through_counts_like_that_of_a_restart() {
        let mut uptime = Uptime::new(BTreeMap::new(), s(0));
        run(&mut uptime, Phase::Init, 0, 7);
        let woke = 7 + 16 * 3_600;
        assert!(uptime.count(&state(Phase::Init), s(woke)));
        assert_eq!((uptime.since_step_ms(T), uptime.total_ms(s(woke))), (7_000, 0));
        run(&mut uptime, Phase::Init, woke + 1, woke + 2);
        assert_eq!(
            (uptime.since_step_ms(T), uptime.total_ms(s(woke + 2))),
            (9_000, 2_000)
        );
    }

    #[test]
    fn a_new_step_counts_from_zero() {
        let mut uptime = Uptime::new(BTreeMap::new(), s(0));
        run(&mut uptime, Phase::Init, 0, 9);
        run(&mut uptime, Phase::UpdateClients, 10, 10);
        assert_eq!(uptime.since_step_ms(T), 0);
    }
}
