//! The gateway of the model: a member that holds the row itself, hands it out, and lets agents in.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    AuthorityType, BootId, MemberId, Order, Position, Principal, SpkiPin, Timestamp,
    decide::certificates::NOT_BEFORE_BACK_MS,
    desired::{desired_of_member, may_hand_out},
    event::LeafUse,
    fact::{FactsByType, TypeFacts},
    reconcile::Leaf,
    schedule,
    state::Certificate,
};

use crate::world::{HOST, World, uuid};

/// The gateway.
#[derive(Clone, PartialEq, Debug)]
pub struct Gateway {
    pub id: MemberId,
    pub serving: bool,
    boot: u64,
    seq: u64,
    /// What it has in force.
    pub facts: FactsByType,
    /// The revisions of the rows that it holds whole, since its start.
    pub held: BTreeMap<AuthorityType, Position>,
    /// Its server certificates, by issuer.
    pub leaves: BTreeMap<SpkiPin, Leaf>,
}

impl Gateway {
    pub fn new() -> Self {
        Self {
            id: MemberId(uuid("gateway", 0)),
            serving: false,
            boot: 0,
            seq: 0,
            facts: BTreeMap::new(),
            held: BTreeMap::new(),
            leaves: BTreeMap::new(),
        }
    }

    fn boot(&self) -> BootId {
        BootId(uuid("boot of the gateway", self.boot))
    }

    /// Does TLS work between this gateway and an agent with this certificate and trust?
    pub fn accepts(&self, leaf: &Leaf, trusted: &BTreeSet<SpkiPin>, now: Timestamp) -> bool {
        let own = self.facts.get(&HOST);
        own.is_some_and(|own| own.trusted.contains(&leaf.issuer))
            && self.leaves.keys().any(|issuer| trusted.contains(issuer))
            && now < leaf.not_after
    }
}

impl World {
    /// It dies and starts: what it has in force stays on its disk.
    pub fn gateway_starts(&mut self) {
        let gateway = &mut self.gateway;
        (gateway.serving, gateway.seq) = (false, 0);
        gateway.boot += 1;
        gateway.held.clear();
    }

    /// Is there anything for it to do about the row?
    pub fn gateway_may_hold(&self) -> bool {
        let row = desired_of_member(&self.log).remove(&HOST);
        row.is_some_and(|row| self.gateway.held.get(&HOST) != Some(&row.revision))
    }

    /// Its own row: wider first, then certificates of every issuer that is needed, then narrower.
    pub fn gateway_holds(&mut self) {
        let mut rows = desired_of_member(&self.log);
        if let Some(row) = rows.remove(&AuthorityType::User) {
            self.gateway.held.insert(AuthorityType::User, row.revision);
            let facts = TypeFacts {
                revision: row.revision,
                trusted: row.trusted,
                ..TypeFacts::default()
            };
            self.gateway.facts.insert(AuthorityType::User, Box::new(facts));
        }
        let Some(row) = rows.remove(&HOST) else {
            return;
        };
        let needed = row
            .client_issuer
            .iter()
            .chain(&row.server_issuer)
            .chain(&row.also_serve);
        let needed: BTreeSet<SpkiPin> = needed.copied().collect();
        for issuer in &needed {
            self.gateway_keeps_leaf(*issuer);
        }
        let gateway = &mut self.gateway;
        gateway.leaves.retain(|issuer, _| needed.contains(issuer));
        let is_held = |issuer: &SpkiPin| gateway.leaves.contains_key(issuer);
        let mut facts = gateway.facts.remove(&HOST).unwrap_or_default();
        facts.revision = row.revision;
        facts.client_issuer = row.client_issuer.filter(is_held).or(facts.client_issuer);
        facts.server_issuer = row.server_issuer.filter(is_held).or(facts.server_issuer);
        facts.trusted.extend(&row.trusted);
        if facts.client_issuer == row.client_issuer && facts.server_issuer == row.server_issuer {
            facts.trusted = row.trusted;
            gateway.held.insert(HOST, row.revision);
        }
        gateway.facts.insert(HOST, facts);
    }

    fn gateway_keeps_leaf(&mut self, issuer: SpkiPin) {
        let holder = Principal::Gateway(self.gateway.id);
        let newest = |world: &Self| {
            let held = world.log.held.get(&holder).into_iter().flatten();
            let of = held.filter_map(|digest| world.log.certificates.get(digest));
            of.rev().find(|c| c.issuer == issuer).map(leaf_of)
        };
        if newest(self).is_none() && self.log.members.contains_key(&self.gateway.id) {
            let order = Order::RequestCertificate {
                authority_type: HOST,
                usage: LeafUse::Both,
                issuer: Some(issuer),
                key: self.key_of(&holder),
                form: domain::authority::KeyKind::Tls,
            };
            if let Ok(domain::Answer::Authorized { authorization }) = self.order(holder.clone(), order) {
                self.sign(authorization);
            }
        }
        if let Some(leaf) = newest(self) {
            self.gateway.leaves.insert(issuer, leaf);
        }
    }

    fn is_reported(&self) -> bool {
        let me = self.log.members.get(&self.gateway.id);
        me.is_some_and(|me| {
            me.running && me.boot == Some(self.gateway.boot()) && me.facts == self.gateway.facts
        })
    }

    pub fn gateway_may_report(&self) -> bool {
        !self.is_reported()
    }

    /// Beginning to serve and changed facts are events.
    pub fn gateway_reports(&mut self) {
        if self.is_reported() {
            return;
        }
        self.gateway.seq += 1;
        let (member, boot, seq) = (self.gateway.id, self.gateway.boot(), self.gateway.seq);
        let facts = self.gateway.facts.clone();
        let me = self.log.members.get(&member);
        let order = if me.is_some_and(|me| me.running && me.boot == Some(boot)) {
            Order::ReportMember {
                member,
                boot,
                seq,
                facts,
            }
        } else {
            Order::StartMember {
                member,
                boot,
                seq,
                service: "gateway".into(),
                names: vec![],
                addresses: vec![],
                facts,
            }
        };
        let _ = self.order(Principal::Gateway(member), order);
    }

    pub fn gateway_may_begin(&self) -> bool {
        !self.gateway.serving && self.is_reported() && may_hand_out(&self.log, &self.gateway.held)
    }

    pub fn gateway_begins(&mut self) {
        self.gateway.serving |= self.gateway_may_begin();
    }

    /// An orchestrator that has just started takes the gateway's silence before its own start for an absence.
    pub fn gateway_is_lost(&mut self) -> bool {
        let Some(me) = self.log.members.get(&self.gateway.id).filter(|me| me.running) else {
            return false;
        };
        let Some(boot) = me.boot else { return false };
        let lose = Order::LoseMember {
            member: me.id,
            boot,
            silent_ms: schedule::MEMBER_SILENCE_MS,
            uptime_ms: 0,
        };
        let by = Principal::System(domain::id::SystemActor::Clock);
        self.order(by, lose).is_ok()
    }
}

/// A certificate as its holder has it.
pub fn leaf_of(certificate: &Certificate) -> Leaf {
    Leaf {
        usage: certificate.usage,
        issuer: certificate.issuer,
        spki: certificate.spki,
        position: certificate.position,
        not_before: certificate.issued.minus_ms(NOT_BEFORE_BACK_MS),
        not_after: certificate.not_after,
    }
}
