//! What every process of Carousel stands on: time, signals, configuration, logs and traces, metrics, the admin
//! endpoint, hardening of files and memory, retries and limits.
//!
//! This crate knows nothing of rotations: it imports no other crate of ours, so that each of them may use it. The
//! world is touched here once (the wall clock, the environment, file modes), and everybody else gets a handle that a
//! test can hold still.

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod harden;
pub mod metrics;
pub mod ratelimit;
pub mod readiness;
pub mod shutdown;
pub mod telemetry;
