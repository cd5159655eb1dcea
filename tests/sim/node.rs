//! Agents of the virtual cluster: what is on disk, what a crash forgets, and the plan's steps taken one by one.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    BootId, CertDigest, Hostname, NodeId, SpkiPin, Timestamp, TokenHash,
    access::Uses,
    authority::AuthorityType,
    desired::DesiredState,
    event::LeafUse,
    reconcile::{Generation, Have, InFlight, Leaf, Proof, Sshd, Step, keys_to_keep, reconcile},
};

use crate::{
    net::{Actor, Msg},
    world::{SECOND, World},
};

mod calls;
mod sessions;
mod sshd;
mod stranded;

/// What survives a crash, and what a backup holds.
#[derive(Clone, Default)]
pub struct Disk {
    pub node: Option<NodeId>,
    pub installed: Generation,
    pub last_passed: Option<Generation>,
    pub want: Option<DesiredState>,
    pub received: Vec<Leaf>,
    pub in_flight: Vec<InFlight>,
    /// Private keys.
    pub keys: BTreeSet<SpkiPin>,
    /// The certificates that were received, by their key.
    pub digests: BTreeMap<SpkiPin, CertDigest>,
    /// The key of a join or a recovery that is under way.
    pub asking: Option<InFlight>,
}

/// How an agent stands with the gateways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Door {
    Open,
    /// Turned away: the trust may be old.
    NeedsBundle,
    /// The bundle was installed; the certificate is tried once more.
    Retried,
    /// Turned away again: only a recovery helps.
    NeedsRecovery,
}

/// A session between two agents that lasts.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub client: usize,
    pub server: usize,
    pub client_issuer: SpkiPin,
    pub server_issuer: SpkiPin,
}

/// An agent on its node.
pub struct Agent {
    pub hostname: Hostname,
    pub uses: BTreeMap<AuthorityType, Uses>,
    pub token: Option<TokenHash>,
    pub disk: Disk,
    pub up: bool,
    /// Is it connected to the control plane?
    pub online: bool,
    /// Since when it is up and connected.
    pub online_since: i64,
    /// When a gateway last answered it.
    pub heard: i64,
    pub boot: BootId,
    pub seq: u64,
    pub started: i64,
    pub serving: bool,
    pub synced: bool,
    /// It serves what it had, because no gateway answered.
    pub unsynced: bool,
    pub proof: Proof,
    failures: u32,
    proving: bool,
    backoff_until: i64,
    /// After a refusal nothing is asked for until then, or until the row changes.
    ask_after: i64,
    reported: Option<(Generation, bool)>,
    reporting: Option<(Generation, bool, i64)>,
    /// The failure was reported for this desired state.
    failure_reported: bool,
    pub draining: Option<SpkiPin>,
    /// Its sshd, where it has one. The key is sshd's; what came and what was asked a crash forgets.
    sshd: Option<Sshd>,
    sent: BTreeMap<SpkiPin, i64>,
    refused: BTreeSet<SpkiPin>,
    door: Door,
    pub gateway: usize,
    /// It has no way back but a new token, and says why.
    pub stranded: Option<&'static str>,
    /// Its disk was set back, or copied: whatever it does until it joins again is nobody's promise.
    pub tampered: bool,
    /// The same until it joins again, also when the gate counts on it: it may be superseded at any time.
    pub set_back: bool,
    /// The key of the certificate that it joined again with; installed, it ends the above.
    rejoined_with: Option<SpkiPin>,
    /// The report under way tells a failure, and facts of before this start.
    reports_failure: bool,
    /// Its proof fails until then.
    pub broken_until: i64,
    /// It was switched off for good.
    pub gone: bool,
    renew_permille: u16,
}

impl Agent {
    /// Up and connected to the control plane?
    pub fn is_reachable(&self) -> bool {
        self.up && self.online
    }

    /// The leaf that it presents to its peers, and the one that it serves to them.
    pub fn issuers(&self) -> (Option<SpkiPin>, Option<SpkiPin>) {
        let issuer = |leaf: &Option<Leaf>| leaf.as_ref().map(|l| l.issuer);
        (
            issuer(&self.disk.installed.client),
            issuer(&self.disk.installed.server),
        )
    }

    /// What it trusts for a type.
    pub fn trusts(&self, t: AuthorityType) -> BTreeSet<SpkiPin> {
        self.disk.installed.trusted.get(&t).cloned().unwrap_or_default()
    }
}

impl World {
    /// A node that is about to join, with a token of its own.
    pub fn new_agent(&mut self, at: i64) -> usize {
        let i = self.agents.len();
        let hostname: Hostname = format!("node{i}.sim.cluster").parse().expect("it is a DNS name");
        // Some nodes only dial out.
        let host = Uses {
            server: !self.rng.chance(150),
            ..Uses::ALL
        };
        let mut uses: BTreeMap<_, _> = [(AuthorityType::Host, host)].into();
        if self.knobs.user_verifiers {
            uses.insert(AuthorityType::User, Uses::VERIFIER);
        }
        let sshd = (self.knobs.sshds && host.server).then_some(Sshd {
            key: Some(SpkiPin([0x80 | i as u8; 32])),
            is_anothers: false,
            received: None,
            asked: None,
        });
        let agent = Agent {
            sshd,
            hostname,
            uses,
            token: None,
            disk: Disk::default(),
            up: false,
            online: true,
            online_since: at,
            heard: 0,
            boot: BootId(self.rng.uuid()),
            seq: 0,
            started: at,
            serving: false,
            synced: false,
            unsynced: false,
            proof: Proof::Due,
            failures: 0,
            proving: false,
            backoff_until: 0,
            ask_after: 0,
            reported: None,
            reporting: None,
            failure_reported: false,
            draining: None,
            sent: BTreeMap::new(),
            refused: BTreeSet::new(),
            door: Door::Open,
            gateway: self.rng.below(self.gateways.len()),
            stranded: None,
            tampered: false,
            set_back: false,
            rejoined_with: None,
            reports_failure: false,
            broken_until: 0,
            gone: false,
            renew_permille: self.rng.span(450, 550) as u16,
        };
        self.agents.push(agent);
        self.queue.at(at, Msg::Up(Actor::Agent(i)));
        i
    }

    pub fn agent_starts(&mut self, i: usize) {
        let (boot, now) = (BootId(self.rng.uuid()), self.now);
        let a = &mut self.agents[i];
        if a.up || a.gone {
            return;
        }
        (a.up, a.boot, a.seq, a.started, a.online_since) = (true, boot, 0, now, now);
        (a.serving, a.synced, a.unsynced, a.proof) = (false, false, false, Proof::Due);
        (a.failures, a.proving, a.backoff_until, a.failure_reported) = (0, false, 0, false);
        (a.reported, a.reporting, a.draining, a.door) = (None, None, None, Door::Open);
        if let Some(sshd) = &mut a.sshd {
            (sshd.received, sshd.asked) = (None, None);
        }
        a.sent.clear();
        a.refused.clear();
        self.tell(|| format!("agent {i} starts"));
        self.agent_steps(i);
        self.queue.at(now + 10, Msg::Tick(Actor::Agent(i)));
    }

    /// It stops, or dies: its sessions end with it.
    pub fn agent_stops(&mut self, i: usize) {
        let a = &mut self.agents[i];
        (a.up, a.serving) = (false, false);
        self.sessions.retain(|s| s.client != i && s.server != i);
        self.tell(|| format!("agent {i} stops"));
    }

    fn agent_crashes(&mut self, i: usize) -> bool {
        if !self.faults_on || !self.rng.chance(self.knobs.agent_crash_permille) {
            return false;
        }
        self.agent_stops(i);
        let back = self.now + self.rng.span(SECOND, 40 * SECOND);
        self.queue.at(back, Msg::Up(Actor::Agent(i)));
        true
    }

    /// What the plan is made from.
    pub fn have(&self, i: usize) -> Have {
        let a = &self.agents[i];
        let mine = self.sessions.iter().filter(|s| s.client == i || s.server == i);
        let excluded = self.excluded_peers(i);
        let (mut on, mut required) = (BTreeSet::new(), BTreeSet::new());
        for session in mine {
            let peer = if session.client == i {
                session.server
            } else {
                session.client
            };
            let issuers = [session.client_issuer, session.server_issuer];
            on.extend(issuers);
            if !self.agents[peer].disk.node.is_some_and(|n| excluded.contains(&n)) {
                required.extend(issuers);
            }
        }
        Have {
            now: Timestamp(self.now),
            installed: a.disk.installed.clone(),
            proof: a.proof,
            last_passed: a.disk.last_passed.clone(),
            received: a.disk.received.clone(),
            in_flight: a.disk.in_flight.clone(),
            sshd: a.sshd.clone(),
            serving: a.serving,
            synced: a.synced,
            since_start_ms: (self.now - a.started) as u64,
            only_excluded_on: on.difference(&required).copied().collect(),
            sessions_on: on,
            draining: a.draining,
            reported: a.reported.clone(),
            renew_permille: a.renew_permille,
        }
    }

    fn excluded_peers(&self, i: usize) -> BTreeSet<NodeId> {
        let want = self.agents[i].disk.want.as_ref();
        let row = want.and_then(|w| w.authorities.get(&AuthorityType::Host));
        row.map(|row| row.excluded_peers.clone()).unwrap_or_default()
    }

    /// Takes the steps of the plan until none is left that can be taken now.
    pub fn agent_steps(&mut self, i: usize) {
        for _ in 0..24 {
            let a = &self.agents[i];
            let Some(want) = a.disk.want.clone().filter(|_| a.up && a.stranded.is_none()) else {
                return;
            };
            let have = self.have(i);
            let mut changed = false;
            for step in reconcile(&have, &want) {
                changed |= self.take_step(i, step);
                if !self.agents[i].up || self.violation.is_some() {
                    return;
                }
            }
            if !changed {
                self.notice_synced(i);
                return;
            }
        }
    }

    /// Takes one step; true if the plan may be another one now.
    fn take_step(&mut self, i: usize, step: Step) -> bool {
        match step {
            Step::Report => {
                self.report(i, None);
                false
            }
            Step::Restore => {
                let a = &mut self.agents[i];
                if let Some(passed) = a.disk.last_passed.clone() {
                    // The certificates of what failed may have been presented: their keys are what proves us now.
                    let failed = std::mem::replace(&mut a.disk.installed, passed);
                    let newer = failed.client.filter(|l| {
                        a.disk
                            .installed
                            .client
                            .as_ref()
                            .is_none_or(|i| l.position > i.position)
                    });
                    a.disk.received.extend(newer);
                    a.proof = Proof::Due;
                }
                self.tell(|| format!("agent {i} restores"));
                self.check_connections();
                true
            }
            Step::Install(next) => self.install(i, next),
            Step::Prove => {
                self.prove(i);
                false
            }
            Step::Discard { spki } => {
                self.tell(|| format!("agent {i} discards {}", spki.short()));
                let disk = &mut self.agents[i].disk;
                disk.received.retain(|leaf| leaf.spki != spki);
                disk.keys.remove(&spki);
                true
            }
            Step::Request { usage, issuer } => self.make_request(i, usage, issuer),
            Step::CertifySshd { issuer } => self.certify_sshd(i, issuer),
            Step::Serve => {
                let a = &mut self.agents[i];
                a.serving = true;
                a.unsynced = !a.synced;
                self.tell(|| format!("agent {i} serves"));
                self.check_connections();
                true
            }
            Step::Drain { issuer } => {
                let a = &mut self.agents[i];
                a.draining = Some(issuer);
                let (boot, at) = (a.boot, self.now + self.knobs.drain_timeout_ms as i64);
                self.queue.at(
                    at,
                    Msg::DrainOver {
                        agent: i,
                        boot,
                        issuer,
                    },
                );
                true
            }
            Step::Close { issuer } => {
                self.close_sessions(i, issuer);
                true
            }
        }
    }

    /// Installs a generation: one atomic change of the disk, with a crash before it or after it.
    fn install(&mut self, i: usize, next: Generation) -> bool {
        if self.now < self.agents[i].backoff_until || self.agent_crashes(i) {
            return false;
        }
        self.tell(|| format!("agent {i} installs {}", words(&next)));
        let a = &mut self.agents[i];
        let in_place: BTreeSet<SpkiPin> = next.client.iter().chain(&next.server).map(|l| l.spki).collect();
        a.disk.received.retain(|leaf| !in_place.contains(&leaf.spki));
        if a.rejoined_with.is_some() && next.client.as_ref().map(|leaf| leaf.spki) == a.rejoined_with {
            (a.set_back, a.rejoined_with) = (false, None);
        }
        a.disk.installed = next;
        a.proof = Proof::Due;
        self.prune_keys(i);
        self.check_connections();
        !self.agent_crashes(i)
    }

    /// Deletes the keys that are needed no more.
    fn prune_keys(&mut self, i: usize) {
        let keep = keys_to_keep(&self.have(i));
        let disk = &mut self.agents[i].disk;
        let asking = disk.asking.map(|asked| asked.spki);
        disk.keys.retain(|key| keep.contains(key) || Some(*key) == asking);
        disk.digests.retain(|key, _| disk.keys.contains(key));
        let keys = &disk.keys;
        disk.received.retain(|leaf| keys.contains(&leaf.spki));
    }

    fn prove(&mut self, i: usize) {
        let a = &mut self.agents[i];
        if std::mem::replace(&mut a.proving, true) {
            return;
        }
        let (boot, generation) = (a.boot, Box::new(a.disk.installed.clone()));
        let at = self.now + self.rng.span(50, 3 * SECOND);
        self.queue.at(
            at,
            Msg::Proved {
                agent: i,
                boot,
                generation,
            },
        );
    }

    /// The proof ended: hooks ran, and a handshake showed what is served and trusted, or did not.
    pub fn agent_proved(&mut self, i: usize, boot: BootId, generation: &Generation) {
        let a = &mut self.agents[i];
        if !a.up || a.boot != boot {
            return;
        }
        a.proving = false;
        if a.disk.installed == *generation {
            let is_back = a.disk.last_passed.as_ref() == Some(generation);
            let fails = self.faults_on
                && !is_back
                && (self.now < a.broken_until || self.rng.chance(self.knobs.proof_fails_permille));
            if fails {
                a.failures += 1;
                a.proof = Proof::Failed { count: a.failures };
                a.backoff_until = self.now + (SECOND << a.failures.min(6));
                a.failure_reported = false;
            } else {
                a.proof = Proof::Passed;
                a.disk.last_passed = Some(a.disk.installed.clone());
                if !is_back {
                    a.failures = 0;
                }
            }
            self.tell(|| format!("agent {i} proof {}", if fails { "failed" } else { "passed" }));
            self.prune_keys(i);
            let a = &self.agents[i];
            if a.failures > 0 && !a.failure_reported {
                let failures = a.failures;
                self.report(i, Some(failures));
            }
        }
        self.agent_steps(i);
    }

    fn make_request(&mut self, i: usize, usage: LeafUse, issuer: SpkiPin) -> bool {
        if self.now < self.agents[i].ask_after {
            return false;
        }
        let spki = self.rng.key();
        let disk = &mut self.agents[i].disk;
        disk.keys.insert(spki);
        disk.in_flight.push(InFlight { usage, issuer, spki });
        self.tell(|| format!("agent {i} asks for {usage:?} of {}", issuer.short()));
        if self.agent_crashes(i) {
            return false;
        }
        // A request that is not kept is not there when its answer comes.
        self.prune_keys(i);
        self.send_requests(i);
        true
    }
}

fn words(generation: &Generation) -> String {
    let issuer = |leaf: &Option<Leaf>| {
        leaf.as_ref()
            .map_or("-".into(), |l| format!("{}@{}", l.issuer.short(), l.position))
    };
    let trusted = generation.trusted.get(&AuthorityType::Host);
    let pins: Vec<_> = trusted.into_iter().flatten().map(SpkiPin::short).collect();
    format!(
        "{:?} client {} server {} sshd {} trusts {pins:?}",
        generation.revisions,
        issuer(&generation.client),
        issuer(&generation.server),
        issuer(&generation.ssh)
    )
}
