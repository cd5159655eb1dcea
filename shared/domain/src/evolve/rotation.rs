//! Rotations: phases, and what the end of one does to the keys.

use std::collections::BTreeSet;

use crate::{
    authority::AuthorityType,
    command::Mode,
    event::{Header, RotationModeChanged, RotationOutcome, RotationPhaseEntered, RotationSettled},
    id::NodeId,
    phase::Phase,
    standing::Standing,
    state::{ClusterState, EndedRotation, RetiredKey, Rotation, TypeState},
    time::Timestamp,
};

pub(super) fn phase_entered(state: &mut ClusterState, header: &Header, f: &RotationPhaseEntered) {
    let cut_off = if f.outcome.is_some() {
        who_is_cut_off(state, f.authority_type)
    } else {
        BTreeSet::new()
    };
    let of = state.types.entry(f.authority_type).or_default();
    // Whoever an earlier rotation left behind and that has not been back is still left behind.
    let mut cut_off = cut_off;
    cut_off.extend(
        of.ended
            .iter()
            .filter(|_| f.outcome.is_some())
            .flat_map(|e| e.cut_off.iter().copied()),
    );
    // Every phase makes a new desired state and calls for new facts, even where the row is equal.
    of.row_position = header.position;
    of.bundle_due = header.position;
    of.phase_before = std::mem::replace(&mut of.phase, f.to);
    if let Some(outcome) = f.outcome {
        end(of, outcome, header.time);
        of.rotation = None;
        of.ended = Some(EndedRotation {
            id: f.rotation,
            outcome,
            at: header.time,
            settled: false,
            cut_off,
        });
    } else if let Some(rotation) = of.rotation.as_mut().filter(|_| f.from != Phase::Standby) {
        rotation.mode = f.mode;
        rotation.stepped = header.time;
        rotation.held = None;
    } else {
        of.rotation = Some(Rotation {
            id: f.rotation,
            started: header.time,
            mode: f.mode,
            grace_period_ms: f.grace_period_ms,
            on_lagging: f.on_lagging,
            stepped: header.time,
            held: None,
            excluded: BTreeSet::new(),
        });
    }
}

/// The keys at the end of a rotation: what signs no more is retired and owed its destruction.
fn end(of: &mut TypeState, outcome: RotationOutcome, at: Timestamp) {
    let prepared = std::mem::take(&mut of.prepared);
    of.prepared_at = None;
    let gone = match outcome {
        RotationOutcome::Completed => {
            of.last_rotated = Some(at);
            std::mem::replace(&mut of.active, prepared)
        }
        RotationOutcome::RolledBack => {
            of.last_rolled_back = Some(at);
            prepared
        }
    };
    of.retired.extend(gone.into_values().map(|key| RetiredKey {
        key,
        at,
        outcome: Some(outcome),
        destroyed: false,
        recorded: false,
    }));
}

/// Excluded nodes, and nodes that had not reached the last phase: they are cut off until they return.
fn who_is_cut_off(state: &ClusterState, t: AuthorityType) -> BTreeSet<NodeId> {
    let standing = state.standings.get(&t);
    standing.into_iter().flat_map(Standing::not_with_it).collect()
}

pub(super) fn held(state: &mut ClusterState, t: AuthorityType, since: Option<Timestamp>) {
    if let Some(rotation) = state.types.entry(t).or_default().rotation.as_mut() {
        rotation.held = since;
    }
}

pub(super) fn mode_changed(state: &mut ClusterState, f: &RotationModeChanged) {
    let of = state.types.entry(f.authority_type).or_default();
    if let Some(rotation) = of.rotation.as_mut().filter(|r| r.id == f.rotation) {
        rotation.mode = f.mode;
        if f.mode == Mode::Manual {
            rotation.held = None;
        }
    }
}

pub(super) fn settled(state: &mut ClusterState, f: &RotationSettled) {
    let of = state.types.entry(f.authority_type).or_default();
    if let Some(ended) = of.ended.as_mut().filter(|e| e.id == f.rotation) {
        ended.settled = true;
    }
}
