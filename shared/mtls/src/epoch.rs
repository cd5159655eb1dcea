//! One moment's trust and certificates, as whole TLS configurations.
//!
//! Nothing in an epoch ever changes: a change is a new epoch. A verifier that is swapped under a living
//! configuration keeps old tickets and cannot send hints; a whole configuration has neither problem.

use std::{collections::BTreeSet, sync::Arc};

use domain::{AuthorityType, CertDigest, SpkiPin};
use pki::{CaCert, CertificateError, KeyError};
use rustls::{
    ClientConfig, DistinguishedName, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring::default_provider},
    server::NoServerSessionStorage,
    sign::SingleCertAndKey,
    version::TLS13,
};

use crate::{
    anchors::{Anchors, PeerRole},
    credential::Credential,
    error::PeerFault,
    identity::{Expect, PeerIdentity},
    now::Now,
    verify::{ClientVerifier, ServerVerifier},
};

/// Must clients of our server present a certificate?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientAuth {
    /// Yes: nodes' probe and peer servers.
    #[default]
    Required,
    /// Only for what is not public: the gateway, whose router decides. A certificate that is presented
    /// and not acceptable is refused all the same.
    Optional,
}

/// Why an epoch cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// No certificate was given.
    #[error("a credential needs at least its own certificate")]
    EmptyChain,
    /// The certificate cannot be read.
    #[error("the credential's certificate cannot be used")]
    Certificate(#[source] CertificateError),
    /// The private key cannot be read.
    #[error("the credential's private key cannot be used")]
    Key(#[source] KeyError),
    /// Certificate and key do not belong together: a half-written generation.
    #[error("the certificate is for the key {certificate}, but the key is {key}; install them together")]
    OtherKey {
        /// The certificate's key.
        certificate: SpkiPin,
        /// The key that was given.
        key: SpkiPin,
    },
    /// The certificate is not one of ours.
    #[error("the credential's certificate does not name its issuer by its pin")]
    NoIssuer,
    /// It is not for the role that it was given.
    #[error("the credential is not for the {0} role")]
    WrongUsage(&'static str),
    /// An authority that TLS does not take as an anchor.
    #[error("the authority {authority} cannot be a trust anchor: {why}")]
    Anchor {
        /// Which.
        authority: SpkiPin,
        /// What TLS says.
        why: webpki::Error,
    },
    /// The TLS library refused.
    #[error("the TLS configuration was refused")]
    Tls(#[source] rustls::Error),
}

/// Everything that a process trusts and presents from one change to the next.
#[derive(Debug)]
pub struct TrustEpoch {
    anchors: Arc<Anchors>,
    client: Option<Credential>,
    /// The row's credential first.
    servers: Vec<(Credential, Arc<ServerConfig>)>,
    provider: Arc<CryptoProvider>,
    /// Subjects of the `host` anchors.
    hints: Arc<[DistinguishedName]>,
    client_alpn: Vec<Vec<u8>>,
    now: Now,
}

impl TrustEpoch {
    /// Begins a new epoch that trusts nobody and presents nothing.
    pub fn builder(now: Now) -> EpochBuilder {
        EpochBuilder {
            now,
            anchors: Vec::new(),
            denied: Vec::new(),
            client: None,
            servers: Vec::new(),
            auth: ClientAuth::default(),
            alpn: Vec::new(),
            client_alpn: Vec::new(),
        }
    }

    /// The trusted authorities of one type.
    pub fn trusted(&self, authority_type: AuthorityType) -> BTreeSet<SpkiPin> {
        self.anchors.pins(authority_type)
    }

    /// Is this authority trusted, as whatever type?
    pub fn trusts(&self, authority: SpkiPin) -> bool {
        self.anchors.has(authority)
    }

    /// The subjects, DER, that our server names in its CertificateRequest: of all types together.
    pub fn ca_names(&self) -> BTreeSet<Vec<u8>> {
        self.anchors.subjects()
    }

    /// The trusted authority with this subject (DER), if there is one.
    pub fn authority_named(&self, subject: &[u8]) -> Option<SpkiPin> {
        self.anchors.pin_of_subject(subject)
    }

    /// The certificate that we present as a client.
    pub fn client(&self) -> Option<&Credential> {
        self.client.as_ref()
    }

    /// The certificate that we serve, unless a client names only the other one's issuer.
    pub fn server(&self) -> Option<&Credential> {
        self.servers.first().map(|(credential, _)| credential)
    }

    /// The same trust with another client certificate, and nothing to serve: to see whether a peer still accepts
    /// one that this process no longer presents.
    pub fn presenting(&self, client: Credential) -> Arc<Self> {
        Arc::new(Self {
            anchors: self.anchors.clone(),
            client: Some(client),
            servers: Vec::new(),
            provider: self.provider.clone(),
            hints: self.hints.clone(),
            client_alpn: self.client_alpn.clone(),
            now: self.now.clone(),
        })
    }

    /// Whom a certificate (DER) makes known that a peer presents in this role: the verdict of a handshake, in which the
    /// peer also has to prove that it holds the key.
    ///
    /// # Errors
    /// [`PeerFault`], what is wrong with it.
    pub fn judge(&self, certificate: &[u8], role: PeerRole) -> Result<PeerIdentity, PeerFault> {
        self.anchors.judge(&certificate.into(), role, self.now.unix())
    }

    /// Would this peer, whose certificate was judged once, be accepted now?
    pub fn still_accepts(&self, peer: &PeerIdentity) -> Result<(), PeerFault> {
        self.anchors.still_accepts(peer, self.now.timestamp())
    }

    /// The clock that this epoch reads.
    pub fn now(&self) -> &Now {
        &self.now
    }

    /// The credential and configuration for a client: the row's one, unless the client names
    /// authorities and among those only another credential's issuer.
    pub(crate) fn serve(
        &self,
        named: Option<&[DistinguishedName]>,
    ) -> Option<&(Credential, Arc<ServerConfig>)> {
        let wanted = |credential: &Credential| {
            named.is_none_or(|names| {
                names
                    .iter()
                    .any(|n| n.as_ref() == credential.certificate().issuer_dn)
            })
        };
        self.servers
            .iter()
            .find(|(credential, _)| wanted(credential))
            .or_else(|| self.servers.first())
    }

    /// A configuration for one connection to the server that is expected. The certificate resolver is
    /// the caller's, to see what the server asked for.
    pub(crate) fn dial(
        &self,
        expect: &Expect,
        resolver: Arc<dyn rustls::client::ResolvesClientCert>,
    ) -> Result<ClientConfig, rustls::Error> {
        let verifier = ServerVerifier {
            anchors: self.anchors.clone(),
            expect: expect.clone(),
            hints: self.hints.clone(),
        };
        let mut config =
            ClientConfig::builder_with_details(self.provider.clone(), Arc::new(self.now.clone()))
                .with_protocol_versions(&[&TLS13])?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_client_cert_resolver(resolver);
        config.resumption = Resumption::disabled();
        config.alpn_protocols.clone_from(&self.client_alpn);
        Ok(config)
    }
}

/// Collects an epoch.
#[derive(Debug)]
pub struct EpochBuilder {
    now: Now,
    anchors: Vec<(AuthorityType, CaCert)>,
    denied: Vec<CertDigest>,
    client: Option<Credential>,
    servers: Vec<Credential>,
    auth: ClientAuth,
    alpn: Vec<Vec<u8>>,
    client_alpn: Vec<Vec<u8>>,
}

impl EpochBuilder {
    /// Trusts these authorities as this type. Servers are only ever verified against `host`; clients
    /// against each type, one at a time.
    #[must_use]
    pub fn trust(mut self, authority_type: AuthorityType, cas: impl IntoIterator<Item = CaCert>) -> Self {
        self.anchors
            .extend(cas.into_iter().map(|ca| (authority_type, ca)));
        self
    }

    /// Refuses these certificates although their chain is good (the bundle's deny list).
    #[must_use]
    pub fn deny(mut self, digests: impl IntoIterator<Item = CertDigest>) -> Self {
        self.denied.extend(digests);
        self
    }

    /// Presents this certificate as a client.
    #[must_use]
    pub fn client(mut self, credential: Credential) -> Self {
        self.client = Some(credential);
        self
    }

    /// Serves this certificate (the row's one).
    #[must_use]
    pub fn server(mut self, credential: Credential) -> Self {
        self.servers.insert(0, credential);
        self
    }

    /// Serves this one to clients that name only its issuer: gateways, while there are two.
    #[must_use]
    pub fn also_serve(mut self, credential: Credential) -> Self {
        self.servers.push(credential);
        self
    }

    /// Must clients present a certificate? Required unless told otherwise.
    #[must_use]
    pub fn client_auth(mut self, auth: ClientAuth) -> Self {
        self.auth = auth;
        self
    }

    /// Protocols that our server offers, best first, such as `h2`, `http/1.1`.
    #[must_use]
    pub fn alpn<'a>(mut self, protocols: impl IntoIterator<Item = &'a str>) -> Self {
        self.alpn = protocols.into_iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    /// Protocols that we offer as a client. None unless told.
    #[must_use]
    pub fn client_alpn<'a>(mut self, protocols: impl IntoIterator<Item = &'a str>) -> Self {
        self.client_alpn = protocols.into_iter().map(|p| p.as_bytes().to_vec()).collect();
        self
    }

    /// Builds the configurations.
    pub fn build(self) -> Result<Arc<TrustEpoch>, EpochError> {
        let mut anchors = Anchors::default();
        for (authority_type, ca) in &self.anchors {
            anchors
                .add(*authority_type, ca)
                .map_err(|why| EpochError::Anchor {
                    authority: ca.pin(),
                    why,
                })?;
        }
        self.denied.iter().for_each(|digest| anchors.deny(*digest));
        let anchors = Arc::new(anchors);
        if self.client.as_ref().is_some_and(|c| !c.certificate().client) {
            return Err(EpochError::WrongUsage("client"));
        }
        let provider = Arc::new(default_provider());
        let verifier = Arc::new(ClientVerifier {
            anchors: anchors.clone(),
            auth: self.auth,
            hints: anchors.hints(None),
        });
        let mut servers = Vec::with_capacity(self.servers.len());
        for credential in self.servers {
            let config = server_config(&credential, &provider, &verifier, &self.now, &self.alpn)?;
            servers.push((credential, Arc::new(config)));
        }
        Ok(Arc::new(TrustEpoch {
            hints: anchors.hints(Some(AuthorityType::Host)).into(),
            anchors,
            client: self.client,
            servers,
            provider,
            client_alpn: self.client_alpn,
            now: self.now,
        }))
    }
}

fn server_config(
    credential: &Credential,
    provider: &Arc<CryptoProvider>,
    verifier: &Arc<ClientVerifier>,
    now: &Now,
    alpn: &[Vec<u8>],
) -> Result<ServerConfig, EpochError> {
    if !credential.certificate().server {
        return Err(EpochError::WrongUsage("server"));
    }
    let mut config = ServerConfig::builder_with_details(provider.clone(), Arc::new(now.clone()))
        .with_protocol_versions(&[&TLS13])
        .map_err(EpochError::Tls)?
        .with_client_cert_verifier(verifier.clone())
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(credential.certified())));
    // A resumed session skips verification: an expired or retired certificate would come in by it.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn.to_vec();
    Ok(config)
}
