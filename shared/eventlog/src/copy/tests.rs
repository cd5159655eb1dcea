use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::{
    JetStreamLog, JetStreamOptions, MemoryLog, SqliteLog,
    bus::BusOptions,
    conformance::{CLUSTER, event},
    event_prefix,
    testing::NatsServer,
};

/// More than two batches, on a few subjects in no order, some of one append.
async fn filled(log: &dyn EventLog, count: u64) {
    let subject = |n: u64| format!("{}node.h{}", event_prefix(CLUSTER), n * 7 % 5);
    let mut n = 0;
    while n < count {
        let several = if n % 10 == 3 { 3 } else { 1 };
        let events: Vec<_> = (n..n + several).map(|n| event(&subject(n), n)).collect();
        let append = Append {
            subject: events[0].subject.clone(),
            expected: None,
            events,
        };
        assert!(matches!(
            log.append(append).await.unwrap(),
            Outcome::Stored { .. }
        ));
        n += several;
    }
}

async fn all(log: &dyn EventLog) -> Vec<Stored> {
    log.read(1, 100_000).await.unwrap()
}

async fn quietly(from: &dyn EventLog, to: &dyn EventLog) -> Result<Copied, CopyError> {
    copy(from, to, |_, _, _| {}).await
}

#[tokio::test]
async fn a_log_is_the_same_in_a_file_and_on_a_stream_and_in_a_file_again() {
    let dir = TempDir::new().unwrap();
    let Some(server) = NatsServer::start(dir.path().join("nats")).await else {
        return;
    };
    let first = SqliteLog::open(dir.path().join("first.sqlite")).await.unwrap();
    filled(&*first, 700).await;
    let bus = BusOptions {
        url: server.url(),
        name: "test".into(),
        ..BusOptions::default()
    };
    let options = JetStreamOptions {
        cluster: CLUSTER.into(),
        replicas: 1,
    };
    let stream = JetStreamLog::connect(&bus, &options).await.unwrap();
    let second = SqliteLog::open(dir.path().join("second.sqlite")).await.unwrap();
    let last = first.last_position().await.unwrap();
    let mut heard = vec![];
    let copied = copy(&*first, &*stream, |what, position, of| {
        heard.push((what, position, of))
    })
    .await;
    assert_eq!(
        copied.unwrap(),
        Copied {
            position: last,
            were_there: 0
        }
    );
    assert!(heard.contains(&("copied", last, last)) && heard.contains(&("verified", last, last)));
    assert_eq!(quietly(&*stream, &*second).await.unwrap().position, last);
    assert_eq!(all(&*second).await, all(&*first).await);
    assert_eq!(
        quietly(&*first, &*stream).await.unwrap(),
        Copied {
            position: last,
            were_there: last
        }
    );
}

#[tokio::test]
async fn a_copy_that_was_cut_short_goes_on_and_one_that_has_become_another_log_is_refused() {
    let source = MemoryLog::new();
    filled(&source, 40).await;
    let part = MemoryLog::new();
    for record in &all(&source).await[..17] {
        let event = NewEvent {
            subject: record.subject.clone(),
            id: event_id(&record.data).unwrap(),
            data: record.data.clone(),
        };
        part.append(Append::one(event, None)).await.unwrap();
    }
    let copied = quietly(&source, &part).await.unwrap();
    assert_eq!(copied.were_there, 17);
    assert_eq!(all(&part).await, all(&source).await);
    // It has gone on by itself: the other way is the only one.
    filled(&part, 1).await;
    let ahead = quietly(&source, &part).await.unwrap_err();
    assert!(matches!(ahead, CopyError::Ahead { .. }), "{ahead}");
    assert_eq!(quietly(&part, &source).await.unwrap().were_there, copied.position);
    // Both have gone on, each by itself.
    filled(&part, 1).await;
    filled(&source, 2).await;
    let before = all(&part).await;
    let differs = quietly(&source, &part).await.unwrap_err();
    let CopyError::Differs { position, .. } = differs else {
        panic!("{differs}")
    };
    assert_eq!(position, before.len() as u64);
    assert_eq!(all(&part).await, before, "nothing was written");
}

#[tokio::test]
async fn large_events_go_in_small_appends_and_a_record_that_is_no_event_stops_it() {
    let (source, target) = (MemoryLog::new(), MemoryLog::new());
    let subject = format!("{}node.large", event_prefix(CLUSTER));
    for n in 0..40 {
        let mut large = event(&subject, n);
        let text = format!(r#"{{"id":"{}","x":"{}"}}"#, large.id, "y".repeat(400_000));
        large.data = Bytes::from(text);
        source.append(Append::one(large, None)).await.unwrap();
    }
    assert_eq!(quietly(&source, &target).await.unwrap().position, 40);
    let mut broken = event(&subject, 41);
    broken.data = Bytes::from_static(b"{}");
    source.append(Append::one(broken, None)).await.unwrap();
    let refused = quietly(&source, &target).await.unwrap_err();
    assert!(
        matches!(refused, CopyError::NoEvent { position: 41, .. }),
        "{refused}"
    );
}
