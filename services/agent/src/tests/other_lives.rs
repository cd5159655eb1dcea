//! Nodes that join again: with another grant, and from a directory that is not whole any more.

use std::collections::BTreeSet;

use crate::disk::DataDir;

use super::*;

const USER: AuthorityType = AuthorityType::User;

/// A node that was granted `user` as well, was refused for good, and is to be granted `host` alone.
async fn refused_with_a_large_grant(plane: &Plane, dir: &Path) {
    plane.state().granted = [AuthorityType::Host, USER].into();
    let running = Running::start(plane.config(dir));
    let report = plane.reached().await;
    assert!(report.authorities.contains_key(&USER));
    running.stop().await;
    let mut state = plane.state();
    state.issued.clear();
    state.reports.clear();
    state.refuse_recovery = Some(Code::CertificateSuperseded);
    state.granted = [AuthorityType::Host].into();
}

fn told_types(dir: &Path) -> BTreeSet<AuthorityType> {
    let disk = DataDir::open(dir).unwrap();
    let told = disk.told(&disk.identity().unwrap().unwrap()).unwrap().unwrap();
    told.desired.authorities.into_keys().collect()
}

#[tokio::test]
async fn a_node_that_joins_again_with_a_smaller_grant_drops_what_it_is_not_granted_and_reports() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    refused_with_a_large_grant(&plane, dir.path()).await;
    let running = Running::start(plane.config(dir.path()));
    let report = plane.reached().await;
    assert_eq!(
        report.authorities.into_keys().collect::<Vec<_>>(),
        [AuthorityType::Host]
    );
    assert!(!dir.path().join("current/user").exists());
    running.stop().await;
    assert_eq!(told_types(dir.path()), [AuthorityType::Host].into());
}

#[tokio::test]
async fn a_rejoin_that_is_cut_short_after_its_answer_was_kept_is_finished_by_the_next_start() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    refused_with_a_large_grant(&plane, dir.path()).await;
    let before = tempfile::tempdir().unwrap();
    for file in [
        "agent.json",
        "desired.json",
        "bundles/host.json",
        "bundles/user.json",
    ] {
        let kept = before.path().join(file.replace('/', "-"));
        fs::copy(dir.path().join(file), kept).unwrap();
    }
    // The certificate that the rejoin gives is the newest at once, so that its kept request stays until it passes.
    let mut config = plane.config(dir.path());
    config.settings =
        runtime::config::parse("[[reload]]\ncommand = ['/bin/false']\n", Path::new("x")).unwrap();
    let running = Running::start(config);
    plane.reported("the failing hook", |r| r.failure.is_some()).await;
    running.stop().await;
    for file in [
        "agent.json",
        "desired.json",
        "bundles/host.json",
        "bundles/user.json",
    ] {
        let kept = before.path().join(file.replace('/', "-"));
        fs::copy(kept, dir.path().join(file)).unwrap();
    }
    assert_eq!(told_types(dir.path()), [AuthorityType::Host, USER].into());
    plane.state().reports.clear();
    let running = Running::start(Config {
        token: None,
        ..plane.config(dir.path())
    });
    let report = plane.reached().await;
    assert_eq!(
        report.authorities.into_keys().collect::<Vec<_>>(),
        [AuthorityType::Host]
    );
    running.stop().await;
    assert_eq!(told_types(dir.path()), [AuthorityType::Host].into());
    assert_eq!(plane.state().joins, 2);
}
