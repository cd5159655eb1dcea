//! Where the private halves of authorities are kept. The signer alone holds one of these.

use std::{io, path::PathBuf, sync::Arc};

use domain::{AuthorityId, AuthorityType, ClusterName, RotationId, authority::KeyKind};
use pki::{CaSigner, KeyPair, SealError};
use runtime::harden::SecretFileError;
use serde::{Deserialize, Serialize};

use crate::kek::KekError;

pub use files::FileStore;
pub use hardware::{HardwareError, HardwareStore, Library, derived};
pub use stores::{KeyPlace, Stores, make_keys_in};
pub use uri::{TokenUri, TokenUriError};

mod files;
mod hardware;
mod stores;
mod uri;

/// What a key was made for; public, stored beside the sealed key and authenticated with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyPurpose {
    /// Which cluster's.
    pub cluster: ClusterName,
    /// Which authority's.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// What it signs with.
    pub kind: KeyKind,
    /// Its place in the line of keys.
    pub generation: u32,
    /// The rotation that it was made for; none for the first generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
}

/// A store of private keys. Blocking: callers are on a thread that may wait.
///
/// Sealed files ([`FileStore`]), PKCS#11 tokens ([`HardwareStore`]), and both together ([`Stores`]): nothing here hands
/// out a private key of an authority.
pub trait KeyStore: Send + Sync {
    /// Makes a key and returns once it is durable: the event that names it comes after.
    fn make(&self, purpose: &KeyPurpose) -> Result<(AuthorityId, Arc<dyn CaSigner>), KeyStoreError>;

    /// The key of an authority, to sign with.
    fn signer(&self, id: &AuthorityId) -> Result<Arc<dyn CaSigner>, KeyStoreError>;

    /// Every authority key in the store: after a crash some are in no event.
    fn keys(&self) -> Result<Vec<(AuthorityId, KeyPurpose)>, KeyStoreError>;

    /// Destroys a key for good and returns once that is durable, with the names of the places that confirm that they hold
    /// it no more, as they stand in `authority.destroyed`. Destroying it again is fine.
    fn destroy(&self, id: &AuthorityId) -> Result<Vec<String>, KeyStoreError>;

    /// The key that signs trust bundles.
    fn bundle_key(&self) -> Result<KeyPair, KeyStoreError>;
}

/// Why the key store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    /// There is no store.
    #[error("{} holds no keys; give the data directory that `carousel init` made", .0.display())]
    Absent(PathBuf),
    /// `init` found one.
    #[error("{} holds keys already; `carousel init` makes a cluster in an empty directory only", .0.display())]
    Exists(PathBuf),
    /// A newer version wrote it.
    #[error("{} was written by a newer version (format {format}); use that version", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// A file cannot be read, or others can read it.
    #[error("a file of the key store cannot be read")]
    File(#[from] SecretFileError),
    /// A file is not what was once written.
    #[error("{} is damaged ({detail}); restore it from a copy of the data directory", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// A token.
    #[error(transparent)]
    Hardware(#[from] HardwareError),
    /// The key-encryption key is not at hand.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// The sealed key did not open.
    #[error("{} did not open", .path.display())]
    Sealed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SealError,
    },
    /// The key is not there.
    #[error(
        "the private key of {0} is not in the key store; restore the keys from a copy of the data directory, or rotate"
    )]
    Unknown(AuthorityId),
    /// The disk's own error.
    #[error("the key store could not {doing} {}; check the disk and its permissions", .path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}
