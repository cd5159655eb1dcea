//! Token buckets: how often somebody may ask.
//!
//! Time is an argument (monotonic, from [`crate::clock::Clock`]), so that nothing here waits and a test needs no sleep.
//! Tables of buckets are bounded: an attacker with many addresses must not be able to fill our memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many requests at once, and how many per second after that.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Requests that may come at once.
    pub burst: u32,
    /// Requests per second that are allowed for ever.
    pub per_second: f64,
}

/// One bucket: full at first, refilled at a steady rate.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: Rate,
    tokens: f64,
    updated: Duration,
}

impl TokenBucket {
    /// A full bucket at the monotonic time `now`.
    ///
    /// # Panics
    /// When the rate allows nothing at all: such a bucket would refuse for ever and its waits would be infinite.
    #[must_use]
    pub fn new(rate: Rate, now: Duration) -> Self {
        assert!(
            rate.burst >= 1 && rate.per_second > 0.0,
            "a rate must allow something"
        );
        Self {
            rate,
            tokens: f64::from(rate.burst),
            updated: now,
        }
    }

    /// Takes one token, or says after which time there will be one (for `Retry-After`).
    ///
    /// # Errors
    /// The time to wait when the bucket is empty; nothing is taken then.
    pub fn try_take(&mut self, now: Duration) -> Result<(), Duration> {
        self.refill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64(
            (1.0 - self.tokens) / self.rate.per_second,
        ))
    }

    fn refill(&mut self, now: Duration) {
        // A clock that went back gives nothing and takes nothing.
        let elapsed = now.saturating_sub(self.updated);
        self.updated = self.updated.max(now);
        let refilled = self.tokens + elapsed.as_secs_f64() * self.rate.per_second;
        self.tokens = refilled.min(f64::from(self.rate.burst));
    }

    fn is_full(&self) -> bool {
        self.tokens >= f64::from(self.rate.burst)
    }
}

/// One bucket per key (a source address, a principal), at most `capacity` of them.
#[derive(Debug)]
pub struct KeyedLimit<K> {
    rate: Rate,
    capacity: usize,
    buckets: Mutex<Buckets<K>>,
}

#[derive(Debug)]
struct Buckets<K> {
    by_key: HashMap<K, TokenBucket>,
    /// Shared by all keys that found no place: under attack by many addresses strangers wait together, and those
    /// already known keep their own bucket.
    overflow: TokenBucket,
}

impl<K: Eq + Hash> KeyedLimit<K> {
    /// An empty table for at most `capacity` keys at a time.
    #[must_use]
    pub fn new(rate: Rate, capacity: usize, now: Duration) -> Self {
        let buckets = Buckets {
            by_key: HashMap::new(),
            overflow: TokenBucket::new(rate, now),
        };
        Self {
            rate,
            capacity,
            buckets: Mutex::new(buckets),
        }
    }

    /// Takes one token of `key`'s bucket.
    ///
    /// # Errors
    /// The time to wait when it is empty.
    pub fn try_take(&self, key: K, now: Duration) -> Result<(), Duration> {
        // A poisoned lock means a panic elsewhere; the counts are still counts.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = buckets.by_key.get_mut(&key) {
            return bucket.try_take(now);
        }
        if buckets.by_key.len() >= self.capacity {
            // A full bucket says nothing that a new one would not say: forgetting it is free.
            buckets.by_key.retain(|_, bucket| {
                bucket.refill(now);
                !bucket.is_full()
            });
        }
        if buckets.by_key.len() >= self.capacity {
            return buckets.overflow.try_take(now);
        }
        buckets
            .by_key
            .entry(key)
            .or_insert_with(|| TokenBucket::new(self.rate, now))
            .try_take(now)
    }
}

/// The source that an address is counted as: itself for IPv4, however it is written, and its network of 64 bits for
/// IPv6, which one host has for itself (RFC 4291, section 2.5.4): counting single ones of those would count nothing.
#[must_use]
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        burst: 3,
        per_second: 2.0,
    };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_burst_passes_and_the_next_request_is_told_how_long_to_wait() {
        let mut bucket = TokenBucket::new(RATE, at(0));
        for _ in 0..3 {
            assert_eq!(bucket.try_take(at(0)), Ok(()));
        }
        assert_eq!(bucket.try_take(at(0)), Err(at(500)));
        assert_eq!(bucket.try_take(at(499)).map_err(|wait| wait <= at(1)), Err(true));
        assert_eq!(bucket.try_take(at(500)), Ok(()));
    }

    #[test]
    fn a_long_pause_does_not_save_up_more_than_the_burst() {
        let mut bucket = TokenBucket::new(RATE, at(0));
        let passed = (0..10).filter(|_| bucket.try_take(at(3_600_000)).is_ok()).count();
        assert_eq!(passed, 3);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = TokenBucket::new(RATE, at(10_000));
        for _ in 0..3 {
            bucket.try_take(at(10_000)).expect("the burst");
        }
        assert!(bucket.try_take(at(0)).is_err());
        assert!(bucket.try_take(at(10_000)).is_err());
    }

    #[test]
    fn keys_do_not_use_up_each_others_tokens() {
        let limit = KeyedLimit::new(RATE, 8, at(0));
        while limit.try_take("noisy", at(0)).is_ok() {}
        assert_eq!(limit.try_take("quiet", at(0)), Ok(()));
    }

    #[test]
    fn many_keys_share_one_bucket_once_the_table_is_full_and_memory_stays_bounded() {
        let limit = KeyedLimit::new(RATE, 4, at(0));
        let passed = (0..1000)
            .filter(|key| limit.try_take(*key, at(0)).is_ok())
            .count();
        assert_eq!(
            passed,
            4 + 3,
            "four keys of their own and the burst of the shared bucket"
        );
        assert_eq!(limit.buckets.lock().expect("not poisoned").by_key.len(), 4);
        assert_eq!(
            limit.try_take(0, at(0)),
            Ok(()),
            "a known key keeps its own bucket"
        );
        assert_eq!(
            limit.try_take(5000, at(60_000)),
            Ok(()),
            "refilled buckets are forgotten"
        );
    }

    #[test]
    fn addresses_of_one_network_are_one_source_and_an_ipv4_address_is_itself() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8:1:2:3:4:5:6"), source("2001:db8:1:2::1"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:192.0.2.7"), source("192.0.2.7"));
        assert_ne!(source("192.0.2.7"), source("192.0.2.8"));
    }
}
