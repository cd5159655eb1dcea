//! The steps of the plan, taken: files, the proof, the listener, sessions.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use domain::{
    CommandId, SpkiPin,
    authority::KeyKind,
    event::LeafUse,
    reconcile::{Generation, Proof, Step},
};
use mtls::TrustEpoch;
use tokio::{net::TcpListener, time::Instant};

use super::{Done, Engine, host_revision, leaves};
use crate::{
    disk::{
        DiskError, beside,
        generations::{Link, Material, Stored},
        requests::{Purpose, Request},
    },
    enter,
    error::AgentError,
    gateway::in_words,
    listener, tls,
};

impl Engine {
    /// Takes a step. True if the plan is to be asked again, because what it depends on has changed.
    pub(super) async fn take(&mut self, step: Step) -> Result<bool, AgentError> {
        match step {
            Step::Report => {
                self.send_report();
                Ok(false)
            }
            Step::Install(next) => Ok(self.install.is_due() && self.install(next)),
            Step::Prove => Ok(self.prove().await),
            Step::Restore => Ok(self.restore()),
            Step::Discard { spki } => {
                self.forget(&spki);
                Ok(true)
            }
            Step::Request { usage, issuer } => Ok(self.request(usage, issuer)),
            Step::CertifySshd { issuer } => Ok(self.certify_sshd(issuer)),
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
    fn install(&mut self, next: Generation) -> bool {
        let material = match self.material(next) {
            Ok(material) => material,
            Err(why) => {
                self.fail("install", why);
                return false;
            }
        };
        // What TLS cannot use is not installed: once `current` points at it there is no way but on.
        let epoch = match self.epoch_of(&material) {
            Ok(epoch) => epoch,
            Err(why) => {
                self.fail("install", why);
                return false;
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
                self.put_in_force(epoch);
                self.disk.prune_generations();
                true
            }
            Err(error) => {
                self.fail("disk", error.to_string());
                false
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
        let ssh = self.certificate_of_sshd(&generation)?;
        let mut anchors = self.installed.material.anchors.clone();
        anchors.extend(self.passed.iter().flat_map(|p| p.material.anchors.clone()));
        for held in self.told.bundles.values() {
            anchors.extend(pki::bundle::authorities(&held.bundle).map(|ca| (ca.pin(), ca)));
        }
        let certified = generation.trusted.iter().filter(|(t, _)| t.has(KeyKind::Tls));
        let wanted: BTreeSet<&SpkiPin> = certified.flat_map(|(_, pins)| pins).collect();
        if let Some(missing) = wanted.iter().find(|pin| !anchors.contains_key(pin)) {
            return Err(format!(
                "the certificate of the authority {} is not here",
                missing.short()
            ));
        }
        anchors.retain(|pin, _| wanted.contains(pin));
        let told = self.told.bundles.iter();
        let told = told.filter(|(t, _)| generation.trusted.contains_key(t));
        let beside = told
            .map(|(t, held)| (*t, beside::of_bundle(&held.bundle)))
            .collect();
        Ok(Material {
            generation,
            client,
            server,
            ssh,
            anchors,
            beside,
        })
    }

    /// What TLS trusts and presents under this generation.
    fn epoch_of(&self, material: &Material) -> Result<Arc<TrustEpoch>, String> {
        let epoch = tls::of_material(material, Some(&self.told), tls::now(&self.clock));
        epoch.map_err(|e| in_words(&e))
    }

    /// Puts what is installed in force again, under the deny lists of now.
    pub(super) fn apply_epoch(&self) -> Result<(), AgentError> {
        let epoch = self.epoch_of(&self.installed.material);
        self.put_in_force(epoch.map_err(AgentError::Certificates)?);
        Ok(())
    }

    /// Lets an epoch count for new handshakes, and closes sessions that it does not accept.
    fn put_in_force(&self, epoch: Arc<TrustEpoch>) {
        let closed = self.shared.epochs.install(epoch, &self.shared.sessions);
        if closed > 0 {
            tracing::info!(
                closed,
                "sessions of peers that are not trusted any more were closed"
            );
        }
    }

    /// Puts the last generation that passed back, whole; hooks run again, so that applications come along.
    fn restore(&mut self) -> bool {
        let Some(passed) = self.passed.clone() else {
            return false;
        };
        let epoch = match self.epoch_of(&passed.material) {
            Ok(epoch) => epoch,
            Err(why) => {
                self.fail("install", why);
                return false;
            }
        };
        // Crash point: before the link moves the next start proves what failed once more; after it, the certificates
        // of what failed lie among the requests. A gateway may have been shown them, and then nothing earlier counts.
        let kept = self.keep_failed(&passed.material.generation);
        if let Err(error) = kept.and_then(|()| self.disk.point(Link::Current, passed.number)) {
            self.fail("disk", error.to_string());
            return false;
        }
        tracing::warn!(
            generation = passed.number,
            "the last proven generation was restored"
        );
        let failed = std::mem::replace(&mut self.installed, passed);
        self.sshd.keep_failed(failed.material.ssh);
        self.restored = true;
        self.count_installed("restored");
        self.proof = Proof::Due;
        self.put_in_force(epoch);
        self.disk.prune_generations();
        true
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

    /// Makes a key, keeps it, and asks for a certificate.
    fn request(&mut self, usage: LeafUse, issuer: SpkiPin) -> bool {
        if !self.request.is_due() || self.dial.borrow().is_none() {
            return false;
        }
        let id = CommandId(enter::fresh_uuid(self.now()));
        let request = Request::new(Purpose::Row { usage, issuer }, id, self.now());
        // Crash point: the key is durable before anybody hears of it; a request that was not sent is sent
        // by the next start.
        if let Err(error) = self.disk.keep_request(&request) {
            self.request.fail();
            self.fail("disk", error.to_string());
            return false;
        }
        self.requests.push(request);
        self.ask_again();
        true
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
        // Only what differs from what hooks have seen before this start is new to them.
        let seen = self.disk.generation(Link::Hooked).ok().flatten();
        let seen = seen.map(|stored| (stored.material.generation, stored.material.beside));
        (self.hooked, self.hooked_beside) = seen.map_or_else(Default::default, |(g, b)| (Some(g), b));
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
