//! Ends of all kinds: what was acknowledged is there afterwards.

use futures::stream::StreamExt;

use super::{Store, appending::everything, at, following::next, on};
use crate::{AppendError, LeaseError, Outcome, ReadError};

/// Records, tails and positions survive, and appending goes on where it stopped.
pub async fn a_restart_keeps_what_was_acknowledged(store: &mut dyn Store) {
    let mut log = store.open().await;
    let mut stored = 0;
    for round in 0..3 {
        for n in 0..20 {
            log.append(on(&format!("t.{n}"), None, 1 + n % 4)).await.unwrap();
            stored += 1 + n % 4;
        }
        let before = everything(&log).await;
        log = store.restart(log).await;
        assert_eq!(log.last_position().await.unwrap(), stored, "round {round}");
        assert_eq!(everything(&log).await, before, "round {round}");
        let tail = log.tail(&at("t.0")).await.unwrap().unwrap();
        assert_eq!(
            Some(&tail),
            before.iter().rfind(|record| record.subject == at("t.0"))
        );
        let stale = log.append(on("t.0", Some(0), 1)).await.unwrap();
        assert_eq!(stale, Outcome::Conflict { tail: tail.position });
        stored += 1;
        let outcome = log.append(on("t.0", Some(tail.position), 1)).await.unwrap();
        assert_eq!(
            outcome,
            Outcome::Stored {
                first: stored,
                last: stored
            }
        );
    }
}

/// A follower either goes on over the restart, or it ends with `Closed`; it never skips or repeats.
pub async fn a_follower_outlives_a_restart_or_says_that_it_ended(store: &mut dyn Store) {
    let log = store.open().await;
    let mut follower = log.follow(0);
    log.append(on("t.a", None, 10)).await.unwrap();
    for expected in 1..=10 {
        assert_eq!(next(&mut follower).await.unwrap().position, expected);
    }
    let log = store.restart(log).await;
    log.append(on("t.a", None, 10)).await.unwrap();
    for expected in 11..=20 {
        match next(&mut follower).await {
            Ok(record) => assert_eq!(record.position, expected),
            Err(ReadError::Closed) => {
                assert!(follower.next().await.is_none());
                follower = log.follow(expected - 1);
                assert_eq!(next(&mut follower).await.unwrap().position, expected);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// After closing, nothing is accepted and nobody waits for ever.
pub async fn a_closed_log_refuses_everything(store: &mut dyn Store) {
    let log = store.open().await;
    log.append(on("t.a", None, 1)).await.unwrap();
    let mut follower = log.follow(1);
    let mut waiting = Box::pin(next(&mut follower));
    assert!(futures::poll!(&mut waiting).is_pending());
    log.close().await;
    let ended = waiting.await;
    assert!(matches!(ended, Err(ReadError::Closed)), "{ended:?}");
    assert!(matches!(
        log.append(on("t.a", None, 1)).await,
        Err(AppendError::Closed)
    ));
    let together = log.append_all(vec![on("t.a", None, 1)]).await;
    assert!(matches!(together[..], [Err(AppendError::Closed)]), "{together:?}");
    assert!(matches!(log.read(1, 1).await, Err(ReadError::Closed)));
    assert!(matches!(log.tail(&at("t.a")).await, Err(ReadError::Closed)));
    assert!(matches!(log.tail(&at("t.none")).await, Err(ReadError::Closed)));
    assert!(matches!(log.last_position().await, Err(ReadError::Closed)));
    assert!(matches!(log.leases().await, Err(LeaseError::Closed)));
    log.close().await;
}
