//! A data directory without a disk: for agents that live no longer than their process.
//!
//! The agent's loop holds everything that it works with, and reads its directory at a start alone. Of what it keeps
//! there one thing is read within its life: the request that it joined with.

use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::SpkiPin;

use super::{DataDir, requests::Request};

/// What is kept in memory instead of files.
#[derive(Default)]
pub(super) struct Bare {
    pub(super) requests: Vec<Request>,
    /// The number of the last generation.
    pub(super) generation: u64,
}

impl DataDir {
    /// A directory that is nowhere and forgets everything when it is dropped.
    pub(crate) fn nowhere() -> Self {
        Self {
            root: Default::default(),
            _lock: None,
            bare: Some(Mutex::default()),
        }
    }

    /// Is there no disk under it?
    pub(crate) fn is_nowhere(&self) -> bool {
        self.bare.is_some()
    }

    pub(super) fn bare(&self) -> Option<MutexGuard<'_, Bare>> {
        // Each change is one call: what is held is whole, whatever panicked elsewhere.
        let bare = self.bare.as_ref()?;
        Some(bare.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Bare {
    pub(super) fn keep(&mut self, request: &Request) {
        self.forget(&request.spki);
        self.requests.push(request.clone());
    }

    pub(super) fn forget(&mut self, spki: &SpkiPin) {
        self.requests.retain(|kept| kept.spki != *spki);
    }
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bare({} requests)", self.requests.len())
    }
}
