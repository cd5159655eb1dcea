//! The certificate of the node's sshd is kept beside everything else, and never in its way.

use std::path::PathBuf;

use domain::{SpkiPin, fact::FactReport};
use pki::ssh::SshCertificate;

use super::*;
use crate::testing::sshd::new_host_key;

/// An agent with an sshd, and a hook that notes the serial of what sshd would present now.
struct Set {
    plane: Plane,
    dir: tempfile::TempDir,
    config: Config,
    key: SpkiPin,
}

impl Set {
    async fn up() -> Self {
        let (plane, dir) = (
            Plane::start(SystemClock::shared()).await,
            tempfile::tempdir().unwrap(),
        );
        let mut config = plane.config(&dir.path().join("data"));
        let key = new_host_key(&dir.path().join("key.pub"));
        let file = dir.path().join("agent.toml");
        let text = format!(
            "ssh_host_key = '{}'\n[[reload]]\ncommand = ['/bin/sh', '-c', 'cat {} >> {}']\n",
            dir.path().join("key.pub").display(),
            config.data_dir.join("current/ssh_host_key-cert.pub").display(),
            dir.path().join("seen").display(),
        );
        fs::write(&file, text).unwrap();
        config.settings = crate::Settings::load(&file).unwrap();
        config.config_file = Some(file);
        Self {
            plane,
            dir,
            config,
            key,
        }
    }

    fn certificate(&self) -> PathBuf {
        self.config.data_dir.join("current/ssh_host_key-cert.pub")
    }

    /// Waits until this is reported of sshd by a node that holds the row.
    async fn presents(&self, issuer: Option<SpkiPin>) -> FactReport {
        let is_it = |r: &FactReport| r.authorities[&AuthorityType::Host].ssh_issuer == issuer;
        self.plane.reached().await;
        self.plane.reported("what sshd presents", is_it).await
    }

    async fn complains(&self, part: &str) -> FactReport {
        let is_it = |r: &FactReport| {
            let failure = r.failure.as_ref().filter(|f| f.step == "ssh");
            failure.is_some_and(|f| f.detail.contains(part))
        };
        self.plane.reported(part, is_it).await
    }

    fn issuer(&self) -> Option<SpkiPin> {
        self.plane.inner.bundle().ssh_issuer()
    }
}

fn read(path: &Path) -> SshCertificate {
    SshCertificate::parse(&fs::read_to_string(path).unwrap()).unwrap()
}

#[tokio::test]
async fn it_follows_the_row_is_shown_to_hooks_and_is_still_there_after_a_restart() {
    let set = Set::up().await;
    let running = Running::start(set.config.clone());
    set.presents(set.issuer()).await;
    assert_eq!(read(&set.certificate()).key().pin(), set.key);
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Rollback,
        Phase::Standby,
    ] {
        set.plane.enter(phase);
        set.presents(set.issuer()).await;
        let seen = fs::read_to_string(set.dir.path().join("seen")).unwrap();
        let live = read(&set.certificate()).to_line();
        assert_eq!(
            seen.lines().last(),
            Some(live.as_str()),
            "hooks have seen it in {phase}"
        );
    }
    running.stop().await;
    let before = read(&set.certificate());
    // A start finds it, and asks for none.
    set.plane.state().refuse_sshd = Some(Code::NotPermitted);
    set.plane.state().reports.clear();
    let running = Running::start(set.config.clone());
    set.presents(set.issuer()).await;
    assert_eq!(read(&set.certificate()), before);
    running.stop().await;
}

#[tokio::test]
async fn a_node_that_is_called_otherwise_since_gets_another_one_at_once() {
    let set = Set::up().await;
    let running = Running::start(set.config.clone());
    set.presents(set.issuer()).await;
    // As a new join does it: the row is the same.
    set.plane.state().name = "n2.acme.cluster";
    set.plane.state().revision += 1;
    set.plane.inner.install();
    eventually("a certificate of the new name", || {
        let principals = read(&set.certificate()).profile().principals;
        (principals[0] == "n2.acme.cluster").then_some(())
    })
    .await;
    set.presents(set.issuer()).await;
    // And then there is rest: it is the newest, and stays.
    let settled = read(&set.certificate());
    set.plane.enter(Phase::Init);
    set.presents(set.issuer()).await;
    assert_eq!(read(&set.certificate()), settled);
    running.stop().await;
}

#[tokio::test]
async fn a_refusal_is_reported_and_nothing_else_waits_for_it() {
    let set = Set::up().await;
    let running = Running::start(set.config.clone());
    set.presents(set.issuer()).await;
    let old = set.issuer();
    set.plane.state().refuse_sshd = Some(Code::KeyReused);
    for phase in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
        set.plane.enter(phase);
        set.plane.reached().await;
    }
    let report = set.complains("refused").await;
    let facts = &report.authorities[&AuthorityType::Host];
    assert_eq!(facts.ssh_issuer, old, "what sshd presents is what is said");
    assert_ne!(set.issuer(), old);
    set.plane.state().refuse_sshd = None;
    let report = set.presents(set.issuer()).await;
    assert_eq!(report.failure, None);
    running.stop().await;
}

#[tokio::test]
async fn a_certificate_of_somebody_else_is_not_given_to_sshd() {
    let set = Set::up().await;
    let running = Running::start(set.config.clone());
    set.presents(set.issuer()).await;
    let before = read(&set.certificate());
    set.plane.state().refuse_sshd = Some(Code::StaleView);
    for phase in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
        set.plane.enter(phase);
        set.plane.reached().await;
    }
    set.plane.state().misissue = 1;
    set.plane.state().refuse_sshd = None;
    set.presents(set.issuer()).await;
    assert_eq!(set.plane.state().misissue, 0, "it was sent");
    let now = read(&set.certificate()).profile();
    assert!(now.key_id.contains(&set.plane.inner.node.to_string()), "{now:?}");
    assert_ne!(now, before.profile());
    running.stop().await;
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_reported_without_a_word_of_it_and_takes_nothing_from_sshd() {
    let set = Set::up().await;
    let key = set.dir.path().join("key.pub");
    let public = fs::read_to_string(&key).unwrap();
    let running = Running::start(set.config.clone());
    set.presents(set.issuer()).await;
    let before = read(&set.certificate());
    let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n";
    for (content, said) in [
        (Some(private), "private key"),
        (Some("nonsense"), "no SSH public key"),
        (None, "No such file"),
    ] {
        match content {
            Some(content) => fs::write(&key, content).unwrap(),
            None => fs::remove_file(&key).unwrap(),
        }
        running.handle.reload();
        let report = set.complains(said).await;
        assert!(!format!("{report:?}").contains("c2VjcmV0"));
        assert_eq!(report.authorities[&AuthorityType::Host].ssh_issuer, set.issuer());
        assert_eq!(read(&set.certificate()), before);
    }
    // It is tried again by itself.
    fs::write(&key, public).unwrap();
    set.plane.reported("the all-clear", |r| r.failure.is_none()).await;
    // Another key gets another certificate, though nobody says that there is one; without any the file is gone.
    let other = new_host_key(&key);
    eventually("the certificate of the other key", || {
        let text = fs::read_to_string(set.certificate()).ok()?;
        (SshCertificate::parse(&text).ok()?.key().pin() == other).then_some(())
    })
    .await;
    fs::write(set.config.config_file.as_ref().unwrap(), "").unwrap();
    running.handle.reload();
    set.presents(None).await;
    assert!(!set.certificate().exists());
    running.stop().await;
}
