//! A whole agent against a control plane in small: what could go wrong between start and standby.

use std::{fs, path::Path};

use domain::{AuthorityType, Code, Phase};
use pki::Certificate;
use runtime::clock::{Clock, ManualClock, SharedClock, SystemClock};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    Agent, AgentError, Config, Handle, Stage,
    testing::{Plane, eventually},
};

mod bare;
mod counting;
mod cut_short;
mod damage;
mod flood;
mod full_disk;
mod hooking;
mod of_sshd;
mod other_lives;
mod reporting;
mod ways_back;

/// An agent that runs beside the test.
struct Running {
    handle: Handle,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), AgentError>>,
}

impl Running {
    fn start(config: Config) -> Self {
        Self::start_by(config, SystemClock::shared())
    }

    fn start_by(config: Config, clock: SharedClock) -> Self {
        // Once per process; shown only where the variable asks for it.
        if let Ok(Some(_)) = runtime::config::env(runtime::telemetry::LOG_VARIABLE) {
            std::mem::forget(runtime::telemetry::Telemetry::init(&Default::default()));
        }
        let agent = Agent::new(config, clock).unwrap();
        let (handle, stop, mut tasks) = (agent.handle(), CancellationToken::new(), JoinSet::new());
        tasks.spawn(agent.run(stop.clone()));
        Self { handle, stop, tasks }
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap().unwrap();
    }

    /// Waits for the end that it comes to by itself.
    async fn end(mut self) -> AgentError {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(15), self.tasks.join_next()).await;
        ended
            .expect("it ends within 15 s")
            .unwrap()
            .unwrap()
            .expect_err("it cannot go on")
    }
}

/// The certificate in a file of the live generation.
fn installed(data_dir: &Path, file: &str) -> Certificate {
    let pem = fs::read_to_string(data_dir.join("current").join(file)).unwrap();
    Certificate::parse(&pki::pem::certificates(&pem).unwrap()[0]).unwrap()
}

fn trusted(data_dir: &Path) -> usize {
    let pem = fs::read_to_string(data_dir.join("current/trust.pem")).unwrap();
    pki::pem::certificates(&pem).unwrap().len()
}

#[tokio::test]
async fn an_agent_joins_installs_serves_and_reports() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    let report = plane.reached().await;
    assert_eq!(report.seq, 1);
    let status = running.handle.status().borrow().clone();
    assert_eq!(status.stage, Stage::Serving);
    assert_eq!(report.addr, status.listen.map(|a| a.to_string()));
    let (client, server) = (
        installed(dir.path(), "client.crt"),
        installed(dir.path(), "server.crt"),
    );
    assert_eq!(client.digest, server.digest);
    assert_eq!(client.issuer, Some(plane.active()));
    assert_eq!(trusted(dir.path()), 1);
    running.stop().await;
    assert_eq!(plane.state().joins, 1);
}

#[tokio::test]
async fn a_rotation_changes_trust_clients_servers_and_trust_again_each_proven_and_reported() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    let old = plane.active();
    for (phase, trusts, client_is_new, server_is_new) in [
        (Phase::Init, 2, false, false),
        (Phase::UpdateClients, 2, true, false),
        (Phase::UpdateServers, 2, true, true),
        (Phase::Standby, 1, true, true),
    ] {
        plane.enter(phase);
        plane.reached().await;
        let is_new = |file| installed(dir.path(), file).issuer != Some(old);
        assert_eq!(
            (is_new("client.crt"), is_new("server.crt")),
            (client_is_new, server_is_new),
            "{phase}"
        );
        assert_eq!(trusted(dir.path()), trusts, "{phase}");
    }
    assert_ne!(plane.active(), old);
    running.stop().await;
}

#[tokio::test]
async fn a_rollback_takes_new_certificates_of_the_old_authority() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    let before = installed(dir.path(), "client.crt");
    for phase in [Phase::Init, Phase::UpdateClients, Phase::Rollback, Phase::Standby] {
        plane.enter(phase);
        plane.reached().await;
    }
    let after = installed(dir.path(), "client.crt");
    assert_eq!(after.issuer, before.issuer);
    assert_ne!(after.digest, before.digest);
    running.stop().await;
}

#[tokio::test]
async fn an_agent_that_slept_through_two_rotations_comes_back_by_itself() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    running.stop().await;
    plane.rotate();
    plane.rotate();
    let config = Config {
        token: None,
        ca_pins: Default::default(),
        bundle_pin: None,
        ..plane.config(dir.path())
    };
    let running = Running::start(config);
    plane.reached().await;
    assert_eq!(plane.state().recoveries, 1);
    assert_eq!(plane.state().joins, 1);
    assert_eq!(installed(dir.path(), "server.crt").issuer, Some(plane.active()));
    running.stop().await;
}

#[tokio::test]
async fn a_start_in_the_middle_of_a_rotation_catches_up() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    plane.enter(Phase::Init);
    running.stop().await;
    plane.enter(Phase::UpdateClients);
    plane.enter(Phase::UpdateServers);
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    assert_eq!(
        plane.state().joins,
        1,
        "a token that is still set is not used again"
    );
    running.stop().await;
}

#[tokio::test]
async fn a_join_in_each_phase_ends_at_the_row() {
    let plane = Plane::start(SystemClock::shared()).await;
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ] {
        plane.enter(phase);
        plane.state().reports.clear();
        let dir = tempfile::tempdir().unwrap();
        let running = Running::start(plane.config(dir.path()));
        plane.reached().await;
        running.stop().await;
    }
}

#[tokio::test]
async fn a_refused_token_and_wrong_pins_end_with_their_exit_codes() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    plane.state().refuse_join = Some(Code::TokenExpired);
    let error = Running::start(plane.config(dir.path())).end().await;
    assert!(
        error.to_string().starts_with("refused: token_expired: "),
        "{error}"
    );
    assert_eq!(error.exit_code(), 3);
    let wrong = domain::SpkiPin([9; 32]);
    let error = Running::start(Config {
        ca_pins: [wrong].into(),
        ..plane.config(dir.path())
    })
    .end()
    .await;
    assert_eq!(error.exit_code(), 4, "{error}");
    let error = Running::start(Config {
        bundle_pin: Some(wrong),
        ..plane.config(dir.path())
    })
    .end()
    .await;
    assert_eq!(error.exit_code(), 4, "{error}");
    for config in [
        Config {
            bundle_pin: None,
            ..plane.config(dir.path())
        },
        Config {
            ca_pins: Default::default(),
            ..plane.config(dir.path())
        },
        Config {
            token: None,
            ..plane.config(dir.path())
        },
    ] {
        let error = Running::start(config).end().await;
        assert_eq!(error.exit_code(), 2, "{error}");
    }
    assert_eq!(plane.state().joins, 0);
}

#[tokio::test]
async fn a_node_that_is_refused_for_good_says_so_and_joins_again_with_a_new_token() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    running.stop().await;
    plane.state().issued.clear();
    plane.state().refuse_recovery = Some(Code::CertificateSuperseded);
    let error = Running::start(Config {
        token: None,
        ..plane.config(dir.path())
    })
    .end()
    .await;
    assert!(
        error.to_string().starts_with("refused: certificate_superseded: "),
        "{error}"
    );
    assert_eq!(error.exit_code(), 3);
    plane.state().reports.clear();
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    assert_eq!(plane.state().joins, 2);
    running.stop().await;
}

#[tokio::test]
async fn a_failing_hook_restores_what_passed_reports_why_and_goes_on_when_it_is_mended() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let flag = dir.path().join("works");
    fs::write(&flag, "").unwrap();
    let mut config = plane.config(&dir.path().join("data"));
    let hook = format!("command = ['/usr/bin/test', '-e', '{}']", flag.display());
    config.settings = runtime::config::parse(&format!("[[reload]]\n{hook}\n"), Path::new("x")).unwrap();
    let data = config.data_dir.clone();
    let running = Running::start(config);
    plane.reached().await;
    let before = installed(&data, "client.crt");
    fs::remove_file(&flag).unwrap();
    plane.enter(Phase::Init);
    let report = plane.reported("the failure", |r| r.failure.is_some()).await;
    let failure = report.failure.unwrap();
    assert_eq!(failure.step, "reload");
    assert!(failure.detail.contains("exited 1"), "{failure:?}");
    assert_eq!(
        report.authorities[&AuthorityType::Host].trusted.len(),
        1,
        "facts of what passed"
    );
    assert_eq!(installed(&data, "client.crt").digest, before.digest);
    fs::write(&flag, "").unwrap();
    let report = plane.reached().await;
    assert_eq!(
        plane
            .reported("the all-clear", |r| r.failure.is_none())
            .await
            .boot,
        report.boot
    );
    running.stop().await;
}

#[tokio::test]
async fn half_a_life_later_the_certificate_is_renewed_and_not_before() {
    let clock = ManualClock::new(SystemClock.now_ms());
    let (plane, dir) = (Plane::start(clock.clone()).await, tempfile::tempdir().unwrap());
    let running = Running::start_by(plane.config(dir.path()), clock.clone());
    plane.reached().await;
    let issued = plane.state().issued.len();
    let hour = std::time::Duration::from_secs(3600);
    clock.advance(hour * 10);
    plane.enter(Phase::Init);
    plane.reached().await;
    assert_eq!(plane.state().issued.len(), issued);
    let first = installed(dir.path(), "client.crt");
    clock.advance(hour * 4);
    eventually("a renewal", || {
        (installed(dir.path(), "client.crt").not_after > first.not_after).then_some(())
    })
    .await;
    plane.reached().await;
    assert_eq!(plane.state().issued.len(), issued + 1);
    running.stop().await;
}

#[tokio::test]
async fn without_a_gateway_a_restarted_agent_waits_and_a_second_agent_on_its_directory_is_refused() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    let error = Running::start(plane.config(dir.path())).end().await;
    assert!(error.to_string().contains("in use by another agent"), "{error}");
    running.stop().await;
    let config = plane.config(dir.path());
    drop(plane);
    let running = Running::start(config);
    let status = running.handle.status();
    eventually("trouble", || status.borrow().trouble.clone()).await;
    assert_eq!(
        status.borrow().stage,
        Stage::Syncing,
        "it does not serve before it has heard a gateway"
    );
    running.stop().await;
}

#[tokio::test]
async fn an_agent_that_hears_nobody_for_thirty_seconds_serves_what_it_has_and_says_unsynced() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    running.stop().await;
    let config = plane.config(dir.path());
    drop(plane);
    let clock = ManualClock::new(SystemClock.now_ms());
    let running = Running::start_by(config, clock.clone());
    let status = running.handle.status();
    eventually("trouble", || status.borrow().trouble.clone()).await;
    clock.advance(std::time::Duration::from_secs(29));
    assert_eq!(status.borrow().stage, Stage::Syncing);
    clock.advance(std::time::Duration::from_secs(2));
    eventually("that it serves", || {
        (status.borrow().stage == Stage::Serving).then_some(())
    })
    .await;
    assert!(!status.borrow().synced);
    running.stop().await;
}

#[tokio::test]
async fn a_gateway_that_refuses_keeps_a_restarted_agent_from_serving() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    running.stop().await;
    // Refused, and the way back is not open either: no answer yet, again and again.
    plane.state().refuse_certificates = true;
    plane.state().refuse_recovery = Some(Code::NotServing);
    let clock = ManualClock::new(SystemClock.now_ms());
    let running = Running::start_by(plane.config(dir.path()), clock.clone());
    let status = running.handle.status();
    eventually("a refused way back", || {
        let trouble = status.borrow().trouble.clone();
        trouble.filter(|t| t.contains("not_serving"))
    })
    .await;
    clock.advance(std::time::Duration::from_secs(60));
    let seen = status.borrow().time;
    eventually("another look at the clock", || {
        (status.borrow().time > seen).then_some(())
    })
    .await;
    assert_eq!(status.borrow().stage, Stage::Syncing);
    plane.state().refuse_certificates = false;
    plane.state().refuse_recovery = None;
    plane.state().reports.clear();
    plane.reached().await;
    assert!(status.borrow().synced);
    running.stop().await;
}
