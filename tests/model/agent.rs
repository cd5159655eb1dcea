//! The nodes of the model: what is on disk, what a crash forgets, and the plan's steps, one at a time.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    Answer, AuthorizationId, BootId, CertDigest, Hostname, NodeId, Order, Principal, SpkiPin,
    command::KeyRequest,
    desired::{DesiredState, answers_join, desired, may_hand_out},
    event::LeafUse,
    fact::{FactReport, Seen},
    identity::{Presented, identify},
    reconcile::{
        Generation, Have, InFlight, Leaf, Proof, Step, accepts_revision, desired_of_bundle, facts,
        keys_to_keep, presentable, reconcile,
    },
    refusal::Code,
    state::AuthorizationOutcome,
    trust::Bundle,
};

use crate::{
    gateway::leaf_of,
    world::{HOST, World, uuid},
};

/// What survives a crash, and what a backup holds.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Disk {
    pub node: Option<NodeId>,
    pub installed: Generation,
    pub last_passed: Option<Generation>,
    pub want: Option<DesiredState>,
    pub received: Vec<Leaf>,
    pub in_flight: Vec<InFlight>,
    /// Private keys.
    pub keys: BTreeSet<SpkiPin>,
    /// The key of a recovery under way.
    pub asking: Option<SpkiPin>,
}

/// How an agent stands with the gateway.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Door {
    Open,
    /// Turned away: the trust may be old.
    NeedsBundle,
    /// The bundle was installed; the certificate is tried once more.
    Retried,
    /// Turned away again: only a recovery helps.
    NeedsRecovery,
}

/// A report on its way: carried out whenever it arrives, also after the node has died.
#[derive(Clone, PartialEq, Debug)]
pub struct Sent {
    pub report: FactReport,
    pub seen: Seen,
    says: Generation,
}

/// A node.
#[derive(Clone, PartialEq, Debug)]
pub struct Agent {
    pub hostname: Hostname,
    pub disk: Disk,
    /// A copy of the disk, as it once was.
    pub backup: Option<Disk>,
    pub up: bool,
    pub serving: bool,
    pub synced: bool,
    pub proof: Proof,
    pub reported: Option<(Generation, bool)>,
    pub reporting: Option<Sent>,
    pub refused: BTreeSet<SpkiPin>,
    pub door: Door,
    pub boot: u64,
    pub seq: u64,
    /// A certificate is due for renewal.
    pub renews: bool,
    /// The next proof fails.
    pub fails: bool,
    /// Its disk was set back: what becomes of it until it is joined anew is nobody's promise.
    pub set_back: bool,
    /// It has no way back but a new token.
    pub stranded: bool,
    /// Nobody counts on it: passed over, excluded, or set back, and not back since.
    pub is_out: bool,
    /// It has not been settled yet.
    pub is_new: bool,
}

impl Agent {
    pub fn new(i: usize) -> Self {
        Self {
            hostname: format!("node{i}.model.cluster")
                .parse()
                .expect("it is a DNS name"),
            disk: Disk::default(),
            backup: None,
            up: true,
            serving: false,
            synced: false,
            proof: Proof::Due,
            reported: None,
            reporting: None,
            refused: BTreeSet::new(),
            door: Door::Open,
            boot: 0,
            seq: 0,
            renews: false,
            fails: false,
            set_back: false,
            stranded: false,
            is_out: false,
            is_new: true,
        }
    }

    /// What it trusts.
    pub fn trusts(&self) -> BTreeSet<SpkiPin> {
        self.disk
            .installed
            .trusted
            .get(&HOST)
            .cloned()
            .unwrap_or_default()
    }

    pub fn node(&self) -> NodeId {
        self.disk.node.expect("every node of the model has joined")
    }

    pub fn principal(&self) -> Principal {
        Principal::Node(self.node())
    }
}

/// A certificate's digest: the model makes one of each key.
fn digest(spki: SpkiPin) -> CertDigest {
    CertDigest(spki.0)
}

impl World {
    /// What the plan is made from.
    pub fn have(&self, i: usize) -> Have {
        let a = &self.agents[i];
        Have {
            now: self.now,
            installed: a.disk.installed.clone(),
            proof: a.proof,
            last_passed: a.disk.last_passed.clone(),
            received: a.disk.received.clone(),
            in_flight: a.disk.in_flight.clone(),
            serving: a.serving,
            synced: a.synced,
            since_start_ms: 0,
            sessions_on: BTreeSet::new(),
            only_excluded_on: BTreeSet::new(),
            draining: None,
            reported: a.reported.clone(),
            renew_permille: if a.renews { 0 } else { 500 },
        }
    }

    /// The answer to a join: the row of that moment, and the certificate.
    pub fn agent_joined(&mut self, i: usize, node: NodeId, authorization: AuthorizationId) {
        let Some(AuthorizationOutcome::Issued(digest)) = self.log.settled_authorizations.get(&authorization)
        else {
            return;
        };
        let Some(leaf) = self.log.certificates.get(digest).map(leaf_of) else {
            return;
        };
        let Some(desired) = answers_join(&self.log, &node, self.log.nodes[&node].joined) else {
            return;
        };
        let a = &mut self.agents[i];
        a.disk = Disk {
            node: Some(node),
            ..Disk::default()
        };
        a.disk.keys.insert(leaf.spki);
        a.disk.received.push(leaf);
        self.take_desired(i, desired);
    }

    /// The step that this node would take now.
    pub fn next_step(&self, i: usize) -> Option<Step> {
        let a = &self.agents[i];
        let want = a.disk.want.as_ref().filter(|_| a.up && !a.stranded)?;
        let steps = reconcile(&self.have(i), want);
        steps.into_iter().find(|step| match step {
            // One report at a time, and only where a gateway takes it.
            Step::Report => a.reporting.is_none() && self.is_let_in(i),
            _ => true,
        })
    }

    /// Takes it; a crash before or after is an action of its own.
    pub fn take_step(&mut self, i: usize, step: Step) {
        match step {
            Step::Report => self.report(i),
            Step::Restore => {
                let a = &mut self.agents[i];
                if let Some(passed) = a.disk.last_passed.clone() {
                    let failed = std::mem::replace(&mut a.disk.installed, passed);
                    let installed = a.disk.installed.client.as_ref().map(|l| l.position);
                    let newer = failed.client.filter(|l| Some(l.position) > installed);
                    a.disk.received.extend(newer);
                    a.proof = Proof::Due;
                }
            }
            Step::Install(next) => {
                let a = &mut self.agents[i];
                let used: BTreeSet<SpkiPin> =
                    next.client.iter().chain(&next.server).map(|l| l.spki).collect();
                a.disk.received.retain(|leaf| !used.contains(&leaf.spki));
                a.disk.installed = next;
                a.proof = Proof::Due;
                self.prune_keys(i);
            }
            Step::Prove => {
                let a = &mut self.agents[i];
                let is_back = a.disk.last_passed.as_ref() == Some(&a.disk.installed);
                if a.fails && !is_back {
                    (a.fails, a.proof) = (false, Proof::Failed { count: 1 });
                } else {
                    a.proof = Proof::Passed;
                    a.disk.last_passed = Some(a.disk.installed.clone());
                }
                self.prune_keys(i);
            }
            Step::Discard { spki } => {
                let disk = &mut self.agents[i].disk;
                disk.received.retain(|leaf| leaf.spki != spki);
                disk.keys.remove(&spki);
            }
            Step::Request { usage, issuer } => {
                let spki = self.key_of_node(i).spki;
                let a = &mut self.agents[i];
                a.renews = false;
                a.disk.keys.insert(spki);
                a.disk.in_flight.push(InFlight { usage, issuer, spki });
                self.prune_keys(i);
            }
            Step::Serve => self.agents[i].serving = true,
            // No session of this model lasts.
            Step::Drain { .. } | Step::Close { .. } => {}
        }
    }

    /// A key that this node has not made before: those on its disk count too, and are not in the log yet.
    fn key_of_node(&self, i: usize) -> KeyRequest {
        let holder = self.agents[i].principal();
        let n = self.asked.get(&holder).copied().unwrap_or_default();
        let fresh = (n..).map(|n| crate::world::pin(&format!("key of {holder}"), n));
        let spki = fresh
            .into_iter()
            .find(|spki| !self.agents[i].disk.keys.contains(spki) && !self.log.keys.contains_key(spki))
            .expect("there is no end of keys");
        KeyRequest {
            spki,
            public_key: String::new(),
        }
    }

    fn prune_keys(&mut self, i: usize) {
        let keep = keys_to_keep(&self.have(i));
        let disk = &mut self.agents[i].disk;
        let asking = disk.asking;
        disk.keys.retain(|key| keep.contains(key) || Some(*key) == asking);
        let keys = &disk.keys;
        disk.received.retain(|leaf| keys.contains(&leaf.spki));
    }

    /// What the agent presents, if it has something to present.
    fn hello(&self, i: usize) -> Option<Leaf> {
        presentable(&self.have(i), &self.agents[i].refused).cloned()
    }

    fn is_let_in(&self, i: usize) -> bool {
        let trusted = self.agents[i].trusts();
        let hello = self.hello(i);
        self.gateway.serving && hello.is_some_and(|leaf| self.gateway.accepts(&leaf, &trusted, self.now))
    }

    /// May it talk to the gateway?
    pub fn may_call(&self, i: usize) -> bool {
        let a = &self.agents[i];
        a.up && !a.stranded && self.gateway.serving
    }

    /// One exchange with the gateway: for the news, for the bundle, or for a way back.
    pub fn call(&mut self, i: usize) {
        let door = self.agents[i].door;
        match (door, self.hello(i)) {
            (Door::NeedsBundle, _) => {
                self.take_bundle(i);
                self.agents[i].door = Door::Retried;
            }
            (Door::Open | Door::Retried, Some(leaf)) => self.ask(i, &leaf),
            (Door::NeedsRecovery, _) | (_, None) => {
                self.take_bundle(i);
                self.ask_to_recover(i);
            }
        }
    }

    fn ask(&mut self, i: usize, leaf: &Leaf) {
        let trusted = self.agents[i].trusts();
        let is_open = self.gateway.accepts(leaf, &trusted, self.now);
        let uri = domain::identity::uri(
            &"model.cluster".parse().expect("it is a DNS name"),
            &self.agents[i].principal(),
        );
        let presented = Presented {
            authority_type: HOST,
            uri: &uri,
            digest: digest(leaf.spki),
        };
        let who = identify(&self.log, &presented, self.now);
        match who {
            Ok(holder) if is_open => {
                self.present(holder, leaf);
                self.agents[i].door = Door::Open;
                self.hand_out(i);
            }
            Err(no) if is_open && no.code == Code::CertificateSuperseded => self.strand(i),
            _ => {
                let a = &mut self.agents[i];
                a.door = match a.door {
                    Door::Open | Door::NeedsBundle => Door::NeedsBundle,
                    Door::Retried | Door::NeedsRecovery => {
                        a.refused.insert(leaf.spki);
                        Door::NeedsRecovery
                    }
                };
            }
        }
    }

    /// The first use of a certificate is on record.
    fn present(&mut self, holder: Principal, leaf: &Leaf) {
        let certificate = digest(leaf.spki);
        let is_first = self
            .log
            .certificates
            .get(&certificate)
            .is_some_and(|c| c.presented.is_none());
        if is_first {
            let order = Order::PresentCredential {
                holder: holder.clone(),
                certificate,
            };
            let _ = self.order(Principal::Gateway(self.gateway.id), order);
        }
    }

    /// The newest desired state, if the gateway satisfies the rows itself, and the certificates that are ready.
    fn hand_out(&mut self, i: usize) {
        let node = self.agents[i].node();
        let Some(desired) = desired(&self.log, &node).filter(|_| may_hand_out(&self.log, &self.gateway.held))
        else {
            return;
        };
        self.take_desired(i, desired);
        let held = self.log.held.get(&Principal::Node(node)).into_iter().flatten();
        let leaves: Vec<Leaf> = held
            .filter_map(|d| self.log.certificates.get(d))
            .filter(|c| !c.revoked)
            .map(leaf_of)
            .collect();
        for leaf in leaves {
            let disk = &mut self.agents[i].disk;
            let used = |g: &Generation| g.client.iter().chain(&g.server).any(|l| l.spki == leaf.spki);
            let is_used = used(&disk.installed) || disk.last_passed.as_ref().is_some_and(used);
            let is_here = disk.received.iter().any(|l| l.spki == leaf.spki);
            disk.in_flight.retain(|sent| sent.spki != leaf.spki);
            disk.asking = disk.asking.filter(|asking| *asking != leaf.spki);
            if disk.keys.contains(&leaf.spki) && !is_used && !is_here {
                disk.received.push(leaf);
            }
        }
        // What was refused for good is asked for anew by the plan.
        let waits = |sent: &InFlight, world: &Self| {
            let is_pending = world.log.pending.values().any(|p| p.granted.spki == sent.spki);
            is_pending || !world.log.keys.contains_key(&sent.spki)
        };
        let in_flight = std::mem::take(&mut self.agents[i].disk.in_flight);
        self.agents[i].disk.in_flight = in_flight.into_iter().filter(|sent| waits(sent, self)).collect();
        self.prune_keys(i);
    }

    fn take_desired(&mut self, i: usize, desired: DesiredState) {
        let a = &mut self.agents[i];
        let known = a.disk.installed.revisions.get(&HOST).copied();
        let want = a.disk.want.get_or_insert_with(|| DesiredState {
            authorities: BTreeMap::new(),
            ..desired.clone()
        });
        if let Some(row) = desired.authorities.get(&HOST) {
            let known = known.max(want.authorities.get(&HOST).map(|row| row.revision));
            if accepts_revision(known, row.revision) {
                a.synced = true;
                want.authorities.insert(HOST, row.clone());
            }
        }
    }

    /// The signed bundle: it may be installed on nobody's word but the bundle key's.
    fn take_bundle(&mut self, i: usize) {
        let Some(bundle) = self.bundles.get(&HOST).cloned() else {
            return;
        };
        self.install_bundle(i, &bundle);
    }

    fn install_bundle(&mut self, i: usize, bundle: &Bundle) {
        let a = &mut self.agents[i];
        let Some(want) = a.disk.want.as_mut() else { return };
        let before = want.authorities.get(&HOST);
        let known = a.disk.installed.revisions.get(&HOST).copied();
        let known = known.max(before.map(|row| row.revision));
        if accepts_revision(known, bundle.revision) {
            let row = desired_of_bundle(bundle, domain::access::Uses::ALL, before);
            want.authorities.insert(HOST, row);
        }
    }

    /// The newest certificate whose key is here proves who this is.
    fn proof(&self, i: usize) -> Option<SpkiPin> {
        let disk = &self.agents[i].disk;
        let generations = disk.last_passed.iter().chain([&disk.installed]);
        let leaves = generations.flat_map(|g| g.client.iter().chain(&g.server));
        leaves
            .chain(&disk.received)
            .filter(|l| disk.keys.contains(&l.spki) && l.usage.client())
            .max_by_key(|l| l.position)
            .map(|l| l.spki)
    }

    fn ask_to_recover(&mut self, i: usize) {
        let Some(proof) = self.proof(i) else {
            return self.strand(i);
        };
        let (node, key) = (self.agents[i].node(), self.key_of_node(i));
        let spki = key.spki;
        // Handed out together with the bundle of this moment, so that the row must be signed.
        if self.owes_bundle() {
            return;
        }
        let order = Order::Recover {
            node,
            proven_by: digest(proof),
            key,
        };
        match self.order(Principal::Anonymous, order) {
            Ok(Answer::Joined { authorization, .. }) => {
                self.sign(authorization);
                let Some(leaf) = self.log.certificates.get(&digest(spki)).map(leaf_of) else {
                    return;
                };
                let a = &mut self.agents[i];
                a.disk.keys.insert(spki);
                a.disk.received.push(leaf);
                (a.door, a.synced) = (Door::Open, true);
                if self.owes_bundle() {
                    self.sign_bundle(HOST);
                }
                self.take_bundle(i);
            }
            Err(no) if no.code == Code::CertificateSuperseded => self.strand(i),
            Ok(_) | Err(_) => {}
        }
    }

    /// From here on only a new token helps.
    fn strand(&mut self, i: usize) {
        let a = &mut self.agents[i];
        (a.stranded, a.serving) = (true, false);
        if !a.set_back {
            self.say_wrong(|| format!("node {i} is lost until somebody joins it anew"));
        }
    }

    fn report(&mut self, i: usize) {
        let Some(leaf) = self.hello(i) else { return };
        let a = &mut self.agents[i];
        a.seq += 1;
        let report = FactReport {
            boot: BootId(uuid(&format!("boot of {}", a.hostname), a.boot)),
            seq: a.seq,
            version: String::new(),
            addr: None,
            authorities: facts(&a.disk.installed, false, false),
            failure: None,
            unsynced: false,
            labels: BTreeMap::new(),
        };
        let seen = Seen {
            certificate: digest(leaf.spki),
            issuer: leaf.issuer,
            from: None,
        };
        let says = a.disk.installed.clone();
        a.reporting = Some(Sent { report, seen, says });
    }

    /// The report arrives, whatever has become of the node since.
    pub fn report_arrives(&mut self, i: usize) {
        let Some(sent) = self.agents[i].reporting.take() else {
            return;
        };
        let node = self.agents[i].node();
        let is_known = identify(
            &self.log,
            &Presented {
                authority_type: HOST,
                uri: &domain::identity::uri(
                    &"model.cluster".parse().expect("it is a DNS name"),
                    &Principal::Node(node),
                ),
                digest: sent.seen.certificate,
            },
            self.now,
        );
        if is_known.is_err() {
            return;
        }
        let leaf = Leaf {
            usage: LeafUse::Both,
            issuer: sent.seen.issuer,
            spki: SpkiPin(sent.seen.certificate.0),
            position: domain::Position(0),
            not_before: self.now,
            not_after: self.now,
        };
        self.present(Principal::Node(node), &leaf);
        let boot = sent.report.boot;
        let order = Order::Report {
            node,
            report: sent.report,
            seen: sent.seen,
        };
        let mut said = self.order(Principal::Node(node), order.clone());
        if said.as_ref().is_err_and(|no| no.code == Code::ReportTooOften) {
            // What a node repeats it repeats five seconds later.
            self.now = self.now.plus_ms(6_000);
            said = self.order(Principal::Node(node), order);
        }
        let is_taken = said.is_ok();
        let a = &mut self.agents[i];
        let is_same_start = boot == BootId(uuid(&format!("boot of {}", a.hostname), a.boot));
        if is_taken && a.up && is_same_start {
            a.reported = Some((sent.says, false));
        }
    }

    /// The request that would be sent now.
    pub fn request_to_send(&self, i: usize) -> Option<InFlight> {
        let a = &self.agents[i];
        let is_open = self.may_call(i) && matches!(a.door, Door::Open | Door::Retried);
        let unsent = a
            .disk
            .in_flight
            .iter()
            .find(|sent| !self.log.keys.contains_key(&sent.spki));
        unsent.filter(|_| is_open && self.is_let_in(i)).copied()
    }

    pub fn send_request(&mut self, i: usize, sent: &InFlight) {
        let order = Order::RequestCertificate {
            authority_type: HOST,
            usage: sent.usage,
            issuer: Some(sent.issuer),
            key: KeyRequest {
                spki: sent.spki,
                public_key: String::new(),
            },
        };
        let by = self.agents[i].principal();
        if self.order(by, order).is_err() {
            // It is told so, and asks anew for what the row names by then.
            let disk = &mut self.agents[i].disk;
            disk.in_flight.retain(|other| other.spki != sent.spki);
            disk.keys.remove(&sent.spki);
        }
    }

    /// It goes to sleep, or dies: what was on its way may still arrive.
    pub fn agent_sleeps(&mut self, i: usize) {
        let a = &mut self.agents[i];
        (a.up, a.serving) = (false, false);
    }

    pub fn agent_wakes(&mut self, i: usize) {
        let a = &mut self.agents[i];
        (a.up, a.serving, a.synced, a.proof) = (true, false, false, Proof::Due);
        (a.reported, a.reporting, a.door) = (None, None, Door::Open);
        a.refused.clear();
        (a.boot, a.seq) = (a.boot + 1, 0);
    }

    /// Its disk is put back to what it was.
    pub fn agent_is_set_back(&mut self, i: usize) {
        let a = &mut self.agents[i];
        if let Some(disk) = a.backup.take() {
            a.disk = disk;
            (a.set_back, a.is_out) = (true, true);
        }
    }
}
