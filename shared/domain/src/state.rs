//! The state to decide on: everything that commands, gates and duties need to know, folded from the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{
    access::{Grant, RoleName, Uses},
    authority::{AuthorityKey, AuthorityType, KeyKind},
    command::{Answered, LaggingPolicy, Mode, Settings},
    event::{AuthorizationGranted, LeafUse, RotationOutcome},
    fact::{FactReport, FactsByType, Seen},
    id::{
        AuthorityId, AuthorizationId, BodyDigest, BootId, CertDigest, ClusterName, CommandId, ConsumerName,
        Hostname, MemberId, NodeId, Position, Principal, RotationId, Serial, SpkiPin, TokenHash, TokenId,
        UserName,
    },
    phase::Phase,
    probe::ProbeAddress,
    refusal::Code,
    standing::Standing,
    time::Timestamp,
};

/// What a gateway calls itself as a member.
pub const GATEWAY: &str = "gateway";

/// The fold of the log up to `position`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ClusterState {
    /// The last event folded in.
    pub position: Position,
    /// Its time: `now` is never before it.
    pub time: Timestamp,
    /// The cluster, once it was created.
    pub cluster: Option<Cluster>,
    /// Every authority type that has a key.
    pub types: BTreeMap<AuthorityType, TypeState>,
    /// Every node that ever joined and was not removed.
    pub nodes: BTreeMap<NodeId, Node>,
    /// How the nodes of each type stand: derived from the rest, and kept beside it so that nobody counts again.
    pub standings: BTreeMap<AuthorityType, Standing>,
    /// Names in use: who bears each, a node or a host without an agent, and until when at the latest a certificate says so.
    pub names: BTreeMap<Hostname, BTreeMap<Principal, Timestamp>>,
    /// Control-plane services.
    pub members: BTreeMap<MemberId, Member>,
    /// Operators.
    pub users: BTreeMap<UserName, BTreeSet<RoleName>>,
    /// The accounts that their SSH certificates are good for, where that is not the one of their own name.
    pub logins: BTreeMap<UserName, Vec<String>>,
    /// Join tokens that were not removed.
    pub tokens: BTreeMap<TokenId, Token>,
    /// Tokens by the digest that a join brings.
    pub token_hashes: BTreeMap<TokenHash, TokenId>,
    /// External consumers.
    pub consumers: BTreeMap<(AuthorityType, ConsumerName), Consumer>,
    /// Certificates that were issued and whose time for recovery is not over.
    pub certificates: BTreeMap<CertDigest, Certificate>,
    /// When those of people, of parties without an agent and of removed nodes are to be forgotten, who may never come back
    /// for another.
    pub to_forget: BTreeSet<(Timestamp, CertDigest)>,
    /// The certificates of each holder, oldest first.
    pub held: BTreeMap<Principal, Vec<CertDigest>>,
    /// Who a key was first certified (or authorised) for, as long as that is remembered, and every authority's own key.
    pub keys: BTreeMap<SpkiPin, Principal>,
    /// Authorisations that are not signed, refused or voided yet.
    pub pending: BTreeMap<AuthorizationId, Pending>,
    /// The same by the key to be certified.
    pub pending_keys: BTreeMap<SpkiPin, AuthorizationId>,
    /// What became of the latest authorisations, for those who wait for an answer.
    pub settled_authorizations: BTreeMap<AuthorizationId, AuthorizationOutcome>,
    /// The same, oldest first, to forget them.
    pub settled_order: VecDeque<AuthorizationId>,
    /// Certificates that no longer count, for which the signer owes `certificate.revoked`.
    pub to_revoke: BTreeMap<Principal, Vec<CertDigest>>,
    /// Commands of the last 24 h: the key of idempotency and the first answer.
    pub commands: BTreeMap<(Principal, CommandId), Done>,
    /// The same, oldest first, to forget them.
    pub command_order: VecDeque<(Timestamp, Principal, CommandId)>,
    /// When each was last refused, to fold repeats within a minute into one.
    pub refusals: BTreeMap<RefusalKind, Timestamp>,
}

/// What makes two refusals equal: who asked, for which command, on what, the code and the text.
pub type RefusalKind = (Principal, String, Option<String>, Code, String);

/// The cluster.
#[derive(Clone, PartialEq, Debug)]
pub struct Cluster {
    /// Its name.
    pub name: ClusterName,
    /// The version that created it.
    pub version: String,
    /// When.
    pub created: Timestamp,
    /// Its durations.
    pub settings: Settings,
    /// The pin of the bundle key.
    pub bundle_key: SpkiPin,
    /// SubjectPublicKeyInfo of the bundle key, DER, base64.
    pub bundle_public_key: String,
}

/// One authority type.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TypeState {
    /// The phase.
    pub phase: Phase,
    /// The phase before it; `standby` as well until the first rotation.
    pub phase_before: Phase,
    /// The rotation in progress.
    pub rotation: Option<Rotation>,
    /// The keys that signed before the rotation (or sign, while idle).
    pub active: BTreeMap<KeyKind, AuthorityKey>,
    /// The new keys, from `authority.key-generated` on.
    pub prepared: BTreeMap<KeyKind, AuthorityKey>,
    /// When the last of them was recorded: nobody outside can have seen it before.
    pub prepared_at: Option<Timestamp>,
    /// Keys that sign nothing any more.
    pub retired: Vec<RetiredKey>,
    /// The last event that changed the row: facts measured before it do not count.
    pub row_position: Position,
    /// When the current row was first signed, and so could be handed out: before, nobody lags behind it.
    pub row_signed: Option<Timestamp>,
    /// The last event that the next bundle must describe: a change of the row or of the deny list.
    pub bundle_due: Position,
    /// The newest signed bundle.
    pub bundle: Option<BundleHead>,
    /// Completed, never rolled back.
    pub last_rotated: Option<Timestamp>,
    /// Rolled back, never completed.
    pub last_rolled_back: Option<Timestamp>,
    /// The last rotation that ended, and how; until it is settled someone may still accept the retired key.
    pub ended: Option<EndedRotation>,
    /// The generation of the newest key ever made.
    pub newest_generation: u32,
    /// Certificates of this type on the deny list.
    pub denied: BTreeMap<CertDigest, DeniedCertificate>,
}

/// A certificate on the deny list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeniedCertificate {
    /// Its serial number.
    pub serial: Serial,
    /// The authority that signed it.
    pub issuer: AuthorityId,
    /// For TLS, for SSH, or a token.
    pub kind: KeyKind,
    /// The end of its life: then it is of no use anyway.
    pub not_after: Timestamp,
    /// Since when.
    pub at: Timestamp,
}

/// A rotation in progress.
#[derive(Clone, PartialEq, Debug)]
pub struct Rotation {
    /// Its id.
    pub id: RotationId,
    /// When it began.
    pub started: Timestamp,
    /// Manual or semi-automatic.
    pub mode: Mode,
    /// The grace period G.
    pub grace_period_ms: u64,
    /// What a due step does when nodes lag.
    pub on_lagging: LaggingPolicy,
    /// When the current phase was entered: the next step is due G/3 after it.
    pub stepped: Timestamp,
    /// Since when a due step waits.
    pub held: Option<Timestamp>,
    /// Nodes taken out of it.
    pub excluded: BTreeSet<NodeId>,
}

/// The end of a rotation.
#[derive(Clone, PartialEq, Debug)]
pub struct EndedRotation {
    /// Its id.
    pub id: RotationId,
    /// Completed or rolled back.
    pub outcome: RotationOutcome,
    /// When the final standby was entered.
    pub at: Timestamp,
    /// Has every required node reached standby since?
    pub settled: bool,
    /// Nodes that were passed over or excluded when it, or an earlier one, ended: cut off until they return and
    /// recover. Settling waits for those that were passed over, never for those that were excluded.
    pub cut_off: BTreeSet<NodeId>,
}

/// A key that signs nothing any more.
#[derive(Clone, PartialEq, Debug)]
pub struct RetiredKey {
    /// The key.
    pub key: AuthorityKey,
    /// When it was retired.
    pub at: Timestamp,
    /// Completed: it was replaced; rolled back: it never became active; none: it came too late.
    pub outcome: Option<RotationOutcome>,
    /// Did the signer confirm that the private half is gone?
    pub destroyed: bool,
    /// Did the signer record the retirement?
    pub recorded: bool,
}

/// The newest signed bundle of a type; the document itself is in the log at `position`.
#[derive(Clone, PartialEq, Debug)]
pub struct BundleHead {
    /// The position it describes.
    pub revision: Position,
    /// Where in the log the document is.
    pub position: Position,
    /// The phase it names.
    pub phase: Phase,
    /// When it was signed.
    pub signed: Timestamp,
    /// It may not be installed after this.
    pub expires: Timestamp,
    /// The authorities whose revocation lists stand beside it: all that could be reached when it was signed.
    pub lists: BTreeSet<AuthorityId>,
}

/// A node.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// The name that it is known by.
    pub hostname: Hostname,
    /// Every name that its certificates bear.
    pub names: Vec<Hostname>,
    /// What it may be.
    pub grant: Grant,
    /// The token of its last join.
    pub token: TokenId,
    /// The position of `node.joined` or the last `node.rejoined`.
    pub joined: Position,
    /// Its newest facts.
    pub report: Option<Reported>,
    /// Rotations from which it is excluded.
    pub excluded: BTreeMap<AuthorityType, RotationId>,
    /// Rotations in which a certificate of the prepared authority was authorised to it.
    pub touched: BTreeMap<AuthorityType, RotationId>,
    /// Per type: the last phase that it reached.
    pub reached: BTreeMap<AuthorityType, ReachedPhase>,
    /// Two boots that alternate, or a sequence that went back: the last report that made it look like a clone.
    pub clone_suspect: Option<Position>,
    /// The last starts of its agent, in the order in which they were last heard, to notice two that alternate.
    pub boots: Vec<HeardBoot>,
}

/// A start of a node's agent, as its reports tell of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeardBoot {
    /// Its id.
    pub boot: BootId,
    /// Its first report.
    pub first: Position,
    /// The time of its last one.
    pub last: Timestamp,
}

impl Node {
    /// The roles in which it uses a type; none if its grant does not name the type.
    pub fn uses(&self, authority_type: AuthorityType) -> Option<Uses> {
        self.grant.uses.get(&authority_type).copied()
    }
}

/// A report with the circumstances that the gate needs.
#[derive(Clone, PartialEq, Debug)]
pub struct Reported {
    /// What the node said.
    pub report: FactReport,
    /// What the gateway saw.
    pub seen: Seen,
    /// When.
    pub at: Timestamp,
    /// Where in the log.
    pub position: Position,
}

/// The last phase of a type that a node reached, by the gate's own rules.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReachedPhase {
    /// The phase.
    pub phase: Phase,
    /// The rotation in which; none while idle.
    pub rotation: Option<RotationId>,
    /// When.
    pub at: Timestamp,
}

/// A control-plane service that speaks TLS.
#[derive(Clone, PartialEq, Debug)]
pub struct Member {
    /// Its id, stable over restarts.
    pub id: MemberId,
    /// Its current start.
    pub boot: Option<BootId>,
    /// Its last sequence number.
    pub seq: u64,
    /// `gateway`.
    pub service: String,
    /// Is it running, so that every gate waits for it?
    pub running: bool,
    /// The names and addresses of its certificates.
    pub names: Vec<Hostname>,
    /// The addresses.
    pub addresses: Vec<std::net::IpAddr>,
    /// Its facts.
    pub facts: FactsByType,
    /// When its last event was written.
    pub last_event: Timestamp,
    /// The position of its last event: `member.lost` is conditional on it.
    pub position: Position,
}

/// A join token, by its digest.
#[derive(Clone, PartialEq, Debug)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// SHA-256 of the secret.
    pub hash: TokenHash,
    /// What it grants.
    pub grant: Grant,
    /// How many nodes may join with it.
    pub uses: u32,
    /// When it ends.
    pub expires: Timestamp,
    /// Who made it.
    pub made_by: Principal,
    /// Who used it, by the key of the request: the same key again gets the first result.
    pub used: BTreeMap<SpkiPin, NodeId>,
}

/// An external consumer of an exported authority.
#[derive(Clone, PartialEq, Debug)]
pub struct Consumer {
    /// Who answers for it.
    pub owner: String,
    /// How to reach them.
    pub contact: String,
    /// Where it can be looked at instead of asked.
    pub probe: Option<ProbeAddress>,
    /// The last attestation: for which rotation and phase.
    pub attested: Option<(RotationId, Phase)>,
    /// Was that a probe's?
    pub probed: bool,
}

/// A certificate that was issued.
#[derive(Clone, PartialEq, Debug)]
pub struct Certificate {
    /// The authorisation it was signed for.
    pub authorization: AuthorizationId,
    /// Whose it is.
    pub holder: Principal,
    /// The type it chains to.
    pub authority_type: AuthorityType,
    /// The authority that signed it.
    pub issuer: AuthorityId,
    /// For TLS, for SSH, or a token.
    pub kind: KeyKind,
    /// What it may be used for.
    pub usage: LeafUse,
    /// Its serial.
    pub serial: Serial,
    /// The key it certifies.
    pub spki: SpkiPin,
    /// The end of its life.
    pub not_after: Timestamp,
    /// The position of `certificate.issued`: the order of certificates, and where the DER is.
    pub position: Position,
    /// When it was issued.
    pub issued: Timestamp,
    /// When it was first seen in use.
    pub presented: Option<Timestamp>,
    /// From then on a later certificate of the same node counts alone.
    pub superseded_at: Option<Timestamp>,
    /// Revoked: it no longer counts.
    pub revoked: bool,
}

/// An authorisation that waits for the signer.
#[derive(Clone, PartialEq, Debug)]
pub struct Pending {
    /// Exactly what will be in the certificate.
    pub granted: AuthorizationGranted,
    /// The position of `authorization.granted`.
    pub position: Position,
    /// When.
    pub at: Timestamp,
    /// The row of its type at that position, whatever the authorisation says about it.
    pub row: RowStamp,
}

/// The row of a type at a moment: what an authorisation is held against.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowStamp {
    /// The phase.
    pub phase: Phase,
    /// The rotation in progress.
    pub rotation: Option<RotationId>,
    /// The issuer that it names for the client role, and for what people and tokens hold.
    pub client: Option<AuthorityId>,
    /// The issuer that it names for the server role.
    pub server: Option<AuthorityId>,
}

impl RowStamp {
    /// The issuer of a usage in this row; none for both roles while it names two.
    pub fn issuer(&self, usage: LeafUse) -> Option<AuthorityId> {
        match usage {
            LeafUse::Client | LeafUse::Signing => self.client,
            LeafUse::Server => self.server,
            LeafUse::Both => self.client.filter(|issuer| self.server == Some(*issuer)),
        }
    }

    /// The issuer for a party without an agent. What it holds is replaced by hand, and so from the first phase on in which
    /// the new authority signs anything; a host is a server among nodes and follows their row.
    pub fn issuer_by_hand(&self, authority_type: AuthorityType, usage: LeafUse) -> Option<AuthorityId> {
        match (authority_type, usage) {
            (AuthorityType::Host, LeafUse::Server) => self.server,
            _ => self.client,
        }
    }
}

/// What became of an authorisation.
#[derive(Clone, PartialEq, Debug)]
pub enum AuthorizationOutcome {
    /// Signed: the certificate.
    Issued(CertDigest),
    /// The signer refused it.
    Refused(String),
    /// It no longer counts.
    Voided(String),
}

/// A command that was answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Done {
    /// The digest of its body.
    pub digest: BodyDigest,
    /// The first answer, or the first refusal.
    pub answer: Result<Answered, (Code, String)>,
}

impl ClusterState {
    /// The cluster's name, once it was created.
    pub fn cluster_name(&self) -> Option<&ClusterName> {
        self.cluster.as_ref().map(|c| &c.name)
    }

    /// The cluster's durations (defaults before it was created).
    pub fn settings(&self) -> Settings {
        self.cluster
            .as_ref()
            .map(|c| c.settings.clone())
            .unwrap_or_default()
    }

    /// The time to decide with: the clock's, but never before the last event.
    pub fn now(&self, clock: Timestamp) -> Timestamp {
        clock.max(self.time)
    }
}

mod keys;
mod lookups;
