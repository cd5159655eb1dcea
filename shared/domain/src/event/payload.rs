//! The data of each event. Fields are only ever added with a default; a changed meaning is a new version.

use std::{collections::BTreeMap, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::Form;
use crate::{
    access::{Grant, RoleName},
    authority::{AuthorityKey, AuthorityType, KeyKind},
    command::{LaggingPolicy, Mode, Order, Revocable, Settings},
    fact::{FactReport, FactsByType, Seen},
    id::{
        AuthorityId, AuthorizationId, BootId, CertDigest, ConsumerName, Hostname, MemberId, NodeId, Position,
        Principal, RotationId, Serial, SpkiPin, TokenHash, TokenId, UserName,
    },
    phase::Phase,
    probe::{ProbeAddress, Sight},
    refusal::Code,
    time::Timestamp,
    trust::SignedBundle,
};

macro_rules! payloads {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
        #[allow(missing_docs, reason = "field names are the field's terms; units stand in the name")]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)* }
    )*};
}

/// The totals of a gate and where in the log it was evaluated, so that a replay can decide it again.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct GateRecord {
    /// The fold that the gate was evaluated on.
    pub position: Position,
    /// Nodes that had to have reached the phase before (members not counted).
    pub required: u32,
    /// Of those, the ones that had.
    pub reached: u32,
    /// Nodes excluded from this rotation.
    pub excluded: u32,
    /// Required nodes, consumers and conditions that were passed over by force or policy.
    pub overridden: u32,
}

/// How a rotation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RotationOutcome {
    /// The prepared authority became active.
    Completed,
    /// The active authority stayed; the prepared one is gone.
    RolledBack,
}

/// Which usages a leaf has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LeafUse {
    /// TLS client (clientAuth).
    Client,
    /// TLS server (serverAuth).
    Server,
    /// Both in one leaf, where the row names one issuer for both.
    Both,
    /// Neither: it signs documents (SAML assertions), and has no extended usage.
    Signing,
}

impl LeafUse {
    /// May the leaf be presented as a TLS client?
    pub fn client(self) -> bool {
        matches!(self, Self::Client | Self::Both)
    }
    /// May it be served?
    pub fn server(self) -> bool {
        matches!(self, Self::Server | Self::Both)
    }
}

/// What a certificate is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Occasion {
    /// The first start of the cluster.
    Genesis,
    /// A join.
    Join,
    /// A renewal or the request of a phase.
    Renewal,
    /// A recovery of a node.
    Recovery,
    /// A person's login or renewal.
    Login,
    /// `auth sign` and `auth token`: for a party without an agent, on somebody's word.
    Signing,
}

payloads! {
    ClusterCreated {
        cluster: crate::id::ClusterName,
        version: String,
        settings: Settings,
        bundle_key: SpkiPin,
        /// SubjectPublicKeyInfo, DER, base64.
        bundle_public_key: String,
    }
    ClusterClockAccepted { behind_ms: u64, }
    RotationPhaseEntered {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        rotation: RotationId,
        from: Phase,
        to: Phase,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcome: Option<RotationOutcome>,
        mode: Mode,
        grace_period_ms: u64,
        on_lagging: LaggingPolicy,
        gate: GateRecord,
        /// Was the gate closed and overridden by a person?
        #[serde(default)]
        forced: bool,
        /// The first 100 names of nodes and conditions that were passed over.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        passed_over: Vec<String>,
        /// SHA-256 of all their names, one per line, in order.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        passed_over_digest: Option<String>,
    }
    RotationHeld {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        rotation: RotationId,
        due: Phase,
        due_at: Timestamp,
        lagging: u32,
        /// The first 100 names.
        names: Vec<String>,
    }
    RotationResumed {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        rotation: RotationId,
        due: Phase,
    }
    RotationModeChanged {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        rotation: RotationId,
        mode: Mode,
    }
    RotationSettled {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        rotation: RotationId,
        required: u32,
    }
    NodeJoined {
        node: NodeId,
        hostname: Hostname,
        grant: Grant,
        token: TokenId,
        /// The key of its first certificate request.
        spki: SpkiPin,
    }
    NodeRejoined {
        node: NodeId,
        hostname: Hostname,
        grant: Grant,
        token: TokenId,
        spki: SpkiPin,
        /// The old certificate whose key signed the request, if one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proven_by: Option<CertDigest>,
    }
    NodeRecovered { node: NodeId, proven_by: CertDigest, spki: SpkiPin, }
    NodeReported { node: NodeId, report: FactReport, seen: Seen, }
    NodeExcluded { node: NodeId, rotations: BTreeMap<AuthorityType, RotationId>, }
    NodeIncluded { node: NodeId, rotations: BTreeMap<AuthorityType, RotationId>, }
    NodeRemoved { node: NodeId, }
    MemberStarted {
        member: MemberId,
        boot: BootId,
        seq: u64,
        service: String,
        /// The names and addresses of its server certificates; reserved for nodes.
        names: Vec<Hostname>,
        addresses: Vec<IpAddr>,
        facts: FactsByType,
    }
    MemberReported { member: MemberId, boot: BootId, seq: u64, facts: FactsByType, }
    MemberLost { member: MemberId, boot: BootId, silent_ms: u64, }
    MemberStopped { member: MemberId, boot: BootId, }
    AccessTokenCreated {
        token: TokenId,
        hash: TokenHash,
        grant: Grant,
        uses: u32,
        expires: Timestamp,
    }
    AccessTokenUsed { token: TokenId, node: NodeId, hostname: Hostname, spki: SpkiPin, }
    AccessTokenRemoved { token: TokenId, }
    AccessUserAdded {
        user: UserName,
        roles: Vec<RoleName>,
        /// The accounts that their SSH certificates are good for; the one of their own name where none is said.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        logins: Vec<String>,
    }
    AccessUserRemoved { user: UserName, }
    AccessRecovered { user: UserName, spki: SpkiPin, }
    AccessNamesReleased { node: NodeId, }
    AccessCertificatesRevoked { target: Revocable, }
    AccessCredentialPresented { holder: Principal, certificate: CertDigest, }
    ConsumerAdded {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        consumer: ConsumerName,
        owner: String,
        contact: String,
        /// Where it can be looked at instead of asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<ProbeAddress>,
    }
    ConsumerAttested {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        consumer: ConsumerName,
        rotation: RotationId,
        phase: Phase,
        /// By a probe rather than by somebody's word?
        #[serde(default)]
        probed: bool,
        /// What the probe saw.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        saw: Option<Sight>,
    }
    ConsumerWithdrawn {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        consumer: ConsumerName,
    }
    CommandRefused {
        principal: Principal,
        /// The command's name: `rotate`, `nodes-exclude`.
        command: String,
        /// What it was to be done to, where it names one thing: a type, a node, a user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        code: Code,
        text: String,
        /// How many equal refusals this stands for.
        count: u32,
        /// What was asked for; not of several at once, and not in logs of older versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        order: Option<Box<Order>>,
    }
    CommandNoop {
        principal: Principal,
        command: String,
        text: String,
        /// What was asked for; logs of older versions do not say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        order: Option<Box<Order>>,
    }
    AuthorizationGranted {
        authorization: AuthorizationId,
        holder: Principal,
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        issuer: AuthorityId,
        usage: LeafUse,
        occasion: Occasion,
        spki: SpkiPin,
        /// SubjectPublicKeyInfo, DER, base64.
        public_key: String,
        /// The common name, for people.
        common_name: String,
        names: Vec<Hostname>,
        addresses: Vec<IpAddr>,
        uri: String,
        serial: Serial,
        not_before: Timestamp,
        not_after: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rotation: Option<RotationId>,
        phase: Phase,
        /// A certificate for TLS where it is not said.
        #[serde(default, skip_serializing_if = "Form::is_tls")]
        form: Form,
    }
    AuthorizationVoided { authorization: AuthorizationId, holder: Principal, why: String, }
    AuthorityKeyGenerated {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        key: AuthorityKey,
    }
    AuthorityActivated {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        kind: KeyKind,
        authority: AuthorityId,
    }
    AuthorityRetired {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        authority: AuthorityId,
        outcome: RotationOutcome,
    }
    AuthorityDestroyed {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        authority: AuthorityId,
        /// The stores that confirmed that they no longer hold the private key.
        stores: Vec<String>,
    }
    AuthorityBundleSigned {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        revision: Position,
        phase: Phase,
        expires: Timestamp,
        bundle: SignedBundle,
        /// The revocation list (RFC 5280, section 5) of each authority for TLS in it, DER, base64, signed by that authority
        /// and as long-lived as the bundle; none of one whose key could not be reached.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        revocation_lists: BTreeMap<AuthorityId, String>,
    }
    CertificateIssued {
        authorization: AuthorizationId,
        holder: Principal,
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        issuer: AuthorityId,
        usage: LeafUse,
        serial: Serial,
        spki: SpkiPin,
        digest: CertDigest,
        not_after: Timestamp,
        /// A certificate for TLS where it is not said.
        #[serde(default, skip_serializing_if = "KeyKind::is_tls")]
        kind: KeyKind,
        /// The certificate, DER, base64. Of SSH one line, as in `id_ed25519-cert.pub`; the digest is that of its blob. Of a
        /// token its sealed form (RFC 7516, compact), which only the asker can open; the digest is that of the token.
        certificate: String,
    }
    CertificateRefused { authorization: AuthorizationId, holder: Principal, why: String, }
    CertificateRevoked { holder: Principal, certificates: Vec<CertDigest>, why: String, }
}
