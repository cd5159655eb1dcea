//! What the way back does when the way forward fails, and what ends it.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_node_that_was_taken_back_and_whose_hook_fails_keeps_its_new_certificate_and_recovers_once() {
    let clock = ManualClock::new(SystemClock.now_ms());
    let (plane, dir) = (Plane::start(clock.clone()).await, tempfile::tempdir().unwrap());
    let running = Running::start_by(plane.config(dir.path()), clock.clone());
    plane.reached().await;
    running.stop().await;
    clock.advance(Duration::from_millis(domain::time::DAY_MS + 1));
    plane.inner.install();
    let mut config = plane.config(dir.path());
    config.settings =
        runtime::config::parse("[[reload]]\ncommand = ['/bin/false']\n", Path::new("x")).unwrap();
    // Its bundles have expired as well, so that it learns the row first and then comes back.
    let running = Running::start_by(config, clock.clone());
    let failed_again = |r: &domain::fact::FactReport| r.failure.as_ref().is_some_and(|f| f.count >= 3);
    plane.reported("three failures", failed_again).await;
    assert_eq!(plane.state().recoveries, 1);
    assert!(installed(dir.path(), "client.crt").not_after > domain::Timestamp(clock.now_ms()));
    running.stop().await;
}

/// Waits for the third request of this kind and returns how many different keys they were for.
async fn keys_asked_for(plane: &Plane) -> usize {
    let asked = eventually("three requests", || {
        let asked = plane.state().asked.clone();
        (asked.len() >= 3).then_some(asked)
    });
    asked
        .await
        .into_iter()
        .collect::<std::collections::BTreeSet<_>>()
        .len()
}

#[tokio::test]
async fn an_answer_that_is_no_answer_yet_is_waited_out_with_the_same_key_by_joins_and_recoveries() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    // Nothing is signed yet, and then the authorisation was overtaken by the rotation.
    plane.state().refuse_trust = Some(Code::NotFound);
    plane.state().refuse_join = Some(Code::StaleView);
    let running = Running::start(plane.config(dir.path()));
    eventually("a second look", || (plane.state().trust_asked >= 2).then_some(())).await;
    plane.state().refuse_trust = None;
    assert_eq!(keys_asked_for(&plane).await, 1);
    plane.state().refuse_join = None;
    plane.reached().await;
    running.stop().await;

    plane.state().issued.clear();
    plane.state().reports.clear();
    plane.state().asked.clear();
    plane.state().refuse_recovery = Some(Code::StaleView);
    let running = Running::start(Config {
        token: None,
        ..plane.config(dir.path())
    });
    assert_eq!(keys_asked_for(&plane).await, 1);
    plane.state().refuse_recovery = Some(Code::NodeRemoved);
    assert_eq!(running.end().await.exit_code(), 3);
    plane.state().refuse_join = Some(Code::NodeRemoved);
    let fresh = tempfile::tempdir().unwrap();
    assert_eq!(
        Running::start(plane.config(fresh.path())).end().await.exit_code(),
        3
    );
}

#[tokio::test]
async fn the_certificate_of_a_generation_that_failed_is_durable_before_the_last_one_that_passed_is_put_back()
{
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let flag = dir.path().join("works");
    fs::write(&flag, "").unwrap();
    let mut config = plane.config(&dir.path().join("data"));
    let hook = format!(
        "[[reload]]\ncommand = ['/usr/bin/test', '-e', '{}']\n",
        flag.display()
    );
    config.settings = runtime::config::parse(&hook, Path::new("x")).unwrap();
    let data = config.data_dir.clone();
    let running = Running::start(config);
    plane.reached().await;
    plane.enter(Phase::Init);
    plane.reached().await;
    fs::remove_file(&flag).unwrap();
    plane.enter(Phase::UpdateClients);
    plane.reported("the failure", |r| r.failure.is_some()).await;
    running.stop().await;
    // The generation is gone; what was in it is not.
    let newest = plane.row().client_issuer;
    let disk = crate::disk::DataDir::open(&data).unwrap();
    let received = disk.requests().unwrap().into_iter().filter_map(|r| r.received);
    assert!(
        received
            .map(|c| Some(c.leaf.issuer))
            .any(|issuer| issuer == newest)
    );
}

#[tokio::test]
async fn a_join_whose_row_moves_before_its_certificate_is_installed_recovers_with_its_key() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    plane.state().one_use = true;
    let config = plane.config(dir.path());
    {
        let disk = crate::disk::DataDir::open(dir.path()).unwrap();
        let (clock, stop) = (SystemClock::shared(), CancellationToken::new());
        let joined = crate::enter::join(&config, &disk, &clock, None, &stop);
        joined.await.unwrap().expect("it was not told to stop");
    }
    // The join was cut short, and its first result is given again: under a row that names another issuer by now.
    fs::remove_file(dir.path().join("agent.json")).unwrap();
    for phase in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
        plane.enter(phase);
    }
    let running = Running::start(config);
    plane.reached().await;
    assert_eq!(plane.ways_in(), (1, 1));
    running.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_not_this_nodes_is_not_installed_and_another_one_is_asked_for() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    plane.enter(Phase::Init);
    plane.reached().await;
    plane.state().misissue = 1;
    plane.enter(Phase::UpdateClients);
    let report = plane.reached().await;
    assert_eq!((report.failure, plane.state().misissue), (None, 0));
    let uri = domain::Principal::Node(plane.inner.node).uri(&crate::testing::CLUSTER.parse().unwrap());
    assert_eq!(installed(dir.path(), "client.crt").uri, Some(uri));
    assert!(plane.state().reports.iter().all(|r| r.failure.is_none()));
    running.stop().await;
}
