//! The gateway's own keys and certificates on disk, `D/gateway`.
//!
//! A key is durable before the request for its certificate is sent, so that a crash in between loses
//! nothing: at the next start the key's certificate is in the log, or the key is thrown away. Nobody else
//! ever has a copy.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use mtls::{Credential, EpochError};
use pki::{KeyPair, pem};
use runtime::harden::{SecretFileError, atomic_write, create_private_dir, read_owner_only, sync_dir};
use rustls_pki_types::CertificateDer;

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Why the gateway's own files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// A file or the directory cannot be read or written.
    #[error("the gateway's file {path} cannot be used: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A private key that others can read, or that is no regular file.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// Not a key or not a certificate.
    #[error("the gateway's file {path} is damaged: {why}; remove it and its twin, the gateway asks for a new certificate",
        path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Key and certificate do not fit.
    #[error("the gateway's key and certificate {path} do not fit: {source}", path = path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
        /// What does not fit.
        source: EpochError,
    },
}

/// A key whose certificate is not here yet.
#[derive(Debug)]
pub(crate) struct Orphan {
    pub(crate) key: KeyPair,
    stem: String,
}

/// The directory.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// A credential with its place on disk.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) credential: Credential,
    stem: String,
}

impl Store {
    /// Opens the directory, making it where it is not there.
    pub(crate) fn open(dir: &Path) -> Result<Self, CredentialError> {
        create_private_dir(dir).map_err(|source| CredentialError::Io {
            path: dir.to_owned(),
            source,
        })?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Everything that is kept: credentials, and keys without a certificate.
    pub(crate) fn load(&self) -> Result<(Vec<Stored>, Vec<Orphan>), CredentialError> {
        let (mut credentials, mut orphans) = (vec![], vec![]);
        for stem in self.stems()? {
            let path = self.dir.join(format!("{stem}.key"));
            let text = read_owner_only(&path, MAX_FILE_BYTES)?;
            let text = zeroized_text(text, &path)?;
            let key = KeyPair::from_pkcs8_pem(&text).map_err(|e| CredentialError::Damaged {
                path: path.clone(),
                why: e.to_string(),
            })?;
            match self.certificate(&stem)? {
                Some(der) => credentials.push(self.fit(&stem, der, &key)?),
                None => orphans.push(Orphan { key, stem }),
            }
        }
        Ok((credentials, orphans))
    }

    /// Makes a key; durable when it returns.
    pub(crate) fn new_key(&self) -> Result<Orphan, CredentialError> {
        let key = KeyPair::generate();
        let stem = hex(&key.spki_pin().0[..16]);
        self.write(&format!("{stem}.key"), key.to_pem().as_bytes())?;
        Ok(Orphan { key, stem })
    }

    /// Puts a key's certificate beside it.
    pub(crate) fn install(&self, orphan: &Orphan, pem: &str) -> Result<Stored, CredentialError> {
        let stored = self.fit(&orphan.stem, self.first(&orphan.stem, pem)?, &orphan.key)?;
        // A crash before this line leaves the key alone: the next start finds its certificate in the log.
        self.write(&format!("{}.crt", orphan.stem), pem.as_bytes())?;
        Ok(stored)
    }

    /// Removes a key that never got a certificate.
    pub(crate) fn discard(&self, orphan: &Orphan) -> Result<(), CredentialError> {
        self.remove(&orphan.stem)
    }

    /// Removes every credential but these: an earlier one is never installed again [M].
    pub(crate) fn keep_only(&self, kept: &[Stored]) -> Result<(), CredentialError> {
        let is_kept = |stem: &str| kept.iter().any(|k| k.stem == stem);
        for stem in self.stems()?.into_iter().filter(|s| !is_kept(s)) {
            if self.certificate(&stem)?.is_some() {
                self.remove(&stem)?;
            }
        }
        Ok(())
    }

    fn fit(
        &self,
        stem: &str,
        der: CertificateDer<'static>,
        key: &KeyPair,
    ) -> Result<Stored, CredentialError> {
        let credential = Credential::new(vec![der], key).map_err(|source| CredentialError::Unfit {
            path: self.dir.join(format!("{stem}.crt")),
            source,
        })?;
        Ok(Stored {
            credential,
            stem: stem.to_owned(),
        })
    }

    fn certificate(&self, stem: &str) -> Result<Option<CertificateDer<'static>>, CredentialError> {
        let path = self.dir.join(format!("{stem}.crt"));
        match fs::read_to_string(&path) {
            Ok(text) => self.first(stem, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CredentialError::Io { path, source }),
        }
    }

    fn first(&self, stem: &str, text: &str) -> Result<CertificateDer<'static>, CredentialError> {
        let first = pem::certificates(text).and_then(|all| all.into_iter().next());
        first.ok_or_else(|| CredentialError::Damaged {
            path: self.dir.join(format!("{stem}.crt")),
            why: "it holds no certificate".into(),
        })
    }

    fn stems(&self) -> Result<Vec<String>, CredentialError> {
        let failed = |source| CredentialError::Io {
            path: self.dir.clone(),
            source,
        };
        let mut stems = vec![];
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some(stem) = name.to_str().and_then(|n| n.strip_suffix(".key")) {
                stems.push(stem.to_owned());
            }
        }
        stems.sort();
        Ok(stems)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), CredentialError> {
        let path = self.dir.join(name);
        atomic_write(&path, bytes, 0o600).map_err(|source| CredentialError::Io { path, source })
    }

    fn remove(&self, stem: &str) -> Result<(), CredentialError> {
        // The certificate first: a crash in between leaves an orphan, never a certificate without its key.
        for name in [format!("{stem}.crt"), format!("{stem}.key")] {
            let path = self.dir.join(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(CredentialError::Io { path, source });
                }
                Ok(()) | Err(_) => {}
            }
        }
        sync_dir(&self.dir).map_err(|source| CredentialError::Io {
            path: self.dir.clone(),
            source,
        })
    }
}

fn zeroized_text(bytes: Vec<u8>, path: &Path) -> Result<zeroize::Zeroizing<String>, CredentialError> {
    String::from_utf8(bytes)
        .map(zeroize::Zeroizing::new)
        .map_err(|_| CredentialError::Damaged {
            path: path.to_owned(),
            why: "it is not text".into(),
        })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
