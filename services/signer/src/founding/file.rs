//! The genesis between `init` and the first `serve`: a file beside the keys, without a secret in it.

use std::{
    io,
    path::{Path, PathBuf},
};

use domain::{
    ClusterName, MemberId, SpkiPin, UserName,
    command::{Genesis, Settings},
    event::{AuthorityActivated, AuthorityKeyGenerated, AuthorizationGranted, CertificateIssued},
    plain,
};
use runtime::harden::{self, OWNER_ONLY, SecretFileError};
use serde::{Deserialize, Serialize};

const FILE: &str = "genesis.json";
/// A genesis holds about twelve certificates.
const MAX_BYTES: u64 = 1024 * 1024;

/// Why the genesis was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum GenesisFileError {
    /// It could not be written.
    #[error("{} could not be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// It could not be read.
    #[error("the first facts of the cluster cannot be read")]
    Read(#[from] SecretFileError),
    /// It is not what `init` wrote.
    #[error("{} is not what `carousel init` wrote ({detail}); restore it from a copy", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
}

#[derive(Serialize, Deserialize)]
struct GenesisFile {
    cluster: ClusterName,
    settings: Settings,
    bundle_key: SpkiPin,
    bundle_public_key: String,
    keys: Vec<(AuthorityKeyGenerated, AuthorityActivated)>,
    admin: UserName,
    gateway: MemberId,
    certificates: Vec<(AuthorizationGranted, CertificateIssued)>,
}

/// The text of the file.
pub fn genesis_file(genesis: &Genesis) -> Vec<u8> {
    let Genesis {
        cluster,
        settings,
        bundle_key,
        bundle_public_key,
        keys,
        admin,
        gateway,
        certificates,
    } = genesis.clone();
    let content = GenesisFile {
        cluster,
        settings,
        bundle_key,
        bundle_public_key,
        keys,
        admin,
        gateway,
        certificates,
    };
    serde_json::to_vec_pretty(&content).expect("facts are plain data")
}

pub(super) fn save(key_dir: &Path, genesis: &Genesis) -> Result<(), GenesisFileError> {
    let path = key_dir.join(FILE);
    harden::atomic_write(&path, &genesis_file(genesis), OWNER_ONLY)
        .map_err(|source| GenesisFileError::Write { path, source })
}

/// Reads the genesis that `init` left in the key directory, for the first `serve`. It is never removed: it is
/// how a log is recognised as this cluster's.
///
/// # Errors
/// [`GenesisFileError`].
pub fn load_genesis(key_dir: &Path) -> Result<Genesis, GenesisFileError> {
    let path = key_dir.join(FILE);
    let bytes = harden::read_owner_only(&path, MAX_BYTES)?;
    parse_genesis(&bytes, &path)
}

/// Reads the text of that file; `path` is for the message only.
///
/// # Errors
/// [`GenesisFileError::Damaged`].
pub fn parse_genesis(bytes: &[u8], path: &Path) -> Result<Genesis, GenesisFileError> {
    let read: Result<GenesisFile, _> = serde_json::from_slice(bytes);
    let GenesisFile {
        cluster,
        settings,
        bundle_key,
        bundle_public_key,
        keys,
        admin,
        gateway,
        certificates,
    } = read.map_err(|error| GenesisFileError::Damaged {
        path: path.into(),
        detail: plain(error),
    })?;
    Ok(Genesis {
        cluster,
        settings,
        bundle_key,
        bundle_public_key,
        keys,
        admin,
        gateway,
        certificates,
    })
}
