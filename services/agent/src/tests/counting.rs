//! What an agent counts, for who watches it.

use runtime::metrics::Metrics;

use super::*;
use crate::testing::sshd::new_host_key;

#[tokio::test]
async fn an_agent_shows_its_certificates_what_it_installed_and_hooks_that_failed() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let metrics = Metrics::new("0.0.0");
    let flag = dir.path().join("works");
    fs::write(&flag, "").unwrap();
    let mut config = plane.config(&dir.path().join("data"));
    let key = dir.path().join("key.pub");
    new_host_key(&key);
    let hook = format!(
        "ssh_host_key = '{}'\n[[reload]]\ncommand = ['/usr/bin/test', '-e', '{}']\n",
        key.display(),
        flag.display()
    );
    config.settings = runtime::config::parse(&hook, Path::new("x")).unwrap();
    config.metrics = Some(metrics.clone());
    let running = Running::start(config);
    plane.reached().await;
    let has_sshd = |r: &domain::fact::FactReport| r.authorities[&AuthorityType::Host].ssh_issuer.is_some();
    plane.reported("sshd's certificate", has_sshd).await;
    fs::remove_file(&flag).unwrap();
    plane.enter(Phase::Init);
    plane.reported("the failure", |r| r.failure.is_some()).await;
    let shown = metrics.encode();
    for line in [
        "carousel_agent_synced 1",
        "carousel_agent_installs_total{outcome=\"passed\",type=\"host\"}",
        "carousel_agent_installs_total{outcome=\"restored\",type=\"host\"}",
        "carousel_agent_reload_failures_total",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    let day_s = i64::try_from(domain::time::DAY_MS / 1000).unwrap();
    for role in ["client", "server", "ssh"] {
        let name = format!("carousel_agent_certificate_expiry_seconds{{role=\"{role}\",type=\"host\"}} ");
        let left = shown
            .lines()
            .find_map(|line| line.strip_prefix(&name))
            .expect("it is shown");
        assert!((day_s - 120..=day_s).contains(&left.parse().unwrap()), "{left}");
    }
    running.stop().await;
}
