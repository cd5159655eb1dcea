//! What people read, computed from the state: pure functions, the same for the live answer, for `--at` and for
//! `audit replay`.
//!
//! The only time they know is that of the last event: whoever shows the answer compares with the clock.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    problem::{Laggard, TimeConditionDoc},
    shape::{
        AuthorityStatusDoc, ClusterDoc, KeyDoc, MemberDoc, NodeCounts, Presence, RotationState,
        RotationStatusDoc, ScheduleDoc, Status, go_duration,
    },
};
use domain::{
    AuthorityType, ClusterState, NodeId, Phase, SpkiPin, Timestamp,
    authority::{AuthorityKey, KeyKind},
    command::{Mode, Settings},
    gate::{self, Missing},
    oracle,
    schedule::next_step,
    state::{Node, Rotation, TypeState},
};

pub use lists::{authorities, certificate, certificates, certificates_of, consumers, tokens, users};
pub use nodes::{node, nodes};

mod lists;
mod nodes;

/// How many laggards and names a status lists; `get nodes --lagging` lists them all.
const NAMES: usize = 100;

/// The cluster's status.
pub fn status(state: &ClusterState) -> Status {
    let none = TypeState::default();
    Status {
        cluster: ClusterDoc {
            name: state.cluster_name().map(ToString::to_string).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").into(),
            ca_pins: ca_pins(state),
        },
        position: state.position,
        time: (state.position.0 > 0).then_some(state.time),
        authorities: AuthorityType::all()
            .map(|t| authority(state, t, state.types.get(&t).unwrap_or(&none)))
            .collect(),
        members: members(state),
        warnings: warnings(state),
    }
}

/// The pins of the trusted host authorities, the active one first.
fn ca_pins(state: &ClusterState) -> Vec<SpkiPin> {
    let Some(of) = state.types.get(&AuthorityType::Host) else {
        return vec![];
    };
    [&of.active, &of.prepared]
        .into_iter()
        .filter_map(|keys| keys.get(&KeyKind::Tls))
        .map(|key| key.id)
        .collect()
}

fn authority(state: &ClusterState, t: AuthorityType, of: &TypeState) -> AuthorityStatusDoc {
    let (counts, lagging) = count(state, t, of);
    let is_settled = of.ended.as_ref().is_none_or(|ended| ended.settled);
    let gate = of
        .phase
        .next()
        .map(|next| gate::outline(state, t, next, state.time));
    AuthorityStatusDoc {
        authority_type: t,
        rotation: rotation(of, is_settled),
        keys: keys(of),
        nodes: counts,
        broken_now: state.types.contains_key(&t).then(|| {
            state
                .standings
                .get(&t)
                .map(|s| oracle::broken_among(s.groups()))
                .unwrap_or_default()
        }),
        lagging: if of.rotation.is_some() { lagging } else { vec![] },
        may_accept_retired: stragglers(state, t, of),
        time_condition: gate
            .as_ref()
            .and_then(|g| g.time_condition.as_ref())
            .map(|condition| TimeConditionDoc {
                until: condition.until,
                holders: condition.holders.iter().map(ToString::to_string).collect(),
            }),
        consumers_waiting: gate.map(|g| g.consumers).unwrap_or_default(),
    }
}

/// The gate's own count, and who lags by name.
fn count(state: &ClusterState, t: AuthorityType, of: &TypeState) -> (NodeCounts, Vec<Laggard>) {
    let Some(standing) = state.standings.get(&t) else {
        return Default::default();
    };
    let counts = NodeCounts {
        required: standing.required(),
        reached: standing.reached(),
        lagging: standing.required() - standing.reached(),
        excluded: standing.excluded(),
    };
    let lagging = standing.lagging().take(NAMES).filter_map(|id| {
        let node = state.nodes.get(&id)?;
        Some(laggard(node, t, of, &gate::missing(state, t, node).err()?))
    });
    (counts, lagging.collect())
}

fn laggard(node: &Node, t: AuthorityType, of: &TypeState, missing: &Missing) -> Laggard {
    Laggard {
        node: node.id,
        name: node.hostname.to_string(),
        missing: missing.name().into(),
        text: missing.in_words(of.phase),
        reached: gate::last_reached(t, of, node),
        // All that the log knows of presence; the gateway adds the rest to what is of now.
        status: Presence {
            online: false,
            last_seen: node.report.as_ref().map(|reported| reported.at),
        },
        failure: node
            .report
            .as_ref()
            .and_then(|reported| reported.report.failure.clone()),
    }
}

/// After the end of a rotation: who may still accept the retired authority. Until it is settled that is whoever has
/// not followed; who was cut off stays named until it has been back, also over the rotations that follow.
fn stragglers(state: &ClusterState, t: AuthorityType, of: &TypeState) -> Vec<String> {
    let Some(ended) = &of.ended else { return vec![] };
    let is_settling = of.rotation.is_none() && !ended.settled;
    let standing = state.standings.get(&t).filter(|_| is_settling);
    // No more names are shown than this, and they come in order.
    let lagging = standing.into_iter().flat_map(|s| s.lagging().take(NAMES));
    let nodes: BTreeSet<NodeId> = ended.cut_off.iter().copied().chain(lagging).collect();
    let mut names: Vec<String> = nodes
        .iter()
        .filter_map(|id| state.nodes.get(id))
        .filter(|node| node.uses(t).is_some())
        .map(|node| node.hostname.to_string())
        .collect();
    names.sort();
    if is_settling {
        let members = gate::lagging_members(state, t, of);
        names.extend(
            members
                .iter()
                .map(|member| format!("{} {}", member.service, member.member)),
        );
    }
    names.truncate(NAMES);
    names
}

fn rotation(of: &TypeState, is_settled: bool) -> RotationStatusDoc {
    let current = of.rotation.as_ref();
    RotationStatusDoc {
        state: state_of(current),
        phase: of.phase,
        mode: match current.map(|r| r.mode) {
            Some(Mode::Manual) => "manual".into(),
            Some(Mode::Automatic) => "automatic".into(),
            None => String::new(),
        },
        current_id: of.rotation_id(),
        started: current.map(|r| r.started),
        grace_period: current.map(|r| go_duration(r.grace_period_ms)),
        last_rotated: of.last_rotated,
        last_rolled_back: of.last_rolled_back,
        schedule: current.and_then(|r| schedule(r, of.phase)),
        held: current.is_some_and(|r| r.held.is_some()),
        held_since: current.and_then(|r| r.held),
        settled: current.is_none() && is_settled,
    }
}

pub(crate) fn state_of(rotation: Option<&Rotation>) -> RotationState {
    if rotation.is_some() {
        RotationState::InProgress
    } else {
        RotationState::Standby
    }
}

/// The steps that are to come, as they would be if none of them were held.
fn schedule(rotation: &Rotation, phase: Phase) -> Option<ScheduleDoc> {
    let (mut to, mut due) = next_step(rotation, phase)?;
    let mut doc = ScheduleDoc {
        on_lagging: rotation.on_lagging,
        ..ScheduleDoc::default()
    };
    loop {
        let at: Option<Timestamp> = Some(due);
        match to {
            Phase::UpdateClients => doc.update_clients = at,
            Phase::UpdateServers => doc.update_servers = at,
            Phase::Standby => doc.standby = at,
            // The schedule never leads there.
            Phase::Init | Phase::Rollback => {}
        }
        let Some(next) = to.next() else { return Some(doc) };
        (to, due) = (next, due.plus_ms(rotation.grace_period_ms / 3));
    }
}

/// Active and prepared keys, and retired ones whose end is not confirmed by everybody yet.
fn keys(of: &TypeState) -> Vec<KeyDoc> {
    let is_settled = of.rotation.is_some() || of.ended.as_ref().is_none_or(|ended| ended.settled);
    let retired = of
        .retired
        .iter()
        .rev()
        .filter(|r| !r.destroyed || !is_settled)
        .map(|r| (&r.key, "retired"));
    let active = of.active.values().map(|key| (key, "active"));
    let prepared = of.prepared.values().map(|key| (key, "prepared"));
    active
        .chain(prepared)
        .chain(retired)
        .map(|(key, status)| key_doc(key, status))
        .collect()
}

pub(crate) fn key_doc(key: &AuthorityKey, status: &str) -> KeyDoc {
    KeyDoc {
        protocol: key.kind.as_str().into(),
        status: status.into(),
        algorithm: key.algorithm.clone(),
        storage: key.storage.clone(),
        pin: key.id,
        generation: key.generation,
        expires: Some(key.not_after),
    }
}

fn members(state: &ClusterState) -> Vec<MemberDoc> {
    let verified = [AuthorityType::Host, AuthorityType::User];
    let lagging: BTreeMap<_, _> = verified
        .into_iter()
        .filter_map(|t| Some((t, gate::lagging_members(state, t, state.types.get(&t)?))))
        .collect();
    let member = |member: &domain::state::Member| MemberDoc {
        id: member.id,
        service: member.service.clone(),
        running: member.running,
        names: member
            .names
            .iter()
            .map(ToString::to_string)
            .chain(member.addresses.iter().map(ToString::to_string))
            .collect(),
        reached: lagging
            .iter()
            .map(|(t, lagging)| {
                (
                    *t,
                    member.running && !lagging.iter().any(|l| l.member == member.id),
                )
            })
            .collect(),
        last_event: Some(member.last_event),
    };
    state.members.values().map(member).collect()
}

/// Settings that are lower than what a product should run with.
fn warnings(state: &ClusterState) -> Vec<String> {
    let (have, usual) = (state.settings(), Settings::default());
    let lower = |what: &str, have: u64, usual: u64| {
        let (have_text, usual_text) = (go_duration(have), go_duration(usual));
        (have < usual).then(|| format!("{what} is {have_text}, lower than the usual {usual_text}"))
    };
    [
        lower(
            "the life of nodes' certificates",
            have.node_ttl_ms,
            usual.node_ttl_ms,
        ),
        lower(
            "the life of operators' certificates",
            have.user_ttl_ms,
            usual.user_ttl_ms,
        ),
        lower(
            "the time in which an expired certificate allows a recovery",
            have.max_offline_ms,
            usual.max_offline_ms,
        ),
        lower(
            "the life of a published key set",
            have.jwks_max_age_ms,
            usual.jwks_max_age_ms,
        ),
        lower("the life of tokens", have.jwt_ttl_ms, usual.jwt_ttl_ms),
        lower("the drain timeout", have.drain_timeout_ms, usual.drain_timeout_ms),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests;
