//! A node that joined again with another grant, and one whose way forward failed.

use super::*;

#[test]
fn a_type_that_is_not_granted_any_more_is_neither_trusted_nor_reported() {
    let mut have = settled();
    have.installed.trusted.insert(AuthorityType::User, [B].into());
    have.installed.revisions.insert(AuthorityType::User, Position(4));
    have.reported = Some((have.installed.clone(), false));
    let installed = carry_out(&mut have, &row(5, Phase::Standby, &[A], A, A), 10);
    assert_eq!(installed.len(), 1);
    assert_eq!(have.installed, settled().installed);
    let reported = have
        .reported
        .map(|(generation, _)| facts(&generation, false, false));
    assert_eq!(
        reported.map(|facts| facts.into_keys().collect::<Vec<_>>()),
        Some(vec![HOST])
    );
}

#[test]
fn a_failed_renewal_does_not_bring_back_a_certificate_that_has_expired_meanwhile() {
    let mut have = settled();
    let renewed = Leaf {
        not_after: Timestamp(3 * LIFE_MS as i64),
        ..leaf(LeafUse::Both, A, 9)
    };
    have.installed = generation(5, &[A], renewed.clone(), renewed);
    have.proof = Proof::Failed { count: 1 };
    let want = row(5, Phase::Standby, &[A], A, A);
    have.now = Timestamp(LIFE_MS as i64 - 1);
    assert_eq!(reconcile(&have, &want), [Step::Restore]);
    have.now = Timestamp(LIFE_MS as i64);
    assert_eq!(reconcile(&have, &want), [Step::Prove]);
}

#[test]
fn a_node_whose_next_certificate_is_at_hand_needs_no_way_back() {
    let mut have = settled();
    let want = row(5, Phase::Standby, &[A], A, A);
    let next = leaf(LeafUse::Both, A, 9);
    have.received.push(next.clone());
    assert!(has_way_forward(&have, &want, &BTreeSet::new()));
    assert!(!has_way_forward(&have, &want, &[next.spki].into()));
    have.now = next.not_after;
    assert!(!has_way_forward(&have, &want, &BTreeSet::new()));
}

/// The row moved between the answer to a join or a recovery and its installation; or the proof failed after a gateway
/// was shown the certificate.
#[test]
fn the_newest_client_certificate_proves_the_node_until_a_later_one_has_passed() {
    let mut have = settled();
    let want = row(5, Phase::Standby, &[A], A, A);
    let newest = leaf(LeafUse::Client, B, 30);
    have.received.push(newest.clone());
    for last_passed in [have.last_passed.clone(), None] {
        have.last_passed = last_passed;
        assert!(
            !reconcile(&have, &want).contains(&Step::Discard { spki: newest.spki }),
            "its key is thrown away"
        );
        assert!(keys_to_keep(&have).contains(&newest.spki));
        carry_out(&mut have, &want, 10);
        assert_eq!(have.received, std::slice::from_ref(&newest), "it is installed");
    }
    have.now = Timestamp(LIFE_MS as i64 / 2);
    carry_out(&mut have, &want, 40);
    assert_eq!(
        have.last_passed.and_then(|g| g.client).map(|l| l.position),
        Some(Position(41))
    );
    assert!(!have.received.contains(&newest));
}
