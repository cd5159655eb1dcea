//! What the fold forgets, so that it does not grow with everybody who was ever there.

use domain::{
    authority::AuthorityType,
    command::Order,
    event::Form,
    id::Principal,
    refusal::Code,
    time::{DAY_MS, HOUR_MS, MINUTE_MS},
};

use crate::{
    signing::{ask, cluster, order, ssh, token},
    world::{World, admin},
};

#[test]
fn what_expired_of_a_token_s_holder_is_forgotten_at_the_next() {
    let mut world = cluster();
    let app = Principal::External("app".into());
    for _ in 0..3 {
        let sign = order(&mut world, AuthorityType::Jwt, token());
        ask(&mut world, sign).unwrap();
        world.sign();
        world.pass(16 * MINUTE_MS);
    }
    // The last one has expired too, and nobody has asked since.
    assert_eq!(world.state.held[&app].len(), 1);
}

#[test]
fn a_name_for_each_job_leaves_nothing_behind_once_its_certificate_is_over() {
    let mut world = cluster();
    let jobs = 50;
    for job in 0..jobs {
        let mut sign = order(&mut world, AuthorityType::Openssh, ssh(&["deploy"]));
        sign.holder = format!("job-{job}").parse().unwrap();
        ask(&mut world, sign).unwrap();
        world.sign();
    }
    let kept = |world: &World| {
        let holders = world.state.held.keys();
        let externals = holders.filter(|h| matches!(h, Principal::External(_))).count();
        let theirs = world
            .state
            .keys
            .values()
            .filter(|h| matches!(h, Principal::External(_)));
        (externals, theirs.count(), world.state.to_forget.len())
    };
    assert_eq!((kept(&world).0, kept(&world).1), (jobs, jobs));
    world.pass(2 * HOUR_MS);
    // Whoever gets a certificate now: a few of the old ones go each time, and no living one does.
    for job in 0..10 {
        let mut sign = order(&mut world, AuthorityType::Openssh, ssh(&["deploy"]));
        sign.holder = format!("later-{job}").parse().unwrap();
        ask(&mut world, sign).unwrap();
        world.sign();
    }
    let (externals, keys, _) = kept(&world);
    assert_eq!((externals, keys), (10, 10));
}

#[test]
fn a_key_is_free_again_once_nothing_that_was_certified_of_it_is_remembered_and_not_before() {
    let mut world = cluster();
    let first = order(&mut world, AuthorityType::SamlIdp, Form::Tls);
    let key = first.key.clone();
    let until = ask(&mut world, first.clone()).unwrap().not_after;
    world.sign();
    let mut other = first;
    other.holder = "other".parse().unwrap();
    let refused = |world: &mut World| world.refused(admin(), Order::Sign(Box::new(other.clone())));
    assert_eq!(refused(&mut world), Code::KeyReused);
    world.now = until.plus_ms(MINUTE_MS);
    // An old certificate for TLS is a way back for a while.
    assert_eq!(refused(&mut world), Code::KeyReused);
    world.pass(world.state.settings().max_offline_ms);
    let sign = order(&mut world, AuthorityType::Openssh, ssh(&["deploy"]));
    ask(&mut world, sign).unwrap();
    world.sign();
    assert!(!world.state.keys.contains_key(&key.spki));
    ask(&mut world, other.clone()).unwrap();
}

#[test]
fn what_a_removed_node_held_is_forgotten_in_its_time() {
    let mut world = cluster();
    let (gone, stays) = (world.node("n1"), world.node("n2"));
    let (gone, stays) = (Principal::Node(gone), Principal::Node(stays));
    let Principal::Node(node) = gone else {
        unreachable!("it is one")
    };
    world.ask(admin(), Order::RemoveNode { node }).unwrap();
    assert!(
        world.state.held.contains_key(&gone),
        "an old certificate is told from an unknown one for a while"
    );
    world.pass(world.state.settings().max_offline_ms + 2 * DAY_MS);
    let sign = order(&mut world, AuthorityType::Openssh, ssh(&["deploy"]));
    ask(&mut world, sign).unwrap();
    world.sign();
    assert!(!world.state.held.contains_key(&gone));
    assert!(!world.state.keys.values().any(|holder| *holder == gone));
    assert!(
        world.state.held.contains_key(&stays),
        "its last one is kept: it does not ask for the first once more"
    );
}
