//! The orchestrators and the signer of the virtual cluster: what they do by themselves, their crashes, their clocks.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    AuthorizationId, ClusterState, Duty, Fact, MemberId, NodeId, Order, Position, RotationId, SpkiPin,
    Timestamp,
    authority::{AuthorityKey, AuthorityType, KeyKind},
    command::Expectation,
    duty::{bundle_content, duty, owed, void_authorizations},
    event::{
        AuthorityActivated, AuthorityBundleSigned, AuthorityDestroyed, AuthorityKeyGenerated,
        AuthorityRetired, CertificateRevoked,
    },
    evolve::apply,
    id::SystemActor,
    phase::Phase,
    schedule,
    trust::SignedBundle,
};

use crate::{
    net::{Actor, Msg},
    world::{FAR, SECOND, Word, World, catch_up, genesis::issue},
};

/// One orchestrator; several write the same log.
pub struct Orchestrator {
    pub up: bool,
    pub state: ClusterState,
    /// When it started: silence is counted at the earliest from here.
    pub started: i64,
    /// When each member was last heard, since the start.
    pub heard: BTreeMap<MemberId, i64>,
    /// How wrong its clock is.
    pub clock_offset_ms: i64,
    /// How wrong it was when it was last believed: at the start, or when an operator accepted it.
    believed_offset_ms: i64,
    /// The last acceptance: when, and how far behind the log the clock was then.
    accepted: Option<(Timestamp, u64)>,
    last_tick: i64,
}

impl Orchestrator {
    pub fn new(now: i64) -> Self {
        let state = ClusterState::default();
        Self {
            up: true,
            state,
            started: now,
            heard: BTreeMap::new(),
            clock_offset_ms: 0,
            believed_offset_ms: 0,
            accepted: None,
            last_tick: now,
        }
    }

    /// Is the clock more than a minute behind the log, or did it jump against the monotonic one?
    pub fn is_clock_suspect(&self, clock: Timestamp) -> bool {
        let minute = 60 * SECOND as u64;
        let allowed = match self.accepted {
            Some((at, behind_ms)) if clock < at => behind_ms + minute,
            _ => minute,
        };
        let jump_ms = (self.clock_offset_ms - self.believed_offset_ms).abs();
        self.state.time.since_ms(clock) > allowed || jump_ms > 30 * SECOND
    }

    /// An operator says that the clock is right after all.
    pub fn accept_clock(&mut self, at: Timestamp, behind_ms: u64) {
        (self.accepted, self.believed_offset_ms) = (Some((at, behind_ms)), self.clock_offset_ms);
    }
}

/// The signer: the only holder of private keys.
#[derive(Default)]
pub struct Signer {
    pub up: bool,
    pub state: ClusterState,
    /// The key store: survives crashes.
    pub keys: BTreeSet<SpkiPin>,
    /// Duties of an earlier start are forgotten; what is owed is computed again.
    epoch: u32,
    pub will_follow: bool,
}

impl World {
    pub fn orchestrator_dies(&mut self, i: usize) {
        let o = &mut self.orchestrators[i];
        if !o.up {
            return;
        }
        o.up = false;
        let back = self.now + self.rng.span(SECOND, 30 * SECOND);
        self.queue.at(back, Msg::Up(Actor::Orchestrator(i)));
        self.tell(|| format!("orchestrator {i} dies"));
    }

    pub fn orchestrator_starts(&mut self, i: usize) {
        let o = &mut self.orchestrators[i];
        if o.up {
            return;
        }
        (o.up, o.started, o.last_tick) = (true, self.now, self.now);
        // A time daemon has set the clock; what it shows at the start is believed.
        (o.clock_offset_ms, o.believed_offset_ms) = (0, 0);
        o.heard.clear();
        self.tell(|| format!("orchestrator {i} starts"));
    }

    /// What the orchestrator does by itself: due steps, the end of rotations, void authorisations, silent members.
    pub fn orchestrator_tick(&mut self, i: usize) {
        self.queue
            .at(self.now + 5 * SECOND, Msg::Tick(Actor::Orchestrator(i)));
        if !self.orchestrators[i].up {
            return;
        }
        catch_up(&mut self.orchestrators[i].state, &self.log);
        self.count_uptime(i);
        let o = &self.orchestrators[i];
        let now = o.state.now(Timestamp(self.now + o.clock_offset_ms));
        let uptime_ms = (self.now - o.started) as u64;
        let mut orders = vec![];
        for (authority_type, rotation, phase) in schedule::due_steps(&o.state, now) {
            let expects = Expectation {
                rotation: Some(rotation),
                phase,
            };
            let uptime_since_step_ms = self
                .since_step
                .get(&authority_type)
                .map(|(_, ms)| *ms)
                .unwrap_or_default();
            orders.push(Order::ScheduledStep {
                authority_type,
                expects,
                uptime_since_step_ms,
                uptime_ms,
                seen: Some(self.seen_since(o, authority_type)),
            });
        }
        for (authority_type, rotation) in schedule::to_settle(&o.state) {
            orders.push(Order::Settle {
                authority_type,
                rotation,
            });
        }
        for authorization in void_authorizations(&o.state) {
            orders.push(Order::VoidAuthorization {
                authorization,
                why: "its authority signs no more".into(),
            });
        }
        for member in o.state.members.values().filter(|m| m.running) {
            let last = o.heard.get(&member.id).copied().unwrap_or(member.last_event.0);
            let silent_ms = (self.now - last).max(0) as u64;
            if let (Some(boot), true) = (member.boot, silent_ms >= schedule::MEMBER_SILENCE_MS) {
                orders.push(Order::LoseMember {
                    member: member.id,
                    boot,
                    silent_ms,
                    uptime_ms,
                });
            }
        }
        for order in orders {
            // The one that has counted the time decides; another one may not be up for as long.
            self.system(SystemActor::Clock, order);
        }
    }

    /// Who talked to a gateway since the step before: presence is forgotten when the control plane starts.
    fn seen_since(&self, o: &Orchestrator, t: AuthorityType) -> BTreeSet<NodeId> {
        let stepped = o.state.types[&t].rotation.as_ref().map(|r| r.stepped.0);
        let since = o.started.max(stepped.unwrap_or_default());
        let seen = self.agents.iter().filter(|a| a.heard >= since);
        seen.filter_map(|a| a.disk.node).collect()
    }

    fn count_uptime(&mut self, i: usize) {
        let o = &mut self.orchestrators[i];
        let elapsed = (self.now - o.last_tick).max(0) as u64;
        o.last_tick = self.now;
        for (t, of) in &o.state.types {
            let Some(rotation) = &of.rotation else { continue };
            let (stepped, sum) = self.since_step.entry(*t).or_insert((rotation.stepped, 0));
            if *stepped != rotation.stepped {
                (*stepped, *sum) = (rotation.stepped, 0);
            }
            // One counts for all: time in which any of several was up is counted once, by the first.
            if i == 0 {
                *sum += elapsed.min((self.now - rotation.stepped.0).max(0) as u64);
            }
        }
    }

    pub fn signer_dies(&mut self) {
        self.signer.up = false;
        self.signer.epoch += 1;
        self.tell(|| "signer dies".into());
    }

    pub fn signer_starts(&mut self) {
        if self.signer.up {
            return;
        }
        self.signer.up = true;
        catch_up(&mut self.signer.state, &self.log);
        self.schedule_owed();
    }

    /// What only time makes due, and what a lost race left.
    pub fn signer_tick(&mut self) {
        self.queue.at(self.now + 60 * SECOND, Msg::Tick(Actor::Signer));
        if self.signer.up {
            catch_up(&mut self.signer.state, &self.log);
            self.schedule_owed();
        }
    }

    fn schedule_owed(&mut self) {
        for duty in owed(&self.signer.state, Timestamp(self.now)) {
            self.schedule_duty(duty);
        }
    }

    /// Every duty may be done late and twice.
    fn schedule_duty(&mut self, duty: Duty) {
        let (epoch, seen) = (self.signer.epoch, self.signer.state.position);
        let slow = self.faults_on && self.rng.chance(300);
        let longest = if slow {
            self.knobs.signer_ms
        } else {
            self.knobs.signer_ms.min(500)
        };
        let at = self.now + self.rng.span(1, longest.max(1));
        self.queue.at(
            at,
            Msg::Owed {
                epoch,
                duty: Box::new(duty.clone()),
                seen,
            },
        );
        if self.faults_on && self.rng.chance(20) {
            let again = at + self.rng.span(1, 5 * SECOND);
            self.queue.at(
                again,
                Msg::Owed {
                    epoch,
                    duty: Box::new(duty),
                    seen,
                },
            );
        }
    }

    pub fn signer_follows(&mut self) {
        self.signer.will_follow = false;
        if !self.signer.up {
            return;
        }
        let mut duties = vec![];
        for event in &self.log.events[self.signer.state.position.0 as usize..] {
            apply(&mut self.signer.state, event);
            duties.extend(duty(&self.signer.state, event));
        }
        for duty in duties {
            self.schedule_duty(duty);
        }
    }

    /// The signer does what it owes, if its own fold still says so; that fold may be behind the log.
    pub fn signer_works(&mut self, epoch: u32, duty: Duty, seen: Position) {
        if !self.signer.up || epoch != self.signer.epoch {
            return;
        }
        let is_stale = self.faults_on
            && self.rng.chance(self.knobs.stale_permille)
            && self.signer.state.position >= seen;
        if !is_stale {
            catch_up(&mut self.signer.state, &self.log);
        }
        let still = owed(&self.signer.state, Timestamp(self.now));
        if !still.contains(&duty) {
            return;
        }
        let facts = self.carry_out(&duty);
        // Crash between the work and its record: the work is done again after the restart.
        if self.faults_on && self.rng.chance(self.knobs.crash_permille) {
            self.signer_dies();
            let back = self.now + self.rng.span(SECOND, 30 * SECOND);
            self.queue.at(back, Msg::Up(Actor::Signer));
            return;
        }
        if facts.is_empty() {
            return;
        }
        let (position, time) = (
            self.signer.state.position,
            self.signer.state.now(Timestamp(self.now)),
        );
        let appended = self.append(facts, &Word::of_signer(), position, time);
        self.decide_again(Actor::Signer, appended);
        if appended.is_none() {
            // Somebody wrote the subject meanwhile: read on, and see whether it is still owed.
            let at = self.now + self.rng.span(1, 50);
            let (epoch, seen) = (self.signer.epoch, position);
            catch_up(&mut self.signer.state, &self.log);
            self.queue.at(
                at,
                Msg::Owed {
                    epoch,
                    duty: Box::new(duty),
                    seen,
                },
            );
        }
    }

    fn carry_out(&mut self, duty: &Duty) -> Vec<Fact> {
        match duty {
            Duty::GenerateKey {
                authority_type,
                kind,
                rotation,
                generation,
            } => self.generate_key(*authority_type, *kind, *rotation, *generation),
            Duty::Sign { authorization } => self.sign(*authorization),
            Duty::SignBundle { authority_type, .. } => self.sign_bundle(*authority_type),
            Duty::RecordRetirement {
                authority_type,
                authority,
                outcome,
                activated,
            } => {
                let retired = AuthorityRetired {
                    authority_type: *authority_type,
                    authority: *authority,
                    outcome: *outcome,
                };
                let activated = activated.iter().map(|(kind, authority)| -> Fact {
                    let (kind, authority): (KeyKind, SpkiPin) = (*kind, *authority);
                    AuthorityActivated {
                        authority_type: *authority_type,
                        kind,
                        authority,
                    }
                    .into()
                });
                activated.chain([retired.into()]).collect()
            }
            Duty::Destroy {
                authority_type,
                authority,
            } => {
                self.signer.keys.remove(authority);
                let stores = vec!["sim".into()];
                vec![
                    AuthorityDestroyed {
                        authority_type: *authority_type,
                        authority: *authority,
                        stores,
                    }
                    .into(),
                ]
            }
            Duty::Revoke { holder, certificates } => {
                let (holder, certificates) = (holder.clone(), certificates.clone());
                vec![
                    CertificateRevoked {
                        holder,
                        certificates,
                        why: "removed".into(),
                    }
                    .into(),
                ]
            }
        }
    }

    /// A new key in the store; the prepared authority exists once the log holds it.
    fn generate_key(
        &mut self,
        authority_type: AuthorityType,
        kind: KeyKind,
        rotation: RotationId,
        generation: u32,
    ) -> Vec<Fact> {
        let id = self.rng.key();
        self.signer.keys.insert(id);
        let key = AuthorityKey {
            id,
            kind,
            public_key: String::new(),
            generation,
            certificate: String::new(),
            algorithm: String::new(),
            storage: String::new(),
            not_after: FAR,
            rotation: Some(rotation),
            position: Position(0),
        };
        vec![AuthorityKeyGenerated { authority_type, key }.into()]
    }

    fn sign(&mut self, authorization: AuthorizationId) -> Vec<Fact> {
        let Some(pending) = self.signer.state.pending.get(&authorization) else {
            return vec![];
        };
        // A destroyed key signs nothing, whatever the fold says.
        if !self.signer.keys.contains(&pending.granted.issuer) {
            return vec![];
        }
        let issued = issue(&pending.granted, &mut self.rng);
        self.as_signed(issued)
    }

    fn sign_bundle(&mut self, authority_type: AuthorityType) -> Vec<Fact> {
        let Some(bundle) = bundle_content(&self.signer.state, authority_type, Timestamp(self.now)) else {
            return vec![];
        };
        let (revision, phase, expires): (Position, Phase, Timestamp) =
            (bundle.revision, bundle.phase, bundle.expires);
        let signed = SignedBundle {
            document: String::new(),
            signature: String::new(),
            key: SpkiPin([0; 32]),
            public_key: String::new(),
            replacements: vec![],
        };
        let certified = bundle.authorities.iter().filter(|a| a.kind == KeyKind::Tls);
        let revocation_lists = certified.map(|a| (a.id, String::new())).collect();
        self.bundles.insert((authority_type, revision), bundle);
        vec![
            AuthorityBundleSigned {
                revocation_lists,
                authority_type,
                revision,
                phase,
                expires,
                bundle: signed,
            }
            .into(),
        ]
    }
}
