//! The certificate that is kept for the node's sshd.
//!
//! The key is sshd's: its public half is read, and nothing of it is kept. A certificate that was lost on its way, or with
//! this process, is asked for again; the plan says when.

use std::{
    fs::{self, File},
    io::Read,
    os::unix::fs::MetadataExt,
    path::Path,
    time::SystemTime,
};

use domain::{
    CommandId, Principal, SpkiPin,
    authority::KeyKind,
    event::LeafUse,
    fact::Failure,
    reconcile::{self, Generation, Step},
};
use pki::ssh::SshPublicKey;
use zeroize::Zeroizing;

use super::{Done, Engine};
use crate::{
    attempt::Attempt,
    config::Pace,
    disk::{credential::SshdCertificate, requests::LEAF_TYPE},
    enter,
    gateway::Trouble,
    leaf,
};

/// No public key of any kind is longer.
const MAX_KEY_FILE_BYTES: u64 = 64 * 1024;

/// What is known of the node's sshd. All of it is found out anew by each start.
#[derive(Debug)]
pub(super) struct Sshd {
    key: Option<HostKey>,
    /// The file could not be read: it is tried again after this.
    reading: Attempt,
    received: Option<SshdCertificate>,
    asked: Option<Asked>,
    /// No question before this, after one that was not answered.
    asking: Attempt,
    /// Why there is no certificate, or no newer one.
    trouble: Option<String>,
}

#[derive(Debug)]
struct HostKey {
    pin: SpkiPin,
    line: String,
    stamp: Stamp,
}

/// By what a file is known to be the one that was read: its length, number and last change.
type Stamp = (u64, u64, Option<SystemTime>);

/// A question without an answer.
#[derive(Debug)]
struct Asked {
    id: CommandId,
    issuer: SpkiPin,
}

impl Sshd {
    pub(super) fn new(pace: &Pace) -> Self {
        Self {
            key: None,
            reading: Attempt::after_failures(pace),
            received: None,
            asked: None,
            asking: Attempt::new(pace),
            trouble: None,
        }
    }

    /// What the plan needs to know of it.
    fn in_plan(&self, is_anothers: bool) -> reconcile::Sshd {
        reconcile::Sshd {
            key: self.key.as_ref().map(|key| key.pin),
            is_anothers,
            received: self.received.as_ref().map(|c| c.leaf.clone()),
            asked: self.asked.as_ref().map(|asked| asked.issuer),
        }
    }

    /// Is an answer to come?
    pub(super) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// The configuration may name another file, or the file may hold another key. What was asked is not waited for.
    pub(super) fn read_again(&mut self) {
        (self.key, self.asked, self.trouble) = (None, None, None);
        self.reading.succeed();
        self.asking.hurry();
    }

    /// A new row is a new chance, whatever was refused before.
    pub(super) fn asks_anew(&mut self) {
        self.asking.hurry();
    }

    /// The plan asks for nothing: what was wrong is over.
    pub(super) fn is_settled(&mut self, steps: &[Step]) {
        let is_asked_for = steps.iter().any(|step| matches!(step, Step::CertifySshd { .. }));
        if self.key.is_some() && self.asked.is_none() && !is_asked_for {
            self.trouble = None;
        }
    }

    /// What a generation held that was given up may be installed again with the next.
    pub(super) fn keep_failed(&mut self, failed: Option<SshdCertificate>) {
        let position = self.received.as_ref().map(|c| c.leaf.position);
        if let Some(failed) = failed.filter(|failed| Some(failed.leaf.position) > position) {
            self.received = Some(failed);
        }
    }
}

/// In words where it cannot be read, without anything of its content: it may be the private half.
fn read_key(path: &Path) -> Result<SshPublicKey, String> {
    let of_io = |e: std::io::Error| e.to_string();
    let file = File::open(path).map_err(of_io)?;
    let mut text = Zeroizing::new(String::new());
    let mut bounded = file.take(MAX_KEY_FILE_BYTES);
    bounded.read_to_string(&mut text).map_err(of_io)?;
    SshPublicKey::parse(&text).map_err(|e| e.to_string())
}

fn stamp_of(path: &Path) -> Result<Stamp, String> {
    let found = fs::metadata(path).map_err(|e| e.to_string())?;
    if !found.is_file() {
        return Err("it is no file".into());
    }
    Ok((found.len(), found.ino(), found.modified().ok()))
}

impl Engine {
    /// The sshd that is configured, for the plan. A certificate of before a new join, perhaps under another id or other
    /// names, is none of this node's.
    pub(super) fn sshd_in_plan(&self) -> Option<reconcile::Sshd> {
        self.config.settings.ssh_host_key.as_ref()?;
        let installed = self.installed.material.ssh.as_ref();
        let is_anothers = installed.is_some_and(|certificate| !self.is_of_this_node(certificate));
        Some(self.sshd.in_plan(is_anothers))
    }

    fn is_of_this_node(&self, certificate: &SshdCertificate) -> bool {
        let uri = Principal::Node(self.identity.node).uri(&self.identity.cluster);
        certificate.is_of(&uri, &self.told.desired.names)
    }

    /// Reads sshd's public key, if there is one to read, and again when the file has changed: sshd may have got another key.
    pub(super) fn read_sshd_key(&mut self) {
        let Some(path) = self.config.settings.ssh_host_key.clone() else {
            return;
        };
        let stamp = stamp_of(&path);
        let known = self.sshd.key.as_ref().map(|key| &key.stamp);
        if stamp.as_ref().ok().is_some_and(|stamp| known == Some(stamp)) {
            return;
        }
        if known.is_some() {
            self.sshd.read_again();
        }
        if !self.sshd.reading.is_due() {
            return;
        }
        match stamp.and_then(|stamp| Ok((stamp, read_key(&path)?))) {
            Ok((stamp, key)) => {
                self.sshd.reading.succeed();
                self.sshd.trouble = None;
                self.sshd.key = Some(HostKey {
                    pin: key.pin(),
                    line: key.to_line(),
                    stamp,
                });
            }
            Err(why) => {
                self.sshd.reading.fail();
                self.sshd_trouble(format!("sshd's public key {}: {why}", path.display()));
            }
        }
    }

    /// Asks for a certificate of sshd's key. True if it was asked.
    pub(super) fn certify_sshd(&mut self, issuer: SpkiPin) -> bool {
        if !self.sshd.asking.is_due() || self.dial.borrow().is_none() {
            return false;
        }
        let id = CommandId(enter::fresh_uuid(self.now()));
        self.sshd.asked = Some(Asked { id, issuer });
        self.ask_for_sshd_again();
        true
    }

    /// Sends the question that has no answer, if its pause is over: under the same id it gets the first answer.
    pub(super) fn ask_for_sshd_again(&mut self) {
        let (Some(asked), Some(key)) = (&self.sshd.asked, &self.sshd.key) else {
            return;
        };
        let Some(dial) = self.dial.borrow().clone().filter(|_| self.sshd.asking.is_due()) else {
            return;
        };
        let body = api::node::CertificateRequest {
            id: asked.id,
            authority_type: LEAF_TYPE,
            usage: LeafUse::Server,
            issuer: Some(asked.issuer),
            csr: key.line.clone(),
        };
        self.sshd.asking.start();
        let client = dial.client(&self.config.servers[self.server]);
        let (id, dial) = (asked.id, dial.number);
        self.tasks.spawn(async move {
            let result = client.post(api::route::NODE_CERTIFICATES, &body).await;
            let result = result.map_err(|e| Trouble::of(&e));
            Done::SshdAsked { dial, id, result }
        });
    }

    /// The answer, or none.
    pub(super) fn sshd_asked(
        &mut self,
        dial: u64,
        id: CommandId,
        result: Result<api::node::CertificateAnswer, Trouble>,
    ) {
        let Some(asked) = self.sshd.asked.take_if(|asked| asked.id == id) else {
            // Of a key of before: the next question may be put.
            self.sshd.asking.proceed();
            return;
        };
        let answer = match result {
            Ok(answer) => answer,
            Err(Trouble::No(code, text)) => {
                if code == domain::Code::StaleView {
                    self.sshd.asking.fail();
                    tracing::info!(%code, text, "the question for sshd's certificate was overtaken by the rotation");
                } else {
                    // Each refusal is an event of the log, and the same question gets the same answer.
                    self.sshd.asking.wait(self.config.pace.refused_pause);
                    self.sshd_trouble(format!("the certificate of sshd's key was refused: {text}"));
                }
                return;
            }
            Err(trouble) => {
                self.sshd.asked = Some(asked);
                self.sshd.asking.fail();
                tracing::warn!(why = trouble.text(), "no certificate for sshd yet; asking again");
                self.refused_by(dial, &trouble);
                return;
            }
        };
        match self.read_answer(&answer, asked.issuer) {
            Ok(certificate) => {
                self.sshd.asking.succeed();
                self.sshd.trouble = None;
                if !self.is_of_this_node(&certificate) {
                    // Gateway and agent differ in what the node is called; asking at once would not mend it.
                    self.sshd.asking.wait(self.config.pace.refused_pause);
                }
                self.sshd.received = Some(certificate);
            }
            Err(why) => {
                self.sshd.asking.fail();
                self.sshd_trouble(format!(
                    "the certificate that came for sshd cannot be used: {why}"
                ));
            }
        }
    }

    fn read_answer(
        &self,
        answer: &api::node::CertificateAnswer,
        issuer: SpkiPin,
    ) -> Result<SshdCertificate, String> {
        let key = self.sshd.key.as_ref().ok_or("sshd's key is read anew")?;
        let held = self.told.bundles.get(&LEAF_TYPE);
        let authority = held
            .into_iter()
            .flat_map(|held| pki::bundle::public_keys(&held.bundle, KeyKind::Ssh))
            .find(|(listed, _)| listed.id == issuer)
            .ok_or("its authority is in the newest trust bundle no more")?
            .1;
        let (cluster, node) = (&self.identity.cluster, self.identity.node);
        let read = leaf::check_sshd(&answer.certificate, key.pin, &authority, cluster, node)?;
        Ok(SshdCertificate::new(&read, issuer, answer.position))
    }

    /// What a generation holds for sshd, from what is here.
    pub(super) fn certificate_of_sshd(
        &self,
        generation: &Generation,
    ) -> Result<Option<SshdCertificate>, String> {
        let Some(leaf) = &generation.ssh else {
            return Ok(None);
        };
        let received = self.sshd.received.iter();
        let kept = [Some(&self.installed), self.passed.as_ref()];
        let kept = kept.into_iter().flatten().filter_map(|s| s.material.ssh.as_ref());
        match received.chain(kept).find(|c| c.leaf == *leaf) {
            Some(certificate) => Ok(Some(certificate.clone())),
            None => Err(format!(
                "sshd's certificate at position {} is not here",
                leaf.position
            )),
        }
    }

    /// Said in the log when it is new; shown and reported for as long as it lasts.
    fn sshd_trouble(&mut self, why: String) {
        if self.sshd.trouble.as_ref() != Some(&why) {
            tracing::error!(why, "sshd keeps the certificate that it has; it is tried again");
        }
        self.sshd.trouble = Some(why);
    }

    /// What keeps sshd from the certificate that it should have.
    pub(super) fn complaint_of_sshd(&self) -> Option<Failure> {
        self.config.settings.ssh_host_key.as_ref()?;
        let row = self.told.desired.authorities.get(&LEAF_TYPE);
        let nobody_signs = || {
            let is_so = self.synced && row.is_some_and(|row| row.ssh_issuer.is_none());
            let text = "ssh_host_key is configured, but nobody may certify it: the node's token did not grant `host` as a server, or the cluster has no SSH key of `host`";
            is_so.then(|| text.to_owned())
        };
        let detail = self.sshd.trouble.clone().or_else(nobody_signs)?;
        Some(Failure {
            step: "ssh".into(),
            detail: detail.chars().take(super::proof::MAX_DETAIL).collect(),
            count: 1,
        })
    }
}
