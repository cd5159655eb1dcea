//! SSH certificates (OpenSSH, PROTOCOL.certkeys): the key of a host or of a person, certified by an authority.
//!
//! Authorities sign with the same ECDSA P-256 keys as X.509; whose keys are certified may be of any kind that OpenSSH
//! still takes. Everything in a certificate comes from its [`SshProfile`], nothing from whoever asked but the key.

use std::collections::BTreeMap;

use domain::{
    CertDigest, Timestamp,
    event::{AuthorizationGranted, Form, form::is_text},
};
use ssh_key::{
    Certificate, HashAlg,
    certificate::{Builder, CertType},
    public::KeyData,
};

use crate::{
    adapter::Signing,
    key::{CaSigner, PublicKey, SignError, random, sha256},
};

pub use export::{known_hosts_line, public_line, revoked_of, trust_lines, trust_text};
pub use key::{SshKeyError, SshPublicKey};
pub use krl::{Revoked, krl};

mod adapter;
mod export;
mod key;
mod krl;

/// Whose key is certified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SshRole {
    /// A host's: its principals are the names that its users connect to.
    Host,
    /// A person's or a program's: its principals are the accounts that it may log in to.
    User,
}

/// Exactly what will stand in a certificate, beside the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SshProfile {
    /// Whose key it is.
    pub role: SshRole,
    /// What sshd writes into its log at a login.
    pub key_id: String,
    /// By which a revocation list names it.
    pub serial: u64,
    /// Names or accounts, at least one: without any it would be good for all.
    pub principals: Vec<String>,
    /// The beginning of its life, in whole seconds cut downwards.
    pub valid_after: Timestamp,
    /// The end of its life, likewise.
    pub valid_before: Timestamp,
    /// `force-command`, `source-address`, `verify-required`; of users only.
    pub critical_options: BTreeMap<String, String>,
    /// `permit-pty` and the like; of users only.
    pub extensions: Vec<String>,
}

impl SshProfile {
    /// What an authorisation says; none for one of another form.
    pub fn of(granted: &AuthorizationGranted) -> Option<Self> {
        let Form::Ssh {
            principals,
            critical_options,
            extensions,
        } = &granted.form
        else {
            return None;
        };
        Some(Self {
            role: if granted.usage.server() {
                SshRole::Host
            } else {
                SshRole::User
            },
            key_id: granted.uri.clone(),
            serial: granted.serial.ssh()?,
            principals: principals.clone(),
            valid_after: whole_seconds(granted.not_before),
            valid_before: whole_seconds(granted.not_after),
            critical_options: critical_options.clone(),
            extensions: {
                // A certificate holds them in order, however they were asked for.
                let mut extensions = extensions.clone();
                extensions.sort_unstable();
                extensions
            },
        })
    }
}

/// A certificate's line: several times the longest request, whose principals stand in it.
const LONGEST_CERTIFICATE: usize = 4 * key::LONGEST_LINE;

/// Why no certificate was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshIssueError {
    /// What was asked for cannot be certified.
    #[error("the SSH certificate would not be acceptable: {0}")]
    Profile(String),
    /// The key store did not sign.
    #[error("the SSH certificate could not be signed")]
    Sign(#[from] SignError),
}

impl SshIssueError {
    /// May the same succeed later?
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Sign(_))
    }
}

/// Why a text is no certificate of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SshCertificateError {
    /// It cannot be read.
    #[error("this is no SSH certificate; give one line as in id_ed25519-cert.pub")]
    NoCertificate,
    /// The authority is another, or the content was changed.
    #[error("the SSH certificate is not signed by this authority")]
    NotSigned,
}

/// A certificate, as it was made or read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SshCertificate(Certificate);

/// Makes a certificate.
///
/// # Errors
/// [`SshIssueError::Profile`] for what OpenSSH or we would not accept, [`SshIssueError::Sign`] if the key store refuses.
pub fn issue(
    profile: &SshProfile,
    key: &SshPublicKey,
    ca: &dyn CaSigner,
) -> Result<SshCertificate, SshIssueError> {
    check(profile).map_err(SshIssueError::Profile)?;
    let of_field = |error: ssh_key::Error| SshIssueError::Profile(error.to_string());
    let (after, before) = (seconds(profile.valid_after), seconds(profile.valid_before));
    let mut builder = Builder::new(random::<32>(), key.data().clone(), after, before).map_err(of_field)?;
    builder
        .cert_type(match profile.role {
            SshRole::Host => CertType::Host,
            SshRole::User => CertType::User,
        })
        .and_then(|b| b.key_id(&profile.key_id))
        .and_then(|b| b.serial(profile.serial))
        .map_err(of_field)?;
    for principal in &profile.principals {
        builder.valid_principal(principal).map_err(of_field)?;
    }
    for (name, value) in &profile.critical_options {
        builder.critical_option(name, value).map_err(of_field)?;
    }
    for name in &profile.extensions {
        builder.extension(name, "").map_err(of_field)?;
    }
    let signing = Signing::new(ca);
    let made = builder.sign(&signing);
    match (made, signing.take_failure()) {
        (_, Some(failure)) => Err(failure.into()),
        (Err(error), None) => Err(of_field(error)),
        (Ok(certificate), None) => Ok(SshCertificate(certificate)),
    }
}

impl SshCertificate {
    /// Reads one line, with or without a comment.
    ///
    /// # Errors
    /// [`SshCertificateError::NoCertificate`].
    pub fn parse(text: &str) -> Result<Self, SshCertificateError> {
        let line = text.trim();
        if line.len() > LONGEST_CERTIFICATE {
            return Err(SshCertificateError::NoCertificate);
        }
        let read = Certificate::from_openssh(line).map(Self);
        read.ok()
            .filter(|read| key::is_same(line, &read.to_line()))
            .ok_or(SshCertificateError::NoCertificate)
    }

    /// One line: its type and its base64, as OpenSSH reads it from `…-cert.pub`.
    pub fn to_line(&self) -> String {
        self.0.to_openssh().expect("what was made or read can be written")
    }

    /// SHA-256 of its bytes.
    pub fn digest(&self) -> CertDigest {
        CertDigest(sha256(
            &self.0.to_bytes().expect("what was made or read can be written"),
        ))
    }

    /// Is it signed by this authority? Times, names and the deny list are for the caller to look at.
    ///
    /// # Errors
    /// [`SshCertificateError::NotSigned`].
    pub fn verify(&self, authority: &PublicKey) -> Result<(), SshCertificateError> {
        let is_ours = *self.0.signature_key() == adapter::key_data(authority);
        let signed = adapter::signed_bytes(&self.0).zip(adapter::der_of(self.0.signature()));
        match signed {
            Some((bytes, signature)) if is_ours && authority.verifies(&bytes, &signature) => Ok(()),
            _ => Err(SshCertificateError::NotSigned),
        }
    }

    /// What stands in it.
    pub fn profile(&self) -> SshProfile {
        let certificate = &self.0;
        SshProfile {
            role: match certificate.cert_type() {
                CertType::Host => SshRole::Host,
                CertType::User => SshRole::User,
            },
            key_id: certificate.key_id().to_owned(),
            serial: certificate.serial(),
            principals: certificate.valid_principals().to_vec(),
            valid_after: milliseconds(certificate.valid_after()),
            valid_before: milliseconds(certificate.valid_before()),
            critical_options: certificate.critical_options().0.clone(),
            extensions: certificate.extensions().keys().cloned().collect(),
        }
    }

    /// The key that it certifies.
    pub fn key(&self) -> SshPublicKey {
        SshPublicKey::of(self.0.public_key().clone())
    }

    /// The key that signed it, as OpenSSH shows it: `SHA256:…`.
    pub fn signed_by(&self) -> String {
        KeyData::fingerprint(self.0.signature_key(), HashAlg::Sha256).to_string()
    }
}

/// A profile that OpenSSH would misread, or that grants more than it says, is refused here.
fn check(profile: &SshProfile) -> Result<(), String> {
    if !is_text(&profile.key_id) {
        return Err("its key id must be 1 to 255 printable characters without spaces".into());
    }
    let form = Form::Ssh {
        principals: profile.principals.clone(),
        critical_options: profile.critical_options.clone(),
        extensions: profile.extensions.clone(),
    };
    form.check().map_err(|what| format!("the {what}"))?;
    if profile.valid_before.0 <= profile.valid_after.0 || profile.valid_after.0 < 0 {
        return Err("its life is over before it begins".into());
    }
    let is_plain = profile.critical_options.is_empty() && profile.extensions.is_empty();
    match profile.role {
        SshRole::Host if !is_plain => Err("a host's certificate has no options".into()),
        SshRole::Host | SshRole::User => Ok(()),
    }
}

fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.0.div_euclid(1000)).unwrap_or_default()
}

fn whole_seconds(at: Timestamp) -> Timestamp {
    milliseconds(seconds(at))
}

fn milliseconds(seconds: u64) -> Timestamp {
    Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
}

#[cfg(test)]
mod tests;
