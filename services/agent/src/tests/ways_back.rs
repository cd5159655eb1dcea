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
    config.settings = runtime::config::parse("[[reload]]\ncommand = ['/bin/false']\n", Path::new("x")).unwrap();
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
    asked.await.into_iter().collect::<std::collections::BTreeSet<_>>().len()
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
    assert_eq!(Running::start(plane.config(fresh.path())).end().await.exit_code(), 3);
}
