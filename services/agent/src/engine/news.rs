//! What comes in: from the link, and from the tasks beside the loop.

use std::collections::BTreeSet;

use domain::{AuthorityType, Code, CommandId, DesiredState, SpkiPin, reconcile::Proof};
use pki::Certificate;

use super::{Done, Engine};
use crate::{
    attempt::Attempt,
    config::Settings,
    disk::{
        requests::{LEAF_TYPE, Request},
        trust::Told,
    },
    error::AgentError,
    gateway::Trouble,
    leaf::{self, Wanted},
    link::News,
};

/// A request's id is good for a day; well before that the same key is sent under a new one.
const ID_LIFE_MS: u64 = 20 * domain::time::HOUR_MS;

impl Engine {
    /// Takes news of the link.
    pub(super) fn hear(&mut self, news: News) -> Result<(), AgentError> {
        match news {
            News::Desired { server, update } => {
                self.server = server;
                self.connected = true;
                if self.learn(&update.desired, &update.bundles)? {
                    self.trouble = None;
                    self.turned_away = false;
                    self.mending.healed();
                }
                Ok(())
            }
            News::Certificate(pushed) => {
                self.received_certificate(&pushed.certificate, pushed.position);
                Ok(())
            }
            News::Lost { dial, trouble } => {
                self.lost(dial, trouble);
                Ok(())
            }
        }
    }

    /// Takes what a task beside the loop came to.
    pub(super) fn finish(&mut self, done: Done) -> Result<(), AgentError> {
        match done {
            Done::Ended | Done::Closed => Ok(()),
            Done::Drained(issuer) => {
                if self.draining.is_some_and(|(drained, _)| drained == issuer) {
                    self.draining = None;
                }
                Ok(())
            }
            Done::Asked { dial, spki, result } => {
                self.asked(dial, spki, result);
                Ok(())
            }
            Done::SshdAsked { dial, id, result } => {
                self.sshd_asked(dial, id, result);
                Ok(())
            }
            Done::Reported { dial, what, result } => {
                self.reported(dial, *what, result);
                Ok(())
            }
            Done::Bundle(result) => self.fetched(result),
            Done::Returned { spki, rejoining, way } => self.returned(spki, rejoining, way),
        }
    }

    /// SIGHUP: reads the configuration again; a bad one is refused and the old one stays.
    pub(super) fn reload(&mut self) {
        let Some(path) = self.config.config_file.clone() else {
            return;
        };
        match Settings::load(&path) {
            Ok(settings) => {
                if settings.has_other_hooks(&self.config.settings) {
                    // What is new among the hooks has not seen the files yet.
                    self.proof = Proof::Due;
                    self.forget_hooked();
                }
                self.config.settings = settings;
                self.sshd.read_again();
                self.compare_uses();
                self.report.again();
                tracing::info!(file = %path.display(), "the configuration was read again");
            }
            Err(error) => tracing::error!(%error, "the new configuration is refused; the old one stays"),
        }
    }

    /// Does it name the row of every type that this node uses? A type whose newest row is not signed yet is
    /// missing, and what is on disk for it may be of before the node slept.
    fn names_all(&self, desired: &DesiredState) -> bool {
        let mut used = self.told.desired.authorities.keys().chain([&AuthorityType::Host]);
        used.all(|t| desired.authorities.contains_key(t))
    }

    /// Takes a desired state with its bundles, both or neither. False if it was not taken.
    pub(super) fn learn(
        &mut self,
        desired: &DesiredState,
        bundles: &std::collections::BTreeMap<AuthorityType, domain::trust::SignedBundle>,
    ) -> Result<bool, AgentError> {
        let names_all = self.names_all(desired);
        match Told::offered(
            Some(self.newest_told()),
            &self.identity,
            desired,
            bundles,
            self.now(),
        ) {
            Ok(told) => {
                self.adopt(told, names_all)?;
                Ok(true)
            }
            Err(error) => {
                tracing::warn!(%error, "what the gateway sent is not taken; what is installed stays");
                self.trouble = Some(error.to_string());
                Ok(false)
            }
        }
    }

    /// The newest that was told, also where the disk has refused it: an earlier document is not taken after it.
    pub(super) fn newest_told(&self) -> &Told {
        self.pending.as_ref().map_or(&self.told, |(told, _)| told)
    }

    /// Keeps what was told, and lets it count. Where the disk refuses, what was told before stays in force and the
    /// node goes on serving and reporting it: a row that a restart would not find must not be held.
    pub(super) fn adopt(&mut self, told: Told, names_all: bool) -> Result<(), AgentError> {
        let is_waiting = self.pending.take().is_some() && !self.again.is_due();
        if told == self.told {
            self.synced |= names_all;
            return Ok(());
        }
        if is_waiting {
            self.pending = Some((told, names_all));
            return Ok(());
        }
        if let Err(error) = self.disk.keep_told(&told, Some(&self.told)) {
            self.pending = Some((told, names_all));
            self.disk_refused(&error);
            return Ok(());
        }
        self.disk_took();
        for (authority_type, row) in &told.desired.authorities {
            let before = self.told.desired.authorities.get(authority_type);
            if before.is_none_or(|before| before.revision != row.revision) {
                tracing::info!(%authority_type, phase = %row.phase, revision = %row.revision, "a new row");
                self.sshd.asks_anew();
            }
        }
        self.told = told;
        self.synced |= names_all;
        self.compare_uses();
        self.apply_epoch()
    }

    /// Tries again to keep what the disk has refused.
    pub(super) fn adopt_pending(&mut self) -> Result<(), AgentError> {
        if !self.again.is_due() {
            return Ok(());
        }
        match self.pending.take() {
            Some((told, names_all)) => self.adopt(told, names_all),
            None => Ok(()),
        }
    }

    /// Compares the types that the configuration counts on with those that are granted: a difference is a failure
    /// that the node reports until it is gone. Said once for each change.
    pub(super) fn compare_uses(&mut self) {
        let granted = &self.told.desired.authorities;
        let uses = self.config.settings.uses.iter();
        let missing: BTreeSet<_> = uses.filter(|t| !granted.contains_key(t)).copied().collect();
        if missing == self.ungranted {
            return;
        }
        for authority_type in &missing {
            tracing::error!(
                %authority_type,
                "the configuration uses an authority type that this node's token did not grant; join again with a token made with --use {authority_type}"
            );
        }
        self.ungranted = missing;
    }

    fn lost(&mut self, dial: u64, trouble: Trouble) {
        if self.dial.borrow().as_ref().map(|d| d.number) != Some(dial) {
            return; // Of a connection that was given up meanwhile.
        }
        self.connected = false;
        let text = trouble.text().to_owned();
        if self.trouble.as_ref() != Some(&text) {
            tracing::warn!(why = text, "no stream to a gateway");
        }
        self.trouble = Some(text);
        self.refused_by(dial, &trouble);
    }

    /// Draws the consequences of a gateway's "no" to this connection.
    pub(super) fn refused_by(&mut self, dial: u64, trouble: &Trouble) {
        let current = self.dial.borrow().as_ref().map(|d| (d.number, d.presents));
        let Some((_, presents)) = current.filter(|(number, _)| *number == dial) else {
            return;
        };
        match trouble {
            Trouble::NoAnswer(_) | Trouble::No(..) => {}
            Trouble::Untrusted(_) => {
                self.turned_away = true;
                self.mending.want_trust();
            }
            Trouble::Refused(_, why) | Trouble::Gone(_, why) => {
                tracing::warn!(why, "the certificate is refused; looking for the way back");
                self.turned_away = true;
                self.refused.insert(presents);
                self.mending.want_trust();
            }
        }
    }

    /// Sends every request that has no answer and whose pause is over.
    pub(super) fn ask_again(&mut self) {
        let Some(dial) = self.dial.borrow().clone() else {
            return;
        };
        let now = self.now();
        for request in &mut self.requests {
            let Some(flight) = request.in_flight() else {
                continue;
            };
            let attempt = self
                .asking
                .entry(request.spki)
                .or_insert_with(|| Attempt::new(&self.config.pace));
            if !attempt.is_due() {
                continue;
            }
            attempt.start();
            if now.since_ms(request.made) > ID_LIFE_MS {
                // The same key under a new id: what was authorised for it is found by the key.
                (request.id, request.made) = (CommandId(crate::enter::fresh_uuid(now)), now);
            }
            let body = api::node::CertificateRequest {
                id: request.id,
                authority_type: LEAF_TYPE,
                usage: flight.usage,
                issuer: Some(flight.issuer),
                csr: request.csr.clone(),
            };
            let client = dial.client(&self.config.servers[self.server]);
            let (spki, dial) = (request.spki, dial.number);
            self.tasks.spawn(async move {
                let result = client.post(api::route::NODE_CERTIFICATES, &body).await;
                Done::Asked {
                    dial,
                    spki,
                    result: result.map_err(|e| Trouble::of(&e)),
                }
            });
        }
    }

    fn asked(&mut self, dial: u64, spki: SpkiPin, result: Result<api::node::CertificateAnswer, Trouble>) {
        match result {
            Ok(answer) => {
                self.asking.remove(&spki);
                self.request.succeed();
                self.received_certificate(&answer.certificate, answer.position);
            }
            Err(Trouble::No(code, text)) => {
                // The row has moved on, or the key cannot be certified: the plan asks anew, with a new key.
                if code == Code::StaleView {
                    tracing::info!(%code, text, "a certificate request was overtaken by the rotation");
                } else {
                    tracing::warn!(%code, text, "a certificate request was refused");
                }
                self.forget(&spki);
                self.request.fail();
            }
            Err(trouble) => {
                if let Some(attempt) = self.asking.get_mut(&spki) {
                    attempt.fail();
                }
                tracing::warn!(
                    why = trouble.text(),
                    "no certificate yet; asking again with the same key"
                );
                self.refused_by(dial, &trouble);
            }
        }
    }

    /// Puts a certificate to the request whose key it certifies. One without a request is somebody's repeat.
    fn received_certificate(&mut self, pem: &str, position: domain::Position) {
        let spki = pki::pem::certificates(pem)
            .and_then(|ders| ders.first().and_then(|der| Certificate::parse(der).ok()))
            .map(|read| read.spki);
        let at = |r: &Request| Some(r.spki) == spki && r.received.is_none();
        let Some(at) = self.requests.iter().position(at) else {
            return;
        };
        // Not durable, and need not be: the key is, and a start that finds it without an answer asks again and
        // gets the same certificate.
        let checked = self.check_answer(&self.requests[at], pem);
        if let Err(why) = checked.and_then(|()| self.requests[at].answer(pem, position)) {
            tracing::error!(
                why,
                "a certificate that came cannot be used; another one is asked for"
            );
            let spki = self.requests[at].spki;
            self.forget(&spki);
            self.request.fail();
        }
    }

    /// Is it what the request asked for?
    fn check_answer(&self, request: &Request, pem: &str) -> Result<(), String> {
        let Some(flight) = request.in_flight() else {
            return Ok(());
        };
        let wanted = Wanted {
            cluster: &self.identity.cluster,
            node: self.identity.node,
            usage: flight.usage,
        };
        leaf::check(pem, &self.host_anchors(), wanted)
    }
}
