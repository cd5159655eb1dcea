//! The schedule of semi-automatic rotations: due steps, holds, policies.

use domain::{
    NodeId, Phase, Principal,
    command::{Answer, LaggingPolicy, Mode, Order, Rotate},
    desired,
    event::Fact,
    refusal::Code,
    time::HOUR_MS,
};

use crate::{
    rotations::{HOST, fleet, reach, to},
    world::{World, admin, clock, names_of},
};

fn automatic(on_lagging: LaggingPolicy) -> Rotate {
    let grace_period_ms = Some(9 * HOUR_MS);
    Rotate {
        target: None,
        manual: false,
        grace_period_ms,
        on_lagging: Some(on_lagging),
        ..to(None)
    }
}

fn scheduled(world: &mut World, uptime_ms: u64) -> Result<Vec<String>, Code> {
    scheduled_seeing(world, uptime_ms, Some(&[]))
}

/// The same, where the gateways have seen these nodes.
fn scheduled_seeing(world: &mut World, uptime_ms: u64, seen: Option<&[NodeId]>) -> Result<Vec<String>, Code> {
    let step = Order::ScheduledStep {
        authority_type: HOST,
        expects: world.state.types[&HOST].expectation(),
        uptime_since_step_ms: uptime_ms,
        uptime_ms,
        seen: seen.map(|seen| seen.iter().copied().collect()),
    };
    world
        .decide(clock(), step)
        .map(|d| names_of(&d))
        .map_err(|r| r.code)
}

/// A semi-automatic rotation in init with its key, three nodes of which `reached` have reached it.
fn semi_automatic(policy: LaggingPolicy, reached: usize) -> (World, [NodeId; 3]) {
    let mut world = World::new();
    let nodes = fleet(&mut world);
    world.pass(1_000);
    world.ask(admin(), Order::Rotate(automatic(policy))).unwrap();
    let rotation = world.state.types[&HOST].rotation_id();
    let key = world.authority_key(2, rotation);
    let made = domain::event::AuthorityKeyGenerated {
        authority_type: HOST,
        key,
    };
    world.append(Principal::System(domain::id::SystemActor::Signer), made.into());
    world.sign_bundle(HOST);
    world.pass(1_000);
    for node in nodes.into_iter().take(reached) {
        reach(&mut world, node, 2);
    }
    (world, nodes)
}

#[test]
fn a_step_is_due_a_third_of_the_grace_period_after_the_one_before() {
    let (mut world, nodes) = semi_automatic(LaggingPolicy::Hold, 3);
    assert_eq!(scheduled(&mut world, 0), Err(Code::StaleView));
    world.pass(5 * HOUR_MS); // late: the next one is counted from here
    assert_eq!(scheduled(&mut world, 0).unwrap(), ["rotation.phase-entered"]);
    for node in nodes {
        reach(&mut world, node, 3);
    }
    world.pass(3 * HOUR_MS - 1);
    assert_eq!(scheduled(&mut world, 0), Err(Code::StaleView));
    world.pass(1);
    assert_eq!(scheduled(&mut world, 0).unwrap(), ["rotation.phase-entered"]);
}

#[test]
fn a_due_step_holds_once_and_goes_on_by_itself() {
    let (mut world, [_, _, n3]) = semi_automatic(LaggingPolicy::Hold, 2);
    world.pass(3 * HOUR_MS);
    assert_eq!(scheduled(&mut world, u64::MAX).unwrap(), ["rotation.held"]);
    assert!(scheduled(&mut world, u64::MAX).unwrap().is_empty());
    reach(&mut world, n3, 2);
    assert_eq!(
        scheduled(&mut world, 0).unwrap(),
        ["rotation.resumed", "rotation.phase-entered"]
    );
}

#[test]
fn a_step_by_hand_makes_the_rotation_manual_and_says_so() {
    let (mut world, _) = semi_automatic(LaggingPolicy::Hold, 3);
    let by_hand = Rotate {
        manual: false,
        ..to(Some(Phase::UpdateClients))
    };
    let answer = world.ask(admin(), Order::Rotate(by_hand)).unwrap();
    assert!(
        matches!(
            answer,
            Answer::Phase {
                became_manual: true,
                mode: Some(Mode::Manual),
                ..
            }
        ),
        "{answer:?}"
    );
    world.pass(24 * HOUR_MS);
    assert_eq!(scheduled(&mut world, u64::MAX), Err(Code::StaleView));
}

#[test]
fn proceed_passes_over_a_node_that_is_away_and_never_over_one_that_is_there() {
    // n3 was never heard of since the step: it is away.
    let (mut world, _) = semi_automatic(LaggingPolicy::Proceed, 2);
    world.pass(3 * HOUR_MS);
    assert_eq!(
        scheduled(&mut world, 3 * HOUR_MS).unwrap(),
        ["rotation.phase-entered"]
    );
    // Here it is there, but cannot reload.
    let (mut world, [_, _, n3]) = semi_automatic(LaggingPolicy::Proceed, 2);
    let mut failing = world.report_of(1, 2);
    failing.authorities.get_mut(&HOST).unwrap().trusted.pop_first();
    world.report(n3, failing).unwrap();
    world.pass(3 * HOUR_MS);
    assert_eq!(scheduled(&mut world, 3 * HOUR_MS).unwrap(), ["rotation.held"]);
}

#[test]
fn proceed_passes_over_nobody_who_is_connected_though_it_reports_nothing() {
    // n3 holds a stream and cannot follow: it has nothing to say, and the log has not heard of it since the step.
    let (mut world, [n1, _, n3]) = semi_automatic(LaggingPolicy::Proceed, 2);
    world.pass(3 * HOUR_MS);
    let there = scheduled_seeing(&mut world, 3 * HOUR_MS, Some(&[n1, n3]));
    assert_eq!(there.unwrap(), ["rotation.held"]);
    let unknown = scheduled_seeing(&mut world, 3 * HOUR_MS, None);
    assert!(
        unknown.unwrap().is_empty(),
        "nobody can say who is there: still held"
    );
    let away = scheduled_seeing(&mut world, 3 * HOUR_MS, Some(&[n1])).unwrap();
    assert_eq!(away.last().unwrap(), "rotation.phase-entered");
}

#[test]
fn a_lagging_policy_waits_until_the_orchestrator_has_been_up_long_enough() {
    let (mut world, _) = semi_automatic(LaggingPolicy::Proceed, 2);
    world.pass(3 * HOUR_MS);
    assert_eq!(scheduled(&mut world, 3 * HOUR_MS - 1).unwrap(), ["rotation.held"]);
    assert_eq!(
        scheduled(&mut world, 3 * HOUR_MS).unwrap(),
        ["rotation.resumed", "rotation.phase-entered"],
        "a policy ends the waiting too"
    );
}

#[test]
fn a_held_step_that_turns_back_waits_no_longer() {
    let (mut world, _) = semi_automatic(LaggingPolicy::Rollback, 1);
    world.pass(3 * HOUR_MS);
    assert_eq!(scheduled(&mut world, 0).unwrap(), ["rotation.held"]);
    assert_eq!(
        scheduled(&mut world, 3 * HOUR_MS).unwrap(),
        ["rotation.resumed", "rotation.phase-entered"]
    );
    assert_eq!(world.state.types[&HOST].phase, Phase::Rollback);
}

#[test]
fn a_step_that_is_held_for_the_signer_alone_says_so() {
    let mut world = World::new();
    world
        .ask(admin(), Order::Rotate(automatic(LaggingPolicy::Hold)))
        .unwrap();
    world.pass(3 * HOUR_MS);
    scheduled(&mut world, 0).unwrap();
    let held = world.log.iter().rev().find_map(|e| match &e.fact {
        Fact::RotationHeld(f) => Some((f.lagging, f.names.clone())),
        _ => None,
    });
    assert_eq!(held, Some((0, vec!["new tls key".to_owned()])));
}

#[test]
fn rollback_needs_two_lagging_nodes_one_never_decides_for_the_fleet() {
    let (mut world, _) = semi_automatic(LaggingPolicy::Rollback, 2);
    world.pass(3 * HOUR_MS);
    assert_eq!(scheduled(&mut world, u64::MAX).unwrap(), ["rotation.held"]);
    let (mut world, _) = semi_automatic(LaggingPolicy::Rollback, 1);
    world.pass(3 * HOUR_MS);
    assert_eq!(
        scheduled(&mut world, u64::MAX).unwrap(),
        ["rotation.phase-entered"]
    );
    let of = &world.state.types[&HOST];
    assert_eq!(
        (of.phase, of.rotation.as_ref().unwrap().mode),
        (Phase::Rollback, Mode::Manual)
    );
}

#[test]
fn sessions_drain_for_no_longer_than_a_thirtieth_of_the_grace_period() {
    let mut world = World::new();
    let [node, ..] = fleet(&mut world);
    let told = |world: &World| desired(&world.state, &node).map(|d| d.drain_timeout_ms);
    let usual = world.state.settings().drain_timeout_ms;
    assert_eq!(told(&world), Some(usual));
    let short = Rotate {
        grace_period_ms: Some(30 * 1_000),
        ..automatic(LaggingPolicy::Hold)
    };
    world.ask(admin(), Order::Rotate(short)).unwrap();
    assert_eq!(told(&world), Some(1_000));
    // By hand there is no step that could be late.
    let by_hand = Rotate {
        manual: false,
        ..to(Some(Phase::Rollback))
    };
    world.ask(admin(), Order::Rotate(by_hand)).unwrap();
    assert_eq!(told(&world), Some(usual));
}
