//! Joining and recovering: the two requests that come without a client certificate.

use std::{collections::BTreeMap, fmt};

use domain::{
    AuthorityType, ClusterName, DesiredState, NodeId, Position, event::LeafUse, trust::SignedBundle,
};
use serde::{Deserialize, Serialize};

/// The context under which a rejoining node signs its new request (`pki::statement`): a signature made for
/// one purpose must not serve another.
pub const REJOIN_CONTEXT: &str = "carousel rejoin v1";
/// The same for a recovery.
pub const RECOVER_CONTEXT: &str = "carousel recover v1";

/// `POST /v1/join`. The token is a secret: it is sent only to a server that proved the pinned identity.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The join token: 32 random bytes as the operator's tool printed them.
    pub token: String,
    /// The name that the node wants to be known by.
    pub hostname: String,
    /// A certificate request in PEM; only its public key is taken.
    pub csr: String,
    /// The node that the data directory belonged to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejoin: Option<RejoinProof>,
}

/// Joining again on an old data directory. With a certificate and a signature the node keeps a name that is
/// still taken by itself; without them the name must be free.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RejoinProof {
    /// The node's id.
    pub node: NodeId,
    /// A certificate that was once issued to it, PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// `pki::statement` of [`REJOIN_CONTEXT`] over the bytes of `csr` by that certificate's key, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// `POST /v1/recover`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecoverRequest {
    /// The old certificate, PEM; it may have expired and its issuer may be retired.
    pub certificate: String,
    /// The new request, PEM.
    pub csr: String,
    /// `pki::statement` of [`RECOVER_CONTEXT`] over the bytes of `csr` by the old certificate's key, base64.
    pub signature: String,
}

/// The answer to both: who the node is, its first certificate, and the row at or after the event that made
/// it so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The node's id.
    pub node: NodeId,
    /// The cluster's name.
    pub cluster: ClusterName,
    /// The position of `certificate.issued`: the order of certificates.
    pub position: Position,
    /// The leaf, PEM.
    pub certificate: String,
    /// What it may be used for.
    pub usage: LeafUse,
    /// The signed row of each type that the node uses.
    pub bundles: BTreeMap<AuthorityType, SignedBundle>,
    /// What the node should hold.
    pub desired: DesiredState,
}

impl fmt::Debug for JoinRequest {
    /// Without the token, which must not reach a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("token", &"(secret)")
            .field("hostname", &self.hostname)
            .field("rejoin", &self.rejoin)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_shown_by_debug() {
        let request = JoinRequest {
            token: "very-secret".into(),
            hostname: "n1".into(),
            csr: String::new(),
            rejoin: None,
        };
        assert!(!format!("{request:?}").contains("very-secret"));
    }
}
