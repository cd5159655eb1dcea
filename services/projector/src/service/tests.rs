use std::fs;

use api::{At, Queries, shape::RotationDoc};
use domain::event::RotationOutcome;
use eventlog::{Append, EventLog, MemoryLog, NewEvent, SharedLog};
use runtime::readiness::{PartState, Readiness};
use tempfile::TempDir;
use tokio::task::JoinSet;
use views::Batch;

use super::*;
use crate::{
    documents::key,
    testing::{All, World, story},
};

/// A projector at work on a log, until it is dropped.
struct AtWork {
    answers: Answers,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), ProjectorError>>,
}

impl AtWork {
    async fn on(dir: &TempDir, fold: &Fold, now: &Now) -> Self {
        let part = Readiness::new().part("projector", "its start");
        let config = Config {
            views_dir: dir.path().join("views"),
        };
        let opened = Projector::open(config, fold.clone(), now.clone(), Metrics::new("test"), part).await;
        let projector = opened.unwrap();
        let (answers, stop) = (projector.queries(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(projector.run(stop.clone()));
        Self { answers, stop, tasks }
    }

    /// Everything at or after a position, and the history.
    async fn all(&self, at: Position) -> (All, Vec<RotationDoc>) {
        let answers = &self.answers;
        let all = All {
            status: answers.status(At::Newest, at).await.unwrap(),
            nodes: answers.nodes(At::Newest, at).await.unwrap(),
            authorities: answers.authorities(At::Newest, at).await.unwrap(),
            certificates: answers.certificates(At::Newest, at).await.unwrap(),
            tokens: answers.tokens(at).await.unwrap(),
            users: answers.users(at).await.unwrap(),
            consumers: answers.consumers(at).await.unwrap(),
        };
        (all, answers.rotations(at).await.unwrap())
    }

    async fn end(mut self) {
        self.stop.cancel();
        drop(self.answers);
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }
}

async fn told() -> (World, Position) {
    let world = story(Arc::new(MemoryLog::new())).await;
    let end = world.fold.position();
    (world, end)
}

/// The log of a story again, record by record, under a projector at work.
struct Again {
    log: SharedLog,
    fold: Fold,
    work: AtWork,
    _dir: TempDir,
}

impl Again {
    async fn begin() -> Self {
        let dir = TempDir::new().unwrap();
        let log: SharedLog = Arc::new(MemoryLog::new());
        let fold = Fold::start(log.clone(), CancellationToken::new()).await.unwrap();
        let fold_now = fold.clone();
        let now: Now = Arc::new(move || fold_now.read(|state| state.time));
        Self {
            work: AtWork::on(&dir, &fold, &now).await,
            log,
            fold,
            _dir: dir,
        }
    }

    async fn append(&self, record: Stored) {
        let id = eventlog::event_id(&record.data).unwrap();
        let event = NewEvent {
            subject: record.subject,
            id,
            data: record.data,
        };
        self.log.append(Append::one(event, None)).await.unwrap();
    }
}

#[tokio::test]
async fn after_each_single_event_the_views_say_what_the_state_says() {
    let (world, end) = told().await;
    // No batch hides a document that was forgotten.
    let again = Again::begin().await;
    for record in world.log.read(1, 10_000).await.unwrap() {
        let position = Position(record.position);
        again.append(record).await;
        let (found, _) = again.work.all(position).await;
        let wanted = again.fold.read(All::of);
        assert_eq!(found, wanted, "after position {position}");
    }
    assert_eq!(again.fold.position(), end);
    again.work.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_documents_are_written_is_in_those_that_follow() {
    let (world, end) = told().await;
    let again = Again::begin().await;
    for record in world.log.read(1, 10_000).await.unwrap() {
        again.append(record).await;
        tokio::task::yield_now().await;
    }
    let (found, rotations) = again.work.all(end).await;
    assert_eq!(found, again.fold.read(All::of));
    let ended = rotations.iter().filter(|doc| doc.outcome.is_some()).count();
    assert_eq!((rotations.len(), ended), (3, 2));
    again.work.end().await;
}

#[tokio::test]
async fn deleting_the_directory_changes_no_answer_and_neither_does_a_restart() {
    let (world, end) = told().await;
    let dir = TempDir::new().unwrap();
    let mut answers = vec![];
    for forget in [false, false, true] {
        if forget {
            fs::remove_dir_all(dir.path().join("views")).unwrap();
        }
        let work = AtWork::on(&dir, &world.fold, &world.now).await;
        answers.push(work.all(end).await);
        work.end().await;
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[1], answers[2]);
    let rotations = &answers[0].1;
    let outcomes: Vec<_> = rotations
        .iter()
        .map(|doc| (doc.outcome, doc.phases.len()))
        .collect();
    assert_eq!(
        outcomes,
        [
            (None, 2),
            (Some(RotationOutcome::RolledBack), 3),
            (Some(RotationOutcome::Completed), 4)
        ]
    );
    assert!(rotations[2].settled.is_some() && rotations[2].phases[2].forced);
}

#[tokio::test]
async fn a_document_that_cannot_be_read_is_made_anew() {
    let (world, end) = told().await;
    let dir = TempDir::new().unwrap();
    let work = AtWork::on(&dir, &world.fold, &world.now).await;
    let before = work.all(end).await;
    work.end().await;
    let views = dir.path().join("views");
    let (store, _) = ViewStore::open(&views, SCHEMA).unwrap();
    let mut batch = Batch::new();
    batch.put(key::STATUS, &"this is no status");
    store.apply(batch, &store.mark().unwrap()).unwrap();
    drop(store);
    let work = AtWork::on(&dir, &world.fold, &world.now).await;
    assert!(
        work.answers.status(At::Newest, end).await.is_err(),
        "the first one to ask finds it"
    );
    let healed = async {
        while work.answers.status(At::Newest, end).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), healed)
        .await
        .unwrap();
    assert_eq!(work.all(end).await, before);
}

#[tokio::test]
async fn views_of_another_log_are_thrown_away() {
    let dir = TempDir::new().unwrap();
    let (one, end) = told().await;
    let work = AtWork::on(&dir, &one.fold, &one.now).await;
    work.all(end).await;
    work.end().await;
    let other = World::on(Arc::new(MemoryLog::new())).await;
    let at = other.fold.position();
    let work = AtWork::on(&dir, &other.fold, &other.now).await;
    let (found, rotations) = work.all(at).await;
    assert_eq!(found, other.fold.read(All::of));
    assert_eq!(rotations, []);
}

#[tokio::test]
async fn an_answer_for_a_position_that_the_views_do_not_reach_is_refused() {
    let (world, end) = told().await;
    let dir = TempDir::new().unwrap();
    let work = AtWork::on(&dir, &world.fold, &world.now).await;
    work.all(end).await;
    tokio::time::pause();
    let late = work.answers.status(At::Newest, Position(end.0 + 1)).await;
    assert!(matches!(late, Err(api::QueryError::Lagging(_))), "{late:?}");
}

#[tokio::test]
async fn a_hole_or_an_event_that_cannot_be_read_stops_the_views_and_readiness_says_so() {
    for damage in ["hole", "garbage"] {
        let log = MemoryLog::new();
        let world = story(Arc::new(log.clone())).await;
        let end = world.fold.position();
        // The state tells everything else, and has seen that there was no hole.
        let rotation = world.fold.rotations()[1];
        if damage == "hole" {
            log.lose(rotation.0);
        } else {
            let garbage = NewEvent {
                subject: log.read(1, 1).await.unwrap().remove(0).subject,
                id: uuid::Uuid::nil(),
                data: "no event".into(),
            };
            log.append(Append::one(garbage, None)).await.unwrap();
        }
        let (dir, readiness) = (TempDir::new().unwrap(), Readiness::new());
        let config = Config {
            views_dir: dir.path().join("views"),
        };
        let part = readiness.part("projector", "its start");
        let metrics = Metrics::new("test");
        let projector = Projector::open(config, world.fold.clone(), world.now.clone(), metrics, part)
            .await
            .unwrap();
        let reach = projector.reach.subscribe();
        let running = projector.run(CancellationToken::new());
        let ended = tokio::time::timeout(Duration::from_secs(20), running).await;
        let error = ended.expect("it stops").unwrap_err().to_string();
        let reached = reach.borrow().position;
        if damage == "hole" {
            assert!(
                error.contains(&format!("position {rotation} is missing")),
                "{error}"
            );
            assert_eq!(reached, Position(0));
        } else {
            assert!(error.contains(&(end.0 + 1).to_string()), "{error}");
            assert!(reached <= end, "{reached}");
        }
        match readiness.parts().get("projector") {
            Some(PartState::Failed(why)) => assert_eq!(*why, error),
            other => panic!("{damage}: {other:?}"),
        }
        assert!(!readiness.is_ready() && !readiness.is_alive());
    }
}
