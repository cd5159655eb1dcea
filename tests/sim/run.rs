//! One run from its seed: troubles, then peace, then the questions that are asked at the end.

use domain::{AuthorityType, Order, Phase};

use crate::{
    invariants::{COMPLETES, Violation},
    net::{Actor, Msg},
    operator::rotate,
    rng::Rng,
    world::{Knobs, MINUTE, SECOND, START, World},
};

/// Runs a seed; the world as it was at the end, with the violation if there was one.
pub fn seed(seed: u64, trace: bool) -> World {
    let mut rng = Rng::new(seed ^ 0xc0ffee);
    let knobs = Knobs {
        sshds: seed % 2 == 1,
        ..Knobs::drawn(&mut rng)
    };
    let mut world = World::new(seed, knobs);
    world.trace = trace.then(Vec::new);
    let knobs = world.knobs.clone();
    world.tell(|| format!("{knobs:?}"));
    world.queue.at(START + 3 * SECOND, Msg::Tick(Actor::Operator));
    world.queue.at(START + 4 * MINUTE, Msg::Tick(Actor::Chaos));
    world.run_until(START + 3 * MINUTE);
    (world.faults_on, world.operators.busy, world.chaos.busy) = (true, true, rng.chance(900));
    let troubles_ms = rng.span(20 * MINUTE, 150 * MINUTE);
    world.run_for(troubles_ms);
    finish(&mut world);
    world
}

/// Mends everything, lets a patient operator end what is in progress, and asks the last questions.
pub fn finish(world: &mut World) {
    world.heal();
    let complete = complete(world, 240 * MINUTE);
    if world.violation.is_none() && !complete {
        let text = explain(world);
        world.violate(COMPLETES, text);
    }
    if world.violation.is_none() {
        world.ask_everything_again();
        world.compare_replay();
    }
}

/// Goes on step by step, without force, until every rotation is over and settled and every node is back.
pub fn complete(world: &mut World, at_most_ms: i64) -> bool {
    let until = world.now + at_most_ms;
    let mut rounds = 0u32;
    while world.violation.is_none() && world.now < until {
        world.run_for(10 * SECOND);
        rounds += 1;
        for t in [AuthorityType::Host, AuthorityType::User] {
            let phase = world.truth.types[&t].phase;
            if let Some(next) = phase.next() {
                // A refusal says who is waited for; it is asked again.
                let _ = world.ask(rotate(t, Some(next), false));
            }
        }
        world.have_consumers_attest();
        clear_up(world, rounds);
        if is_complete(world) {
            return true;
        }
    }
    false
}

/// What operators do about what status shows: nodes that nobody is any more, and copies.
fn clear_up(world: &mut World, rounds: u32) {
    let is_nobody = |id: &domain::NodeId| {
        world
            .owner
            .get(id)
            .is_none_or(|i| world.agents[*i].disk.node != Some(*id) || world.agents[*i].gone)
    };
    let nobody: Vec<_> = world.truth.nodes.keys().copied().filter(is_nobody).collect();
    for node in nobody.into_iter().filter(|_| rounds.is_multiple_of(12)) {
        let _ = world.ask(Order::RemoveNode { node });
    }
    let copies: Vec<_> = world
        .truth
        .nodes
        .values()
        .filter(|n| n.clone_suspect.is_some())
        .map(|n| n.id)
        .collect();
    for i in copies
        .iter()
        .filter_map(|node| world.owner.get(node).copied())
        .filter(|_| rounds.is_multiple_of(6))
        .collect::<Vec<_>>()
    {
        // A restart is what status asks for: a new boot says that there is one instance.
        world.agent_stops(i);
        world.agent_starts(i);
    }
}

fn is_complete(world: &World) -> bool {
    let types_rest = world.truth.types.values().all(|of| {
        of.phase == Phase::Standby && of.rotation.is_none() && of.ended.as_ref().is_none_or(|e| e.settled)
    });
    let everybody_is_back = world
        .agents
        .iter()
        .all(|a| a.gone || (a.serving && a.stranded.is_none()));
    let every_gateway_serves = world.gateways.iter().all(|g| g.serving);
    types_rest && everybody_is_back && every_gateway_serves && lagging(world).is_empty()
}

fn lagging(world: &World) -> Vec<String> {
    let mut lagging = vec![];
    for t in [AuthorityType::Host, AuthorityType::User] {
        for node in world.truth.nodes.values() {
            if let Err(missing) = domain::gate::missing(&world.truth, t, node) {
                lagging.push(format!("{t} {}: {missing:?}", node.hostname));
            }
        }
    }
    lagging
}

fn explain(world: &World) -> String {
    let phases: Vec<_> = world
        .truth
        .types
        .iter()
        .map(|(t, of)| format!("{t}: {}", of.phase))
        .collect();
    let stranded: Vec<_> = world.agents.iter().filter_map(|a| a.stranded).collect();
    let refusal = world.operators.last_refusal.as_ref().map(ToString::to_string);
    format!(
        "{phases:?}, lagging {:?}, stranded {stranded:?}, last refusal {refusal:?}",
        lagging(world)
    )
}

/// The words of a run, with what was violated.
pub fn tell_story(world: &World) -> String {
    let lines = world.trace.as_deref().unwrap_or_default().join("\n");
    let end = world
        .violation
        .as_ref()
        .map_or("no invariant is violated".to_owned(), |v: &Violation| {
            format!("{} at position {}: {}", v.invariant, v.position, v.detail)
        });
    format!("{lines}\nseed {}: {end}", world.seed)
}
