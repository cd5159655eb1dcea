//! The orchestrator: keeps the time. It makes the steps of semi-automatic rotations when they are due, settles
//! rotations that everybody has followed, misses members that fell silent, and mistrusts the clock.
//!
//! It decides nothing itself: everything is an order to the executor on the word of `system/clock`, so that the
//! same rules hold as for a person. Two orchestrators on one log do no harm: the second one's order is refused.
//!
//! ```text
//! Orchestrator::new(Config { state_file }, fold, executor, presence, clock, clock_suspect, metrics, part)
//!     .run(shutdown).await
//! ```

mod clock;
mod kept;
mod members;
mod messages;
mod presence;
mod service;
mod uptime;

pub use members::{MEMBER_LEASE_PREFIX, member_lease};
pub use messages::Messages;
pub use presence::{AskedGateways, Presence, Seen};
pub use service::{Config, Orchestrator};
