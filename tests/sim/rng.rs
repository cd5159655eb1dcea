//! Randomness of the simulation: a small generator with nothing behind it but its seed.
//!
//! Own, so that a seed means the same on every machine and with every version of every library.

use domain::{CommandId, SpkiPin};
use uuid::Uuid;

/// SplitMix64 (Steele, Lea, Flood 2014): one word of state, every seed is a good one.
pub struct Rng(u64);

impl Rng {
    /// A generator for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 if there is none.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 {
            0
        } else {
            (self.next() % n as u64) as usize
        }
    }

    /// A number of milliseconds from `from` to `to`, both included.
    pub fn span(&mut self, from: i64, to: i64) -> i64 {
        from + (self.next() % (to - from + 1).max(1) as u64) as i64
    }

    /// True in so many of a thousand cases.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.next() % 1000 < permille
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() {
            None
        } else {
            Some(from[self.below(from.len())])
        }
    }

    /// Random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        for chunk in out.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        out
    }

    /// A random identifier.
    pub fn uuid(&mut self) -> Uuid {
        Uuid::from_bytes(self.bytes())
    }

    /// A key: nothing of it is ever used but its pin.
    pub fn key(&mut self) -> SpkiPin {
        SpkiPin(self.bytes())
    }

    /// A command id (UUID version 7) made at a time.
    pub fn command_id(&mut self, at_ms: i64) -> CommandId {
        let mut bytes: [u8; 16] = self.bytes();
        bytes[..6].copy_from_slice(&at_ms.to_be_bytes()[2..]);
        bytes[6] = (bytes[6] & 0x0f) | 0x70;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        CommandId(Uuid::from_bytes(bytes))
    }
}
