//! A disk that refuses while the agent runs: the node goes on with what it has, says so, and catches up.
//!
//! What cannot be written is played by a directory or a file in the place of the other: unlike a mode, it stops root too.

use super::*;

async fn joined() -> (Plane, tempfile::TempDir, Running) {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    (plane, dir, running)
}

/// Waits until the failure of the disk is reported, with the facts of what passed before.
async fn complaint(plane: &Plane) {
    let is_disk = |r: &domain::fact::FactReport| r.failure.as_ref().is_some_and(|f| f.step == "disk");
    let report = plane.reported("the disk's failure", is_disk).await;
    let facts = &report.authorities[&AuthorityType::Host];
    assert!(
        facts.revision < plane.row().revision && facts.trusted.len() == 1,
        "{facts:?}"
    );
}

async fn recovery(plane: &Plane, running: Running) {
    plane.reached().await;
    plane.reported("the all-clear", |r| r.failure.is_none()).await;
    running.stop().await;
}

#[tokio::test]
async fn a_row_that_cannot_be_kept_has_no_effect_until_it_can() {
    let (plane, dir, running) = joined().await;
    let bundle = dir.path().join("bundles/host.json");
    fs::remove_file(&bundle).unwrap();
    fs::create_dir(&bundle).unwrap();
    plane.enter(Phase::Init);
    complaint(&plane).await;
    assert_eq!(running.handle.status().borrow().stage, Stage::Serving);
    assert_eq!(trusted(dir.path()), 1);
    fs::remove_dir(&bundle).unwrap();
    recovery(&plane, running).await;
}

#[tokio::test]
async fn a_generation_whose_proof_cannot_be_noted_is_proven_again_and_not_reported_before() {
    let (plane, dir, running) = joined().await;
    let link = dir.path().join(".passed.tmp");
    fs::create_dir(&link).unwrap();
    plane.enter(Phase::Init);
    complaint(&plane).await;
    assert_eq!(running.handle.status().borrow().stage, Stage::Serving);
    fs::remove_dir(&link).unwrap();
    recovery(&plane, running).await;
}

#[tokio::test]
async fn a_way_back_waits_for_the_disk_before_it_asks_and_when_it_is_answered() {
    let (plane, dir, running) = joined().await;
    running.stop().await;
    plane.rotate();
    plane.rotate();
    plane.state().refuse_trust = Some(Code::NotFound);
    plane.state().refuse_recovery = Some(Code::NotServing);
    plane.state().asked.clear();
    let running = Running::start(plane.config(dir.path()));
    let status = running.handle.status();
    let refused = |count| {
        let failure = status.borrow().failure.clone();
        failure
            .filter(|f| f.step == "disk" && f.count > count)
            .map(|f| f.count)
    };
    let (keys, away) = (dir.path().join("keys"), dir.path().join("away"));
    eventually("a look for trust", || {
        (plane.state().trust_asked > 1).then_some(())
    })
    .await;
    let block = || {
        fs::rename(&keys, &away).unwrap();
        fs::write(&keys, "").unwrap();
    };
    let unblock = || {
        fs::remove_file(&keys).unwrap();
        fs::rename(&away, &keys).unwrap();
    };
    block();
    plane.state().refuse_trust = None;
    eventually("a key that cannot be kept", || refused(0)).await;
    assert_eq!(plane.state().asked.len(), 0, "a key that is not durable was sent");
    unblock();
    eventually("a request", || (!plane.state().asked.is_empty()).then_some(())).await;
    let seen = refused(0).expect("a failure stays until something has passed");
    block();
    plane.state().refuse_recovery = None;
    eventually("an answer that cannot be kept", || refused(seen)).await;
    unblock();
    recovery(&plane, running).await;
    let asked: std::collections::BTreeSet<_> = plane.state().asked.iter().cloned().collect();
    assert_eq!(asked.len(), 1);
}
