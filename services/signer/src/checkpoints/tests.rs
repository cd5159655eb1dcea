use std::sync::Arc;

use domain::Timestamp;
use eventlog::{Append, EventLog, MemoryLog, NewEvent, Subject};
use tempfile::TempDir;

use super::*;

async fn log_of(words: &[&'static str]) -> SharedLog {
    let log: SharedLog = Arc::new(MemoryLog::new());
    for word in words {
        append(&*log, word).await;
    }
    log
}

async fn append(log: &dyn EventLog, word: &'static str) {
    let event = NewEvent {
        subject: Subject::parse("a.b").unwrap(),
        id: uuid::Uuid::new_v4(),
        data: word.into(),
    };
    log.append(Append::one(event, None)).await.unwrap();
}

fn now() -> Now {
    Arc::new(|| Timestamp(0))
}

/// Runs until everything is covered, which shutdown makes sure of.
async fn cover(dir: &TempDir, log: &SharedLog) {
    let checkpoints = Checkpoints::open(dir.path(), log.clone(), now()).await.unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    checkpoints.run(stop).await.unwrap();
}

#[tokio::test]
async fn a_log_that_only_grew_is_trusted() {
    let dir = TempDir::new().unwrap();
    let log = log_of(&["one", "two"]).await;
    cover(&dir, &log).await;
    append(&*log, "three").await;
    cover(&dir, &log).await;
    let known = read_file(&dir.path().join(FILE)).unwrap();
    assert_eq!(known.iter().map(|c| c.position.0).collect::<Vec<_>>(), [2, 3]);
}

#[tokio::test]
async fn a_changed_record_is_refused_with_the_positions_between_which_it_lies() {
    let dir = TempDir::new().unwrap();
    let honest = log_of(&["one"]).await;
    cover(&dir, &honest).await;
    append(&*honest, "two").await;
    append(&*honest, "three").await;
    cover(&dir, &honest).await;
    let forged = log_of(&["one", "2", "three"]).await;
    let error = Checkpoints::open(dir.path(), forged, now()).await.err().unwrap();
    assert!(
        matches!(
            error,
            CheckpointError::Differs {
                position: Position(3),
                after: Position(1),
                ..
            }
        ),
        "{error}"
    );
}

#[tokio::test]
async fn a_log_without_its_end_is_refused() {
    let dir = TempDir::new().unwrap();
    cover(&dir, &log_of(&["one", "two"]).await).await;
    let cut = log_of(&["one"]).await;
    let error = Checkpoints::open(dir.path(), cut, now()).await.err().unwrap();
    assert!(
        matches!(
            error,
            CheckpointError::Shorter {
                end: Position(1),
                position: Position(2)
            }
        ),
        "{error}"
    );
}

/// What the loop does: look, write if it is due, sleep. Gives the pauses between the attempts.
fn pauses_of_a_disk_that_is_full(uncovered: u64) -> Vec<Duration> {
    let (mut now, mut when, mut pauses) = (Instant::now(), When::Idle, vec![]);
    for _ in 0..5 {
        when = when.seen(uncovered, now);
        if when.is_due(uncovered, now) {
            when = When::Again(now + AGAIN);
        }
        pauses.push(when.wake(now) - now);
        now = when.wake(now);
    }
    pauses
}

#[test]
fn a_checkpoint_that_cannot_be_written_is_tried_again_every_five_seconds() {
    let few = pauses_of_a_disk_that_is_full(1);
    assert_eq!(few, [EVERY, AGAIN, AGAIN, AGAIN, AGAIN]);
    let many = pauses_of_a_disk_that_is_full(EVERY_RECORDS);
    assert_eq!(many, [AGAIN; 5]);
}

#[tokio::test]
async fn after_a_crash_in_the_middle_of_a_line_the_next_one_begins_a_line() {
    let dir = TempDir::new().unwrap();
    let log = log_of(&["one"]).await;
    cover(&dir, &log).await;
    let path = dir.path().join(FILE);
    let whole = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{whole}{}", &whole[..10])).unwrap();
    append(&*log, "two").await;
    cover(&dir, &log).await;
    assert_eq!(read_file(&path).unwrap().len(), 2);
}
