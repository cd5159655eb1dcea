//! Nodes as operators see them: taken out of a rotation, taken in again, removed; and their fact reports.

use std::collections::BTreeMap;

use crate::{
    authority::AuthorityType,
    command::Command,
    decide::{Decided, Decision, needs_reason},
    event::{AccessNamesReleased, NodeExcluded, NodeIncluded, NodeRemoved},
    id::{MemberId, NodeId, RotationId},
    refusal::{Code, Refusal},
    state::{ClusterState, Node},
};

pub use report::{check_facts, report};

mod report;

/// Takes a node out of the rotations in progress, of those types that it uses; never out of a later one.
///
/// # Errors
/// `node_unknown` (a control-plane member is no node: it binds while it runs), `no_rotation`,
/// `reason_required`.
pub fn exclude(state: &ClusterState, command: &Command, node: &NodeId) -> Decided {
    let known = find(state, node)?;
    let rotations = rotations_of(state, known);
    if rotations.is_empty() {
        let text = format!(
            "nothing that {} uses is in rotation: there is nothing to exclude it from",
            known.hostname
        );
        return Err(Refusal::new(Code::NoRotation, text));
    }
    if rotations
        .iter()
        .all(|(t, rotation)| known.excluded.get(t) == Some(rotation))
    {
        return Ok(Decision::noop(
            command,
            format!("{} is excluded already", known.hostname),
            None,
        ));
    }
    let text = format!(
        "excluding {} may cut it off: say why with --reason",
        known.hostname
    );
    needs_reason(command, text)?;
    Ok(Decision::done(vec![
        NodeExcluded {
            node: *node,
            rotations,
        }
        .into(),
    ]))
}

/// Takes a node in again: from here on the gate waits for it.
///
/// # Errors
/// `node_unknown`, `not_excluded`.
pub fn include(state: &ClusterState, _command: &Command, node: &NodeId) -> Decided {
    let known = find(state, node)?;
    let mut rotations = rotations_of(state, known);
    rotations.retain(|t, rotation| known.excluded.get(t) == Some(rotation));
    if rotations.is_empty() {
        let text = format!("{} is not excluded from a rotation in progress", known.hostname);
        return Err(Refusal::new(Code::NotExcluded, text));
    }
    Ok(Decision::done(vec![
        NodeIncluded {
            node: *node,
            rotations,
        }
        .into(),
    ]))
}

/// Removes a node: its names are free, its certificates no longer count, and the signer denies them.
///
/// # Errors
/// `node_unknown`.
pub fn remove(state: &ClusterState, node: &NodeId) -> Decided {
    find(state, node)?;
    // The release comes first: names are decided on its subject, and so a join cannot overtake it.
    Ok(Decision::done(vec![
        AccessNamesReleased { node: *node }.into(),
        NodeRemoved { node: *node }.into(),
    ]))
}

/// The rotations in progress of the types that the node uses.
fn rotations_of(state: &ClusterState, node: &Node) -> BTreeMap<AuthorityType, RotationId> {
    let types = node.grant.uses.keys();
    types
        .filter_map(|t| Some((*t, state.types.get(t)?.rotation_id()?)))
        .collect()
}

fn find<'a>(state: &'a ClusterState, node: &NodeId) -> Result<&'a Node, Refusal> {
    state.nodes.get(node).ok_or_else(|| {
        let text = match state.members.get(&MemberId(node.0)) {
            Some(member) => format!(
                "{node} is a control-plane service ({}), not a node: stop it there",
                member.service
            ),
            None => format!("there is no node {node}: `carousel get nodes` lists them"),
        };
        Refusal::new(Code::NodeUnknown, text)
    })
}
