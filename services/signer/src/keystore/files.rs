//! Keys as sealed files in `D/keys`: one file for each key, and `store.json` that says how they are sealed.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{AuthorityId, ClusterName, SpkiPin};
use pki::{
    CaSigner, Kek, KeyPair,
    sealed::{self, Label},
};
use runtime::harden::{self, OWNER_ONLY};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{KeyPurpose, KeyStore, KeyStoreError, TokenUri};
use crate::kek::KekSource;

/// Raised when an older version could no longer read the files.
const FORMAT: u32 = 1;
/// The format of a store with tokens: a version that knows none would miss the keys in them.
const FORMAT_WITH_TOKENS: u32 = 2;
/// What a sealed key ends with.
const SUFFIX: &str = "sealed";
/// The file that makes a directory a key store.
const STORE_FILE: &str = "store.json";
const BUNDLE_FILE: &str = "bundle.sealed";
/// No file of this store is larger.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The store in a directory that only its owner can read.
pub struct FileStore {
    dir: PathBuf,
    cluster: ClusterName,
    bundle_key: SpkiPin,
    kek: Kek,
    kek_source: KekSource,
    /// Tokens that hold keys, or have held some.
    pub(super) tokens: Vec<TokenUri>,
    /// In which of them new keys are made; none: here.
    pub(super) makes_in: Option<TokenUri>,
}

/// `store.json`: public, and needed to open anything.
#[derive(Serialize, Deserialize)]
struct StoreFile {
    format: u32,
    cluster: ClusterName,
    kek: KekSource,
    bundle_key: SpkiPin,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<TokenUri>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    makes_in: Option<TokenUri>,
}

/// One sealed key: what it is for, in clear, and the key.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    format: u32,
    spki: SpkiPin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    purpose: Option<KeyPurpose>,
    sealed: String,
}

impl FileStore {
    /// Makes the store of a new cluster, with its bundle key.
    ///
    /// # Errors
    /// `Exists` if there is one; a crash half way leaves no `store.json`, so that `init` can be run again.
    pub fn create(dir: &Path, cluster: &ClusterName, kek: &KekSource) -> Result<Self, KeyStoreError> {
        let store_file = dir.join(STORE_FILE);
        if store_file.exists() {
            return Err(KeyStoreError::Exists(dir.into()));
        }
        // Before anything is made: without it the directory stays as it was, and `init` can be run again.
        let prepared = kek.prepare(dir)?;
        harden::create_private_dir(dir).map_err(io_error("make", dir))?;
        let key = KeyPair::generate();
        let store = Self {
            dir: dir.into(),
            cluster: cluster.clone(),
            bundle_key: key.spki_pin(),
            kek: prepared,
            kek_source: kek.clone(),
            tokens: vec![],
            makes_in: None,
        };
        let label = Label::BundleKey {
            cluster: cluster.clone(),
            spki: key.spki_pin(),
        };
        store.seal(&dir.join(BUNDLE_FILE), &label, &key, None)?;
        // The store exists from this file on; what a crash left behind before it is overwritten or in no event.
        store.describe()?;
        Ok(store)
    }

    /// Opens the store that `init` made. The bundle key is opened once, so that a wrong key-encryption key
    /// is found now and not at the next rotation.
    ///
    /// # Errors
    /// [`KeyStoreError`], which says how to mend it.
    pub fn open(dir: &Path) -> Result<Self, KeyStoreError> {
        let path = dir.join(STORE_FILE);
        if !path.exists() {
            return Err(KeyStoreError::Absent(dir.into()));
        }
        let found: StoreFile = read_json(&path)?;
        if found.format > FORMAT_WITH_TOKENS {
            return Err(KeyStoreError::Newer {
                path,
                format: found.format,
            });
        }
        let kek = found.kek.load(dir)?;
        let store = Self {
            dir: dir.into(),
            cluster: found.cluster,
            bundle_key: found.bundle_key,
            kek,
            kek_source: found.kek,
            tokens: found.tokens,
            makes_in: found.makes_in,
        };
        store.bundle_key()?;
        store.remove_strays()?;
        // A key that others can read keeps the signer from all its duties: it is said now, like everything of its kind.
        store.keys()?;
        Ok(store)
    }

    /// A crash while a key was written or destroyed leaves a copy under a temporary name, which no destruction would
    /// find.
    fn remove_strays(&self) -> Result<(), KeyStoreError> {
        for path in self.files()? {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy())
                .unwrap_or_default();
            if name.starts_with('.') && name.ends_with(".tmp") {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn files(&self) -> Result<Vec<PathBuf>, KeyStoreError> {
        let entries = fs::read_dir(&self.dir).map_err(io_error("list", &self.dir))?;
        let paths = entries.map(|entry| {
            entry
                .map(|entry| entry.path())
                .map_err(io_error("list", &self.dir))
        });
        paths.collect()
    }

    /// Writes `store.json`.
    fn describe(&self) -> Result<(), KeyStoreError> {
        let content = StoreFile {
            format: if self.tokens.is_empty() {
                FORMAT
            } else {
                FORMAT_WITH_TOKENS
            },
            cluster: self.cluster.clone(),
            kek: self.kek_source.clone(),
            bundle_key: self.bundle_key,
            tokens: self.tokens.clone(),
            makes_in: self.makes_in.clone(),
        };
        write_json(&self.dir.join(STORE_FILE), &content)
    }

    /// Remembers where new keys are made; a token once named stays known.
    pub(super) fn make_in(&mut self, token: Option<TokenUri>) -> Result<(), KeyStoreError> {
        if let Some(uri) = token.as_ref().filter(|uri| !self.tokens.contains(uri)) {
            self.tokens.push(uri.clone());
        }
        self.makes_in = token;
        self.describe()
    }

    pub(super) fn bundle_key_pin(&self) -> &SpkiPin {
        &self.bundle_key
    }

    pub(super) fn holds(&self, id: &AuthorityId) -> bool {
        self.path_of(id).exists() || self.doomed(id).exists()
    }

    /// The cluster whose keys these are.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    fn path_of(&self, id: &AuthorityId) -> PathBuf {
        let name = id.to_string().replace(':', "-");
        self.dir.join(format!("{name}.{SUFFIX}"))
    }

    /// The name of a key that is being destroyed: that of a stray copy, see [`Self::remove_strays`].
    fn doomed(&self, id: &AuthorityId) -> PathBuf {
        let name = id.to_string().replace(':', "-");
        self.dir.join(format!(".{name}.{SUFFIX}.tmp"))
    }

    fn label_of(&self, id: &AuthorityId, purpose: &KeyPurpose) -> Label {
        Label::Authority {
            cluster: self.cluster.clone(),
            authority_type: purpose.authority_type,
            kind: purpose.kind,
            generation: purpose.generation,
            spki: *id,
        }
    }

    fn seal(
        &self,
        path: &Path,
        label: &Label,
        key: &KeyPair,
        purpose: Option<&KeyPurpose>,
    ) -> Result<(), KeyStoreError> {
        let sealed = STANDARD.encode(sealed::seal(&self.kek, label, &key.to_pkcs8_der()));
        let file = KeyFile {
            format: FORMAT,
            spki: key.spki_pin(),
            purpose: purpose.cloned(),
            sealed,
        };
        write_json(path, &file)
    }

    fn unseal(&self, path: &Path, file: &KeyFile, label: &Label) -> Result<KeyPair, KeyStoreError> {
        let damaged = |detail: &str| KeyStoreError::Damaged {
            path: path.into(),
            detail: detail.into(),
        };
        let blob = STANDARD
            .decode(&file.sealed)
            .map_err(|_| damaged("its sealed key is not base64"))?;
        let opened = sealed::unseal(&self.kek, label, &blob).map_err(|source| KeyStoreError::Sealed {
            path: path.into(),
            source,
        })?;
        let key = KeyPair::from_pkcs8_der(&opened).map_err(|error| damaged(&error.to_string()))?;
        if key.spki_pin() == file.spki {
            Ok(key)
        } else {
            Err(damaged("it holds another key than it says"))
        }
    }
}

impl KeyStore for FileStore {
    fn make(&self, purpose: &KeyPurpose) -> Result<(AuthorityId, Arc<dyn CaSigner>), KeyStoreError> {
        let key = KeyPair::generate();
        let id = key.spki_pin();
        self.seal(
            &self.path_of(&id),
            &self.label_of(&id, purpose),
            &key,
            Some(purpose),
        )?;
        Ok((id, Arc::new(key)))
    }

    fn signer(&self, id: &AuthorityId) -> Result<Arc<dyn CaSigner>, KeyStoreError> {
        let path = self.path_of(id);
        if !path.exists() {
            return Err(KeyStoreError::Unknown(*id));
        }
        let file: KeyFile = read_json(&path)?;
        let Some(purpose) = &file.purpose else {
            return Err(KeyStoreError::Damaged {
                path,
                detail: "it does not say what the key is for".into(),
            });
        };
        Ok(Arc::new(self.unseal(
            &path,
            &file,
            &self.label_of(id, purpose),
        )?))
    }

    fn keys(&self) -> Result<Vec<(AuthorityId, KeyPurpose)>, KeyStoreError> {
        let mut keys = vec![];
        for path in self.files()? {
            let is_key = path.extension().is_some_and(|e| e == SUFFIX);
            if is_key && path.file_name().is_some_and(|name| name != BUNDLE_FILE) {
                match read_json::<KeyFile>(&path) {
                    Ok(file) => keys.extend(file.purpose.map(|purpose| (file.spki, purpose))),
                    // One spoilt file must not keep every authority from its work: whoever needs this key is told so.
                    Err(error @ KeyStoreError::Damaged { .. }) => {
                        tracing::error!(%error, "a file of the key store was passed over");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        keys.sort_by_key(|(id, _)| *id);
        Ok(keys)
    }

    fn destroy(&self, id: &AuthorityId) -> Result<Vec<String>, KeyStoreError> {
        // Under another name first: a file that is half overwritten and still bears a key's name would look like
        // damage. Crash points: renamed, overwritten or unlinked but not durable: the duty stands until its event is
        // in the log, and comes here again; what it no longer finds, the next start removes as a stray copy.
        let (path, doomed) = (self.path_of(id), self.doomed(id));
        match fs::rename(&path, &doomed) {
            Ok(()) => harden::sync_dir(&self.dir).map_err(io_error("sync", &self.dir))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("rename", &path)(error)),
        }
        remove(&doomed)?;
        harden::sync_dir(&self.dir).map_err(io_error("sync", &self.dir))?;
        Ok(vec!["files".into()])
    }

    fn bundle_key(&self) -> Result<KeyPair, KeyStoreError> {
        let path = self.dir.join(BUNDLE_FILE);
        let file: KeyFile = read_json(&path)?;
        let label = Label::BundleKey {
            cluster: self.cluster.clone(),
            spki: self.bundle_key,
        };
        self.unseal(&path, &file, &label)
    }
}

/// Overwrites and unlinks a file; one that is not there is gone already.
fn remove(path: &Path) -> Result<(), KeyStoreError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("look at", path)(error)),
        Ok(found) => {
            overwrite(path, found.len()).map_err(io_error("overwrite", path))?;
            fs::remove_file(path).map_err(io_error("remove", path))
        }
    }
}

/// In place, before the name is removed: on most file systems the blocks that held the wrapped data key are
/// then gone. Where they are not (copy on write), the key is still sealed under the key-encryption key.
fn overwrite(path: &Path, len: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    io::copy(&mut io::Read::take(io::repeat(0), len), &mut file)?;
    file.flush()?;
    file.sync_all()
}

fn write_json(path: &Path, content: &impl Serialize) -> Result<(), KeyStoreError> {
    let mut bytes = serde_json::to_vec_pretty(content).expect("the store's files have string keys only");
    bytes.push(b'\n');
    harden::atomic_write(path, &bytes, OWNER_ONLY).map_err(io_error("write", path))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, KeyStoreError> {
    let bytes = harden::read_owner_only(path, MAX_FILE_BYTES)?;
    serde_json::from_slice(&bytes).map_err(|error| KeyStoreError::Damaged {
        path: path.into(),
        detail: error.to_string(),
    })
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyStoreError {
    let path = path.to_owned();
    move |source| KeyStoreError::Io { doing, path, source }
}

#[cfg(test)]
mod tests;
