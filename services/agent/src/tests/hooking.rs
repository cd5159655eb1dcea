//! Reload hooks see every change, also over restarts, and nothing twice without need.

use std::sync::Arc;

use super::*;

/// A configuration whose hook notes each run in a file, and fails while another file is missing.
fn noting(plane: &Plane, dir: &Path) -> Config {
    let mut config = plane.config(&dir.join("data"));
    let (runs, flag) = (
        dir.join("runs").display().to_string(),
        dir.join("works").display().to_string(),
    );
    let script = format!("echo x >> {runs}; test -e {flag}");
    let hook = format!("[[reload]]\ncommand = ['/bin/sh', '-c', '{script}']\n");
    config.settings = runtime::config::parse(&hook, Path::new("x")).unwrap();
    fs::write(dir.join("works"), "").unwrap();
    config
}

fn runs(dir: &Path) -> usize {
    fs::read_to_string(dir.join("runs")).map_or(0, |text| text.lines().count())
}

/// Starts an agent, waits until it has reported the row, and stops it again.
async fn one_life(plane: &Plane, config: &Config) {
    plane.state().reports.clear();
    let running = Running::start(config.clone());
    plane.reached().await;
    running.stop().await;
}

/// An agent has lived, and its hooks have seen what is live.
async fn hooked_once() -> (Plane, tempfile::TempDir, Config) {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let config = noting(&plane, dir.path());
    one_life(&plane, &config).await;
    (plane, dir, config)
}

#[tokio::test]
async fn a_restart_runs_hooks_again_exactly_if_they_have_not_seen_what_is_live() {
    let (plane, dir, config) = hooked_once().await;
    let once = runs(dir.path());
    one_life(&plane, &config).await;
    assert_eq!(runs(dir.path()), once, "nothing has changed");
    // As a crash leaves it between the first hook and the last, or before what failed was put back for them.
    fs::remove_file(config.data_dir.join("hooked")).unwrap();
    one_life(&plane, &config).await;
    assert_eq!(runs(dir.path()), once + 1);
}

#[tokio::test]
async fn a_file_beside_the_trust_that_no_hook_has_seen_is_shown_to_them_after_a_restart_and_a_new_signature_is_none()
 {
    let (plane, dir, config) = hooked_once().await;
    let once = runs(dir.path());
    // The same row, signed anew: files of the same content.
    plane.state().revision += 1;
    one_life(&plane, &config).await;
    assert_eq!(runs(dir.path()), once);
    // Another SSH authority, and the agent dies before its hooks: as if it had none.
    plane.state().ssh_active = Arc::new(pki::KeyPair::generate());
    plane.state().revision += 1;
    let mut without = config.clone();
    without.settings.reload.clear();
    one_life(&plane, &without).await;
    assert_eq!(runs(dir.path()), once);
    one_life(&plane, &config).await;
    assert_eq!(runs(dir.path()), once + 1);
}

#[tokio::test]
async fn what_hooks_saw_is_unknown_from_before_the_first_runs_until_all_have_succeeded() {
    let (plane, dir, config) = hooked_once().await;
    let hooked = config.data_dir.join("hooked");
    assert_eq!(
        fs::read_link(&hooked).unwrap(),
        fs::read_link(config.data_dir.join("passed")).unwrap()
    );
    fs::remove_file(dir.path().join("works")).unwrap();
    let running = Running::start(config.clone());
    plane.enter(Phase::Init);
    plane.reported("the failure", |r| r.failure.is_some()).await;
    running.stop().await;
    assert!(fs::read_link(&hooked).is_err(), "one of them has failed");
    let before = runs(dir.path());
    fs::write(dir.path().join("works"), "").unwrap();
    one_life(&plane, &config).await;
    assert!(runs(dir.path()) > before);
    assert!(fs::read_link(&hooked).is_ok());
}

#[tokio::test]
async fn a_type_that_the_configuration_counts_on_and_the_grant_lacks_is_reported_until_it_is_counted_on_no_more()
 {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let file = dir.path().join("agent.toml");
    fs::write(&file, "uses = ['host', 'db']\n").unwrap();
    let mut config = plane.config(&dir.path().join("data"));
    config.settings = crate::Settings::load(&file).unwrap();
    config.config_file = Some(file.clone());
    let running = Running::start(config);
    let complains = |r: &domain::fact::FactReport| {
        r.failure
            .as_ref()
            .is_some_and(|f| f.step == "uses" && f.detail.contains("db") && !f.detail.contains("host"))
    };
    plane.reported("what is not granted", complains).await;
    plane.reached().await;
    fs::write(&file, "uses = ['host']\n").unwrap();
    running.handle.reload();
    plane.reported("the all-clear", |r| r.failure.is_none()).await;
    fs::write(&file, "uses = ['db']\n").unwrap();
    running.handle.reload();
    plane.reported("what is not granted", complains).await;
    running.stop().await;
}
