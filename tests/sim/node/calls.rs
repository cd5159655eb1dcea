//! What agents say to gateways, and what they make of the answers.

use domain::{
    event::LeafUse,
    fact::{FactReport, Failure},
    reconcile::{accepts_revision, desired_of_bundle, facts, presentable},
    trust::Bundle,
};

use super::*;
use crate::net::{Call, Hello, PATIENCE_MS, Reply};

impl World {
    /// The agent's own clock: it asks for news, repeats what was not answered, and renews in time.
    pub fn agent_tick(&mut self, i: usize) {
        if !self.agents[i].up {
            return;
        }
        let is_waiting = !self.agents[i].disk.in_flight.is_empty() || self.agents[i].disk.asking.is_some();
        let next = if is_waiting || !self.agents[i].synced {
            self.rng.span(2 * SECOND, 8 * SECOND)
        } else {
            self.rng.span(15 * SECOND, 45 * SECOND)
        };
        self.queue.at(self.now + next, Msg::Tick(Actor::Agent(i)));
        // Another gateway now and then, and whenever this one does not answer.
        if self.rng.chance(50) || self.now - self.agents[i].heard > 60 * SECOND {
            self.agents[i].gateway = self.rng.below(self.gateways.len());
        }
        if self.agents[i].disk.node.is_none() || self.agents[i].stranded.is_some() {
            self.ask_to_join(i);
            return;
        }
        self.agent_steps(i);
        if !self.agents[i].up {
            return;
        }
        let hello = self.hello(i);
        self.give_up_on_sshd(i);
        match self.agents[i].door {
            Door::NeedsBundle => self.call(i, None, Call::Trust),
            _ if hello.is_none() => self.knock(i),
            Door::NeedsRecovery => self.knock(i),
            Door::Open | Door::Retried => {
                self.call(i, hello, Call::Poll);
                self.send_requests(i);
            }
        }
    }

    /// Without a certificate that opens the door: the bundle, and a recovery.
    fn knock(&mut self, i: usize) {
        self.call(i, None, Call::Trust);
        self.ask_to_recover(i);
    }

    /// What the agent presents, if it has something to present.
    pub fn hello(&self, i: usize) -> Option<Hello> {
        let a = &self.agents[i];
        let have = self.have(i);
        let leaf = presentable(&have, &a.refused)?.clone();
        let digest = *a.disk.digests.get(&leaf.spki)?;
        let trusted = a.trusts(AuthorityType::Host);
        Some(Hello {
            node: a.disk.node?,
            leaf,
            digest,
            trusted,
        })
    }

    /// Asks at once for what the event stream brings.
    pub fn asks_for_news(&mut self, i: usize) {
        let hello = self.hello(i);
        self.call(i, hello, Call::Poll);
    }

    pub(super) fn call(&mut self, i: usize, hello: Option<Hello>, call: Call) {
        let a = &self.agents[i];
        if !a.is_reachable() {
            return;
        }
        let msg = Msg::Call {
            gateway: a.gateway,
            agent: i,
            boot: a.boot,
            sent: self.now,
            hello: hello.map(Box::new),
            call,
        };
        self.queue.send(&mut self.rng, self.now, msg);
    }

    /// Sends (again) every request that was not answered.
    pub fn send_requests(&mut self, i: usize) {
        let is_open = matches!(self.agents[i].door, Door::Open | Door::Retried);
        let Some(hello) = self.hello(i).filter(|_| is_open) else {
            return;
        };
        for request in self.agents[i].disk.in_flight.clone() {
            let last = self.agents[i]
                .sent
                .get(&request.spki)
                .copied()
                .unwrap_or(i64::MIN / 2);
            if self.now - last >= PATIENCE_MS {
                self.agents[i].sent.insert(request.spki, self.now);
                let (usage, issuer, spki) = (request.usage, request.issuer, request.spki);
                self.call(i, Some(hello.clone()), Call::Request { usage, issuer, spki });
            }
        }
    }

    /// Reports the facts of the installed generation; with a failure, those of the one that was restored.
    pub fn report(&mut self, i: usize, failures: Option<u32>) {
        let Some(hello) = self.hello(i).filter(|_| self.agents[i].is_reachable()) else {
            return;
        };
        let have = self.have(i);
        // Facts are of a generation that passed; while the installed one fails, of the one before.
        let has_passed = have.proof == Proof::Passed;
        let Some(generation) = Some(have.installed.clone())
            .filter(|_| has_passed)
            .or(have.last_passed.clone())
        else {
            return;
        };
        let want = self.agents[i].disk.want.as_ref();
        let retiring = want
            .and_then(|w| w.authorities.get(&AuthorityType::Host))
            .and_then(|row| row.retiring);
        let on_retiring = |pins: &BTreeSet<SpkiPin>| retiring.is_some_and(|issuer| pins.contains(&issuer));
        let by_excluded = on_retiring(&have.only_excluded_on);
        let flag = on_retiring(&have.sessions_on) && !by_excluded;
        let a = &mut self.agents[i];
        // One report at a time: a later one must not overtake it.
        if a.reporting
            .as_ref()
            .is_some_and(|(_, _, at)| self.now - at < PATIENCE_MS)
        {
            return;
        }
        a.seq += 1;
        a.reports_failure = !has_passed;
        a.reporting = Some((generation.clone(), flag, self.now));
        a.failure_reported |= failures.is_some();
        let report = FactReport {
            boot: a.boot,
            seq: a.seq,
            version: "sim".into(),
            addr: None,
            authorities: facts(&generation, flag, by_excluded),
            failure: failures.map(|count| Failure {
                step: "proof".into(),
                detail: "sim".into(),
                count,
            }),
            unsynced: a.unsynced,
            labels: Default::default(),
        };
        let says = Box::new((generation, flag));
        self.call(
            i,
            Some(hello),
            Call::Report {
                report: Box::new(report),
                says,
            },
        );
    }

    fn ask_to_join(&mut self, i: usize) {
        if self.agents[i].token.is_none() {
            return;
        }
        let spki = self.own_key(i, None);
        let disk = &self.agents[i].disk;
        let proof = disk
            .last_passed
            .as_ref()
            .and_then(|g| g.client.as_ref())
            .or(disk.installed.client.as_ref());
        let proven_by = proof
            .filter(|l| disk.keys.contains(&l.spki))
            .and_then(|l| disk.digests.get(&l.spki));
        let rejoin = disk.node.map(|node| (node, proven_by.copied()));
        self.call(i, None, Call::Join { spki, rejoin });
    }

    fn ask_to_recover(&mut self, i: usize) {
        let Some(node) = self.agents[i].disk.node else {
            return;
        };
        let Some(proven_by) = self.proof(i) else {
            return self.strand(i, "no key is left");
        };
        let disk = &self.agents[i].disk;
        let row = disk
            .want
            .as_ref()
            .and_then(|w| w.authorities.get(&AuthorityType::Host))
            .cloned();
        let request = row.and_then(|row| {
            let issuer = row.client_issuer?;
            let usage = if row.server_issuer == Some(issuer) {
                LeafUse::Both
            } else {
                LeafUse::Client
            };
            Some((usage, issuer))
        });
        let spki = self.own_key(i, request);
        self.call(
            i,
            None,
            Call::Recover {
                node,
                proven_by,
                spki,
            },
        );
    }

    /// The key of the join or recovery under way, durable before it is sent.
    fn own_key(&mut self, i: usize, request: Option<(LeafUse, SpkiPin)>) -> SpkiPin {
        if let Some(asking) = self.agents[i].disk.asking {
            return asking.spki;
        }
        let spki = self.rng.key();
        let (usage, issuer) = request.unwrap_or((LeafUse::Both, SpkiPin([0; 32])));
        let disk = &mut self.agents[i].disk;
        disk.keys.insert(spki);
        disk.asking = Some(InFlight { usage, issuer, spki });
        spki
    }

    /// An answer arrives.
    pub fn agent_hears(&mut self, i: usize, boot: BootId, reply: Reply) {
        let a = &mut self.agents[i];
        if !a.is_reachable() || a.boot != boot {
            return;
        }
        a.heard = self.now;
        match reply {
            Reply::State { desired, leaves } => {
                a.door = Door::Open;
                self.take_desired(i, *desired);
                self.take_leaves(i, leaves);
            }
            // It is authorised: the certificate comes when the signer gets to it.
            Reply::Accepted { spki } => _ = a.sent.insert(spki, self.now + 90 * SECOND),
            Reply::Reported { seq, says } => {
                if seq == a.seq {
                    a.reporting = None;
                    if !a.reports_failure {
                        a.reported = Some(*says);
                    }
                }
            }
            Reply::NotKnown { presented } => self.turned_away(i, presented),
            Reply::TokenRefused => {
                a.token = None;
                self.ask_no_more(i);
            }
            Reply::Refused { why, proof } => {
                // A refusal that was on its way while the agent joined anew is about what it was before.
                let presented = self.hello(i).map(|hello| hello.digest);
                if presented == Some(proof) || self.proof(i) == Some(proof) {
                    self.ask_no_more(i);
                    self.strand(i, why);
                }
            }
            Reply::AskAgain { spki } => self.asked_in_vain(i, spki),
            Reply::Bundles(bundles) => self.take_bundles(i, &bundles),
            Reply::Recovered { leaf, digest, bundle } => self.recovered(i, leaf, digest, &bundle),
            Reply::Joined {
                node,
                leaf,
                digest,
                desired,
            } => self.joined(i, node, leaf, digest, *desired),
        }
        self.agent_steps(i);
    }

    /// A refusal. It may be of a repetition that arrived late, of a request whose certificate is in use by now:
    /// only a key that still waits is thrown away.
    fn asked_in_vain(&mut self, i: usize, spki: SpkiPin) {
        let a = &mut self.agents[i];
        if let Some(sshd) = a.sshd.as_mut().filter(|sshd| sshd.key == Some(spki)) {
            sshd.asked = None;
            a.ask_after = self.now + 7 * SECOND;
            return;
        }
        let waits = a.disk.in_flight.iter().any(|sent| sent.spki == spki);
        let asks = a.disk.asking.is_some_and(|asking| asking.spki == spki);
        if waits || asks {
            a.ask_after = self.now + 7 * SECOND;
            a.disk.in_flight.retain(|sent| sent.spki != spki);
            a.disk.keys.remove(&spki);
        }
        if asks {
            a.disk.asking = None;
        }
    }

    fn take_desired(&mut self, i: usize, desired: DesiredState) {
        let a = &mut self.agents[i];
        let installed = a.disk.installed.revisions.clone();
        let want = a.disk.want.get_or_insert_with(|| DesiredState {
            authorities: BTreeMap::new(),
            ..desired.clone()
        });
        let before = want.authorities.clone();
        // Without the row of a type that it uses a gateway does not name the newest state: it is not signed yet.
        let is_whole = a.uses.keys().all(|t| desired.authorities.contains_key(t));
        for (t, row) in desired.authorities {
            let known = installed
                .get(&t)
                .copied()
                .max(want.authorities.get(&t).map(|row| row.revision));
            if accepts_revision(known, row.revision) {
                a.synced |= is_whole;
                want.authorities.insert(t, row);
            }
        }
        want.names = desired.names;
        if want.authorities != before {
            // A new row is a new chance, whatever failed before.
            (a.backoff_until, a.ask_after) = (0, 0);
            let row = want
                .authorities
                .get(&AuthorityType::Host)
                .map(|r| (r.phase, r.revision));
            self.tell(|| format!("agent {i} wants {row:?}"));
        }
        self.notice_synced(i);
    }

    /// Holding the row that a gateway named: no longer served on its own responsibility.
    pub fn notice_synced(&mut self, i: usize) {
        let a = &mut self.agents[i];
        let holds = a.disk.want.as_ref().is_some_and(|want| {
            want.authorities
                .iter()
                .all(|(t, row)| a.disk.installed.trusted.get(t) == Some(&row.trusted))
        });
        a.unsynced &= !(a.synced && holds && a.proof == Proof::Passed);
    }

    fn take_leaves(&mut self, i: usize, leaves: Vec<(Leaf, CertDigest)>) {
        for (leaf, digest) in leaves {
            if self.agents[i].take_for_sshd(leaf.clone()) {
                continue;
            }
            let disk = &mut self.agents[i].disk;
            let is_installed = disk
                .installed
                .client
                .iter()
                .chain(&disk.installed.server)
                .any(|l| l.spki == leaf.spki);
            let is_passed = disk
                .last_passed
                .iter()
                .flat_map(|g| g.client.iter().chain(&g.server))
                .any(|l| l.spki == leaf.spki);
            let is_here = disk.received.iter().any(|l| l.spki == leaf.spki);
            disk.in_flight.retain(|sent| sent.spki != leaf.spki);
            // The certificate of a recovery may come this way as well, when its answer was lost.
            disk.asking = disk.asking.filter(|asking| asking.spki != leaf.spki);
            if disk.keys.contains(&leaf.spki) && !is_installed && !is_passed && !is_here {
                disk.digests.insert(leaf.spki, digest);
                disk.received.push(leaf);
            }
        }
    }

    /// Signed bundles: they may be installed on nobody's word but the bundle key's.
    fn take_bundles(&mut self, i: usize, bundles: &[Bundle]) {
        let a = &mut self.agents[i];
        let Some(want) = a.disk.want.as_mut() else { return };
        for bundle in bundles {
            let t = bundle.authority_type;
            let Some(uses) = a.uses.get(&t).copied() else {
                continue;
            };
            let before = want.authorities.get(&t);
            let known = a
                .disk
                .installed
                .revisions
                .get(&t)
                .copied()
                .max(before.map(|row| row.revision));
            if accepts_revision(known, bundle.revision) && bundle.expires > Timestamp(self.now) {
                let row = desired_of_bundle(bundle, uses, before);
                if before != Some(&row) {
                    want.authorities.insert(t, row);
                }
            }
        }
        if self.agents[i].door == Door::NeedsBundle {
            // With the new trust the gateway may be met again; if it still turns us away, a recovery is next.
            self.agents[i].door = Door::Retried;
        }
    }

    /// TLS failed, or the certificate is not known: the trust is renewed first, the certificate after.
    fn turned_away(&mut self, i: usize, presented: SpkiPin) {
        if self.hello(i).is_none_or(|hello| hello.leaf.spki != presented) {
            return;
        }
        let a = &mut self.agents[i];
        a.door = match a.door {
            Door::Open | Door::NeedsBundle => Door::NeedsBundle,
            Door::Retried | Door::NeedsRecovery => {
                a.refused.insert(presented);
                Door::NeedsRecovery
            }
        };
        self.call(i, None, Call::Trust);
    }

    fn recovered(&mut self, i: usize, leaf: Leaf, digest: CertDigest, bundle: &Bundle) {
        let disk = &mut self.agents[i].disk;
        if disk.asking.is_none_or(|asking| asking.spki != leaf.spki) {
            return;
        }
        disk.asking = None;
        disk.in_flight.retain(|sent| sent.spki != leaf.spki);
        disk.digests.insert(leaf.spki, digest);
        disk.received.push(leaf);
        self.agents[i].door = Door::Open;
        // The bundle that came with it is the row of this moment.
        self.take_bundles(i, std::slice::from_ref(bundle));
        self.agents[i].synced = self.agents[i].uses.len() == 1;
        self.tell(|| format!("agent {i} recovered"));
    }

    fn joined(&mut self, i: usize, node: NodeId, leaf: Leaf, digest: CertDigest, desired: DesiredState) {
        let a = &mut self.agents[i];
        if a.disk.asking.is_none_or(|asking| asking.spki != leaf.spki) {
            return;
        }
        if a.disk.node != Some(node) {
            a.disk = Disk {
                keys: a.disk.keys.clone(),
                ..Disk::default()
            };
        }
        a.disk.node = Some(node);
        if let Some(sshd) = &mut a.sshd {
            // A machine that is set up anew makes new host keys.
            let half = node.0.into_bytes();
            sshd.key = Some(SpkiPin([half, half].concat().try_into().expect("twice 16 bytes")));
        }
        a.disk.asking = None;
        // Nothing of before counts any more: the certificates are superseded.
        a.disk.last_passed = None;
        a.disk.in_flight.clear();
        a.disk.received.clear();
        a.disk.digests.insert(leaf.spki, digest);
        let leaf_key = leaf.spki;
        a.disk.received.push(leaf);
        (a.stranded, a.token, a.door, a.tampered) = (None, None, Door::Open, false);
        a.refused.clear();
        a.rejoined_with = Some(leaf_key);
        a.proof = Proof::Due;
        self.owner.insert(node, i);
        self.tell(|| format!("agent {i} joined as {node}"));
        self.take_desired(i, desired);
    }
}
