//! The signer: the only holder of authorities' keys. It signs what the log has authorised, and nothing else.
//!
//! It decides nothing. What it owes follows from the log ([`domain::duty`]); what it did is in the log before
//! it leaves ([`execution::FactWriter`]). Started anew, it owes what it owed, and does it.
//!
//! ```text
//! carousel init:   found(key_dir, &Founding) -> Result<Founded, FoundingError>       blocking; key_dir = D/keys
//! first serve:     load_genesis(key_dir) -> Result<Genesis, GenesisFileError>
//!                  executor.execute(Command { order: first_order(genesis), principal: System(Host), .. })
//! every serve:     Signer::open(Config { key_dir, .. }, fold, now, ..).await?.run(shutdown).await
//! ```
//!
//! - [`keystore`]: sealed files, and PKCS#11 tokens;
//! - [`founding`]: the genesis;
//! - [`Signer`]: duties, one after the other, certificates in batches;
//! - [`recheck`]: the signer's own judgement of an authorisation;
//! - [`Checkpoints`]: what it remembers of the log, to refuse one that was changed.

pub mod founding;
pub mod kek;
pub mod keystore;
pub mod recheck;

mod authorities;
mod bundles;
mod checkpoints;
mod duties;
mod service;
mod signing;

pub use checkpoints::{CheckpointError, Checkpoints};
pub use founding::{
    Credentials, Founded, Founding, FoundingError, abandon, first_order, found, load_genesis,
};
pub use kek::{KekError, KekSource};
pub use keystore::{FileStore, KeyPlace, KeyStore, KeyStoreError, TokenUriError, make_keys_in};
pub use service::{Config, Signer, SignerError};

#[cfg(test)]
mod testing;
