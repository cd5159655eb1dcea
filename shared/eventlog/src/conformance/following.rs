//! Following: from anywhere, in order, live, and never past damage.

use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};

use super::{Store, appending::everything, on};
use crate::{ReadError, Stored};

/// Longer than any store needs, so that only a record that never comes is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// From the beginning, the middle and the end; old records first, then those appended meanwhile.
pub async fn following_begins_anywhere_and_goes_on_live(store: &mut dyn Store) {
    let log = store.open().await;
    let mut early = log.follow(0);
    for n in 0..7 {
        log.append(on(&format!("t.{n}"), None, 100)).await.unwrap();
    }
    let mut followers = [(0, log.follow(0)), (350, log.follow(350)), (700, log.follow(700))];
    log.append(on("t.live", None, 1)).await.unwrap();
    let records = everything(&log).await;
    assert_eq!(records.len(), 701);
    for (after, follower) in &mut followers {
        for expected in &records[*after..] {
            assert_eq!(
                &next(follower).await.unwrap(),
                expected,
                "following after {after}"
            );
        }
    }
    for expected in &records {
        assert_eq!(&next(&mut early).await.unwrap(), expected);
    }
    for n in 0..50 {
        log.append(on("t.live", None, 1)).await.unwrap();
        for (after, follower) in &mut followers {
            let record = next(follower).await.unwrap();
            assert_eq!(record.position, 702 + n, "following after {after}");
        }
    }
    // Who comes back begins where he stopped, and sees nothing twice.
    let [(_, first), ..] = followers;
    drop(first);
    let mut again = log.follow(700);
    assert_eq!(next(&mut again).await.unwrap(), records[700]);
}

/// A view that is ahead of the log belongs to another log, or the log has lost its end.
pub async fn a_follower_that_has_seen_more_than_there_is_stops(store: &mut dyn Store) {
    let log = store.open().await;
    log.append(on("t.a", None, 3)).await.unwrap();
    let mut follower = log.follow(4);
    let error = next(&mut follower).await.unwrap_err();
    assert!(
        matches!(error, ReadError::Shrunk { position: 4, last: 3 }),
        "{error:?}"
    );
    assert!(follower.next().await.is_none());
    log.append(on("t.a", None, 2)).await.unwrap();
    assert_eq!(next(&mut log.follow(4)).await.unwrap().position, 5);
}

/// The next thing a follower says.
pub(super) async fn next(
    follower: &mut BoxStream<'static, Result<Stored, ReadError>>,
) -> Result<Stored, ReadError> {
    let next = tokio::time::timeout(PATIENCE, follower.next()).await;
    next.expect("the follower said nothing for half a minute")
        .expect("the follower ended without an error")
}
