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

mod calls;

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
    pub says: Generation,
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
            sshd: None,
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
            Step::CertifySshd { .. } => unreachable!("no node of the model has an sshd"),
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
