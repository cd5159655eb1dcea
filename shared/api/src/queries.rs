//! What the gateway asks of others: the projector's views and the audit.
//!
//! In one process these are calls; over a bus they are requests ([`Asked`]). Nothing in them is a reference into
//! somebody's state, so that both are the same to the gateway.

use domain::{Position, Timestamp};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{
    audit::{AuditView, DiffDoc, EventAudit, VerifyReport},
    shape::{AuthorityDoc, CertificateDoc, ConsumerDoc, NodeDoc, RotationDoc, Status, TokenDoc, UserDoc},
};

pub use asked::{Asked, Carry, Query};

mod asked;

/// As of when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// Now: at or after the position that the caller names beside it.
    #[default]
    Newest,
    /// After this event, from the log alone.
    Position(Position),
    /// After the last event at or before this time.
    Time(Timestamp),
}

/// Why a query has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum QueryError {
    /// The views did not read far enough in 5 s.
    #[error("{0}")]
    Lagging(String),
    /// What was asked for is not in the log.
    #[error("{0}")]
    NotFound(String),
    /// The log or the views cannot be read.
    #[error("{0}")]
    Unavailable(String),
}

/// An answer that comes later.
pub type Answering<'a, T> = BoxFuture<'a, Result<T, QueryError>>;

/// The projector's answers. Each waits until the views hold `at_least`, at most 5 s, else
/// [`QueryError::Lagging`]. Presence (`status` of a node) is not the projector's: the gateway adds it.
pub trait Queries: Send + Sync {
    /// The cluster's status.
    fn status(&self, at: At, at_least: Position) -> Answering<'_, Status>;
    /// All nodes, by name.
    fn nodes(&self, at: At, at_least: Position) -> Answering<'_, Vec<NodeDoc>>;
    /// All authorities with their keys, retired ones too.
    fn authorities(&self, at: At, at_least: Position) -> Answering<'_, Vec<AuthorityDoc>>;
    /// All rotations, newest first.
    fn rotations(&self, at_least: Position) -> Answering<'_, Vec<RotationDoc>>;
    /// All join tokens that were not removed.
    fn tokens(&self, at_least: Position) -> Answering<'_, Vec<TokenDoc>>;
    /// All certificates whose time for recovery is not over, newest first.
    fn certificates(&self, at: At, at_least: Position) -> Answering<'_, Vec<CertificateDoc>>;
    /// All operators.
    fn users(&self, at_least: Position) -> Answering<'_, Vec<UserDoc>>;
    /// All external consumers.
    fn consumers(&self, at_least: Position) -> Answering<'_, Vec<ConsumerDoc>>;
}

/// The audit's answers, from the log alone.
pub trait Audit: Send + Sync {
    /// A view as it was then, as JSON in the shape of the live answer.
    fn replay(&self, at: At, view: AuditView) -> Answering<'_, serde_json::Value>;
    /// What differs between two moments.
    fn diff(&self, before: At, after: At) -> Answering<'_, DiffDoc>;
    /// One event, decided again on the state that it was decided on.
    fn event(&self, position: Position) -> Answering<'_, EventAudit>;
    /// Re-reads the log and checks everything in it.
    fn verify(&self) -> Answering<'_, VerifyReport>;
}

impl std::str::FromStr for At {
    type Err = domain::InvalidId;
    /// A position (digits) or an RFC 3339 time.
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s.parse::<u64>() {
            Ok(position) => Ok(Self::Position(Position(position))),
            Err(_) => s.parse().map(Self::Time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_position_or_a_time() {
        assert_eq!("42".parse(), Ok(At::Position(Position(42))));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(At::Time(Timestamp(1000))));
        assert!("yesterday".parse::<At>().is_err());
    }
}
