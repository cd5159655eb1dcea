//! `GET /v1/plan/{type}`: what the next steps do and what they would break. Changes nothing.

use std::collections::BTreeMap;

use api::{
    plan::{Plan, PlanByHand, PlanStep, PlanSubject},
    problem::{Connections, GateDetails},
};
use domain::{
    AuthorityType, ClusterState, Code, Phase, Timestamp,
    authority::KeyKind,
    gate::{self, Gate, Missing},
    state::TypeState,
    trust::interoperate,
};

use super::{Asked, reads};
use crate::{
    oracle::{self, Seen},
    reply::{self, No, Reply},
};

/// The most nodes that are named one by one.
const NAMED: usize = 100;

pub(super) async fn plan(asked: &Asked) -> Reply {
    let authority_type: AuthorityType = asked.parse_part()?;
    let until: Option<Phase> = asked.parse_parameter("phase")?;
    asked.app.catch_up().await?;
    let now = asked.app.now();
    let plan = asked
        .app
        .fold
        .read(|s| compute(s, authority_type, until, s.now(now)));
    let mut plan = plan.ok_or_else(|| {
        let text = format!("this cluster has no key of type {authority_type}: there is nothing to rotate");
        No::new(Code::TypeNotInService, text)
    })?;
    if let Some(gate) = &mut plan.gate {
        reads::see(&asked.app, &mut gate.lagging, now);
    }
    reply::json(&plan)
}

/// What forcing a phase now would break.
pub(super) fn if_forced(
    state: &ClusterState,
    authority_type: AuthorityType,
    phase: Phase,
) -> Option<Connections> {
    let of = state.types.get(&authority_type)?;
    Some(oracle::if_forced(
        of,
        &oracle::fleet(state, authority_type, of),
        phase,
    ))
}

/// The plan, from the state alone.
fn compute(
    state: &ClusterState,
    authority_type: AuthorityType,
    until: Option<Phase>,
    now: Timestamp,
) -> Option<Plan> {
    let of = state.types.get(&authority_type)?;
    let fleet = oracle::fleet(state, authority_type, of);
    let phases = steps(of.phase, until);
    let gate = phases
        .first()
        .map(|to| gate::evaluate(state, authority_type, *to, now));
    let waiting = gate.as_ref().map(|g| g.consumers.clone()).unwrap_or_default();
    let registered = state
        .consumers
        .keys()
        .filter(|(t, _)| *t == authority_type)
        .count();
    let step = |phase: &Phase| PlanStep {
        phase: *phase,
        does: does(authority_type, of, *phase, &fleet),
        if_forced: oracle::if_forced(of, &fleet, *phase),
        consumers: if *phase == Phase::Standby {
            waiting.clone()
        } else {
            vec![]
        },
    };
    let details = gate.as_ref().filter(|_| of.phase != Phase::Standby).map(|gate| {
        let mut details = GateDetails::of(gate);
        details.if_forced = Some(oracle::if_forced(of, &fleet, gate.to));
        details
    });
    let generation = of.active.get(&KeyKind::Tls).map_or(0, |k| k.generation);
    let next = of
        .prepared
        .get(&KeyKind::Tls)
        .map_or(of.newest_generation + 1, |k| k.generation);
    let to_number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Some(Plan {
        cluster: state.cluster_name()?.to_string(),
        authority_type,
        position: state.position,
        time: now,
        phase: of.phase,
        mode: of.rotation.as_ref().map(|r| r.mode),
        started: of.rotation.as_ref().map(|r| r.started),
        generations: (generation, next),
        consumers: (
            to_number(registered),
            to_number(registered.saturating_sub(waiting.len())),
        ),
        steps: phases.iter().map(step).collect(),
        who: who(state, authority_type, of, &phases, gate.as_ref()),
        by_hand: by_hand(authority_type, of, &phases),
        refused_with: refused_with(authority_type, of, gate.as_ref()),
        gate: details,
    })
}

/// The steps that are left, up to the asked one.
fn steps(from: Phase, until: Option<Phase>) -> Vec<Phase> {
    let forward = [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ];
    let left: Vec<Phase> = match from {
        Phase::Standby => forward.to_vec(),
        Phase::Rollback => vec![Phase::Standby],
        Phase::Init | Phase::UpdateClients | Phase::UpdateServers => {
            forward.into_iter().skip_while(|p| *p != from).skip(1).collect()
        }
    };
    if until == Some(Phase::Rollback) && from != Phase::Standby && from != Phase::Rollback {
        return vec![Phase::Rollback, Phase::Standby];
    }
    let end = until
        .and_then(|until| left.iter().position(|p| *p == until))
        .map_or(left.len(), |at| at + 1);
    left[..end].to_vec()
}

fn does(authority_type: AuthorityType, of: &TypeState, phase: Phase, fleet: &[Seen]) -> String {
    let clients = fleet.iter().filter(|n| n.uses.client).count();
    let servers = fleet.iter().filter(|n| n.uses.server).count();
    let held = authority_type.row().held_without_agent;
    match phase {
        Phase::Init => format!("a new key; {} nodes trust old and new CA", fleet.len()),
        Phase::UpdateClients if held => "new leaves of people and programs come from the new CA".into(),
        Phase::UpdateClients => format!("{clients} new client certificates"),
        Phase::UpdateServers => format!("{servers} servers present the new CA"),
        Phase::Rollback => "everybody goes back to the old CA; waits for nobody".into(),
        Phase::Standby if of.phase == Phase::Rollback => "new CA dropped and its key destroyed".into(),
        Phase::Standby => "old CA dropped and its key destroyed, no rollback after this".into(),
    }
}

/// Who would be cut off, and from which step on: each laggard against a peer that follows.
fn who(
    state: &ClusterState,
    authority_type: AuthorityType,
    of: &TypeState,
    phases: &[Phase],
    gate: Option<&Gate>,
) -> Vec<PlanSubject> {
    let mut subjects = vec![];
    for lagging in gate.iter().flat_map(|g| &g.lagging).take(NAMED) {
        let Some(node) = state.nodes.get(&lagging.node) else {
            continue;
        };
        let Some(seen) = oracle::seen(state, authority_type, node) else {
            continue;
        };
        let first = |breaks: &dyn Fn(Phase) -> bool| phases.iter().copied().find(|p| breaks(*p));
        let in_broken = first(&|p| seen.uses.server && !interoperate(&oracle::row_at(of, p), &seen.side));
        let out_broken = first(&|p| seen.uses.client && !interoperate(&seen.side, &oracle::row_at(of, p)));
        let mut effects = vec![];
        effects.extend(in_broken.map(|p| (p, format!("from {p} on nobody can connect TO it"))));
        effects.extend(out_broken.map(|p| (p, format!("from {p} on it cannot connect OUT"))));
        effects.sort();
        let effects: Vec<String> = effects.into_iter().map(|(_, text)| text).collect();
        let effects = if effects.is_empty() {
            "nothing breaks for it".to_owned()
        } else {
            effects.join("; ")
        };
        let text = format!("{}: {effects}", missing_in_words(&lagging.missing, of.phase));
        subjects.push(PlanSubject {
            name: lagging.hostname.to_string(),
            text,
        });
    }
    let owners: BTreeMap<_, _> = state
        .consumers
        .iter()
        .filter(|((t, _), _)| *t == authority_type)
        .map(|((_, n), c)| (n.to_string(), c))
        .collect();
    for name in gate.iter().flat_map(|g| &g.consumers) {
        let Some(consumer) = owners.get(name) else {
            continue;
        };
        let text = match consumer.attested {
            Some((_, phase)) => format!("attested {phase}, not {} (owner: {})", of.phase, consumer.owner),
            None => format!("never attested (owner: {})", consumer.owner),
        };
        subjects.push(PlanSubject {
            name: name.clone(),
            text,
        });
    }
    subjects
}

fn missing_in_words(missing: &Missing, phase: Phase) -> String {
    missing.in_words(phase)
}

fn by_hand(authority_type: AuthorityType, of: &TypeState, phases: &[Phase]) -> Vec<PlanByHand> {
    let phase = Phase::Standby;
    if !phases.contains(&phase) || of.phase == Phase::Rollback {
        return vec![];
    }
    let mut by_hand = vec![];
    if authority_type == AuthorityType::Host {
        let text = of.prepared.get(&KeyKind::Tls).map_or_else(
            || "the CA pin changes; join lines with the old pin stop".to_owned(),
            |key| format!("CA pin changes to {}; join lines with the old pin stop", key.id),
        );
        by_hand.push(PlanByHand { phase, text });
    } else if !authority_type.row().by_hand.is_empty() {
        by_hand.push(PlanByHand {
            phase,
            text: authority_type.row().by_hand.into(),
        });
    }
    by_hand
}

fn refused_with(authority_type: AuthorityType, of: &TypeState, gate: Option<&Gate>) -> Option<Code> {
    if !authority_type.in_service() {
        return Some(Code::TypeNotInService);
    }
    if of.phase == Phase::Standby {
        return None;
    }
    gate?.check(false).err().map(|refusal| refusal.code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steps_that_are_left_follow_the_phase_and_end_at_the_asked_one() {
        use Phase::{Init, Rollback, Standby, UpdateClients, UpdateServers};
        assert_eq!(
            steps(Standby, None),
            [Init, UpdateClients, UpdateServers, Standby]
        );
        assert_eq!(steps(UpdateClients, None), [UpdateServers, Standby]);
        assert_eq!(steps(Standby, Some(UpdateClients)), [Init, UpdateClients]);
        assert_eq!(steps(UpdateServers, Some(Rollback)), [Rollback, Standby]);
        assert_eq!(steps(Rollback, None), [Standby]);
    }
}
