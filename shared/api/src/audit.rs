//! What the audit answers.

use std::collections::BTreeSet;

use domain::{InvalidId, Position, access::RoleName};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A view that can be replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditView {
    /// `status`.
    Status,
    /// `get nodes`.
    Nodes,
    /// `get authorities`.
    Authorities,
    /// `get certificates`.
    Certificates,
}

/// A stored event with its place: `event` holds the stored bytes unchanged.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventRecord {
    /// Its position.
    pub position: Position,
    /// The subject it stands on.
    pub subject: String,
    /// The CloudEvent exactly as it is stored.
    pub event: Box<RawValue>,
}

/// What `audit verify` found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct VerifyReport {
    /// The cluster.
    pub cluster: String,
    /// The last position that was read.
    pub position: Position,
    /// How long it took.
    pub seconds: f64,
    /// Did every check pass?
    pub verified: bool,
    /// One line per check.
    pub checks: Vec<VerifyCheck>,
}

/// One check of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifyCheck {
    /// `order`, `schema`, `writers`, `decisions`, `phases`, `issuance`, `bundles`, `checkpoints`, `attestations`.
    pub name: String,
    /// `ok`, `failed` or `skipped`.
    pub outcome: VerifyOutcome,
    /// How many things it looked at.
    pub checked: u64,
    /// What it found, in one line.
    pub text: String,
    /// The first position that does not hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

/// What is known of one event beside what is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventAudit {
    /// Its position.
    pub position: Position,
    /// Decided again on the state that it was decided on: `ok`, `failed` or `skipped`.
    pub outcome: VerifyOutcome,
    /// What came out, in one line.
    pub text: String,
    /// The roles of its actor when it was decided; empty for whoever is no operator.
    pub roles: BTreeSet<RoleName>,
}

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyOutcome {
    /// Everything holds.
    Ok,
    /// Something does not.
    Failed,
    /// It could not be checked from here; the text says why.
    Skipped,
}

/// What differs between two states.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DiffDoc {
    /// The earlier position.
    pub before: Position,
    /// The later position.
    pub after: Position,
    /// Each difference, in the order of the path.
    pub changes: Vec<DiffChange>,
}

/// One value that changed.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DiffChange {
    /// Where: `authorities.host.rotation.phase`.
    pub path: String,
    /// Its value before; absent if it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    /// Its value after; absent if it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

impl std::str::FromStr for AuditView {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        match s {
            "status" => Ok(Self::Status),
            "nodes" => Ok(Self::Nodes),
            "authorities" => Ok(Self::Authorities),
            "certificates" => Ok(Self::Certificates),
            _ => Err(InvalidId {
                text: s.chars().take(80).collect(),
                expected: "a view: status, nodes, authorities, certificates",
            }),
        }
    }
}
