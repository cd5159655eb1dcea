//! From files to TLS: an epoch of what a generation holds, and the proof that it is in force.

use std::{net::SocketAddr, sync::Arc};

use domain::{AuthorityType, ClusterName, NodeId};
use mtls::{Credential as Presented, EpochError, Epochs, Expect, Now, SessionRegistry, TlsError, TrustEpoch};
use pki::CaCert;
use runtime::clock::SharedClock;
use tokio::net::TcpListener;

use crate::{
    disk::{credential::Credential, generations::Material, trust::Told},
    listener,
};

/// The types whose certificates a caller may present: other nodes and gateways, and people.
const CALLERS: [AuthorityType; 2] = [AuthorityType::Host, AuthorityType::User];

/// The process's clock as TLS reads it.
pub(crate) fn now(clock: &SharedClock) -> Now {
    let clock = clock.clone();
    Now::new(move || clock.now_ms())
}

/// What a generation trusts, serves and presents to other nodes.
pub(crate) fn of_material(
    material: &Material,
    told: Option<&Told>,
    now: Now,
) -> Result<Arc<TrustEpoch>, EpochError> {
    let mut builder = TrustEpoch::builder(now);
    for authority_type in CALLERS {
        let pins = material
            .generation
            .trusted
            .get(&authority_type)
            .into_iter()
            .flatten();
        builder = builder.trust(
            authority_type,
            pins.filter_map(|pin| material.anchors.get(pin)).cloned(),
        );
        let denied = told
            .and_then(|t| t.bundles.get(&authority_type))
            .into_iter()
            .flat_map(|held| &held.bundle.denied);
        builder = builder.deny(denied.map(|entry| entry.digest));
    }
    if let Some(credential) = &material.client {
        builder = builder.client(presented(credential)?);
    }
    if let Some(credential) = &material.server {
        builder = builder.server(presented(credential)?);
    }
    builder.build()
}

/// What to dial a gateway with: these authorities, and a certificate if one is to be presented.
pub(crate) fn to_gateways(
    anchors: impl IntoIterator<Item = CaCert>,
    credential: Option<&Credential>,
    now: Now,
) -> Result<Epochs, EpochError> {
    let mut builder = TrustEpoch::builder(now).trust(AuthorityType::Host, anchors);
    if let Some(credential) = credential {
        builder = builder.client(presented(credential)?);
    }
    builder.build().map(Epochs::new)
}

fn presented(credential: &Credential) -> Result<Presented, EpochError> {
    Presented::new(vec![credential.certificate.clone()], &credential.pair())
}

/// Why a generation is not in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotProven {
    /// No loopback port for the agent's own proof.
    #[error("no port could be opened on loopback")]
    Port(#[source] std::io::Error),
    /// The handshake failed.
    #[error("a handshake with the agent's own listener failed")]
    Handshake(#[source] TlsError),
    /// Something else is served.
    #[error("the listener still serves another certificate")]
    OtherCertificate,
    /// Other authorities are in force.
    #[error("the listener names other authorities than the installed ones")]
    OtherTrust,
}

impl NotProven {
    /// Does it leave open what is in force? Nobody answered in time, or there was no way to ask: a host that is short
    /// of descriptors, a flood. What is installed may be as good as what was there before.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Port(_) => true,
            Self::Handshake(error) => {
                matches!(error, TlsError::Timeout { .. } | TlsError::Unreachable { .. })
            }
            Self::OtherCertificate | Self::OtherTrust => false,
        }
    }
}

/// Proves that what the current epoch holds is in force: a real handshake with the node's own listener,
/// bytes both ways, the certificate served, and exactly its authorities named in the CertificateRequest.
///
/// Without a listener of its own (none was asked for) one is opened on loopback for this proof alone.
pub(crate) async fn prove(
    listener: Option<SocketAddr>,
    epochs: &Epochs,
    sessions: &SessionRegistry,
    cluster: &ClusterName,
    node: NodeId,
) -> Result<(), NotProven> {
    let epoch = epochs.load();
    let (Some(_), Some(server)) = (epoch.client(), epoch.server()) else {
        // A grant without one of the two roles: there is nothing that could be shown by a handshake.
        return Ok(());
    };
    let expect = Expect::Node {
        cluster: cluster.clone(),
        node,
    };
    let result = match listener {
        Some(at) => mtls::probe(&reachable(at).to_string(), epochs, sessions, &expect).await,
        None => {
            let own = TcpListener::bind(("127.0.0.1", 0))
                .await
                .map_err(NotProven::Port)?;
            let at = own.local_addr().map_err(NotProven::Port)?.to_string();
            tokio::select! {
                result = mtls::probe(&at, epochs, sessions, &expect) => result,
                () = listener::serve(own, epochs.clone(), sessions.clone()) => {
                    return Err(NotProven::Port(std::io::Error::other("the loopback listener ended")));
                }
            }
        }
    };
    let found = result.map_err(NotProven::Handshake)?;
    if found.identity.digest != server.certificate().digest || found.answer.served != found.identity.digest {
        return Err(NotProven::OtherCertificate);
    }
    if !found.trusts_exactly(&epoch) {
        return Err(NotProven::OtherTrust);
    }
    Ok(())
}

/// An address at which a listener of this host answers: a listener on all addresses is asked on loopback.
fn reachable(at: SocketAddr) -> SocketAddr {
    let ip = match at.ip() {
        ip if !ip.is_unspecified() => ip,
        std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, at.port())
}
