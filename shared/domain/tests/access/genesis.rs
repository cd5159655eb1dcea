//! The beginning of a cluster.

use domain::{command::Order, command::Settings, refusal::Code};

use crate::world::{World, host, names_of};

#[test]
fn a_cluster_begins_with_itself_its_keys_its_admin_and_two_certificates_as_one() {
    let mut world = World::empty();
    let genesis = world.genesis(Settings::default());
    let decision = world.decide(host(), Order::Genesis(Box::new(genesis))).unwrap();
    assert_eq!(
        names_of(&decision),
        [
            "cluster.created",
            "authority.key-generated",
            "authority.activated",
            "authority.key-generated",
            "authority.activated",
            "authority.key-generated",
            "authority.activated",
            "access.user-added",
            "authorization.granted",
            "certificate.issued",
            "authorization.granted",
            "certificate.issued",
        ]
    );
    assert_eq!(
        decision.facts[0].holder(),
        "cluster",
        "of two first starts one wins: the condition stands here"
    );
    assert_eq!(world.state.users.len(), 1);
    assert_eq!(world.state.certificates.len(), 2);
    assert!(world.state.pending.is_empty());
}

#[test]
fn a_cluster_begins_once() {
    let mut world = World::new();
    let genesis = world.genesis(Settings::default());
    assert_eq!(
        world.refused(host(), Order::Genesis(Box::new(genesis))),
        Code::ClusterExists
    );
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let mut world = World::empty();
    let whole = world.genesis(Settings::default());
    let mut foreign_activation = whole.clone();
    foreign_activation.keys[0].1.authority = whole.keys[1].0.key.id;
    let mut foreign_certificate = whole.clone();
    foreign_certificate.certificates[0].1.authorization = whole.certificates[1].0.authorization;
    let mut somebody_else = whole.clone();
    somebody_else.admin = "mallory".parse().unwrap();
    let mut no_doors = whole;
    no_doors.keys.truncate(1);
    for genesis in [foreign_activation, foreign_certificate, somebody_else, no_doors] {
        assert_eq!(
            world.refused(host(), Order::Genesis(Box::new(genesis))),
            Code::BadRequest
        );
    }
}
