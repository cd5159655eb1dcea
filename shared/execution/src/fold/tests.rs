//! What a damaged log does to the state: nothing behind the damage is used. And following it misses nothing.

use std::sync::Arc;

use domain::{
    AuthorityType, Fact, Principal, Timestamp,
    event::{ClusterClockAccepted, RotationResumed},
    id::SystemActor,
};
use eventlog::{Append, EventLog, MemoryLog, NewEvent};

use super::*;
use crate::codec;

const SOON: Duration = Duration::from_secs(20);

/// An event that folds into any state; its time, in seconds, tells which one it was.
fn event(second: i64) -> NewEvent {
    event_of(second, &ClusterClockAccepted { behind_ms: 0 }.into())
}

fn event_of(second: i64, fact: &Fact) -> NewEvent {
    let of = codec::Circumstances {
        time: Timestamp(second * 1_000),
        actor: Principal::System(SystemActor::Host),
        credential: None,
        command: None,
        reason: None,
        decided_at: None,
        traceparent: None,
        service: "orchestrator",
    };
    codec::encode(&"acme.cluster".parse().unwrap(), fact, &of)
}

fn garbage() -> NewEvent {
    NewEvent {
        data: "no event".into(),
        ..event(0)
    }
}

async fn append(log: &MemoryLog, event: NewEvent) {
    log.append(Append::one(event, None)).await.unwrap();
}

/// The fold has stopped at the second event, says why, and tells nobody anything later.
async fn has_stopped_at_two(fold: &Fold, words: &str) {
    let behind = fold.wait_for(Position(4), SOON).await.unwrap_err();
    assert_eq!((behind.at, behind.wanted), (Position(2), Position(4)));
    assert_eq!(
        fold.read(|state| (state.position, state.time)),
        (Position(2), Timestamp(2_000))
    );
    let why = fold.failed().expect("it has stopped");
    assert!(why.contains(words), "{why}");
    assert!(fold.catch_up(SOON).await.is_err());
}

async fn folding(log: &MemoryLog) -> Result<Fold, FoldError> {
    Fold::start(Arc::new(log.clone()), CancellationToken::new()).await
}

#[tokio::test(start_paused = true)]
async fn a_gap_stops_the_fold_and_nothing_behind_it_is_used() {
    let log = MemoryLog::new();
    let fold = folding(&log).await.unwrap();
    for second in 1..=2 {
        append(&log, event(second)).await;
    }
    fold.wait_for(Position(2), SOON).await.unwrap();
    for second in 3..=4 {
        append(&log, event(second)).await;
    }
    log.lose(3);
    has_stopped_at_two(&fold, "position 3 is missing").await;
    let refused = folding(&log).await;
    assert!(matches!(refused, Err(FoldError::Stopped(why)) if why.contains("position 3 is missing")));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_decoded_stops_the_fold() {
    let log = MemoryLog::new();
    let fold = folding(&log).await.unwrap();
    let mut live = fold.events();
    for new in [event(1), event(2), garbage(), event(4)] {
        append(&log, new).await;
    }
    has_stopped_at_two(&fold, "position 3").await;
    for position in 1..=2 {
        assert_eq!(live.try_recv().unwrap().header.position, Position(position));
    }
    assert!(live.try_recv().is_err(), "nobody hears of what lies behind it");
    let refused = folding(&log).await;
    assert!(matches!(refused, Err(FoldError::Stopped(_))));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_skips_a_position_is_not_believed() {
    let log = MemoryLog::new();
    let fold = folding(&log).await.unwrap();
    for second in 1..=4 {
        append(&log, event(second)).await;
    }
    let mut records = log.read(1, 10).await.unwrap();
    // Nothing was folded yet: the task had no turn.
    records.remove(2);
    let decoded = reading::decoded(records.into_iter().map(Ok).collect());
    let folded = decoded.fold_into(&fold.inner);
    assert_eq!(folded, Err("position 3 is missing: the log gave 4".into()));
    assert_eq!(fold.read(|state| state.position), Position(2));
}

/// More than is decoded and folded together.
const LONG: i64 = 5_000;

#[tokio::test(start_paused = true)]
async fn a_long_log_is_folded_before_the_start_is_over_and_then_followed() {
    let log = MemoryLog::new();
    for second in 1..=LONG {
        append(&log, event(second)).await;
    }
    let fold = folding(&log).await.unwrap();
    assert_eq!(
        fold.read(|state| (state.position.0, state.time)),
        (LONG.unsigned_abs(), Timestamp(LONG * 1_000))
    );
    append(&log, event(LONG + 1)).await;
    fold.wait_for(Position(LONG.unsigned_abs() + 1), SOON)
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_start_goes_beyond_damage_deep_in_a_log() {
    let log = MemoryLog::new();
    for second in 1..=LONG {
        append(&log, event(second)).await;
    }
    append(&log, garbage()).await;
    append(&log, event(LONG + 2)).await;
    let refused = folding(&log).await;
    assert!(
        matches!(&refused, Err(FoldError::Stopped(why)) if why.contains("position 5001")),
        "{:?}",
        refused.err()
    );
    log.lose(3_000);
    let refused = folding(&log).await;
    assert!(
        matches!(&refused, Err(FoldError::Stopped(why)) if why.contains("position 3000 is missing")),
        "{:?}",
        refused.err()
    );
}

#[tokio::test(start_paused = true)]
async fn the_fold_knows_where_the_log_tells_of_rotations() {
    let log = MemoryLog::new();
    let resumed = RotationResumed {
        due: domain::Phase::UpdateClients,
        authority_type: AuthorityType::Host,
        rotation: domain::RotationId(uuid::Uuid::nil()),
    };
    for (second, fact) in [
        (1, ClusterClockAccepted { behind_ms: 0 }.into()),
        (2, resumed.clone().into()),
        (3, ClusterClockAccepted { behind_ms: 0 }.into()),
    ] {
        append(&log, event_of(second, &fact)).await;
    }
    let fold = folding(&log).await.unwrap();
    assert_eq!(fold.rotations(), [Position(2)]);
    append(&log, event_of(4, &resumed.into())).await;
    fold.wait_for(Position(4), SOON).await.unwrap();
    assert_eq!(fold.rotations(), [Position(2), Position(4)]);
}

fn positions(events: &[Arc<Event>]) -> Vec<u64> {
    events.iter().map(|event| event.header.position.0).collect()
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_gets_every_event_once_from_the_log_and_then_live() {
    let log = MemoryLog::new();
    for second in 1..=5 {
        append(&log, event(second)).await;
    }
    let fold = folding(&log).await.unwrap();
    let mut events = fold.follow(Position(1));
    assert_eq!(positions(&events.next(3).await.unwrap()), [2, 3, 4]);
    append(&log, event(6)).await;
    fold.wait_for(Position(6), SOON).await.unwrap();
    // The sixth is live already; the fifth is still read from the log, and nothing is told twice.
    let mut told = vec![];
    while told.len() < 2 {
        told.extend(positions(&events.next(10).await.unwrap()));
    }
    assert_eq!(told, [5, 6]);
    let later = events.next(10);
    tokio::pin!(later);
    assert!(futures::poll!(&mut later).is_pending());
    append(&log, event(7)).await;
    assert_eq!(positions(&later.await.unwrap()), [7]);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_slower_than_the_live_events_reads_what_he_missed() {
    let log = MemoryLog::new();
    let fold = folding(&log).await.unwrap();
    let mut events = fold.follow(Position(0));
    let all = LIVE_EVENTS as u64 + 100;
    for second in 1..=all {
        append(&log, event(i64::try_from(second).unwrap())).await;
    }
    fold.wait_for(Position(all), SOON).await.unwrap();
    let mut told = vec![];
    while told.len() < usize::try_from(all).unwrap() {
        told.extend(positions(&events.next(1_000).await.unwrap()));
    }
    assert_eq!(told, (1..=all).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_is_told_that_the_fold_has_stopped() {
    let log = MemoryLog::new();
    let fold = folding(&log).await.unwrap();
    let mut events = fold.follow(Position(0));
    for new in [event(1), garbage()] {
        append(&log, new).await;
    }
    assert_eq!(positions(&events.next(10).await.unwrap()), [1]);
    let Err(FoldError::Stopped(why)) = events.next(10).await else {
        panic!("there is nothing more to tell");
    };
    assert!(why.contains("position 2"), "{why}");
}
