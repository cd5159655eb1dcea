//! What an agent says to the gateway, and what it makes of the answers.

use super::*;

impl World {
    /// What the agent presents, if it has something to present.
    pub fn hello(&self, i: usize) -> Option<Leaf> {
        presentable(&self.have(i), &self.agents[i].refused).cloned()
    }

    pub fn is_let_in(&self, i: usize) -> bool {
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

    pub fn take_desired(&mut self, i: usize, desired: DesiredState) {
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

    pub fn report(&mut self, i: usize) {
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
            form: domain::authority::KeyKind::Tls,
        };
        let by = self.agents[i].principal();
        if self.order(by, order).is_err() {
            // It is told so, and asks anew for what the row names by then.
            let disk = &mut self.agents[i].disk;
            disk.in_flight.retain(|other| other.spki != sent.spki);
            disk.keys.remove(&sent.spki);
        }
    }
}
