//! The certificate of sshd follows the row, whatever else goes on.

use super::*;

/// sshd's host key.
const KEY: SpkiPin = SpkiPin([0x55; 32]);

/// The SSH authority of the same generation as a TLS one.
pub(super) fn authority(of: SpkiPin) -> SpkiPin {
    SpkiPin(of.0.map(|byte| byte ^ 0xf0))
}

/// A certificate comes at once.
pub(super) fn answer(have: &mut Have, issuer: SpkiPin, position: &mut u64) {
    *position += 1;
    let sshd = have.sshd.as_mut().expect("only a node with an sshd asks");
    sshd.received = Some(Leaf {
        spki: sshd.key.expect("it was read"),
        not_before: have.now,
        not_after: have.now.plus_ms(LIFE_MS),
        ..leaf(LeafUse::Server, issuer, *position)
    });
}

fn with_sshd(have: Have) -> Have {
    let sshd = Sshd {
        key: Some(KEY),
        is_anothers: false,
        received: None,
        asked: None,
    };
    Have {
        sshd: Some(sshd),
        ..have
    }
}

fn issuer(have: &Have) -> Option<SpkiPin> {
    have.installed.ssh.as_ref().map(|leaf| leaf.issuer)
}

/// What a node at rest with an sshd of authority A holds.
fn certified() -> Have {
    let mut have = with_sshd(settled());
    carry_out(&mut have, &row(5, Phase::Standby, &[A], A, A), 10);
    assert_eq!(issuer(&have), Some(authority(A)));
    have
}

#[test]
fn an_sshd_is_certified_and_reported_and_then_there_is_rest() {
    let have = certified();
    let reported = facts(&have.reported.as_ref().expect("it was reported").0, false, false);
    let reported = &reported[&HOST];
    assert_eq!(reported.ssh_issuer, Some(authority(A)));
    assert_eq!(reported.ssh_not_after, Some(Timestamp(LIFE_MS as i64)));
    assert_eq!(reconcile(&have, &row(5, Phase::Standby, &[A], A, A)), vec![]);
}

#[test]
fn its_certificate_follows_the_server_through_a_rotation_and_back() {
    for (back, last) in [(false, B), (true, A)] {
        let mut have = certified();
        let mut steps = vec![
            (Phase::Init, &[A, B][..], A, A),
            (Phase::UpdateClients, &[A, B], B, A),
            (Phase::UpdateServers, &[A, B], B, B),
        ];
        if back {
            steps.push((Phase::Rollback, &[A, B], A, A));
        }
        for (revision, (phase, trusted, client, server)) in (6..).zip(steps) {
            carry_out(
                &mut have,
                &row(revision, phase, trusted, client, server),
                revision * 10,
            );
            assert_eq!(issuer(&have), Some(authority(server)), "{phase}");
        }
        carry_out(&mut have, &row(20, Phase::Standby, &[last], last, last), 200);
        assert_eq!(issuer(&have), Some(authority(last)));
    }
}

#[test]
fn one_that_was_asked_for_before_the_row_changed_is_not_installed() {
    let mut have = certified();
    answer(&mut have, authority(A), &mut 50);
    let want = row(8, Phase::UpdateServers, &[A, B], B, B);
    let held = have.installed.ssh.clone();
    for step in reconcile(&have, &want) {
        if let Step::Install(next) = step {
            assert_eq!(next.ssh, held, "the one before stays until the right one comes");
        }
    }
    carry_out(&mut have, &want, 60);
    assert_eq!(issuer(&have), Some(authority(B)));
    // Nor does one come back that was issued earlier.
    answer(&mut have, authority(B), &mut 55);
    assert_eq!(reconcile(&have, &want), vec![]);
}

#[test]
fn it_is_renewed_at_half_its_life_and_asked_for_once() {
    let mut have = certified();
    let want = row(5, Phase::Standby, &[A], A, A);
    let asks = Step::CertifySshd { issuer: authority(A) };
    have.now = Timestamp(LIFE_MS as i64 / 2);
    assert!(reconcile(&have, &want).contains(&asks));
    have.sshd.as_mut().expect("it is there").asked = Some(authority(A));
    assert!(!reconcile(&have, &want).contains(&asks));
    have.sshd.as_mut().expect("it is there").asked = Some(authority(B));
    assert!(
        reconcile(&have, &want).contains(&asks),
        "another authority was asked"
    );
}

#[test]
fn one_that_names_another_node_stays_until_the_right_one_comes() {
    let mut have = certified();
    let want = row(5, Phase::Standby, &[A], A, A);
    have.sshd.as_mut().expect("it is there").is_anothers = true;
    let asks = Step::CertifySshd { issuer: authority(A) };
    assert_eq!(reconcile(&have, &want), vec![asks]);
    answer(&mut have, authority(A), &mut 50);
    let steps = reconcile(&have, &want);
    assert!(
        matches!(&steps[..], [Step::Install(next)] if next.ssh.as_ref().is_some_and(|l| l.position.0 == 51))
    );
}

#[test]
fn an_sshd_with_another_key_or_without_an_agent_loses_the_certificate_of_before() {
    let want = row(5, Phase::Standby, &[A], A, A);
    let mut have = certified();
    // A key that cannot be read for a while is no other key.
    have.sshd.as_mut().expect("it is there").key = None;
    assert_eq!(reconcile(&have, &want), vec![]);
    have.sshd.as_mut().expect("it is there").key = Some(SpkiPin([0x56; 32]));
    have.sshd.as_mut().expect("it is there").received = None;
    carry_out(&mut have, &want, 70);
    assert_eq!(
        have.installed.ssh.as_ref().map(|leaf| leaf.spki),
        Some(SpkiPin([0x56; 32]))
    );
    have.sshd = None;
    carry_out(&mut have, &want, 80);
    assert_eq!(have.installed.ssh, None);
    let reported = facts(&have.reported.as_ref().expect("it was reported").0, false, false);
    assert_eq!(reported[&HOST].ssh_issuer, None);
}

#[test]
fn nothing_else_waits_for_it() {
    // It is refused for ever: the node narrows, serves and drains all the same.
    let mut have = certified();
    let sshd = have.sshd.as_mut().expect("it is there");
    (sshd.received, sshd.asked) = (None, Some(authority(B)));
    for (revision, (phase, trusted, client, server)) in (6..).zip([
        (Phase::Init, &[A, B][..], A, A),
        (Phase::UpdateClients, &[A, B], B, A),
        (Phase::UpdateServers, &[A, B], B, B),
        (Phase::Standby, &[B], B, B),
    ]) {
        carry_out(
            &mut have,
            &row(revision, phase, trusted, client, server),
            revision * 10,
        );
    }
    assert_eq!(have.installed.trusted[&HOST], [B].into());
    assert_eq!(
        issuer(&have),
        Some(authority(A)),
        "what sshd presents is what is reported"
    );
}
