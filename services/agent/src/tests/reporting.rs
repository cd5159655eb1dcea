//! How often a node says what it holds.

use std::time::Duration;

use domain::SpkiPin;

use super::*;

/// Reports of the row of `update_clients` with the certificate of the row before.
fn of_the_old_certificate(plane: &Plane, old: SpkiPin) -> usize {
    let row = plane.row();
    let state = plane.state();
    let facts = state
        .reports
        .iter()
        .filter_map(|report| report.authorities.get(&AuthorityType::Host));
    facts
        .filter(|facts| facts.revision == row.revision && facts.client_issuer == Some(old))
        .count()
}

async fn asked_for_a_new_client(wait: Duration, refuse: Option<Code>) -> (Plane, tempfile::TempDir, Running) {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let mut config = plane.config(dir.path());
    config.pace.certificate_wait = wait;
    let running = Running::start(config);
    plane.reached().await;
    plane.enter(Phase::Init);
    plane.reached().await;
    plane.state().refuse_request = refuse;
    plane.enter(Phase::UpdateClients);
    (plane, dir, running)
}

#[tokio::test]
async fn a_certificate_that_comes_at_once_is_reported_with_its_row_and_not_after_it() {
    let (plane, _dir, running) = asked_for_a_new_client(Duration::from_secs(3_600), None).await;
    plane.reached().await;
    assert_eq!(of_the_old_certificate(&plane, plane.active()), 0);
    running.stop().await;
}

#[tokio::test]
async fn a_certificate_that_does_not_come_keeps_no_report_back_for_long() {
    let away = Some(Code::SignerUnavailable);
    let (plane, _dir, running) = asked_for_a_new_client(Duration::from_millis(50), away).await;
    let old = plane.active();
    eventually("the node says that its certificate is the old one", || {
        (of_the_old_certificate(&plane, old) > 0).then_some(())
    })
    .await;
    plane.state().refuse_request = None;
    plane.reached().await;
    running.stop().await;
}
