//! `GET /v1/plan/{type}`: what the next steps do and what they would break. Changes nothing.

use std::collections::BTreeMap;

use api::{
    plan::{Plan, PlanStep, PlanSubject},
    problem::{GateDetails, TimeConditionDoc},
};
use domain::{
    AuthorityType, ClusterState, Code, Phase, Timestamp,
    gate::{self, Gate, TimeCondition},
    oracle::{self, Entering, Forced, Seen},
    state::{Node, TypeState},
    trust::interoperate,
};

use super::{Asked, reads};
use crate::reply::{self, No, Reply};

mod by_hand;

/// The most nodes that are named one by one.
const NAMED: usize = 100;
/// Said of a node that can talk to everybody whatever step is made.
const NOTHING: &str = "nothing breaks for it";

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
        reads::see(&asked.app, &mut gate.lagging).await;
    }
    reply::json(&plan)
}

/// Adds to a closed gate what forcing it now would break, who would be cut off, and what is broken already.
pub(super) fn consequences(state: &ClusterState, gate: &mut GateDetails) {
    let Some(of) = state.types.get(&gate.authority_type) else {
        return;
    };
    let fleet = oracle::fleet(state, gate.authority_type, of);
    let step = Entering {
        from: gate.from,
        to: gate.to,
    };
    let forced = oracle::if_forced(of, &fleet, step);
    gate.cut_off = names(state, &forced);
    gate.if_forced = Some(forced.connections);
    gate.broken_now = Some(oracle::broken_now(&fleet));
    gate.since = of.rotation.as_ref().map(|r| r.stepped);
}

/// Who is cut off, by name.
fn names(state: &ClusterState, forced: &Forced) -> Vec<String> {
    let nodes = forced.cut_off.iter().filter_map(|id| state.nodes.get(id));
    let mut names: Vec<String> = nodes.map(|node| node.hostname.to_string()).collect();
    names.sort();
    names.truncate(NAMED);
    names
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
    let steps = steps(of.phase, until);
    let gate = steps
        .first()
        .map(|step| gate::evaluate(state, authority_type, step.to, now));
    let waiting = gate.as_ref().map(|g| g.consumers.clone()).unwrap_or_default();
    let registered = state
        .consumers
        .keys()
        .filter(|(t, _)| *t == authority_type)
        .count();
    let locked_out = locked_out(state, authority_type, of, &steps, now);
    let planned = |step: &Entering| {
        let forced = oracle::if_forced(of, &fleet, *step);
        let ends = step.to == Phase::Standby;
        PlanStep {
            phase: step.to,
            does: does(authority_type, *step, &fleet),
            if_forced: forced.connections,
            cut_off: names(state, &forced),
            locked_out: locked_out.as_ref().filter(|_| ends).map(TimeConditionDoc::of),
            consumers: if ends { waiting.clone() } else { vec![] },
        }
    };
    let details = gate.as_ref().filter(|_| of.phase != Phase::Standby).map(|gate| {
        let mut details = GateDetails::of(gate);
        consequences(state, &mut details);
        details
    });
    let to_number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let mut who = who(state, authority_type, of, &steps, gate.as_ref());
    who.extend(locked_out.iter().flat_map(people));
    Some(Plan {
        cluster: state.cluster_name()?.to_string(),
        authority_type,
        position: state.position,
        time: now,
        phase: of.phase,
        mode: of.rotation.as_ref().map(|r| r.mode),
        started: of.rotation.as_ref().map(|r| r.started),
        since: of.rotation.as_ref().map(|r| r.stepped),
        generations: (of.generation(), of.next_generation()),
        consumers: (
            to_number(registered),
            to_number(registered.saturating_sub(waiting.len())),
        ),
        broken_now: oracle::broken_now(&fleet),
        steps: steps.iter().map(planned).collect(),
        who,
        by_hand: by_hand::left(state, authority_type, of, &steps, now),
        refused_with: refused_with(of, gate.as_ref()),
        gate: details,
    })
}

/// Who holds certificates of the authority that the end of this rotation retires. What a change of mind would
/// retire is not asked for in advance.
fn locked_out(
    state: &ClusterState,
    authority_type: AuthorityType,
    of: &TypeState,
    steps: &[Entering],
    now: Timestamp,
) -> Option<TimeCondition> {
    let turns_back = of.phase != Phase::Rollback && steps.iter().any(|step| step.to == Phase::Rollback);
    if turns_back || !steps.iter().any(|step| step.to == Phase::Standby) {
        return None;
    }
    gate::time_condition(state, authority_type, now)
}

/// Whom a step into this phase would lock out now.
pub(super) fn locked_out_by(
    state: &ClusterState,
    authority_type: AuthorityType,
    to: Phase,
    now: Timestamp,
) -> Option<TimeConditionDoc> {
    let gate = gate::evaluate(state, authority_type, to, now);
    gate.time_condition.as_ref().map(TimeConditionDoc::of)
}

/// People and programs without an agent, whom nobody but themselves can give another certificate.
fn people(condition: &TimeCondition) -> Vec<PlanSubject> {
    let text = format!(
        "holds a certificate of the CA that standby retires, at most until {}; forced earlier, standby locks it out \
         until it gets a new one",
        condition.until
    );
    let subject = |holder: &domain::Principal| PlanSubject {
        name: holder.to_string(),
        text: text.clone(),
    };
    condition.holders.iter().take(NAMED).map(subject).collect()
}

/// The steps that are left, up to the asked one; each knows the one before it.
fn steps(from: Phase, until: Option<Phase>) -> Vec<Entering> {
    let mut before = from;
    let entered = phases(from, until).into_iter();
    entered
        .map(|to| Entering {
            from: std::mem::replace(&mut before, to),
            to,
        })
        .collect()
}

fn phases(from: Phase, until: Option<Phase>) -> Vec<Phase> {
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

fn does(authority_type: AuthorityType, step: Entering, fleet: &[Seen]) -> String {
    // Who is excluded is waited for by nobody, and none of this is promised for it.
    let waited_for = || fleet.iter().filter(|n| !n.excluded);
    let clients = waited_for().filter(|n| n.uses.client).count();
    let servers = waited_for().filter(|n| n.uses.server).count();
    let held = authority_type.row().held_without_agent;
    match step.to {
        Phase::Init => match waited_for().count() {
            1 => "a new key; 1 node trusts old and new CA".into(),
            nodes => format!("a new key; {nodes} nodes trust old and new CA"),
        },
        Phase::UpdateClients if held => "new leaves of people and programs come from the new CA".into(),
        Phase::UpdateClients if clients == 1 => "1 new client certificate".into(),
        Phase::UpdateClients => format!("{clients} new client certificates"),
        Phase::UpdateServers if servers == 0 => "no node serves by it: nothing changes on nodes".into(),
        Phase::UpdateServers if servers == 1 => "1 server presents the new CA".into(),
        Phase::UpdateServers => format!("{servers} servers present the new CA"),
        Phase::Rollback => "everybody goes back to the old CA; waits for nobody".into(),
        Phase::Standby if step.from == Phase::Rollback => "new CA dropped and its key destroyed".into(),
        Phase::Standby => "old CA dropped and its key destroyed, no rollback after this".into(),
    }
}

/// Who would be cut off, and from which step on: each laggard, and each excluded node, against a peer that follows.
fn who(
    state: &ClusterState,
    authority_type: AuthorityType,
    of: &TypeState,
    steps: &[Entering],
    gate: Option<&Gate>,
) -> Vec<PlanSubject> {
    let mut subjects = vec![];
    for lagging in gate.iter().flat_map(|g| &g.lagging).take(NAMED) {
        let Some(node) = state.nodes.get(&lagging.node) else {
            continue;
        };
        let Some(seen) = oracle::seen(state, authority_type, of, node) else {
            continue;
        };
        let text = format!(
            "{}: {}",
            lagging.missing.in_words(of.phase),
            effects(of, steps, &seen)
        );
        subjects.push(PlanSubject {
            name: lagging.hostname.to_string(),
            text,
        });
    }
    let is_excluded =
        |node: &&Node| node.uses(authority_type).is_some() && gate::is_excluded(node, authority_type, of);
    let mut excluded: Vec<&Node> = state.nodes.values().filter(is_excluded).collect();
    excluded.sort_by(|a, b| a.hostname.cmp(&b.hostname));
    for node in excluded.into_iter().take(NAMED) {
        let Some(seen) = oracle::seen(state, authority_type, of, node) else {
            continue;
        };
        let text = match effects(of, steps, &seen) {
            text if text == NOTHING => format!("excluded; by what it reported last {NOTHING}"),
            effects => format!("excluded: cut off until it returns and recovers ({effects})"),
        };
        subjects.push(PlanSubject {
            name: node.hostname.to_string(),
            text,
        });
    }
    subjects.extend(consumers(state, authority_type, of, gate));
    subjects
}

/// From which step on what breaks between this node and one that follows.
fn effects(of: &TypeState, steps: &[Entering], seen: &Seen) -> String {
    let first = |breaks: &dyn Fn(Entering) -> bool| steps.iter().copied().find(|step| breaks(*step));
    let in_broken = first(&|step| seen.uses.server && !interoperate(&oracle::row_at(of, step), &seen.side));
    let out_broken = first(&|step| seen.uses.client && !interoperate(&seen.side, &oracle::row_at(of, step)));
    let mut effects = vec![];
    effects.extend(in_broken.map(|s| (s.to, format!("from {} on nobody can connect TO it", s.to))));
    effects.extend(out_broken.map(|s| (s.to, format!("from {} on it cannot connect OUT", s.to))));
    // Standby, which comes last, is the first of the phases' own order.
    effects.sort_by_key(|(to, _)| steps.iter().position(|step| step.to == *to));
    let effects: Vec<String> = effects.into_iter().map(|(_, text)| text).collect();
    if effects.is_empty() {
        NOTHING.to_owned()
    } else {
        effects.join("; ")
    }
}

/// External consumers that have not attested.
fn consumers(
    state: &ClusterState,
    authority_type: AuthorityType,
    of: &TypeState,
    gate: Option<&Gate>,
) -> Vec<PlanSubject> {
    let mut subjects = vec![];
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
        let probed = consumer.probe.as_ref().map(|at| format!(", probed at {at}"));
        let whose = format!("owner: {}{}", consumer.owner, probed.unwrap_or_default());
        let text = match consumer.attested {
            Some((_, phase)) => format!("attested {phase}, not {} ({whose})", of.phase),
            None => format!("never attested ({whose})"),
        };
        subjects.push(PlanSubject {
            name: name.clone(),
            text,
        });
    }
    subjects
}

fn refused_with(of: &TypeState, gate: Option<&Gate>) -> Option<Code> {
    if !of.is_in_service() {
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
        let steps = |from, until| -> Vec<(Phase, Phase)> {
            steps(from, until)
                .iter()
                .map(|step| (step.from, step.to))
                .collect()
        };
        assert_eq!(
            steps(Standby, None),
            [
                (Standby, Init),
                (Init, UpdateClients),
                (UpdateClients, UpdateServers),
                (UpdateServers, Standby)
            ]
        );
        assert_eq!(
            steps(UpdateClients, Some(UpdateServers)),
            [(UpdateClients, UpdateServers)]
        );
        assert_eq!(
            steps(UpdateServers, Some(Rollback)),
            [(UpdateServers, Rollback), (Rollback, Standby)]
        );
        assert_eq!(steps(Rollback, None), [(Rollback, Standby)]);
    }

    #[test]
    fn after_a_rollback_it_is_the_new_authority_that_is_dropped_and_the_pin_stays() {
        let of = TypeState {
            phase: Phase::UpdateClients,
            ..TypeState::default()
        };
        let back = steps(of.phase, Some(Phase::Rollback));
        assert_eq!(
            does(AuthorityType::Host, back[1], &[]),
            "new CA dropped and its key destroyed"
        );
        let forward = steps(of.phase, None);
        assert!(does(AuthorityType::Host, forward[1], &[]).starts_with("old CA dropped"));
    }
}
