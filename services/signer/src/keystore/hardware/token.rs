//! One token: sessions in it, its PIN, and what is done again after it was away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use cryptoki::{
    error::{Error, RvError},
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};
use domain::plain;
use pki::sha256;
use runtime::harden::{self, SecretFileError};
use zeroize::Zeroizing;

use super::library::{Library, Loaded, Seat};
use crate::keystore::TokenUri;

/// No PIN is longer.
const MAX_PIN_BYTES: u64 = 4 * 1024;

/// Why the token did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HardwareError {
    /// The vendor's library does not load, or does not find what it needs.
    #[error("the PKCS#11 module {module} cannot be used ({why})")]
    Module {
        /// Its path.
        module: String,
        /// What it said.
        why: String,
    },
    /// There is no such token.
    #[error("the PKCS#11 token {0:?} is not there; connect it, or start what serves it")]
    Absent(String),
    /// The file with the PIN cannot be read, or others can read it.
    #[error("the PIN of the PKCS#11 token cannot be read")]
    Pin(#[from] SecretFileError),
    /// The PIN is wrong. It is not tried again: tokens lock themselves, some for good.
    #[error(
        "the PKCS#11 token {0:?} refused its PIN, which is not tried again; write the right one into the pin-source"
    )]
    PinRefused(String),
    /// A wrong PIN would lock the token, and nobody knows whether ours is right: a person must log in once.
    #[error(
        "the PKCS#11 token {0:?} allows one more attempt before it locks its PIN, or has locked it; log in to it by hand with \
         the right one, and write that into the pin-source"
    )]
    LastAttempt(String),
    /// The key is not in the token.
    #[error("the PKCS#11 token {0:?} does not hold the key")]
    NoKey(String),
    /// Whatever else it said.
    #[error("the PKCS#11 token {token:?} failed: {why}")]
    Failed {
        /// Its label.
        token: String,
        /// What it said.
        why: String,
    },
}

/// A token behind its library.
pub(super) struct Token {
    pub(super) uri: TokenUri,
    pub(super) library: Arc<Library>,
    /// SHA-256 of the PIN that was refused last.
    refused: Mutex<Option<[u8; 32]>>,
}

impl Token {
    /// Nothing is opened yet.
    pub(super) fn new(uri: TokenUri, library: Arc<Library>) -> Self {
        Self {
            uri,
            library,
            refused: Mutex::default(),
        }
    }

    /// Does something that may be done twice: what failed because the module had to be opened again is tried once more.
    pub(super) fn again<T>(
        &self,
        mut act: impl FnMut(&mut Seat) -> Result<T, Error>,
    ) -> Result<T, HardwareError> {
        match self.once(&mut act) {
            Err(HardwareError::Failed { .. }) => self.once(act),
            done => done,
        }
    }

    pub(super) fn once<T>(
        &self,
        act: impl FnOnce(&mut Seat) -> Result<T, Error>,
    ) -> Result<T, HardwareError> {
        let token = self.uri.to_string();
        self.library.with(|loaded| {
            let mut seat = match loaded.idle(&token) {
                Some(seat) => seat,
                None => self.seat(loaded)?,
            };
            let done = act(&mut seat).map_err(|error| self.failed(&error))?;
            loaded.give_back(&token, seat);
            Ok(done)
        })
    }

    /// A new session, logged in.
    fn seat(&self, loaded: &Loaded) -> Result<Seat, HardwareError> {
        let failed = |error: Error| self.failed(&error);
        let is_it = |slot: &Slot| {
            loaded.module.get_token_info(*slot).is_ok_and(|token| {
                let is_serial = |serial| token.serial_number() == serial;
                token.label() == self.uri.token && self.uri.serial.as_deref().is_none_or(is_serial)
            })
        };
        let slots = loaded.module.get_slots_with_token().map_err(failed)?;
        let slot = slots.into_iter().find(is_it);
        let slot = slot.ok_or_else(|| HardwareError::Absent(self.uri.token.clone()))?;
        // Each start of ours tries a wrong PIN once: a service manager would lock the token in a minute.
        let token = loaded.module.get_token_info(slot).map_err(failed)?;
        if token.user_pin_final_try() || token.user_pin_locked() {
            return Err(HardwareError::LastAttempt(self.uri.token.clone()));
        }
        let session = loaded.module.open_rw_session(slot).map_err(failed)?;
        self.log_in(&session)?;
        Ok(Seat {
            session,
            handles: HashMap::new(),
        })
    }

    fn log_in(&self, session: &Session) -> Result<(), HardwareError> {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let pin = Zeroizing::new(harden::read_owner_only(&self.uri.pin, MAX_PIN_BYTES)?);
        let digest = sha256(&pin);
        if *refused == Some(digest) {
            return Err(HardwareError::PinRefused(self.uri.token.clone()));
        }
        let pin = String::from_utf8_lossy(&pin);
        let pin = AuthPin::new(pin.trim_end_matches(['\r', '\n']).into());
        match session.login(UserType::User, Some(&pin)) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {
                *refused = None;
                Ok(())
            }
            Err(Error::Pkcs11(
                RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange | RvError::PinLocked,
                _,
            )) => {
                *refused = Some(digest);
                Err(HardwareError::PinRefused(self.uri.token.clone()))
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    pub(super) fn failed(&self, error: &Error) -> HardwareError {
        HardwareError::Failed {
            token: self.uri.token.clone(),
            why: said(error),
        }
    }
}

/// What PKCS#11 calls it: the prose that comes with its codes helps nobody.
pub(super) fn said(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, function) => format!("{function:?}: {code:?}"),
        other => plain(other),
    }
}
