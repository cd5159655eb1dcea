//! Identity files: who an operator is, where the control plane is, and whom to trust there.
//!
//! One file holds all of it, so that one variable is enough and one rename replaces all of it at once. It is
//! JSON, 0600, and refused when others can read it: whoever can read it is the operator.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use domain::{
    AuthorityType, ClusterName, SpkiPin, Timestamp, UserName,
    trust::{Bundle, SignedBundle},
};
use pki::{BundleError, Certificate, CertificateError, KeyError, KeyPair, bundle};
use runtime::{
    config,
    harden::{self, OWNER_ONLY, SecretFileError},
};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use server::{InvalidServer, ServerUrl};

mod server;

/// The layout that this version writes; a higher one is refused.
pub const FORMAT: u32 = 1;
/// The most that an identity may weigh: a bundle with a long deny list is the bulk of it.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// How long to wait for another process that is changing the same file.
const LOCK_PATIENCE: Duration = Duration::from_secs(20);

/// An operator's identity.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The layout of this file.
    pub version: u32,
    /// The control plane, `https://HOST:PORT`; empty until the first `serve` has written it.
    pub server: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// Who this is.
    pub user: UserName,
    /// The pin of the bundle key: by it every trust document is verified.
    pub bundle_pin: SpkiPin,
    /// The leaf, PEM.
    pub certificate: String,
    /// Its private key, PKCS#8 PEM.
    pub key: Zeroizing<String>,
    /// The newest signed host bundle: whom to trust as a gateway.
    pub bundle: SignedBundle,
}

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No file was named and there is none at the usual place.
    #[error(
        "no identity: give --identity FILE, set CAROUSEL_IDENTITY, or put one at {}", .0.display()
    )]
    None(PathBuf),
    /// Neither HOME nor XDG_CONFIG_HOME is set.
    #[error("no identity: give --identity FILE or set CAROUSEL_IDENTITY")]
    Nowhere,
    /// It cannot be read, or others can read it.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// An environment variable cannot be read.
    #[error(transparent)]
    Config(#[from] config::ConfigError),
    /// It cannot be written or locked.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("{} is being changed by another process for more than {} s", .0.display(), LOCK_PATIENCE.as_secs())]
    Busy(PathBuf),
    /// Not an identity file.
    #[error("{} is not an identity file of Carousel: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, without its content.
        detail: String,
    },
    /// A newer version wrote it.
    #[error("{} was written by a newer version of Carousel (format {found}); use that version", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The certificate in it cannot be used.
    #[error("the certificate of this identity cannot be used")]
    Certificate(#[source] CertificateError),
    /// The key in it cannot be used.
    #[error("the key of this identity cannot be used")]
    Key(#[source] KeyError),
    /// The trust bundle in it does not verify by its own pin.
    #[error("the trust bundle of this identity does not verify")]
    Bundle(#[source] BundleError),
}

impl Identity {
    /// Reads an identity; refused when others can read it.
    ///
    /// # Errors
    /// [`IdentityError`], which says how to mend it.
    pub fn load(path: &Path) -> Result<Self, IdentityError> {
        Self::parse(&Zeroizing::new(harden::read_owner_only(path, MAX_BYTES)?), path)
    }

    /// The same from the file's bytes; `path` is for the message only.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, IdentityError> {
        let malformed = |detail: String| IdentityError::Malformed {
            path: path.to_owned(),
            detail,
        };
        // The version first: a newer file has fields that this one cannot name.
        let Version { version } =
            serde_json::from_slice(bytes).map_err(|e| malformed(format!("line {}", e.line())))?;
        if version > FORMAT {
            return Err(IdentityError::Newer {
                path: path.to_owned(),
                found: version,
            });
        }
        // serde's message may quote the file, which holds a key; the place is enough.
        serde_json::from_slice(bytes)
            .map_err(|e| malformed(format!("line {}, column {}", e.line(), e.column())))
    }

    /// Writes it, 0600, replacing what is there at once.
    ///
    /// # Errors
    /// [`IdentityError::Write`]; the old file is unchanged then.
    pub fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let text = Zeroizing::new(serde_json::to_vec_pretty(self).expect("an identity is plain data"));
        // Crash point: readers find the old identity or the new one, never a part; both are valid until they expire.
        harden::atomic_write(path, &text, OWNER_ONLY).map_err(|source| IdentityError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// What its certificate says.
    ///
    /// # Errors
    /// [`IdentityError::Certificate`].
    pub fn leaf(&self) -> Result<Certificate, IdentityError> {
        let chain = pki::pem::certificates(&self.certificate);
        let first = chain.as_ref().and_then(|chain| chain.first());
        let der = first.ok_or(IdentityError::Certificate(CertificateError::Malformed))?;
        Certificate::parse(der).map_err(IdentityError::Certificate)
    }

    /// Its key.
    ///
    /// # Errors
    /// [`IdentityError::Key`].
    pub fn key_pair(&self) -> Result<KeyPair, IdentityError> {
        KeyPair::from_pkcs8_pem(&self.key).map_err(IdentityError::Key)
    }

    /// The trust bundle in it, verified. An installed one stays although it has expired.
    ///
    /// # Errors
    /// [`IdentityError::Bundle`].
    pub fn trust(&self) -> Result<Bundle, IdentityError> {
        bundle::verify_unexpired(
            &self.bundle,
            &self.bundle_pin,
            Some(&self.cluster),
            AuthorityType::Host,
        )
        .map_err(IdentityError::Bundle)
    }

    /// Takes another trust bundle, if it verifies by the pin, is in force, and is not older than the one installed.
    /// Says whether anything changed.
    ///
    /// # Errors
    /// [`BundleError`]; nothing is changed then.
    pub fn install(&mut self, offered: SignedBundle, now: Timestamp) -> Result<bool, BundleError> {
        let found = bundle::verify(
            &offered,
            &self.bundle_pin,
            now,
            Some(&self.cluster),
            AuthorityType::Host,
        )?;
        let is_newer = self.trust().map_or(true, |ours| found.revision > ours.revision);
        if is_newer {
            self.bundle = offered;
        }
        Ok(is_newer)
    }
}

impl std::fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity")
            .field("cluster", &self.cluster)
            .field("user", &self.user)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The identity file to use: the one named by flag or environment, else
/// `$XDG_CONFIG_HOME/carousel/default.identity` (`~/.config` where that is not set).
///
/// # Errors
/// [`IdentityError::None`] names the place that was looked at.
pub fn find(named: Option<&Path>) -> Result<PathBuf, IdentityError> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let base = match config::env("XDG_CONFIG_HOME")? {
        Some(dir) => PathBuf::from(dir),
        None => match config::env("HOME")? {
            Some(home) => PathBuf::from(home).join(".config"),
            None => return Err(IdentityError::Nowhere),
        },
    };
    let usual = base.join("carousel").join("default.identity");
    if usual.exists() {
        Ok(usual)
    } else {
        Err(IdentityError::None(usual))
    }
}

/// Changes an identity file under its lock: reads it, lets `change` look at it, and writes it if that says so.
///
/// Two commands at once, or a command beside `serve`, must not undo each other's renewal.
///
/// # Errors
/// [`IdentityError`].
pub async fn update(
    path: &Path,
    change: impl FnOnce(&mut Identity) -> bool,
) -> Result<Identity, IdentityError> {
    let _held = Lock::hold(path).await?;
    let mut identity = Identity::load(path)?;
    if change(&mut identity) {
        identity.save(path)?;
    }
    Ok(identity)
}

/// Puts another identity in the place of the one that is there, if there is one, under the same lock.
///
/// # Errors
/// [`IdentityError`]; what was there is unchanged then.
pub async fn replace(
    path: &Path,
    make: impl FnOnce(Option<Identity>) -> Identity,
) -> Result<(), IdentityError> {
    let _held = Lock::hold(path).await?;
    // One that cannot be read is what is being replaced.
    make(Identity::load(path).ok()).save(path)
}

/// The lock of an identity file, held until it is dropped.
///
/// It lies on a file beside the identity: the identity itself is replaced by rename, and a lock on a file that is
/// replaced locks nothing.
pub(crate) struct Lock {
    /// The kernel lets go of the lock when the file is closed.
    _file: File,
}

impl Lock {
    /// Waits for the lock without blocking the thread: the holder may be another task of this process.
    pub(crate) async fn hold(path: &Path) -> Result<Self, IdentityError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".lock");
        let beside = path.with_file_name(name);
        let failed = |source| IdentityError::Write {
            path: beside.clone(),
            source,
        };
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(OWNER_ONLY)
            .open(&beside);
        let file = opened.map_err(failed)?;
        let deadline = tokio::time::Instant::now() + LOCK_PATIENCE;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::WOULDBLOCK) if tokio::time::Instant::now() >= deadline => {
                    return Err(IdentityError::Busy(path.to_owned()));
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => tokio::time::sleep(Duration::from_millis(25)).await,
                Err(error) => return Err(failed(error.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
