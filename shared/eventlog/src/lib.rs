//! The event log: one trait and three stores behind it, and nothing about rotations.
//!
//! Subjects are strings and events are bytes, so that the log can be read, copied and verified by tools that
//! know no authority and no phase. The trait promises only what JetStream can keep: a condition stands on one
//! literal subject, positions are gapless, an atomic append holds at most [`MAX_EVENTS`] events.
//!
//! Where to begin: [`EventLog`] says what a log does, [`append_certainly`] what to do when its answer is lost,
//! [`SqliteLog`] and [`JetStreamLog`] where the events are kept, [`Envelope`] how one event is written down.

pub mod bus;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
pub mod raw;
#[cfg(any(test, feature = "conformance"))]
pub mod testing;

pub use crate::{
    certainly::{append_after_doubt, append_certainly},
    copy::{Copied, CopyError, copy},
    envelope::{DecodeError, Envelope, event_id, format_time, parse_time},
    error::{AppendError, Cause, LeaseError, ReadError},
    jetstream::{Done, JetStreamLog, JetStreamOpenError, JetStreamOptions, Provision, Provisioned, SYNC_KEY},
    log::{EventLog, SharedLog},
    memory::{Fault, MemoryLog},
    model::{
        Append, Lease, MAX_APPEND_BYTES, MAX_EVENT_BYTES, MAX_EVENTS, NewEvent, Outcome, Stored, Subject,
        SubjectError, cluster_token, event_prefix,
    },
    sqlite::{SqliteLog, SqliteOpenError},
};

mod certainly;
mod copy;
mod envelope;
mod error;
mod follow;
mod jetstream;
mod log;
mod memory;
mod model;
mod sqlite;
