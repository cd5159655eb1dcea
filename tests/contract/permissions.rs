//! The NATS permissions that are shipped, on a real server: who may write which family, and who could destroy a log.
//!
//! The server answers a forbidden publication with an error, in order. Each user tries everything and at last what
//! nobody may: when that error has come, all others have.

use std::{collections::BTreeSet, time::Duration};

use async_nats::{Client, ConnectOptions, Event};
use carousel_tests::{
    NatsServer, PATIENCE, TestDir,
    broker::{USERS, password_of, shipped, url_of},
};
use eventlog::{
    Append, Done, JetStreamLog, JetStreamOptions, NewEvent, Outcome, Provision, SharedLog, bus::BusOptions,
};
use tokio::{sync::mpsc, time::timeout};

use crate::{
    samples::{self, cluster},
    subjects::{ORCHESTRATOR, SIGNER},
};

const EVENTS: &str = "CAROUSEL_EVENTS_acme_cluster";
const LEASES: &str = "KV_CAROUSEL_LEASES_acme_cluster";

/// What changes or removes a stream, its records or its place.
const DESTRUCTIVE: [&str; 8] = [
    "STREAM.UPDATE",
    "STREAM.DELETE",
    "STREAM.PURGE",
    "STREAM.MSG.DELETE",
    "STREAM.SNAPSHOT",
    "STREAM.RESTORE",
    "STREAM.PEER.REMOVE",
    "STREAM.LEADER.STEPDOWN",
];

#[tokio::test]
async fn each_user_writes_its_own_families_and_only_the_administrator_touches_the_stream() {
    let directory = TestDir::new("nats");
    let Some(server) = shipped(directory.path()).await else {
        return;
    };
    let families = || ORCHESTRATOR.into_iter().chain(SIGNER);
    for user in USERS {
        let (mut tried, mut allowed) = (BTreeSet::new(), BTreeSet::new());
        let mut may = |subject: String, is_allowed: bool| {
            if is_allowed {
                allowed.insert(subject.clone());
            }
            tried.insert(subject);
        };
        for family in families() {
            let own = match user {
                "control-plane" => true,
                "orchestrator" => ORCHESTRATOR.contains(&family),
                "signer" => SIGNER.contains(&family),
                _ => false,
            };
            may(format!("carousel.v1.acme_cluster.evt.{family}.host"), own);
            may(format!("carousel.v1.other_cluster.evt.{family}.host"), false);
            may(
                format!("carousel.v1.acme_cluster.evt.{family}.host.deeper"),
                false,
            );
        }
        let keeps_leases = matches!(user, "control-plane" | "orchestrator" | "gateway");
        may("$KV.CAROUSEL_LEASES_acme_cluster.member.x".into(), keeps_leases);
        may("$KV.CAROUSEL_LEASES_other_cluster.member.x".into(), false);
        messages(user, &mut may);
        for (verb, stream) in DESTRUCTIVE
            .into_iter()
            .flat_map(|verb| [(verb, EVENTS), (verb, LEASES)])
        {
            may(format!("$JS.API.{verb}.{stream}"), user == "administrator");
        }
        // A program follows the log with a place of its own, and moves nobody else's.
        let reads = !matches!(user, "deploy");
        for verb in ["CREATE", "INFO", "MSG.NEXT"] {
            may(format!("$JS.API.CONSUMER.{verb}.{EVENTS}.deploy"), true);
            may(format!("$JS.API.CONSUMER.{verb}.{EVENTS}.other"), reads);
        }
        may(format!("$JS.API.CONSUMER.DELETE.{EVENTS}.other"), reads);
        may(format!("$JS.ACK.{EVENTS}.deploy.1.1.1.1.1"), user == "deploy");
        may(format!("$JS.ACK.{EVENTS}.other.1.1.1.1.1"), false);
        let makes = matches!(user, "control-plane" | "administrator");
        may(format!("$JS.API.STREAM.CREATE.{EVENTS}"), makes);
        may("$JS.API.STREAM.CREATE.SHADOW".into(), user == "administrator");
        let forbidden = forbidden(&server, user, tried.iter(), Attempt::Publish).await;
        let found: BTreeSet<_> = tried.difference(&forbidden).cloned().collect();
        assert_eq!(found, allowed, "{user} may publish");
    }
}

/// What is sent beside events: commands, queries and questions.
fn messages(user: &str, may: &mut impl FnMut(String, bool)) {
    // Who sends a command is told by its subject: only the gateway speaks for others.
    for (sender, is_own) in [("user-alice", false), ("user-deploy", user == "deploy")] {
        may(
            format!("carousel.v1.acme_cluster.cmd.{sender}.rotate"),
            user == "gateway" || is_own,
        );
    }
    may("carousel.v1.other_cluster.cmd.user-deploy.rotate".into(), false);
    // Whoever may read the whole log anyway may ask what is in it.
    may("carousel.v1.acme_cluster.qry".into(), user == "gateway");
    may(
        "carousel.v1.acme_cluster.seen.x".into(),
        matches!(user, "control-plane" | "orchestrator" | "gateway"),
    );
    let member = "018f3c2a-77a1-7d01-9b1e-5c2f6a10e9d3";
    may(
        format!("carousel.v1.acme_cluster.cmd.{member}.forward"),
        user == "gateway",
    );
}

#[tokio::test]
async fn nobody_hears_anothers_answers_and_only_who_answers_commands_hears_them() {
    let directory = TestDir::new("nats");
    let Some(server) = shipped(directory.path()).await else {
        return;
    };
    for user in USERS {
        let inboxes = USERS.map(|other| format!("{}.answer", inbox(other)));
        let commands = "carousel.v1.acme_cluster.cmd.>".to_owned();
        let mut tried: BTreeSet<String> = inboxes.into_iter().collect();
        let found = "$SRV.INFO.carousel".to_owned();
        let (queries, presence) = (
            "carousel.v1.acme_cluster.qry".to_owned(),
            "carousel.v1.acme_cluster.seen.x".to_owned(),
        );
        tried.extend([
            commands.clone(),
            found.clone(),
            queries.clone(),
            presence.clone(),
            "carousel.v1.acme_cluster.evt.>".into(),
            ">".into(),
            "$SYS.>".into(),
        ]);
        let mut allowed = BTreeSet::from([format!("{}.answer", inbox(user))]);
        if matches!(user, "orchestrator" | "control-plane") {
            allowed.insert(commands);
        }
        if matches!(user, "projector" | "control-plane") {
            allowed.insert(queries);
        }
        if matches!(user, "gateway" | "control-plane") {
            allowed.insert(presence);
        }
        if matches!(user, "orchestrator" | "control-plane" | "projector" | "gateway") {
            allowed.insert(found);
        }
        let forbidden = forbidden(&server, user, tried.iter(), Attempt::Subscribe).await;
        let found: BTreeSet<_> = tried.difference(&forbidden).cloned().collect();
        assert_eq!(found, allowed, "{user} may subscribe");
    }
}

/// The streams are an administrator's, who writes no event; whoever serves finds them as it would have made them.
#[tokio::test]
async fn an_administrator_makes_the_streams_and_a_service_cannot() {
    let directory = TestDir::new("nats");
    let Some(server) = shipped(directory.path()).await else {
        return;
    };
    let wanted = Provision {
        cluster: cluster().to_string(),
        replicas: 1,
        syncs_always: true,
    };
    for user in ["orchestrator", "signer"] {
        let refused = JetStreamLog::provision(&bus_of(&server, user), &wanted, false).await;
        assert!(refused.is_err(), "{user}: {refused:?}");
    }
    let made = JetStreamLog::provision(&bus_of(&server, "administrator"), &wanted, false).await;
    let made: Vec<_> = made.expect("it may").into_iter().map(|one| one.done).collect();
    assert_eq!(made, [Done::Made, Done::Made]);
    let log = open(&server, "orchestrator").await;
    let lease = log.put_lease("member.x", "alive".into(), Duration::from_secs(30));
    lease.await.expect("the bucket is there");
}

/// The permissions are not only narrow but wide enough: the product's own log works with them.
#[tokio::test]
async fn the_log_works_for_each_user_within_its_permissions() {
    let directory = TestDir::new("nats");
    let Some(server) = shipped(directory.path()).await else {
        return;
    };
    let events: Vec<NewEvent> = samples::all().iter().map(samples::Sample::written).collect();
    let whole = open(&server, "control-plane").await;
    // Like the genesis: families of both writers in one atomic append.
    assert_eq!(append(&whole, events.clone()).await, events.len() as u64);
    let lease = whole.put_lease("member.x", "alive".into(), Duration::from_secs(30));
    lease.await.expect("leases are kept");
    assert_eq!(whole.leases().await.expect("leases are listed").len(), 1);
    let mut position = events.len() as u64;
    for (user, families) in [("orchestrator", &ORCHESTRATOR[..]), ("signer", &SIGNER[..])] {
        let log = open(&server, user).await;
        for family in families {
            let sample = samples::all()
                .into_iter()
                .find(|s| s.fact.family() == *family)
                .expect("one of each");
            position += 1;
            assert_eq!(
                append(&log, vec![sample.written()]).await,
                position,
                "{user}: {family}"
            );
        }
        let read = log.read(1, 1000).await.expect("the log is read");
        assert_eq!(read.len() as u64, position, "{user}");
    }
    for user in ["gateway", "projector"] {
        let log = open(&server, user).await;
        let read = log.read(1, 1000).await.expect("the log is read");
        assert_eq!(read.len() as u64, position, "{user}");
        assert_eq!(log.last_position().await.expect("the end is known"), position);
    }
}

enum Attempt {
    Publish,
    Subscribe,
}

/// Which of these subjects the server forbids this user.
async fn forbidden(
    server: &NatsServer,
    user: &str,
    subjects: impl Iterator<Item = &String>,
    attempt: Attempt,
) -> BTreeSet<String> {
    let (client, mut errors) = connect(server, user).await;
    let mut held = Vec::new();
    for subject in subjects {
        match attempt {
            Attempt::Publish => client
                .publish(subject.clone(), "".into())
                .await
                .expect("it is sent"),
            Attempt::Subscribe => held.push(client.subscribe(subject.clone()).await.expect("it is sent")),
        }
    }
    let last = "nobody.may".to_owned();
    client.publish(last.clone(), "".into()).await.expect("it is sent");
    let mut found = BTreeSet::new();
    while !found.contains(&last) {
        let error = timeout(PATIENCE, errors.recv())
            .await
            .expect("the server answers")
            .expect("the client lives");
        // Permissions Violation for Publish to "carousel.v1…"
        assert!(error.contains("Permissions Violation"), "{user}: {error}");
        found.insert(error.split('"').nth(1).expect("it names the subject").to_owned());
    }
    found
}

async fn connect(server: &NatsServer, user: &str) -> (Client, mpsc::Receiver<String>) {
    // Room for every attempt: the client drops what does not fit.
    let (to_us, errors) = mpsc::channel(256);
    let client = ConnectOptions::with_user_and_password(user.into(), password_of(user))
        .custom_inbox_prefix(inbox(user))
        .event_callback(move |event| {
            let to_us = to_us.clone();
            async move {
                if let Event::ServerError(error) = event {
                    // Nobody listens any more once the test has seen the last one.
                    let _ = to_us.send(error.to_string()).await;
                }
            }
        })
        .connect(server.url())
        .await
        .unwrap_or_else(|error| panic!("{user}: {error}"));
    (client, errors)
}

fn bus_of(server: &NatsServer, user: &str) -> BusOptions {
    BusOptions {
        url: url_of(server, user),
        name: format!("test-{user}"),
        inbox_prefix: (user != "control-plane").then(|| inbox(user)),
        ..BusOptions::default()
    }
}

async fn open(server: &NatsServer, user: &str) -> SharedLog {
    let bus = bus_of(server, user);
    let options = JetStreamOptions {
        cluster: cluster().to_string(),
        replicas: 1,
    };
    JetStreamLog::connect(&bus, &options)
        .await
        .unwrap_or_else(|error| panic!("{user}: {error:?}"))
}

/// Appends without a condition; the answer is the last position.
async fn append(log: &SharedLog, events: Vec<NewEvent>) -> u64 {
    let append = Append {
        subject: events[0].subject.clone(),
        expected: None,
        events,
    };
    match log.append(append).await.expect("it may be written") {
        Outcome::Stored { last, .. } => last,
        Outcome::Conflict { tail } => panic!("a conflict at {tail} without a condition"),
        Outcome::Unknown(why) => panic!("not answered: {why}"),
    }
}

/// `control-plane` has the client's usual one, because `carousel serve` sets none.
fn inbox(user: &str) -> String {
    match user {
        "control-plane" => "_INBOX".into(),
        user => format!("_INBOX_{user}"),
    }
}
