//! Time, as a handle that tests can hold still.
//!
//! Wall time (milliseconds since 1970, UTC) goes into events; monotonic time measures leases and waits. They are read
//! through one trait because the rules compare them: a wall clock that runs away from the monotonic one must stop
//! every automatic step (`clock_suspect`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A source of wall and monotonic time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Milliseconds since 1970-01-01T00:00:00Z. May jump, and may be wrong.
    fn now_ms(&self) -> i64;

    /// Time since an arbitrary start that never goes back. On Linux it counts the time the machine slept, so that a
    /// lease does not look fresh after a suspend.
    fn monotonic(&self) -> Duration;

    /// Names the start of the machine from which `monotonic` counts, where the system tells it: only values of the
    /// same boot can be compared.
    fn boot(&self) -> Option<String>;
}

/// The clock as services pass it around.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clocks: the only place in the workspace that reads them.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl SystemClock {
    /// The machine's clock, ready to be shared.
    #[must_use]
    pub fn shared() -> SharedClock {
        Arc::new(Self)
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the wall clock is read"
    )]
    fn now_ms(&self) -> i64 {
        // A clock set before 1970 is wrong beyond use; it reads as negative and the caller's bounds refuse it.
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => -millis(before.duration()),
        }
    }

    fn monotonic(&self) -> Duration {
        // Boottime and not Monotonic: the latter stands still while the machine sleeps, and a gateway that woke up
        // would believe that its lease is seconds old.
        #[cfg(target_os = "linux")]
        let read = clock_gettime(ClockId::Boottime);
        #[cfg(not(target_os = "linux"))]
        let read = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(read.tv_sec).expect("a monotonic clock counts from boot");
        let nanos = u32::try_from(read.tv_nsec).expect("the kernel keeps nanoseconds below one second");
        Duration::new(seconds, nanos)
    }

    fn boot(&self) -> Option<String> {
        // Linux alone has it. Where it is missing, nothing is compared over a restart.
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(id.trim().to_owned()).filter(|id| !id.is_empty())
    }
}

/// A clock that moves only when told: for tests and the simulation.
#[derive(Debug)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    mono_ms: AtomicU64,
}

impl ManualClock {
    /// A clock that shows `wall_ms`, its monotonic part at zero.
    #[must_use]
    pub fn new(wall_ms: i64) -> Arc<Self> {
        Arc::new(Self {
            wall_ms: AtomicI64::new(wall_ms),
            mono_ms: AtomicU64::new(0),
        })
    }

    /// Lets `by` pass on both clocks, as time does.
    pub fn advance(&self, by: Duration) {
        self.wall_ms.fetch_add(millis(by), Ordering::SeqCst);
        self.mono_ms
            .fetch_add(millis(by).unsigned_abs(), Ordering::SeqCst);
    }

    /// Moves the wall clock alone, as an administrator or a broken time server does.
    pub fn jump_ms(&self, by_ms: i64) {
        self.wall_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.mono_ms.load(Ordering::SeqCst))
    }

    fn boot(&self) -> Option<String> {
        Some("manual".into())
    }
}

/// The wall clock may leave the monotonic clock by this much before it is called suspect.
pub const MAX_JUMP_MS: i64 = 30_000;

/// A wall clock that left the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockJump {
    /// How far the wall clock is ahead (positive) or behind (negative), in milliseconds.
    pub by_ms: i64,
}

/// Compares wall with monotonic time and says when they part by more than [`MAX_JUMP_MS`].
///
/// Slow drift (up to one part in a thousand, which is twice what a time daemon slews) is followed; everything faster
/// adds up, so many small steps are found like a big one. After a jump nothing is followed: the clock must come back
/// by itself or be accepted by an operator.
#[derive(Debug)]
pub struct ClockWatch {
    clock: SharedClock,
    /// Wall minus monotonic time when last believed, in milliseconds.
    believed_offset_ms: i64,
    checked: Duration,
    /// The part of a followed millisecond that the last checks left over, in microseconds.
    slack_us: u64,
}

impl ClockWatch {
    /// Begins to watch; what the clock shows now is believed.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        let checked = clock.monotonic();
        let believed_offset_ms = offset(&clock, checked);
        Self {
            clock,
            believed_offset_ms,
            checked,
            slack_us: 0,
        }
    }

    /// Goes on with what an earlier watch of the same boot believed: a jump does not heal by starting again.
    #[must_use]
    pub fn resume(clock: SharedClock, believed_offset_ms: i64) -> Self {
        Self {
            believed_offset_ms,
            ..Self::new(clock)
        }
    }

    /// Wall minus monotonic time as believed, in milliseconds.
    #[must_use]
    pub fn believed_offset_ms(&self) -> i64 {
        self.believed_offset_ms
    }

    /// The jump that stands now, if any. Call it often: at least once a minute, and before each automatic step.
    pub fn check(&mut self) -> Option<ClockJump> {
        let mono = self.clock.monotonic();
        let by_ms = offset(&self.clock, mono) - self.believed_offset_ms;
        let elapsed = mono.saturating_sub(self.checked);
        self.checked = mono;
        if by_ms.abs() > MAX_JUMP_MS {
            return Some(ClockJump { by_ms });
        }
        // One part in a thousand: a millisecond passed allows a microsecond of drift.
        self.slack_us = self
            .slack_us
            .saturating_add(millis(elapsed).unsigned_abs())
            .min(1_000_000);
        let allowed = i64::try_from(self.slack_us / 1000).expect("bounded above");
        let followed = by_ms.clamp(-allowed, allowed);
        self.slack_us -= followed.unsigned_abs() * 1000;
        self.believed_offset_ms += followed;
        None
    }

    /// Believes the wall clock as it is now: an operator has accepted it (`clock accept`).
    pub fn accept(&mut self) {
        *self = Self::new(Arc::clone(&self.clock));
    }
}

fn offset(clock: &SharedClock, mono: Duration) -> i64 {
    clock.now_ms() - millis(mono)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_790_000_000_000;

    #[test]
    fn a_clock_that_agrees_is_never_suspect() {
        let clock = ManualClock::new(START);
        let mut watch = ClockWatch::new(clock.clone());
        for _ in 0..1000 {
            clock.advance(Duration::from_secs(3600));
            assert_eq!(watch.check(), None);
        }
    }

    #[test]
    fn a_jump_in_either_direction_is_seen_and_stays_until_the_clock_comes_back() {
        for sign in [1, -1] {
            let clock = ManualClock::new(START);
            let mut watch = ClockWatch::new(clock.clone());
            clock.jump_ms(sign * 30_001);
            assert_eq!(watch.check(), Some(ClockJump { by_ms: sign * 30_001 }));
            clock.advance(Duration::from_secs(86_400));
            assert_eq!(
                watch.check(),
                Some(ClockJump { by_ms: sign * 30_001 }),
                "time alone heals nothing"
            );
            clock.jump_ms(sign * -30_001);
            assert_eq!(watch.check(), None);
        }
    }

    #[test]
    fn exactly_thirty_seconds_are_no_jump() {
        let clock = ManualClock::new(START);
        let mut watch = ClockWatch::new(clock.clone());
        clock.jump_ms(30_000);
        assert_eq!(watch.check(), None);
    }

    #[test]
    fn slow_drift_is_followed_for_ever() {
        let clock = ManualClock::new(START);
        let mut watch = ClockWatch::new(clock.clone());
        for _ in 0..100_000 {
            clock.advance(Duration::from_secs(10));
            clock.jump_ms(5); // 500 parts per million, what a time daemon slews at most
            assert_eq!(watch.check(), None);
        }
    }

    #[test]
    fn many_small_steps_add_up_to_a_jump() {
        let clock = ManualClock::new(START);
        let mut watch = ClockWatch::new(clock.clone());
        let found = (0..20).any(|_| {
            clock.advance(Duration::from_secs(1));
            clock.jump_ms(2_000);
            watch.check().is_some()
        });
        assert!(found, "twenty steps of two seconds are forty seconds");
    }

    #[test]
    fn an_accepted_jump_is_the_new_truth() {
        let clock = ManualClock::new(START);
        let mut watch = ClockWatch::new(clock.clone());
        clock.jump_ms(-7_200_000);
        assert!(watch.check().is_some());
        watch.accept();
        assert_eq!(watch.check(), None);
    }

    #[test]
    fn a_jump_does_not_heal_by_watching_anew() {
        let clock = ManualClock::new(START);
        let mut watch = ClockWatch::new(clock.clone());
        clock.jump_ms(7_200_000);
        assert!(watch.check().is_some());
        let mut again = ClockWatch::resume(clock.clone(), watch.believed_offset_ms());
        assert_eq!(again.check(), Some(ClockJump { by_ms: 7_200_000 }));
        clock.jump_ms(-7_200_000);
        assert_eq!(again.check(), None);
    }

    #[test]
    fn the_machines_clock_is_after_the_year_2024_and_never_goes_back() {
        let clock = SystemClock;
        assert!(clock.now_ms() > 1_704_067_200_000);
        let first = clock.monotonic();
        assert!(clock.monotonic() >= first);
    }
}
