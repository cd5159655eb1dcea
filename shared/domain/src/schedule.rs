//! The schedule of a semi-automatic rotation: three steps, each due a third of the grace period after
//! the one before.

use std::collections::BTreeSet;

use crate::{
    authority::AuthorityType,
    command::Mode,
    gate::{self, Gate},
    id::{NodeId, RotationId},
    phase::Phase,
    rules::{Rule, holds},
    standing::Standing,
    state::{ClusterState, Node, Rotation, TypeState},
    time::{MINUTE_MS, SECOND_MS, Timestamp},
};

/// The longest time after its start in which the orchestrator takes no lagging policy's word, nor a gateway's of who is there.
pub const SETTLING_IN_MS: u64 = 5 * MINUTE_MS;
/// A member that was not heard of for so long is lost.
pub const MEMBER_SILENCE_MS: u64 = 30 * SECOND_MS;

/// When the next step of a rotation is due; `None` in `rollback`, which a person finishes.
///
/// Counted from the step before, so that steps that were late do not come all at once \[M\].
pub fn due_at(rotation: &Rotation, phase: Phase) -> Option<Timestamp> {
    let third = rotation.grace_period_ms / 3;
    let steps = match phase {
        Phase::Init => 1,
        Phase::UpdateClients => 2,
        Phase::UpdateServers => 3,
        Phase::Standby | Phase::Rollback => return None,
    };
    if holds(Rule::StepsFollowOneAnother) {
        Some(rotation.stepped.plus_ms(third))
    } else {
        Some(rotation.started.plus_ms(third * steps))
    }
}

/// The phase that the schedule enters next, with its time.
pub fn next_step(rotation: &Rotation, phase: Phase) -> Option<(Phase, Timestamp)> {
    if rotation.mode != Mode::Automatic {
        return None;
    }
    Some((phase.next()?, due_at(rotation, phase)?))
}

/// Every step that is due now, for the orchestrator to try: due is not open.
pub fn due_steps(state: &ClusterState, now: Timestamp) -> Vec<(AuthorityType, RotationId, Phase)> {
    state
        .types
        .iter()
        .filter_map(|(t, of)| {
            let rotation = of.rotation.as_ref()?;
            let (_, due) = next_step(rotation, of.phase)?;
            (now >= due).then_some((*t, rotation.id, of.phase))
        })
        .collect()
}

/// Rotations that ended and that every required node and member has followed into standby.
pub fn to_settle(state: &ClusterState) -> Vec<(AuthorityType, RotationId)> {
    state
        .types
        .iter()
        .filter_map(|(t, of)| {
            let ended = of
                .ended
                .as_ref()
                .filter(|e| !e.settled && of.rotation.is_none())?;
            is_settled(state, *t).then_some((*t, ended.id))
        })
        .collect()
}

/// Has every required node and every running member reached standby? Nodes that were passed over by force
/// are required and waited for; one that never comes back is removed.
pub fn is_settled(state: &ClusterState, authority_type: AuthorityType) -> bool {
    let Some(of) = state.types.get(&authority_type) else {
        return true;
    };
    of.phase == Phase::Standby
        && gate::lagging_members(state, authority_type, of).is_empty()
        && not_followed(state, authority_type, of).next().is_none()
}

fn lagging(state: &ClusterState, authority_type: AuthorityType) -> impl Iterator<Item = &Node> {
    let standing = state.standings.get(&authority_type);
    let lagging = standing.into_iter().flat_map(Standing::lagging);
    lagging.filter_map(|id| state.nodes.get(&id))
}

/// Was it excluded from the rotation that ended, and has not been back?
fn is_left_out(node: &Node, authority_type: AuthorityType, of: &TypeState) -> bool {
    of.ended.as_ref().is_some_and(|ended| {
        ended.cut_off.contains(&node.id) && node.excluded.get(&authority_type) == Some(&ended.id)
    })
}

/// How many are required to follow the last rotation to its end: everybody who uses the type, but for nodes that were
/// excluded from it and have not been back. Those stay named as cut off, but hold up nobody.
pub fn followers(state: &ClusterState, authority_type: AuthorityType, of: &TypeState) -> u32 {
    let users = state
        .standings
        .get(&authority_type)
        .map_or(0, |standing| standing.required() + standing.excluded());
    let cut_off = of.ended.iter().flat_map(|ended| &ended.cut_off);
    let left_out = cut_off
        .filter_map(|id| state.nodes.get(id))
        .filter(|node| node.uses(authority_type).is_some() && is_left_out(node, authority_type, of));
    users.saturating_sub(u32::try_from(left_out.count()).unwrap_or(u32::MAX))
}

/// Who of them has not followed yet, in the order of the names.
pub fn not_followed<'a>(
    state: &'a ClusterState,
    authority_type: AuthorityType,
    of: &'a TypeState,
) -> impl Iterator<Item = &'a Node> {
    lagging(state, authority_type).filter(move |node| !is_left_out(node, authority_type, of))
}

/// Has the orchestrator been up long enough to judge who lags? A fresh start knows nobody yet \[M\].
pub fn policy_may_act(rotation: &Rotation, uptime_since_step_ms: u64, uptime_ms: u64) -> bool {
    let third = rotation.grace_period_ms / 3;
    !holds(Rule::PolicyNeedsUptime)
        || (uptime_since_step_ms >= third && uptime_ms >= third.min(SETTLING_IN_MS))
}

/// Has the current row been there to be followed for long enough to judge who lags? While the signer is away
/// no row is handed out, and then every node lags behind it, however much it is online.
pub fn row_was_handed_out(of: &TypeState, rotation: &Rotation, now: Timestamp) -> bool {
    let patience = (rotation.grace_period_ms / 3).min(SETTLING_IN_MS);
    let is_signed = of.bundle.as_ref().is_some_and(|b| b.revision >= of.row_position);
    is_signed
        && of
            .row_signed
            .is_some_and(|signed| now >= signed.plus_ms(patience))
}

/// May `--on-lagging=proceed` pass over everything that keeps this gate closed, by what the log says? Only over nodes
/// that were not seen since the step before, and never into the final standby. See [`nobody_is_there`] for the rest.
pub fn proceed_may_pass(gate: &Gate, rotation: &Rotation) -> bool {
    gate.to != Phase::Standby
        && gate.is_open_by_force()
        && gate.consumers.is_empty()
        && gate.time_condition.is_none()
        && gate.publication.is_none()
        && gate
            .lagging
            .iter()
            .all(|l| l.last_seen.is_none_or(|seen| seen < rotation.stepped))
}

/// Is none of the lagging nodes among those that a gateway has seen since the step before? A node that cannot follow
/// may have nothing to report for hours and still be there. It is not in the log, so the audit cannot ask it again.
///
/// If nobody can say who was seen, everybody may be there.
pub fn nobody_is_there(gate: &Gate, seen: Option<&BTreeSet<NodeId>>) -> bool {
    seen.is_some_and(|seen| gate.lagging.iter().all(|l| !seen.contains(&l.node)))
}

/// Do enough nodes lag for `--on-lagging=rollback`? At least 5 % and at least two: one node never
/// decides for the fleet.
pub fn rollback_is_called_for(gate: &Gate) -> bool {
    let lagging = gate.lagging.len() as u64;
    lagging >= 2 && lagging * 20 >= u64::from(gate.required)
}
