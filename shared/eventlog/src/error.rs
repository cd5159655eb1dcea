//! What the world did to an operation; each text says what to do next.

use std::{error::Error, sync::Arc};

use crate::{MAX_EVENTS, Subject};

/// The error underneath, shared because one failed commit answers a whole group of callers.
pub type Cause = Arc<dyn Error + Send + Sync>;

/// Why an append was not even tried to the end. Whatever it says, **nothing was stored**.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// No space left where the log is kept.
    #[error(
        "the log is full ({detail}); nothing was stored: free or add space where it is kept, writing resumes by itself"
    )]
    Full {
        /// What the store said.
        detail: String,
    },
    /// An event, or all of them together, exceed a limit.
    #[error("{bytes} bytes for {subject} are more than the {limit} that the log takes; split it")]
    TooLarge {
        /// The subject concerned.
        subject: Subject,
        /// What was asked for.
        bytes: usize,
        /// What would have been accepted.
        limit: usize,
    },
    /// More events than an atomic append holds.
    #[error(
        "{events} events in one append are more than the {MAX_EVENTS} that can be stored together; split it"
    )]
    TooManyEvents {
        /// What was asked for.
        events: usize,
    },
    /// This handle only reads.
    #[error("the log {name} is open for reading only; write through the control plane that holds it")]
    ReadOnly {
        /// The log concerned.
        name: String,
    },
    /// The store no longer keeps what was appended from being changed.
    #[error(
        "the log's protections were changed while it was in use ({detail}); restore them, nothing is written until then"
    )]
    ProtectionsChanged {
        /// Which ones, and how they differ.
        detail: String,
    },
    /// Another write is in the way at this moment.
    #[error("the log is busy ({detail}); try again")]
    Busy {
        /// What the store said.
        detail: String,
    },
    /// The store is not there at this moment, and the append was not sent.
    #[error(
        "the log is not reachable ({detail}); nothing was sent: check that its server runs, the connection comes back by itself"
    )]
    Unreachable {
        /// What is missing.
        detail: String,
    },
    /// The caller asked for something no log can do.
    #[error("this append can not be made: {detail}")]
    Invalid {
        /// The broken rule.
        detail: String,
    },
    /// The store failed and stays out of use, because what it holds is no longer certain.
    #[error(
        "the log failed ({detail}) and is out of use until it is opened again: check the disk, then restart"
    )]
    Failed {
        /// What happened.
        detail: String,
        /// The store's own error.
        #[source]
        source: Option<Cause>,
    },
    /// The log was closed.
    #[error("the log is closed; the process is shutting down")]
    Closed,
}

/// Why the log could not be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// A position is missing. Nothing behind it is handed out.
    #[error("the log has a hole: position {expected} is missing{}; stop, keep the store as it is, and restore it from a copy", after(.found))]
    Gap {
        /// The missing position.
        expected: u64,
        /// The next one that exists, where one was seen.
        found: Option<u64>,
    },
    /// The log ends before a position that was already read.
    #[error(
        "the log ends at {last}, but position {position} was already read: it was truncated, restored or replaced"
    )]
    Shrunk {
        /// What was read before.
        position: u64,
        /// Where the log ends now.
        last: u64,
    },
    /// What is stored cannot be what was appended.
    #[error("the log is damaged ({detail}); stop, keep the store as it is, and restore it from a copy")]
    Damaged {
        /// What was found.
        detail: String,
    },
    /// The store is not there at this moment.
    #[error("the log can not be read at this moment ({detail}); check that its server runs, then try again")]
    Unreachable {
        /// What is missing.
        detail: String,
    },
    /// The store's own error.
    #[error("the log could not be read ({detail}); check the disk")]
    Failed {
        /// What was tried.
        detail: String,
        /// The store's own error.
        #[source]
        source: Option<Cause>,
    },
    /// The log was closed.
    #[error("the log is closed; the process is shutting down")]
    Closed,
}

/// Why a lease was not written or read. Leases are renewed, so the next attempt is always worth it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseError {
    /// A key or ttl outside of what every store takes.
    #[error("this lease can not be written: {detail}")]
    Invalid {
        /// The broken rule.
        detail: String,
    },
    /// This handle only reads.
    #[error("the log {name} is open for reading only; leases belong to the control plane that holds it")]
    ReadOnly {
        /// The log concerned.
        name: String,
    },
    /// The store is not there, or full.
    #[error("the leases beside the log are not available at this moment ({detail})")]
    Unavailable {
        /// What happened.
        detail: String,
    },
    /// The log was closed.
    #[error("the log is closed; the process is shutting down")]
    Closed,
}

impl AppendError {
    /// Whether the same append may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Busy { .. } | Self::Unreachable { .. } => true,
            Self::Full { .. }
            | Self::TooLarge { .. }
            | Self::TooManyEvents { .. }
            | Self::ReadOnly { .. }
            | Self::ProtectionsChanged { .. }
            | Self::Invalid { .. }
            | Self::Failed { .. }
            | Self::Closed => false,
        }
    }
}

impl ReadError {
    /// Whether reading the same again may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Gap { .. }
            | Self::Shrunk { .. }
            | Self::Damaged { .. }
            | Self::Failed { .. }
            | Self::Closed => false,
        }
    }
}

fn after(found: &Option<u64>) -> String {
    found
        .map(|position| format!(" (the next is {position})"))
        .unwrap_or_default()
}
