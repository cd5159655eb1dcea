//! A phase is entered: was the gate open, physically, or was it overridden by somebody who may?

use domain::{
    access::Uses,
    authority::KeyKind,
    command::{LaggingPolicy, Mode},
    event::{RotationOutcome, RotationPhaseEntered},
    reconcile::Generation,
    state::TypeState,
};

use super::*;

impl Watch {
    pub(super) fn phase_entered(&mut self, world: &mut World, event: &Event, f: &RotationPhaseEntered) {
        let t = f.authority_type;
        if f.from == Phase::Standby {
            self.rotations.insert(t, f.rotation);
            self.policies.insert(t, asked_policy(world));
            self.prepared.retain(|(of, _)| *of != t);
        }
        if t == AuthorityType::Host && f.from != Phase::Standby && f.to != Phase::Rollback {
            let is_left = |i: &usize| {
                let a = &world.agents[*i];
                f.passed_over.contains(&a.hostname.to_string())
                    || a.disk.node.is_none_or(|n| self.is_excluded(n, t))
            };
            let left: Vec<usize> = self.fleet.iter().copied().filter(|i| is_left(i)).collect();
            for agent in left {
                self.fleet.remove(&agent);
            }
        }
        if f.outcome.is_some() {
            self.rotations.remove(&t);
            self.prepared.retain(|(of, _)| *of != t);
        }
        self.phases.insert(t, f.to);
        self.stepped.insert(t, event.header.time);
        self.stepped_at.insert(t, world.now);
    }

    /// Held against the disks as they are, and against the state before the event.
    pub(super) fn check_phase(&self, world: &mut World, event: &Event, f: &RotationPhaseEntered) {
        if let Some(text) = self.nobody_asked(world, event, f) {
            world.violate(
                GATE,
                format!("{} {} -> {}: {text}", f.authority_type, f.from, f.to),
            );
        }
        if f.from == Phase::Standby || f.to == Phase::Rollback {
            return;
        }
        let Some(of) = world.truth.types.get(&f.authority_type).cloned() else {
            return;
        };
        let name = if f.outcome == Some(RotationOutcome::RolledBack) {
            ROLLBACK
        } else {
            GATE
        };
        let wrong = self
            .nodes_behind(world, f, &of)
            .map(|text| (name, text))
            .or_else(|| self.members_behind(world, f, &of).map(|text| (GATE, text)))
            .or_else(|| self.key_missing(f, &of).map(|text| (GATE, text)))
            .or_else(|| self.people_cut_off(world, event, f, &of).map(|text| (GATE, text)))
            .or_else(|| self.sessions_left(world, f, &of).map(|text| (GATE, text)))
            .or_else(|| self.consumers_left(f).map(|text| (GATE, text)))
            .or_else(|| self.too_early(world, f).map(|text| (GATE, text)))
            .or_else(|| {
                self.passes_over_somebody_online(world, f)
                    .map(|text| (GATE, text))
            });
        if let Some((invariant, text)) = wrong {
            world.violate(
                invariant,
                format!("{} {} -> {}: {text}", f.authority_type, f.from, f.to),
            );
        }
    }

    /// A required node that was not named as passed over, and does not satisfy the row.
    fn nodes_behind(&self, world: &World, f: &RotationPhaseEntered, of: &TypeState) -> Option<String> {
        let t = f.authority_type;
        for node in world.truth.nodes.values() {
            let Some(agent) = world.owner.get(&node.id).copied() else {
                continue;
            };
            let a = &world.agents[agent];
            let came_later = node.joined > f.gate.position
                || self
                    .included
                    .get(&(node.id, t))
                    .is_some_and(|at| *at > f.gate.position);
            let is_passed_over = f.gate.overridden > 0 && f.passed_over.contains(&node.hostname.to_string());
            let is_ours = a.disk.node == Some(node.id) && !a.tampered;
            let Some(uses) = node.uses(t).filter(|_| is_ours) else {
                continue;
            };
            if came_later || is_passed_over || self.is_excluded(node.id, t) {
                continue;
            }
            if f.from == Phase::Rollback && !self.touched.contains(&(node.id, f.rotation)) {
                continue;
            }
            // What was reported passed; a later installation may still wait for its proof.
            let generations = [Some(&a.disk.installed), a.disk.last_passed.as_ref()];
            if !generations
                .into_iter()
                .flatten()
                .any(|g| satisfies(g, t, uses, of))
            {
                return Some(format!(
                    "agent {agent} ({}) does not satisfy {}",
                    node.hostname, f.from
                ));
            }
        }
        None
    }

    /// A serving gateway that does not satisfy the row: it is never passed over.
    fn members_behind(&self, world: &World, f: &RotationPhaseEntered, of: &TypeState) -> Option<String> {
        let uses = if f.authority_type == AuthorityType::Host {
            Uses::ALL
        } else {
            Uses::VERIFIER
        };
        for (g, gateway) in world.gateways.iter().enumerate() {
            let Some(own) = gateway
                .facts
                .get(&f.authority_type)
                .filter(|_| gateway.up && gateway.serving)
            else {
                continue;
            };
            let ok = row_is_met(&own.trusted, own.client_issuer, own.server_issuer, uses, of);
            if !ok {
                return Some(format!("gateway {g} serves and does not satisfy {}", f.from));
            }
        }
        None
    }

    fn key_missing(&self, f: &RotationPhaseEntered, of: &TypeState) -> Option<String> {
        let needs_keys = f.from != Phase::Rollback;
        let is_there = |kind: &KeyKind| self.keyed.contains(&(f.authority_type, *kind, f.rotation));
        let missing = of.active.keys().find(|kind| !is_there(kind))?;
        needs_keys.then(|| format!("there is no new {missing:?} key"))
    }

    /// People who hold a living certificate of the retiring authority, and nothing newer in use.
    fn people_cut_off(
        &self,
        world: &World,
        event: &Event,
        f: &RotationPhaseEntered,
        of: &TypeState,
    ) -> Option<String> {
        if f.to != Phase::Standby || f.authority_type != AuthorityType::User || f.gate.overridden > 0 {
            return None;
        }
        let retiring = of.retiring()?.id;
        let people = world.operators.people.iter();
        let cut_off = people
            .filter(|p| world.truth.users.contains_key(&p.name))
            .find(|p| {
                p.leaf
                    .is_some_and(|(_, issuer, not_after)| issuer == retiring && not_after > event.header.time)
            });
        cut_off.map(|p| format!("{} holds a certificate of the retiring authority", p.name))
    }

    /// A session between two nodes of the fleet on the issuer that the final standby drops.
    fn sessions_left(&self, world: &World, f: &RotationPhaseEntered, of: &TypeState) -> Option<String> {
        if f.authority_type != AuthorityType::Host || f.outcome != Some(RotationOutcome::Completed) {
            return None;
        }
        let retiring = of.retiring()?.id;
        let counts = |i: usize| {
            let hostname = world.agents[i].hostname.to_string();
            self.fleet.contains(&i) && !world.agents[i].tampered && !f.passed_over.contains(&hostname)
        };
        let left = world.sessions.iter().find(|s| {
            (s.client_issuer == retiring || s.server_issuer == retiring)
                && counts(s.client)
                && counts(s.server)
        });
        left.map(|s| format!("agents {} and {} talk on the retiring issuer", s.client, s.server))
    }

    /// A consumer that was registered when it was decided, and has not attested for this phase.
    fn consumers_left(&self, f: &RotationPhaseEntered) -> Option<String> {
        if f.from == Phase::Rollback || f.gate.overridden > 0 {
            return None;
        }
        let mine = self.consumers.iter().filter(|((t, _), _)| *t == f.authority_type);
        let mut left = mine.filter(|(_, (added, attested))| {
            *added <= f.gate.position && *attested != Some((f.rotation, f.from))
        });
        let ((_, name), _) = left.next()?;
        Some(format!("the consumer {name} has not attested"))
    }

    /// The schedule's steps come one after another, by a clock that is never wrong: one that jumps takes no step.
    fn too_early(&self, world: &World, f: &RotationPhaseEntered) -> Option<String> {
        // A step bears the time of whoever took it, and that clock may have been two minutes behind (a person's step is
        // taken all the same): then the next one is early by as much. Half a minute ahead is believed besides.
        let slack = 150 * crate::world::SECOND;
        let waited = world.now - self.stepped_at.get(&f.authority_type)? + slack;
        let is_early = f.mode == Mode::Automatic && waited < (f.grace_period_ms / 3) as i64;
        (is_early && !self.clock_accepted)
            .then(|| format!("the schedule took a step after {} s", (waited - slack) / 1000))
    }

    /// `proceed` passes over nodes that were not seen; one that talks to a gateway all the time is online.
    fn passes_over_somebody_online(&self, world: &World, f: &RotationPhaseEntered) -> Option<String> {
        if f.mode != Mode::Automatic || f.gate.overridden == 0 {
            return None;
        }
        let stepped = self.stepped.get(&f.authority_type)?.0;
        // An earlier identity of the same machine may lag under the same name.
        let lags = |a: &crate::node::Agent| {
            let node = a.disk.node.and_then(|id| world.truth.nodes.get(&id));
            node.is_some_and(|n| gate::missing(&world.truth, f.authority_type, n).is_err())
        };
        let online = world.agents.iter().enumerate().find(|(_, a)| {
            f.passed_over.contains(&a.hostname.to_string())
                && lags(a)
                && a.is_reachable()
                && !a.tampered
                && a.stranded.is_none()
                && a.online_since <= stepped
                && a.heard > stepped + 2 * crate::world::MINUTE
        });
        online.map(|(i, _)| format!("agent {i} was online all the time and was passed over"))
    }
}

/// What a due step is to do when nodes lag, from the order that began the rotation.
fn asked_policy(world: &World) -> LaggingPolicy {
    match world.asked.as_ref().map(|command| &command.order) {
        Some(Order::Rotate(asked)) => asked.on_lagging.unwrap_or_default(),
        _ => LaggingPolicy::Hold,
    }
}

/// Does a generation satisfy the row of the phase that the state is in?
fn satisfies(generation: &Generation, t: AuthorityType, uses: Uses, of: &TypeState) -> bool {
    let trusted = generation.trusted.get(&t).cloned().unwrap_or_default();
    let issuer = |leaf: &Option<domain::reconcile::Leaf>| leaf.as_ref().map(|l| l.issuer);
    let row = row_is_met(
        &trusted,
        issuer(&generation.client),
        issuer(&generation.server),
        uses,
        of,
    );
    row && (t != AuthorityType::Host || sshd_is_met(issuer(&generation.ssh), of))
}

/// What sshd presents, where there is one, is of the row.
pub(super) fn sshd_is_met(presents: Option<SpkiPin>, of: &TypeState) -> bool {
    let active = of.active.get(&KeyKind::Ssh).map(|k| k.id);
    let wanted = match of.phase {
        Phase::UpdateServers => of.prepared.get(&KeyKind::Ssh).map(|k| k.id).or(active),
        Phase::Standby | Phase::Init | Phase::UpdateClients | Phase::Rollback => active,
    };
    presents.is_none() || presents == wanted
}

/// The table of phases once more, written down by itself, so that a mistake in the product's shows.
pub(super) fn row_is_met(
    trusted: &BTreeSet<SpkiPin>,
    client: Option<SpkiPin>,
    server: Option<SpkiPin>,
    uses: Uses,
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
    (!uses.verifier || trust_is_right)
        && (!uses.client || client == row_client)
        && (!uses.server || server == row_server)
}
