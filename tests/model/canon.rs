//! When are two worlds the same? When nothing that can still happen tells them apart.
//!
//! Positions count by their order alone, certificates by their place in their holder's row of them, and what only the
//! past needs (answers, old certificates that are on no disk) does not count. Every struct is taken apart whole, so that
//! a new field has to say whether it matters.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
};

use domain::{
    AuthorizationId, Position, SpkiPin,
    desired::{DesiredAuthority, DesiredState},
    fact::TypeFacts,
    phase::Phase,
    reconcile::{Generation, Leaf, Proof},
    state::{ClusterState, Node, Pending, Reported, TypeState},
};

use crate::{
    agent::{Agent, Disk, Sent},
    gateway::Gateway,
    world::{HOST, World},
};

/// Places in order instead of positions.
struct Canon<'a> {
    world: &'a World,
    revisions: Vec<Position>,
    /// Per node, its certificates that are on a disk or can get there, in order.
    leaves: Vec<Vec<SpkiPin>>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, to: &mut H) {
        Canon::new(self).hash(to);
    }
}

impl<'a> Canon<'a> {
    fn new(world: &'a World) -> Self {
        let mut revisions = BTreeSet::new();
        let of = &world.log.types[&HOST];
        revisions.extend([of.row_position, of.bundle_due]);
        revisions.extend(of.bundle.as_ref().map(|b| b.revision));
        revisions.extend(world.bundles.values().map(|b| b.revision));
        revisions.extend(world.gateway.held.values());
        revisions.extend(world.gateway.facts.values().map(|f| f.revision));
        for node in world.log.nodes.values() {
            let facts = node.report.iter().flat_map(|r| r.report.authorities.values());
            revisions.extend(facts.map(|f| f.revision));
        }
        let mut leaves = vec![];
        for agent in &world.agents {
            let mut own: BTreeMap<Position, SpkiPin> = BTreeMap::new();
            for disk in [Some(&agent.disk), agent.backup.as_ref()].into_iter().flatten() {
                let generations = disk.last_passed.iter().chain([&disk.installed]);
                for generation in generations.clone() {
                    revisions.extend(generation.revisions.values());
                }
                revisions.extend(
                    disk.want
                        .iter()
                        .flat_map(|w| w.authorities.values().map(|a| a.revision)),
                );
                let all = generations
                    .flat_map(|g| g.client.iter().chain(&g.server))
                    .chain(&disk.received);
                own.extend(all.map(|l| (l.position, l.spki)));
            }
            // Those that wait to be fetched as well: their order decides which of them is installed.
            let held = world.log.held.get(&agent.principal()).into_iter().flatten();
            let fetched = held.filter_map(|d| world.log.certificates.get(d));
            let has_key = |spki: &SpkiPin| {
                agent.disk.keys.contains(spki) || agent.backup.as_ref().is_some_and(|b| b.keys.contains(spki))
            };
            own.extend(fetched.filter(|c| has_key(&c.spki)).map(|c| (c.position, c.spki)));
            for (generation, _) in agent.reported.iter() {
                revisions.extend(generation.revisions.values());
            }
            for sent in agent.reporting.iter() {
                revisions.extend(sent.report.authorities.values().map(|f| f.revision));
                if let Some(c) = world.log.certificates.get(&sent.seen.certificate) {
                    own.insert(c.position, c.spki);
                }
            }
            leaves.push(own.into_values().collect());
        }
        let revisions = revisions.into_iter().collect();
        Self {
            world,
            revisions,
            leaves,
        }
    }

    fn revision(&self, position: Position) -> usize {
        self.revisions.binary_search(&position).unwrap_or(usize::MAX)
    }

    fn hash<H: Hasher>(&self, to: &mut H) {
        let World {
            log,
            // Told apart where it is compared: in lives that are over, and in certificates that count no more.
            now: _,
            bundles,
            keys,
            making,
            gateway,
            agents,
            left,
            // Only names what comes next.
            asked: _,
            wrong,
        } = self.world;
        (left, wrong, keys).hash(to);
        making
            .as_ref()
            .map(|made| (made.key.id, made.key.rotation))
            .hash(to);
        for bundle in bundles.values() {
            // The rest of it follows from the keys of its row, which its revision names.
            (
                self.revision(bundle.revision),
                bundle.phase.name(),
                bundle.trusted(),
            )
                .hash(to);
        }
        self.log(log, to);
        self.gateway(gateway, to);
        for (i, agent) in agents.iter().enumerate() {
            self.agent(i, agent, to);
        }
    }

    fn log<H: Hasher>(&self, log: &ClusterState, to: &mut H) {
        let ClusterState {
            // Positions are told apart where they are compared.
            position: _,
            time: _,
            cluster: _,
            types,
            nodes,
            // Follow from the rest.
            standings: _,
            names: _,
            members,
            // Nobody comes or goes in this model.
            users: _,
            logins: _,
            tokens: _,
            token_hashes: _,
            consumers: _,
            certificates: _,
            held: _,
            to_forget: _,
            keys: _,
            pending,
            pending_keys: _,
            settled_authorizations: _,
            settled_order: _,
            to_revoke: _,
            // Commands have no memory here.
            commands: _,
            command_order: _,
            refusals: _,
        } = log;
        for of in types.values() {
            self.authority(of, to);
        }
        for (i, agent) in self.world.agents.iter().enumerate() {
            if let Some(node) = nodes.get(&agent.node()) {
                self.node(i, node, to);
            }
            self.certificates(i, log, to);
        }
        self.waiting(pending, to);
        for member in members.values() {
            (member.running, member.boot, member.facts.len()).hash(to);
            member.facts.values().for_each(|facts| self.facts(facts, to));
        }
    }

    fn certificates<H: Hasher>(&self, i: usize, log: &ClusterState, to: &mut H) {
        for spki in &self.leaves[i] {
            let certificate = log.certificates.get(&domain::id::CertDigest(spki.0));
            let c = certificate.map(|c| {
                let superseded = c.superseded_at.map(|at| at <= self.world.now);
                (
                    c.issuer,
                    c.usage.client(),
                    c.usage.server(),
                    c.presented.is_some(),
                    superseded,
                    c.revoked,
                    c.not_after > self.world.now,
                )
            });
            c.hash(to);
        }
    }

    /// What was authorised and is not signed.
    fn waiting<H: Hasher>(&self, pending: &BTreeMap<AuthorizationId, Pending>, to: &mut H) {
        let mut asked: Vec<_> = pending
            .values()
            .map(|p| {
                let g = &p.granted;
                let is_awaited = self.world.agents.iter().any(|a| a.disk.keys.contains(&g.spki));
                (
                    g.holder.to_string(),
                    g.issuer,
                    g.usage.client(),
                    g.usage.server(),
                    is_awaited,
                    p.row.phase.name(),
                    p.row.rotation,
                )
            })
            .collect();
        asked.sort();
        asked.hash(to);
    }

    fn authority<H: Hasher>(&self, of: &TypeState, to: &mut H) {
        let TypeState {
            phase,
            phase_before,
            rotation,
            active,
            prepared,
            // Only the publication of a JWT key reads it, and the model has none.
            prepared_at: _,
            retired,
            row_position,
            row_signed,
            bundle_due,
            bundle,
            last_rotated: _,
            last_rolled_back: _,
            ended,
            newest_generation,
            denied,
        } = of;
        (
            phase.name(),
            phase_before.name(),
            row_signed.is_some(),
            newest_generation,
            denied.len(),
        )
            .hash(to);
        rotation.as_ref().map(|r| (r.id, &r.excluded, r.held)).hash(to);
        for key in active.values().chain(prepared.values()) {
            key.id.hash(to);
        }
        prepared.len().hash(to);
        for gone in retired {
            (gone.key.id, gone.destroyed, gone.recorded).hash(to);
        }
        (self.revision(*row_position), self.revision(*bundle_due)).hash(to);
        bundle.as_ref().map(|b| self.revision(b.revision)).hash(to);
        ended.as_ref().map(|e| (e.id, e.settled, &e.cut_off)).hash(to);
    }

    fn node<H: Hasher>(&self, i: usize, node: &Node, to: &mut H) {
        let Node {
            id: _,
            hostname: _,
            names: _,
            grant: _,
            token: _,
            joined: _,
            report,
            excluded,
            touched,
            reached,
            clone_suspect,
            boots,
        } = node;
        (excluded, touched, clone_suspect.is_some(), boots.len()).hash(to);
        for (t, reached) in reached {
            (t, reached.phase.name(), reached.rotation).hash(to);
        }
        if let Some(Reported {
            report,
            seen,
            at: _,
            position: _,
        }) = report
        {
            let boot = &self.world.agents[i];
            (seen.issuer, report.seq, report.boot.0 == boot_of(boot)).hash(to);
            report
                .authorities
                .values()
                .for_each(|facts| self.facts(facts, to));
        }
    }

    fn facts<H: Hasher>(&self, facts: &TypeFacts, to: &mut H) {
        let TypeFacts {
            revision,
            trusted,
            client_issuer,
            server_issuer,
            // Follow from the certificates.
            client_not_after: _,
            server_not_after: _,
            // No node of the model has an sshd.
            ssh_issuer: _,
            ssh_not_after: _,
            sessions_on_retiring,
            sessions_of_excluded,
        } = facts;
        (self.revision(*revision), trusted, client_issuer, server_issuer).hash(to);
        (sessions_on_retiring, sessions_of_excluded).hash(to);
    }

    fn gateway<H: Hasher>(&self, gateway: &Gateway, to: &mut H) {
        gateway.serving.hash(to);
        for revision in gateway.held.values() {
            self.revision(*revision).hash(to);
        }
        gateway.facts.values().for_each(|facts| self.facts(facts, to));
        gateway.leaves.keys().for_each(|issuer| issuer.hash(to));
    }

    fn agent<H: Hasher>(&self, i: usize, agent: &Agent, to: &mut H) {
        let Agent {
            hostname: _,
            disk,
            backup,
            up,
            serving,
            synced,
            proof,
            reported,
            reporting,
            refused,
            door,
            boot: _,
            seq,
            renews,
            fails,
            set_back,
            stranded,
            is_out,
            is_new: _,
        } = agent;
        (
            up, serving, synced, door, seq, renews, fails, set_back, stranded, is_out,
        )
            .hash(to);
        match proof {
            Proof::Due => 0u32.hash(to),
            Proof::Passed => 1u32.hash(to),
            Proof::Failed { count } => (2u32, count).hash(to),
        }
        self.disk(i, disk, to);
        backup.is_some().hash(to);
        if let Some(backup) = backup {
            self.disk(i, backup, to);
        }
        reported.is_some().hash(to);
        if let Some((generation, flag)) = reported {
            self.generation(i, generation, to);
            flag.hash(to);
        }
        reporting.is_some().hash(to);
        if let Some(sent) = reporting {
            self.sent(i, sent, to);
        }
        for leaf in refused {
            self.leaves[i].iter().position(|l| l == leaf).hash(to);
        }
    }

    fn disk<H: Hasher>(&self, i: usize, disk: &Disk, to: &mut H) {
        let Disk {
            node: _,
            installed,
            last_passed,
            want,
            received,
            in_flight,
            keys,
            asking,
        } = disk;
        self.generation(i, installed, to);
        last_passed.is_some().hash(to);
        if let Some(passed) = last_passed {
            self.generation(i, passed, to);
        }
        if let Some(want) = want {
            self.want(want, to);
        }
        received.iter().for_each(|leaf| self.leaf(i, leaf, to));
        for sent in in_flight {
            let is_known = self.world.log.keys.contains_key(&sent.spki);
            (sent.usage.client(), sent.usage.server(), sent.issuer, is_known).hash(to);
        }
        let known = keys
            .iter()
            .filter_map(|k| self.leaves[i].iter().position(|l| l == k));
        known.collect::<BTreeSet<_>>().hash(to);
        (keys.len(), asking.is_some()).hash(to);
    }

    fn generation<H: Hasher>(&self, i: usize, generation: &Generation, to: &mut H) {
        let Generation {
            revisions,
            trusted,
            client,
            server,
            ssh: _,
        } = generation;
        revisions.values().for_each(|r| self.revision(*r).hash(to));
        trusted.hash(to);
        for leaf in [client, server] {
            leaf.is_some().hash(to);
            if let Some(leaf) = leaf {
                self.leaf(i, leaf, to);
            }
        }
    }

    fn leaf<H: Hasher>(&self, i: usize, leaf: &Leaf, to: &mut H) {
        self.leaves[i].iter().position(|l| *l == leaf.spki).hash(to);
        (leaf.usage.client(), leaf.usage.server(), leaf.issuer).hash(to);
    }

    fn sent<H: Hasher>(&self, i: usize, sent: &Sent, to: &mut H) {
        let Sent { report, seen, says } = sent;
        report
            .authorities
            .values()
            .for_each(|facts| self.facts(facts, to));
        let presented = self.leaves[i].iter().position(|l| l.0 == seen.certificate.0);
        (
            report.seq,
            report.boot.0 == boot_of(&self.world.agents[i]),
            seen.issuer,
            presented,
        )
            .hash(to);
        self.generation(i, says, to);
    }

    fn want<H: Hasher>(&self, want: &DesiredState, to: &mut H) {
        let DesiredState {
            position: _,
            names: _,
            authorities,
            drain_timeout_ms: _,
            node_ttl_ms: _,
        } = want;
        for DesiredAuthority {
            revision,
            rotation,
            phase,
            uses: _,
            trusted,
            client_issuer,
            server_issuer,
            ssh_issuer: _,
            also_serve: _,
            retiring,
            excluded_peers,
            started: _,
        } in authorities.values()
        {
            let phase: Phase = *phase;
            (self.revision(*revision), rotation, phase.name(), trusted).hash(to);
            (client_issuer, server_issuer, retiring, excluded_peers).hash(to);
        }
    }
}

fn boot_of(agent: &Agent) -> uuid::Uuid {
    crate::world::uuid(&format!("boot of {}", agent.hostname), agent.boot)
}
