//! What the system tests share: built binaries, processes that are watched and always ended, deadlines, skips.
//!
//! Nothing here sleeps to wait for something: a test says what it waits for, and for how long at most, and a failure
//! shows everything the process said.

mod binaries;
pub mod broker;
mod cluster_dir;
mod dice;
mod process;
pub mod source;
mod wait;

pub use binaries::bin;
pub use cluster_dir::TestDir;
pub use dice::Dice;
pub use eventlog::testing::NatsServer;
pub use process::{Finished, Proc, run, run_within};
pub use wait::{deadline, eventually, skip};

/// How long a step of a system test may take at most. Generous, because two busy cores are slow; a test that passes
/// never waits for it.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);
