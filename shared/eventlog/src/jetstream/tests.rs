//! The log on a real server: the suite, the protections, damage, and connections that break.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream::Config;
use futures::StreamExt;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufStream},
    net::TcpListener,
};

use super::*;
use crate::{
    append_certainly, cluster_token,
    conformance::{self, CLUSTER, JetStreamStore, event},
    testing::NatsServer,
};

mod provisioning;

conformance::suite!(JetStreamStore::start());

fn options() -> JetStreamOptions {
    JetStreamOptions {
        cluster: CLUSTER.into(),
        replicas: 1,
    }
}

fn bus_to(server: &NatsServer) -> BusOptions {
    BusOptions {
        url: server.url(),
        name: "test".into(),
        ..BusOptions::default()
    }
}

fn one(holder: &str, expected: Option<u64>) -> Append {
    Append::one(event(&format!("{}{holder}", event_prefix(CLUSTER)), 1), expected)
}

type Change = fn(&mut Config);

/// A log on a stream as `change` leaves it, opened without looking at its protections.
async fn unchecked(server: &NatsServer, change: impl FnOnce(&mut Config)) -> JetStreamLog {
    let client = bus::connect(&bus_to(server)).await.unwrap();
    let context = context(client.clone());
    let mut config = protections::wanted(&options());
    change(&mut config);
    let stream = context.create_stream(config).await.unwrap();
    JetStreamLog::assemble(client, context, stream, &server.url(), &options(), Vec::new())
}

/// What a follower says until it ends; one that goes on for ever fails the test instead of holding it up.
async fn until_the_end(
    follower: BoxStream<'static, Result<Stored, ReadError>>,
) -> Vec<Result<Stored, ReadError>> {
    let all = tokio::time::timeout(Duration::from_secs(30), follower.collect());
    all.await.expect("the follower did not end")
}

async fn opening_error(server: &NatsServer) -> JetStreamOpenError {
    match JetStreamLog::connect(&bus_to(server), &options()).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_stream_without_its_protections_is_refused_and_each_one_is_named() {
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start(directory.path()).await else {
        return;
    };
    let changes: [(&str, Change); 11] = [
        ("deny_delete", |config| config.deny_delete = false),
        ("deny_purge", |config| config.deny_purge = false),
        ("rollup", |config| {
            (config.allow_rollup, config.deny_purge) = (true, false)
        }),
        ("discard", |config| {
            (config.discard, config.max_messages) = (Default::default(), 1000)
        }),
        ("max_bytes", |config| config.max_bytes = 1 << 30),
        ("max_age", |config| config.max_age = Duration::from_secs(86_400)),
        ("max_msgs_per_subject", |config| {
            config.max_messages_per_subject = 1
        }),
        ("storage", |config| {
            config.storage = async_nats::jetstream::stream::StorageType::Memory
        }),
        ("subjects", |config| config.subjects.push("else.>".into())),
        ("duplicate_window", |config| {
            config.duplicate_window = Duration::from_secs(1)
        }),
        ("carousel.log", |config| config.metadata.clear()),
    ];
    for (named, change) in changes {
        let log = unchecked(&server, change).await;
        let error = opening_error(&server).await;
        assert!(
            matches!(error, JetStreamOpenError::Unprotected { .. }),
            "{named}: {error:?}"
        );
        assert!(error.to_string().contains(named), "{named}: {error}");
        log.inner
            .context
            .delete_stream(&log.inner.stream_name)
            .await
            .unwrap();
    }
    JetStreamLog::connect(&bus_to(&server), &options()).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_must_be_there_is_opened_and_a_missing_one_is_not_made() {
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start(directory.path()).await else {
        return;
    };
    for _ in 0..2 {
        let refused = JetStreamLog::connect_existing(&bus_to(&server), &options()).await;
        let error = refused.err().expect("there is no stream");
        assert!(matches!(error, JetStreamOpenError::Missing { .. }), "{error:?}");
    }
    JetStreamLog::connect(&bus_to(&server), &options()).await.unwrap();
    JetStreamLog::connect_existing(&bus_to(&server), &options())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_in_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bus = BusOptions {
        url: format!("nats://{}", listener.local_addr().unwrap()),
        ..BusOptions::default()
    };
    let options = options();
    let error = tokio::select! {
        opened = JetStreamLog::connect(&bus, &options) => opened.err().expect("it is too old"),
        () = greet(listener, "2.12.2") => panic!("the listener ended"),
    };
    assert!(
        matches!(&error, JetStreamOpenError::TooOld { version } if version == "2.12.2"),
        "{error:?}"
    );
    assert!(
        error.to_string().starts_with(
            "the NATS server is version 2.12.2; the log needs 2.12.3 or newer, because older ones lose or reorder"
        ),
        "{error}"
    );
}

/// As much of a NATS server as it takes to be asked for its version: a greeting, and an answer to each PING.
async fn greet(listener: TcpListener, version: &str) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = BufStream::new(stream);
        let info = format!(
            "INFO {{\"server_id\":\"old\",\"version\":\"{version}\",\"headers\":true,\"proto\":1,\
             \"max_payload\":1048576}}\r\n"
        );
        stream.write_all(info.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut line = String::new();
        // Until the client hangs up.
        while stream.read_line(&mut line).await.unwrap_or(0) > 0 {
            if line.starts_with("PING") {
                stream.write_all(b"PONG\r\n").await.unwrap();
                stream.flush().await.unwrap();
            }
            line.clear();
        }
    }
}

#[tokio::test]
async fn protections_changed_while_the_log_is_in_use_stop_writing_until_they_are_restored() {
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start(directory.path()).await else {
        return;
    };
    let log = unchecked(&server, |_| {}).await;
    log.append(one("t.a", Some(0))).await.unwrap();
    let mut config = protections::wanted(&options());
    config.max_messages = 1_000_000;
    log.inner.context.update_stream(config.clone()).await.unwrap();
    log.inner.guard.expire();
    for _ in 0..2 {
        let refused = log.append(one("t.a", None)).await;
        let Err(AppendError::ProtectionsChanged { detail }) = refused else {
            panic!("{refused:?}")
        };
        assert!(detail.contains("max_msgs"), "{detail}");
    }
    config.max_messages = -1;
    log.inner.context.update_stream(config).await.unwrap();
    assert_eq!(
        log.append(one("t.a", Some(1))).await.unwrap(),
        Outcome::Stored { first: 2, last: 2 }
    );
}

#[tokio::test]
async fn deletion_and_purge_are_refused_by_the_server() {
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start(directory.path()).await else {
        return;
    };
    let log = unchecked(&server, |_| {}).await;
    log.append(one("t.a", Some(0))).await.unwrap();
    assert!(log.inner.stream.delete_message(1).await.is_err());
    assert!(log.inner.stream.purge().await.is_err());
    assert_eq!(log.last_position().await.unwrap(), 1);
    assert_eq!(log.read(1, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_hole_stops_readers_and_followers() {
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start(directory.path()).await else {
        return;
    };
    let log = unchecked(&server, |config| config.deny_delete = false).await;
    for _ in 0..20 {
        log.append(one("t.a", None)).await.unwrap();
    }
    log.inner.stream.delete_message(7).await.unwrap();
    for (from, limit) in [(1, 20), (5, 3), (7, 1), (7, 20)] {
        let error = log.read(from, limit).await.unwrap_err();
        assert!(
            matches!(error, ReadError::Gap { expected: 7, .. }),
            "from {from}: {error:?}"
        );
    }
    assert_eq!(log.read(8, 20).await.unwrap().len(), 13);
    let records = until_the_end(log.follow(0)).await;
    assert_eq!(records.len(), 7, "something behind the hole was handed out");
    assert!(
        matches!(records[6], Err(ReadError::Gap { expected: 7, .. })),
        "{:?}",
        records[6]
    );
    // A record lost at the very end is noticed only by the watchdog.
    log.inner.stream.delete_message(20).await.unwrap();
    let records = until_the_end(log.follow(18)).await;
    assert!(
        matches!(records[..], [Ok(_), Err(ReadError::Gap { expected: 20, .. })]),
        "{records:?}"
    );
}

#[tokio::test]
async fn an_append_without_a_connection_is_not_sent_later() {
    let directory = TempDir::new().unwrap();
    let Some(mut server) = NatsServer::start(directory.path()).await else {
        return;
    };
    let log = JetStreamLog::connect(&bus_to(&server), &options()).await.unwrap();
    log.append(one("t.a", Some(0))).await.unwrap();
    server.kill();
    let began = Instant::now();
    let refused = loop {
        // Until the client has noticed, an append is sent into the void and its outcome unknown.
        match log.append(one("t.a", Some(1))).await {
            Ok(Outcome::Unknown(_)) => assert!(began.elapsed() < Duration::from_secs(60)),
            other => break other,
        }
    };
    assert!(
        matches!(refused, Err(AppendError::Unreachable { .. })),
        "{refused:?}"
    );
    assert!(matches!(log.read(1, 1).await, Err(ReadError::Unreachable { .. })));
    server.restart().await;
    let outcome = append_certainly(&*log, one("t.a", Some(1))).await.unwrap();
    assert_eq!(outcome, Outcome::Stored { first: 2, last: 2 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_append_is_lost_when_the_server_is_killed_again_and_again() {
    let directory = TempDir::new().unwrap();
    let Some(mut server) = NatsServer::start(directory.path()).await else {
        return;
    };
    let log = JetStreamLog::connect(&bus_to(&server), &options()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (log, stop) = (log.clone(), stop.clone());
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            while !stop.load(Ordering::Acquire) {
                let append = one(
                    &format!("t.w{writer}"),
                    acknowledged.last().map_or(Some(0), |last| Some(*last)),
                );
                match append_certainly(&*log, append).await {
                    Ok(Outcome::Stored { last, .. }) => acknowledged.push(last),
                    other => panic!("{other:?}"),
                }
            }
            acknowledged
        });
    }
    let mut follower = log.follow(0);
    let mut followed = 0;
    for _ in 0..3 {
        let target = followed + 40;
        while followed < target {
            followed += 1;
            assert_eq!(follower.next().await.unwrap().unwrap().position, followed);
        }
        server.restart().await;
    }
    stop.store(true, Ordering::Release);
    let acknowledged: Vec<u64> = writers.join_all().await.into_iter().flatten().collect();
    assert_eq!(
        log.last_position().await.unwrap(),
        acknowledged.len() as u64,
        "an event too many or too few"
    );
    while followed < acknowledged.len() as u64 {
        followed += 1;
        assert_eq!(follower.next().await.unwrap().unwrap().position, followed);
    }
}

#[tokio::test]
async fn a_foreign_subject_is_refused_before_it_is_sent() {
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start(directory.path()).await else {
        return;
    };
    let log = JetStreamLog::connect(&bus_to(&server), &options()).await.unwrap();
    let foreign = Append::one(event("carousel.v1.other.evt.rotation.host", 1), None);
    assert!(matches!(
        log.append(foreign).await,
        Err(AppendError::Invalid { .. })
    ));
}

#[tokio::test]
async fn a_full_store_is_said_and_writing_resumes_with_space() {
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start(directory.path()).await else {
        return;
    };
    let log = unchecked(&server, |config| config.max_bytes = 4096).await;
    let refused = loop {
        match log.append(one("t.a", None)).await {
            Ok(Outcome::Stored { .. }) => {}
            other => break other,
        }
    };
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
    let stored = log.last_position().await.unwrap();
    let mut many = one("t.a", None);
    many.events
        .extend((0..50).map(|n| event(many.subject.as_str(), n)));
    let refused = log.append(many).await;
    assert!(matches!(refused, Err(AppendError::Full { .. })), "{refused:?}");
    assert_eq!(log.last_position().await.unwrap(), stored);
    log.inner
        .context
        .update_stream(protections::wanted(&options()))
        .await
        .unwrap();
    assert!(matches!(
        log.append(one("t.a", None)).await,
        Ok(Outcome::Stored { .. })
    ));
}

#[tokio::test]
async fn a_server_without_jetstream_or_with_small_messages_is_refused_in_words() {
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start_with(directory.path(), "max_payload: 65536").await else {
        return;
    };
    let error = opening_error(&server).await;
    assert!(error.to_string().contains("max_payload"), "{error}");
    let settings = "accounts { A: { users: [{user: a, password: secret}] } }\nno_auth_user: a";
    let directory = TempDir::new().unwrap();
    let server = NatsServer::start_with(directory.path(), settings).await.unwrap();
    let error = opening_error(&server).await;
    assert!(
        matches!(error, JetStreamOpenError::NoJetStream { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_wrong_password_is_named_and_not_shown() {
    let settings = r#"authorization { user: carousel, password: "r/ght" }"#;
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start_with(directory.path(), settings).await else {
        return;
    };
    let with = |password: &str| BusOptions {
        url: server.url().replace("://", &format!("://carousel:{password}@")),
        ..BusOptions::default()
    };
    let error = JetStreamLog::connect(&with("wr0ng"), &options())
        .await
        .err()
        .unwrap();
    assert!(
        matches!(
            error,
            JetStreamOpenError::Connect(bus::ConnectError::Refused { .. })
        ),
        "{error:?}"
    );
    assert!(!format!("{error} {error:?}").contains("wr0ng"));
    let log = JetStreamLog::connect(&with("r%2Fght"), &options()).await.unwrap();
    assert!(!log.name().contains("ght"), "{}", log.name());
}

#[tokio::test]
async fn whether_the_server_syncs_always_is_seen_stated_or_warned_about() {
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start(directory.path()).await else {
        return;
    };
    let log = JetStreamLog::connect(&bus_to(&server), &options()).await.unwrap();
    assert!(
        log.warnings()
            .iter()
            .any(|warning| warning.contains("can not be seen")),
        "{:?}",
        log.warnings()
    );
    let client = bus::connect(&bus_to(&server)).await.unwrap();
    let mut config = protections::wanted(&options());
    config.metadata.insert("carousel.sync".into(), "always".into());
    context(client).update_stream(config).await.unwrap();
    let log = JetStreamLog::connect(&bus_to(&server), &options()).await.unwrap();
    assert!(
        !log.warnings().iter().any(|warning| warning.contains("sync")),
        "{:?}",
        log.warnings()
    );
}

#[tokio::test]
async fn a_server_that_may_be_asked_says_whether_it_syncs_always() {
    let accounts = r#"system_account: SYS
        no_auth_user: app
        accounts {
          SYS: { exports: [{ service: "$SYS.REQ.SERVER.>" }] }
          APP: {
            jetstream: enabled, users: [{ user: app, password: app }]
            imports: [{ service: { account: SYS, subject: "$SYS.REQ.SERVER.>" } }]
          }
        }"#;
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start_with(directory.path(), accounts).await else {
        return;
    };
    let log = JetStreamLog::connect(&bus_to(&server), &options()).await.unwrap();
    assert!(
        !log.warnings().iter().any(|warning| warning.contains("sync")),
        "{:?}",
        log.warnings()
    );
    drop(server);
    let store = directory.path().join("lazy");
    let lazy = format!("{accounts}\njetstream {{ store_dir: {store:?}, sync_interval: \"2m\" }}");
    let server = NatsServer::start_with(directory.path(), &lazy).await.unwrap();
    let log = JetStreamLog::connect(&bus_to(&server), &options()).await.unwrap();
    assert!(
        log.warnings()
            .iter()
            .any(|warning| warning.contains("does not sync")),
        "{:?}",
        log.warnings()
    );
}

#[test]
fn stream_names_are_the_contracts() {
    assert_eq!(cluster_token("acme.cluster"), "acme_cluster");
    assert_eq!(stream_name("acme.cluster"), "CAROUSEL_EVENTS_acme_cluster");
}
