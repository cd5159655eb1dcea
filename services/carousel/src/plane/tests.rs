use std::{
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use domain::{Fact, command::Settings};
use eventlog::SharedLog;
use execution::codec;
use signer::{KekSource, SignerError};
use tempfile::TempDir;

use super::*;
use crate::home::HomeError;
use crate::init;

/// A cluster that `init` made, its key-encryption key in a file of its own.
fn made() -> (TempDir, PathBuf, Home) {
    let dir = TempDir::new().unwrap();
    let (kek, data) = (dir.path().join("kek"), dir.path().join("cp"));
    std::fs::write(&kek, [7; 32]).unwrap();
    std::fs::set_permissions(&kek, std::fs::Permissions::from_mode(0o600)).unwrap();
    let cluster = "acme.cluster".parse().unwrap();
    init::make(
        &data,
        &cluster,
        KekSource::File(kek.clone()),
        signer::KeyPlace::Files,
        Settings::default(),
    )
    .unwrap();
    let home = Home::open(&data).unwrap();
    (dir, kek, home)
}

fn again(home: &Home) -> Home {
    Home::open(home.path()).unwrap()
}

async fn start(home: &mut Home, if_empty: IfEmpty) -> Result<Core, PlaneError> {
    Core::start(home, None, if_empty, CancellationToken::new()).await
}

async fn facts(home: &Home) -> Vec<Fact> {
    let log: SharedLog = open_log_to_read(home, "embedded").await.unwrap();
    let records = log.read(1, 1_000).await.unwrap();
    log.close().await;
    records.iter().map(|r| codec::decode(r).unwrap().fact).collect()
}

#[tokio::test]
async fn a_start_without_its_key_begins_nothing_and_chooses_no_log() {
    let (_dir, kek, mut home) = made();
    let elsewhere = kek.with_extension("moved");
    std::fs::rename(&kek, &elsewhere).unwrap();
    let refused = start(&mut home, IfEmpty::Begin).await.err().unwrap();
    assert!(
        matches!(refused, PlaneError::Signer(SignerError::Store(_))),
        "{refused}"
    );
    assert_eq!(
        again(&home).description.log,
        None,
        "any log may be given next time"
    );
    assert_eq!(facts(&home).await, [], "and nothing has to be undone in this one");
    std::fs::rename(&elsewhere, &kek).unwrap();
    start(&mut home, IfEmpty::Begin).await.unwrap().stop().await;
    assert!(again(&home).was_begun());
}

#[tokio::test]
async fn a_directory_of_two_clusters_files_begins_neither() {
    let (_dir, _kek, mut home) = made();
    home.description.cluster = "other.cluster".parse().unwrap();
    let refused = start(&mut home, IfEmpty::Begin).await.err().unwrap();
    assert!(matches!(refused, PlaneError::OtherKeys { .. }), "{refused}");
    assert_eq!(facts(&home).await, []);
}

#[tokio::test]
async fn first_facts_with_a_duration_that_nobody_can_live_with_begin_nothing() {
    let (_dir, _kek, mut home) = made();
    let file = home.keys().join("genesis.json");
    let written = std::fs::read_to_string(&file).unwrap();
    let edited = written.replace("\"node_ttl_ms\": 86400000", "\"node_ttl_ms\": 0");
    assert_ne!(edited, written);
    std::fs::write(&file, edited).unwrap();
    let refused = start(&mut home, IfEmpty::Begin).await.err().unwrap();
    assert!(refused.to_string().contains("node_ttl_ms is 0 ms"), "{refused}");
    assert_eq!(facts(&home).await, []);
}

#[tokio::test]
async fn a_crash_before_the_first_facts_leaves_the_choice_of_the_log() {
    let (_dir, _kek, mut home) = made();
    home.remember_log("embedded").unwrap();
    let mut home = again(&home);
    assert!(!home.was_begun());
    let other = Core::start(
        &mut home,
        Some("nats://127.0.0.1:1"),
        IfEmpty::Begin,
        CancellationToken::new(),
    );
    let refused = other.await.err().unwrap();
    assert!(
        matches!(refused, PlaneError::Home(HomeError::OtherLog { .. })),
        "{refused}"
    );
    start(&mut home, IfEmpty::Begin).await.unwrap().stop().await;
    assert!(again(&home).was_begun());
}

#[tokio::test]
async fn a_crash_after_the_first_facts_is_found_and_never_begun_a_second_time() {
    let (_dir, _kek, mut home) = made();
    start(&mut home, IfEmpty::Begin).await.unwrap().stop().await;
    home.remember_log("embedded").unwrap();
    let mut home = again(&home);
    start(&mut home, IfEmpty::Refuse).await.unwrap().stop().await;
    let created = |facts: &[Fact]| {
        facts
            .iter()
            .filter(|f| matches!(f, Fact::ClusterCreated(_)))
            .count()
    };
    assert_eq!(created(&facts(&home).await), 1);
    let mut home = again(&home);
    assert!(home.was_begun());
    std::fs::remove_file(home.log_file()).unwrap();
    let refused = start(&mut home, IfEmpty::Begin).await.err().unwrap();
    assert!(matches!(refused, PlaneError::LostLog { found: _ }), "{refused}");
}

#[tokio::test]
async fn whoever_only_uses_a_cluster_does_not_begin_it() {
    let (_dir, _kek, mut home) = made();
    let refused = start(&mut home, IfEmpty::Refuse).await.err().unwrap();
    assert!(matches!(refused, PlaneError::NeverBegun(_)), "{refused}");
    assert!(
        refused.to_string().contains("carousel serve --data-dir"),
        "{refused}"
    );
    assert!(!home.log_file().exists(), "no log was made");
    home.remember_log("embedded").unwrap();
    let refused = start(&mut home, IfEmpty::Refuse).await.err().unwrap();
    assert!(matches!(refused, PlaneError::NeverBegun(_)), "{refused}");
    assert_eq!(facts(&home).await, []);
}

fn on_loopback() -> Options {
    Options {
        log: None,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        names: vec![],
        addresses: vec![Ipv4Addr::LOCALHOST.into()],
        advertise: None,
        public_url: None,
        admin_listen: None,
        keys: None,
        services: Services::all(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_fails_late_says_in_the_log_that_its_gateway_stopped() {
    let (_dir, _kek, mut home) = made();
    // Found only once everything serves, when the address is written into it.
    spoil(&home.admin_identity());
    let started = Plane::start(&mut home, on_loopback(), CancellationToken::new()).await;
    assert!(matches!(started.err(), Some(PlaneError::Identity(_))));
    let facts = facts(&home).await;
    let at = |is: fn(&Fact) -> bool| facts.iter().rposition(is);
    let (began, stopped) = (
        at(|f| matches!(f, Fact::MemberStarted(_))),
        at(|f| matches!(f, Fact::MemberStopped(_))),
    );
    assert!(began.is_some() && stopped > began, "{began:?} {stopped:?}");
    assert!(!home.host_socket().exists());
}

fn spoil(identity: &Path) {
    std::fs::write(identity, "no identity").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_told_to_stop_ends_in_order() {
    let (_dir, _kek, mut home) = made();
    let stop = CancellationToken::new();
    stop.cancel();
    let started = Plane::start(&mut home, on_loopback(), stop).await;
    assert!(started.is_err());
    // Whoever comes next finds the directory as it should be.
    let plane = Plane::start(&mut home, on_loopback(), CancellationToken::new()).await;
    plane.unwrap().stop().await;
}
