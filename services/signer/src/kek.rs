//! The key-encryption key: where it is kept, and how it is read.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use pki::{Kek, SealError};
use runtime::{
    config::{self, ConfigError},
    harden::{self, OWNER_ONLY, SecretFileError},
};
use serde::{Deserialize, Serialize};

/// A file with 32 bytes in any of the accepted forms is never larger.
const MAX_KEK_BYTES: u64 = 4 * 1024;

/// Where the key-encryption key is: `file:PATH`, `env:VARIABLE` or `pkcs11:URI`.
///
/// A relative path is meant from the key directory, so that a data directory can be moved as a whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KekSource {
    /// A 0600 file.
    File(PathBuf),
    /// An environment variable, for whoever gets secrets from the service manager.
    Env(String),
    /// A key inside a hardware module.
    Pkcs11(String),
}

/// Why the key-encryption key is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// Neither of the three forms.
    #[error("{0:?} names no key-encryption key; write file:PATH, env:VARIABLE or pkcs11:URI")]
    Unknown(String),
    /// Understood, but not built yet.
    #[error("keys in a PKCS#11 module come with a later version; use file:PATH or env:VARIABLE")]
    Pkcs11Later,
    /// The file cannot be read, or others can read it.
    #[error("the key-encryption key cannot be read")]
    File(#[from] SecretFileError),
    /// The file could not be made.
    #[error("the key-encryption key {} could not be written", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The variable is not set.
    #[error("the environment variable {0}, which holds the key-encryption key, is not set")]
    Unset(String),
    /// The variable is set to something that is no text.
    #[error("the key-encryption key cannot be read from the environment")]
    Environment(#[from] ConfigError),
    /// There is something, but no 32 bytes.
    #[error("the key-encryption key at {place} has the wrong form")]
    Malformed {
        /// The file or variable.
        place: String,
        /// What was expected.
        #[source]
        source: SealError,
    },
}

impl Default for KekSource {
    fn default() -> Self {
        Self::File("kek".into())
    }
}

impl KekSource {
    /// Is it the file that `init` makes beside what it protects? Then a warning is due.
    pub fn is_beside_keys(&self) -> bool {
        *self == Self::default()
    }

    /// Makes sure that there is a key for a new cluster: the default file is made, anything else must be there.
    ///
    /// # Errors
    /// [`KekError`], which says how to mend it.
    pub fn prepare(&self, key_dir: &Path) -> Result<Kek, KekError> {
        if let Self::File(path) = self {
            let path = key_dir.join(path);
            let fresh = Kek::generate().to_base64();
            // Never over an existing one: it may protect other keys.
            match harden::atomic_create(&path, format!("{}\n", *fresh).as_bytes(), OWNER_ONLY) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(KekError::Write { path, source }),
            }
        }
        self.load(key_dir)
    }

    /// Reads the key.
    ///
    /// # Errors
    /// [`KekError`], which says how to mend it.
    pub fn load(&self, key_dir: &Path) -> Result<Kek, KekError> {
        let (place, content) = match self {
            Self::File(path) => {
                let path = key_dir.join(path);
                let content = harden::read_owner_only(&path, MAX_KEK_BYTES)?;
                (path.display().to_string(), content)
            }
            Self::Env(name) => {
                let content = config::env(name)?.ok_or_else(|| KekError::Unset(name.clone()))?;
                (format!("${name}"), content.into_bytes())
            }
            Self::Pkcs11(_) => return Err(KekError::Pkcs11Later),
        };
        let content = zeroize::Zeroizing::new(content);
        Kek::parse(&content).map_err(|source| KekError::Malformed { place, source })
    }
}

impl fmt::Display for KekSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Pkcs11(uri) => write!(f, "pkcs11:{uri}"),
        }
    }
}

impl FromStr for KekSource {
    type Err = KekError;
    fn from_str(text: &str) -> Result<Self, KekError> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.into())),
            Some(("pkcs11", uri)) if !uri.is_empty() => Ok(Self::Pkcs11(uri.into())),
            _ => Err(KekError::Unknown(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for KekSource {
    type Error = KekError;
    fn try_from(text: String) -> Result<Self, KekError> {
        text.parse()
    }
}

impl From<KekSource> for String {
    fn from(source: KekSource) -> Self {
        source.to_string()
    }
}
