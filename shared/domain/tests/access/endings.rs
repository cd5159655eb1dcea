//! The end of a rotation: who is waited for, what settles it.

use domain::{
    NodeId, Phase,
    authority::AuthorityType,
    command::{Order, Rotate},
    event::{Fact, LeafUse},
    refusal::Code,
    schedule::to_settle,
    time::HOUR_MS,
};

use crate::{
    rotations::{HOST, fleet, reach, to},
    world::{World, admin, clock},
};

#[test]
fn the_end_waits_for_people_who_still_hold_the_retiring_authority() {
    let mut world = World::new();
    let user = AuthorityType::User;
    let rotate_user = |target| {
        Order::Rotate(Rotate {
            authority_type: user,
            ..to(Some(target))
        })
    };
    for phase in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
        world.enter(user, phase);
    }
    // The administrator of the genesis still has the old certificate.
    let refusal = world.decide(admin(), rotate_user(Phase::Standby)).unwrap_err();
    assert_eq!(refusal.code, Code::TimeCondition);
    let condition = refusal.gate.unwrap().time_condition.unwrap();
    assert_eq!(condition.holders, [admin()]);
    // A new certificate that nobody has seen in use is not enough.
    let key = world.key();
    let request = Order::RequestCertificate {
        authority_type: user,
        usage: LeafUse::Client,
        issuer: None,
        key,
        form: domain::authority::KeyKind::Tls,
    };
    world.ask(admin(), request).unwrap();
    world.sign();
    assert_eq!(
        world.refused(admin(), rotate_user(Phase::Standby)),
        Code::TimeCondition
    );
    let (certificate, _) = world.newest(&admin());
    world
        .ask(
            clock(),
            Order::PresentCredential {
                holder: admin(),
                certificate,
            },
        )
        .unwrap();
    world.ask(admin(), rotate_user(Phase::Standby)).unwrap();
}

#[test]
fn the_end_comes_by_itself_when_the_last_old_certificate_expires() {
    let mut world = World::new();
    let user = AuthorityType::User;
    for phase in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
        world.enter(user, phase);
    }
    world.pass(13 * HOUR_MS);
    world
        .ask(
            admin(),
            Order::Rotate(Rotate {
                authority_type: user,
                ..to(Some(Phase::Standby))
            }),
        )
        .unwrap();
}

/// A rotation of the host authority to its end, which the third node slept through; `excluded` from it, or passed over
/// by force. The other two have followed.
fn ended_without_the_third(excluded: bool) -> (World, [NodeId; 3], Order) {
    let mut world = World::new();
    let nodes = fleet(&mut world);
    for phase in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
        world.enter(HOST, phase);
        if phase == Phase::Init && excluded {
            world.ask(admin(), Order::ExcludeNode { node: nodes[2] }).unwrap();
        }
        reach(&mut world, nodes[0], 10 + phase as u64);
        reach(&mut world, nodes[1], 10 + phase as u64);
    }
    world.enter(HOST, Phase::Standby);
    let rotation = world.state.types[&HOST].ended.as_ref().unwrap().id;
    let settle = Order::Settle {
        authority_type: HOST,
        rotation,
    };
    reach(&mut world, nodes[0], 20);
    assert_eq!(world.refused(clock(), settle.clone()), Code::StaleView);
    reach(&mut world, nodes[1], 20);
    (world, nodes, settle)
}

/// How many nodes the record of the settlement counts.
fn settled(world: &mut World, settle: &Order) -> u32 {
    match &world.decide(clock(), settle.clone()).unwrap().facts[..] {
        [Fact::RotationSettled(f)] => f.required,
        other => panic!("{other:?}"),
    }
}

fn cut_off(world: &World) -> Vec<NodeId> {
    let ended = world.state.types[&HOST].ended.as_ref().unwrap();
    ended.cut_off.iter().copied().collect()
}

#[test]
fn a_rotation_settles_only_when_the_nodes_that_were_passed_over_by_force_are_back() {
    let (mut world, [.., n3], settle) = ended_without_the_third(false);
    assert_eq!(world.refused(clock(), settle.clone()), Code::StaleView);
    assert!(to_settle(&world.state).is_empty());
    assert_eq!(cut_off(&world), [n3]);
    reach(&mut world, n3, 20);
    assert_eq!(settled(&mut world, &settle), 3);
    assert!(cut_off(&world).is_empty());
}

#[test]
fn a_node_that_was_passed_over_and_never_comes_back_is_removed_and_then_the_rotation_settles() {
    let (mut world, [.., n3], settle) = ended_without_the_third(false);
    world.ask(admin(), Order::RemoveNode { node: n3 }).unwrap();
    assert_eq!(to_settle(&world.state).len(), 1);
    assert_eq!(settled(&mut world, &settle), 2);
}

#[test]
fn an_excluded_node_does_not_hold_up_the_settlement_but_stays_known_until_it_has_been_back() {
    let (mut world, [.., n3], settle) = ended_without_the_third(true);
    assert_eq!(settled(&mut world, &settle), 2, "it does not hold the new row");
    assert_eq!(cut_off(&world), [n3]);
    reach(&mut world, n3, 20);
    assert!(cut_off(&world).is_empty());
}

#[test]
fn a_rotation_that_has_not_settled_does_not_hold_up_the_next_one_and_what_it_cut_off_stays_known() {
    let (mut world, [n1, n2, n3], _) = ended_without_the_third(false);
    for phase in [Phase::Init, Phase::UpdateClients] {
        world.enter(HOST, phase);
        reach(&mut world, n1, 30 + phase as u64);
        reach(&mut world, n2, 30 + phase as u64);
    }
    assert_eq!(cut_off(&world), [n3]);
    // On the way back it has nothing to undo, and so nobody passes over it; it still trusts what was retired.
    world.enter(HOST, Phase::Rollback);
    reach(&mut world, n1, 40);
    reach(&mut world, n2, 40);
    world
        .ask(admin(), Order::Rotate(to(Some(Phase::Standby))))
        .unwrap();
    reach(&mut world, n1, 50);
    reach(&mut world, n2, 50);
    assert_eq!(cut_off(&world), [n3]);
    assert!(
        to_settle(&world.state).is_empty(),
        "it is required in this rotation"
    );
    reach(&mut world, n3, 50);
    assert_eq!(to_settle(&world.state).len(), 1);
}

#[test]
fn a_bundle_denies_no_certificate_of_an_authority_that_it_does_not_list() {
    let mut world = World::new();
    let node = world.node("n1");
    world.ask(admin(), Order::RemoveNode { node }).unwrap();
    let denied = |world: &World| {
        let content = domain::duty::bundle_content(&world.state, HOST, world.now);
        content.expect("the host authority has a key").denied.len()
    };
    assert_eq!(denied(&world), 1, "its authority is trusted");
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ] {
        assert_eq!(denied(&world), 1, "and still is before {phase}");
        world.enter(HOST, phase);
    }
    assert_eq!(denied(&world), 0, "its authority is gone, and the entry with it");
}
