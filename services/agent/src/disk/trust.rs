//! What a node has been told: the newest trust bundle of each type and the newest desired state.
//!
//! The two are one decision in two kinds of file. Bundles are written first: a crash in between leaves
//! bundles that are newer than the desired state, and an installed bundle *is* the newest desired state of
//! its type, so the next start derives the row from it. The other way round there would be a row that
//! nobody has signed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use domain::{
    AuthorityType, DesiredState, Timestamp,
    access::Uses,
    desired::DesiredAuthority,
    reconcile::{accepts_revision, desired_of_bundle},
    trust::{Bundle, SignedBundle},
};
use pki::{BundleError, CaCert};
use runtime::harden;
use serde::{Deserialize, Serialize};

use super::{DataDir, DiskError, FORMAT_VERSION, Identity, io_error, read_json, write_json};

/// A bundle that verified, with the document that it came in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verified {
    /// As it travelled, to be kept.
    pub signed: SignedBundle,
    /// Its content.
    pub bundle: Bundle,
}

/// What a node has been told, all of it verified.
#[derive(Clone, PartialEq, Debug)]
pub struct Told {
    /// The newest bundle of each type.
    pub bundles: BTreeMap<AuthorityType, Verified>,
    /// The desired state that follows from them and from what a gateway said.
    pub desired: DesiredState,
}

/// Why something that a gateway sent was not taken. What is installed stays.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// A bundle that does not verify.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// An older document than the installed one: replayed by a slow gateway or by a thief.
    #[error(
        "the {authority_type} trust bundle of position {offered} is older than the installed one of {installed}"
    )]
    Older {
        /// Which type.
        authority_type: AuthorityType,
        /// The position that it describes.
        offered: domain::Position,
        /// The position that is installed.
        installed: domain::Position,
    },
    /// A row that its bundle does not sign.
    #[error(
        "the desired state of {authority_type} does not agree with the signed bundle; nothing of it was applied"
    )]
    Disagrees {
        /// Which type.
        authority_type: AuthorityType,
    },
    /// A row without a bundle that would vouch for it.
    #[error(
        "the desired state names {authority_type} at position {revision}, but no bundle of that position came with it"
    )]
    Unsigned {
        /// Which type.
        authority_type: AuthorityType,
        /// The position that it names.
        revision: domain::Position,
    },
}

#[derive(Serialize, Deserialize)]
struct DesiredFile {
    version: u32,
    desired: DesiredState,
}

#[derive(Serialize, Deserialize)]
struct BundleFile {
    version: u32,
    signed: SignedBundle,
}

impl Told {
    /// What was told together, for the first time or again: all of it verifies and fits, or nothing is taken.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn offered(
        before: Option<&Self>,
        identity: &Identity,
        desired: &DesiredState,
        bundles: &BTreeMap<AuthorityType, SignedBundle>,
        now: Timestamp,
    ) -> Result<Self, NotTaken> {
        let mut told = before.cloned().unwrap_or_else(|| Self::nothing(desired));
        // A bundle comes with its row. One that comes alone is genuine and yet not for this node to say: after the next
        // start it would be a row, of a type that was perhaps never granted.
        for (authority_type, signed) in bundles
            .iter()
            .filter(|(t, _)| desired.authorities.contains_key(t))
        {
            told.take_bundle(identity, *authority_type, signed, now)?;
        }
        let mut authorities = told.desired.authorities.clone();
        for (authority_type, row) in &desired.authorities {
            let held = told
                .bundles
                .get(authority_type)
                .filter(|held| held.bundle.revision >= row.revision);
            let Some(held) = held else {
                return Err(NotTaken::Unsigned {
                    authority_type: *authority_type,
                    revision: row.revision,
                });
            };
            let signed_row = desired_of_bundle(&held.bundle, row.uses, Some(row));
            if held.bundle.revision == row.revision && !agree(&signed_row, row) {
                return Err(NotTaken::Disagrees {
                    authority_type: *authority_type,
                });
            }
            authorities.insert(
                *authority_type,
                DesiredAuthority {
                    started: row.started,
                    ..signed_row
                },
            );
        }
        // A type that is not named keeps what it has: its bundle may not be signed yet.
        told.desired = DesiredState {
            authorities,
            ..desired.clone()
        };
        Ok(told)
    }

    /// One bundle that was fetched without a desired state: it is the newest row of its type.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn with_bundle(
        &self,
        identity: &Identity,
        authority_type: AuthorityType,
        signed: &SignedBundle,
        now: Timestamp,
    ) -> Result<Self, NotTaken> {
        let mut told = self.clone();
        told.take_bundle(identity, authority_type, signed, now)?;
        told.derive_rows();
        Ok(told)
    }

    /// The authorities of the newest bundle of `host`.
    pub fn host_authorities(&self) -> Vec<CaCert> {
        let held = self.bundles.get(&AuthorityType::Host);
        held.into_iter()
            .flat_map(|held| pki::bundle::authorities(&held.bundle))
            .collect()
    }

    /// What is left of it under another grant, which names these types.
    #[must_use]
    pub fn narrowed(&self, granted: &BTreeSet<AuthorityType>) -> Self {
        let mut told = self.clone();
        told.bundles.retain(|t, _| granted.contains(t));
        told.desired.authorities.retain(|t, _| granted.contains(t));
        told
    }

    /// Would a start that finds these bundles above the desired state of `before` come to the same? Then that
    /// need not be written: in most steps of a rotation the signed bundle says it all.
    fn follows_from(&self, before: &Self) -> bool {
        let mut derived = Self {
            bundles: self.bundles.clone(),
            desired: before.desired.clone(),
        };
        derived.derive_rows();
        let is_same = |(t, row): (&AuthorityType, &DesiredAuthority)| {
            let found = derived.desired.authorities.get(t);
            found.is_some_and(|found| {
                DesiredAuthority {
                    started: row.started,
                    ..found.clone()
                } == *row
            })
        };
        let (ours, theirs) = (&self.desired, &derived.desired);
        ours.names == theirs.names
            && ours.drain_timeout_ms == theirs.drain_timeout_ms
            && ours.node_ttl_ms == theirs.node_ttl_ms
            && ours.authorities.len() == theirs.authorities.len()
            && ours.authorities.iter().all(is_same)
    }

    fn nothing(desired: &DesiredState) -> Self {
        Self {
            bundles: BTreeMap::new(),
            desired: DesiredState {
                authorities: BTreeMap::new(),
                ..desired.clone()
            },
        }
    }

    fn take_bundle(
        &mut self,
        identity: &Identity,
        authority_type: AuthorityType,
        signed: &SignedBundle,
        now: Timestamp,
    ) -> Result<(), NotTaken> {
        if self
            .bundles
            .get(&authority_type)
            .is_some_and(|held| held.signed == *signed)
        {
            return Ok(());
        }
        let bundle = pki::bundle::verify(
            signed,
            &identity.bundle_pin,
            now,
            Some(&identity.cluster),
            authority_type,
        )?;
        let installed = self.bundles.get(&authority_type).map(|held| held.bundle.revision);
        if !accepts_revision(installed, bundle.revision) {
            return Err(NotTaken::Older {
                authority_type,
                offered: bundle.revision,
                installed: installed.unwrap_or_default(),
            });
        }
        self.bundles.insert(
            authority_type,
            Verified {
                signed: signed.clone(),
                bundle,
            },
        );
        Ok(())
    }

    /// Where a bundle is newer than the row of its type, the row is the bundle's.
    fn derive_rows(&mut self) {
        for (authority_type, held) in &self.bundles {
            let row = self.desired.authorities.get(authority_type);
            if row.is_none_or(|row| row.revision < held.bundle.revision) {
                let uses = row.map_or_else(|| Uses::usual(*authority_type), |row| row.uses);
                let row = desired_of_bundle(&held.bundle, uses, row);
                self.desired.position = self.desired.position.max(row.revision);
                self.desired.authorities.insert(*authority_type, row);
            }
        }
    }
}

/// Does the row say what the signed one says? `started` is for people and stands in no bundle; gateways of before sshd had
/// its own name no authority for it.
fn agree(signed: &DesiredAuthority, row: &DesiredAuthority) -> bool {
    let comparable = |row: &DesiredAuthority| DesiredAuthority {
        started: None,
        excluded_peers: Default::default(),
        ssh_issuer: None,
        ..row.clone()
    };
    comparable(signed) == comparable(row)
}

impl DataDir {
    /// What was told before this start, verified again: somebody else may have written these files.
    ///
    /// Expired bundles count (an installed one stays). None before the first join.
    ///
    /// # Errors
    /// [`DiskError`]: a file that cannot be read, is newer, or does not verify.
    pub fn told(&self, identity: &Identity) -> Result<Option<Told>, DiskError> {
        let path = self.root.join("desired.json");
        let Some(DesiredFile { desired, .. }) = read_json(&path)? else {
            return Ok(None);
        };
        let mut told = Told {
            bundles: BTreeMap::new(),
            desired,
        };
        for authority_type in AuthorityType::all() {
            let path = self.bundle_path(authority_type);
            let Some(BundleFile { signed, .. }) = read_json(&path)? else {
                continue;
            };
            let pin = &identity.bundle_pin;
            let bundle = pki::bundle::verify_unexpired(&signed, pin, Some(&identity.cluster), authority_type)
                .map_err(|e| DiskError::Damaged {
                    path: path.clone(),
                    why: e.to_string(),
                })?;
            told.bundles.insert(authority_type, Verified { signed, bundle });
        }
        told.derive_rows();
        Ok(Some(told))
    }

    /// Keeps what was told, durably: bundles first. `before` spares files that are the same.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn keep_told(&self, told: &Told, before: Option<&Told>) -> Result<(), DiskError> {
        if self.is_nowhere() {
            return Ok(());
        }
        for (authority_type, held) in &told.bundles {
            let is_kept = before
                .and_then(|b| b.bundles.get(authority_type))
                .is_some_and(|b| b.signed == held.signed);
            if !is_kept {
                let file = BundleFile {
                    version: FORMAT_VERSION,
                    signed: held.signed.clone(),
                };
                write_json(&self.bundle_path(*authority_type), &file)?;
            }
        }
        // Crash point: the next start finds newer bundles under the desired state of before, and takes the
        // rows of these types from the bundles.
        if before.is_none_or(|before| !told.follows_from(before)) {
            let file = DesiredFile {
                version: FORMAT_VERSION,
                desired: told.desired.clone(),
            };
            write_json(&self.root.join("desired.json"), &file)?;
        }
        // Crash point: a bundle of a type that is not granted any more brings its row back at the next start, which
        // finds the rejoin that took it in its kept request and narrows again.
        let gone = before.into_iter().flat_map(|b| b.bundles.keys());
        self.forget_bundles(gone.filter(|t| !told.bundles.contains_key(t)))
    }

    /// Removes the bundles of these types, durably.
    fn forget_bundles<'a>(&self, types: impl Iterator<Item = &'a AuthorityType>) -> Result<(), DiskError> {
        let mut is_changed = false;
        for authority_type in types {
            is_changed |= remove(&self.bundle_path(*authority_type))?;
        }
        let dir = self.root.join("bundles");
        if is_changed {
            harden::sync_dir(&dir).map_err(|e| io_error("synced", &dir, e))?;
        }
        Ok(())
    }

    /// Forgets what was told: before a first join, where a directory may hold the remains of another one.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn forget_told(&self) -> Result<(), DiskError> {
        if self.is_nowhere() {
            return Ok(());
        }
        let bundles = AuthorityType::all().map(|t| self.bundle_path(t));
        for path in bundles.chain([self.root.join("desired.json")]) {
            remove(&path)?;
        }
        Ok(())
    }

    fn bundle_path(&self, authority_type: AuthorityType) -> std::path::PathBuf {
        self.root.join("bundles").join(format!("{authority_type}.json"))
    }
}

/// Removes a file. True if it was there.
fn remove(path: &std::path::Path) -> Result<bool, DiskError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(io_error("removed", path, e)),
    }
}
