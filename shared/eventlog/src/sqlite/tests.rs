//! What a file, a disk and a second process can do to the embedded log.

use std::{fs, os::unix::fs::PermissionsExt};

use futures::StreamExt;
use tempfile::TempDir;

use super::*;
use crate::conformance::{self, SqliteStore, event};

conformance::suite!(SqliteStore::start());

async fn filled(directory: &TempDir, events: u64) -> PathBuf {
    let path = directory.path().join("log.sqlite");
    let log = SqliteLog::open(&path).await.unwrap();
    for n in 0..events {
        log.append(Append::one(event("t.a", n), Some(n))).await.unwrap();
    }
    log.close().await;
    path
}

async fn sql(log: &SqliteLog, sql: &str) {
    let (answer, done) = oneshot::channel();
    let job = Job::Sql {
        sql: sql.into(),
        answer,
    };
    assert!(log.jobs.as_ref().unwrap().send(job).await.is_ok());
    done.await.unwrap();
}

async fn refusal(path: &Path) -> SqliteOpenError {
    match SqliteLog::open(path).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_second_writer_is_kept_out_and_a_reader_is_let_in() {
    let directory = TempDir::new().unwrap();
    let path = filled(&directory, 2).await;
    let writer = SqliteLog::open(&path).await.unwrap();
    assert!(matches!(refusal(&path).await, SqliteOpenError::InUse { .. }));
    let reader = SqliteLog::open_read_only(&path).await.unwrap();
    assert_eq!(reader.read(1, 10).await.unwrap().len(), 2);
    let mut following = reader.follow(2);
    writer.append(Append::one(event("t.b", 2), None)).await.unwrap();
    assert_eq!(following.next().await.unwrap().unwrap().position, 3);
    let subject = Subject::parse("t.a").unwrap();
    assert_eq!(reader.tail(&subject).await.unwrap().unwrap().position, 2);
    let refused = reader.append(Append::one(event("t.b", 3), None)).await;
    assert!(matches!(refused, Err(AppendError::ReadOnly { .. })));
    assert!(matches!(reader.leases().await, Err(LeaseError::ReadOnly { .. })));
}

#[tokio::test]
async fn a_stopped_log_is_readable_and_a_missing_one_is_not_made_by_reading() {
    let directory = TempDir::new().unwrap();
    let path = filled(&directory, 3).await;
    let reader = SqliteLog::open_read_only(&path).await.unwrap();
    assert_eq!(reader.last_position().await.unwrap(), 3);
    let missing = directory.path().join("other.sqlite");
    let refused = SqliteLog::open_read_only(&missing).await;
    assert!(matches!(refused.err(), Some(SqliteOpenError::Missing { .. })));
    assert!(!missing.exists());
}

#[tokio::test]
async fn a_log_that_must_be_there_is_opened_and_a_missing_one_leaves_no_file() {
    let directory = TempDir::new().unwrap();
    let path = filled(&directory, 3).await;
    let log = SqliteLog::open_existing(&path).await.unwrap();
    log.append(Append::one(event("t.a", 3), Some(3))).await.unwrap();
    log.close().await;
    let empty = TempDir::new().unwrap();
    let refused = SqliteLog::open_existing(empty.path().join("log.sqlite")).await;
    assert!(matches!(refused.err(), Some(SqliteOpenError::Missing { .. })));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.sqlite");
    let log = SqliteLog::open(&path).await.unwrap();
    log.append(Append::one(event("t.a", 0), None)).await.unwrap();
    for file in fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o077,
            0,
            "{:?}",
            file.path()
        );
    }
}

#[tokio::test]
async fn garbage_emptiness_and_foreign_files_are_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.sqlite");
    for bytes in [vec![7; 9000], b"hello".to_vec(), Vec::new()] {
        fs::write(&path, &bytes).unwrap();
        let error = refusal(&path).await;
        let expected = matches!(
            error,
            SqliteOpenError::NotALog { .. } | SqliteOpenError::Damaged { .. }
        );
        assert!(expected, "{error:?} for {} bytes", bytes.len());
        assert_eq!(fs::read(&path).unwrap(), bytes, "it was changed");
    }
    fs::remove_file(&path).unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other
        .execute_batch("CREATE TABLE notes (t TEXT); INSERT INTO notes VALUES ('mine');")
        .unwrap();
    drop(other);
    assert!(matches!(refusal(&path).await, SqliteOpenError::NotALog { .. }));
}

#[tokio::test]
async fn a_newer_format_is_refused_in_words() {
    let directory = TempDir::new().unwrap();
    let path = filled(&directory, 1).await;
    rusqlite::Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 2)
        .unwrap();
    let error = refusal(&path).await;
    assert!(matches!(error, SqliteOpenError::Newer { found: 2, .. }));
    assert!(error.to_string().contains("newer build"), "{error}");
}

#[tokio::test]
async fn a_truncated_file_is_refused_at_every_length() {
    let directory = TempDir::new().unwrap();
    let path = filled(&directory, 200).await;
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() > 5 * 4096, "the test needs several pages");
    for cut in [
        1,
        99,
        100,
        4096,
        8192,
        3 * 4096 + 17,
        whole.len() - 4096,
        whole.len() - 1,
    ] {
        fs::write(&path, &whole[..cut]).unwrap();
        let error = refusal(&path).await;
        let expected = matches!(
            error,
            SqliteOpenError::NotALog { .. } | SqliteOpenError::Damaged { .. }
        );
        assert!(expected, "cut at {cut}: {error:?}");
    }
}

/// A kill leaves the file and its WAL as they are at that moment; copying both is the same.
#[tokio::test]
async fn what_a_kill_leaves_is_recovered_to_the_last_answer() {
    let directory = TempDir::new().unwrap();
    let path = filled(&directory, 30).await;
    let log = SqliteLog::open(&path).await.unwrap();
    for n in 30..50 {
        log.append(Append::one(event("t.a", n), Some(n))).await.unwrap();
    }
    let (killed, wal) = (TempDir::new().unwrap(), directory.path().join("log.sqlite-wal"));
    let copy = killed.path().join("log.sqlite");
    let take = |cut: usize| {
        let bytes = fs::read(&wal).unwrap();
        fs::copy(&path, &copy).unwrap();
        fs::write(killed.path().join("log.sqlite-wal"), &bytes[..bytes.len() - cut]).unwrap();
        let _ = fs::remove_file(killed.path().join("log.sqlite-shm"));
    };
    take(0);
    let reader = SqliteLog::open_read_only(&copy).await.unwrap();
    assert_eq!(
        reader.last_position().await.unwrap(),
        50,
        "reading only does not recover"
    );
    reader.close().await;
    take(0);
    let recovered = SqliteLog::open(&copy).await.unwrap();
    assert_eq!(
        recovered.read(1, 100).await.unwrap(),
        log.read(1, 100).await.unwrap()
    );
    let outcome = recovered
        .append(Append::one(event("t.a", 50), Some(50)))
        .await
        .unwrap();
    assert_eq!(outcome, Outcome::Stored { first: 51, last: 51 });
    recovered.close().await;
    // A commit that was torn while it was written was never answered, and is gone without a trace.
    take(100);
    let recovered = SqliteLog::open(&copy).await.unwrap();
    assert_eq!(recovered.last_position().await.unwrap(), 49);
    assert_eq!(
        recovered
            .tail(&Subject::parse("t.a").unwrap())
            .await
            .unwrap()
            .unwrap()
            .position,
        49
    );
}

#[tokio::test]
async fn events_can_not_be_changed_with_sqlites_own_tools() {
    let directory = TempDir::new().unwrap();
    let path = filled(&directory, 3).await;
    let connection = rusqlite::Connection::open(&path).unwrap();
    for statement in [
        "UPDATE events SET data = x'00' WHERE seq = 2",
        "DELETE FROM events WHERE seq = 3",
        "INSERT OR REPLACE INTO events VALUES (2, 't.a', x'00')",
        "INSERT INTO events VALUES (9, 't.a', x'00')",
        "REPLACE INTO events VALUES (3, 't.a', x'00')",
    ] {
        let error = connection.execute(statement, []).unwrap_err();
        assert!(error.to_string().contains("events are"), "{statement}: {error}");
    }
}

#[tokio::test]
async fn a_file_without_its_triggers_or_with_a_hole_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = filled(&directory, 3).await;
    let connection = rusqlite::Connection::open(&path).unwrap();
    let definition: String = connection
        .query_row(
            "SELECT sql FROM sqlite_schema WHERE name = 'events_are_not_deleted'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    connection
        .execute_batch("DROP TRIGGER events_are_not_deleted; DELETE FROM events WHERE seq = 2")
        .unwrap();
    assert!(
        refusal(&path)
            .await
            .to_string()
            .contains("events_are_not_deleted")
    );
    connection.execute_batch(&definition).unwrap();
    assert!(refusal(&path).await.to_string().contains("position 2 is missing"));
    let reader = SqliteLog::open_read_only(&path).await.unwrap();
    assert!(matches!(
        reader.read(1, 10).await,
        Err(ReadError::Gap {
            expected: 2,
            found: Some(3)
        })
    ));
    assert!(matches!(
        reader.read(2, 10).await,
        Err(ReadError::Gap {
            expected: 2,
            found: Some(3)
        })
    ));
    let records: Vec<_> = reader.follow(0).collect().await;
    assert!(matches!(
        records.last(),
        Some(Err(ReadError::Gap { expected: 2, .. }))
    ));
}

#[tokio::test]
async fn a_full_disk_is_said_stores_nothing_by_halves_and_recovers() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.sqlite");
    let log = SqliteLog::open_for_writing(&path, true).await.unwrap();
    log.append(Append::one(event("t.a", 0), Some(0))).await.unwrap();
    sql(&log, "PRAGMA max_page_count = 1").await;
    let events: Vec<_> = (0..800).map(|n| event("t.b", n)).collect();
    let large = Append {
        subject: Subject::parse("t.b").unwrap(),
        expected: Some(0),
        events,
    };
    let refused = log.append(large.clone()).await;
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
    assert_eq!(log.last_position().await.unwrap(), 1);
    assert_eq!(log.read(1, 10).await.unwrap().len(), 1);
    sql(&log, "PRAGMA max_page_count = 1000000").await;
    assert_eq!(
        log.append(large).await.unwrap(),
        Outcome::Stored { first: 2, last: 801 }
    );
}

#[tokio::test]
async fn a_foreign_write_stops_the_log_instead_of_being_built_upon() {
    let directory = TempDir::new().unwrap();
    let path = filled(&directory, 2).await;
    let log = SqliteLog::open(&path).await.unwrap();
    let foreign = rusqlite::Connection::open(&path).unwrap();
    foreign
        .execute("INSERT INTO events VALUES (3, 't.z', x'00')", [])
        .unwrap();
    let refused = log.append(Append::one(event("t.a", 3), None)).await;
    assert!(matches!(refused, Err(AppendError::Failed { .. })), "{refused:?}");
    let refused = log.append(Append::one(event("t.a", 4), None)).await;
    assert!(
        matches!(refused, Err(AppendError::Failed { .. })),
        "it went on: {refused:?}"
    );
}

#[tokio::test]
async fn a_crash_during_creation_leaves_nothing_that_stands_in_the_way() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("log.sqlite");
    fs::write(directory.path().join("log.sqlite.new"), b"half of a file").unwrap();
    let log = SqliteLog::open(&path).await.unwrap();
    assert_eq!(log.last_position().await.unwrap(), 0);
}

#[tokio::test]
async fn a_group_holds_good_and_conflicting_and_malformed_appends_apart() {
    let directory = TempDir::new().unwrap();
    let log = SqliteLog::open(directory.path().join("log.sqlite"))
        .await
        .unwrap();
    let empty = Append {
        subject: Subject::parse("t.a").unwrap(),
        expected: None,
        events: Vec::new(),
    };
    let answers = log
        .append_all(vec![
            Append::one(event("t.a", 1), Some(0)),
            empty,
            Append::one(event("t.a", 2), Some(0)),
            Append::one(event("t.a", 3), Some(1)),
        ])
        .await;
    assert!(matches!(answers[0], Ok(Outcome::Stored { first: 1, last: 1 })));
    assert!(matches!(answers[1], Err(AppendError::Invalid { .. })));
    assert!(matches!(answers[2], Ok(Outcome::Conflict { tail: 1 })));
    assert!(matches!(answers[3], Ok(Outcome::Stored { first: 2, last: 2 })));
}
