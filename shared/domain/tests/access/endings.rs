//! The end of a rotation: who is waited for, what settles it.

use domain::{
    Phase,
    authority::AuthorityType,
    command::{Order, Rotate},
    event::LeafUse,
    refusal::Code,
    time::HOUR_MS,
};

use crate::{
    rotations::{HOST, fleet, reach, to},
    world::{World, admin, clock, names_of},
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

#[test]
fn a_rotation_settles_when_every_node_that_was_not_cut_off_has_followed() {
    let mut world = World::new();
    let [n1, n2, n3] = fleet(&mut world);
    for phase in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
        world.enter(HOST, phase);
        reach(&mut world, n1, 10 + phase as u64);
        reach(&mut world, n2, 10 + phase as u64);
    }
    world.enter(HOST, Phase::Standby); // over n3
    let rotation = world.state.types[&HOST].ended.as_ref().unwrap().id;
    let settle = Order::Settle {
        authority_type: HOST,
        rotation,
    };
    assert_eq!(world.refused(clock(), settle.clone()), Code::StaleView);
    reach(&mut world, n1, 20);
    reach(&mut world, n2, 20);
    assert_eq!(
        names_of(&world.decide(clock(), settle).unwrap()),
        ["rotation.settled"]
    );
    // The one that was cut off counts again from its first report on.
    reach(&mut world, n3, 20);
    assert!(
        world.state.types[&HOST]
            .ended
            .as_ref()
            .unwrap()
            .cut_off
            .is_empty()
    );
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
