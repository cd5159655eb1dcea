//! Authorities: the self-signed certificate that makes a key a CA.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    AuthorityType, ClusterName, Position, RotationId, Serial, SpkiPin, Timestamp,
    authority::{AuthorityKey, KeyKind},
    time::{DAY_MS, MINUTE_MS},
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyIdMethod, KeyUsagePurpose, SerialNumber};
use rustls_pki_types::CertificateDer;

use crate::{
    adapter::{Signing, x509_time},
    inspect::{Certificate, CertificateError, verify_signed_by},
    key::{CaSigner, SignError},
    names,
};

/// How far certificates are dated back, for clocks that are behind ours.
pub const BACKDATE_MS: u64 = 5 * MINUTE_MS;
/// The life of a CA certificate: ten years.
pub const AUTHORITY_LIFE_MS: u64 = 3_653 * DAY_MS;

/// What a new CA certificate says.
#[derive(Clone, Copy, Debug)]
pub struct Blueprint<'a> {
    /// Whose authority.
    pub cluster: &'a ClusterName,
    /// Which.
    pub authority_type: AuthorityType,
    /// Its place in the line of keys, 1 for the first; part of the subject.
    pub generation: u32,
    /// Random.
    pub serial: Serial,
    /// Now; the certificate begins five minutes earlier.
    pub now: Timestamp,
}

/// Why a CA certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The key did not sign.
    #[error("the authority's key did not sign its own certificate")]
    Sign(#[source] SignError),
    /// The clock is so wrong that X.509 cannot write it.
    #[error("the time {0} cannot stand in a certificate; set the clock")]
    Time(Timestamp),
    /// A bug or an unforeseen name.
    #[error("the CA certificate could not be encoded: {0}")]
    Encode(rcgen::Error),
    /// What came out is not what this product accepts as a CA.
    #[error("the CA certificate that was made is not acceptable")]
    Result(#[source] CertificateError),
}

/// A CA certificate that was checked: CA, P-256, signed by its own key, key identifiers as ours.
#[derive(Clone, PartialEq, Eq)]
pub struct CaCert {
    der: CertificateDer<'static>,
    parsed: Certificate,
}

impl CaCert {
    /// Reads and checks a CA certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let parsed = Certificate::parse(der)?;
        if !parsed.is_ca {
            return Err(CertificateError::NotAnAuthority);
        }
        verify_signed_by(der, der)?;
        Ok(Self {
            der: CertificateDer::from(der.to_vec()),
            parsed,
        })
    }

    /// Reads the base64 form that events and bundles carry.
    pub fn from_base64(text: &str) -> Result<Self, CertificateError> {
        Self::from_der(&STANDARD.decode(text).map_err(|_| CertificateError::Malformed)?)
    }

    /// The certificate, DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The certificate, DER, base64.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.der)
    }

    /// The authority's id: the pin of its key.
    pub fn pin(&self) -> SpkiPin {
        self.parsed.spki
    }

    /// What the certificate says.
    pub fn parsed(&self) -> &Certificate {
        &self.parsed
    }

    /// The public half as `authority.key-generated` records it.
    pub fn authority_key(
        &self,
        generation: u32,
        storage: &str,
        rotation: Option<RotationId>,
        position: Position,
    ) -> AuthorityKey {
        AuthorityKey {
            id: self.pin(),
            kind: KeyKind::Tls,
            public_key: String::new(),
            generation,
            certificate: self.to_base64(),
            algorithm: "ECDSA P-256".into(),
            storage: storage.into(),
            not_after: self.parsed.not_after,
            rotation,
            position,
        }
    }
}

impl fmt::Debug for CaCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaCert({})", self.pin())
    }
}

/// The public half of an authority's key that has no certificate (SSH, JWT), as `authority.key-generated` records it.
pub fn bare_key(
    kind: KeyKind,
    signer: &dyn CaSigner,
    generation: u32,
    rotation: Option<RotationId>,
    now: Timestamp,
) -> AuthorityKey {
    let public = signer.public_key();
    AuthorityKey {
        id: public.pin(),
        kind,
        generation,
        certificate: String::new(),
        public_key: public.to_base64(),
        algorithm: "ECDSA P-256".into(),
        storage: signer.storage().into(),
        not_after: now.plus_ms(AUTHORITY_LIFE_MS),
        rotation,
        position: Position(0),
    }
}

/// Makes the self-signed certificate of a new authority (rotation.md section 7).
pub fn make(blueprint: &Blueprint<'_>, signer: &dyn CaSigner) -> Result<CaCert, AuthorityError> {
    let (from, until) = (
        blueprint.now.minus_ms(BACKDATE_MS),
        blueprint.now.plus_ms(AUTHORITY_LIFE_MS),
    );
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&blueprint.serial.0));
    params.not_before = x509_time(from).ok_or(AuthorityError::Time(from))?;
    params.not_after = x509_time(until).ok_or(AuthorityError::Time(until))?;
    params.distinguished_name =
        names::of_authority(blueprint.cluster, blueprint.authority_type, blueprint.generation);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    // The identifier is the whole pin (RFC 7093, method 4): a leaf names its issuer in our own words.
    params.key_identifier_method = KeyIdMethod::PreSpecified(signer.public_key().pin().0.to_vec());
    let signing = Signing::new(signer);
    let made = params
        .self_signed(&signing)
        .map_err(|error| match signing.take_failure() {
            Some(refused) => AuthorityError::Sign(refused),
            None => AuthorityError::Encode(error),
        })?;
    CaCert::from_der(made.der()).map_err(AuthorityError::Result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{CLUSTER, NOW, authority};

    #[test]
    fn two_generations_have_different_names_and_their_key_identifiers_are_their_pins() {
        let (_, one) = authority(AuthorityType::Host, 1);
        let (_, two) = authority(AuthorityType::Host, 2);
        assert_ne!(one.parsed().subject_dn, two.parsed().subject_dn);
        assert_eq!(one.parsed().subject_key_id.as_deref(), Some(&one.pin().0[..]));
        assert_eq!(
            one.parsed().common_name.as_deref(),
            Some(format!("{CLUSTER} host CA").as_str())
        );
        assert_eq!(one.parsed().not_before, NOW.minus_ms(BACKDATE_MS));
    }

    #[test]
    fn authorities_of_a_cluster_with_the_longest_name_have_a_name_each() {
        let label = "a".repeat(63);
        let cluster: ClusterName = format!("{label}.{label}.{label}.{}", &label[..61])
            .parse()
            .unwrap();
        assert_eq!(cluster.as_str().len(), 253);
        let mut names = std::collections::BTreeSet::new();
        for authority_type in AuthorityType::all() {
            for generation in [1, 2] {
                let blueprint = Blueprint {
                    cluster: &cluster,
                    authority_type,
                    generation,
                    serial: Serial::of_random([7; 16]),
                    now: NOW,
                };
                let ca = make(&blueprint, &crate::KeyPair::generate()).unwrap();
                let common_name = ca.parsed().common_name.clone().unwrap();
                assert!(common_name.len() <= 64, "{common_name}");
                assert!(
                    common_name.ends_with(&format!(" {authority_type} CA")),
                    "{common_name}"
                );
                names.insert(ca.parsed().subject_dn.clone());
            }
        }
        assert_eq!(names.len(), 2 * AuthorityType::all().count());
    }

    #[test]
    fn a_leaf_or_a_changed_certificate_is_no_authority() {
        let (_, ca) = authority(AuthorityType::Host, 1);
        let mut bytes = ca.der().to_vec();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        assert!(CaCert::from_der(&bytes).is_err());
        assert!(CaCert::from_der(&bytes[..last]).is_err());
        assert!(CaCert::from_base64("%").is_err());
    }
}
