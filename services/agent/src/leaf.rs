//! What a certificate that comes must be before it is kept: signed by an authority that the newest bundle names, this
//! node's, and for what was asked.
//!
//! One that is not would fail its proof again and again until it expires. A gateway that proved itself would not send
//! it; a bug of ours or of its might.

use domain::{ClusterName, NodeId, Principal, SpkiPin, event::LeafUse};
use pki::{
    CaCert, Certificate, PublicKey, issuer_among,
    ssh::{SshCertificate, SshRole},
};

/// Whose certificate is wanted, and what for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) cluster: &'a ClusterName,
    pub(crate) node: NodeId,
    pub(crate) usage: LeafUse,
}

/// Is this certificate (PEM) what was wanted?
///
/// # Errors
/// In words.
pub(crate) fn check(pem: &str, authorities: &[CaCert], wanted: Wanted<'_>) -> Result<(), String> {
    let ders = pki::pem::certificates(pem).ok_or("not PEM")?;
    let der = ders.first().ok_or("no certificate in it")?;
    let read = Certificate::parse(der).map_err(|e| e.to_string())?;
    if issuer_among(der, authorities).is_none() {
        return Err("none of the authorities of the newest trust bundle signed it".into());
    }
    let uri = Principal::Node(wanted.node).uri(wanted.cluster);
    if read.uri.as_deref() != Some(uri.as_str()) {
        return Err(format!("it is not for {uri}"));
    }
    match read.usage() {
        Some(usage) if usage == wanted.usage => Ok(()),
        Some(_) | None => Err("it is for another use than was asked for".into()),
    }
}

/// Is this line a certificate of sshd's key by this authority, for this node?
///
/// # Errors
/// In words.
pub(crate) fn check_sshd(
    line: &str,
    key: SpkiPin,
    authority: &PublicKey,
    cluster: &ClusterName,
    node: NodeId,
) -> Result<SshCertificate, String> {
    let read = SshCertificate::parse(line).map_err(|e| e.to_string())?;
    read.verify(authority).map_err(|e| e.to_string())?;
    let (profile, uri) = (read.profile(), Principal::Node(node).uri(cluster));
    if profile.role != SshRole::Host || profile.key_id != uri || read.key().pin() != key {
        return Err(format!("it is not for the host key of {uri}"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use pki::KeyPair;
    use runtime::clock::SystemClock;

    use super::*;
    use crate::testing::{CLUSTER, Plane};

    #[tokio::test]
    async fn a_certificate_of_a_stranger_of_another_node_or_for_another_use_is_not_taken() {
        let (ours, theirs) = (
            Plane::start(SystemClock::shared()).await,
            Plane::start(SystemClock::shared()).await,
        );
        let cluster = CLUSTER.parse().expect("a name");
        let wanted = Wanted {
            cluster: &cluster,
            node: ours.inner.node,
            usage: LeafUse::Both,
        };
        let authorities: Vec<_> = pki::bundle::authorities(&ours.inner.bundle()).collect();
        let pem_of = |plane: &Plane, usage| {
            pki::pem::encode("CERTIFICATE", &plane.inner.leaf(&KeyPair::generate(), usage))
        };
        let good = pem_of(&ours, LeafUse::Both);
        assert_eq!(check(&good, &authorities, wanted), Ok(()));
        let other_node = Wanted {
            node: NodeId(uuid::Uuid::from_u128(99)),
            ..wanted
        };
        assert!(check(&good, &authorities, other_node).is_err());
        assert!(check(&pem_of(&ours, LeafUse::Client), &authorities, wanted).is_err());
        assert!(check(&pem_of(&theirs, LeafUse::Both), &authorities, wanted).is_err());
        assert!(check("nothing", &authorities, wanted).is_err());
    }
}
