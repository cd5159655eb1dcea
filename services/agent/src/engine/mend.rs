//! The way back, without a person: new trust from a signed bundle, then new certificates by an old key.
//!
//! Whoever slept through a rotation trusts nobody that answers, and nobody accepts what it presents. The
//! signed bundle heals the first, a recovery the second. Both go on until a gateway says a definite no;
//! only then is a new token needed.

use std::time::Duration;

use api::join::JoinAnswer;
use domain::{Code, CommandId, SpkiPin, reconcile::has_way_forward, trust::SignedBundle};
use pki::CaCert;

use super::{Done, Engine, leaves};
use crate::{
    attempt::Attempt,
    config::{Pace, Token},
    disk::{
        DiskError, Identity,
        credential::Credential,
        generations::Link,
        requests::{Admission, Purpose, Request},
        trust::{NotTaken, Told},
    },
    enter::{self, Return, WayBack},
    error::AgentError,
    gateway::{self, Trouble, in_words},
    leaf::{self, Wanted},
    tls,
};

/// The pause after an answer that this host's clock makes useless.
const UNUSABLE_PAUSE: Duration = Duration::from_secs(60);

/// How far the way back is.
#[derive(Debug)]
pub(crate) struct Mending {
    attempt: Attempt,
    wants_trust: bool,
    /// The newest bundle was looked at in this round.
    has_looked: bool,
    /// Old certificates were refused for good; only the token is left.
    by_token: bool,
}

impl Mending {
    pub(super) fn new(pace: &Pace) -> Self {
        Self {
            attempt: Attempt::new(pace),
            wants_trust: false,
            has_looked: false,
            by_token: false,
        }
    }

    pub(super) fn want_trust(&mut self) {
        self.wants_trust = true;
    }

    /// A gateway speaks to this node: the next way back, if there is one, begins at once.
    pub(super) fn healed(&mut self) {
        self.came_back();
        self.attempt.succeed();
    }

    /// The node was taken back. Not until a gateway has spoken to it is it known that this was of use, and each
    /// way back is an event in the log: the pauses go on growing.
    fn came_back(&mut self) {
        (self.wants_trust, self.has_looked, self.by_token) = (false, false, false);
        self.attempt.fail();
    }
}

impl Engine {
    /// Goes on with the way back, if one is needed and its pause is over.
    pub(super) fn mend(&mut self) -> Result<(), AgentError> {
        let is_stranded = self.dial.borrow().is_none();
        if !(is_stranded || self.mending.wants_trust) || !self.mending.attempt.is_due() {
            return Ok(());
        }
        let server = self.config.servers[self.server].clone();
        if !self.mending.has_looked {
            self.mending.attempt.start();
            self.tasks.spawn(async move {
                let fetched = gateway::fetch_bundle(&server, domain::AuthorityType::Host).await;
                Done::Bundle(fetched.map_err(|e| Trouble::of(&e)))
            });
            return Ok(());
        }
        if !is_stranded {
            (self.mending.wants_trust, self.mending.has_looked) = (false, false);
            return Ok(());
        }
        if has_way_forward(&self.have(), &self.told.desired, &self.refused) {
            // It waits for its installation, after a failure. Another certificate would fare no better.
            return Ok(());
        }
        let proofs = self.proofs();
        let token = self.config.token.clone();
        let token = token.filter(|_| self.mending.by_token || proofs.is_empty());
        let epochs = tls::to_gateways(self.speaks_to(token.as_ref())?, None, tls::now(&self.clock))
            .map_err(|e| AgentError::Certificates(in_words(&e)))?;
        let way = Return {
            server,
            epochs,
            cluster: self.identity.cluster.clone(),
            node: self.identity.node,
            proofs,
        };
        let purpose = match &token {
            Some(token) => Purpose::Join {
                token: token_hash(token),
            },
            None => Purpose::Recover,
        };
        let request = match self.request_of(purpose) {
            Ok(request) => request,
            Err(error) => {
                self.mending.attempt.fail();
                self.disk_refused(&error);
                return Ok(());
            }
        };
        self.mending.attempt.start();
        let (spki, config) = (request.spki, self.config.clone());
        self.tasks.spawn(async move {
            let rejoining = token.is_some();
            let way = match token {
                Some(token) => enter::rejoin(way, request, token, config).await,
                None => enter::recover(way, request).await,
            };
            Done::Returned { spki, rejoining, way }
        });
        Ok(())
    }

    /// Whose gateways a way back leads to. A token is shown only to those that the pins name which came with it: a node
    /// that slept holds authorities which were retired meanwhile, and such a one's key may be in anybody's hands.
    fn speaks_to(&self, token: Option<&Token>) -> Result<Vec<CaCert>, AgentError> {
        let (held, pins) = (self.host_anchors(), &self.config.ca_pins);
        if token.is_none() || pins.is_empty() {
            return Ok(held);
        }
        let (pinned, others): (Vec<_>, Vec<_>) = held.into_iter().partition(|ca| pins.contains(&ca.pin()));
        if pinned.is_empty() {
            return Err(enter::none_is_pinned(others.iter().map(CaCert::pin)));
        }
        Ok(pinned)
    }

    /// A bundle came, from nobody in particular: it counts by its signature and its revision.
    pub(super) fn fetched(&mut self, result: Result<SignedBundle, Trouble>) -> Result<(), AgentError> {
        let signed = match result {
            Ok(signed) => signed,
            Err(trouble) => {
                self.trouble = Some(trouble.text().to_owned());
                self.mending.attempt.fail();
                self.server = (self.server + 1) % self.config.servers.len();
                return Ok(());
            }
        };
        let authority_type = domain::AuthorityType::Host;
        match self
            .newest_told()
            .with_bundle(&self.identity, authority_type, &signed, self.now())
        {
            Ok(told) => {
                self.mending.attempt.proceed();
                if told.bundles != self.told.bundles {
                    tracing::info!("installed newer trust from a signed bundle");
                }
                self.adopt(told, false)?;
            }
            Err(
                error @ (NotTaken::Older { .. }
                | NotTaken::Bundle(_)
                | NotTaken::Disagrees { .. }
                | NotTaken::Unsigned { .. }),
            ) => {
                tracing::warn!(%error, "a fetched trust bundle is not taken; what is installed stays");
                self.trouble = Some(error.to_string());
                self.mending.attempt.fail();
            }
        }
        self.mending.has_looked = true;
        Ok(())
    }

    /// A way back was tried.
    pub(super) fn returned(
        &mut self,
        spki: SpkiPin,
        rejoining: bool,
        way: WayBack,
    ) -> Result<(), AgentError> {
        match way {
            WayBack::Answer(answer) => self.take_back(spki, rejoining, &answer),
            WayBack::Later(trouble) => {
                tracing::warn!(why = trouble.text(), "the way back is not open yet; trying again");
                if matches!(trouble, Trouble::Untrusted(_)) {
                    self.turned_away = true;
                }
                self.trouble = Some(trouble.text().to_owned());
                self.mending.has_looked = false;
                self.mending.attempt.fail();
                self.server = (self.server + 1) % self.config.servers.len();
                Ok(())
            }
            WayBack::No(Trouble::No(Code::KeyReused | Code::CsrInvalid, why)) => {
                tracing::warn!(why, "another key is made for the way back");
                self.forget(&spki);
                self.mending.attempt.fail();
                Ok(())
            }
            WayBack::No(trouble) if !rejoining && self.config.token.is_some() => {
                tracing::warn!(
                    why = trouble.text(),
                    "no old certificate is taken; joining again with the token"
                );
                self.turned_away = true;
                self.forget(&spki);
                self.mending.by_token = true;
                self.mending.attempt.proceed();
                Ok(())
            }
            WayBack::No(trouble) => {
                // The key is not kept: the next start, with another token, makes another one.
                self.forget(&spki);
                Err(match trouble {
                    Trouble::No(code, text) if rejoining => AgentError::Refused { code, text },
                    trouble => AgentError::NeedsToken {
                        code: trouble.code().unwrap_or(Code::RecoveryRefused),
                        why: trouble.text().to_owned(),
                        hostname: self.identity.hostname.to_string(),
                    },
                })
            }
        }
    }

    /// The control plane took the node back: with certificates of the current row, which is synced by that.
    fn take_back(&mut self, spki: SpkiPin, rejoining: bool, answer: &JoinAnswer) -> Result<(), AgentError> {
        let Some(at) = self.requests.iter().position(|r| r.spki == spki) else {
            tracing::warn!("a way back was answered after another one");
            self.mending.attempt.fail();
            return Ok(());
        };
        let checked = self.check_return(answer);
        let request = &mut self.requests[at];
        if let Err(why) = checked.and_then(|()| request.answer(&answer.certificate, answer.position)) {
            tracing::warn!(why, "the answer to the way back cannot be used");
            self.forget(&spki);
            self.mending.attempt.fail();
            return Ok(());
        }
        let leaf = request
            .received
            .as_ref()
            .map(|credential| credential.leaf.clone());
        // The answer to a join names every type of the grant, and the grant is another one now.
        let admission = rejoining.then(|| Admission {
            node: answer.node,
            granted: answer.desired.authorities.keys().copied().collect(),
        });
        request.admission.clone_from(&admission);
        // Crash point: the certificate is kept with its key, and with what else a rejoin changes; the next start
        // goes on from it.
        let kept = self.disk.keep_request(request);
        if let Err(error) = kept.and_then(|()| admission.map_or(Ok(()), |a| self.begin_anew(&a))) {
            // The key is durable, and the same request gets the same answer: it is asked for again.
            (self.requests[at].received, self.requests[at].admission) = (None, None);
            self.mending.attempt.fail();
            self.disk_refused(&error);
            return Ok(());
        }
        let is_taken = self.learn(&answer.desired, &answer.bundles)?;
        if is_taken {
            self.turned_away = false;
        }
        let now = self.now();
        if let Some(leaf) = leaf.filter(|leaf| !is_taken || now >= leaf.not_after) {
            // Its bundle or its certificate is not valid by this host's clock: another recovery would give the
            // same, and each one is an event in the log.
            let to = leaf.not_after;
            let why = format!(
                "the answer is not valid now by this host's clock ({now}; the certificate ends {to}): compare it with the control plane's"
            );
            tracing::error!(why, "this node was taken back and cannot use it");
            self.trouble = Some(why);
            self.mending.attempt.wait(UNUSABLE_PAUSE);
            return Ok(());
        }
        tracing::info!(position = %answer.position, rejoining, "the control plane took this node back");
        self.mending.came_back();
        Ok(())
    }

    /// Is the certificate in the answer this node's? By the authorities of the answer's own bundles, which may be newer
    /// than those that are held; where these are not taken the answer is of no use anyway, and said to be so.
    fn check_return(&self, answer: &JoinAnswer) -> Result<(), String> {
        let before = Some(self.newest_told());
        let offered = Told::offered(
            before,
            &self.identity,
            &answer.desired,
            &answer.bundles,
            self.now(),
        );
        let wanted = Wanted {
            cluster: &self.identity.cluster,
            node: answer.node,
            usage: answer.usage,
        };
        offered.map_or(Ok(()), |told| {
            leaf::check(&answer.certificate, &told.host_authorities(), wanted)
        })
    }

    /// Finishes a rejoin that a start finds answered: until its certificate has passed, the process may have ended
    /// between any two files of it.
    pub(super) fn resume_rejoin(&mut self) -> Result<(), DiskError> {
        let has_passed = |spki: SpkiPin| {
            let passed = self.passed.as_ref().map(|p| &p.material.generation);
            passed.is_some_and(|g| leaves(g).any(|leaf| leaf.spki == spki))
        };
        let admissions = self.requests.iter().filter(|r| !has_passed(r.spki));
        let admissions = admissions.filter_map(|r| r.received.as_ref().zip(r.admission.as_ref()));
        let newest = admissions.max_by_key(|(credential, _)| credential.leaf.position);
        match newest.map(|(_, admission)| admission.clone()) {
            Some(admission) => self.begin_anew(&admission),
            None => Ok(()),
        }
    }

    /// What passed before a rejoin is another life's: it is neither presented nor restored. The new grant may also
    /// leave out types of the old one, which are not in `want` from here on.
    fn begin_anew(&mut self, admission: &Admission) -> Result<(), DiskError> {
        if admission.node != self.identity.node {
            tracing::warn!(before = %self.identity.node, now = %admission.node, "the control plane gave this node a new id");
            let identity = Identity {
                node: admission.node,
                ..self.identity.clone()
            };
            self.disk.keep_identity(&identity)?;
            self.identity = identity;
        }
        self.disk.unlink(Link::Passed)?;
        self.passed = None;
        let told = self.told.narrowed(&admission.granted);
        if told != self.told {
            self.disk.keep_told(&told, Some(&self.told))?;
            self.told = told;
        }
        Ok(())
    }

    /// Old certificates with their keys, the newest first: the newest is the least likely to be superseded.
    fn proofs(&self) -> Vec<Credential> {
        let materials = [Some(&self.installed), self.passed.as_ref()]
            .into_iter()
            .flatten()
            .map(|s| &s.material.generation);
        let mut known: Vec<_> = materials
            .flat_map(leaves)
            .cloned()
            .chain(self.received())
            .chain(self.salvaged.iter().map(|c| c.leaf.clone()))
            // One for servers alone is never superseded and proves nothing: an old copy of it would do as well.
            .filter(|leaf| leaf.usage.client())
            .collect();
        known.sort_by_key(|leaf| std::cmp::Reverse(leaf.position));
        known.dedup_by_key(|leaf| leaf.spki);
        known
            .iter()
            .filter_map(|leaf| self.credential(&leaf.spki))
            .cloned()
            .collect()
    }

    /// The kept request of this purpose, or a new one, durable before it is sent.
    fn request_of(&mut self, purpose: Purpose) -> Result<Request, DiskError> {
        let kept = self
            .requests
            .iter()
            .find(|r| r.purpose == purpose && r.received.is_none());
        if let Some(request) = kept {
            return Ok(request.clone());
        }
        let request = Request::new(purpose, CommandId(enter::fresh_uuid(self.now())), self.now());
        self.disk.keep_request(&request)?;
        self.requests.push(request.clone());
        Ok(request)
    }
}

fn token_hash(token: &Token) -> domain::TokenHash {
    domain::TokenHash(pki::sha256(token.reveal().as_bytes()))
}
