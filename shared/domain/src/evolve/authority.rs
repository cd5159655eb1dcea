//! Keys and bundles: what the signer wrote.

use crate::{
    event::{AuthorityBundleSigned, AuthorityDestroyed, AuthorityKeyGenerated, AuthorityRetired, Header},
    id::{Principal, SystemActor},
    phase::Phase,
    rules::{Rule, holds},
    state::{BundleHead, ClusterState, RetiredKey},
};

pub(super) fn key_generated(state: &mut ClusterState, header: &Header, f: &AuthorityKeyGenerated) {
    // A key that the log knows already is no new one: told again, it would be owed a destruction that it never earned.
    if state.keys.contains_key(&f.key.id) {
        return;
    }
    let mut key = f.key.clone();
    key.position = header.position;
    state.keys.insert(key.id, Principal::System(SystemActor::Signer));
    let of = state.types.entry(f.authority_type).or_default();
    of.newest_generation = of.newest_generation.max(key.generation);
    let in_time = key.rotation == of.rotation_id() && of.phase != Phase::Rollback;
    let is_late = match key.rotation {
        // A first key is one only where there is none: whoever writes another would replace the authority at will.
        None => of.active.contains_key(&key.kind),
        Some(_) => of.prepared.contains_key(&key.kind) || (!in_time && holds(Rule::LateKeyIsDestroyed)),
    };
    if is_late {
        // The rotation is over or rolling back, or was none: the key signs nothing, and is owed its end.
        let outcome = None;
        of.retired.push(RetiredKey {
            key,
            at: header.time,
            outcome,
            destroyed: false,
            recorded: true,
        });
        return;
    }
    // A first key waits for `authority.activated`, which stands in the same append.
    let keys = if key.rotation.is_none() {
        &mut of.active
    } else {
        of.prepared_at = Some(state.time);
        &mut of.prepared
    };
    keys.insert(key.kind, key);
    // The row changes with the key, like with a phase.
    of.row_position = header.position;
    of.bundle_due = header.position;
}

pub(super) fn retired(state: &mut ClusterState, f: &AuthorityRetired) {
    let of = state.types.entry(f.authority_type).or_default();
    for key in of.retired.iter_mut().filter(|r| r.key.id == f.authority) {
        key.recorded = true;
    }
}

pub(super) fn destroyed(state: &mut ClusterState, f: &AuthorityDestroyed) {
    let of = state.types.entry(f.authority_type).or_default();
    for key in of.retired.iter_mut().filter(|r| r.key.id == f.authority) {
        key.destroyed = true;
    }
}

pub(super) fn bundle_signed(state: &mut ClusterState, header: &Header, f: &AuthorityBundleSigned) {
    let of = state.types.entry(f.authority_type).or_default();
    if of.bundle.as_ref().is_none_or(|b| b.revision <= f.revision) {
        let was_signed = of.bundle.as_ref().is_some_and(|b| b.revision >= of.row_position);
        if !was_signed {
            of.row_signed = (f.revision >= of.row_position).then_some(header.time);
        }
        of.bundle = Some(BundleHead {
            revision: f.revision,
            position: header.position,
            phase: f.phase,
            signed: header.time,
            expires: f.expires,
            lists: f.revocation_lists.keys().copied().collect(),
        });
    }
}
