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
use zeroize::Zeroizing;

use crate::keystore::{HardwareError, TokenUri, TokenUriError, derived};

/// A file with 32 bytes in any of the accepted forms is never larger.
const MAX_KEK_BYTES: u64 = 4 * 1024;

/// Where the key-encryption key is: `file:PATH`, `env:VARIABLE` or `pkcs11:URI` ([`TokenUri`]).
///
/// A relative path is meant from the key directory, so that a data directory can be moved as a whole; what a person
/// writes is meant from where they stand, see [`KekSource::given`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KekSource {
    /// A 0600 file.
    File(PathBuf),
    /// An environment variable, for whoever gets secrets from the service manager.
    Env(String),
    /// What a key in a PKCS#11 token makes of a fixed text.
    Pkcs11(TokenUri),
}

/// Why the key-encryption key is not at hand.
#[derive(Debug, thiserror::Error)]
pub enum KekError {
    /// Neither of the three forms.
    #[error("{0:?} names no key-encryption key; write file:PATH, env:VARIABLE or pkcs11:URI")]
    Unknown(String),
    /// It begins like a token's, and is none.
    #[error(transparent)]
    Uri(#[from] TokenUriError),
    /// The token did not answer.
    #[error("the key-encryption key in the PKCS#11 token is not at hand")]
    Token(#[from] HardwareError),
    /// The file cannot be read, or others can read it.
    #[error("the key-encryption key cannot be read")]
    File(#[from] SecretFileError),
    /// A file was named, and there is none. It is not made: a mistyped path would become a key that nobody backs up.
    #[error("there is no key-encryption key at {}; make one with: (umask 077; head -c 32 /dev/urandom > {})", .0.display(), .0.display())]
    Absent(PathBuf),
    /// The working directory is gone, so that a relative path means nothing.
    #[error("{} cannot be resolved; give an absolute path", .path.display())]
    Nowhere {
        /// The path as it was written.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
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
    /// As a person gives it: a relative path is meant from the working directory, and kept absolute.
    ///
    /// # Errors
    /// [`KekError`], which says how to mend it.
    pub fn given(text: &str) -> Result<Self, KekError> {
        match text.parse()? {
            Self::File(path) => match std::path::absolute(&path) {
                Ok(absolute) => Ok(Self::File(absolute)),
                Err(source) => Err(KekError::Nowhere { path, source }),
            },
            elsewhere @ (Self::Env(_) | Self::Pkcs11(_)) => Ok(elsewhere),
        }
    }

    /// The file, if it lies beside what it protects: then a warning is due.
    pub fn beside_keys(&self, key_dir: &Path) -> Option<PathBuf> {
        let Self::File(path) = self else { return None };
        let path = key_dir.join(path);
        // Through links: a path that only looks far away protects nothing.
        let real = path.canonicalize().ok()?;
        let keys = key_dir.canonicalize().ok()?;
        (real.parent() == Some(&keys)).then_some(path)
    }

    /// Makes sure that there is a key for a new cluster: the default file is made, and a key in a token; another file or
    /// a variable must be there.
    ///
    /// # Errors
    /// [`KekError`], which says how to mend it.
    pub fn prepare(&self, key_dir: &Path) -> Result<Kek, KekError> {
        if let Self::Pkcs11(uri) = self {
            return parse(uri.token.clone(), derived(uri, true)?);
        }
        if let Self::File(path) = self {
            let is_usual = *self == Self::default();
            let path = key_dir.join(path);
            if !is_usual && !path.exists() {
                return Err(KekError::Absent(path));
            }
            if !is_usual {
                return self.load(key_dir);
            }
            harden::create_private_dir(key_dir).map_err(|source| KekError::Write {
                path: key_dir.into(),
                source,
            })?;
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
            Self::Pkcs11(uri) => (uri.token.clone(), std::mem::take(&mut *derived(uri, false)?)),
        };
        parse(place, Zeroizing::new(content))
    }
}

fn parse(place: String, content: Zeroizing<Vec<u8>>) -> Result<Kek, KekError> {
    Kek::parse(&content).map_err(|source| KekError::Malformed { place, source })
}

impl fmt::Display for KekSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Env(name) => write!(f, "env:{name}"),
            Self::Pkcs11(uri) => uri.fmt(f),
        }
    }
}

impl FromStr for KekSource {
    type Err = KekError;
    fn from_str(text: &str) -> Result<Self, KekError> {
        match text.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.into())),
            Some(("pkcs11", _)) => Ok(Self::Pkcs11(text.parse()?)),
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

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_that_was_named_must_be_there_and_the_usual_one_is_made() {
        let dir = TempDir::new().unwrap();
        let named = dir.path().join("elsewhere.kek");
        let source = KekSource::File(named.clone());
        let error = source.prepare(dir.path()).unwrap_err();
        assert!(matches!(error, KekError::Absent(_)), "{error}");
        assert!(
            error.to_string().contains("head -c 32"),
            "it says how to make one"
        );
        assert!(!named.exists(), "and does not make it");
        fs::write(&named, [7; 32]).unwrap();
        fs::set_permissions(&named, fs::Permissions::from_mode(OWNER_ONLY)).unwrap();
        assert!(source.prepare(dir.path()).is_ok());
        assert!(KekSource::default().prepare(dir.path()).is_ok());
        assert!(dir.path().join("kek").exists());
    }

    #[test]
    fn a_path_is_meant_from_where_the_person_stands() {
        let given = KekSource::given("file:some/kek").unwrap();
        let here = std::env::current_dir().unwrap();
        assert_eq!(given, KekSource::File(here.join("some/kek")));
        assert_ne!(KekSource::given("file:kek").unwrap(), KekSource::default());
        let variable = KekSource::given("env:KEK").unwrap();
        assert_eq!(variable, KekSource::Env("KEK".into()));
    }

    #[test]
    fn a_file_beside_the_keys_is_noticed_however_it_is_named() {
        let dir = TempDir::new().unwrap();
        let (keys, far) = (dir.path().join("keys"), dir.path().join("far"));
        fs::create_dir_all(&keys).unwrap();
        fs::create_dir_all(&far).unwrap();
        fs::write(keys.join("kek"), [7; 32]).unwrap();
        fs::write(far.join("kek"), [7; 32]).unwrap();
        std::os::unix::fs::symlink(&keys, dir.path().join("link")).unwrap();
        let beside = |source: KekSource| source.beside_keys(&keys).is_some();
        assert!(beside(KekSource::default()));
        assert!(beside(KekSource::File(keys.join("../keys/kek"))));
        assert!(beside(KekSource::File(dir.path().join("link/kek"))));
        assert!(!beside(KekSource::File(far.join("kek"))));
        assert!(!beside(KekSource::Env("KEK".into())));
    }
}
