//! What somebody revokes by hand.

use domain::{
    authority::{AuthorityType, KeyKind},
    command::{Answer, Order, Revocable},
    decide::certificates::revoke::MAX_REVOKED,
    event::LeafUse,
    id::{CertDigest, Principal, Serial},
    refusal::Code,
    state::DeniedCertificate,
    time::{DAY_MS, MINUTE_MS},
};

use crate::{
    signing::{cluster, order, token},
    world::{World, admin},
};

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
fn a_revocation_needs_a_reason() {
    let mut world = World::new();
    let node = world.node("n1");
    for reason in [None, Some(""), Some("  ")] {
        let target = Revocable::Node(node);
        let refusal = world
            .decide_because(admin(), Order::RevokeCertificates { target }, reason)
            .unwrap_err();
        assert_eq!(refusal.code, Code::ReasonRequired);
    }
    assert!(!world.newest(&Principal::Node(node)).1.revoked);
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

#[test]
fn a_node_that_was_away_beyond_its_certificates_cannot_come_back_with_one_that_was_revoked() {
    for by_token in [false, true] {
        let mut world = World::new();
        let node = world.node("n1");
        let (proven_by, certificate) = world.newest(&Principal::Node(node));
        world.pass(3 * DAY_MS);
        assert!(certificate.not_after < world.now);
        let token = world.state.nodes[&node].token;
        let target = match by_token {
            true => Revocable::IssuedByToken(token),
            false => Revocable::Node(node),
        };
        // Something has happened since, which tells the log what time it is.
        world.node("n2");
        assert_eq!(revoke(&mut world, target), Ok(1));
        let key = world.key();
        let recover = Order::Recover { node, proven_by, key };
        assert_eq!(
            world.refused(Principal::Anonymous, recover),
            Code::RecoveryRefused
        );
    }
}

#[test]
fn what_was_asked_with_a_certificate_that_is_revoked_meanwhile_is_not_signed() {
    let mut world = World::new();
    let node = world.node("n1");
    let principal = Principal::Node(node);
    let before = world.copy().state;
    world.shown = Some(world.newest(&principal).0);
    world.request(node, LeafUse::Both, None).unwrap();
    let granted = world.last_granted();
    // The two are decided on one state, and the revocation comes first in the log.
    world.state = before;
    world.shown = None;
    assert_eq!(revoke(&mut world, Revocable::Node(node)), Ok(1));
    world.shown = Some(world.newest(&principal).0);
    world.append(principal.clone(), granted.clone().into());
    assert!(!world.state.pending.contains_key(&granted.authorization));
    // And whoever asks later, over a connection from before, gets nothing.
    let refusal = world.request(node, LeafUse::Both, None).unwrap_err();
    assert_eq!(refusal.code, Code::CertificateUnknown);
}

#[test]
fn a_certificate_that_was_signed_while_its_holder_was_revoked_is_denied() {
    let mut world = World::new();
    let node = world.node("n1");
    world.request(node, LeafUse::Both, None).unwrap();
    let granted = world.last_granted();
    assert_eq!(revoke(&mut world, Revocable::Node(node)), Ok(1));
    let due = world.state.types[&AuthorityType::Host].bundle_due;
    world.sign_one(&granted);
    let of = &world.state.types[&AuthorityType::Host];
    assert!(of.denied.values().any(|denied| denied.serial == granted.serial));
    assert!(of.bundle_due > due, "verifiers learn of it");
    // A second signature for what is signed already never leaves the signer, and denies nothing.
    let (token, key) = (world.token(&["n2"], 1), world.key());
    world
        .ask(Principal::Anonymous, World::join_order(token, "n2", key, None))
        .unwrap();
    let granted = world.last_granted();
    world.sign_one(&granted);
    world.sign_one(&granted);
    let of = &world.state.types[&AuthorityType::Host];
    assert!(!of.denied.values().any(|denied| denied.serial == granted.serial));
}

#[test]
fn a_node_keeps_its_name_while_its_next_certificate_is_being_made() {
    let mut world = World::new();
    let node = world.node("n1");
    let serial = world.newest(&Principal::Node(node)).1.serial;
    world.request(node, LeafUse::Both, None).unwrap();
    assert_eq!(revoke(&mut world, Revocable::Serial(serial)), Ok(1));
    let (token, key) = (world.token(&["n1"], 1), world.key());
    let other = World::join_order(token, "n1", key, None);
    assert_eq!(world.refused(Principal::Anonymous, other), Code::NameTaken);
}

#[test]
fn a_token_cannot_be_called_back_and_a_deny_list_that_no_bundle_holds_is_not_begun() {
    let mut world = cluster();
    let sign = order(&mut world, AuthorityType::Jwt, token());
    world.ask(admin(), Order::Sign(Box::new(sign))).unwrap();
    world.sign();
    let app = Principal::External("app".into());
    let serial = world.newest(&app).1.serial;
    for target in [
        Revocable::Serial(serial),
        Revocable::External("app".parse().unwrap()),
    ] {
        assert_eq!(revoke(&mut world, target), Err(Code::NotFound));
    }
    let node = world.node("n1");
    let (issuer, not_after) = (world.ca(AuthorityType::Host, false), world.now.plus_ms(MINUTE_MS));
    let at = world.now;
    let of = world.state.types.get_mut(&AuthorityType::Host).unwrap();
    for n in 0..MAX_REVOKED {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&n.to_be_bytes());
        let denied = DeniedCertificate {
            serial: Serial([7; 16]),
            issuer,
            kind: KeyKind::Tls,
            not_after,
            at,
        };
        of.denied.insert(CertDigest(digest), denied);
    }
    assert_eq!(revoke(&mut world, Revocable::Node(node)), Err(Code::TooLarge));
    // What has expired is on no list any more.
    world.pass(2 * MINUTE_MS);
    world.node("n2");
    assert_eq!(revoke(&mut world, Revocable::Node(node)), Ok(1));
}
