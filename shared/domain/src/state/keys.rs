//! What the keys of one type are to the row: who signs, who is trusted, who retires, what is still to be made, and which
//! consumer is waited for.

use std::collections::BTreeSet;

use super::{Consumer, RowStamp, TypeState};
use crate::{
    authority::{AuthorityKey, KeyKind},
    command::Expectation,
    id::{AuthorityId, RotationId, SpkiPin},
    phase::{Generation, Phase},
};

impl TypeState {
    /// The key of a kind and generation; the active one stands in for a prepared one that is not made yet.
    pub fn key(&self, kind: KeyKind, generation: Generation) -> Option<&AuthorityKey> {
        let active = self.active.get(&kind);
        match generation {
            Generation::Active => active,
            Generation::Prepared => self.prepared.get(&kind).or(active),
        }
    }

    /// The TLS key of a generation.
    pub fn tls(&self, generation: Generation) -> Option<&AuthorityKey> {
        self.key(KeyKind::Tls, generation)
    }

    /// The authorities that the current row trusts, as nodes report it: the X.509 ones, which a node installs together with the
    /// type's other keys; of a type that has none, those others.
    pub fn trusted(&self) -> BTreeSet<SpkiPin> {
        self.trusted_of(self.living())
    }

    /// The active ones of them.
    pub fn trusted_active(&self) -> BTreeSet<SpkiPin> {
        self.trusted_of(self.active.values())
    }

    fn trusted_of<'a>(&self, keys: impl Iterator<Item = &'a AuthorityKey>) -> BTreeSet<SpkiPin> {
        let has_tls = self.active.contains_key(&KeyKind::Tls);
        keys.filter(|key| !has_tls || key.kind == KeyKind::Tls)
            .map(|key| key.id)
            .collect()
    }

    /// The issuer of client certificates in the current row.
    pub fn client_issuer(&self) -> Option<SpkiPin> {
        self.tls(self.phase.row().client).map(|k| k.id)
    }

    /// The issuer of server certificates in the current row.
    pub fn server_issuer(&self) -> Option<SpkiPin> {
        self.tls(self.phase.row().server).map(|k| k.id)
    }

    /// The issuer of hosts' SSH certificates in the current row.
    pub fn ssh_issuer(&self) -> Option<SpkiPin> {
        self.row(KeyKind::Ssh).server
    }

    /// The current row, for one kind of key.
    pub fn row(&self, kind: KeyKind) -> RowStamp {
        let (row, id) = (self.phase.row(), |of| self.key(kind, of).map(|key| key.id));
        RowStamp {
            phase: self.phase,
            rotation: self.rotation_id(),
            client: id(row.client),
            server: id(row.server),
        }
    }

    /// The active keys, then the prepared ones.
    pub fn living(&self) -> impl Iterator<Item = &AuthorityKey> {
        self.active.values().chain(self.prepared.values())
    }

    /// All keys that there ever were: the living ones, then those that sign nothing any more, the oldest first.
    pub fn ever(&self) -> impl Iterator<Item = &AuthorityKey> {
        self.living()
            .chain(self.retired.iter().map(|retired| &retired.key))
    }

    /// The active or prepared key with this id.
    pub fn live(&self, authority: AuthorityId) -> Option<&AuthorityKey> {
        self.living().find(|key| key.id == authority)
    }

    /// The key with this id, also one that signs nothing any more.
    pub fn known(&self, authority: AuthorityId) -> Option<&AuthorityKey> {
        self.ever().find(|key| key.id == authority)
    }

    /// The authority that the rotation is retiring: the active one on the way forward, the prepared
    /// one on the way back; none while idle.
    pub fn retiring(&self) -> Option<&AuthorityKey> {
        self.rotation.as_ref()?;
        match self.phase {
            Phase::Rollback => self.prepared.get(&KeyKind::Tls),
            Phase::Standby => None,
            Phase::Init | Phase::UpdateClients | Phase::UpdateServers => self.active.get(&KeyKind::Tls),
        }
    }

    /// The same of every kind of key.
    pub fn retiring_of_each_kind(&self) -> BTreeSet<AuthorityId> {
        let keys = match self.phase {
            _ if self.rotation.is_none() => return BTreeSet::new(),
            Phase::Standby => return BTreeSet::new(),
            Phase::Rollback => &self.prepared,
            Phase::Init | Phase::UpdateClients | Phase::UpdateServers => &self.active,
        };
        keys.values().map(|key| key.id).collect()
    }

    /// Does the type have keys in this cluster? One that was begun by an older version may not have them all.
    pub fn is_in_service(&self) -> bool {
        !self.active.is_empty()
    }

    /// The kinds whose new keys a rotation still waits for: it replaces those that there are.
    pub fn keys_missing(&self) -> impl Iterator<Item = KeyKind> {
        let active = self.active.keys().copied();
        active.filter(|kind| !self.prepared.contains_key(kind))
    }

    /// The generation that signs; 0 before there is one.
    pub fn generation(&self) -> u32 {
        self.active.values().map(|key| key.generation).max().unwrap_or(0)
    }

    /// The generation of keys that are prepared, or will be next: one for all kinds of a rotation.
    pub fn next_generation(&self) -> u32 {
        let prepared = self.prepared.values().map(|key| key.generation).max();
        prepared.unwrap_or(self.newest_generation.saturating_add(1))
    }

    /// The rotation's id while one is in progress.
    pub fn rotation_id(&self) -> Option<RotationId> {
        self.rotation.as_ref().map(|r| r.id)
    }

    /// The rotation and phase, for an order that holds for these alone.
    pub fn expectation(&self) -> Expectation {
        Expectation {
            rotation: self.rotation_id(),
            phase: self.phase,
        }
    }

    /// Is the next step one forward that this consumer has not attested for yet?
    pub fn waits_for(&self, consumer: &Consumer) -> bool {
        let is_forward = match self.phase {
            Phase::Init | Phase::UpdateClients | Phase::UpdateServers => true,
            Phase::Standby | Phase::Rollback => false,
        };
        is_forward && consumer.attested != self.rotation_id().map(|id| (id, self.phase))
    }

    /// Are the new keys of every kind in the log?
    pub fn prepared_is_complete(&self) -> bool {
        self.keys_missing().next().is_none()
    }
}
