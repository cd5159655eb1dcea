//! What could go wrong: a node that narrows too early, installs the wrong certificate, or never arrives.

use proptest::prelude::*;

use super::*;
use crate::{authority::AuthorityType, phase::Phase};

mod changed_lives;
mod of_sshd;

const HOST: AuthorityType = AuthorityType::Host;
const A: SpkiPin = SpkiPin([0xa; 32]);
const B: SpkiPin = SpkiPin([0xb; 32]);
const LIFE_MS: u64 = 1_000_000;

fn leaf(usage: LeafUse, issuer: SpkiPin, position: u64) -> Leaf {
    let spki = SpkiPin([position as u8; 32]);
    let (not_before, not_after) = (Timestamp(0), Timestamp(LIFE_MS as i64));
    Leaf {
        usage,
        issuer,
        spki,
        position: Position(position),
        not_before,
        not_after,
    }
}

fn row(revision: u64, phase: Phase, trusted: &[SpkiPin], client: SpkiPin, server: SpkiPin) -> DesiredState {
    let authority = DesiredAuthority {
        revision: Position(revision),
        rotation: None,
        phase,
        uses: Uses::ALL,
        trusted: trusted.iter().copied().collect(),
        client_issuer: Some(client),
        server_issuer: Some(server),
        ssh_issuer: Some(of_sshd::authority(server)),
        also_serve: None,
        retiring: (phase == Phase::UpdateServers).then_some(A),
        excluded_peers: BTreeSet::new(),
        started: None,
    };
    DesiredState {
        position: Position(revision),
        names: vec![],
        authorities: [(HOST, authority)].into(),
        drain_timeout_ms: 1,
        node_ttl_ms: LIFE_MS,
    }
}

fn generation(revision: u64, trusted: &[SpkiPin], client: Leaf, server: Leaf) -> Generation {
    Generation {
        revisions: [(HOST, Position(revision))].into(),
        trusted: [(HOST, trusted.iter().copied().collect())].into(),
        client: Some(client),
        server: Some(server),
        ssh: None,
    }
}

/// A node that holds and has proven the row of `standby` on authority A.
fn settled() -> Have {
    let both = leaf(LeafUse::Both, A, 1);
    let installed = generation(5, &[A], both.clone(), both);
    Have {
        now: Timestamp(0),
        installed: installed.clone(),
        proof: Proof::Passed,
        last_passed: Some(installed.clone()),
        received: vec![],
        in_flight: vec![],
        sshd: None,
        serving: true,
        synced: true,
        since_start_ms: 0,
        sessions_on: BTreeSet::new(),
        only_excluded_on: BTreeSet::new(),
        draining: None,
        reported: Some((installed, false)),
        renew_permille: 500,
    }
}

/// A signer that issues at once, a disk and a prover that never fail: takes the steps until none is left.
/// Returns every installation on the way: what was there before, and after.
fn carry_out(have: &mut Have, want: &DesiredState, first_position: u64) -> Vec<(Generation, Generation)> {
    let mut installed = vec![];
    let mut position = first_position;
    for _ in 0..60 {
        let steps = reconcile(have, want);
        if steps.is_empty() {
            return installed;
        }
        for step in steps {
            match step {
                Step::Report => {
                    let on = have
                        .sessions_on
                        .difference(&have.only_excluded_on)
                        .any(|issuer| *issuer == A);
                    let flag = on && want.authorities[&HOST].retiring == Some(A);
                    have.reported = Some((have.installed.clone(), flag));
                }
                Step::Restore => have.installed = have.last_passed.clone().expect("there is one"),
                Step::Install(next) => {
                    installed.push((std::mem::replace(&mut have.installed, next.clone()), next));
                    have.proof = Proof::Due;
                }
                Step::Prove => {
                    have.proof = Proof::Passed;
                    have.last_passed = Some(have.installed.clone());
                }
                Step::Discard { spki } => have.received.retain(|l| l.spki != spki),
                Step::Request { usage, issuer } => {
                    position += 1;
                    have.received.push(Leaf {
                        not_before: have.now,
                        not_after: have.now.plus_ms(LIFE_MS),
                        ..leaf(usage, issuer, position)
                    });
                }
                Step::CertifySshd { issuer } => of_sshd::answer(have, issuer, &mut position),
                Step::Serve => have.serving = true,
                Step::Drain { issuer } => have.draining = Some(issuer),
                Step::Close { issuer } => _ = have.sessions_on.remove(&issuer),
            }
        }
    }
    panic!("the plan has no end: {:?}", reconcile(have, want));
}

#[test]
fn a_node_at_rest_has_nothing_to_do() {
    let want = row(5, Phase::Standby, &[A], A, A);
    assert_eq!(reconcile(&settled(), &want), []);
}

#[test]
fn a_node_that_slept_through_to_update_servers_widens_first_and_changes_certificates_after() {
    let mut have = settled();
    let want = row(9, Phase::UpdateServers, &[A, B], B, B);
    let installed = carry_out(&mut have, &want, 10);
    assert_eq!(installed.len(), 2);
    assert_eq!(installed[0].1.trusted[&HOST], [A, B].into());
    assert_eq!(installed[0].1.client, settled().installed.client);
    assert_eq!(have.installed.client, have.installed.server);
    assert_eq!(
        have.installed.client.as_ref().map(|l| (l.issuer, l.usage)),
        Some((B, LeafUse::Both))
    );
}

#[test]
fn while_the_row_names_two_issuers_the_roles_hold_different_certificates() {
    let mut have = settled();
    carry_out(&mut have, &row(9, Phase::UpdateClients, &[A, B], B, A), 10);
    assert_eq!(
        have.installed.client.as_ref().map(|l| (l.issuer, l.usage)),
        Some((B, LeafUse::Client))
    );
    assert_eq!(have.installed.server.as_ref().map(|l| l.issuer), Some(A));
}

#[test]
fn rolling_back_asks_for_a_new_certificate_even_where_an_old_one_would_do() {
    let mut have = settled();
    carry_out(&mut have, &row(9, Phase::UpdateClients, &[A, B], B, A), 10);
    let before = have.installed.clone();
    carry_out(&mut have, &row(12, Phase::Rollback, &[A, B], A, A), 20);
    let client = have.installed.client.clone().expect("it has one");
    assert_eq!(client.issuer, A);
    assert!(client.position > before.client.expect("it had one").position);
    assert_eq!(have.installed.server, Some(client));
}

#[test]
fn a_certificate_of_an_issuer_that_is_no_longer_wanted_is_thrown_away_and_asked_for_again() {
    let mut have = settled();
    have.received.push(leaf(LeafUse::Server, B, 30));
    let want = row(5, Phase::Standby, &[A], A, A);
    let discard = |n| Step::Discard {
        spki: SpkiPin([n; 32]),
    };
    assert_eq!(reconcile(&have, &want), [discard(30)]);
}

#[test]
fn a_certificate_issued_before_the_installed_one_is_never_installed() {
    let mut have = settled();
    have.installed.client = Some(leaf(LeafUse::Both, B, 40));
    have.installed.server = have.installed.client.clone();
    have.last_passed = Some(have.installed.clone());
    have.received.push(leaf(LeafUse::Both, A, 30));
    let steps = reconcile(&have, &row(5, Phase::Standby, &[A], A, A));
    assert!(steps.contains(&Step::Discard {
        spki: SpkiPin([30; 32])
    }));
    assert!(steps.contains(&Step::Request {
        usage: LeafUse::Both,
        issuer: A
    }));
}

#[test]
fn what_was_asked_for_is_not_asked_for_again() {
    let mut have = settled();
    let want = row(9, Phase::UpdateServers, &[A, B], B, B);
    have.installed.trusted.insert(HOST, [A, B].into());
    have.in_flight.push(InFlight {
        usage: LeafUse::Both,
        issuer: B,
        spki: SpkiPin([7; 32]),
    });
    assert!(
        !reconcile(&have, &want)
            .iter()
            .any(|s| matches!(s, Step::Request { .. }))
    );
    assert!(keys_to_keep(&have).contains(&SpkiPin([7; 32])));
}

#[test]
fn half_way_through_its_life_a_certificate_is_renewed_from_the_issuer_of_the_row() {
    let mut have = settled();
    have.now = Timestamp(500_000);
    let want = row(5, Phase::Standby, &[A], A, A);
    assert_eq!(
        reconcile(&have, &want),
        [Step::Request {
            usage: LeafUse::Both,
            issuer: A
        }]
    );
    carry_out(&mut have, &want, 10);
    assert_eq!(have.installed.client.map(|l| l.position), Some(Position(11)));
}

#[test]
fn a_failed_proof_restores_the_last_generation_that_passed_whole() {
    let mut have = settled();
    let passed = have.installed.clone();
    have.installed = generation(9, &[A, B], leaf(LeafUse::Both, B, 3), leaf(LeafUse::Both, B, 3));
    have.proof = Proof::Failed { count: 1 };
    let steps = reconcile(&have, &row(9, Phase::UpdateServers, &[A, B], B, B));
    assert_eq!(steps, [Step::Restore]);
    assert_eq!(have.last_passed, Some(passed));
}

#[test]
fn after_a_start_a_failed_proof_does_not_bring_back_what_was_retired_meanwhile() {
    let mut have = settled();
    have.reported = None;
    have.installed = generation(9, &[B], leaf(LeafUse::Both, B, 3), leaf(LeafUse::Both, B, 3));
    have.proof = Proof::Failed { count: 1 };
    assert_eq!(
        reconcile(&have, &row(9, Phase::Standby, &[B], B, B)),
        [Step::Prove]
    );
}

#[test]
fn a_generation_that_did_not_pass_is_not_reported() {
    let mut have = settled();
    have.reported = None;
    have.proof = Proof::Due;
    assert_eq!(
        reconcile(&have, &row(5, Phase::Standby, &[A], A, A)),
        [Step::Prove]
    );
}

#[test]
fn an_equal_row_of_a_new_phase_is_proven_and_reported_again() {
    let mut have = settled();
    have.installed.trusted.insert(HOST, [A, B].into());
    have.last_passed = Some(have.installed.clone());
    have.reported = Some((have.installed.clone(), false));
    let installed = carry_out(&mut have, &row(8, Phase::Rollback, &[A, B], A, A), 10);
    assert_eq!(installed.len(), 1);
    assert!(installed[0].1.same_material(&generation(
        5,
        &[A, B],
        leaf(LeafUse::Both, A, 1),
        leaf(LeafUse::Both, A, 1)
    )));
    assert_eq!(have.reported.map(|(g, _)| g.revisions[&HOST]), Some(Position(8)));
}

#[test]
fn a_row_of_a_lower_revision_changes_nothing() {
    let mut have = settled();
    have.reported = Some((have.installed.clone(), false));
    assert_eq!(reconcile(&have, &row(4, Phase::UpdateServers, &[A, B], B, B)), []);
    assert!(!accepts_revision(Some(Position(5)), Position(4)));
    assert!(accepts_revision(Some(Position(5)), Position(5)) && accepts_revision(None, Position(1)));
}

#[test]
fn after_a_start_nothing_is_served_before_the_current_row_is_held() {
    let mut have = Have {
        serving: false,
        synced: false,
        proof: Proof::Due,
        ..settled()
    };
    let want = row(9, Phase::Standby, &[B], B, B);
    assert!(!reconcile(&have, &want).contains(&Step::Serve));
    have.synced = true;
    let mut position = 50;
    while !have.serving {
        for step in reconcile(&have, &want) {
            match step {
                Step::Install(next) => have.installed = next,
                Step::Request { usage, issuer } => {
                    position += 1;
                    have.received.push(leaf(usage, issuer, position));
                }
                Step::Discard { spki } => have.received.retain(|l| l.spki != spki),
                Step::Serve => have.serving = true,
                other => panic!("nothing else is due before it serves: {other:?}"),
            }
        }
        assert!(position < 60, "it never serves");
    }
    assert_eq!(have.installed.trusted[&HOST], [B].into());
    assert_eq!(have.installed.server.map(|l| l.issuer), Some(B));
}

#[test]
fn a_node_that_finds_no_gateway_for_thirty_seconds_serves_what_it_has() {
    let mut have = Have {
        serving: false,
        synced: false,
        proof: Proof::Due,
        ..settled()
    };
    let want = row(5, Phase::Standby, &[A], A, A);
    have.since_start_ms = UNSYNCED_AFTER_MS - 1;
    assert_eq!(reconcile(&have, &want), []);
    have.since_start_ms = UNSYNCED_AFTER_MS;
    assert_eq!(reconcile(&have, &want), [Step::Serve]);
}

#[test]
fn sessions_are_drained_once_the_new_certificates_are_proven_and_closed_once_nothing_trusts_them() {
    let mut have = settled();
    have.sessions_on.insert(A);
    carry_out(&mut have, &row(9, Phase::UpdateServers, &[A, B], B, B), 10);
    assert_eq!(have.draining, Some(A));
    assert_eq!(have.reported.as_ref().map(|(_, flag)| *flag), Some(true));
    carry_out(&mut have, &row(12, Phase::Standby, &[B], B, B), 20);
    assert!(have.sessions_on.is_empty());
    assert_eq!(have.reported.map(|(_, flag)| flag), Some(false));
}

#[test]
fn sessions_with_excluded_peers_alone_do_not_hold_the_gate() {
    let mut have = settled();
    have.sessions_on.insert(A);
    have.only_excluded_on.insert(A);
    carry_out(&mut have, &row(9, Phase::UpdateServers, &[A, B], B, B), 10);
    assert_eq!(have.reported.map(|(_, flag)| flag), Some(false));
}

#[test]
fn a_gateway_is_shown_a_certificate_that_passed_for_as_long_as_one_is_of_use() {
    let mut have = settled();
    let (old, new) = (leaf(LeafUse::Both, A, 1), leaf(LeafUse::Both, A, 9));
    have.installed.client = Some(new.clone());
    assert_eq!(presentable(&have, &BTreeSet::new()), Some(&old));
    assert_eq!(presentable(&have, &[old.spki].into()), Some(&new));
    have.last_passed = None;
    assert_eq!(presentable(&have, &BTreeSet::new()), Some(&new));
}

#[test]
fn the_only_certificate_is_kept_as_a_proof_though_the_row_moved_on_since_the_join() {
    let mut have = settled();
    have.installed = Generation::default();
    (have.last_passed, have.proof, have.serving) = (None, Proof::Due, false);
    have.received = vec![leaf(LeafUse::Both, B, 7)];
    let want = row(9, Phase::Rollback, &[A, B], A, A);
    let discards = |have: &Have| {
        reconcile(have, &want)
            .iter()
            .any(|step| matches!(step, Step::Discard { .. }))
    };
    assert!(!discards(&have), "nothing else proves who it is");
    have.received.push(leaf(LeafUse::Both, A, 11));
    carry_out(&mut have, &want, 10);
    assert_eq!(have.installed.client.map(|l| l.position), Some(Position(11)));
    assert!(
        have.received.iter().all(|leaf| leaf.issuer == A),
        "it serves no purpose any more"
    );
}

/// One of four authorities.
fn any_pin() -> impl Strategy<Value = SpkiPin> {
    (1u8..=4).prop_map(|n| SpkiPin([n + 0xa0; 32]))
}

fn any_leaf() -> impl Strategy<Value = Leaf> {
    let usage = prop_oneof![Just(LeafUse::Client), Just(LeafUse::Server), Just(LeafUse::Both)];
    (usage, any_pin(), 1u64..=9, 0i64..1_500_000).prop_map(|(usage, issuer, position, not_after)| Leaf {
        not_after: Timestamp(not_after),
        ..leaf(usage, issuer, position)
    })
}

fn any_have() -> impl Strategy<Value = Have> {
    let trusted = prop::collection::btree_set(any_pin(), 0..4);
    let leaves = (
        prop::option::of(any_leaf()),
        prop::option::of(any_leaf()),
        prop::collection::vec(any_leaf(), 0..4),
    );
    let proof = prop_oneof![
        Just(Proof::Due),
        Just(Proof::Passed),
        Just(Proof::Failed { count: 1 })
    ];
    (
        trusted,
        leaves,
        proof,
        any::<[bool; 3]>(),
        prop::collection::btree_set(any_pin(), 0..3),
    )
        .prop_map(
            |(trusted, (client, server, received), proof, [serving, synced, has_passed], sessions_on)| {
                let installed = Generation {
                    revisions: [(HOST, Position(5))].into(),
                    trusted: [(HOST, trusted)].into(),
                    client,
                    server,
                    ssh: None,
                };
                Have {
                    now: Timestamp(400_000),
                    last_passed: has_passed.then(|| settled().installed),
                    installed,
                    proof,
                    received,
                    serving,
                    synced,
                    sessions_on,
                    reported: None,
                    ..settled()
                }
            },
        )
}

fn any_want() -> impl Strategy<Value = DesiredState> {
    (5u64..9, any_pin(), any_pin(), 0u8..4).prop_map(|(revision, active, prepared, phase)| match phase {
        0 => row(revision, Phase::Standby, &[active], active, active),
        1 => row(revision, Phase::Init, &[active, prepared], active, active),
        2 => row(
            revision,
            Phase::UpdateClients,
            &[active, prepared],
            prepared,
            active,
        ),
        _ => row(
            revision,
            Phase::UpdateServers,
            &[active, prepared],
            prepared,
            prepared,
        ),
    })
}

proptest! {
    #[test]
    fn from_anywhere_the_plan_ends_at_the_row_and_trust_is_never_narrowed_before_the_certificates_match(
        have in any_have(),
        want in any_want(),
    ) {
        let mut have = Have { synced: true, ..have };
        let row = want.authorities[&HOST].clone();
        for (before, after) in carry_out(&mut have, &want, 10) {
            if !before.trusted[&HOST].is_subset(&after.trusted[&HOST]) {
                prop_assert_eq!(after.client.map(|l| l.issuer), row.client_issuer);
                prop_assert_eq!(after.server.map(|l| l.issuer), row.server_issuer);
            }
        }
        prop_assert_eq!(&have.installed.trusted[&HOST], &row.trusted);
        prop_assert_eq!(have.installed.client.as_ref().map(|l| l.issuer), row.client_issuer);
        prop_assert_eq!(have.installed.server.as_ref().map(|l| l.issuer), row.server_issuer);
        prop_assert!(have.serving && have.proof == Proof::Passed);
        prop_assert!(have.sessions_on.is_subset(&row.trusted));
    }
}
