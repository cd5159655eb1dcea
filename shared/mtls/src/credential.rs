//! What a process presents: a certificate with its key.

use std::{fmt, sync::Arc};

use domain::SpkiPin;
use pki::{Certificate, KeyPair};
use rustls::{crypto::ring::sign::any_ecdsa_type, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::epoch::EpochError;

/// A certificate and its private key, checked to belong together. Shows no key when printed.
#[derive(Clone)]
pub struct Credential {
    certified: Arc<CertifiedKey>,
    certificate: Certificate,
    issuer: SpkiPin,
}

impl Credential {
    /// Takes a chain (the leaf first; what follows is sent along and means nothing to our peers) and
    /// the leaf's key.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Result<Self, EpochError> {
        let leaf = chain.first().ok_or(EpochError::EmptyChain)?;
        let certificate = Certificate::parse(leaf).map_err(EpochError::Certificate)?;
        if certificate.spki != key.spki_pin() {
            return Err(EpochError::OtherKey {
                certificate: certificate.spki,
                key: key.spki_pin(),
            });
        }
        let issuer = certificate.issuer.ok_or(EpochError::NoIssuer)?;
        let pkcs8 = key.to_pkcs8_der();
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(&pkcs8[..]));
        let signing = any_ecdsa_type(&private).map_err(EpochError::Tls)?;
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(chain, signing)),
            certificate,
            issuer,
        })
    }

    /// Reads both from PEM texts, as they lie on a disk.
    pub fn from_pem(certificates: &str, key: &str) -> Result<Self, EpochError> {
        let chain = pki::pem::certificates(certificates)
            .ok_or(EpochError::Certificate(pki::CertificateError::Malformed))?;
        Self::new(chain, &KeyPair::from_pkcs8_pem(key).map_err(EpochError::Key)?)
    }

    /// What the leaf says.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The leaf, DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.certified.cert[0]
    }

    /// The authority that issued it.
    pub fn issuer(&self) -> SpkiPin {
        self.issuer
    }

    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({} by {})", self.certificate.digest, self.issuer)
    }
}
