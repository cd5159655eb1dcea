//! Identity: who a verified certificate speaks for. A chain is not an identity; the log is.
//!
//! A certificate counts only if the log says that exactly this one was issued to that holder and still
//! counts. So a stolen authority key alone gets nothing.

use crate::{
    authority::{AuthorityType, KeyKind},
    id::{CertDigest, ClusterName, NodeId, Principal},
    refusal::{Code, Refusal},
    state::{Certificate, ClusterState, Node},
    time::Timestamp,
};

/// The scheme of the one URI in every leaf.
const SCHEME: &str = "carousel://";

/// A certificate whose chain verified, as the door saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Presented<'a> {
    /// The type whose anchors, and whose alone, it verified against.
    pub authority_type: AuthorityType,
    /// The one URI in its subject alternative names.
    pub uri: &'a str,
    /// SHA-256 of its DER.
    pub digest: CertDigest,
}

/// The URI of a holder's certificates: `carousel://<cluster>/<gateway|node|user|external>/<id>`.
pub fn uri(cluster: &ClusterName, holder: &Principal) -> String {
    format!("{SCHEME}{cluster}/{holder}")
}

/// The URI of what a type gives to a holder. A workload's is its SPIFFE ID (SPIFFE-ID, section 2), which names nobody here.
pub fn uri_of(cluster: &ClusterName, authority_type: AuthorityType, holder: &Principal) -> String {
    match (authority_type, holder) {
        (AuthorityType::Spiffe, Principal::External(name)) => format!("spiffe://{cluster}/{name}"),
        _ => uri(cluster, holder),
    }
}

/// Reads a certificate's URI; none for whatever is no holder of a certificate.
///
/// Only the one spelling that we write is read: a second one for the same holder would be a way around a
/// comparison somewhere.
pub fn parse_uri(text: &str) -> Option<(ClusterName, Principal)> {
    let (cluster, holder) = text.strip_prefix(SCHEME)?.split_once('/')?;
    let (cluster, holder) = (
        cluster.parse::<ClusterName>().ok()?,
        holder.parse::<Principal>().ok()?,
    );
    let may_hold = match holder {
        Principal::Node(_) | Principal::Gateway(_) | Principal::User(_) | Principal::External(_) => true,
        Principal::System(_) | Principal::Anonymous => false,
    };
    (may_hold && uri(&cluster, &holder) == text).then_some((cluster, holder))
}

/// Who presents this certificate? Asked for every request, since the answer can change under a connection.
///
/// # Errors
/// `certificate_unknown` (also for one that was revoked or has expired), `certificate_superseded`,
/// `node_removed`. Whoever gets `certificate_unknown` first reads to the log's end and asks again: the
/// certificate may be newer than the fold.
pub fn identify(
    state: &ClusterState,
    presented: &Presented<'_>,
    now: Timestamp,
) -> Result<Principal, Refusal> {
    let (cluster, holder) =
        parse_uri(presented.uri).ok_or_else(|| unknown("its name is none of this cluster's"))?;
    if state.cluster_name() != Some(&cluster) {
        return Err(unknown("it belongs to another cluster"));
    }
    if !is_a_kind(presented.authority_type, &holder) {
        return Err(unknown("its authority does not speak for holders of this kind"));
    }
    // The digest names one certificate: a second one for the same key and names is another certificate.
    let certificate = state
        .certificates
        .get(&presented.digest)
        .filter(|c| {
            c.holder == holder && c.authority_type == presented.authority_type && c.kind == KeyKind::Tls
        })
        .ok_or_else(|| unknown("the log does not know it as issued to this holder"))?;
    if !certificate.usage.client() {
        return Err(unknown("it is for servers alone"));
    }
    // Removed comes before revoked: it tells a person more, and revocations follow removals.
    check_standing(state, &holder)?;
    check_certificate(certificate, now)?;
    Ok(holder)
}

/// The node for which an old certificate's key allows a recovery: issued to it, neither revoked nor superseded,
/// and not expired for longer than `max-offline`, whatever became of its issuer.
///
/// # Errors
/// `recovery_refused`, `node_removed`, `certificate_superseded`: each says that a new token is needed.
pub fn recoverable(
    state: &ClusterState,
    node: NodeId,
    proven_by: CertDigest,
    now: Timestamp,
) -> Result<&Node, Refusal> {
    let refused = |why: &str| {
        Refusal::new(
            Code::RecoveryRefused,
            format!("{why}: the node needs a new join token"),
        )
    };
    let holder = Principal::Node(node);
    let known = state.certificates.get(&proven_by);
    let certificate = known
        .filter(|c| c.holder == holder && c.authority_type == AuthorityType::Host && c.kind == KeyKind::Tls)
        .ok_or_else(|| refused("the log does not know this certificate as issued to this node"))?;
    check_standing(state, &holder)?;
    if certificate.revoked {
        return Err(refused("the certificate was revoked"));
    }
    // Only client certificates are ever superseded: the key of another one in an old copy would prove nothing.
    if !certificate.usage.client() {
        return Err(refused(
            "a recovery is proven with the key of a client certificate, and this one is for servers",
        ));
    }
    check_superseded(certificate, now)?;
    if now > certificate.not_after.plus_ms(state.settings().max_offline_ms) {
        return Err(refused(&format!(
            "the certificate expired at {}, too long ago",
            certificate.not_after
        )));
    }
    state.nodes.get(&node).ok_or_else(removed)
}

/// Is this the URI of the expected server of this cluster: a node with that id, a gateway with that id?
pub fn server_is(uri: &str, cluster: &ClusterName, expected: &Principal) -> bool {
    parse_uri(uri).is_some_and(|(of, holder)| of == *cluster && holder == *expected)
}

/// Is this the URI of a gateway of this cluster, whichever? What agents, the CLI and probes ask of a server
/// before they send anything.
pub fn is_gateway(uri: &str, cluster: &ClusterName) -> bool {
    parse_uri(uri).is_some_and(|(of, holder)| of == *cluster && matches!(holder, Principal::Gateway(_)))
}

/// The kinds of principal: the authority type and the kind in the URI together. Anything else is nobody.
fn is_a_kind(authority_type: AuthorityType, holder: &Principal) -> bool {
    match holder {
        Principal::Node(_) | Principal::Gateway(_) => authority_type == AuthorityType::Host,
        Principal::User(_) => authority_type == AuthorityType::User,
        Principal::External(_) | Principal::System(_) | Principal::Anonymous => false,
    }
}

/// Is the holder still somebody?
fn check_standing(state: &ClusterState, holder: &Principal) -> Result<(), Refusal> {
    match holder {
        Principal::Node(id) if !state.nodes.contains_key(id) => Err(removed()),
        Principal::User(name) if state.users.get(name).is_none_or(|roles| roles.is_empty()) => {
            Err(unknown("its user was removed"))
        }
        Principal::Node(_)
        | Principal::User(_)
        | Principal::Gateway(_)
        | Principal::External(_)
        | Principal::System(_)
        | Principal::Anonymous => Ok(()),
    }
}

fn check_certificate(certificate: &Certificate, now: Timestamp) -> Result<(), Refusal> {
    if certificate.revoked {
        return Err(unknown("it was revoked"));
    }
    if certificate.not_after <= now {
        return Err(unknown(&format!("it expired at {}", certificate.not_after)));
    }
    check_superseded(certificate, now)
}

/// Superseded is a node's certificate some minutes after a later one was in use: whoever still presents it
/// restored a backup, or stole one.
fn check_superseded(certificate: &Certificate, now: Timestamp) -> Result<(), Refusal> {
    let is_node = matches!(certificate.holder, Principal::Node(_));
    match certificate.superseded_at {
        Some(at) if is_node && at <= now => {
            let text = format!(
                "a later certificate of this node has been in use since {at}: this data directory is an old copy, \
                 and needs a new join token"
            );
            Err(Refusal::new(Code::CertificateSuperseded, text))
        }
        Some(_) | None => Ok(()),
    }
}

fn removed() -> Refusal {
    Refusal::new(
        Code::NodeRemoved,
        "this node was removed: it needs a new join token",
    )
}

fn unknown(why: &str) -> Refusal {
    Refusal::new(
        Code::CertificateUnknown,
        format!("the certificate does not count here: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01890000-0000-7000-8000-000000000001";

    fn cluster() -> ClusterName {
        "acme.cluster".parse().unwrap()
    }

    #[test]
    fn a_holder_s_uri_reads_back() {
        for holder in [
            &format!("node/{ID}"),
            &format!("gateway/{ID}"),
            "user/alice",
            "external/pg-1",
        ] {
            let holder: Principal = holder.parse().unwrap();
            assert_eq!(parse_uri(&uri(&cluster(), &holder)), Some((cluster(), holder)));
        }
    }

    #[test]
    fn whatever_is_not_spelt_as_we_spell_it_is_nobody() {
        let upper = format!(
            "carousel://acme.cluster/node/{}",
            ID.to_uppercase().replace("01890000", "0189ABCD")
        );
        let bare = format!("carousel://acme.cluster/node/{}", ID.replace('-', ""));
        for bad in [
            "",
            "carousel://",
            "carousel://acme.cluster",
            "carousel://acme.cluster/",
            "carousel://acme.cluster/node/",
            "carousel://acme.cluster/node/x",
            "carousel://acme.cluster/root/alice",
            "carousel://acme.cluster/user/alice/",
            "carousel://acme.cluster/user/Alice",
            "carousel://ACME.cluster/user/alice",
            "carousel://acme.cluster//user/alice",
            "carousel:///user/alice",
            "carousel://acme.cluster/system/clock",
            "carousel://acme.cluster/anonymous/-",
            "https://acme.cluster/user/alice",
            "CAROUSEL://acme.cluster/user/alice",
            &upper,
            &bare,
        ] {
            assert_eq!(parse_uri(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_server_is_who_it_is_in_this_cluster_alone() {
        let (node, gateway) = (
            Principal::Node(ID.parse().unwrap()),
            Principal::Gateway(ID.parse().unwrap()),
        );
        let at = |cluster: &str, holder: &Principal| uri(&cluster.parse().unwrap(), holder);
        assert!(server_is(&at("acme.cluster", &node), &cluster(), &node));
        assert!(
            !server_is(&at("acme.cluster", &gateway), &cluster(), &node),
            "the same id as another kind"
        );
        assert!(!server_is(&at("evil.cluster", &node), &cluster(), &node));
        assert!(is_gateway(&at("acme.cluster", &gateway), &cluster()));
        assert!(
            !is_gateway(&at("acme.cluster", &node), &cluster()),
            "a node is no gateway"
        );
        assert!(!is_gateway(&at("evil.cluster", &gateway), &cluster()));
    }
}
