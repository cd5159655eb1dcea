//! Recovery: a node that slept comes back by the key of a certificate that the log knows.

use domain::{
    authority::AuthorityType,
    command::{Answer, Order},
    event::LeafUse,
    id::{CertDigest, NodeId, Principal},
    phase::Phase,
    refusal::Code,
    time::DAY_MS,
};

use crate::world::{World, admin, names_of};

fn refused(world: &mut World, node: NodeId, proven_by: CertDigest) -> Code {
    let key = world.key();
    world.refused(Principal::Anonymous, Order::Recover { node, proven_by, key })
}

#[test]
fn a_node_that_slept_through_a_rotation_recovers_to_the_current_row() {
    let mut world = World::new();
    let node = world.node("n1");
    let (old, certificate) = world.newest(&Principal::Node(node));
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ] {
        world.enter(AuthorityType::Host, phase);
    }
    world.pass(29 * DAY_MS);
    let key = world.key();
    let order = Order::Recover {
        node,
        proven_by: old,
        key,
    };
    let decision = world.decide(Principal::Anonymous, order.clone()).unwrap();
    assert_eq!(names_of(&decision), ["node.recovered", "authorization.granted"]);
    let granted = world.last_granted();
    assert_eq!(granted.issuer, world.ca(AuthorityType::Host, false));
    assert_ne!(granted.issuer, certificate.issuer);
    assert_eq!(
        (granted.usage, granted.names),
        (LeafUse::Both, vec!["n1".parse().unwrap()])
    );
    // The same request again, before and after it is signed.
    let again = world.decide(Principal::Anonymous, order.clone()).unwrap();
    assert!(again.facts.is_empty() && again.repeats.is_some());
    world.sign();
    let signed = world.ask(Principal::Anonymous, order).unwrap();
    assert_eq!((&again.answer, &signed), (&decision.answer, &decision.answer));
    assert!(matches!(signed, Answer::Joined { node: n, .. } if n == node));
}

#[test]
fn a_recovery_is_possible_until_max_offline_after_the_expiry() {
    let mut world = World::new();
    let node = world.node("n1");
    let (old, _) = world.newest(&Principal::Node(node));
    world.pass(31 * DAY_MS);
    let key = world.key();
    world
        .ask(
            Principal::Anonymous,
            Order::Recover {
                node,
                proven_by: old,
                key,
            },
        )
        .unwrap();
    world.pass(1);
    assert_eq!(refused(&mut world, node, old), Code::RecoveryRefused);
}

#[test]
fn only_a_certificate_of_that_node_recovers_it() {
    let mut world = World::new();
    let (node, other) = (world.node("n1"), world.node("n2"));
    let (of_other, _) = world.newest(&Principal::Node(other));
    let (of_admin, _) = world.newest(&admin());
    for proof in [of_other, of_admin, CertDigest([3; 32])] {
        assert_eq!(refused(&mut world, node, proof), Code::RecoveryRefused);
    }
}

#[test]
fn a_removed_node_does_not_recover() {
    let mut world = World::new();
    let node = world.node("n1");
    let (old, _) = world.newest(&Principal::Node(node));
    world.ask(admin(), Order::RemoveNode { node }).unwrap();
    assert_eq!(refused(&mut world, node, old), Code::NodeRemoved);
}

#[test]
fn a_restored_backup_is_superseded_ten_minutes_after_the_newer_certificate_was_used() {
    let mut world = World::new();
    let node = world.node("n1");
    let (old, _) = world.newest(&Principal::Node(node));
    world.renew(node);
    let key = world.key();
    // Never presented: it supersedes nothing.
    world
        .ask(
            Principal::Anonymous,
            Order::Recover {
                node,
                proven_by: old,
                key,
            },
        )
        .unwrap();
    world.sign();
    let report = world.report_of(1, 1);
    world.report(node, report).unwrap();
    world.pass(10 * 60_000 - 1);
    let key = world.key();
    world
        .ask(
            Principal::Anonymous,
            Order::Recover {
                node,
                proven_by: old,
                key,
            },
        )
        .unwrap();
    world.pass(1);
    assert_eq!(refused(&mut world, node, old), Code::CertificateSuperseded);
}

#[test]
fn a_server_certificate_proves_no_recovery() {
    let mut world = World::new();
    world.enter(AuthorityType::Host, Phase::Init);
    world.enter(AuthorityType::Host, Phase::UpdateClients);
    let node = world.node("n1");
    let old = world.ca(AuthorityType::Host, false);
    world.request(node, LeafUse::Server, Some(old)).unwrap();
    world.sign();
    let (server, _) = world.newest(&Principal::Node(node));
    assert_eq!(refused(&mut world, node, server), Code::RecoveryRefused);
}

#[test]
fn a_node_whose_name_was_taken_while_it_slept_needs_a_person() {
    let mut world = World::new();
    let node = world.node("n1");
    let (old, _) = world.newest(&Principal::Node(node));
    world.pass(2 * DAY_MS);
    world.node("n1");
    assert_eq!(refused(&mut world, node, old), Code::NameTaken);
}

#[test]
fn a_node_whose_name_or_address_a_gateway_took_while_it_slept_does_not_recover_with_it() {
    for (names, addresses) in [(["cp", "n1"], ["10.0.0.1"]), (["cp", "cp2"], ["10.0.0.7"])] {
        let mut world = World::new();
        let node = world.node_at("n1", "10.0.0.7");
        let (old, _) = world.newest(&Principal::Node(node));
        world.pass(2 * DAY_MS);
        world.start_gateway(&names, &addresses);
        assert_eq!(refused(&mut world, node, old), Code::NameReserved);
    }
}

#[test]
fn a_recovery_that_was_overtaken_by_a_gateway_with_its_name_is_void() {
    let mut world = World::new();
    let node = world.node("n1");
    let (old, _) = world.newest(&Principal::Node(node));
    world.pass(2 * DAY_MS);
    let key = world.key();
    let recover = Order::Recover {
        node,
        proven_by: old,
        key,
    };
    // Decided beside each other, on two subjects: the log has the gateway first.
    let facts = world.copy().decide(Principal::Anonymous, recover).unwrap().facts;
    world.start_gateway(&["n1"], &[]);
    for fact in facts {
        world.append(Principal::Anonymous, fact);
    }
    assert!(world.state.pending.is_empty());
}

#[test]
fn a_recovery_needs_a_key_of_its_own() {
    let mut world = World::new();
    let (node, other) = (world.node("n1"), world.node("n2"));
    let (old, certificate) = world.newest(&Principal::Node(node));
    let (_, foreign) = world.newest(&Principal::Node(other));
    for spki in [
        certificate.spki,
        foreign.spki,
        world.ca(AuthorityType::Host, false),
    ] {
        let key = domain::command::KeyRequest {
            spki,
            public_key: "key".into(),
        };
        let order = Order::Recover {
            node,
            proven_by: old,
            key,
        };
        assert_eq!(world.refused(Principal::Anonymous, order), Code::KeyReused);
    }
}
