//! Commands: what somebody asks for, and the answers to it.

use std::{collections::BTreeSet, net::IpAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    access::{Action, Grant, RoleName},
    authority::{AuthorityType, KeyKind},
    event::{AuthorityActivated, AuthorityKeyGenerated, CertificateIssued, LeafUse},
    fact::{FactReport, FactsByType, Seen},
    id::{
        AuthorizationId, BodyDigest, BootId, CertDigest, ClusterName, CommandId, ConsumerName, Hostname,
        MemberId, NodeId, Principal, RotationId, SpkiPin, TokenHash, TokenId, UserName,
    },
    phase::Phase,
    probe::{ProbeAddress, Sight},
    time::Timestamp,
};

pub use answer::{Answer, Answered};
pub use credential::{Revocable, Sign};
pub use settings::{Settings, UnusableSetting};

mod answer;
mod credential;
mod settings;

/// Does a rotation go on by itself?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A person makes each step.
    Manual,
    /// The schedule makes each step when it is due and the gate is open.
    Automatic,
}

/// What a due step of a semi-automatic rotation does when nodes lag.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LaggingPolicy {
    /// Wait, and go on by itself when the gate opens.
    #[default]
    Hold,
    /// Pass over nodes not seen since the step before; never into the final standby.
    Proceed,
    /// Turn back when at least 5 % and at least two nodes lag.
    Rollback,
}

/// What proved who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credential {
    /// The client certificate that was presented at the door.
    Certificate(CertDigest),
    /// The subject that a message came on: the bus lets nobody publish below another's name.
    Subject(String),
}

impl Credential {
    /// The certificate, if it is one.
    pub fn certificate(&self) -> Option<CertDigest> {
        match self {
            Self::Certificate(digest) => Some(*digest),
            Self::Subject(_) => None,
        }
    }
}

/// A command: who asks, with which id, why, and for what.
#[derive(Clone, PartialEq, Debug)]
pub struct Command {
    /// Made by the sender (UUIDv7). Orders that are not commands (fact reports, the schedule) get a fresh one.
    pub id: CommandId,
    /// On whose word.
    pub principal: Principal,
    /// What proves it; nothing where nobody has to (a join, a part of the control plane).
    pub credential: Option<Credential>,
    /// The digest of the request as the sender sent it: method, path and body.
    pub digest: BodyDigest,
    /// Why, for the audit log.
    pub reason: Option<String>,
    /// What is asked for.
    pub order: Order,
}

impl Command {
    /// What the table of permissions calls it: a member asking for its own certificate is not a node, and one that says
    /// what it saw of a consumer is no operator.
    pub fn action(&self) -> Action {
        match (&self.order, &self.principal) {
            (
                Order::RequestCertificate { .. } | Order::AttestConsumer { probed: true, .. },
                Principal::Gateway(_),
            ) => Action::MemberSelf,
            (order, _) => order.action(),
        }
    }
}

/// What `decide` gets to know beside the state and the command: everything that is not a function of them.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// The time, already never before the last event (see `state::ClusterState::now`).
    pub now: Timestamp,
    /// Fresh ids, used in order for rotations, nodes, tokens and authorisations.
    pub fresh: [uuid::Uuid; 4],
    /// Fresh random bytes for serials, used in order.
    pub serials: [[u8; 16]; 2],
    /// Is the clock suspect? Then no automatic step is taken.
    pub clock_suspect: bool,
    /// SHA-256, so that the pure core can name long lists by digest.
    pub sha256: fn(&[u8]) -> [u8; 32],
}

/// A certificate request, after its signature was verified: only the key is taken from it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KeyRequest {
    /// The pin of the key.
    pub spki: SpkiPin,
    /// SubjectPublicKeyInfo, DER, base64.
    pub public_key: String,
}

/// What a caller expects of a rotation; a mismatch is `stale_view`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Expectation {
    /// The rotation that was shown; none while idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// The phase that was shown.
    pub phase: Phase,
}

/// The phase command of a person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Rotate {
    /// Which authority.
    pub authority_type: AuthorityType,
    /// The phase to enter; none starts a rotation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Phase>,
    /// `--manual`.
    pub manual: bool,
    /// `--grace-period`, only where a rotation starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period_ms: Option<u64>,
    /// `--on-lagging`, only where a semi-automatic rotation starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_lagging: Option<LaggingPolicy>,
    /// Pass over lagging nodes, consumers and time conditions.
    pub force: bool,
    /// What the caller saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expects: Option<Expectation>,
}

/// A join: the token's digest and what is wanted with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Join {
    /// SHA-256 of the token.
    pub token: TokenHash,
    /// The name that the node wants to be known by.
    pub hostname: Hostname,
    /// The key to certify.
    pub key: KeyRequest,
    /// The node that the data directory belonged to, with the certificate whose key signed the request.
    pub rejoin: Option<Rejoin>,
}

/// Joining again on an old data directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Rejoin {
    /// The node's id, as the data directory has it.
    pub node: NodeId,
    /// The certificate whose key signed the request, verified by the gateway; none if no such key is left.
    pub proven_by: Option<CertDigest>,
}

/// The first facts of a cluster, appended as one at the first `serve`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Genesis {
    /// Its name.
    pub cluster: ClusterName,
    /// Its durations.
    pub settings: Settings,
    /// The pin of the bundle key.
    pub bundle_key: SpkiPin,
    /// SubjectPublicKeyInfo, DER, base64.
    pub bundle_public_key: String,
    /// Each first key, generated and activated (facts of the signer, made by `init`).
    pub keys: Vec<(AuthorityKeyGenerated, AuthorityActivated)>,
    /// The first administrator.
    pub admin: UserName,
    /// The first gateway.
    pub gateway: MemberId,
    /// The certificates of the administrator and the gateway, with their authorisations.
    pub certificates: Vec<(crate::event::AuthorizationGranted, CertificateIssued)>,
}

/// What can be asked for. Most are commands of people; the rest come from nodes, members and the schedule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[allow(
    missing_docs,
    reason = "the variants are the commands of the contract; units stand in the names"
)]
pub enum Order {
    /// Never written down as an order: all of it is in the facts, and nobody with a name is refused one.
    #[serde(skip)]
    Genesis(Box<Genesis>),
    Rotate(Rotate),
    /// The schedule: a due step of a semi-automatic rotation. `uptime_since_step_ms` is the sum of the
    /// orchestrator's running time since the step before, `uptime_ms` the time since its start. `seen` are the nodes
    /// that a gateway has or has had since the step before, whether they reported or not; none if nobody can say.
    ScheduledStep {
        authority_type: AuthorityType,
        expects: Expectation,
        uptime_since_step_ms: u64,
        uptime_ms: u64,
        seen: Option<BTreeSet<NodeId>>,
    },
    Settle {
        authority_type: AuthorityType,
        rotation: RotationId,
    },
    ExcludeNode {
        node: NodeId,
    },
    IncludeNode {
        node: NodeId,
    },
    RemoveNode {
        node: NodeId,
    },
    CreateToken {
        hash: TokenHash,
        grant: Grant,
        uses: u32,
        ttl_ms: u64,
    },
    RemoveToken {
        token: TokenId,
    },
    AddUser {
        user: UserName,
        roles: BTreeSet<RoleName>,
        /// The accounts that their SSH certificates are good for; the one of their own name where none is said.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        logins: Vec<String>,
        key: KeyRequest,
    },
    RemoveUser {
        user: UserName,
    },
    /// `carousel recover`: a new certificate for an administrator, from the control-plane host.
    RecoverAdmin {
        user: UserName,
        key: KeyRequest,
    },
    Join(Join),
    /// `POST /v1/recover`, signed with the key of an old certificate (verified by the gateway).
    Recover {
        node: NodeId,
        proven_by: CertDigest,
        key: KeyRequest,
    },
    /// A node, member or user asks for a certificate of its own. `usage` is what it wants to do with it.
    RequestCertificate {
        authority_type: AuthorityType,
        usage: LeafUse,
        issuer: Option<SpkiPin>,
        /// A certificate for TLS, or for SSH: of a node's host key, or of a person's own.
        #[serde(default, skip_serializing_if = "KeyKind::is_tls")]
        form: KeyKind,
        key: KeyRequest,
    },
    /// `auth sign` and `auth token`: for a party without an agent.
    Sign(Box<Sign>),
    /// Some certificates stop counting before their end.
    RevokeCertificates {
        target: Revocable,
    },
    /// A fact report; not a command: it has no id of its own and is not answered twice.
    Report {
        node: NodeId,
        report: FactReport,
        seen: Seen,
    },
    /// A certificate of a person or a node was seen in use for the first time.
    PresentCredential {
        holder: Principal,
        certificate: CertDigest,
    },
    StartMember {
        member: MemberId,
        boot: BootId,
        seq: u64,
        service: String,
        names: Vec<Hostname>,
        addresses: Vec<IpAddr>,
        facts: FactsByType,
    },
    ReportMember {
        member: MemberId,
        boot: BootId,
        seq: u64,
        facts: FactsByType,
    },
    LoseMember {
        member: MemberId,
        boot: BootId,
        silent_ms: u64,
        uptime_ms: u64,
    },
    StopMember {
        member: MemberId,
        boot: BootId,
    },
    VoidAuthorization {
        authorization: AuthorizationId,
        why: String,
    },
    AcceptClock {
        behind_ms: u64,
    },
    AddConsumer {
        authority_type: AuthorityType,
        consumer: ConsumerName,
        owner: String,
        contact: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        probe: Option<ProbeAddress>,
    },
    /// Somebody's word, or (`probed`) what the gateway saw: only that can be decided by facts, and only of it a member may
    /// speak.
    AttestConsumer {
        authority_type: AuthorityType,
        consumer: ConsumerName,
        expects: Expectation,
        probed: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        saw: Option<Sight>,
    },
    WithdrawConsumer {
        authority_type: AuthorityType,
        consumer: ConsumerName,
    },
}

impl Order {
    /// The command's name in events, metrics and messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Genesis(_) => "genesis",
            Self::Rotate(_) => "rotate",
            Self::ScheduledStep { .. } => "scheduled-step",
            Self::Settle { .. } => "settle",
            Self::ExcludeNode { .. } => "nodes-exclude",
            Self::IncludeNode { .. } => "nodes-include",
            Self::RemoveNode { .. } => "nodes-rm",
            Self::CreateToken { .. } => "tokens-add",
            Self::RemoveToken { .. } => "tokens-rm",
            Self::AddUser { .. } => "users-add",
            Self::RemoveUser { .. } => "users-rm",
            Self::RecoverAdmin { .. } => "recover-admin",
            Self::Join(_) => "join",
            Self::Recover { .. } => "recover",
            Self::RequestCertificate { .. } => "request-certificate",
            Self::Sign(sign) if sign.form.kind() == KeyKind::Jwt => "auth-token",
            Self::Sign(_) => "auth-sign",
            Self::RevokeCertificates { .. } => "certificates-revoke",
            Self::Report { .. } => "report",
            Self::PresentCredential { .. } => "present-credential",
            Self::StartMember { .. } => "member-start",
            Self::ReportMember { .. } => "member-report",
            Self::LoseMember { .. } => "member-lose",
            Self::StopMember { .. } => "member-stop",
            Self::VoidAuthorization { .. } => "void-authorization",
            Self::AcceptClock { .. } => "clock-accept",
            Self::AddConsumer { .. } => "consumers-add",
            Self::AttestConsumer { .. } => "consumers-attest",
            Self::WithdrawConsumer { .. } => "consumers-withdraw",
        }
    }

    /// What it is to be done to, where that is one thing that a person can name.
    pub fn target(&self) -> Option<String> {
        match self {
            Self::Rotate(Rotate { authority_type, .. })
            | Self::ScheduledStep { authority_type, .. }
            | Self::Settle { authority_type, .. }
            | Self::RequestCertificate { authority_type, .. } => Some(authority_type.to_string()),
            Self::AddConsumer {
                authority_type,
                consumer,
                ..
            }
            | Self::AttestConsumer {
                authority_type,
                consumer,
                ..
            }
            | Self::WithdrawConsumer {
                authority_type,
                consumer,
                ..
            } => Some(format!("{authority_type}/{consumer}")),
            Self::ExcludeNode { node }
            | Self::IncludeNode { node }
            | Self::RemoveNode { node }
            | Self::Recover { node, .. }
            | Self::Report { node, .. } => Some(node.to_string()),
            Self::AddUser { user, .. } | Self::RemoveUser { user } | Self::RecoverAdmin { user, .. } => {
                Some(user.to_string())
            }
            Self::RemoveToken { token } => Some(token.to_string()),
            Self::Sign(sign) => Some(format!("{}/{}", sign.authority_type, sign.holder)),
            Self::RevokeCertificates { target } => Some(target.to_string()),
            Self::Join(join) => Some(join.hostname.to_string()),
            Self::PresentCredential { holder, .. } => Some(holder.to_string()),
            Self::StartMember { member, .. }
            | Self::ReportMember { member, .. }
            | Self::LoseMember { member, .. }
            | Self::StopMember { member, .. } => Some(member.to_string()),
            Self::Genesis(_)
            | Self::CreateToken { .. }
            | Self::VoidAuthorization { .. }
            | Self::AcceptClock { .. } => None,
        }
    }

    /// What the table of permissions calls it.
    pub fn action(&self) -> Action {
        match self {
            Self::Rotate(_)
            | Self::ExcludeNode { .. }
            | Self::IncludeNode { .. }
            | Self::AttestConsumer { .. }
            | Self::AcceptClock { .. } => Action::Rotate,
            Self::RemoveNode { .. }
            | Self::CreateToken { .. }
            | Self::RemoveToken { .. }
            | Self::AddUser { .. }
            | Self::RemoveUser { .. }
            | Self::AddConsumer { .. }
            | Self::WithdrawConsumer { .. }
            | Self::RevokeCertificates { .. } => Action::Administer,
            Self::Sign(sign) => Action::to_sign(sign.authority_type),
            Self::RequestCertificate {
                authority_type: AuthorityType::User,
                ..
            } => Action::RenewOwn,
            Self::RequestCertificate { .. } | Self::Report { .. } => Action::NodeSelf,
            Self::StartMember { .. }
            | Self::ReportMember { .. }
            | Self::StopMember { .. }
            | Self::PresentCredential { .. } => Action::MemberSelf,
            Self::Join(_) | Self::Recover { .. } => Action::Public,
            Self::Genesis(_)
            | Self::ScheduledStep { .. }
            | Self::Settle { .. }
            | Self::RecoverAdmin { .. }
            | Self::LoseMember { .. }
            | Self::VoidAuthorization { .. } => Action::System,
        }
    }

    /// Is it a command, with an id that makes it idempotent and a refusal that is recorded?
    pub fn is_command(&self) -> bool {
        !matches!(self, Self::Report { .. }) && !matches!(self.action(), Action::System | Action::MemberSelf)
    }
}
