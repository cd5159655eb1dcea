//! Nodes: joining, facts, exclusion, removal.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    access::Grant,
    authority::AuthorityType,
    event::{Header, NodeJoined, NodeRejoined, NodeReported},
    gate,
    id::{Hostname, NodeId, Principal, RotationId, TokenId},
    state::{ClusterState, HeardBoot, Node, ReachedPhase, Reported},
};

use super::certificate::{self, SUPERSEDED_AFTER_MS};

/// How many starts are remembered to notice two instances that alternate.
const BOOTS_KEPT: usize = 9;

pub(super) fn joined(state: &mut ClusterState, header: &Header, f: &NodeJoined) {
    insert(state, header, f.node, &f.hostname, &f.grant, f.token);
}

pub(super) fn rejoined(state: &mut ClusterState, header: &Header, f: &NodeRejoined) {
    insert(state, header, f.node, &f.hostname, &f.grant, f.token);
}

fn insert(
    state: &mut ClusterState,
    header: &Header,
    id: NodeId,
    hostname: &Hostname,
    grant: &Grant,
    token: TokenId,
) {
    let single_use = state.tokens.get(&token).is_none_or(|t| t.uses == 1);
    // A node that joins again stays the node it was, excluded and touched. Its starts are forgotten: a person gave it a
    // token, and what another instance holds is superseded.
    let before = state.nodes.remove(&id);
    let node = Node {
        id,
        hostname: hostname.clone(),
        names: grant.names_for(hostname, single_use),
        grant: grant.clone(),
        token,
        joined: header.position,
        report: None,
        excluded: before.as_ref().map(|n| n.excluded.clone()).unwrap_or_default(),
        touched: before.as_ref().map(|n| n.touched.clone()).unwrap_or_default(),
        reached: before.map(|n| n.reached).unwrap_or_default(),
        clone_suspect: None,
        boots: vec![],
    };
    state.nodes.insert(id, node);
    // A node that was cut off and joined again is one that every later row binds.
    for of in state.types.values_mut() {
        if let Some(ended) = of.ended.as_mut() {
            ended.cut_off.remove(&id);
        }
    }
}

pub(super) fn reported(state: &mut ClusterState, header: &Header, f: &NodeReported) {
    certificate::presented(state, header, &f.seen.certificate);
    let Some(node) = state.nodes.get_mut(&f.node) else {
        return;
    };
    notice_clone(node, header, f);
    node.report = Some(Reported {
        report: f.report.clone(),
        seen: f.seen.clone(),
        at: header.time,
        position: header.position,
    });
    let types: Vec<AuthorityType> = node.grant.uses.keys().copied().collect();
    let id = f.node;
    for t in types {
        let reached = state
            .nodes
            .get(&id)
            .is_some_and(|n| gate::missing(state, t, n).is_ok());
        let Some(of) = state.types.get_mut(&t).filter(|_| reached) else {
            continue;
        };
        let phase = ReachedPhase {
            phase: of.phase,
            rotation: of.rotation_id(),
            at: header.time,
        };
        // It came back, if it has dropped what was retired: on the way back more trust counts as reached too.
        let trusted = f.report.authorities.get(&t).map(|facts| &facts.trusted);
        let has_dropped = trusted.is_some_and(|trusted| trusted.is_subset(&of.trusted()));
        if let Some(ended) = of.ended.as_mut().filter(|_| has_dropped) {
            ended.cut_off.remove(&id);
        }
        if let Some(node) = state.nodes.get_mut(&id) {
            node.reached.insert(t, phase);
        }
    }
}

/// Two boots that alternate, or a sequence that goes back within one boot, are two running instances.
///
/// A start alone ends no suspicion: while two instances run, either may be started anew. It ends with a report of a
/// start that came after it, when every start of before has been silent for as long as a copy of a certificate counts.
fn notice_clone(node: &mut Node, header: &Header, f: &NodeReported) {
    let boot = f.report.boot;
    let known = node.boots.iter().position(|b| b.boot == boot);
    let contradicts = match node.report.as_ref().map(|r| &r.report) {
        Some(before) if before.boot == boot => f.report.seq < before.seq,
        Some(_) | None => known.is_some(),
    };
    let heard = known.map(|i| node.boots.remove(i)).unwrap_or(HeardBoot {
        boot,
        first: header.position,
        last: header.time,
    });
    node.boots.push(HeardBoot {
        last: header.time,
        ..heard
    });
    if node.boots.len() > BOOTS_KEPT {
        node.boots.remove(0);
    }
    let is_over = node.clone_suspect.is_some_and(|since| {
        let silent = |b: &HeardBoot| header.time.since_ms(b.last) >= SUPERSEDED_AFTER_MS;
        node.boots.iter().all(|b| b.first > since || silent(b))
    });
    if contradicts {
        node.clone_suspect = Some(header.position);
    } else if is_over {
        node.clone_suspect = None;
    }
}

pub(super) fn excluded(
    state: &mut ClusterState,
    id: &NodeId,
    rotations: &BTreeMap<AuthorityType, RotationId>,
) {
    let Some(node) = state.nodes.get_mut(id) else {
        return;
    };
    for (t, rotation) in rotations {
        node.excluded.insert(*t, *rotation);
        let of = state
            .types
            .get_mut(t)
            .and_then(|of| of.rotation.as_mut())
            .filter(|r| r.id == *rotation);
        if let Some(current) = of {
            current.excluded.insert(*id);
        }
    }
}

pub(super) fn included(
    state: &mut ClusterState,
    id: &NodeId,
    rotations: &BTreeMap<AuthorityType, RotationId>,
) {
    let Some(node) = state.nodes.get_mut(id) else {
        return;
    };
    for t in rotations.keys() {
        node.excluded.remove(t);
        if let Some(current) = state.types.get_mut(t).and_then(|of| of.rotation.as_mut()) {
            current.excluded.remove(id);
        }
    }
}

pub(super) fn removed(state: &mut ClusterState, header: &Header, id: &NodeId) {
    state.nodes.remove(id);
    for of in state.types.values_mut() {
        if let Some(rotation) = of.rotation.as_mut() {
            rotation.excluded.remove(id);
        }
        if let Some(ended) = of.ended.as_mut() {
            ended.cut_off.remove(id);
        }
    }
    certificate::revoke_all(state, &Principal::Node(*id), header.position, certificate::GONE);
    certificate::forget_in_time(state, &Principal::Node(*id));
    names_released(state, &Principal::Node(*id));
}

pub(super) fn names_released(state: &mut ClusterState, holder: &Principal) {
    let mut free = BTreeSet::new();
    for (name, bearers) in &mut state.names {
        bearers.remove(holder);
        if bearers.is_empty() {
            free.insert(name.clone());
        }
    }
    for name in free {
        state.names.remove(&name);
    }
}
