//! Wires the services and the command line into the program `carousel`.
//!
//! - [`home`]: the data directory;
//! - [`init`]: a new cluster's keys and first identity;
//! - [`plane`]: the control plane, all services in one process;
//! - [`serve`]: the same as a command, with configuration, signals and the `ready` line;
//! - [`host`]: commands that only this host may give, over a socket in the data directory;
//! - [`recover`]: a new administrator identity;
//! - [`verify`]: the log of a stopped control plane, verified;
//! - [`demo`]: all of it with a fleet and traffic;
//! - [`bench`]: all of it measured.

pub mod bench;
pub mod copy;
pub mod demo;
pub mod home;
pub mod host;
pub mod init;
pub mod nats;
pub mod plane;
pub mod recover;
pub mod serve;
pub mod verify;

/// Prints an error with its causes the way a person reads it at night, and gives the exit code 1.
pub(crate) fn failed(error: &dyn std::error::Error) -> u8 {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    anstream::eprintln!("failed: {text}");
    1
}

/// The clock of this process as everybody here reads it.
pub(crate) fn now_of(clock: runtime::clock::SharedClock) -> execution::Now {
    std::sync::Arc::new(move || domain::Timestamp(clock.now_ms()))
}
