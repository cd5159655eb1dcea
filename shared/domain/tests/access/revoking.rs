//! What somebody revokes by hand.

use domain::{
    authority::AuthorityType,
    command::{Answer, Order, Revocable},
    event::LeafUse,
    id::{Principal, Serial},
    refusal::Code,
};

use crate::world::{World, admin};

pub(crate) fn revoke(world: &mut World, target: Revocable) -> Result<u32, Code> {
    match world.ask(admin(), Order::RevokeCertificates { target }) {
        Ok(Answer::Revoked { certificates }) => Ok(certificates),
        Ok(other) => panic!("{other:?}"),
        Err(refusal) => Err(refusal.code),
    }
}

#[test]
fn what_is_revoked_counts_no_more_and_is_owed_its_record() {
    let mut world = World::new();
    let (one, two) = (world.node("n1"), world.node("n2"));
    let token = world.state.nodes[&two].token;
    let serial = world.newest(&Principal::Node(one)).1.serial;
    assert_eq!(revoke(&mut world, Revocable::Serial(serial)), Ok(1));
    assert!(world.newest(&Principal::Node(one)).1.revoked);
    assert!(!world.newest(&Principal::Node(two)).1.revoked);
    assert_eq!(revoke(&mut world, Revocable::IssuedByToken(token)), Ok(1));
    assert!(world.newest(&Principal::Node(two)).1.revoked);
    assert_eq!(world.state.to_revoke.len(), 2);
    let denied = &world.state.types[&AuthorityType::Host].denied;
    assert_eq!(denied.len(), 2);
    // Nothing of it counts any more, and so nothing can be revoked.
    for target in [
        Revocable::Serial(serial),
        Revocable::Serial(Serial([9; 16])),
        Revocable::Node(one),
        Revocable::IssuedByToken(token),
        Revocable::External("nobody".parse().unwrap()),
    ] {
        assert_eq!(revoke(&mut world, target), Err(Code::NotFound));
    }
}

#[test]
fn an_authorisation_of_somebody_whose_certificates_are_revoked_is_signed_no_more() {
    let mut world = World::new();
    let node = world.node("n1");
    world.request(node, LeafUse::Both, None).unwrap();
    let waiting = world.last_granted().authorization;
    assert_eq!(revoke(&mut world, Revocable::Node(node)), Ok(1));
    assert!(!world.state.pending.contains_key(&waiting));
}
