//! The lists of `get` beside the nodes, and the answers of `whoami`, `check` and `probe`.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    AuthorityType, AuthorizationId, CertDigest, CommandId, NodeId, Phase, Position, Principal, RotationId,
    Serial, SpkiPin, Timestamp, TokenId,
    access::{RoleName, Uses},
    authority::KeyKind,
    command::{LaggingPolicy, Mode},
    event::{GateRecord, LeafUse, RotationOutcome},
    probe::ProbeAddress,
};
use serde::{Deserialize, Serialize};

use super::KeyDoc;

/// One authority in `get authorities`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AuthorityDoc {
    /// Which.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// What it signs, in words.
    pub signs: String,
    /// Who verifies against it, in words.
    pub verifiers: String,
    /// Does it have keys in this cluster?
    pub in_service: bool,
    /// Its phase.
    pub phase: Phase,
    /// Its keys: active, prepared, then retired ones, newest first.
    pub keys: Vec<AuthorityKeyDoc>,
    /// The revision of its newest signed bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_revision: Option<Position>,
}

/// One key in `get authorities`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AuthorityKeyDoc {
    /// What `status` shows of it.
    #[serde(flatten)]
    pub key: KeyDoc,
    /// Where in the log it was made.
    pub position: Position,
    /// The rotation that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// The self-signed CA certificate, PEM; empty for SSH and JWT keys, which have none.
    pub certificate: String,
    /// The SubjectPublicKeyInfo, DER, base64, of a key without a certificate; empty for one with it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub public_key: String,
    /// When it was retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<Timestamp>,
    /// Did the signer confirm that the private half is gone?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub destroyed: bool,
}

/// One rotation in `get rotations`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RotationDoc {
    /// Its id.
    pub id: RotationId,
    /// Which authority.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// The phase it is in; `standby` when it is over.
    pub phase: Phase,
    /// Manual or semi-automatic.
    pub mode: Mode,
    /// Its grace period in Go's notation.
    pub grace_period: String,
    /// What a due step does when nodes lag.
    pub on_lagging: LaggingPolicy,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RotationOutcome>,
    /// When everybody had followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Timestamp>,
    /// The phases that it entered, in order.
    pub phases: Vec<RotationPhaseDoc>,
}

/// One phase of a rotation.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RotationPhaseDoc {
    /// The phase entered.
    pub phase: Phase,
    /// When.
    pub entered: Timestamp,
    /// On whose word.
    pub by: Principal,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The position of the event.
    pub position: Position,
    /// The gate as it was evaluated.
    pub gate: GateRecord,
    /// Was a closed gate overridden?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced: bool,
}

/// One join token in `get tokens`; the secret is known to its maker alone.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TokenDoc {
    /// Its id.
    pub id: TokenId,
    /// The names it grants.
    pub names: Vec<String>,
    /// The addresses it grants.
    pub addresses: Vec<std::net::IpAddr>,
    /// The authority types it grants, with the roles in each.
    pub types: BTreeMap<AuthorityType, Uses>,
    /// How many nodes may join with it.
    pub uses: u32,
    /// How many have.
    #[serde(default)]
    pub used: u32,
    /// Who has: 100 of them where it is a whole fleet's token.
    pub used_by: Vec<NodeId>,
    /// When it ends.
    pub expires: Timestamp,
    /// Has it?
    pub expired: bool,
    /// Who made it.
    pub made_by: Principal,
}

/// One certificate in `get certificates`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct CertificateDoc {
    /// SHA-256 of its DER.
    pub digest: CertDigest,
    /// Whose it is.
    pub holder: Principal,
    /// The name that people know the holder by.
    pub name: String,
    /// The type it chains to.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// The authority that signed it.
    pub issuer: SpkiPin,
    /// For TLS where it is not said, for SSH, or a token.
    #[serde(default, skip_serializing_if = "KeyKind::is_tls")]
    pub kind: KeyKind,
    /// What it may be used for.
    pub usage: LeafUse,
    /// Its serial.
    pub serial: Serial,
    /// The key it certifies.
    pub spki: SpkiPin,
    /// The authorisation it was signed for.
    pub authorization: AuthorizationId,
    /// When it was issued.
    pub issued: Timestamp,
    /// The end of its life.
    pub not_after: Timestamp,
    /// When it was first seen in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presented: Option<Timestamp>,
    /// From then on a later one counts alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_at: Option<Timestamp>,
    /// Does it no longer count?
    pub revoked: bool,
    /// The position of `certificate.issued`.
    pub position: Position,
}

/// One operator in `get users`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct UserDoc {
    /// The name.
    pub name: String,
    /// The roles.
    pub roles: BTreeSet<RoleName>,
    /// The accounts that their SSH certificates are good for.
    #[serde(default)]
    pub logins: Vec<String>,
    /// The latest end of the certificates that were not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

/// One external consumer in `get consumers`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConsumerDoc {
    /// The name.
    pub name: String,
    /// Of which authority.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// Who answers for it.
    pub owner: String,
    /// How to reach them.
    pub contact: String,
    /// Where it can be looked at instead of asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeAddress>,
    /// The phase and rotation it last attested for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested: Option<(RotationId, Phase)>,
    /// Was that a probe's, and nobody's word?
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probed: bool,
    /// Does a gate wait for it now?
    pub waited_for: bool,
}

/// `POST /v1/consumers/{name}/probe`: what was seen of one external consumer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConsumerProbeReport {
    /// The consumer.
    pub name: String,
    /// Of which authority.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// Where it was looked at.
    pub probe: ProbeAddress,
    /// The phase whose row it was held against.
    pub phase: Phase,
    /// Is it where the row asks it to be?
    pub ok: bool,
    /// What was seen, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saw: Option<String>,
    /// The fact that is missing, or why nothing was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Where its attestation stands in the log; none outside of a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
}

/// `whoami`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Whoami {
    /// The cluster.
    pub cluster: String,
    /// Who the control plane takes the caller for.
    pub principal: Principal,
    /// The roles, looked up in the log now.
    pub roles: BTreeSet<RoleName>,
    /// The certificate presented.
    pub certificate: CertDigest,
    /// The authority that signed it.
    pub issuer: SpkiPin,
    /// The end of its life.
    pub not_after: Timestamp,
    /// The issuer that the current row names for people; another than `issuer` means: renew.
    pub row_issuer: SpkiPin,
    /// The revision of the newest host bundle; an older trust set means: refresh.
    pub bundle_revision: Position,
    /// The position that this describes.
    pub position: Position,
}

/// How bad a finding of `check` is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckLevel {
    /// All is well.
    Ok,
    /// Somebody should look.
    Warn,
    /// Something is wrong.
    Error,
}

/// `check`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckReport {
    /// The position that this describes.
    pub position: Position,
    /// The findings, section by section.
    pub checks: Vec<CheckFinding>,
    /// How many are errors.
    pub errors: u32,
    /// How many are warnings.
    pub warnings: u32,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CheckFinding {
    /// `control plane`, `certificate authorities`, `nodes`.
    pub section: String,
    /// A stable name that `explain` knows.
    pub name: String,
    /// How bad.
    pub level: CheckLevel,
    /// One line.
    pub text: String,
    /// The next command, when a person is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `probe`: what a node serves, seen by dialling it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The node.
    pub node: NodeId,
    /// The name that people know it by.
    pub name: String,
    /// Where it was dialled; empty if it advertises nothing.
    pub addr: String,
    /// Did it answer with its own identity?
    pub ok: bool,
    /// The generation of the authority that signed what it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// That authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<SpkiPin>,
    /// The end of the served certificate's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// How long the handshake and the first bytes took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An id for a command, for callers that hold fresh random bytes and the time: a UUIDv7 (RFC 9562, section 5.7).
pub fn command_id(now: Timestamp, random: [u8; 10]) -> CommandId {
    let millis = u64::try_from(now.0).unwrap_or(0);
    CommandId(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_id_tells_when_it_was_made() {
        let id = command_id(Timestamp(1_789_868_676_123), [7; 10]);
        assert_eq!(id.created_ms(), Some(1_789_868_676_123));
    }
}
