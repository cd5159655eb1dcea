//! Facts that nobody decided, put into an honest log by somebody who can write it: each is found where it stands.

use domain::{AuthorityType, ClusterState, Order, time::DAY_MS};

use super::*;

/// Appends a record like an earlier one at the log's end, as if it were decided there.
fn append_like(records: &mut Vec<Stored>, like: u64, changes: &[(&[&str], Value)]) {
    let mut forged = records[like as usize - 1].clone();
    let last: Value = serde_json::from_slice(&records[records.len() - 1].data).unwrap();
    change(&mut forged, &["time"], last["time"].clone());
    change(&mut forged, &["id"], uuid::Uuid::now_v7().to_string().into());
    change(&mut forged, &["decidedat"], records.len().to_string().into());
    for (at, to) in changes {
        change(&mut forged, at, to.clone());
    }
    records.push(forged);
}

/// Where the check of decisions fails first, and why.
fn decisions(report: &VerifyReport) -> (Option<u64>, &str) {
    let check = report.checks.iter().find(|c| c.name == "decisions").unwrap();
    assert_eq!(check.outcome, VerifyOutcome::Failed, "{report:#?}");
    (check.position.map(|at| at.0), &check.text)
}

#[tokio::test]
async fn a_join_a_grant_and_a_report_that_nobody_decided_are_found_where_they_stand() {
    let honest = Honest::new().await;
    let records = honest.records().await;
    let (joined, granted) = (("node.joined", 1), ("authorization.granted", 5));
    let revision = &["data", "report", "authorities", "host", "revision"][..];
    let cases: [(_, &[&str], Value, &str); 7] = [
        (joined, &["data", "hostname"], "web-1".into(), "node.joined"),
        (
            granted,
            &["data", "names"],
            serde_json::json!(["web-1"]),
            "granted",
        ),
        (
            granted,
            &["data", "occasion"],
            "join".into(),
            "nothing that can be asked for",
        ),
        (("node.reported", 2), revision, 9_999.into(), "report_invalid"),
        (
            ("access.user-added", 2),
            &["data", "roles"],
            serde_json::json!([]),
            "roles_invalid",
        ),
        (
            ("command.refused", 0),
            &["data", "code"],
            "time_condition".into(),
            "recomputed nodes_lagging",
        ),
        (
            ("rotation.held", 0),
            &["data", "lagging"],
            9.into(),
            "rotation.held",
        ),
    ];
    for ((kind, n), path, to, why) in cases {
        let at = honest.position_of(kind, n).await;
        let mut changed = records.clone();
        change(&mut changed[at as usize - 1], path, to);
        let report = forged(changed).await;
        let (found, text) = decisions(&report);
        assert_eq!(found, Some(at), "{kind} {path:?}: {report:#?}");
        assert!(text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn a_revocation_a_retirement_and_a_key_that_the_signer_did_not_owe_are_found() {
    let honest = Honest::new().await;
    let records = honest.records().await;
    for (kind, n) in [
        ("certificate.revoked", 0),
        ("authority.retired", 0),
        ("authority.key-generated", 3),
        ("certificate.issued", 1),
    ] {
        let like = honest.position_of(kind, n).await;
        let mut changed = records.clone();
        append_like(&mut changed, like, &[]);
        let report = forged(changed).await;
        let (found, text) = decisions(&report);
        assert_eq!(found, Some(records.len() as u64 + 1), "{kind}: {report:#?}");
        assert!(text.contains("did not owe"), "{text}");
    }
}

#[tokio::test]
async fn the_position_that_a_decision_names_must_be_the_one_that_it_stood_on() {
    let honest = Honest::new().await;
    let records = honest.records().await;
    let reported = honest.position_of("node.reported", 2).await;
    let (first, second) = (
        honest.position_of("access.token-created", 0).await,
        honest.position_of("access.token-created", 1).await,
    );
    for (at, to, why) in [
        (reported, Value::Null, "does not say on which position"),
        (reported, reported.to_string().into(), "which is not before it"),
        // The same answer there, but others were decided on that subject since.
        (second, first.to_string().into(), "changed what it stands on"),
    ] {
        let mut changed = records.clone();
        change(&mut changed[at as usize - 1], &["decidedat"], to);
        let report = forged(changed).await;
        let (found, text) = decisions(&report);
        assert_eq!(found, Some(at), "{report:#?}");
        assert!(text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn a_log_of_an_older_version_is_verified_by_its_actors_and_that_is_said() {
    let honest = Honest::new().await;
    let mut records = honest.records().await;
    for record in &mut records {
        change(record, &["decidedat"], Value::Null);
    }
    let report = forged(records).await;
    assert!(report.verified, "{report:#?}");
    let check = report.checks.iter().find(|c| c.name == "decisions").unwrap();
    assert!(check.text.contains("of an older version"), "{}", check.text);
}

#[tokio::test]
async fn people_and_nodes_come_with_a_certificate_that_counts() {
    let honest = Honest::new().await;
    let records = honest.records().await;
    let entered = honest.position_of("rotation.phase-entered", 1).await;
    let reported = honest.position_of("node.reported", 2).await;
    let nobodys = format!("sha256:{}", "7".repeat(64));
    let cases: [(u64, Value, &str); 3] = [
        (entered, Value::Null, "without a certificate"),
        (entered, nobodys.into(), "never issued"),
        (reported, Value::Null, "without a certificate"),
    ];
    for (at, to, why) in cases {
        let mut changed = records.clone();
        change(&mut changed[at as usize - 1], &["authcert"], to);
        let report = forged(changed).await;
        let (found, text) = decisions(&report);
        assert_eq!(found, Some(at), "{report:#?}");
        assert!(text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn a_message_stands_on_a_subject_of_its_sender() {
    let honest = Honest::new().await;
    let entered = honest.position_of("rotation.phase-entered", 1).await;
    let by_message = async |subject: &str| {
        let mut changed = honest.records().await;
        let at = &mut changed[entered as usize - 1];
        change(at, &["authcert"], Value::Null);
        change(at, &["authsubject"], subject.into());
        forged(changed).await
    };
    let own = by_message("carousel.v1.acme_cluster.cmd.user-admin.rotate").await;
    assert!(own.verified, "{own:#?}");
    for (subject, why) in [
        (
            "carousel.v1.acme_cluster.cmd.user-bob.rotate",
            "on a subject of user/bob",
        ),
        (
            "carousel.v1.other_cluster.cmd.user-admin.rotate",
            "no subject of a sender",
        ),
        (
            "carousel.v1.acme_cluster.evt.user-admin.rotate",
            "no subject of a sender",
        ),
    ] {
        let report = by_message(subject).await;
        let (found, text) = decisions(&report);
        assert_eq!(found, Some(entered), "{report:#?}");
        assert!(text.contains(why), "{text}");
    }
}

#[tokio::test]
async fn the_genesis_is_over_with_its_last_event() {
    let honest = Honest::new().await;
    let mut records = honest.records().await;
    // A certificate that the host claims to have signed, a moment after the cluster began.
    let at = honest.position_of("certificate.issued", 1).await;
    assert!(at < 30, "{at}");
    change(&mut records[at as usize - 1], &["authid"], "host".into());
    let report = forged(records).await;
    assert!(failed(&report).contains(&("writers", Some(at))), "{report:#?}");
}

#[tokio::test]
async fn a_bundle_for_ten_years_or_of_the_future_is_found() {
    for (years, ahead) in [(10, 0), (0, 1_000)] {
        let honest = Honest::new().await;
        let at = honest.world.fold.position().0 + 1;
        honest
            .world
            .write_bundle(AuthorityType::Db, |bundle| {
                bundle.expires = bundle.expires.plus_ms(years * 365 * DAY_MS);
                bundle.revision.0 += ahead;
            })
            .await;
        let report = verify(&*honest.world.log, None).await.unwrap();
        assert!(failed(&report).contains(&("bundles", Some(at))), "{report:#?}");
    }
}

#[tokio::test]
async fn a_shortened_log_is_told_by_the_first_checkpoint_beyond_its_end() {
    let honest = Honest::new().await;
    let report = honest.tampered("DELETE FROM events WHERE seq > 30").await;
    let check = report.checks.iter().find(|c| c.name == "checkpoints").unwrap();
    assert_eq!(check.position, Some(Position(31)));
    assert!(check.text.contains("the signer has seen 40"), "{}", check.text);
}

#[tokio::test]
async fn attestations_of_external_consumers_are_said_to_be_nobodys_signature() {
    let honest = Honest::new().await;
    honest.world.consumer("etl").await;
    let expects = |state: &ClusterState| state.types[&AuthorityType::Db].expectation();
    let order = Order::AttestConsumer {
        authority_type: AuthorityType::Db,
        consumer: "etl".parse().unwrap(),
        expects: honest.world.fold.read(expects),
        probed: false,
        saw: None,
    };
    honest.world.admin_asks(order, None).await;
    let report = verify(&*honest.world.log, None).await.unwrap();
    let check = report.checks.last().unwrap();
    assert!(report.verified, "{report:#?}");
    assert_eq!((check.outcome, check.checked), (VerifyOutcome::Skipped, 1));
    assert!(check.text.ends_with("attestations (1)"), "{}", check.text);
}
