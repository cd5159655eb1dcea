//! Who is at the other end, and who was wanted there.

use domain::{
    AuthorityType, CertDigest, ClusterName, NodeId, Principal, Serial, SpkiPin, Timestamp,
    identity::{Presented, parse_uri},
};

/// A peer whose chain verified. A chain is not yet an identity: the control plane looks the digest up
/// in the log at each request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerIdentity {
    /// The type whose anchors, and whose alone, the chain verified against.
    pub authority_type: AuthorityType,
    /// The authority that signed the certificate.
    pub issuer: SpkiPin,
    /// The one URI in the certificate.
    pub uri: String,
    /// SHA-256 of the certificate.
    pub digest: CertDigest,
    /// The pin of its key.
    pub spki: SpkiPin,
    /// Its serial; none if it is not one of ours.
    pub serial: Option<Serial>,
    /// The end of its life: the session ends then too.
    pub not_after: Timestamp,
}

impl PeerIdentity {
    /// The holder in this cluster, by authority type and URI together: host+node, host+gateway or
    /// user+user. Anything else is nobody.
    pub fn principal(&self, cluster: &ClusterName) -> Option<Principal> {
        let (theirs, holder) = parse_uri(&self.uri)?;
        let speaks_for = match holder {
            Principal::Node(_) | Principal::Gateway(_) => self.authority_type == AuthorityType::Host,
            Principal::User(_) => self.authority_type == AuthorityType::User,
            Principal::External(_) | Principal::System(_) | Principal::Anonymous => false,
        };
        (theirs == *cluster && speaks_for).then_some(holder)
    }

    /// The certificate as the log is asked about it.
    pub fn presented(&self) -> Presented<'_> {
        Presented {
            authority_type: self.authority_type,
            uri: &self.uri,
            digest: self.digest,
        }
    }

    /// The node at the other end, if it is one.
    pub(crate) fn node(&self) -> Option<NodeId> {
        match parse_uri(&self.uri) {
            Some((_, Principal::Node(node))) if self.authority_type == AuthorityType::Host => Some(node),
            _ => None,
        }
    }

    /// May it be a peer that a rotation waits for: a node or a member?
    pub(crate) fn may_be_required(&self) -> bool {
        let holder = parse_uri(&self.uri).map(|(_, holder)| holder);
        self.authority_type == AuthorityType::Host
            && matches!(holder, Some(Principal::Node(_) | Principal::Gateway(_)))
    }
}

/// Which server is wanted. Checked by URI within the handshake, before our own certificate is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expect {
    /// A gateway of the cluster.
    Gateway {
        /// Whose.
        cluster: ClusterName,
    },
    /// One certain node.
    Node {
        /// Whose.
        cluster: ClusterName,
        /// Which.
        node: NodeId,
    },
    /// Any node of the cluster.
    AnyNode {
        /// Whose.
        cluster: ClusterName,
    },
}

impl Expect {
    /// Is this URI the one that is wanted?
    pub fn is_met_by(&self, uri: &str) -> bool {
        let Some((found, holder)) = parse_uri(uri) else {
            return false;
        };
        match (self, holder) {
            (Self::Gateway { cluster }, Principal::Gateway(_))
            | (Self::AnyNode { cluster }, Principal::Node(_)) => found == *cluster,
            (Self::Node { cluster, node }, Principal::Node(id)) => found == *cluster && id == *node,
            _ => false,
        }
    }

    /// In words, for an error.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Gateway { cluster } => format!("a gateway of {cluster}"),
            Self::Node { cluster, node } => format!("carousel://{cluster}/node/{node}"),
            Self::AnyNode { cluster } => format!("a node of {cluster}"),
        }
    }
}
