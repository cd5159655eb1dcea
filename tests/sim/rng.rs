//! Randomness of the simulation: dice, and what the domain wants random.

use std::ops::{Deref, DerefMut};

use carousel_tests::Dice;
use domain::{CommandId, SpkiPin};
use uuid::Uuid;

/// The simulation's dice.
pub struct Rng(Dice);

impl Rng {
    /// A generator for a seed.
    pub fn new(seed: u64) -> Self {
        Self(Dice::new(seed))
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

impl Deref for Rng {
    type Target = Dice;

    fn deref(&self) -> &Dice {
        &self.0
    }
}

impl DerefMut for Rng {
    fn deref_mut(&mut self) -> &mut Dice {
        &mut self.0
    }
}
