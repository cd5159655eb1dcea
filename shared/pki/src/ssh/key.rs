//! The keys of those who ask: one line, as `ssh-keygen` writes it beside the private key.

use domain::SpkiPin;
use ssh_key::{PublicKey as Line, public::KeyData};

use crate::{
    key::{PublicKey, sha256},
    ssh::adapter,
};

/// The longest line that is read: an RSA key of 16,384 bits has 2,800 characters, a certificate some more.
pub(super) const LONGEST_LINE: usize = 16 * 1024;
/// OpenSSH itself asks for no less of new ones.
const LEAST_RSA_BITS: usize = 2_048;

/// Why a text is not a public key that is certified here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// It is no public key.
    #[error("this is no SSH public key; give one line as in id_ed25519.pub: its type and its base64")]
    NoKey,
    /// Somebody gave what must not leave his machine.
    #[error("this is a private key; give the file beside it whose name ends in .pub")]
    Private,
    /// A certificate instead of a key.
    #[error("this is an SSH certificate; give the key that it certifies")]
    Certificate,
    /// It can be broken, or OpenSSH takes it no more.
    #[error("SSH keys of this kind are too weak to be certified; make one by `ssh-keygen -t ed25519`")]
    Weak,
}

/// The public key of a host or a person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SshPublicKey(KeyData);

impl SshPublicKey {
    /// Reads one line, with or without a comment, which is dropped.
    ///
    /// # Errors
    /// [`SshKeyError`]; nothing of the text is in it.
    pub fn parse(text: &str) -> Result<Self, SshKeyError> {
        let line = text.trim();
        if line.contains("PRIVATE KEY") {
            return Err(SshKeyError::Private);
        }
        if line.len() > LONGEST_LINE || line.chars().any(char::is_control) {
            return Err(SshKeyError::NoKey);
        }
        if line
            .split(' ')
            .next()
            .is_some_and(|kind| kind.ends_with("-cert-v01@openssh.com"))
        {
            return Err(SshKeyError::Certificate);
        }
        let read = Line::from_openssh(line).map_err(|_| SshKeyError::NoKey)?;
        let data = read.key_data();
        let is_strong = match data {
            KeyData::Ecdsa(_)
            | KeyData::Ed25519(_)
            | KeyData::SkEcdsaSha2NistP256(_)
            | KeyData::SkEd25519(_) => true,
            KeyData::Rsa(key) => key
                .n
                .as_positive_bytes()
                .is_some_and(|n| n.len() * 8 >= LEAST_RSA_BITS),
            // DSA, and what is unknown here: OpenSSH would not know it either.
            _ => false,
        };
        let key = Self(data.clone());
        match is_strong {
            true if is_same(line, &key.to_line()) => Ok(key),
            true => Err(SshKeyError::NoKey),
            false => Err(SshKeyError::Weak),
        }
    }

    pub(super) fn of(data: KeyData) -> Self {
        Self(data)
    }

    pub(super) fn data(&self) -> &KeyData {
        &self.0
    }

    /// One line without a comment.
    pub fn to_line(&self) -> String {
        Line::from(self.0.clone())
            .to_openssh()
            .expect("what was read can be written")
    }

    /// The key's name among all keys: for an ECDSA P-256 key the pin that it would have in X.509, so that one key is
    /// one key wherever it is certified; for others SHA-256 of OpenSSH's own bytes, its `SHA256:` fingerprint.
    pub fn pin(&self) -> SpkiPin {
        match self.p256() {
            Some(key) => key.pin(),
            None => SpkiPin(sha256(
                &Line::from(self.0.clone())
                    .to_bytes()
                    .expect("what was read can be written"),
            )),
        }
    }

    /// The key as X.509 has it; none for keys of another kind.
    pub fn p256(&self) -> Option<PublicKey> {
        let KeyData::Ecdsa(key) = &self.0 else {
            return None;
        };
        PublicKey::from_sec1(key.as_sec1_bytes()).ok()
    }

    /// Is this an authority's own key?
    pub fn is(&self, authority: &PublicKey) -> bool {
        self.0 == adapter::key_data(authority)
    }
}

/// Do both lines hold the same bytes? What reads them is lenient with lengths; OpenSSH is not.
pub(super) fn is_same(given: &str, canonical: &str) -> bool {
    let parts = |line: &str| line.split(' ').take(2).map(str::to_owned).collect::<Vec<_>>();
    parts(given) == parts(canonical)
}
