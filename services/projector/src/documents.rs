//! The documents: computed from the state, and written together with the mark of the log that they show.

use std::collections::{BTreeMap, BTreeSet};

use api::shape::{RotationDoc, Status};
use domain::{ClusterState, Event, NodeId, Principal, RotationId};
use execution::Fold;
use views::{Batch, Mark, ViewError, ViewStore};

use crate::{ProjectorError, history, shape, touched::Gathered};

/// The most documents that are computed under one lock of the state: about a millisecond's work.
const SLICE: usize = 64;
/// Nodes or holders whose documents are written together.
const PART: usize = 2_048;

/// Blocking. The documents are computed under the state's lock, a slice at a time, and written without it: whoever
/// decides or folds waits for no fleet. Each is at or after the events, the status after all others.
///
/// A part at a time: a fleet's documents do not lie in memory at once. Only the last part moves the mark; a crash before
/// it leaves some documents newer than the mark, as they may be anyway, and they are written again.
pub(crate) fn write(fold: &Fold, store: &ViewStore, gathered: Gathered) -> Result<Status, ProjectorError> {
    let Gathered {
        mut touched,
        rotations,
        mark,
        ..
    } = gathered;
    if touched.all_nodes {
        fold.read(|state| touched.nodes.extend(state.nodes.keys()));
    }
    write_nodes(fold, store, touched.nodes)?;
    in_parts(store, touched.holders, |batch, part| {
        put_certificates(batch, fold, store, part)
    })?;
    let mut batch = Batch::new();
    put_rotations(&mut batch, store, rotations.iter().map(|event| &**event))?;
    if touched.lists {
        put_lists(&mut batch, fold);
    }
    let status = put_status(&mut batch, fold);
    store.apply(batch, &mark)?;
    Ok(status)
}

/// Writes what is made of these, [`PART`] at a time.
fn in_parts<K: Ord>(
    store: &ViewStore,
    keys: impl IntoIterator<Item = K>,
    put: impl Fn(&mut Batch, BTreeSet<K>) -> Result<(), ViewError>,
) -> Result<(), ViewError> {
    let mut keys = keys.into_iter();
    loop {
        let part: BTreeSet<K> = keys.by_ref().take(PART).collect();
        if part.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        put(&mut batch, part)?;
        store.fill(batch)?;
    }
}

fn write_nodes(
    fold: &Fold,
    store: &ViewStore,
    nodes: impl IntoIterator<Item = NodeId>,
) -> Result<(), ViewError> {
    in_parts(store, nodes, |batch, part| {
        put_nodes(batch, fold, part);
        Ok(())
    })
}

/// Blocking. The documents of every node, for views that hold none.
pub(crate) fn all_nodes(fold: &Fold, store: &ViewStore) -> Result<(), ViewError> {
    let nodes: Vec<NodeId> = fold.read(|state| state.nodes.keys().copied().collect());
    write_nodes(fold, store, nodes)
}

/// Blocking. The documents of every certificate, for views that hold none.
pub(crate) fn all_certificates(fold: &Fold, store: &ViewStore) -> Result<(), ViewError> {
    let holders: Vec<Principal> = fold.read(|state| state.held.keys().cloned().collect());
    in_parts(store, holders, |batch, part| {
        for (holder, docs) in sliced(fold, part, shape::certificates_of) {
            for doc in docs {
                batch.put(key::certificate(&holder, doc.position), &doc);
            }
        }
        Ok(())
    })
}

/// Blocking. The rest of the documents and the mark, once all others are written.
pub(crate) fn finish(
    fold: &Fold,
    store: &ViewStore,
    rotations: &[Event],
    mark: &Mark,
) -> Result<Status, ProjectorError> {
    let mut batch = Batch::new();
    put_rotations(&mut batch, store, rotations.iter())?;
    put_lists(&mut batch, fold);
    let status = put_status(&mut batch, fold);
    store.apply(batch, mark)?;
    Ok(status)
}

fn put_status(batch: &mut Batch, fold: &Fold) -> Status {
    let (consumers, status) = fold.read(|state| (shape::consumers(state), shape::status(state)));
    batch.put(key::CONSUMERS, &consumers);
    batch.put(key::STATUS, &status);
    status
}

fn put_lists(batch: &mut Batch, fold: &Fold) {
    let lists = |state: &ClusterState| {
        (
            shape::authorities(state),
            shape::tokens(state, state.time),
            shape::users(state),
        )
    };
    let (authorities, tokens, users) = fold.read(lists);
    batch.put(key::AUTHORITIES, &authorities);
    batch.put(key::TOKENS, &tokens);
    batch.put(key::USERS, &users);
}

fn put_nodes(batch: &mut Batch, fold: &Fold, nodes: BTreeSet<NodeId>) {
    for (id, doc) in sliced(fold, nodes, |state, id| {
        state.nodes.get(id).map(|node| shape::node(state, node))
    }) {
        match doc {
            Some(doc) => batch.put(key::node(&id), &doc),
            None => batch.remove(key::node(&id)),
        }
    }
}

/// What the state says of each, with the lock taken anew for every slice.
fn sliced<K, D>(
    fold: &Fold,
    keys: BTreeSet<K>,
    look: impl Fn(&ClusterState, &K) -> D,
) -> impl Iterator<Item = (K, D)> {
    let mut keys = keys.into_iter();
    std::iter::from_fn(move || {
        let slice: Vec<K> = keys.by_ref().take(SLICE).collect();
        let of = |state: &ClusterState| -> Vec<(K, D)> {
            let of_one = |key| {
                let document = look(state, &key);
                (key, document)
            };
            slice.into_iter().map(of_one).collect()
        };
        Some(fold.read(of)).filter(|slice| !slice.is_empty())
    })
    .flatten()
}

/// A holder's certificates as a whole: what the state has forgotten goes, and of those that it has had for weeks none is
/// written again.
fn put_certificates(
    batch: &mut Batch,
    fold: &Fold,
    store: &ViewStore,
    holders: BTreeSet<Principal>,
) -> Result<(), ViewError> {
    for (holder, docs) in sliced(fold, holders, shape::certificates_of) {
        let docs = docs
            .into_iter()
            .map(|doc| (key::certificate(&holder, doc.position), doc));
        store.replace(batch, &key::certificates_of(&holder), docs)?;
    }
    Ok(())
}

fn put_rotations<'a>(
    batch: &mut Batch,
    store: &ViewStore,
    events: impl Iterator<Item = &'a Event>,
) -> Result<(), ViewError> {
    let mut docs: BTreeMap<RotationId, Option<RotationDoc>> = BTreeMap::new();
    for event in events {
        let Some(id) = history::rotation_of(event) else {
            continue;
        };
        let before = match docs.remove(&id) {
            Some(doc) => doc,
            None => store.get(&key::rotation(&id))?,
        };
        docs.insert(id, history::record(before, event));
    }
    for (id, doc) in docs {
        if let Some(doc) = doc {
            batch.put(key::rotation(&id), &doc);
        }
    }
    Ok(())
}

/// The keys of the documents.
pub(crate) mod key {
    use domain::{NodeId, Position, Principal, RotationId};

    pub(crate) const STATUS: &str = "status";
    pub(crate) const AUTHORITIES: &str = "authorities";
    pub(crate) const TOKENS: &str = "tokens";
    pub(crate) const USERS: &str = "users";
    pub(crate) const CONSUMERS: &str = "consumers";
    pub(crate) const NODES: &str = "node/";
    pub(crate) const ROTATIONS: &str = "rotation/";
    pub(crate) const CERTIFICATES: &str = "certificate/";

    pub(crate) fn node(id: &NodeId) -> String {
        format!("{NODES}{id}")
    }

    pub(crate) fn rotation(id: &RotationId) -> String {
        format!("{ROTATIONS}{id}")
    }

    /// Ends with a slash: `user/al` must not be the beginning of `user/alice`.
    pub(crate) fn certificates_of(holder: &Principal) -> String {
        format!("{CERTIFICATES}{holder}/")
    }

    pub(crate) fn certificate(holder: &Principal, position: Position) -> String {
        format!("{}{:020}", certificates_of(holder), position.0)
    }
}
