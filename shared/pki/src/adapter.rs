//! Our keys in the shapes that rcgen asks for, and our times in its type.

use std::cell::RefCell;

use domain::Timestamp;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm, SigningKey};
use time::OffsetDateTime;

use crate::{
    der,
    key::{CaSigner, PublicKey, SignError},
};

/// A public key to be certified.
pub(crate) struct Subject<'a>(pub(crate) &'a PublicKey);

impl PublicKeyData for Subject<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0.point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// A key that signs, wherever it is kept. The errors of those who ask (rcgen, ssh-key) have no room for why a key store
/// refused, so the reason is kept here.
pub(crate) struct Signing<'a> {
    signer: &'a dyn CaSigner,
    failure: RefCell<Option<SignError>>,
}

impl<'a> Signing<'a> {
    pub(crate) fn new(signer: &'a dyn CaSigner) -> Self {
        Self {
            signer,
            failure: RefCell::new(None),
        }
    }

    /// The authority's public key.
    pub(crate) fn public_key(&self) -> &PublicKey {
        self.signer.public_key()
    }

    /// A signature as r||s; `None` if the key did not sign.
    pub(crate) fn raw(&self, message: &[u8]) -> Option<[u8; 64]> {
        let signed = self.signer.sign_raw(message);
        signed.map_err(|error| self.failure.replace(Some(error))).ok()
    }

    /// Why the key did not sign, if that was the failure.
    pub(crate) fn take_failure(&self) -> Option<SignError> {
        self.failure.take()
    }
}

impl PublicKeyData for Signing<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public_key().point()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Signing<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let raw = self.raw(message).ok_or(rcgen::Error::RemoteKeyError)?;
        Ok(der::ecdsa_signature(&raw))
    }
}

/// A time as X.509 writes it: whole seconds, cut downwards. `None` beyond the year 9999.
pub(crate) fn x509_time(at: Timestamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(at.0.div_euclid(1000))
        .ok()
        .filter(|t| (1950..=9999).contains(&t.year()))
}

/// The same instant read back from a certificate.
pub(crate) fn from_x509_time(time: x509_parser::time::ASN1Time) -> Timestamp {
    Timestamp(time.timestamp().saturating_mul(1000))
}
