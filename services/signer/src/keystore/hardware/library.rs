//! A vendor's library: loaded and initialised once for all tokens behind it, and ended when something fails.
//!
//! PKCS#11 forbids to end a library while somebody is in a call of it, and after an end it gives old session numbers out
//! again. So everything that belongs to one opening stands here together, and whoever makes a call holds a read lock.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    object::ObjectHandle,
    session::Session,
};

use super::token::{HardwareError, said};

/// Sessions of one token that wait for their next use; more at once are opened and closed again.
const IDLE_SESSIONS: usize = 4;

/// A library, open or not.
pub struct Library {
    path: PathBuf,
    open: RwLock<Option<Loaded>>,
    epochs: AtomicU64,
}

/// One opening of it.
pub(super) struct Loaded {
    pub(super) module: Pkcs11,
    /// Sessions that nobody uses, by token.
    idle: Mutex<HashMap<String, Vec<Seat>>>,
    /// Whoever fails ends the opening that he has used, and no later one.
    epoch: u64,
    /// Somebody else in this process has opened it before, and ends it.
    is_borrowed: bool,
}

/// A session, logged in, and where it found keys before.
pub(super) struct Seat {
    pub(super) session: Session,
    pub(super) handles: HashMap<Vec<u8>, ObjectHandle>,
}

impl Library {
    /// The library in this file. Nothing is loaded yet.
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            open: RwLock::default(),
            epochs: AtomicU64::default(),
        }
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Does something with it; after a failure it is ended, and loaded anew by whoever comes next.
    pub(super) fn with<T>(
        &self,
        act: impl FnOnce(&Loaded) -> Result<T, HardwareError>,
    ) -> Result<T, HardwareError> {
        let (failed, epoch) = loop {
            let guard = self.open.read().unwrap_or_else(PoisonError::into_inner);
            let Some(loaded) = &*guard else {
                drop(guard);
                self.load()?;
                continue;
            };
            match act(loaded) {
                Ok(done) => return Ok(done),
                Err(error) => break (error, loaded.epoch),
            }
        };
        self.end(Some(epoch));
        Err(failed)
    }

    /// Ends it, or this opening of it, once nobody uses it any more.
    pub(super) fn end(&self, epoch: Option<u64>) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let ended = open.take_if(|loaded| epoch.is_none_or(|epoch| loaded.epoch == epoch));
        if let Some(Loaded {
            module,
            idle,
            is_borrowed,
            ..
        }) = ended
        {
            // Sessions first: afterwards their numbers are somebody else's.
            drop(idle);
            if !is_borrowed {
                let _ = module.finalize();
            }
        }
    }

    fn load(&self) -> Result<(), HardwareError> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.is_some() {
            return Ok(());
        }
        let failed = |error: Error| HardwareError::Module {
            module: self.path.display().to_string(),
            why: said(&error),
        };
        let module = Pkcs11::new(&self.path).map_err(failed)?;
        let is_borrowed = match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(()) => false,
            Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => true,
            Err(error) => return Err(failed(error)),
        };
        *open = Some(Loaded {
            module,
            idle: Mutex::default(),
            epoch: self.epochs.fetch_add(1, Ordering::Relaxed),
            is_borrowed,
        });
        Ok(())
    }
}

impl Loaded {
    /// A session of the token that nobody uses.
    pub(super) fn idle(&self, token: &str) -> Option<Seat> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.get_mut(token)?.pop()
    }

    /// Keeps a session for whoever comes next.
    pub(super) fn give_back(&self, token: &str, seat: Seat) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let seats = idle.entry(token.to_owned()).or_default();
        if seats.len() < IDLE_SESSIONS {
            seats.push(seat);
        }
    }
}
