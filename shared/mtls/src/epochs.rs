//! The current epoch, shared by everyone who accepts or dials.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::{epoch::TrustEpoch, registry::SessionRegistry};

/// A handle on the current epoch; clones share it. Readers never wait.
#[derive(Clone, Debug)]
pub struct Epochs {
    current: Arc<ArcSwap<TrustEpoch>>,
    /// Counts changes; receivers see the newest count, so nothing piles up.
    changes: Arc<watch::Sender<u64>>,
}

impl Epochs {
    /// Begins with this epoch.
    pub fn new(epoch: Arc<TrustEpoch>) -> Self {
        Self {
            current: Arc::new(ArcSwap::new(epoch)),
            changes: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The epoch of this moment. Load it anew for every handshake.
    pub fn load(&self) -> Arc<TrustEpoch> {
        self.current.load_full()
    }

    /// Puts a new epoch in force for handshakes that begin from now on. Sessions that stand are only
    /// looked at by [`SessionRegistry::close_untrusted`]; [`Epochs::install`] does both.
    pub fn store(&self, epoch: Arc<TrustEpoch>) {
        self.current.store(epoch);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Puts a new epoch in force and closes every session that it no longer accepts; returns how many.
    ///
    /// Store before scan: a handshake under the old epoch is registered either before the scan, which
    /// then finds it, or after it, and then checks itself against the new epoch.
    pub fn install(&self, epoch: Arc<TrustEpoch>, sessions: &SessionRegistry) -> usize {
        self.store(epoch.clone());
        sessions.close_untrusted(&epoch)
    }

    /// Changes when the epoch does.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
