//! A gateway as a member: its own certificates and trust, its reports, its lease.

use super::*;

/// A member serves only while it has read back a report of its own sent less than this ago.
const LEASE_MS: i64 = 20 * SECOND;

impl World {
    pub fn gateway_starts(&mut self, g: usize) {
        let boot = BootId(self.rng.uuid());
        let gateway = &mut self.gateways[g];
        if gateway.up {
            return;
        }
        (gateway.up, gateway.boot, gateway.seq, gateway.serving) = (true, boot, 0, false);
        gateway.asked.clear();
        gateway.held.clear();
        self.queue.at(self.now + 100, Msg::Tick(Actor::Gateway(g)));
        self.tell(|| format!("gateway {g} starts"));
    }

    /// It stops: in order, with a goodbye, or not.
    pub fn gateway_stops(&mut self, g: usize, in_order: bool) {
        let gateway = &mut self.gateways[g];
        (gateway.up, gateway.serving) = (false, false);
        let (member, boot) = (gateway.id, gateway.boot);
        self.tell(|| format!("gateway {g} stops"));
        if in_order {
            let command = self.command(Principal::Gateway(member), Order::StopMember { member, boot });
            self.execute(&command);
        }
    }

    pub fn gateway_tick(&mut self, g: usize) {
        if !self.gateways[g].up {
            return;
        }
        let next = self.now + self.rng.span(2 * SECOND, 6 * SECOND);
        self.queue.at(next, Msg::Tick(Actor::Gateway(g)));
        if !self.gateways[g].cut {
            // To begin (again) it reads to the log's end; only while it serves may it lag behind.
            if self.gateways[g].slow_ms == 0 || !self.gateways[g].serving {
                catch_up(&mut self.gateways[g].state, &self.log);
            }
            self.hold_the_row(g);
            self.report_member(g);
            // The steady heartbeat: a lease in the same store, not an event. Written, and read back.
            let id = self.gateways[g].id;
            self.gateways[g].lease = self.now;
            for o in self.orchestrators.iter_mut().filter(|o| o.up) {
                o.heard.insert(id, self.now);
            }
        }
        self.begin_or_end_serving(g);
        self.push_changes(g);
    }

    pub fn gateway_follows(&mut self, g: usize) {
        self.gateways[g].will_follow = false;
        if !self.gateways[g].up || self.gateways[g].cut {
            return;
        }
        self.skip_reports(g);
        catch_up(&mut self.gateways[g].state, &self.log);
        self.hold_the_row(g);
        self.begin_or_end_serving(g);
        self.push_changes(g);
    }

    fn begin_or_end_serving(&mut self, g: usize) {
        let gateway = &mut self.gateways[g];
        let has_read_back = gateway
            .state
            .members
            .get(&gateway.id)
            .is_some_and(|me| me.running && me.boot == Some(gateway.boot) && me.facts == gateway.facts);
        let rows = desired_of_member(&gateway.state);
        // Whoever serves hands out: with the one the other would begin too soon.
        let holds_rows = gateway.hands_out();
        let before = gateway.serving;
        if self.now - gateway.lease >= LEASE_MS {
            gateway.serving = false;
        } else if !gateway.serving && has_read_back && holds_rows && !rows.is_empty() {
            gateway.serving = true;
        }
        let after = gateway.serving;
        if before != after {
            self.tell(|| format!("gateway {g} serving: {after}"));
            self.check_connections();
        }
    }

    /// Its own rows: wider first, then certificates of every issuer that is needed, then narrower.
    fn hold_the_row(&mut self, g: usize) {
        let rows = desired_of_member(&self.gateways[g].state);
        for (t, row) in rows {
            let mut facts = self.gateways[g].facts.get(&t).cloned().unwrap_or_default();
            facts.revision = row.revision;
            facts.trusted.extend(row.trusted.iter().copied());
            let mut has_leaves = true;
            if t == AuthorityType::Host {
                let needed: BTreeSet<SpkiPin> = row
                    .client_issuer
                    .iter()
                    .chain(&row.server_issuer)
                    .chain(&row.also_serve)
                    .copied()
                    .collect();
                for issuer in needed {
                    self.keep_leaf(g, issuer);
                }
                let gateway = &self.gateways[g];
                let is_held = |issuer: &SpkiPin| {
                    gateway
                        .leaves
                        .get(issuer)
                        .is_some_and(|l| Timestamp(self.now) < l.not_after)
                };
                facts.client_issuer = row.client_issuer.filter(is_held).or(facts.client_issuer);
                facts.server_issuer = row.server_issuer.filter(is_held).or(facts.server_issuer);
                has_leaves =
                    facts.client_issuer == row.client_issuer && facts.server_issuer == row.server_issuer;
            }
            if has_leaves {
                self.gateways[g].held.insert(t, row.revision);
                facts.trusted = row.trusted.clone();
                if t == AuthorityType::Host {
                    self.gateways[g]
                        .leaves
                        .retain(|issuer, _| row.trusted.contains(issuer));
                }
            }
            if self.gateways[g].facts.get(&t) != Some(&facts) {
                self.gateways[g].facts.insert(t, facts);
                self.check_connections();
            }
        }
    }

    /// Takes the newest certificate of an issuer from the log, and asks for one where none is left or half its
    /// life is over.
    fn keep_leaf(&mut self, g: usize, issuer: SpkiPin) {
        let now = Timestamp(self.now);
        let gateway = &mut self.gateways[g];
        let held = gateway
            .state
            .held
            .get(&Principal::Gateway(gateway.id))
            .into_iter()
            .flatten();
        let certificates = held.filter_map(|d| gateway.state.certificates.get(d));
        let newest = certificates
            .filter(|c| c.issuer == issuer && gateway.keys.contains(&c.spki) && c.not_after > now)
            .max_by_key(|c| c.position);
        if let Some(certificate) = newest {
            gateway.leaves.insert(issuer, leaf_of(certificate));
        }
        let is_due = gateway
            .leaves
            .get(&issuer)
            .is_none_or(|leaf| renewal_due(leaf, now, 500));
        let is_asked = gateway
            .asked
            .get(&issuer)
            .is_some_and(|at| self.now - at < 20 * SECOND);
        if !is_due || is_asked || gateway.cut || !gateway.state.members.contains_key(&gateway.id) {
            return;
        }
        gateway.asked.insert(issuer, self.now);
        let spki = self.rng.key();
        let gateway = &mut self.gateways[g];
        gateway.keys.insert(spki);
        let principal = Principal::Gateway(gateway.id);
        let order = Order::RequestCertificate {
            authority_type: AuthorityType::Host,
            usage: LeafUse::Both,
            issuer: Some(issuer),
            key: KeyRequest {
                spki,
                public_key: String::new(),
            },
            form: KeyKind::Tls,
        };
        let command = self.command(principal, order);
        if let Outcome::No(no) = self.execute(&command) {
            self.tell(|| format!("gateway {g}: {no}"));
        }
    }

    /// Beginning to serve and changed facts are events.
    fn report_member(&mut self, g: usize) {
        let gateway = &mut self.gateways[g];
        let me = gateway.state.members.get(&gateway.id);
        let is_started = me.is_some_and(|me| me.running && me.boot == Some(gateway.boot));
        if is_started && me.is_some_and(|me| me.facts == gateway.facts) {
            return;
        }
        gateway.seq += 1;
        let (member, boot, seq, facts) = (gateway.id, gateway.boot, gateway.seq, gateway.facts.clone());
        let order = if is_started {
            Order::ReportMember {
                member,
                boot,
                seq,
                facts,
            }
        } else {
            let (names, addresses) = (vec![], vec![]);
            Order::StartMember {
                member,
                boot,
                seq,
                service: "gateway".into(),
                names,
                addresses,
                facts,
            }
        };
        let command = self.command(Principal::Gateway(member), order);
        if let Outcome::No(no) = self.execute(&command) {
            self.tell(|| format!("gateway {g}: {no}"));
        }
    }

    /// A changed row goes out at once to every agent whose event stream this gateway holds.
    fn push_changes(&mut self, g: usize) {
        let gateway = &self.gateways[g];
        if !gateway.serving || gateway.cut {
            return;
        }
        let rows = desired_of_member(&gateway.state);
        if gateway.handed.as_ref() == Some(&rows) {
            return;
        }
        let is_signed = |t: &AuthorityType| {
            let of = gateway.state.types.get(t);
            of.is_some_and(|of| of.bundle.as_ref().is_some_and(|b| b.revision >= of.row_position))
        };
        if !gateway.hands_out() || !rows.keys().all(is_signed) {
            return;
        }
        self.gateways[g].handed = Some(rows);
        for agent in 0..self.agents.len() {
            let a = &self.agents[agent];
            let (Some(node), true) = (a.disk.node, a.is_reachable() && a.gateway == g) else {
                continue;
            };
            let boot = a.boot;
            if let Some(reply) = self.answer_poll(g, node) {
                let msg = Msg::Reply {
                    agent,
                    boot,
                    reply: Box::new(reply),
                };
                self.queue.send(&mut self.rng, self.now, msg);
            }
        }
    }
}
