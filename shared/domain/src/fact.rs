//! What a node or a member reports of itself: facts, not labels.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    authority::AuthorityType,
    id::{BootId, CertDigest, Position, SpkiPin},
    time::Timestamp,
};

/// The most that a report may weigh, as JSON, in bytes.
pub const MAX_REPORT_BYTES: usize = 8 * 1024;
/// The shortest time between two reports of one node that say the same of its authorities, in milliseconds.
pub const REPORT_INTERVAL_MS: u64 = 5_000;

/// One report, measured from a generation that passed its proof.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FactReport {
    /// The start of the agent that measured it.
    pub boot: BootId,
    /// Rises by at least one with each report of a boot.
    pub seq: u64,
    /// The agent's version.
    pub version: String,
    /// Where its probe endpoint listens, `host:port`, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Per authority type in use, what is installed and proven.
    pub authorities: FactsByType,
    /// The failure that keeps it from the desired state, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// It serves what it had on disk because no gateway answered for 30 s after its start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsynced: bool,
    /// Labels from its configuration; shown, never decided on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

// Boxed: a map of one entry has room for eleven, and the state holds one of every node.
/// What one node or service holds, by authority type.
pub type FactsByType = BTreeMap<AuthorityType, Box<TypeFacts>>;

/// What one node holds of one authority type.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct TypeFacts {
    /// The revision of the signed bundle under which this was measured: the log position of the row.
    pub revision: Position,
    /// The authorities it trusts, proven by the CA names of its own CertificateRequest or by a probe.
    pub trusted: BTreeSet<SpkiPin>,
    /// The issuer of the certificate it presents as a TLS client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_issuer: Option<SpkiPin>,
    /// The issuer of the certificate it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_issuer: Option<SpkiPin>,
    /// The end of its client certificate's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_not_after: Option<Timestamp>,
    /// The end of its server certificate's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_not_after: Option<Timestamp>,
    /// The SSH authority that signed the certificate of its sshd, where its agent keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_issuer: Option<SpkiPin>,
    /// The end of that certificate's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_not_after: Option<Timestamp>,
    /// Is there a session left on the issuer that the row retires, with a peer that is itself required?
    #[serde(default)]
    pub sessions_on_retiring: bool,
    /// Is there one with an excluded peer? Shown, and cut at standby.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sessions_of_excluded: bool,
}

/// Why a node cannot reach what it should hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// `reload`, `proof`, `install`, `disk`, `ssh`: the step that fails.
    pub step: String,
    /// What happened, at most 300 characters, without secrets: `` `systemctl reload nginx` exited 1 ``.
    pub detail: String,
    /// How many times in a row.
    pub count: u32,
}

/// What the gateway saw of the connection that a report came by.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Seen {
    /// The client certificate of the connection.
    pub certificate: CertDigest,
    /// The authority that it chains to.
    pub issuer: SpkiPin,
    /// The source address, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl FactReport {
    /// Does this report bring facts that a gate could wait for, and that `before` did not? What is merely shown (how
    /// often something failed, labels, the version, the probe's address) has time.
    pub fn brings_news_since(&self, before: &Self) -> bool {
        self.boot != before.boot || self.authorities != before.authorities || self.unsynced != before.unsynced
    }
}
