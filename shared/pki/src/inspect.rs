//! Reading certificates (RFC 5280): what one says, and whose key signed it.

use std::net::IpAddr;

use domain::{CertDigest, ClusterName, Principal, Serial, SpkiPin, Timestamp, event::LeafUse};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::OID_SIG_ECDSA_WITH_SHA256,
    prelude::FromDer,
};

use crate::{
    adapter::from_x509_time,
    authority::CaCert,
    key::{PublicKey, sha256},
};

/// Why a certificate cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not a certificate, or one with bytes after its end.
    #[error("not an X.509 certificate in DER")]
    Malformed,
    /// Another kind of key.
    #[error("the certificate's key is not ECDSA P-256")]
    WrongKey,
    /// Not a CA certificate.
    #[error("the certificate is not a CA certificate")]
    NotAnAuthority,
    /// Signed by another key, or changed.
    #[error("the certificate is not signed by this authority")]
    NotSignedBy,
}

/// What a certificate says. Nothing here is believed before its signature was verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Certificate {
    /// SHA-256 of the whole certificate.
    pub digest: CertDigest,
    /// The pin of its key.
    pub spki: SpkiPin,
    /// Its key.
    pub public_key: PublicKey,
    /// Its serial, if it is one of ours (16 bytes).
    pub serial: Option<Serial>,
    /// The authority that it names by its key identifier, if that is one of ours (32 bytes): a claim.
    pub issuer: Option<SpkiPin>,
    /// Its own key identifier.
    pub subject_key_id: Option<Vec<u8>>,
    /// The subject, DER.
    pub subject_dn: Vec<u8>,
    /// The issuer, DER.
    pub issuer_dn: Vec<u8>,
    /// The subject's common name, for people.
    pub common_name: Option<String>,
    /// The URI, if there is exactly one.
    pub uri: Option<String>,
    /// DNS names.
    pub names: Vec<String>,
    /// IP addresses.
    pub addresses: Vec<IpAddr>,
    /// The beginning of its life.
    pub not_before: Timestamp,
    /// The end of its life.
    pub not_after: Timestamp,
    /// Is it a CA certificate?
    pub is_ca: bool,
    /// May it be presented as a TLS client?
    pub client: bool,
    /// May it be served?
    pub server: bool,
}

impl Certificate {
    /// Reads a certificate, DER.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let certificate = x509(der)?;
        let public_key =
            PublicKey::from_spki_der(certificate.public_key().raw).map_err(|_| CertificateError::WrongKey)?;
        let mut read = Self {
            digest: CertDigest(sha256(der)),
            spki: public_key.pin(),
            public_key,
            serial: certificate.raw_serial().try_into().ok().map(Serial),
            issuer: None,
            subject_key_id: None,
            subject_dn: certificate.subject().as_raw().to_vec(),
            issuer_dn: certificate.issuer().as_raw().to_vec(),
            common_name: certificate
                .subject()
                .iter_common_name()
                .next()
                .and_then(|n| n.as_str().ok())
                .map(String::from),
            uri: None,
            names: Vec::new(),
            addresses: Vec::new(),
            not_before: from_x509_time(certificate.validity().not_before),
            not_after: from_x509_time(certificate.validity().not_after),
            is_ca: false,
            client: false,
            server: false,
        };
        read.take_extensions(&certificate)?;
        Ok(read)
    }

    /// The holder that its URI names, in this cluster. Believe it only after a verified chain.
    pub fn principal(&self, cluster: &ClusterName) -> Option<Principal> {
        Principal::of_uri(cluster, self.uri.as_deref()?)
    }

    /// The usages that it has, if any.
    pub fn usage(&self) -> Option<LeafUse> {
        match (self.client, self.server) {
            (true, true) => Some(LeafUse::Both),
            (true, false) => Some(LeafUse::Client),
            (false, true) => Some(LeafUse::Server),
            (false, false) => None,
        }
    }

    fn take_extensions(&mut self, certificate: &X509Certificate<'_>) -> Result<(), CertificateError> {
        let mut uris = Vec::new();
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    self.issuer = id
                        .key_identifier
                        .as_ref()
                        .and_then(|k| k.0.try_into().ok())
                        .map(SpkiPin);
                }
                ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0.to_vec()),
                ParsedExtension::BasicConstraints(constraints) => self.is_ca = constraints.ca,
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    (self.client, self.server) = (usage.client_auth, usage.server_auth);
                }
                ParsedExtension::SubjectAlternativeName(names) => {
                    for name in &names.general_names {
                        match name {
                            GeneralName::DNSName(dns) => self.names.push((*dns).to_owned()),
                            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
                            GeneralName::IPAddress(bytes) => self.addresses.extend(address(bytes)),
                            _ => {}
                        }
                    }
                }
                ParsedExtension::ParseError { .. } => return Err(CertificateError::Malformed),
                _ => {}
            }
        }
        // Two URIs would let a certificate be two holders, depending on who reads it.
        self.uri = (uris.len() == 1).then(|| uris.remove(0));
        Ok(())
    }
}

/// Parses and insists on the end of the input.
pub(crate) fn x509(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateError::Malformed),
    }
}

/// An address as certificates carry it: 4 or 16 bytes.
pub(crate) fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

/// Is `leaf` signed by the key of `ca`, and does it name it as its issuer? Both DER.
///
/// Time, usages and path length are TLS's business: this says only whose signature it is.
pub fn verify_signed_by(leaf: &[u8], ca: &[u8]) -> Result<(), CertificateError> {
    let (child, parent) = (x509(leaf)?, x509(ca)?);
    let key = PublicKey::from_spki_der(parent.public_key().raw).map_err(|_| CertificateError::WrongKey)?;
    let same_algorithm = child.signature_algorithm == child.tbs_certificate.signature
        && child.signature_algorithm.algorithm == OID_SIG_ECDSA_WITH_SHA256;
    let named = child.issuer().as_raw() == parent.subject().as_raw();
    let signed = key.verifies(child.tbs_certificate.as_ref(), &child.signature_value.data);
    if same_algorithm && named && signed {
        Ok(())
    } else {
        Err(CertificateError::NotSignedBy)
    }
}

/// Which of these authorities signed the certificate?
pub fn issuer_among<'a>(leaf: &[u8], authorities: impl IntoIterator<Item = &'a CaCert>) -> Option<SpkiPin> {
    let named = Certificate::parse(leaf).ok()?.issuer;
    authorities
        .into_iter()
        // The key identifier spares a signature check for each authority that did not sign.
        .filter(|ca| named.is_none_or(|pin| pin == ca.pin()))
        .find(|ca| verify_signed_by(leaf, ca.der()).is_ok())
        .map(CaCert::pin)
}

/// The pin of a certificate's key.
pub fn pin_of_certificate(der: &[u8]) -> Result<SpkiPin, CertificateError> {
    Certificate::parse(der).map(|c| c.spki)
}

#[cfg(test)]
mod tests {
    use domain::AuthorityType;

    use super::*;
    use crate::testing::{authority, granted, leaf};

    #[test]
    fn the_signing_authority_is_found_among_several_and_no_other_is_taken_for_it() {
        let (key, one) = authority(AuthorityType::Host, 1);
        let (_, two) = authority(AuthorityType::Host, 2);
        let issued = leaf(&granted(&one), &one, &key);
        assert_eq!(issuer_among(&issued.der, [&two, &one]), Some(one.pin()));
        assert_eq!(issuer_among(&issued.der, [&two]), None);
        assert_eq!(
            verify_signed_by(&issued.der, two.der()),
            Err(CertificateError::NotSignedBy)
        );
    }

    #[test]
    fn bytes_after_the_end_and_half_a_certificate_are_malformed() {
        let (_, ca) = authority(AuthorityType::User, 1);
        let mut longer = ca.der().to_vec();
        longer.push(0);
        assert_eq!(Certificate::parse(&longer), Err(CertificateError::Malformed));
        assert_eq!(
            Certificate::parse(&longer[..200]),
            Err(CertificateError::Malformed)
        );
        assert_eq!(Certificate::parse(b""), Err(CertificateError::Malformed));
    }
}
