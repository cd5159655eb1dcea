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
