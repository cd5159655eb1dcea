//! Leaves: exactly what an authorisation in the log says, and nothing that a requester said.

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{AuthorityId, CertDigest, ClusterName, Timestamp, event::AuthorizationGranted};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyUsagePurpose, OtherNameValue,
    SanType, SerialNumber,
};

use crate::{
    adapter::{Signing, Subject, x509_time},
    authority::CaCert,
    key::{CaSigner, PublicKey, SignError, sha256},
    lint::{LintError, profile},
    logon, names,
    ssh::SshIssueError,
};

/// A certificate, signed and checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IssuedLeaf {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// SHA-256 of it.
    pub digest: CertDigest,
}

impl IssuedLeaf {
    /// The certificate, DER, base64, as `certificate.issued` carries it.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.der)
    }
}

/// Why an authorised certificate was not made. Only [`IssueError::Sign`] is worth another attempt.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The authorisation names another authority than the one at hand.
    #[error("the authorisation names the authority {wanted}, but {given} was asked to sign")]
    OtherAuthority {
        /// What the authorisation says.
        wanted: AuthorityId,
        /// What was asked.
        given: AuthorityId,
    },
    /// The private key at hand is not this authority's.
    #[error("the signing key does not belong to the authority's certificate; check the key store")]
    OtherKey,
    /// The authorisation contradicts itself or X.509.
    #[error("the authorisation cannot be signed: {0}")]
    Authorization(&'static str),
    /// The authority ends before the leaf would.
    #[error("the certificate would outlive its authority, which ends {authority_ends}")]
    OutlivesAuthority {
        /// The end of the authority's certificate.
        authority_ends: Timestamp,
    },
    /// The key did not sign.
    #[error("the authority's key did not sign")]
    Sign(#[source] SignError),
    /// An SSH certificate was not made.
    #[error(transparent)]
    Ssh(SshIssueError),
    /// A bug or an unforeseen name.
    #[error("the certificate could not be encoded: {0}")]
    Encode(rcgen::Error),
    /// What was signed is not what was authorised: a bug, and the certificate is thrown away.
    #[error("the signed certificate is not what was authorised and was thrown away")]
    Lint(#[source] LintError),
}

impl IssueError {
    /// May the same authorisation succeed later?
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Ssh(error) => error.is_transient(),
            error => matches!(error, Self::Sign(_)),
        }
    }
}

/// Signs what the authorisation says, reads the result back and checks it before anyone gets it.
///
/// Signing twice gives two certificates with one serial (ECDSA is randomised); the log decides which
/// of them exists, so the caller must record one before it shows any.
pub fn issue(
    granted: &AuthorizationGranted,
    cluster: &ClusterName,
    ca: &CaCert,
    signer: &dyn CaSigner,
) -> Result<IssuedLeaf, IssueError> {
    if granted.issuer != ca.pin() {
        return Err(IssueError::OtherAuthority {
            wanted: granted.issuer,
            given: ca.pin(),
        });
    }
    if signer.public_key() != &ca.parsed().public_key {
        return Err(IssueError::OtherKey);
    }
    let key = subject_key(granted)?;
    let params = params(granted, cluster, ca)?;
    let signing = Signing::new(signer);
    let issuer = Issuer::from_ca_cert_der(ca.der(), &signing).map_err(IssueError::Encode)?;
    let made = params
        .signed_by(&Subject(&key), &issuer)
        .map_err(|error| match signing.take_failure() {
            Some(refused) => IssueError::Sign(refused),
            None => IssueError::Encode(error),
        })?;
    let der = made.der().to_vec();
    profile(&der, granted, cluster, ca).map_err(IssueError::Lint)?;
    let digest = CertDigest(sha256(&der));
    Ok(IssuedLeaf { der, digest })
}

fn subject_key(granted: &AuthorizationGranted) -> Result<PublicKey, IssueError> {
    let key = PublicKey::from_base64(&granted.public_key)
        .map_err(|_| IssueError::Authorization("its public key is not ECDSA P-256"))?;
    if key.pin() != granted.spki {
        return Err(IssueError::Authorization("its public key and its pin differ"));
    }
    if granted.spki == granted.issuer {
        return Err(IssueError::Authorization("an authority's key cannot be a leaf's"));
    }
    Ok(key)
}

/// rcgen's defaults are traps (no key identifiers, a serial that repeats, a life until 4096), so every
/// field is set here from the authorisation.
fn params(
    granted: &AuthorizationGranted,
    cluster: &ClusterName,
    ca: &CaCert,
) -> Result<CertificateParams, IssueError> {
    let time = |at| {
        x509_time(at).ok_or(IssueError::Authorization(
            "its times cannot stand in a certificate",
        ))
    };
    if granted.not_after <= granted.not_before {
        return Err(IssueError::Authorization("it ends before it begins"));
    }
    if granted.not_after > ca.parsed().not_after {
        return Err(IssueError::OutlivesAuthority {
            authority_ends: ca.parsed().not_after,
        });
    }
    if !(0x40..0x80).contains(&granted.serial.0[0]) {
        return Err(IssueError::Authorization(
            "its serial is not a positive number of 16 bytes",
        ));
    }
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&granted.serial.0));
    params.not_before = time(granted.not_before)?;
    params.not_after = time(granted.not_after)?;
    params.distinguished_name = names::of_leaf(cluster, &granted.common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages(granted);
    params.subject_alt_names = alternative_names(granted)?;
    params.use_authority_key_identifier_extension = true;
    params.key_identifier_method = KeyIdMethod::PreSpecified(granted.spki.0.to_vec());
    Ok(params)
}

fn usages(granted: &AuthorizationGranted) -> Vec<ExtendedKeyUsagePurpose> {
    let usage = granted.usage;
    let server = usage.server().then_some(ExtendedKeyUsagePurpose::ServerAuth);
    let client = usage.client().then_some(ExtendedKeyUsagePurpose::ClientAuth);
    let logon = logon::upn(granted).map(|_| ExtendedKeyUsagePurpose::Other(logon::SMART_CARD.to_vec()));
    server.into_iter().chain(client).chain(logon).collect()
}

/// The URI first (it is the identity), then names, then addresses, and last a user of a directory.
fn alternative_names(granted: &AuthorizationGranted) -> Result<Vec<SanType>, IssueError> {
    let text = |s: &str| {
        s.try_into()
            .map_err(|_| IssueError::Authorization("a name in it is not ASCII"))
    };
    let mut all = vec![SanType::URI(text(&granted.uri)?)];
    for name in &granted.names {
        all.push(SanType::DnsName(text(name.as_str())?));
    }
    all.extend(granted.addresses.iter().copied().map(SanType::IpAddress));
    let upn = logon::upn(granted).map(|upn| OtherNameValue::Utf8String(upn.to_owned()));
    all.extend(upn.map(|upn| SanType::OtherName((logon::USER_PRINCIPAL_NAME.to_vec(), upn))));
    Ok(all)
}

#[cfg(test)]
mod tests;
