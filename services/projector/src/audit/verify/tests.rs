use std::{path::PathBuf, sync::Arc};

use api::{At, audit::AuditView};
use eventlog::{Append, EventLog, MemoryLog, NewEvent, SharedLog, SqliteLog, Stored};
use execution::{checkpoint::Chain, codec};
use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::{
    audit::{replay, view_of},
    shape,
    testing::{World, story},
};

mod forged;

/// An honest log in its file, with checkpoints every twenty events, the last at its end.
struct Honest {
    dir: TempDir,
    world: World,
}

impl Honest {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let world = story(SqliteLog::open(dir.path().join("log.sqlite")).await.unwrap()).await;
        let mut chain = Chain::default();
        let mut lines = String::new();
        let records = world.log.read(1, 10_000).await.unwrap();
        for record in &records {
            chain.push(record);
            if record.position % 20 == 0 || record.position == records.len() as u64 {
                let checkpoint = chain.checkpoint(domain::Timestamp(0));
                lines.push_str(&serde_json::to_string(&checkpoint).unwrap());
                lines.push('\n');
            }
        }
        std::fs::write(dir.path().join("checkpoints.jsonl"), lines).unwrap();
        Self { dir, world }
    }

    fn checkpoints(&self) -> PathBuf {
        self.dir.path().join("checkpoints.jsonl")
    }

    async fn records(&self) -> Vec<Stored> {
        self.world.log.read(1, 10_000).await.unwrap()
    }

    /// Changes the file as somebody with the disk would, behind the back of everybody: triggers off, one
    /// statement, triggers on again. Then the report on a copy that is only read.
    async fn tampered(&self, statement: &str) -> VerifyReport {
        self.world.log.close().await;
        let path = self.dir.path().join("log.sqlite");
        let connection = rusqlite::Connection::open(&path).unwrap();
        let triggers: Vec<(String, String)> = connection
            .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        for (name, _) in &triggers {
            connection.execute_batch(&format!("DROP TRIGGER {name}")).unwrap();
        }
        connection.execute_batch(statement).unwrap();
        for (_, sql) in &triggers {
            connection.execute_batch(sql).unwrap();
        }
        drop(connection);
        let log = SqliteLog::open_read_only(&path).await.unwrap();
        verify(&*log, Some(&self.checkpoints())).await.unwrap()
    }

    /// The position of the n-th event of a type.
    async fn position_of(&self, type_name: &str, n: usize) -> u64 {
        let records = self.records().await;
        let mut found = records.iter().filter(|record| kind(record) == type_name);
        found.nth(n).unwrap().position
    }
}

fn kind(record: &Stored) -> String {
    let value: Value = serde_json::from_slice(&record.data).unwrap();
    value["type"]
        .as_str()
        .unwrap()
        .trim_start_matches("carousel.")
        .trim_end_matches(".v1")
        .to_owned()
}

fn failed(report: &VerifyReport) -> Vec<(&str, Option<u64>)> {
    let failed = report
        .checks
        .iter()
        .filter(|check| check.outcome == VerifyOutcome::Failed);
    failed
        .map(|check| (check.name.as_str(), check.position.map(|at| at.0)))
        .collect()
}

/// The same log without its signer's memory, records changed at will.
async fn forged(records: Vec<Stored>) -> VerifyReport {
    verify(&*remade(records).await, None).await.unwrap()
}

async fn remade(records: Vec<Stored>) -> SharedLog {
    let log: SharedLog = Arc::new(MemoryLog::new());
    for record in records {
        let event = NewEvent {
            subject: record.subject,
            id: uuid::Uuid::new_v4(),
            data: record.data,
        };
        log.append(Append::one(event, None)).await.unwrap();
    }
    log
}

/// Changes one field of a stored event.
fn change(record: &mut Stored, at: &[&str], to: Value) {
    let mut value: Value = serde_json::from_slice(&record.data).unwrap();
    let mut place = &mut value;
    for name in at {
        place = &mut place[*name];
    }
    *place = to;
    record.data = serde_json::to_vec(&value).unwrap().into();
}

#[tokio::test]
async fn an_honest_log_is_verified_and_every_check_counts_something() {
    let honest = Honest::new().await;
    let report = verify(&*honest.world.log, Some(&honest.checkpoints()))
        .await
        .unwrap();
    assert_eq!(failed(&report), [], "{report:#?}");
    assert!(report.verified && report.position == honest.world.fold.position());
    let held = honest.position_of("rotation.held", 0).await;
    let resumed = honest.position_of("rotation.resumed", 0).await;
    assert_eq!(
        kind(&honest.records().await[resumed as usize]),
        "rotation.phase-entered",
        "as one"
    );
    assert!(
        held < resumed,
        "a step that was held and went on is among what was verified"
    );
    for check in &report.checks {
        assert!(
            check.checked > 0 && check.outcome == VerifyOutcome::Ok,
            "{check:?}"
        );
    }
}

#[tokio::test]
async fn each_event_of_an_honest_log_is_decided_again_by_itself() {
    let honest = Honest::new().await;
    let mut sums = 0;
    for position in 1..=honest.world.fold.position().0 {
        let found = event(&*honest.world.log, Position(position)).await.unwrap();
        // Of an id that was used before nothing can be decided again: there is one such refusal.
        let is_sum = found.outcome == VerifyOutcome::Skipped && found.text.contains("used before");
        assert!(found.outcome == VerifyOutcome::Ok || is_sum, "{found:?}");
        sums += u32::from(is_sum);
    }
    assert_eq!(sums, 1);
    let step = honest.position_of("rotation.phase-entered", 1).await;
    let found = event(&*honest.world.log, Position(step)).await.unwrap();
    assert!(
        found.roles.contains(&domain::access::RoleName::Operator),
        "{found:?}"
    );
    let behind = Position(honest.world.fold.position().0 + 1);
    let error = event(&*honest.world.log, behind).await.unwrap_err();
    assert!(matches!(error, ReplayError::NotYet { .. }), "{error}");
}

#[tokio::test]
async fn an_event_that_was_changed_is_found_by_itself() {
    let honest = Honest::new().await;
    let step = honest.position_of("rotation.phase-entered", 2).await;
    let mut records = honest.records().await;
    let forged = &mut records[step as usize - 1];
    change(forged, &["data", "to"], "standby".into());
    let log = remade(records).await;
    let found = event(&*log, Position(step)).await.unwrap();
    assert_eq!(found.outcome, VerifyOutcome::Failed, "{found:?}");
    let before = event(&*log, Position(step - 1)).await.unwrap();
    assert_eq!(before.outcome, VerifyOutcome::Ok, "{before:?}");
}

#[tokio::test]
async fn a_changed_actor_is_found_by_its_roles_and_by_the_checkpoints() {
    let honest = Honest::new().await;
    let at = honest.position_of("rotation.phase-entered", 1).await;
    let report = honest
        .tampered(&format!("UPDATE events SET data = CAST(replace(CAST(data AS TEXT), '\"authid\":\"admin\"', '\"authid\":\"ada\"') AS BLOB) WHERE seq = {at}"))
        .await;
    let covered = at.next_multiple_of(20);
    assert_eq!(
        failed(&report),
        [("decisions", Some(at)), ("checkpoints", Some(covered))],
        "{report:#?}"
    );
}

#[tokio::test]
async fn a_changed_phase_is_found_where_it_stands() {
    let honest = Honest::new().await;
    let at = honest.position_of("rotation.phase-entered", 2).await;
    let report = honest
        .tampered(&format!(
            "UPDATE events SET data = CAST(replace(CAST(data AS TEXT), '\"to\":\"update_servers\"', '\"to\":\"standby\"') AS BLOB) WHERE seq = {at}"
        ))
        .await;
    let failed = failed(&report);
    assert!(failed.contains(&("phases", Some(at))), "{report:#?}");
    assert!(failed.iter().any(|(name, _)| *name == "checkpoints"));
}

#[tokio::test]
async fn swapped_events_are_found_by_the_first_checkpoint_after_them() {
    let honest = Honest::new().await;
    let at = honest.position_of("node.reported", 0).await;
    let report = honest
        .tampered(&format!(
            "UPDATE events SET seq = -1 WHERE seq = {at}; UPDATE events SET seq = {at} WHERE seq = {at} + 1;
             UPDATE events SET seq = {at} + 1 WHERE seq = -1"
        ))
        .await;
    let covered = at.next_multiple_of(20);
    assert!(
        failed(&report).contains(&("checkpoints", Some(covered))),
        "{report:#?}"
    );
}

#[tokio::test]
async fn a_deleted_tail_that_the_signer_has_seen_is_found() {
    let honest = Honest::new().await;
    let end = honest.world.fold.position().0;
    let report = honest
        .tampered(&format!("DELETE FROM events WHERE seq > {end} - 3"))
        .await;
    assert_eq!(failed(&report), [("checkpoints", Some(end - 2))], "{report:#?}");
}

#[tokio::test]
async fn a_hole_is_found_and_named() {
    let honest = Honest::new().await;
    let report = honest.tampered("DELETE FROM events WHERE seq = 30").await;
    assert!(failed(&report).contains(&("order", Some(30))), "{report:#?}");
}

/// What is changed: in the n-th record of a type, which field, to what, and which check finds it.
type Forgery = (
    &'static str,
    (&'static str, usize),
    &'static [&'static str],
    Value,
    &'static str,
);

fn forged_decisions() -> Vec<Forgery> {
    let (step, next) = (("rotation.phase-entered", 1), ("rotation.phase-entered", 2));
    let nobody = uuid::Uuid::nil().to_string();
    let past = "1999-01-01T00:00:00.000Z";
    vec![
        (
            "totals of a gate",
            next,
            &["data", "gate", "reached"],
            2.into(),
            "phases",
        ),
        ("no reason", next, &["reason"], Value::Null, "phases"),
        (
            "its gate elsewhere",
            step,
            &["data", "gate", "position"],
            3.into(),
            "phases",
        ),
        (
            "another reporter",
            ("node.reported", 0),
            &["authid"],
            nobody.into(),
            "decisions",
        ),
        (
            "another time",
            ("node.reported", 1),
            &["time"],
            past.into(),
            "order",
        ),
    ]
}

fn forged_facts() -> Vec<Forgery> {
    let (first, second) = (("certificate.issued", 1), ("certificate.issued", 2));
    let (bundle, refused) = (("authority.bundle-signed", 0), ("command.refused", 0));
    let key = format!("sha256:{}", "7".repeat(64));
    let late = "2099-01-01T00:00:00.000Z";
    let unknown = "carousel.command.undone.v1";
    vec![
        ("another key", first, &["data", "spki"], key.into(), "issuance"),
        (
            "a longer life",
            first,
            &["data", "not_after"],
            late.into(),
            "issuance",
        ),
        (
            "another row",
            bundle,
            &["data", "phase"],
            "init".into(),
            "bundles",
        ),
        ("an unknown type", refused, &["type"], unknown.into(), "schema"),
        (
            "the signer's word",
            second,
            &["authid"],
            "clock".into(),
            "writers",
        ),
    ]
}

#[tokio::test]
async fn without_checkpoints_the_log_still_contradicts_a_forger() {
    let honest = Honest::new().await;
    let records = honest.records().await;
    for (what, (kind, n), path, to, check) in forged_decisions().into_iter().chain(forged_facts()) {
        let at = honest.position_of(kind, n).await as usize - 1;
        let mut changed = records.clone();
        change(&mut changed[at], path, to);
        let report = forged(changed).await;
        let first = report.checks.iter().find(|c| c.name == check).unwrap();
        assert_eq!(
            (first.outcome, first.position.map(|p| p.0)),
            (VerifyOutcome::Failed, Some(at as u64 + 1)),
            "{what}: {report:#?}"
        );
    }
}

#[tokio::test]
async fn a_certificate_without_an_authorisation_or_with_two_signatures_is_found() {
    let honest = Honest::new().await;
    let records = honest.records().await;
    let granted = honest.position_of("authorization.granted", 1).await as usize - 1;
    let mut without = records.clone();
    without.remove(granted);
    let report = forged(without).await;
    assert!(
        failed(&report).iter().any(|(name, _)| *name == "issuance"),
        "{report:#?}"
    );
    let issued = honest.position_of("certificate.issued", 1).await as usize - 1;
    let mut twice = records.clone();
    twice.insert(issued + 1, records[issued].clone());
    let report = forged(twice).await;
    assert!(
        failed(&report).contains(&("issuance", Some(issued as u64 + 2))),
        "{report:#?}"
    );
    assert!(
        failed(&report).contains(&("order", Some(issued as u64 + 2))),
        "an id stands twice"
    );
}

#[tokio::test]
async fn without_the_signers_file_the_checkpoints_are_not_checked_and_that_is_said() {
    let honest = Honest::new().await;
    let report = verify(&*honest.world.log, None).await.unwrap();
    let check = report.checks.last().unwrap();
    assert_eq!((check.outcome, report.verified), (VerifyOutcome::Skipped, true));
    assert!(check.text.contains("not at hand"));
}

#[tokio::test]
async fn a_replay_says_what_the_state_was_and_a_moment_outside_the_log_is_not_found() {
    let honest = Honest::new().await;
    let log = &*honest.world.log;
    let live = honest.world.fold.read(shape::status);
    let end = honest.world.fold.position();
    let then = replay(log, At::Position(end)).await.unwrap();
    assert_eq!(
        view_of(&then, AuditView::Status),
        serde_json::to_value(&live).unwrap()
    );
    let by_time = replay(log, At::Time(then.time)).await.unwrap();
    assert_eq!(by_time.position, end);
    assert!(matches!(
        replay(log, At::Position(Position(end.0 + 1))).await,
        Err(ReplayError::NotYet { .. })
    ));
    assert!(matches!(
        replay(log, At::Time(domain::Timestamp(0))).await,
        Err(ReplayError::Before { .. })
    ));
}

#[tokio::test]
async fn a_time_that_goes_back_belongs_to_the_moment_of_what_came_before() {
    let log = MemoryLog::new();
    for second in [10, 12, 11, 13] {
        let of = codec::Circumstances {
            time: domain::Timestamp(second * 1_000),
            actor: domain::Principal::System(domain::id::SystemActor::Host),
            credential: None,
            command: None,
            reason: None,
            decided_at: None,
            traceparent: None,
            service: "orchestrator",
        };
        let fact = domain::event::ClusterClockAccepted { behind_ms: 0 }.into();
        let event = codec::encode(&"acme.cluster".parse().unwrap(), &fact, &of);
        log.append(Append::one(event, None)).await.unwrap();
    }
    for (second, position) in [(10, 1), (11, 1), (12, 3), (13, 4)] {
        let then = replay(&log, At::Time(domain::Timestamp(second * 1_000)))
            .await
            .unwrap();
        assert_eq!(then.position, Position(position), "at {second} s");
    }
}

#[tokio::test]
async fn a_difference_names_what_changed_and_nothing_else() {
    let honest = Honest::new().await;
    let log = &*honest.world.log;
    let entered = honest.position_of("rotation.phase-entered", 1).await;
    let before = replay(log, At::Position(Position(entered - 1))).await.unwrap();
    let after = replay(log, At::Position(Position(entered))).await.unwrap();
    let doc = crate::audit::diff(&before, &after);
    let phase = doc
        .changes
        .iter()
        .find(|c| c.path == "authorities.host.rotation.phase")
        .unwrap();
    assert_eq!(
        (phase.before.clone(), phase.after.clone()),
        (Some("init".into()), Some("update_clients".into()))
    );
    assert!(
        doc.changes
            .iter()
            .all(|c| !c.path.starts_with("users") && !c.path.starts_with("certificates")),
        "{doc:?}"
    );
    assert_eq!(crate::audit::diff(&after, &after).changes, []);
}

#[test]
fn large_numbers_are_written_in_groups() {
    let written: Vec<_> = [0, 999, 1_000, 1_611, 1_234_567].map(thousands).into();
    assert_eq!(written, ["0", "999", "1,000", "1,611", "1,234,567"]);
}
