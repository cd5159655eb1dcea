//! How long the half, nearly all, and the last of many took.

use std::time::Duration;

use serde::Serialize;

/// Durations of many of a kind, in seconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) count: usize,
    pub(crate) p50_s: f64,
    pub(crate) p99_s: f64,
    pub(crate) last_s: f64,
}

impl Spread {
    /// Of durations in any order; nothing took no time.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        // The smallest that so many parts of a hundred do not exceed.
        let at = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100).max(1);
            times.get(rank - 1).map_or(0.0, Duration::as_secs_f64)
        };
        Self {
            count: times.len(),
            p50_s: at(50),
            p99_s: at(99),
            last_s: at(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_and_nearly_all_are_found_by_their_rank() {
        let times = (1..=200).rev().map(Duration::from_secs).collect();
        let spread = Spread::of(times);
        assert_eq!((spread.p50_s, spread.p99_s, spread.last_s), (100.0, 198.0, 200.0));
        let one = Spread::of(vec![Duration::from_secs(3)]);
        assert_eq!((one.p50_s, one.p99_s, one.last_s), (3.0, 3.0, 3.0));
        assert_eq!(Spread::of(vec![]).last_s, 0.0);
    }
}
