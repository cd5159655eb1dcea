//! The state as it was: the log folded up to a position or a time.

use api::{At, QueryError};
use domain::{ClusterState, Position, Timestamp, evolve::apply};
use eventlog::{EventLog, ReadError};
use execution::codec::{self, DecodeError};

/// Records read at once.
const BATCH: usize = 1_000;

/// Why the state of then cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The log ends before.
    #[error("the log ends at position {end}; there is no position {wanted} yet")]
    NotYet {
        /// Its end.
        end: Position,
        /// What was asked for.
        wanted: Position,
    },
    /// The log begins after.
    #[error("the log begins at {begins}; there was nothing at {wanted}")]
    Before {
        /// The time of the first event.
        begins: Timestamp,
        /// What was asked for.
        wanted: Timestamp,
    },
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Read(#[from] ReadError),
    /// It holds something that this version does not understand.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

impl From<ReplayError> for QueryError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::NotYet { .. } | ReplayError::Before { .. } => Self::NotFound(error.to_string()),
            ReplayError::Read(_) | ReplayError::Decode(_) => Self::Unavailable(error.to_string()),
        }
    }
}

/// Folds the log up to a moment: after the event at a position, or before the first one that is later than a time.
///
/// The log's writers share no clock, so an event may bear a time that is a little before that of its predecessor.
/// It happened after it all the same: its moment is the latest time up to it, as in the state's own `time`.
///
/// # Errors
/// [`ReplayError`]; `NotFound` for a moment that the log does not cover.
pub async fn replay(log: &dyn EventLog, at: At) -> Result<ClusterState, ReplayError> {
    let mut state = ClusterState::default();
    'log: loop {
        let batch = log.read(state.position.0 + 1, BATCH).await?;
        if batch.is_empty() {
            break;
        }
        for record in &batch {
            let event = codec::decode(record)?;
            let is_later = match at {
                At::Newest => false,
                At::Position(last) => event.header.position > last,
                // Also where an earlier time follows: that event is part of a later moment.
                At::Time(last) => event.header.time > last,
            };
            if is_later {
                break 'log;
            }
            apply(&mut state, &event);
        }
    }
    match at {
        At::Position(wanted) if wanted > state.position => Err(ReplayError::NotYet {
            end: state.position,
            wanted,
        }),
        At::Time(wanted) if state.position == Position(0) => {
            let first = log.read(1, 1).await?;
            let begins = first
                .first()
                .map(codec::decode)
                .transpose()?
                .map(|e| e.header.time);
            Err(ReplayError::Before {
                begins: begins.unwrap_or(wanted),
                wanted,
            })
        }
        _ => Ok(state),
    }
}
