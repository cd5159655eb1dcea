//! Excluding, including and removing nodes.

use domain::{
    authority::AuthorityType,
    command::Order,
    event::Fact,
    id::{NodeId, Principal},
    phase::Phase,
    refusal::Code,
};
use uuid::Uuid;

use crate::world::{World, admin, names_of};

#[test]
fn a_node_is_excluded_from_the_rotations_in_progress_and_no_others() {
    let mut world = World::new();
    let node = world.node("n1");
    assert_eq!(
        world.refused(admin(), Order::ExcludeNode { node }),
        Code::NoRotation
    );
    world.enter(AuthorityType::Host, Phase::Init);
    world.enter(AuthorityType::Db, Phase::Init); // the node does not use it
    let decision = world.decide(admin(), Order::ExcludeNode { node }).unwrap();
    let Fact::NodeExcluded(excluded) = &decision.facts[0] else {
        panic!("{:?}", decision.facts)
    };
    assert_eq!(
        excluded.rotations.keys().copied().collect::<Vec<_>>(),
        [AuthorityType::Host]
    );
    let again = world.decide(admin(), Order::ExcludeNode { node }).unwrap();
    assert_eq!(names_of(&again), ["command.noop"]);
}

#[test]
fn an_exclusion_needs_a_reason() {
    let mut world = World::new();
    let node = world.node("n1");
    world.enter(AuthorityType::Host, Phase::Init);
    for reason in [None, Some(""), Some("  ")] {
        let refusal = world
            .decide_because(admin(), Order::ExcludeNode { node }, reason)
            .unwrap_err();
        assert_eq!(refusal.code, Code::ReasonRequired);
    }
}

#[test]
fn a_node_excluded_from_one_rotation_is_not_excluded_from_the_next() {
    let mut world = World::new();
    let node = world.node("n1");
    world.enter(AuthorityType::Host, Phase::Init);
    world.ask(admin(), Order::ExcludeNode { node }).unwrap();
    world.enter(AuthorityType::Host, Phase::Rollback);
    world.enter(AuthorityType::Host, Phase::Standby);
    world.enter(AuthorityType::Host, Phase::Init);
    assert_eq!(
        world.refused(admin(), Order::IncludeNode { node }),
        Code::NotExcluded
    );
    let decision = world.decide(admin(), Order::ExcludeNode { node }).unwrap();
    assert_eq!(names_of(&decision), ["node.excluded"]);
}

#[test]
fn an_excluded_node_is_included_again_once() {
    let mut world = World::new();
    let node = world.node("n1");
    world.enter(AuthorityType::Host, Phase::Init);
    assert_eq!(
        world.refused(admin(), Order::IncludeNode { node }),
        Code::NotExcluded
    );
    world.ask(admin(), Order::ExcludeNode { node }).unwrap();
    let decision = world.decide(admin(), Order::IncludeNode { node }).unwrap();
    assert_eq!(names_of(&decision), ["node.included"]);
    assert_eq!(
        world.refused(admin(), Order::IncludeNode { node }),
        Code::NotExcluded
    );
}

#[test]
fn a_member_is_no_node_and_cannot_be_excluded() {
    let mut world = World::new();
    world.start_gateway(&["cp"], &[]);
    world.enter(AuthorityType::Host, Phase::Init);
    let node = NodeId(world.gateway.0);
    let refusal = world.decide(admin(), Order::ExcludeNode { node }).unwrap_err();
    assert_eq!(refusal.code, Code::NodeUnknown);
    assert!(refusal.text.contains("control-plane service"), "{refusal}");
}

#[test]
fn what_is_unknown_cannot_be_removed_or_excluded() {
    let mut world = World::new();
    world.enter(AuthorityType::Host, Phase::Init);
    let node = NodeId(Uuid::from_u128(1));
    for order in [
        Order::ExcludeNode { node },
        Order::IncludeNode { node },
        Order::RemoveNode { node },
    ] {
        assert_eq!(world.refused(admin(), order), Code::NodeUnknown);
    }
}

#[test]
fn nodes_and_gateways_command_nothing() {
    let mut world = World::new();
    let (node, other) = (world.node("n1"), world.node("n2"));
    for principal in [
        Principal::Node(other),
        Principal::Gateway(world.gateway),
        Principal::Anonymous,
    ] {
        for order in [Order::ExcludeNode { node }, Order::RemoveNode { node }] {
            assert_eq!(world.refused(principal.clone(), order), Code::NotPermitted);
        }
    }
}
