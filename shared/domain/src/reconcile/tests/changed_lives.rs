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
    let reported = have.reported.map(|(generation, _)| facts(&generation, false, false));
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
