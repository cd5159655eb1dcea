//! The only place where a command becomes events.
//!
//! A process has one [`Fold`], the state folded from the log and kept current, and any number of
//! [`Executor`] handles: fold, decide, append on one condition, retry on a conflict, answer once the
//! events are durable and folded. Where a process may not write the log, its executor sends commands to one that may
//! ([`forward`]). The signer, which decides nothing, writes its facts by [`FactWriter`].

use std::sync::Arc;

use domain::Timestamp;

pub mod checkpoint;
pub mod codec;
mod events;
mod executor;
mod fold;
pub mod forward;
mod lookup;
mod settlement;
mod writer;

pub use events::Events;
pub use executor::{ExecuteError, Executor, outcome};
pub use fold::{Behind, Fold, FoldError};
pub use lookup::{Issued, NotIssued};
pub use settlement::Settlement;
pub use writer::{Expected, FactWriter, Seen};

/// Where the time comes from: the process's clock, or a test's.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// SHA-256, as `decide` wants it.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// A fresh UUIDv7 of the given time (RFC 9562, section 5.7).
pub fn fresh_id(now: Timestamp) -> uuid::Uuid {
    let millis = u64::try_from(now.0).unwrap_or(0);
    // The generator of this thread is seeded by the operating system, and asked without a system call.
    uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}
