//! What an authorisation in the log becomes, in whatever form: a certificate for TLS or SSH, or a token.
//!
//! Everything in it comes from the authorisation; whoever has one can make it, and whoever has both can check it.

use domain::{
    AuthorityType, CertDigest, ClusterName,
    authority::{AuthorityKey, KeyKind},
    event::{AuthorizationGranted, CertificateIssued, Form},
};
use serde::{Deserialize, Serialize};

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    authority::CaCert,
    issue::{IssueError, issue},
    jwe, jwt,
    key::{CaSigner, PublicKey, sha256},
    lint::lint,
    ssh::{self, SshCertificate, SshProfile, SshPublicKey},
};

/// What stands in `certificate.issued`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Made {
    /// SHA-256 of the certificate's bytes, or of the token.
    pub digest: CertDigest,
    /// DER in base64, one line of OpenSSH, or a sealed token.
    pub text: String,
}

impl Made {
    /// The fact of a signed authorisation.
    pub fn fact(self, granted: &AuthorizationGranted) -> CertificateIssued {
        granted.issued(self.digest, self.text)
    }
}

/// The claims of a token (RFC 7519, section 4.1). Of a workload's the subject is its SPIFFE ID (JWT-SVID, section 3).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Claims {
    /// Where its key set is found.
    pub iss: String,
    /// Whose it is.
    pub sub: String,
    /// For whom it is.
    pub aud: Vec<String>,
    /// Seconds since 1970: it is no older.
    pub iat: i64,
    /// It counts from then on.
    pub nbf: i64,
    /// It counts no more.
    pub exp: i64,
    /// Its serial number.
    pub jti: String,
}

impl Claims {
    /// What an authorisation says; none for one of another form.
    pub fn of(granted: &AuthorizationGranted) -> Option<Self> {
        let Form::Jwt { issuer, audience } = &granted.form else {
            return None;
        };
        let seconds = |at: domain::Timestamp| at.0.div_euclid(1000);
        Some(Self {
            iss: issuer.clone(),
            sub: match granted.authority_type {
                AuthorityType::Spiffe => granted.uri.clone(),
                _ => granted.common_name.clone(),
            },
            aud: audience.clone(),
            iat: seconds(granted.not_before),
            nbf: seconds(granted.not_before),
            exp: seconds(granted.not_after),
            jti: granted.serial.to_string(),
        })
    }
}

/// Signs what the authorisation says. `certificate` is the authority's own, of a key that has one.
///
/// # Errors
/// [`IssueError`]; [`IssueError::is_transient`] says whether the same may succeed later.
pub fn make(
    granted: &AuthorizationGranted,
    cluster: &ClusterName,
    certificate: Option<&CaCert>,
    signer: &dyn CaSigner,
) -> Result<Made, IssueError> {
    match (granted.form.kind(), certificate) {
        (KeyKind::Tls, Some(ca)) => {
            let leaf = issue(granted, cluster, ca, signer)?;
            let (digest, text) = (leaf.digest, leaf.to_base64());
            Ok(Made { digest, text })
        }
        (KeyKind::Tls, None) => Err(IssueError::Authorization(
            "its authority signs no X.509 certificates",
        )),
        (KeyKind::Ssh | KeyKind::Jwt, _) if signer.public_key().pin() != granted.issuer => {
            Err(IssueError::OtherAuthority {
                wanted: granted.issuer,
                given: signer.public_key().pin(),
            })
        }
        (KeyKind::Ssh, _) => of_ssh(granted, signer),
        (KeyKind::Jwt, _) => token(granted, signer),
    }
}

fn of_ssh(granted: &AuthorizationGranted, signer: &dyn CaSigner) -> Result<Made, IssueError> {
    let profile =
        SshProfile::of(granted).ok_or(IssueError::Authorization("its serial is not a number of 64 bits"))?;
    let key = ssh_key(granted)?;
    let made = ssh::issue(&profile, &key, signer).map_err(IssueError::Ssh)?;
    Ok(Made {
        digest: made.digest(),
        text: made.to_line(),
    })
}

fn ssh_key(granted: &AuthorizationGranted) -> Result<SshPublicKey, IssueError> {
    let key = SshPublicKey::parse(&granted.public_key)
        .map_err(|_| IssueError::Authorization("its public key is no SSH key that is certified here"))?;
    if key.pin() != granted.spki {
        return Err(IssueError::Authorization("its public key and its pin differ"));
    }
    if granted.spki == granted.issuer {
        return Err(IssueError::Authorization(
            "an authority's key cannot be a holder's",
        ));
    }
    Ok(key)
}

/// The token itself is in no answer and no log: only whoever asked can open what is.
fn token(granted: &AuthorizationGranted, signer: &dyn CaSigner) -> Result<Made, IssueError> {
    let claims = Claims::of(granted).ok_or(IssueError::Authorization("it has no claims"))?;
    let receiver = PublicKey::from_base64(&granted.public_key)
        .map_err(|_| IssueError::Authorization("the key to seal to is not on P-256"))?;
    if receiver.pin() != granted.spki {
        return Err(IssueError::Authorization("its public key and its pin differ"));
    }
    let unsigned = jwt::unsigned(&claims, "JWT", signer.public_key())
        .map_err(|_| IssueError::Authorization("its claims cannot be written"))?;
    let token = zeroize::Zeroizing::new(jwt::sign(&unsigned, signer).map_err(IssueError::Sign)?);
    let sealed = jwe::seal(&token, &receiver)
        .map_err(|_| IssueError::Authorization("the key to seal to is not on P-256"))?;
    Ok(Made {
        digest: CertDigest(sha256(token.as_bytes())),
        text: sealed,
    })
}

/// Is what was issued what was authorised, as far as anybody but the asker can see? Of a token nothing can be seen but that
/// it is one, and its facts.
///
/// # Errors
/// What differs, in words.
pub fn check(
    issued: &CertificateIssued,
    granted: &AuthorizationGranted,
    cluster: &ClusterName,
    issuer: &AuthorityKey,
) -> Result<(), String> {
    if issuer.kind != granted.form.kind() || issued.kind != issuer.kind {
        return Err(format!(
            "recorded as {}, authorised as {}, by a key for {}",
            issued.kind.as_str(),
            granted.form.kind().as_str(),
            issuer.kind.as_str()
        ));
    }
    let digest = match issuer.kind {
        KeyKind::Tls => check_x509(issued, granted, cluster, issuer)?,
        KeyKind::Ssh => check_ssh(issued, granted, issuer)?,
        KeyKind::Jwt => {
            jwe::check_form(&issued.certificate).map_err(|error| error.to_string())?;
            issued.digest
        }
    };
    let recorded = (
        &issued.holder,
        issued.authority_type,
        issued.issuer,
        issued.usage,
        issued.serial,
        issued.spki,
        issued.not_after,
    );
    let authorised = (
        &granted.holder,
        granted.authority_type,
        granted.issuer,
        granted.usage,
        granted.serial,
        granted.spki,
        granted.not_after,
    );
    if recorded != authorised || issued.digest != digest {
        return Err(
            "recorded with another holder, issuer, usage, key or digest than the certificate has".into(),
        );
    }
    Ok(())
}

fn check_x509(
    issued: &CertificateIssued,
    granted: &AuthorizationGranted,
    cluster: &ClusterName,
    issuer: &AuthorityKey,
) -> Result<CertDigest, String> {
    let der = STANDARD
        .decode(&issued.certificate)
        .map_err(|_| "the certificate is not base64")?;
    let ca = CaCert::from_base64(&issuer.certificate).map_err(|error| format!("its issuer: {error}"))?;
    lint(&der, granted, cluster, &ca).map_err(|error| format!("not what was authorised: {error}"))?;
    Ok(CertDigest(sha256(&der)))
}

fn check_ssh(
    issued: &CertificateIssued,
    granted: &AuthorizationGranted,
    issuer: &AuthorityKey,
) -> Result<CertDigest, String> {
    let key = PublicKey::from_base64(&issuer.public_key).map_err(|error| format!("its issuer: {error}"))?;
    let read = SshCertificate::parse(&issued.certificate).map_err(|error| error.to_string())?;
    read.verify(&key).map_err(|error| error.to_string())?;
    if Some(read.profile()) != SshProfile::of(granted) || read.key().pin() != granted.spki {
        return Err("not what was authorised: another profile or key stands in it".into());
    }
    Ok(read.digest())
}
