//! All stores of a signer as one: sealed files always, and the tokens in which it makes keys or has made some.
//!
//! Where new keys are made may be changed at any start; a key stays where it was made until it is destroyed, so that an
//! authority moves from files into a token, or back, by a rotation.

use std::{fmt, path::Path, str::FromStr, sync::Arc};

use domain::{AuthorityId, ClusterName};
use pki::{CaSigner, KeyPair};

use super::{
    FileStore, HardwareStore, KeyPurpose, KeyStore, KeyStoreError, Library, TokenUri, TokenUriError,
};

/// Where new keys are made: `files` or a PKCS#11 token.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyPlace {
    /// In sealed files beside the others.
    Files,
    /// In this token.
    Token(TokenUri),
}

impl FromStr for KeyPlace {
    type Err = TokenUriError;
    fn from_str(text: &str) -> Result<Self, TokenUriError> {
        match text {
            "files" => Ok(Self::Files),
            uri => match uri.parse::<TokenUri>()? {
                TokenUri { object: Some(_), .. } => Err(TokenUriError::Malformed(
                    "object is not understood here: keys get names of their own".into(),
                )),
                token => Ok(Self::Token(token)),
            },
        }
    }
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files => f.write_str("files"),
            Self::Token(uri) => uri.fmt(f),
        }
    }
}

/// The stores of one signer.
pub struct Stores {
    files: FileStore,
    tokens: Vec<HardwareStore>,
    /// Which token new keys are made in; none: in files.
    makes_in: Option<usize>,
}

/// From now on new keys are made there. A token must be there for that; what it holds stays in use wherever later ones
/// are made.
///
/// Blocking.
///
/// # Errors
/// [`KeyStoreError`]; then everything is as it was.
pub fn make_keys_in(key_dir: &Path, place: &KeyPlace) -> Result<(), KeyStoreError> {
    let mut files = FileStore::open(key_dir)?;
    let asked = match place {
        KeyPlace::Files => None,
        KeyPlace::Token(uri) => Some(uri.clone()),
    };
    if files.makes_in == asked {
        return Ok(());
    }
    if let Some(uri) = &asked {
        // A mistyped name is found now, and not by the next rotation.
        files.token(uri, &mut vec![]).keys()?;
    }
    files.make_in(asked)
}

impl FileStore {
    /// A token of this cluster. Those behind one library share it.
    fn token(&self, uri: &TokenUri, libraries: &mut Vec<Arc<Library>>) -> HardwareStore {
        let known = libraries
            .iter()
            .find(|library| library.path() == uri.module)
            .cloned();
        let library = known.unwrap_or_else(|| {
            let library = Arc::new(Library::new(&uri.module));
            libraries.push(library.clone());
            library
        });
        HardwareStore::new(
            uri.clone(),
            library,
            self.cluster().clone(),
            self.bundle_key_pin(),
        )
    }
}

impl Stores {
    /// Opens the files; tokens are opened when they are needed.
    ///
    /// # Errors
    /// [`KeyStoreError`], which says how to mend it.
    pub fn open(key_dir: &Path) -> Result<Self, KeyStoreError> {
        let files = FileStore::open(key_dir)?;
        let mut libraries = vec![];
        let token = |uri| files.token(uri, &mut libraries);
        let tokens = files.tokens.iter().map(token).collect();
        let makes_in = files
            .makes_in
            .as_ref()
            .and_then(|uri| files.tokens.iter().position(|known| known == uri));
        Ok(Self {
            files,
            tokens,
            makes_in,
        })
    }

    /// The cluster whose keys these are.
    pub fn cluster(&self) -> &ClusterName {
        self.files.cluster()
    }
}

impl KeyStore for Stores {
    fn make(&self, purpose: &KeyPurpose) -> Result<(AuthorityId, Arc<dyn CaSigner>), KeyStoreError> {
        match self.makes_in {
            None => self.files.make(purpose),
            Some(at) => Ok(self.tokens[at].make(purpose)?),
        }
    }

    fn signer(&self, id: &AuthorityId) -> Result<Arc<dyn CaSigner>, KeyStoreError> {
        let unknown = match self.files.signer(id) {
            Err(error @ KeyStoreError::Unknown(_)) => error,
            found => return found,
        };
        let mut away = None;
        for token in &self.tokens {
            match token.signer(id) {
                Ok(Some(signer)) => return Ok(signer),
                Ok(None) => {}
                Err(error) => away = Some(error),
            }
        }
        Err(away.map_or(unknown, KeyStoreError::from))
    }

    /// What is in a token that is away is not told: nothing is destroyed that is not seen.
    fn keys(&self) -> Result<Vec<(AuthorityId, KeyPurpose)>, KeyStoreError> {
        let mut keys = self.files.keys()?;
        for token in &self.tokens {
            match token.keys() {
                Ok(found) => keys.extend(found),
                Err(error) => {
                    tracing::warn!(error = %crate::service::chain(&error), "a token was passed over")
                }
            }
        }
        keys.sort_by_key(|(id, _)| *id);
        Ok(keys)
    }

    /// Whoever held it must say that it is gone; who cannot be asked may hold it, unless another one did.
    fn destroy(&self, id: &AuthorityId) -> Result<Vec<String>, KeyStoreError> {
        let was_in_files = self.files.holds(id);
        let mut confirmed = self.files.destroy(id)?;
        let (mut was_in_token, mut away) = (false, None);
        for token in &self.tokens {
            match token.destroy(id) {
                Ok(was_there) => {
                    was_in_token |= was_there;
                    confirmed.push(format!("pkcs11:{}", token.uri().token));
                }
                Err(error) => away = Some(error),
            }
        }
        match away {
            Some(error) if !was_in_files && !was_in_token => Err(error.into()),
            _ => Ok(confirmed),
        }
    }

    fn bundle_key(&self) -> Result<KeyPair, KeyStoreError> {
        self.files.bundle_key()
    }
}
