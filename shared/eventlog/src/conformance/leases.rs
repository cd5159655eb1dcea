//! Leases: renewed, listed, dropped, and gone by themselves.

use std::time::{Duration, Instant};

use super::{Store, on};
use crate::{Lease, LeaseError, SharedLog};

/// A revision changes with every renewal and with nothing else; an end of life needs nobody.
pub async fn leases_are_renewed_and_vanish(store: &mut dyn Store) {
    let log = store.open().await;
    let long = Duration::from_secs(600);
    assert_eq!(log.leases().await.unwrap(), []);
    log.put_lease("gateway.b", "one".into(), long).await.unwrap();
    log.put_lease("gateway.a", "two".into(), long).await.unwrap();
    let first = log.leases().await.unwrap();
    let keys: Vec<_> = first
        .iter()
        .map(|lease| (lease.key.as_str(), &lease.value[..]))
        .collect();
    assert_eq!(keys, [("gateway.a", &b"two"[..]), ("gateway.b", b"one")]);
    assert_eq!(log.leases().await.unwrap(), first, "reading changed a revision");
    log.put_lease("gateway.a", "two".into(), long).await.unwrap();
    let renewed = log.leases().await.unwrap();
    assert!(
        renewed[0].revision > first[0].revision,
        "a renewal with the same value is not visible"
    );
    assert_eq!(renewed[1], first[1]);
    log.drop_lease("gateway.a").await.unwrap();
    log.drop_lease("gateway.none").await.unwrap();
    assert_eq!(log.leases().await.unwrap(), [first[1].clone()]);
    log.put_lease("gateway.a", "again".into(), long).await.unwrap();
    let again = find(&log, "gateway.a")
        .await
        .expect("a dropped lease may be taken again");
    assert!(again.revision > renewed[0].revision, "a revision came back");
    for (key, ttl) in [
        ("a b", long),
        ("", long),
        ("a.*", long),
        ("a", Duration::ZERO),
        ("a", long * 60),
    ] {
        let refused = log.put_lease(key, "x".into(), ttl).await;
        assert!(
            matches!(refused, Err(LeaseError::Invalid { .. })),
            "{key:?} {ttl:?}: {refused:?}"
        );
    }
    vanish(&log).await;
    assert_eq!(log.last_position().await.unwrap(), 0, "a lease is an event");
    log.append(on("t.a", Some(0), 1)).await.unwrap();
    let log = store.restart(log).await;
    assert!(
        find(&log, "gateway.b")
            .await
            .is_none_or(|lease| lease == first[1])
    );
}

/// A short lease is there, and then it is not; the test waits for that and for nothing else.
async fn vanish(log: &SharedLog) {
    let began = Instant::now();
    log.put_lease("short", "x".into(), Duration::from_secs(1))
        .await
        .unwrap();
    assert!(find(log, "short").await.is_some() || began.elapsed() >= Duration::from_secs(1));
    while find(log, "short").await.is_some() {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "a lease outlived its time by far"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "a lease ended early"
    );
    assert!(
        find(log, "gateway.b").await.is_some(),
        "another lease went with it"
    );
}

async fn find(log: &SharedLog, key: &str) -> Option<Lease> {
    log.leases()
        .await
        .unwrap()
        .into_iter()
        .find(|lease| lease.key == key)
}
