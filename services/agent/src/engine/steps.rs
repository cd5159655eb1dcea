//! The steps of the plan, taken: files, the proof, the listener, sessions.

use std::{collections::BTreeSet, time::Duration};

use domain::{
    AuthorityType, CommandId, SpkiPin,
    event::LeafUse,
    fact::Failure,
    reconcile::{Generation, Proof, Step},
};
use tokio::{net::TcpListener, time::Instant};

use super::{Done, Engine, host_revision, leaves};
use crate::{
    disk::{
        DiskError,
        generations::{Link, Material, Stored},
        requests::{Purpose, Request},
    },
    enter,
    error::AgentError,
    gateway::in_words,
    listener, tls,
};

/// The most that a failure's text may have, in characters; reports are small.
const MAX_DETAIL: usize = 300;

impl Engine {
    /// Takes a step. True if the plan is to be asked again, because what it depends on has changed.
    pub(super) async fn take(&mut self, step: Step) -> Result<bool, AgentError> {
        match step {
            Step::Report => {
                self.send_report();
                Ok(false)
            }
            Step::Install(next) if self.install.is_due() => self.install(next),
            Step::Install(_) => Ok(false),
            Step::Prove => self.prove().await,
            Step::Restore => self.restore().await,
            Step::Discard { spki } => {
                self.forget(&spki);
                Ok(true)
            }
            Step::Request { usage, issuer } => self.request(usage, issuer),
            Step::Serve => self.serve().await,
            Step::Drain { issuer } => {
                self.drain(issuer);
                Ok(true)
            }
            Step::Close { issuer } => {
                self.close(issuer);
                Ok(false)
            }
        }
    }

    /// Writes a generation, lets `current` point at it and puts its trust and certificates in force here.
    fn install(&mut self, next: Generation) -> Result<bool, AgentError> {
        let material = match self.material(next) {
            Ok(material) => material,
            Err(why) => {
                self.fail("install", why);
                return Ok(false);
            }
        };
        let written = self.disk.write_generation(&material).and_then(|number| {
            // Crash point: before this line the next start finds the generation before and makes this one
            // again under another number; after it, this one, with its proof due.
            self.disk.point(Link::Current, number).map(|()| number)
        });
        match written {
            Ok(number) => {
                let revision = host_revision(&material.generation);
                tracing::info!(
                    generation = number,
                    ?revision,
                    trusted = material.anchors.len(),
                    "installed"
                );
                self.installed = Stored { number, material };
                self.proof = Proof::Due;
                self.restored = false;
                self.apply_epoch()?;
                Ok(true)
            }
            Err(error) => {
                self.fail("disk", error.to_string());
                Ok(false)
            }
        }
    }

    /// Everything that a generation holds, from what is here.
    fn material(&self, generation: Generation) -> Result<Material, String> {
        let of = |leaf: &Option<domain::reconcile::Leaf>| match leaf {
            None => Ok(None),
            Some(leaf) => match self.credential(&leaf.spki) {
                Some(credential) => Ok(Some(credential.clone())),
                None => Err(format!(
                    "the key of the certificate at position {} is not here",
                    leaf.position
                )),
            },
        };
        let (client, server) = (of(&generation.client)?, of(&generation.server)?);
        let mut anchors = self.installed.material.anchors.clone();
        anchors.extend(self.passed.iter().flat_map(|p| p.material.anchors.clone()));
        for held in self.told.bundles.values() {
            anchors.extend(pki::bundle::authorities(&held.bundle).map(|ca| (ca.pin(), ca)));
        }
        let wanted: BTreeSet<&SpkiPin> = generation.trusted.values().flatten().collect();
        if let Some(missing) = wanted.iter().find(|pin| !anchors.contains_key(pin)) {
            return Err(format!(
                "the certificate of the authority {} is not here",
                missing.short()
            ));
        }
        anchors.retain(|pin, _| wanted.contains(pin));
        Ok(Material {
            generation,
            client,
            server,
            anchors,
        })
    }

    /// Puts what is installed in force for new handshakes, and closes sessions that it does not accept.
    pub(super) fn apply_epoch(&self) -> Result<(), AgentError> {
        let epoch = tls::of_material(&self.installed.material, Some(&self.told), tls::now(&self.clock))
            .map_err(|e| AgentError::Certificates(in_words(&e)))?;
        let closed = self.shared.epochs.install(epoch, &self.shared.sessions);
        if closed > 0 {
            tracing::info!(
                closed,
                "sessions of peers that are not trusted any more were closed"
            );
        }
        Ok(())
    }

    /// Hooks first, then the handshake: what passes both is what may be presented and reported.
    async fn prove(&mut self) -> Result<bool, AgentError> {
        if !self.again.is_due() {
            return Ok(false);
        }
        if matches!(self.proof, Proof::Failed { .. }) && !self.install.is_due() {
            return Ok(false);
        }
        let found = match self.run_hooks().await {
            Ok(()) => {
                self.passed_hooks(true);
                let (epochs, sessions) = (self.shared.epochs.clone(), self.shared.sessions.clone());
                let (cluster, node) = (self.identity.cluster.clone(), self.identity.node);
                tls::prove(self.listen, &epochs, &sessions, &cluster, node)
                    .await
                    .map_err(|e| ("proof", in_words(&e)))
            }
            Err(why) => Err(("reload", why)),
        };
        if self.shutdown.is_cancelled() {
            return Ok(false);
        }
        match found {
            Ok(()) => self.pass(),
            Err((step, why)) => {
                self.fail(step, why);
                self.proof = Proof::Failed {
                    count: self.failure.as_ref().map_or(1, |f| f.count),
                };
            }
        }
        Ok(true)
    }

    /// The installed generation passed: it is the one to present, to report and to come back to.
    fn pass(&mut self) {
        if self.passed.as_ref().map(|p| p.number) != Some(self.installed.number) {
            // Crash point: before this line the next start proves this generation again.
            if let Err(error) = self.disk.point(Link::Passed, self.installed.number) {
                // It is in force, and the proof is due again: what a restart would not know has not passed.
                self.disk_refused(&error);
                return;
            }
            self.passed = Some(self.installed.clone());
            tracing::info!(generation = self.installed.number, "proven");
        }
        self.proof = Proof::Passed;
        self.again.succeed();
        if !self.restored {
            self.failure = None;
            self.install.succeed();
        }
        // Its keys lie in the generation now, and everything that was asked for before it is answered by it.
        let held: BTreeSet<_> = leaves(&self.installed.material.generation)
            .map(|l| l.spki)
            .collect();
        let is_stranded = self.dial.borrow().is_none();
        let is_over = |r: &Request| {
            held.contains(&r.spki) || (!is_stranded && r.in_flight().is_none() && r.received.is_none())
        };
        let over: Vec<_> = self
            .requests
            .iter()
            .filter(|r| is_over(r))
            .map(|r| r.spki)
            .collect();
        over.iter().for_each(|spki| self.forget(spki));
        self.disk.prune_generations();
    }

    /// The disk refuses (it is full, most often): the node goes on with what it has, says so, and tries again.
    pub(super) fn disk_refused(&mut self, error: &DiskError) {
        self.again.fail();
        self.fail("disk", error.to_string());
    }

    /// The disk has taken what it refused before, so that nothing is left to complain about.
    pub(super) fn disk_took(&mut self) {
        self.again.succeed();
        let is_over = self.proof == Proof::Passed && !self.restored;
        if is_over && self.failure.as_ref().is_some_and(|f| f.step == "disk") {
            self.failure = None;
            self.install.succeed();
        }
    }

    /// Notes a failure and makes the next attempt wait.
    pub(super) fn fail(&mut self, step: &str, why: String) {
        let count = self.failure.as_ref().map_or(0, |f| f.count) + 1;
        let detail: String = why.chars().take(MAX_DETAIL).collect();
        tracing::error!(
            step,
            count,
            detail,
            "this node cannot go on to the desired state; it tries again"
        );
        self.failure = Some(Failure {
            step: step.to_owned(),
            detail,
            count,
        });
        self.install.fail();
    }

    /// Puts the last generation that passed back, whole; hooks run again, so that applications come along.
    async fn restore(&mut self) -> Result<bool, AgentError> {
        let Some(passed) = self.passed.clone() else {
            return Ok(false);
        };
        // Crash point: before the link moves the next start proves what failed once more; after it, the certificates
        // of what failed lie among the requests. A gateway may have been shown them, and then nothing earlier counts.
        let kept = self.keep_failed(&passed.material.generation);
        if let Err(error) = kept.and_then(|()| self.disk.point(Link::Current, passed.number)) {
            self.fail("disk", error.to_string());
            return Ok(false);
        }
        tracing::warn!(
            generation = passed.number,
            "the last proven generation was restored"
        );
        self.installed = passed;
        self.restored = true;
        self.passed_hooks(false);
        self.apply_epoch()?;
        self.proof = Proof::Due;
        Ok(true)
    }

    /// Keeps the certificates of what is installed, with their keys, outside its generation.
    fn keep_failed(&mut self, passed: &Generation) -> Result<(), DiskError> {
        let held: BTreeSet<_> = leaves(passed).map(|leaf| leaf.spki).collect();
        let failed = &self.installed.material;
        let failed: Vec<_> = failed.client.iter().chain(&failed.server).cloned().collect();
        for credential in failed.into_iter().filter(|c| !held.contains(&c.leaf.spki)) {
            let spki = credential.leaf.spki;
            let at = self.requests.iter().position(|r| r.spki == spki);
            let at = at.unwrap_or_else(|| {
                let id = CommandId(enter::fresh_uuid(self.now()));
                self.requests.push(Request::answered(&credential, id, self.now()));
                self.requests.len() - 1
            });
            self.requests[at].received = Some(credential);
            self.disk.keep_request(&self.requests[at])?;
        }
        Ok(())
    }

    /// Runs the hooks that care for what has changed since they last ran.
    async fn run_hooks(&mut self) -> Result<(), String> {
        let now = &self.installed.material.generation;
        let changed: Vec<AuthorityType> = match &self.hooked {
            Some(before) => {
                let leaves_changed = before.client != now.client || before.server != now.server;
                let is_changed = |t: &AuthorityType| {
                    before.trusted.get(t) != now.trusted.get(t)
                        || (*t == AuthorityType::Host && leaves_changed)
                };
                // Files of a type that is not granted any more are gone, which is a change as well.
                let types: BTreeSet<_> = now.trusted.keys().chain(before.trusted.keys()).copied().collect();
                types.into_iter().filter(is_changed).collect()
            }
            None => now.trusted.keys().copied().collect(),
        };
        if changed.is_empty() {
            return Ok(());
        }
        let hooks = self.config.settings.reload.clone();
        for hook in hooks.iter().filter(|hook| hook.concerns(&changed)) {
            tokio::select! {
                () = self.shutdown.cancelled() => return Err("the agent was stopped".into()),
                ran = hook.run() => ran.map_err(|e| e.to_string())?,
            }
        }
        Ok(())
    }

    /// Notes whether hooks have seen what is installed.
    pub(super) fn passed_hooks(&mut self, have_seen: bool) {
        self.hooked = have_seen.then(|| self.installed.material.generation.clone());
    }

    /// Makes a key, keeps it, and asks for a certificate.
    fn request(&mut self, usage: LeafUse, issuer: SpkiPin) -> Result<bool, AgentError> {
        if !self.request.is_due() || self.dial.borrow().is_none() {
            return Ok(false);
        }
        let id = CommandId(enter::fresh_uuid(self.now()));
        let request = Request::new(Purpose::Row { usage, issuer }, id, self.now());
        // Crash point: the key is durable before anybody hears of it; a request that was not sent is sent
        // by the next start.
        if let Err(error) = self.disk.keep_request(&request) {
            self.request.fail();
            self.fail("disk", error.to_string());
            return Ok(false);
        }
        self.requests.push(request);
        self.ask_again();
        Ok(true)
    }

    /// Throws a request and its key away.
    pub(super) fn forget(&mut self, spki: &SpkiPin) {
        self.requests.retain(|r| r.spki != *spki);
        self.asking.remove(spki);
        if let Err(error) = self.disk.forget_request(spki) {
            // It is found again at the next start and then thrown away.
            tracing::warn!(%error, "a key that is not needed any more could not be removed");
        }
    }

    /// Opens the probe endpoint, if one was asked for, and lets hooks run from here on.
    async fn serve(&mut self) -> Result<bool, AgentError> {
        if let Some(addr) = self.config.listen {
            let opened = TcpListener::bind(addr)
                .await
                .map_err(|source| AgentError::Listen { addr, source })?;
            self.listen = Some(
                opened
                    .local_addr()
                    .map_err(|source| AgentError::Listen { addr, source })?,
            );
            let (epochs, sessions) = (self.shared.epochs.clone(), self.shared.sessions.clone());
            self.tasks.spawn(async move {
                listener::serve(opened, epochs, sessions).await;
                Done::Ended
            });
        }
        self.serving = true;
        let how = if self.synced {
            "holds the current row"
        } else {
            "unsynced: no gateway has answered"
        };
        tracing::info!(listen = ?self.listen, how, "serving");
        // Hooks saw what passed before this start; only what differs from that is new to them.
        if let Some(passed) = &self.passed {
            self.hooked = Some(passed.material.generation.clone());
        }
        Ok(true)
    }

    /// Asks sessions on the retiring issuer to end, and closes what is left after the timeout.
    fn drain(&mut self, issuer: SpkiPin) {
        let limit = Duration::from_millis(self.told.desired.drain_timeout_ms);
        let own = self
            .config
            .settings
            .drain_timeout_s
            .map_or(limit, Duration::from_secs);
        let patience = own.min(limit);
        tracing::info!(issuer = %issuer.short(), ?patience, "draining sessions on the retiring authority");
        self.draining = Some((issuer, Instant::now() + patience));
        let (sessions, gateways) = (self.shared.sessions.clone(), self.gateways.clone());
        self.tasks.spawn(async move {
            // Our own connections are dialled anew at once; applications' sessions get their time.
            let (drained, _) = tokio::join!(
                sessions.drain(issuer, patience),
                gateways.drain(issuer, patience.min(Duration::from_secs(1)))
            );
            tracing::info!(ended = drained.ended, closed = drained.closed, "drained");
            Done::Drained(issuer)
        });
    }

    /// Closes every session that stands on an issuer which is trusted no more.
    fn close(&mut self, issuer: SpkiPin) {
        let (sessions, gateways) = (self.shared.sessions.clone(), self.gateways.clone());
        self.tasks.spawn(async move {
            sessions.drain(issuer, Duration::ZERO).await;
            gateways.drain(issuer, Duration::ZERO).await;
            Done::Closed
        });
    }
}
