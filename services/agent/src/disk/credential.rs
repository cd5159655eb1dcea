//! Certificates as a generation holds them: the node's own with their keys, and sshd's, whose key is not ours.

use std::{fs, io::ErrorKind, net::IpAddr, path::Path};

use domain::{
    Hostname, Position, SpkiPin, Timestamp, decide::certificates::NOT_BEFORE_BACK_MS, event::LeafUse,
    reconcile::Leaf,
};
use pki::{Certificate, KeyPair, ssh::SshCertificate};
use runtime::harden::{self, SecretFileError};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{DiskError, generations::text_of};

/// The name of sshd's certificate in a generation, for its `HostCertificate`.
pub(super) const SSHD_CERTIFICATE: &str = "ssh_host_key-cert.pub";

/// A certificate with its key.
#[derive(Clone)]
pub struct Credential {
    /// What the plan knows of it.
    pub leaf: Leaf,
    /// The certificate, DER.
    pub certificate: CertificateDer<'static>,
    /// Its key, PEM.
    pub key: Zeroizing<String>,
}

impl Credential {
    /// Puts a certificate and its key together, after it was seen that they belong together.
    ///
    /// # Errors
    /// In words: another key's certificate, or one that cannot be read.
    pub fn new(certificate: &[u8], key: &str, position: Position) -> Result<Self, String> {
        let pair = KeyPair::from_pkcs8_pem(key).map_err(|e| e.to_string())?;
        let read = Certificate::parse(certificate).map_err(|e| e.to_string())?;
        if read.spki != pair.spki_pin() {
            return Err("the certificate is for another key".into());
        }
        let (usage, issuer) = read
            .usage()
            .zip(read.issuer)
            .ok_or("the certificate names no usage or no issuer of ours")?;
        let leaf = Leaf {
            usage,
            issuer,
            spki: read.spki,
            position,
            // The life whose half is waited for begins when it was made. Its dates begin a little before that, for
            // clocks that are behind: counted from there, half of a short life is over at once, and again at once.
            not_before: read.not_before.plus_ms(NOT_BEFORE_BACK_MS).min(read.not_after),
            not_after: read.not_after,
        };
        Ok(Self {
            leaf,
            certificate: certificate.to_vec().into(),
            key: Zeroizing::new(key.to_owned()),
        })
    }

    /// The key.
    pub fn pair(&self) -> KeyPair {
        KeyPair::from_pkcs8_pem(&self.key).expect("the key was read when the credential was made")
    }

    pub(super) fn certificate_pem(&self) -> String {
        pki::pem::encode("CERTIFICATE", &self.certificate)
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({:?}, key not shown)", self.leaf)
    }
}

/// A certificate of sshd's key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SshdCertificate {
    /// What the plan knows of it.
    pub leaf: Leaf,
    /// The certificate, one line.
    pub line: String,
    /// Whose host it says that it is, by its URI, and under which names and addresses.
    pub names: (String, Vec<String>),
}

impl SshdCertificate {
    /// What the plan is to know of a certificate that this authority signed.
    pub fn new(read: &SshCertificate, issuer: SpkiPin, position: Position) -> Self {
        let profile = read.profile();
        let leaf = Leaf {
            usage: LeafUse::Server,
            issuer,
            spki: read.key().pin(),
            position,
            not_before: profile
                .valid_after
                .plus_ms(NOT_BEFORE_BACK_MS)
                .min(profile.valid_before),
            not_after: profile.valid_before,
        };
        Self {
            leaf,
            line: read.to_line(),
            names: (profile.key_id, profile.principals),
        }
    }

    /// Is it this node's, by all its names and no others? Its addresses nobody here knows.
    pub fn is_of(&self, uri: &str, names: &[Hostname]) -> bool {
        let (of, principals) = &self.names;
        let mut named = principals.iter().filter(|p| p.parse::<IpAddr>().is_err());
        let is_known = |principal: &String| names.iter().any(|name| name.as_str() == principal);
        let is_named = |name: &Hostname| principals.iter().any(|p| name.as_str() == p);
        of == uri && named.all(is_known) && names.iter().all(is_named)
    }
}

/// A leaf in the manifest; the rest of it stands in the certificate beside.
#[derive(Serialize, Deserialize)]
pub(super) struct LeafEntry {
    spki: SpkiPin,
    issuer: SpkiPin,
    usage: LeafUse,
    position: Position,
    not_after: Timestamp,
}

impl LeafEntry {
    pub(super) fn of(leaf: &Leaf) -> Self {
        let Leaf {
            usage,
            issuer,
            spki,
            position,
            not_after,
            ..
        } = *leaf;
        Self {
            spki,
            issuer,
            usage,
            position,
            not_after,
        }
    }
}

/// The certificate of a role in the generation at `path`, with its key.
pub(super) fn credential(
    path: &Path,
    role: &str,
    entry: Option<&LeafEntry>,
) -> Result<Option<Credential>, DiskError> {
    let Some(entry) = entry else { return Ok(None) };
    let (certificate, key) = (path.join(format!("{role}.crt")), path.join(format!("{role}.key")));
    let damaged = |why: String| DiskError::Damaged {
        path: certificate.clone(),
        why,
    };
    let key = match harden::read_owner_only(&key, super::MAX_FILE_BYTES) {
        Ok(key) => Zeroizing::new(key),
        Err(SecretFileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Err(damaged("its key is missing".into()));
        }
        Err(error) => return Err(error.into()),
    };
    let key = std::str::from_utf8(&key).map_err(|_| damaged("its key is not text".into()))?;
    let pem = text_of(&certificate)?;
    let ders = pki::pem::certificates(&pem).ok_or_else(|| damaged("not PEM".into()))?;
    let der = ders
        .first()
        .ok_or_else(|| damaged("no certificate in it".into()))?;
    let credential = Credential::new(der, key, entry.position).map_err(damaged)?;
    if credential.leaf.spki != entry.spki || credential.leaf.issuer != entry.issuer {
        return Err(DiskError::Damaged {
            path: certificate,
            why: "not the certificate of its manifest".into(),
        });
    }
    Ok(Some(credential))
}

/// The certificate of sshd in the generation at `path`. One that is damaged or gone is none: it is asked for again, and the
/// generation is whole without it.
pub(super) fn sshd_certificate(path: &Path, entry: Option<&LeafEntry>) -> Option<SshdCertificate> {
    let entry = entry?;
    let path = path.join(SSHD_CERTIFICATE);
    let read = fs::read_to_string(&path).map_err(|error| error.to_string());
    let read = read.and_then(|text| SshCertificate::parse(&text).map_err(|error| error.to_string()));
    match read.map(|read| SshdCertificate::new(&read, entry.issuer, entry.position)) {
        Ok(certificate) if certificate.leaf.spki == entry.spki => Some(certificate),
        Ok(_) => {
            tracing::warn!(file = %path.display(), "the certificate of sshd is not that of its manifest; another one is asked for");
            None
        }
        Err(why) => {
            tracing::warn!(file = %path.display(), why, "the certificate of sshd cannot be read; another one is asked for");
            None
        }
    }
}
