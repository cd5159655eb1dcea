//! What must hold after every step, written down by itself, so that a mistake in the product's own table shows.

use std::collections::BTreeSet;

use domain::{
    Order, SpkiPin,
    authority::KeyKind,
    event::{RotationOutcome, RotationPhaseEntered},
    gate,
    phase::Phase,
    reconcile::Generation,
    state::TypeState,
    trust::{Side, interoperate},
};

use crate::world::{HOST, World, admin, rotate};

/// Rounds in which a healed cluster must have come to rest.
const PATIENCE: usize = 40;

impl World {
    /// Looks at everything once. What breaks is remembered.
    pub fn check(&mut self) {
        self.come_back();
        if let Some(text) = self.broken_connection().or_else(|| self.old_authority()) {
            self.say_wrong(|| text);
        }
    }

    /// Whoever was passed over counts again once it has reached the phase.
    fn come_back(&mut self) {
        for i in 0..self.agents.len() {
            let a = &self.agents[i];
            let (is_out, node) = (a.is_out && !a.set_back, a.node());
            let is_back = self.log.nodes.get(&node).is_some_and(|n| {
                gate::missing(&self.log, HOST, n).is_ok()
                    && !gate::is_excluded(n, HOST, &self.log.types[&HOST])
            });
            if is_out && is_back && self.holds_row(i) {
                self.agents[i].is_out = false;
            }
        }
    }

    /// No pair of nodes that serve, and that nobody has passed over, loses its connection.
    fn broken_connection(&self) -> Option<String> {
        let counts = |i: &usize| {
            let a = &self.agents[*i];
            a.up && a.serving && !a.is_out && !a.is_new
        };
        let present: Vec<usize> = (0..self.agents.len()).filter(counts).collect();
        for client in &present {
            for server in &present {
                let (c, s) = (
                    side(&self.agents[*client].disk.installed),
                    side(&self.agents[*server].disk.installed),
                );
                if client != server && !interoperate(&c, &s) {
                    return Some(format!("node {client} does not reach node {server}"));
                }
            }
        }
        None
    }

    /// Once a rotation is settled, nobody accepts the retired authority.
    fn old_authority(&self) -> Option<String> {
        let of = &self.log.types[&HOST];
        let is_settled = of.ended.as_ref().is_some_and(|ended| ended.settled) && of.rotation.is_none();
        let active: BTreeSet<SpkiPin> = of.active.values().map(|k| k.id).collect();
        let listed: BTreeSet<SpkiPin> = of.trusted();
        if of.rotation.is_none() && listed != active {
            return Some(format!("the row of {} lists what no rotation prepares", of.phase));
        }
        let accepts = |i: &usize| {
            let a = &self.agents[*i];
            a.up && a.serving && !a.is_out && a.trusts() != active
        };
        let found = (0..self.agents.len()).filter(|_| is_settled).find(accepts)?;
        Some(format!(
            "node {found} accepts an authority that is settled to be gone"
        ))
    }

    /// A phase is about to be entered: is everybody there who has to be, by what is on the disks?
    pub fn check_step(&mut self, entered: &RotationPhaseEntered) {
        if entered.from == Phase::Standby || entered.to == Phase::Rollback {
            return;
        }
        let of = self.log.types[&HOST].clone();
        let is_back = entered.outcome == Some(RotationOutcome::RolledBack);
        if !is_back && of.prepared.is_empty() {
            self.say_wrong(|| format!("{} -> {} without a new key", entered.from, entered.to));
        }
        let own = self
            .gateway
            .facts
            .get(&HOST)
            .filter(|_| self.gateway.serving)
            .cloned();
        if own.is_some_and(|own| !is_met(&own.trusted, own.client_issuer, own.server_issuer, &of)) {
            let from = entered.from;
            self.say_wrong(|| format!("the gateway serves and does not satisfy {from}"));
        }
        for i in 0..self.agents.len() {
            let node = self.agents[i].node();
            let Some(known) = self.log.nodes.get(&node).cloned() else {
                continue;
            };
            let hostname = known.hostname.to_string();
            let is_excluded = gate::is_excluded(&known, HOST, &of)
                && of
                    .rotation_id()
                    .is_some_and(|id| known.excluded.get(&HOST) == Some(&id));
            if entered.passed_over.contains(&hostname) || is_excluded {
                self.agents[i].is_out = true;
                continue;
            }
            let is_touched = known.touched.get(&HOST) == of.rotation_id().as_ref();
            if self.agents[i].set_back || (of.phase == Phase::Rollback && !is_touched) {
                continue;
            }
            if !self.satisfies(i, &of) {
                let from = entered.from;
                self.say_wrong(|| format!("node {i} does not satisfy {from} when it is left"));
            }
        }
    }

    /// What was reported has passed; a later installation may still wait for its proof.
    fn satisfies(&self, i: usize, of: &TypeState) -> bool {
        let disk = &self.agents[i].disk;
        let generations = [Some(&disk.installed), disk.last_passed.as_ref()];
        generations.into_iter().flatten().any(|generation| {
            let side = side(generation);
            is_met(&side.trusted, side.client_issuer, side.server_issuer, of)
        })
    }

    fn holds_row(&self, i: usize) -> bool {
        let side = side(&self.agents[i].disk.installed);
        is_met(
            &side.trusted,
            side.client_issuer,
            side.server_issuer,
            &self.log.types[&HOST],
        )
    }

    /// With all troubles over, does a patient operator bring everybody to the end, by steps that need no force?
    pub fn heals(&self) -> Result<(), String> {
        let mut world = self.clone();
        for agent in &mut world.agents {
            agent.fails = false;
        }
        for i in 0..world.agents.len() {
            if !world.agents[i].up {
                world.agent_wakes(i);
            }
        }
        for _ in 0..PATIENCE {
            world.run_to_rest();
            if let Some(wrong) = &world.wrong {
                return Err(format!("while it heals: {wrong}"));
            }
            // Whoever was set back and superseded is removed by a person, who sees it in `status`.
            for i in 0..world.agents.len() {
                if world.agents[i].stranded {
                    let node = world.agents[i].node();
                    let _ = world.order(admin(), Order::RemoveNode { node });
                }
            }
            let phase = world.log.types[&HOST].phase;
            let is_over = world.log.types[&HOST].rotation.is_none();
            if is_over && world.is_at_rest() {
                return Ok(());
            }
            if let Some(next) = phase.next().filter(|_| !is_over) {
                let _ = world.order(admin(), rotate(next, false));
            }
            if phase == Phase::Rollback {
                let _ = world.order(admin(), rotate(Phase::Standby, false));
            }
            world.tidy();
        }
        let of = &world.log.types[&HOST];
        let lagging: Vec<String> = world
            .log
            .nodes
            .values()
            .filter_map(|n| {
                Some(format!(
                    "{}: {:?}",
                    n.hostname,
                    gate::missing(&world.log, HOST, n).err()?
                ))
            })
            .collect();
        Err(format!("it stays in {} with {lagging:?}", of.phase))
    }

    /// Everybody serves what the row says, and the last rotation is settled.
    fn is_at_rest(&self) -> bool {
        let of = &self.log.types[&HOST];
        let is_settled = of.ended.as_ref().is_none_or(|ended| ended.settled);
        let lost = |i: &usize| self.agents[*i].stranded;
        let all = (0..self.agents.len())
            .filter(|i| !lost(i))
            .all(|i| self.agents[i].serving && self.holds_row(i));
        is_settled && all && self.gateway.serving
    }

    /// Everybody takes every step that there is, in turn, until nothing changes.
    pub fn run_to_rest(&mut self) {
        for _ in 0..PATIENCE {
            let before = self.clone();
            if self.making.is_none() {
                self.making = self.key_to_make();
            }
            self.record_key();
            if self.gateway_may_hold() {
                self.gateway_holds();
            }
            self.gateway_reports();
            self.gateway_begins();
            if self.owes_bundle() {
                self.sign_bundle(HOST);
            }
            self.tidy();
            for i in 0..self.agents.len() {
                self.agent_goes_on(i);
            }
            self.tidy();
            self.check();
            if self.wrong.is_some() || *self == before {
                return;
            }
        }
    }

    /// A node talks to the gateway and takes its steps until nothing is left for it to do.
    pub fn agent_goes_on(&mut self, i: usize) {
        if self.gateway.serving {
            self.report_arrives(i);
        }
        if self.may_call(i) {
            self.call(i);
        }
        while let Some(sent) = self.request_to_send(i) {
            self.send_request(i, &sent);
        }
        let pending: Vec<_> = self.log.pending.keys().copied().collect();
        for authorization in pending {
            self.sign(authorization);
        }
        if self.may_call(i) {
            self.call(i);
        }
        for _ in 0..PATIENCE {
            let Some(step) = self.next_step(i) else { break };
            self.take_step(i, step);
            if self.gateway.serving {
                self.report_arrives(i);
            }
            self.check();
        }
    }
}

fn side(generation: &Generation) -> Side {
    Side {
        trusted: generation.trusted.get(&HOST).cloned().unwrap_or_default(),
        client_issuer: generation.client.as_ref().map(|l| l.issuer),
        server_issuer: generation.server.as_ref().map(|l| l.issuer),
    }
}

/// The table of phases once more.
fn is_met(
    trusted: &BTreeSet<SpkiPin>,
    client: Option<SpkiPin>,
    server: Option<SpkiPin>,
    of: &TypeState,
) -> bool {
    let active = of.active.get(&KeyKind::Tls).map(|k| k.id);
    let prepared = of.prepared.get(&KeyKind::Tls).map(|k| k.id).or(active);
    let (row_client, row_server) = match of.phase {
        Phase::Standby | Phase::Init | Phase::Rollback => (active, active),
        Phase::UpdateClients => (prepared, active),
        Phase::UpdateServers => (prepared, prepared),
    };
    let both: BTreeSet<SpkiPin> = active.into_iter().chain(prepared).collect();
    let trust_is_right = match of.phase {
        Phase::Rollback => active.is_some_and(|a| trusted.contains(&a)),
        Phase::Standby | Phase::Init | Phase::UpdateClients | Phase::UpdateServers => *trusted == both,
    };
    trust_is_right && client == row_client && server == row_server
}
