//! What must hold after every event, seen from outside: from the disks and the doors of the virtual cluster and
//! from a bookkeeping of its own, never from the product's own opinion.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    AuthorityType, AuthorizationId, CertDigest, Command, CommandId, ConsumerName, Event, Fact, NodeId, Order,
    Phase, Position, Principal, Refusal, RotationId, SpkiPin, Timestamp,
    authority::KeyKind,
    command::{Answered, LaggingPolicy},
    event::{CertificateIssued, NodeReported},
    gate,
    phase::Transition,
    refusal::Code,
    state::EndedRotation,
    trust::{Side, interoperate},
};

use crate::world::World;

mod asked;
mod issued;
mod phases;
mod replay;

pub const CONNECTIVITY: &str = "invariant_no_pair_of_reached_nodes_loses_connectivity";
pub const AUTHORISED: &str = "invariant_nothing_issued_without_authorisation";
pub const REPLAY: &str = "invariant_replay_equals_live_state";
pub const GATE: &str = "invariant_gate_was_open_or_overridden";
pub const ROLLBACK: &str = "invariant_rollback_restores_everyone";
pub const ACKNOWLEDGED: &str = "invariant_no_acknowledged_command_is_lost";
pub const OLD_AUTHORITY: &str = "invariant_nobody_accepts_the_old_authority_after_settled";
pub const AGAIN: &str = "invariant_what_was_decided_follows_from_the_log_alone";
/// Not after an event, but at the end of a run.
pub const COMPLETES: &str = "the_rotation_completes_once_everything_is_mended";

/// Every invariant: each of them is seen to fail.
pub const ALL: [&str; 9] = [
    CONNECTIVITY,
    AUTHORISED,
    REPLAY,
    GATE,
    ROLLBACK,
    ACKNOWLEDGED,
    OLD_AUTHORITY,
    AGAIN,
    COMPLETES,
];

/// An invariant that does not hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub detail: String,
    pub position: u64,
}

/// Since when a consumer is registered, and for what it attested last.
type Attested = (Position, Option<(RotationId, Phase)>);

/// The bookkeeping of the invariants.
#[derive(Default)]
pub struct Watch {
    /// Agents that have reached a phase in which every other one counts on them, and were not left behind since.
    fleet: BTreeSet<usize>,
    phases: BTreeMap<AuthorityType, Phase>,
    rotations: BTreeMap<AuthorityType, RotationId>,
    stepped: BTreeMap<AuthorityType, Timestamp>,
    policies: BTreeMap<AuthorityType, LaggingPolicy>,
    /// When each step was taken by a clock that is never wrong.
    stepped_at: BTreeMap<AuthorityType, i64>,
    /// An operator has said that a clock is right: from there on steps may come early by that.
    clock_accepted: bool,
    /// External consumers: since when they are registered, and what they attested last.
    consumers: BTreeMap<(AuthorityType, ConsumerName), Attested>,
    /// Whoever had the operator's role at some time.
    operators: BTreeSet<Principal>,
    /// Rotations whose key came in time.
    keyed: BTreeSet<(AuthorityType, KeyKind, RotationId)>,
    prepared: BTreeSet<(AuthorityType, SpkiPin)>,
    nodes: BTreeSet<NodeId>,
    authorizations: issued::Authorizations,
    excluded: BTreeMap<(NodeId, AuthorityType), RotationId>,
    included: BTreeMap<(NodeId, AuthorityType), Position>,
    /// Nodes to which a prepared authority's certificate was authorised, per rotation.
    touched: BTreeSet<(NodeId, RotationId)>,
    /// Commands by the append that carried them out.
    commands: BTreeMap<(Principal, CommandId), u64>,
    /// Authorities that nobody may accept any more.
    dead: BTreeMap<AuthorityType, BTreeSet<SpkiPin>>,
}

impl Watch {
    /// What the agent does from here on is nobody's promise.
    pub fn leaves_fleet(&mut self, agent: usize) {
        self.fleet.remove(&agent);
    }

    /// Is the node excluded from the rotation in progress?
    fn is_excluded(&self, node: NodeId, t: AuthorityType) -> bool {
        self.excluded
            .get(&(node, t))
            .is_some_and(|rotation| self.rotations.get(&t) == Some(rotation))
    }

    /// Before an event is folded: what it claims is held against the world as it is.
    pub fn before(&mut self, world: &mut World, event: &Event) {
        match &event.fact {
            Fact::RotationPhaseEntered(f) => self.check_phase(world, event, f),
            Fact::CertificateIssued(f) => {
                if let Some(why) = self.authorizations.is_wrong(f) {
                    world.violate(AUTHORISED, format!("{} for {}: {why}", f.authorization, f.holder));
                }
            }
            _ => {}
        }
    }

    /// After an event was folded.
    pub fn after(&mut self, world: &mut World, event: &Event) {
        if let Fact::AccessUserRemoved(f) = &event.fact {
            world.operators.lose_access(&f.user);
        }
        let position = event.header.position;
        self.carried_out(world, event);
        self.follow_people(world, event);
        self.authorizations.follow(&event.fact, &self.nodes);
        match &event.fact {
            Fact::RotationPhaseEntered(f) => self.phase_entered(world, event, f),
            Fact::RotationSettled(f) => {
                let retired = world.truth.types[&f.authority_type]
                    .retired
                    .iter()
                    .map(|r| r.key.id);
                self.dead.entry(f.authority_type).or_default().extend(retired);
            }
            Fact::AuthorityKeyGenerated(f) => self.key_generated(f),
            Fact::AuthorizationGranted(f) => {
                if let (Principal::Node(node), Some(rotation)) = (&f.holder, f.rotation)
                    && self.prepared.contains(&(f.authority_type, f.issuer))
                {
                    self.touched.insert((*node, rotation));
                }
            }
            Fact::CertificateIssued(f) => self.certificate_issued(world, f),
            Fact::NodeJoined(f) => _ = self.nodes.insert(f.node),
            Fact::NodeRejoined(f) => self.node_changes(world, f.node, true),
            Fact::NodeRemoved(f) => self.node_changes(world, f.node, false),
            Fact::NodeReported(f) => self.node_reported(world, f),
            Fact::NodeExcluded(f) => {
                self.excluded
                    .extend(f.rotations.iter().map(|(t, rotation)| ((f.node, *t), *rotation)));
                if f.rotations.contains_key(&AuthorityType::Host) {
                    self.node_changes(world, f.node, true);
                }
            }
            Fact::NodeIncluded(f) => {
                for t in f.rotations.keys() {
                    self.excluded.remove(&(f.node, *t));
                    self.included.insert((f.node, *t), position);
                }
            }
            _ => {}
        }
        if let Some(t) = domain::standing::miscounted(&world.truth) {
            world.violate(REPLAY, format!("the nodes of {t} are miscounted at {position}"));
        }
        self.compare_with_state(world, position);
        world.check_fleet(&self.fleet);
        self.check_old_authorities(world);
    }

    fn key_generated(&mut self, f: &domain::event::AuthorityKeyGenerated) {
        let (t, rotation) = (f.authority_type, f.key.rotation);
        let is_in_time = rotation.is_some() && self.rotations.get(&t) == rotation.as_ref();
        if let (true, Some(rotation)) = (
            is_in_time && self.phases.get(&t) != Some(&Phase::Rollback),
            rotation,
        ) && self.keyed.insert((t, f.key.kind, rotation))
        {
            self.prepared.insert((t, f.key.id));
        }
    }

    fn certificate_issued(&mut self, world: &mut World, f: &CertificateIssued) {
        // A second certificate of one authorisation may be in the log; it must not count.
        let waited = self.authorizations.counts(f);
        if world.truth.certificates.contains_key(&f.digest) && !waited {
            world.violate(
                AUTHORISED,
                format!(
                    "{} for {} counts, and waited for no signature",
                    f.authorization, f.holder
                ),
            );
        }
    }

    fn node_changes(&mut self, world: &World, node: NodeId, stays: bool) {
        if !stays {
            self.nodes.remove(&node);
        }
        if let Some(agent) = world.owner.get(&node) {
            self.fleet.remove(agent);
        }
    }

    /// A node that has reached by its facts is counted upon from here on.
    fn node_reported(&mut self, world: &mut World, f: &NodeReported) {
        let node = f.node;
        let Some(agent) = world.owner.get(&node).copied() else {
            return;
        };
        let has_reached = world
            .truth
            .nodes
            .get(&node)
            .is_some_and(|n| gate::missing(&world.truth, AuthorityType::Host, n).is_ok());
        if !has_reached || self.is_excluded(node, AuthorityType::Host) {
            return;
        }
        let is_copied = |other: &crate::node::Agent| other.disk.node == Some(node) && !other.gone;
        // Untouched nodes count as reached on the way back whatever they say; they are not counted upon anew.
        let is_fresh = self.phases.get(&AuthorityType::Host) != Some(&Phase::Rollback);
        let is_its_own = f.report.boot == world.agents[agent].boot;
        if is_fresh && is_its_own && world.agents.iter().filter(|a| is_copied(a)).count() == 1 {
            world.agents[agent].tampered = false;
        }
        if is_fresh && !world.agents[agent].tampered {
            self.fleet.insert(agent);
        }
    }

    /// The cheap comparison after every event; the whole one comes at the end of a run.
    fn compare_with_state(&self, world: &mut World, position: Position) {
        let truth = &world.truth;
        let phases_agree = self.phases.iter().all(|(t, phase)| {
            let of = truth.types.get(t);
            of.is_some_and(|of| of.phase == *phase && of.rotation_id() == self.rotations.get(t).copied())
        });
        let pending_agrees = truth.pending.len() == self.authorizations.waiting();
        if truth.position != position
            || !phases_agree
            || truth.nodes.len() != self.nodes.len()
            || !pending_agrees
        {
            let text = format!("at {position}: phases {phases_agree}, authorisations {pending_agrees}");
            world.violate(REPLAY, text);
        }
    }

    /// After a rotation is settled no node accepts what it retired, and until the next one only the active authority.
    fn check_old_authorities(&self, world: &mut World) {
        let mut found = None;
        for (t, of) in &world.truth.types {
            let settled = of.ended.as_ref().filter(|e| e.settled);
            let is_old = |trusts: &BTreeSet<SpkiPin>| {
                let accepts_dead = self.dead.get(t).is_some_and(|dead| !dead.is_disjoint(trusts));
                let active: BTreeSet<SpkiPin> =
                    of.active.get(&KeyKind::Tls).map(|k| k.id).into_iter().collect();
                accepts_dead || (settled.is_some() && of.rotation.is_none() && *trusts != active)
            };
            // The door too: a gateway is never cut off, and serves only while it holds the row.
            for (g, gateway) in world.gateways.iter().enumerate() {
                let own = gateway.facts.get(t).filter(|_| gateway.up && gateway.serving);
                if let Some(own) = own.filter(|own| is_old(&own.trusted)) {
                    found = Some(format!("{t}: gateway {g} trusts {:?}", own.trusted));
                }
            }
            for (i, a) in world.agents.iter().enumerate() {
                let counts = a.up && a.serving && !a.unsynced && !a.tampered && a.uses.contains_key(t);
                let Some(node) = a.disk.node.filter(|_| counts) else {
                    continue;
                };
                // Whoever was passed over and has not been back is named by status, and was never promised; once a
                // rotation is settled, that is only whoever was excluded from it.
                let is_promised = |e: &EndedRotation| {
                    let excluded = self.excluded.get(&(node, *t)) == Some(&e.id);
                    e.settled && of.rotation.is_none() && !excluded
                };
                let left_behind = of
                    .ended
                    .as_ref()
                    .filter(|e| e.cut_off.contains(&node) && !is_promised(e));
                if left_behind.is_some_and(|e| a.started < e.at.0) || !self.nodes.contains(&node) {
                    continue;
                }
                let trusts = a.trusts(*t);
                if is_old(&trusts) {
                    found = Some(format!("{t}: agent {i} trusts {trusts:?}"));
                }
            }
        }
        if let Some(text) = found {
            world.violate(OLD_AUTHORITY, text);
        }
    }
}

impl World {
    /// Do two nodes reach each other, the first as a client of the second? By the oracle, from what is in force.
    pub fn interoperate(&self, client: usize, server: usize) -> bool {
        let (c, s) = (&self.agents[client], &self.agents[server]);
        let side = |a: &crate::node::Agent| {
            let (client_issuer, server_issuer) = a.issuers();
            Side {
                trusted: a.trusts(AuthorityType::Host),
                client_issuer,
                server_issuer,
            }
        };
        c.up && s.up && c.serving && s.serving && interoperate(&side(c), &side(s))
    }

    /// Is the sshd of the second known to the first by its certificate? A node takes the SSH authorities of a generation
    /// together with the TLS one.
    fn knows_sshd(&self, client: usize, server: usize) -> bool {
        let Some(issuer) = self.agents[server].disk.installed.ssh.as_ref().map(|l| l.issuer) else {
            return true;
        };
        let of = &self.truth.types[&AuthorityType::Host];
        let retired = of.retired.iter().map(|r| &r.key);
        let keys = || {
            of.active
                .values()
                .chain(of.prepared.values())
                .chain(retired.clone())
        };
        let generation = keys().find(|k| k.id == issuer).map(|k| k.generation);
        let tls = keys().find(|k| k.kind == KeyKind::Tls && Some(k.generation) == generation);
        tls.is_some_and(|k| self.agents[client].trusts(AuthorityType::Host).contains(&k.id))
    }

    /// Called whenever something that is in force changed.
    pub fn check_connections(&mut self) {
        if self.violation.is_none() {
            let watch = std::mem::take(&mut self.watch);
            self.check_fleet(&watch.fleet);
            watch.check_old_authorities(self);
            self.watch = watch;
        }
    }

    fn check_fleet(&mut self, fleet: &BTreeSet<usize>) {
        let counts =
            |a: &crate::node::Agent| a.up && a.serving && !a.unsynced && !a.tampered && a.stranded.is_none();
        let present: Vec<usize> = fleet
            .iter()
            .copied()
            .filter(|i| counts(&self.agents[*i]))
            .collect();
        for client in &present {
            for server in &present {
                let serves = self.agents[*server].uses[&AuthorityType::Host].server;
                if client != server && serves && !self.interoperate(*client, *server) {
                    return self.violate(
                        CONNECTIVITY,
                        format!("agent {client} does not reach agent {server}"),
                    );
                }
                if client != server && !self.knows_sshd(*client, *server) {
                    let text = format!("agent {client} does not know the sshd of agent {server}");
                    return self.violate(CONNECTIVITY, text);
                }
            }
            for g in 0..self.gateways.len() {
                if self.gateways[g].up && self.gateways[g].serving && !self.meets(*client, g) {
                    return self.violate(CONNECTIVITY, format!("agent {client} does not reach gateway {g}"));
                }
            }
        }
    }

    /// Do an agent and a gateway accept each other, whatever has expired?
    fn meets(&self, agent: usize, g: usize) -> bool {
        let Some(hello) = self.hello(agent) else {
            return true;
        };
        let gateway = &self.gateways[g];
        let own = gateway.facts.get(&AuthorityType::Host);
        own.is_some_and(|own| own.trusted.contains(&hello.leaf.issuer))
            && gateway.leaves.keys().any(|issuer| hello.trusted.contains(issuer))
    }

    /// A node is refused because a later certificate of its own was in use: that happens to whoever was set back,
    /// and to nobody else.
    pub fn watch_superseded(&mut self, node: NodeId, presented: CertDigest) {
        let Some(i) = self.owner.get(&node).copied() else {
            return;
        };
        let a = &self.agents[i];
        let is_current = a.disk.digests.values().any(|digest| *digest == presented);
        if !a.set_back && is_current && a.disk.node == Some(node) && !self.is_newer_at_hand(i, presented) {
            self.violate(
                ROLLBACK,
                format!("agent {i} is locked out: what it presents was superseded"),
            );
        }
    }

    /// Does the agent have a later certificate that it would present next time?
    fn is_newer_at_hand(&self, i: usize, presented: CertDigest) -> bool {
        self.hello(i).is_some_and(|hello| hello.digest != presented)
    }

    /// A yes was received: the log must hold the command at the position that was named.
    pub fn acknowledge(&mut self, command: Command, answered: Answered) {
        let event = self
            .log
            .events
            .get(answered.position.0.saturating_sub(1) as usize);
        let is_there = event.is_some_and(|e| {
            e.header
                .command
                .as_ref()
                .is_some_and(|c| c.id == command.id && c.digest == command.digest)
        });
        if !is_there {
            let text = format!(
                "{} was answered with position {}",
                command.order.name(),
                answered.position
            );
            self.violate(ACKNOWLEDGED, text);
        }
        self.tell(|| {
            format!(
                "{} by {}: {:?}",
                command.order.name(),
                command.principal,
                answered.answer
            )
        });
        self.operators.acknowledged.push((command, answered));
    }

    /// A no was received: from rollback nobody waits for a node that has nothing to undo.
    pub fn refused(&mut self, command: &Command, refusal: &Refusal) {
        self.tell(|| format!("{} refused: {refusal}", command.order.name()));
        self.operators.last_refusal = Some(refusal.clone());
        let Order::Rotate(asked) = &command.order else {
            return;
        };
        let Some(gate) = refusal
            .gate
            .as_ref()
            .filter(|_| refusal.code == Code::NodesLagging)
        else {
            return;
        };
        let t = asked.authority_type;
        let Some(rotation) = self.watch.rotations.get(&t).copied() else {
            return;
        };
        if gate.from.transition_to(gate.to) != Transition::FinishRollback {
            return;
        }
        let touched = &self.watch.touched;
        let waits_for = gate
            .lagging
            .iter()
            .find(|l| !touched.contains(&(l.node, rotation)));
        if let Some(lagging) = waits_for.map(|l| l.hostname.clone()) {
            self.violate(
                ROLLBACK,
                format!("{t}: standby waits for {lagging}, which has nothing to undo"),
            );
        }
    }
}
