//! External consumers of exported authorities.

use domain::{
    authority::AuthorityType,
    command::{Expectation, Order},
    id::ConsumerName,
    phase::Phase,
    refusal::Code,
};

use crate::world::{World, admin, names_of};

const DB: AuthorityType = AuthorityType::Db;

fn consumer() -> ConsumerName {
    "billing".parse().unwrap()
}

fn add(owner: &str) -> Order {
    Order::AddConsumer {
        authority_type: DB,
        consumer: consumer(),
        owner: owner.into(),
        contact: "#billing".into(),
        probe: None,
    }
}

fn attest(world: &World, phase: Phase) -> Order {
    let expects = Expectation {
        rotation: world.state.types[&DB].rotation_id(),
        phase,
    };
    Order::AttestConsumer {
        authority_type: DB,
        consumer: consumer(),
        expects,
        probed: false,
        saw: None,
    }
}

#[test]
fn a_consumer_is_registered_once_with_somebody_who_answers_for_it() {
    let mut world = World::new();
    for owner in [" ", "two\nlines", "\u{1b}[31mred"] {
        assert_eq!(world.refused(admin(), add(owner)), Code::BadRequest, "{owner:?}");
    }
    world.ask(admin(), add("team billing")).unwrap();
    assert_eq!(world.refused(admin(), add("team billing")), Code::ConsumerExists);
    let withdraw = Order::WithdrawConsumer {
        authority_type: DB,
        consumer: consumer(),
    };
    assert_eq!(
        names_of(&world.decide(admin(), withdraw.clone()).unwrap()),
        ["consumer.withdrawn"]
    );
    assert_eq!(world.refused(admin(), withdraw), Code::ConsumerUnknown);
    let nothing = Order::AddConsumer {
        authority_type: AuthorityType::Jwt,
        consumer: consumer(),
        owner: "x".into(),
        contact: String::new(),
        probe: None,
    };
    assert_eq!(world.refused(admin(), nothing), Code::TypeNotInService);
}

#[test]
fn an_attestation_holds_for_the_phase_that_was_looked_at() {
    let mut world = World::new();
    let idle = attest(&world, Phase::Init);
    assert_eq!(world.refused(admin(), idle.clone()), Code::ConsumerUnknown);
    world.ask(admin(), add("team billing")).unwrap();
    assert_eq!(world.refused(admin(), idle), Code::NoRotation);
    world.enter(DB, Phase::Init);
    let order = attest(&world, Phase::Init);
    assert_eq!(
        names_of(&world.decide(admin(), order.clone()).unwrap()),
        ["consumer.attested"]
    );
    assert_eq!(
        names_of(&world.decide(admin(), order.clone()).unwrap()),
        ["command.noop"]
    );
    world.enter(DB, Phase::UpdateClients);
    assert_eq!(
        world.refused(admin(), order),
        Code::StaleView,
        "what was seen is not what is"
    );
}
