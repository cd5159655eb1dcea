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
