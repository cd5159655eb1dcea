//! Events: what happened. One macro holds the list, so that the type names, the decoder, the schemas
//! and the families cannot drift apart.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    id::{BodyDigest, CertDigest, CommandId, EventId, Position, Principal},
    time::Timestamp,
};

pub use form::Form;
pub use payload::*;

pub mod form;
mod payload;

impl AuthorizationGranted {
    /// What the signer records once it has signed this: `digest` and `certificate` as in [`CertificateIssued`].
    pub fn issued(&self, digest: CertDigest, certificate: String) -> CertificateIssued {
        CertificateIssued {
            authorization: self.authorization,
            holder: self.holder.clone(),
            authority_type: self.authority_type,
            issuer: self.issuer,
            usage: self.usage,
            serial: self.serial,
            spki: self.spki,
            digest,
            not_after: self.not_after,
            kind: self.form.kind(),
            certificate,
        }
    }
}

/// Who may write an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// The orchestrator: cluster, rotation, node, member, access, consumer, command, authorization.
    Orchestrator,
    /// The signer: authority, certificate.
    Signer,
}

/// An event as it stands in the log: its circumstances and the fact.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Where, when, who, why.
    pub header: Header,
    /// What happened.
    pub fact: Fact,
}

/// The circumstances of an event (the CloudEvents attributes and extensions of its envelope).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The place in the log.
    pub position: Position,
    /// The event's own id.
    pub id: EventId,
    /// When it was decided.
    pub time: Timestamp,
    /// On whose word.
    pub actor: Principal,
    /// What proved the actor, if anything had to.
    pub credential: Option<crate::Credential>,
    /// The command that caused it, if one did.
    pub command: Option<CommandRef>,
    /// The reason that was given.
    pub reason: Option<String>,
    /// The position of the state that it was decided on, so that it can be decided again; logs of older versions
    /// do not say it.
    pub decided_at: Option<Position>,
}

/// The command behind an event, for idempotency.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CommandRef {
    /// The command's id; with the actor the key of idempotency.
    pub id: CommandId,
    /// The digest of its method, path and body.
    pub digest: BodyDigest,
}

macro_rules! facts {
    ($($(#[doc = $doc:literal])* $variant:ident = $family:literal . $fact:literal;)*) => {
        /// Every fact that the log can hold.
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub enum Fact { $($(#[doc = $doc])* $variant($variant),)* }

        impl Fact {
            /// All type names, in the order of this list.
            pub const TYPES: &'static [&'static str] = &[$(concat!("carousel.", $family, ".", $fact, ".v1"),)*];

            /// What each type says, in one sentence, in the same order: for the schemas and the list of events.
            pub const MEANINGS: &'static [&'static str] = &[$(concat!($($doc),*).trim_ascii(),)*];

            /// The CloudEvents type: `carousel.<family>.<fact>.v1`.
            pub fn type_name(&self) -> &'static str {
                match self { $(Self::$variant(_) => concat!("carousel.", $family, ".", $fact, ".v1"),)* }
            }

            /// The family: who writes it and which subject it stands on.
            pub fn family(&self) -> &'static str {
                match self { $(Self::$variant(_) => $family,)* }
            }

            /// Reads the data of an event of the given type; `None` for a type that this version does not know.
            pub fn decode<'de, D: Deserializer<'de>>(type_name: &str, data: D) -> Option<Result<Self, D::Error>> {
                match type_name {
                    $(concat!("carousel.", $family, ".", $fact, ".v1") =>
                        Some($variant::deserialize(data).map(Self::$variant)),)*
                    _ => None,
                }
            }

            /// The JSON Schema of each type's data, for the files in `schemas/events`.
            pub fn schemas() -> Vec<(&'static str, schemars::Schema)> {
                vec![$((concat!("carousel.", $family, ".", $fact, ".v1"), schemars::schema_for!($variant)),)*]
            }
        }

        /// Writes the data alone; the type stands in the envelope.
        impl Serialize for Fact {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$variant(data) => data.serialize(s),)* }
            }
        }

        $(impl From<$variant> for Fact { fn from(data: $variant) -> Self { Self::$variant(data) } })*
    };
}

facts! {
    /// The cluster began.
    ClusterCreated = "cluster"."created";
    /// An operator accepted the clock after it was suspect.
    ClusterClockAccepted = "cluster"."clock-accepted";
    /// A rotation changed its phase.
    RotationPhaseEntered = "rotation"."phase-entered";
    /// A due step waits for the gate.
    RotationHeld = "rotation"."held";
    /// A step that was held waits no longer.
    RotationResumed = "rotation"."resumed";
    /// A semi-automatic rotation became manual.
    RotationModeChanged = "rotation"."mode-changed";
    /// Every required node has reached standby.
    RotationSettled = "rotation"."settled";
    /// A node joined with a token.
    NodeJoined = "node"."joined";
    /// A node joined again on its old data directory.
    NodeRejoined = "node"."rejoined";
    /// A node came back with the key of a certificate that no longer opens the door.
    NodeRecovered = "node"."recovered";
    /// A node reported facts.
    NodeReported = "node"."reported";
    /// A node was taken out of the rotations in progress.
    NodeExcluded = "node"."excluded";
    /// An excluded node was taken in again.
    NodeIncluded = "node"."included";
    /// A node was removed; its certificates no longer count.
    NodeRemoved = "node"."removed";
    /// A control-plane service begins to serve.
    MemberStarted = "member"."started";
    /// The facts of a control-plane service changed.
    MemberReported = "member"."reported";
    /// A control-plane service has not been heard of for 30 s.
    MemberLost = "member"."lost";
    /// A control-plane service stopped.
    MemberStopped = "member"."stopped";
    /// A join token was made.
    AccessTokenCreated = "access"."token-created";
    /// A join token was used.
    AccessTokenUsed = "access"."token-used";
    /// A join token was removed.
    AccessTokenRemoved = "access"."token-removed";
    /// A user was added.
    AccessUserAdded = "access"."user-added";
    /// A user was removed; the certificates no longer count.
    AccessUserRemoved = "access"."user-removed";
    /// A new administrator identity was issued on the control-plane host.
    AccessRecovered = "access"."recovered";
    /// A removed node's names are free again; decided where names are given.
    AccessNamesReleased = "access"."names-released";
    /// Certificates stop counting before their end, on somebody's word. Which they are follows from the fold up to here.
    AccessCertificatesRevoked = "access"."certificates-revoked";
    /// A new certificate of a person or a node was seen in use for the first time.
    AccessCredentialPresented = "access"."credential-presented";
    /// An external consumer of an exported authority was registered.
    ConsumerAdded = "consumer"."added";
    /// An external consumer attested that it is ready for the next phase.
    ConsumerAttested = "consumer"."attested";
    /// An external consumer was withdrawn.
    ConsumerWithdrawn = "consumer"."withdrawn";
    /// A command of an authenticated principal was refused.
    CommandRefused = "command"."refused";
    /// A command found its work already done.
    CommandNoop = "command"."noop";
    /// Exactly one certificate may be signed.
    AuthorizationGranted = "authorization"."granted";
    /// An authorised certificate may not be signed any more.
    AuthorizationVoided = "authorization"."voided";
    /// A key was made; for a rotation, prepared exists from here on.
    AuthorityKeyGenerated = "authority"."key-generated";
    /// A key signs from here on.
    AuthorityActivated = "authority"."activated";
    /// A key signs nothing any more.
    AuthorityRetired = "authority"."retired";
    /// A key's private half was destroyed.
    AuthorityDestroyed = "authority"."destroyed";
    /// A trust bundle was signed.
    AuthorityBundleSigned = "authority"."bundle-signed";
    /// A certificate was issued.
    CertificateIssued = "certificate"."issued";
    /// The signer refused an authorisation.
    CertificateRefused = "certificate"."refused";
    /// Certificates were put on the deny list.
    CertificateRevoked = "certificate"."revoked";
}

impl Fact {
    /// Which service writes this family.
    pub fn writer(&self) -> Writer {
        match self.family() {
            "authority" | "certificate" => Writer::Signer,
            "cluster" | "rotation" | "node" | "member" | "access" | "consumer" | "command"
            | "authorization" => Writer::Orchestrator,
            other => unreachable!("the family {other} stands in the list above without a writer here"),
        }
    }

    /// The last token of the subject this fact stands on: the authority type, the node, user or member, or
    /// `cluster` for what is decided in one place for the whole cluster.
    pub fn holder(&self) -> String {
        match self {
            Self::ClusterCreated(_) | Self::ClusterClockAccepted(_) => "cluster".into(),
            Self::RotationPhaseEntered(f) => f.authority_type.to_string(),
            Self::RotationHeld(f) => f.authority_type.to_string(),
            Self::RotationResumed(f) => f.authority_type.to_string(),
            Self::RotationModeChanged(f) => f.authority_type.to_string(),
            Self::RotationSettled(f) => f.authority_type.to_string(),
            Self::NodeJoined(f) => f.node.to_string(),
            Self::NodeRejoined(f) => f.node.to_string(),
            Self::NodeRecovered(f) => f.node.to_string(),
            Self::NodeReported(f) => f.node.to_string(),
            Self::NodeExcluded(f) => f.node.to_string(),
            Self::NodeIncluded(f) => f.node.to_string(),
            Self::NodeRemoved(f) => f.node.to_string(),
            Self::MemberStarted(f) => f.member.to_string(),
            Self::MemberReported(f) => f.member.to_string(),
            Self::MemberLost(f) => f.member.to_string(),
            Self::MemberStopped(f) => f.member.to_string(),
            // Joins, tokens, names, principals and removals are decided on one subject.
            Self::AccessTokenCreated(_)
            | Self::AccessTokenUsed(_)
            | Self::AccessTokenRemoved(_)
            | Self::AccessUserAdded(_)
            | Self::AccessUserRemoved(_)
            | Self::AccessRecovered(_)
            | Self::AccessNamesReleased(_)
            | Self::AccessCertificatesRevoked(_) => "cluster".into(),
            Self::AccessCredentialPresented(f) => f.holder.holder_token(),
            Self::ConsumerAdded(f) => f.authority_type.to_string(),
            Self::ConsumerAttested(f) => f.authority_type.to_string(),
            Self::ConsumerWithdrawn(f) => f.authority_type.to_string(),
            Self::CommandRefused(f) => f.principal.holder_token(),
            Self::CommandNoop(f) => f.principal.holder_token(),
            Self::AuthorizationGranted(f) => f.holder.holder_token(),
            Self::AuthorizationVoided(f) => f.holder.holder_token(),
            Self::AuthorityKeyGenerated(f) => f.authority_type.to_string(),
            Self::AuthorityActivated(f) => f.authority_type.to_string(),
            Self::AuthorityRetired(f) => f.authority_type.to_string(),
            Self::AuthorityDestroyed(f) => f.authority_type.to_string(),
            Self::AuthorityBundleSigned(f) => f.authority_type.to_string(),
            Self::CertificateIssued(f) => f.holder.holder_token(),
            Self::CertificateRefused(f) => f.holder.holder_token(),
            Self::CertificateRevoked(f) => f.holder.holder_token(),
        }
    }
}
