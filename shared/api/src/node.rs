//! What an agent hears and asks once it has joined. Fact reports are [`domain::fact::FactReport`] as they are.

use std::collections::BTreeMap;

use domain::{
    AuthorityType, AuthorizationId, CommandId, DesiredState, Position, SpkiPin, Timestamp, event::LeafUse,
    trust::SignedBundle,
};
use serde::{Deserialize, Serialize};

/// The name of the stream's event that carries a [`DesiredUpdate`].
pub const DESIRED_EVENT: &str = "desired";
/// The name of the stream's event that carries a [`PushedCertificate`].
pub const CERTIFICATE_EVENT: &str = "certificate";
/// A comment is sent at least this often, so that both sides notice a dead connection; a node sends a byte as often
/// in the body of its request for the stream, which is what its gateway knows it to be alive by.
pub const HEARTBEAT_S: u64 = 5;

/// The newest desired state with the signed bundles it names; applied together or not at all.
///
/// Level-triggered: a node that missed any number of them needs only the newest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DesiredUpdate {
    /// What to hold.
    pub desired: DesiredState,
    /// The signed document of each type in it.
    pub bundles: BTreeMap<AuthorityType, SignedBundle>,
}

/// `POST /v1/node/certificates`: the node asks for one certificate of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// Made by the node, UUIDv7. The same request may be sent again with the same id.
    pub id: CommandId,
    /// The type that it shall chain to.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// What the node wants to do with it.
    pub usage: LeafUse,
    /// The issuer that the node read from its desired state; another one now is `stale_view`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<SpkiPin>,
    /// The certificate request, PEM; only its public key is taken. Of an SSH host key its one line as in
    /// `ssh_host_ed25519_key.pub`.
    pub csr: String,
}

/// The certificate. Asking again with the same key gives the same one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CertificateAnswer {
    /// The authorisation it was signed for.
    pub authorization: AuthorizationId,
    /// The leaf, PEM; of an SSH host key one line.
    pub certificate: String,
    /// The position of `certificate.issued`: a later one replaces an earlier one, never the reverse.
    pub position: Position,
    /// The end of its life.
    pub not_after: Timestamp,
}

/// A certificate pushed on the stream; the node finds the key by the certificate's own public key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PushedCertificate {
    /// The authorisation it was signed for.
    pub authorization: AuthorizationId,
    /// The leaf, PEM.
    pub certificate: String,
    /// The position of `certificate.issued`.
    pub position: Position,
}
