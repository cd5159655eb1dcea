//! Growing, jittered pauses between attempts.
//!
//! Jitter keeps a fleet that lost its gateway at one moment from coming back at one moment. The sequence follows from
//! a seed, so that a test or a simulated run can be repeated exactly.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// Pauses that double from `min` to `max`, each drawn from the upper half of its step.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    step: Duration,
    seed: u64,
}

impl Backoff {
    /// Pauses between `min` and `max`.
    ///
    /// # Panics
    /// When `min` is zero or above `max`: without a pause a retry loop becomes a busy loop.
    #[must_use]
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        assert!(!min.is_zero() && min <= max, "a backoff needs 0 < min <= max");
        Self {
            min,
            max,
            step: min,
            seed,
        }
    }

    /// The next pause: never below `min`, never above `max`.
    pub fn next_pause(&mut self) -> Duration {
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.max);
        // The upper half and not all of it: a pause near zero would make the first retries useless.
        let half = step / 2;
        let unit = (splitmix64(&mut self.seed) >> 11) as f64 / (1u64 << 53) as f64;
        (half + half.mul_f64(unit)).clamp(self.min, self.max)
    }

    /// Begins again with `min`: an attempt has succeeded.
    pub fn reset(&mut self) {
        self.step = self.min;
    }
}

/// A seed that differs between processes and calls. For jitter only, never for keys or identifiers.
#[must_use]
pub fn random_seed() -> u64 {
    // The standard library seeds its hash tables from the operating system: enough for jitter, and no dependency.
    RandomState::new().build_hasher().finish()
}

/// Deterministic jitter: a duration between `low` and `high` parts of `whole`, drawn from `seed`.
///
/// Renewals use it (`jitter(lifetime, 0.45, 0.55, seed)`), so that certificates issued together are not renewed
/// together.
#[must_use]
pub fn jitter(whole: Duration, low: f64, high: f64, mut seed: u64) -> Duration {
    let unit = (splitmix64(&mut seed) >> 11) as f64 / (1u64 << 53) as f64;
    whole.mul_f64((low + (high - low) * unit).max(0.0))
}

/// `SplitMix64` (Steele, Lea, Flood 2014): eight bytes of state, good enough to spread pauses.
fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(250);
    const MAX: Duration = Duration::from_secs(10);

    #[test]
    fn pauses_grow_to_the_maximum_and_stay_within_the_bounds() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(MIN, MAX, seed);
            let pauses: Vec<_> = (0..64).map(|_| backoff.next_pause()).collect();
            assert!(
                pauses.iter().all(|pause| (MIN..=MAX).contains(pause)),
                "{pauses:?}"
            );
            assert!(pauses[10..].iter().all(|pause| *pause >= MAX / 2), "{pauses:?}");
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses_and_another_seed_others() {
        let run = |seed| {
            let mut backoff = Backoff::new(MIN, MAX, seed);
            (0..8).map(|_| backoff.next_pause()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_success_begins_again_with_short_pauses() {
        let mut backoff = Backoff::new(MIN, MAX, 1);
        for _ in 0..10 {
            backoff.next_pause();
        }
        backoff.reset();
        assert_eq!(backoff.next_pause(), MIN);
    }

    #[test]
    fn a_maximum_near_the_end_of_time_does_not_overflow() {
        let mut backoff = Backoff::new(
            Duration::from_secs(u64::MAX / 4),
            Duration::from_secs(u64::MAX / 2),
            3,
        );
        for _ in 0..8 {
            backoff.next_pause();
        }
    }

    #[test]
    fn jitter_stays_in_its_window() {
        let day = Duration::from_secs(86_400);
        for seed in 0..1000 {
            let at = jitter(day, 0.45, 0.55, seed);
            assert!(at >= day.mul_f64(0.45) && at <= day.mul_f64(0.55));
        }
    }
}
