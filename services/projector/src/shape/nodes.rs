//! `get nodes`: what the log says of each node.

use std::collections::BTreeMap;

use api::shape::{NodeAuthority, NodeDoc, NodeMetadata, NodeRotation, NodeSpec, Presence};
use domain::{
    AuthorityType, ClusterState, RotationId,
    gate::{self, phase_of_node},
    state::Node,
};

use super::state_of;

/// All nodes, by name.
pub fn nodes(state: &ClusterState) -> Vec<NodeDoc> {
    let mut docs: Vec<NodeDoc> = state.nodes.values().map(|of| node(state, of)).collect();
    docs.sort_by(|a, b| (&a.spec.hostname, a.metadata.name).cmp(&(&b.spec.hostname, b.metadata.name)));
    docs
}

/// One node. Presence stays empty: it is not in the log.
pub fn node(state: &ClusterState, of: &Node) -> NodeDoc {
    let report = of.report.as_ref().map(|reported| &reported.report);
    let uses = of.grant.uses.keys().filter(|t| state.types.contains_key(t));
    NodeDoc {
        kind: "node".into(),
        version: "v1".into(),
        metadata: NodeMetadata {
            name: of.id,
            labels: report.map(|r| r.labels.clone()).unwrap_or_default(),
        },
        spec: NodeSpec {
            hostname: of.hostname.to_string(),
            addr: report.and_then(|r| r.addr.clone()).unwrap_or_default(),
            version: report.map(|r| r.version.clone()).unwrap_or_default(),
            last_reported: of.report.as_ref().map(|reported| reported.at),
            rotation: rotation(state, of),
            authorities: uses.map(|t| (*t, authority(state, of, *t))).collect(),
            excluded: excluded(state, of),
            failure: report.and_then(|r| r.failure.clone()),
            unsynced: report.is_some_and(|r| r.unsynced),
        },
        status: Presence::default(),
    }
}

/// The host authority's rotation as far as this node has come, always with explicit state and phase.
fn rotation(state: &ClusterState, of: &Node) -> NodeRotation {
    let host = state.types.get(&AuthorityType::Host);
    let current = host.and_then(|host| host.rotation.as_ref());
    NodeRotation {
        state: state_of(current),
        phase: phase_of_node(state, AuthorityType::Host, of),
        current_id: current.map(|rotation| rotation.id),
        started: current.map(|rotation| rotation.started),
    }
}

fn authority(state: &ClusterState, of: &Node, t: AuthorityType) -> NodeAuthority {
    let facts = of
        .report
        .as_ref()
        .and_then(|reported| reported.report.authorities.get(&t))
        .cloned();
    let facts = facts.unwrap_or_default();
    let missing = gate::missing(state, t, of).err();
    let phase = state.types.get(&t).map(|of| of.phase).unwrap_or_default();
    NodeAuthority {
        reached: phase_of_node(state, t, of),
        trusted: facts.trusted,
        client_issuer: facts.client_issuer,
        server_issuer: facts.server_issuer,
        client_not_after: facts.client_not_after,
        server_not_after: facts.server_not_after,
        ssh_issuer: facts.ssh_issuer,
        ssh_not_after: facts.ssh_not_after,
        sessions_on_retiring: facts.sessions_on_retiring,
        missing: missing.as_ref().map(|missing| missing.in_words(phase)),
        missing_code: missing.as_ref().map(|missing| missing.name().into()),
    }
}

/// The rotations in progress from which it is excluded; an exclusion ends with its rotation.
fn excluded(state: &ClusterState, of: &Node) -> Option<BTreeMap<AuthorityType, RotationId>> {
    let current: BTreeMap<_, _> = of
        .excluded
        .iter()
        .filter(|(t, _)| {
            state
                .types
                .get(t)
                .is_some_and(|ty| gate::is_excluded(of, **t, ty))
        })
        .map(|(t, rotation)| (*t, *rotation))
        .collect();
    (!current.is_empty()).then_some(current)
}
