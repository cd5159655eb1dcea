//! The log's own words: subject, append, outcome, record, lease.

use std::{fmt, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{AppendError, LeaseError};

/// The most events one append may hold: JetStream's limit for an atomic batch (ADR-50).
pub const MAX_EVENTS: usize = 1000;

/// The largest event in bytes; room for a trust bundle with thousands of denied serials.
pub const MAX_EVENT_BYTES: usize = 512 * 1024;

/// The most bytes of one append, so that one caller cannot hold up the group it is committed with.
pub const MAX_APPEND_BYTES: usize = 8 * 1024 * 1024;

/// A literal subject: tokens of letters, digits, `-` and `_`, joined by dots.
///
/// Wildcards have no place here: a condition on a wildcard is not kept by a replicated stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subject(String);

/// Why a text is no literal subject.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{text}\" is not a literal subject: tokens of letters, digits, - and _ joined by dots, 255 bytes at most"
)]
pub struct SubjectError {
    text: String,
}

/// One event before it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Where it belongs; a subject is the unit of conditional appends.
    pub subject: Subject,
    /// The same id that stands as `id` in the stored JSON: by it a lost answer is cleared up.
    pub id: Uuid,
    /// What is stored, byte for byte.
    pub data: Bytes,
}

/// Events that are stored together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Append {
    /// The first event's subject, the only one a condition stands on.
    pub subject: Subject,
    /// The position of the last record on that subject: `Some(0)` none yet, `None` no condition.
    pub expected: Option<u64>,
    /// One to [`MAX_EVENTS`] events.
    pub events: Vec<NewEvent>,
}

/// What became of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All events are durable at these positions, without another one between them.
    Stored {
        /// Position of the first event.
        first: u64,
        /// Position of the last event.
        last: u64,
    },
    /// Nothing was stored: the subject's last record is at `tail` (0: none).
    Conflict {
        /// Position of the last record on the subject.
        tail: u64,
    },
    /// The answer was lost: the events are stored, or not, or will be yet.
    Unknown(String),
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its place in the total order, from 1.
    pub position: u64,
    /// The subject it was appended to.
    pub subject: Subject,
    /// The bytes as they were appended.
    pub data: Bytes,
}

/// A liveness record beside the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose it is.
    pub key: String,
    /// What the holder last said.
    pub value: Bytes,
    /// Changes with every renewal: a reader measures age on its own clock from the last change it saw.
    pub revision: u64,
}

impl Subject {
    /// Parses a literal subject.
    pub fn parse(text: impl Into<String>) -> Result<Self, SubjectError> {
        let text = text.into();
        if text.len() <= 255 && are_tokens(&text) {
            Ok(Self(text))
        } else {
            Err(SubjectError {
                text: text.chars().take(80).collect(),
            })
        }
    }

    /// The subject as the stores write it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Subject {
    type Error = SubjectError;

    fn try_from(text: String) -> Result<Self, SubjectError> {
        Self::parse(text)
    }
}

impl From<Subject> for String {
    fn from(subject: Subject) -> Self {
        subject.0
    }
}

impl AsRef<str> for Subject {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Append {
    /// An append of one event.
    pub fn one(event: NewEvent, expected: Option<u64>) -> Self {
        Self {
            subject: event.subject.clone(),
            expected,
            events: vec![event],
        }
    }

    /// Refuses what no store can take, alike in all of them.
    pub(crate) fn check(&self) -> Result<(), AppendError> {
        let Some(first) = self.events.first() else {
            return Err(AppendError::Invalid {
                detail: "an append needs at least one event".into(),
            });
        };
        if first.subject != self.subject {
            let detail = format!(
                "its first event is on {}, its condition on {}",
                first.subject, self.subject
            );
            return Err(AppendError::Invalid { detail });
        }
        if self.events.len() > MAX_EVENTS {
            return Err(AppendError::TooManyEvents {
                events: self.events.len(),
            });
        }
        if let Some(event) = self
            .events
            .iter()
            .find(|event| event.data.len() > MAX_EVENT_BYTES)
        {
            let (subject, bytes) = (event.subject.clone(), event.data.len());
            return Err(AppendError::TooLarge {
                subject,
                bytes,
                limit: MAX_EVENT_BYTES,
            });
        }
        let bytes = self.events.iter().map(|event| event.data.len()).sum();
        if bytes > MAX_APPEND_BYTES {
            let subject = self.subject.clone();
            return Err(AppendError::TooLarge {
                subject,
                bytes,
                limit: MAX_APPEND_BYTES,
            });
        }
        Ok(())
    }
}

/// The cluster's name as one token of subjects and stream names: dots become underscores.
pub fn cluster_token(cluster: &str) -> String {
    cluster.replace('.', "_")
}

/// What every event subject of a cluster begins with, the last dot included.
pub fn event_prefix(cluster: &str) -> String {
    format!("carousel.v1.{}.evt.", cluster_token(cluster))
}

/// Refuses a lease that not every store takes.
pub(crate) fn check_lease(key: &str, ttl: Duration) -> Result<(), LeaseError> {
    if key.len() > 200 || !are_tokens(key) {
        let detail = "a key consists of letters, digits, -, _ and dots between them".into();
        return Err(LeaseError::Invalid { detail });
    }
    if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&ttl) {
        return Err(LeaseError::Invalid {
            detail: "its time to live is between a second and an hour".into(),
        });
    }
    Ok(())
}

/// Tokens joined by dots, none of them empty. Every record that is read passes here.
fn are_tokens(text: &str) -> bool {
    let mut before = b'.';
    for byte in text.bytes() {
        let is_dot = byte == b'.';
        if !(byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || is_dot && before != b'.') {
            return false;
        }
        before = byte;
    }
    before != b'.'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_literal_or_refused() {
        for good in ["a", "carousel.v1.acme_cluster.evt.rotation.host", "a-b.C_9"] {
            assert_eq!(Subject::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "", ".", "a.", ".a", "a..b", "a.*", "a.>", "a b", "a\nb", "ä", "a/b", "$JS.API",
        ] {
            assert!(Subject::parse(bad).is_err(), "{bad:?} was taken");
        }
        assert!(Subject::parse("a".repeat(256)).is_err());
    }

    #[test]
    fn a_refused_subject_is_quoted_only_in_part() {
        let error = Subject::parse("\u{1}".repeat(5000)).unwrap_err();
        assert!(error.to_string().len() < 300);
    }

    #[test]
    fn an_event_prefix_is_the_contracts() {
        assert_eq!(event_prefix("acme.cluster"), "carousel.v1.acme_cluster.evt.");
    }
}
