//! The authorities that this signer can sign with: certificates from the log, keys from the store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use domain::{
    AuthorityId,
    authority::{AuthorityKey, KeyKind},
};
use pki::{CaCert, CaSigner, CertificateError};

use crate::keystore::{KeyStore, KeyStoreError};

/// An authority, ready to sign.
pub(crate) struct Authority {
    /// None for kinds that have none.
    pub(crate) certificate: Option<CaCert>,
    pub(crate) signer: Arc<dyn CaSigner>,
}

/// Opened authorities. Opening costs a file and two decryptions; a rotation signs thousands of times.
pub(crate) struct Authorities {
    store: Arc<dyn KeyStore>,
    opened: Mutex<HashMap<AuthorityId, Arc<Authority>>>,
}

/// Why an authority cannot sign. The authorisations wait: this is ours to mend, not theirs to pay for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    #[error("the log's certificate of the authority {0} is not acceptable; run `carousel audit verify`")]
    Certificate(AuthorityId, #[source] CertificateError),
}

impl Authorities {
    pub(crate) fn new(store: Arc<dyn KeyStore>) -> Self {
        Self {
            store,
            opened: Mutex::default(),
        }
    }

    pub(crate) fn store(&self) -> &Arc<dyn KeyStore> {
        &self.store
    }

    /// Opens the key of an authority that the log names. Blocking at the first time.
    pub(crate) fn open(&self, key: &AuthorityKey) -> Result<Arc<Authority>, OpenError> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = opened.get(&key.id) {
            return Ok(found.clone());
        }
        let certificate = match key.kind {
            KeyKind::Tls => {
                let read = CaCert::from_base64(&key.certificate);
                Some(read.map_err(|error| OpenError::Certificate(key.id, error))?)
            }
            KeyKind::Ssh | KeyKind::Jwt => None,
        };
        let authority = Arc::new(Authority {
            certificate,
            signer: self.store.signer(&key.id)?,
        });
        opened.insert(key.id, authority.clone());
        Ok(authority)
    }

    /// Forgets the key in memory before it is destroyed in the store.
    pub(crate) fn forget(&self, id: &AuthorityId) {
        self.opened
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id);
    }
}
