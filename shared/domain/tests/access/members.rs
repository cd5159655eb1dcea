//! Members: starting, reporting, lost, stopped.

use domain::{
    authority::AuthorityType,
    command::Order,
    id::{BootId, MemberId, Principal},
    phase::Phase,
    refusal::Code,
    time::HOUR_MS,
};
use uuid::Uuid;

use crate::world::{World, clock, names_of, pin};

fn boot(n: u128) -> BootId {
    BootId(Uuid::from_u128(n))
}

fn gateway(world: &World) -> Principal {
    Principal::Gateway(world.gateway)
}

fn beat(world: &World, of: u128, seq: u64) -> Order {
    let facts = world.report_of(of, seq).authorities;
    Order::ReportMember {
        member: world.gateway,
        boot: boot(of),
        seq,
        facts,
    }
}

fn lose(world: &World, of: u128, silent_ms: u64, uptime_ms: u64) -> Order {
    Order::LoseMember {
        member: world.gateway,
        boot: boot(of),
        silent_ms,
        uptime_ms,
    }
}

#[test]
fn a_steady_heartbeat_is_no_event_and_changed_facts_are() {
    let mut world = World::new();
    world.start_gateway(&["cp"], &[]);
    let order = beat(&world, 1, 2);
    assert!(world.decide(gateway(&world), order).unwrap().facts.is_empty());
    world.enter(AuthorityType::Host, Phase::Init);
    let order = beat(&world, 1, 3);
    assert_eq!(
        names_of(&world.decide(gateway(&world), order).unwrap()),
        ["member.reported"]
    );
}

#[test]
fn a_report_that_was_overtaken_says_nothing() {
    let mut world = World::new();
    world.start_gateway(&["cp"], &[]);
    let early = beat(&world, 1, 5);
    world.enter(AuthorityType::Host, Phase::Init);
    let order = beat(&world, 1, 6);
    world.ask(gateway(&world), order).unwrap();
    assert_eq!(world.refused(gateway(&world), early), Code::StaleView);
}

#[test]
fn a_new_boot_replaces_the_old_one() {
    let mut world = World::new();
    world.start_gateway(&["cp"], &[]);
    let again = world.gateway_start(1, &["cp"], &[]);
    assert!(
        world.decide(gateway(&world), again).unwrap().facts.is_empty(),
        "the same start, repeated"
    );
    let next = world.gateway_start(2, &["cp2"], &[]);
    assert_eq!(
        names_of(&world.decide(gateway(&world), next).unwrap()),
        ["member.started"]
    );
    let old = beat(&world, 1, 9);
    assert_eq!(world.refused(gateway(&world), old), Code::StaleView);
    let goodbye = Order::StopMember {
        member: world.gateway,
        boot: boot(1),
    };
    assert!(
        world.decide(gateway(&world), goodbye).unwrap().facts.is_empty(),
        "a late goodbye of the old one"
    );
    assert!(world.state.members[&world.gateway].running);
}

#[test]
fn silence_counts_at_the_earliest_from_the_orchestrators_own_start() {
    let mut world = World::new();
    world.start_gateway(&["cp"], &[]);
    for (silent, uptime) in [(29_999, 90_000), (90_000, 29_999), (600_000, 0)] {
        let order = lose(&world, 1, silent, uptime);
        assert_eq!(world.refused(clock(), order), Code::StaleView);
    }
    let order = lose(&world, 2, 90_000, 90_000);
    assert!(
        world.decide(clock(), order).unwrap().facts.is_empty(),
        "another start than the current one"
    );
    let order = lose(&world, 1, 30_000, 30_000);
    assert_eq!(
        names_of(&world.decide(clock(), order.clone()).unwrap()),
        ["member.lost"]
    );
    assert!(
        world.decide(clock(), order).unwrap().facts.is_empty(),
        "lost once"
    );
}

#[test]
fn a_lost_member_begins_again_with_a_start() {
    let mut world = World::new();
    world.start_gateway(&["cp"], &[]);
    let order = lose(&world, 1, 30_000, 30_000);
    world.ask(clock(), order).unwrap();
    let order = beat(&world, 1, 2);
    assert_eq!(world.refused(gateway(&world), order), Code::MemberUnknown);
    let Order::StartMember {
        member,
        boot,
        service,
        names,
        addresses,
        facts,
        ..
    } = world.gateway_start(1, &["cp"], &[])
    else {
        panic!("it is a start");
    };
    let again = Order::StartMember {
        member,
        boot,
        seq: 3,
        service,
        names,
        addresses,
        facts,
    };
    assert_eq!(
        names_of(&world.decide(gateway(&world), again).unwrap()),
        ["member.started"]
    );
}

#[test]
fn a_member_that_stops_binds_no_gate() {
    let mut world = World::new();
    world.start_gateway(&["cp"], &[]);
    let order = Order::StopMember {
        member: world.gateway,
        boot: boot(1),
    };
    assert_eq!(
        names_of(&world.decide(gateway(&world), order).unwrap()),
        ["member.stopped"]
    );
    assert!(!world.state.members[&world.gateway].running);
}

#[test]
fn a_member_takes_no_living_name_of_a_node_and_reports_no_unknown_authority() {
    let mut world = World::new();
    world.node("n1");
    let order = world.gateway_start(1, &["n1"], &[]);
    assert_eq!(world.refused(gateway(&world), order), Code::NameTaken);
    let mut order = world.gateway_start(1, &["cp"], &[]);
    if let Order::StartMember { facts, .. } = &mut order {
        facts
            .get_mut(&AuthorityType::Host)
            .unwrap()
            .trusted
            .insert(pin(0xdead));
    }
    assert_eq!(world.refused(gateway(&world), order), Code::ReportInvalid);
}

#[test]
fn a_member_takes_no_address_that_a_living_node_is_granted() {
    let mut world = World::new();
    let node = world.node_at("n1", "10.0.0.7");
    for taken in ["10.0.0.7", "::ffff:10.0.0.7"] {
        let order = world.gateway_start(1, &["cp"], &["127.0.0.1", taken]);
        assert_eq!(world.refused(gateway(&world), order), Code::NameTaken, "{taken}");
    }
    // Nobody is cut off by it: a living node is renewed, and one that is gone leaves its address.
    world.renew(node);
    world.pass(25 * HOUR_MS);
    world.start_gateway(&["cp"], &["127.0.0.1", "10.0.0.7"]);
}

#[test]
fn nobody_speaks_for_another_member() {
    let mut world = World::new();
    world.start_gateway(&["cp"], &[]);
    let stranger = Principal::Gateway(MemberId(Uuid::from_u128(7)));
    for order in [
        beat(&world, 1, 2),
        world.gateway_start(2, &["evil"], &[]),
        Order::StopMember {
            member: world.gateway,
            boot: boot(1),
        },
    ] {
        assert_eq!(world.refused(stranger.clone(), order), Code::NotPermitted);
    }
    let order = lose(&world, 1, 90_000, 90_000);
    assert_eq!(world.refused(stranger, order), Code::NotPermitted);
}
