//! The virtual cluster: one log, whoever writes and follows it, the fleet, and time.
//!
//! Everything that the product decides is decided here by the product's own pure functions; the world only
//! moves bytes between them, and now and then fails to.

use std::collections::BTreeMap;

use domain::{
    AuthorityType, ClusterState, Command, CommandId, Credential, Event, Fact, Given, Header, NodeId, Order,
    Position, Principal, Refusal, Timestamp,
    command::{Answer, Answered},
    decide,
    event::CommandRef,
    evolve::apply,
    id::{BodyDigest, SystemActor},
    refusal::Code,
    trust::Bundle,
};

use crate::{
    chaos::Chaos,
    control::{Orchestrator, Signer},
    gateway::Gateway,
    invariants::{Violation, Watch},
    net::{Actor, Msg, PATIENCE_MS, Queue, Weather},
    node::{Agent, Session},
    operator::Operators,
    rng::Rng,
    sabotage::Sabotage,
};

mod execute;
pub mod genesis;
mod words;

/// The virtual time at which every run begins: some day, so that certificates can begin before it.
pub const START: i64 = 1_800_000_000_000;
/// The end of an authority's life: after every run, and a time that RFC 3339 can write.
pub const FAR: Timestamp = Timestamp(START + 10 * 365 * 24 * 60 * MINUTE);
pub const SECOND: i64 = 1_000;
pub const MINUTE: i64 = 60 * SECOND;

/// The size of a run.
#[derive(Clone, Debug)]
pub struct Knobs {
    pub agents: usize,
    pub gateways: usize,
    pub orchestrators: usize,
    pub node_ttl_ms: u64,
    pub user_ttl_ms: u64,
    pub max_offline_ms: u64,
    pub drain_timeout_ms: u64,
    pub weather: Weather,
    /// How often a decision is made on a fold that is not the newest.
    pub stale_permille: u64,
    /// How often the control plane dies between two durable acts, and answers are lost after one.
    pub crash_permille: u64,
    /// How often an agent dies between two of its steps.
    pub agent_crash_permille: u64,
    /// How often a node's proof fails.
    pub proof_fails_permille: u64,
    /// How often a report waits on its way from the gateway, or arrives twice.
    pub late_permille: u64,
    /// How long the signer may take for a duty.
    pub signer_ms: i64,
    /// Does every agent use the user authority too?
    pub user_verifiers: bool,
    /// Does every node that serves have an sshd with a certificate?
    pub sshds: bool,
}

impl Knobs {
    /// A small cluster in which nothing fails: for directed scenarios.
    pub fn calm(agents: usize, gateways: usize) -> Self {
        Self {
            agents,
            gateways,
            orchestrators: 1,
            node_ttl_ms: 12 * 60 * MINUTE as u64,
            user_ttl_ms: 6 * 60 * MINUTE as u64,
            max_offline_ms: 24 * 60 * MINUTE as u64,
            drain_timeout_ms: 10 * SECOND as u64,
            weather: Weather::FAIR,
            stale_permille: 0,
            crash_permille: 0,
            agent_crash_permille: 0,
            proof_fails_permille: 0,
            late_permille: 0,
            signer_ms: 20,
            user_verifiers: false,
            sshds: false,
        }
    }

    /// A cluster with troubles, drawn from the seed.
    pub fn drawn(rng: &mut Rng) -> Self {
        let weather = match rng.below(4) {
            0 => Weather::FAIR,
            1 => Weather {
                loss_permille: 20,
                duplicate_permille: 20,
                slow_permille: 50,
                slow_ms: 2 * SECOND,
            },
            2 => Weather {
                loss_permille: 100,
                duplicate_permille: 50,
                slow_permille: 100,
                slow_ms: 60 * SECOND,
            },
            _ => Weather {
                loss_permille: 30,
                duplicate_permille: 200,
                slow_permille: 300,
                slow_ms: 300 * SECOND,
            },
        };
        let ttls = [20, 40, 120];
        Self {
            agents: 2 + rng.below(4),
            gateways: 1 + rng.below(2),
            orchestrators: 1 + rng.below(2),
            node_ttl_ms: (ttls[rng.below(3)] * MINUTE) as u64,
            user_ttl_ms: (ttls[rng.below(2)] * MINUTE) as u64,
            max_offline_ms: 120 * MINUTE as u64,
            drain_timeout_ms: 10 * SECOND as u64,
            weather,
            stale_permille: [0, 100, 300][rng.below(3)],
            crash_permille: [0, 5, 20][rng.below(3)],
            agent_crash_permille: [0, 5, 30][rng.below(3)],
            proof_fails_permille: [0, 20, 150][rng.below(3)],
            late_permille: [0, 0, 20, 80][rng.below(4)],
            signer_ms: [50, 2 * SECOND, 60 * SECOND, 240 * SECOND][rng.below(4)],
            user_verifiers: rng.chance(600),
            sshds: false,
        }
    }
}

/// The log: events in one order, and the last position of each subject for conditional appends.
#[derive(Default)]
pub struct Log {
    pub events: Vec<Event>,
    /// How often something was appended; the facts of one append are one act.
    pub appends: u64,
    tails: BTreeMap<(&'static str, String), Position>,
}

/// Per type: the step before, and the orchestrators' running time since then.
pub type Uptimes = BTreeMap<AuthorityType, (Timestamp, u64)>;

/// On whose word something is written.
pub struct Word {
    pub actor: Principal,
    pub credential: Option<Credential>,
    pub command: Option<CommandRef>,
    pub reason: Option<String>,
}

impl Word {
    /// The signer's own word.
    pub fn of_signer() -> Self {
        Self {
            actor: Principal::System(SystemActor::Signer),
            credential: None,
            command: None,
            reason: None,
        }
    }
}

/// What became of a command.
pub enum Outcome {
    Yes(Answered),
    No(Refusal),
    /// Nobody answered; whether it was carried out is not known.
    Silence,
}

/// The whole virtual cluster.
pub struct World {
    pub seed: u64,
    pub knobs: Knobs,
    pub rng: Rng,
    pub now: i64,
    pub queue: Queue,
    pub log: Log,
    /// The fold of the whole log: what is true.
    pub truth: ClusterState,
    pub orchestrators: Vec<Orchestrator>,
    pub signer: Signer,
    pub gateways: Vec<Gateway>,
    pub agents: Vec<Agent>,
    /// Which agent is (or was last) which node.
    pub owner: BTreeMap<NodeId, usize>,
    pub sessions: Vec<Session>,
    pub operators: Operators,
    pub chaos: Chaos,
    /// Every signed bundle, by type and revision: agents read the content, the log holds the signed text.
    pub bundles: BTreeMap<(AuthorityType, Position), Bundle>,
    /// Running time of the orchestrator since the step before, per type, over its restarts.
    pub since_step: Uptimes,
    pub watch: Watch,
    pub violation: Option<Violation>,
    /// The run in words, when somebody reads it.
    pub trace: Option<Vec<String>>,
    pub faults_on: bool,
    /// The phase command or due step that is being carried out, as it was asked.
    pub asked: Option<Command>,
    /// What a part does that it never may.
    pub sabotage: Option<Sabotage>,
}

impl World {
    /// Says what happens, for whoever reads a failing run.
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        let at = (self.now - START) as f64 / 1000.0;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{at:>10.3}s  {}", what()));
        }
    }

    /// Lets time pass until the given moment, or until an invariant is violated.
    pub fn run_until(&mut self, until: i64) {
        while self.violation.is_none() {
            let Some((time, msg)) = self.queue.next() else {
                break;
            };
            if time > until {
                self.queue.at(time, msg);
                break;
            }
            self.now = time.max(self.now);
            self.happen(msg);
        }
        self.now = self.now.max(until);
    }

    /// Lets so much time pass.
    pub fn run_for(&mut self, ms: i64) {
        self.run_until(self.now + ms);
    }

    /// Lets time pass until something is true; false if it is not within the time.
    pub fn run_while(&mut self, at_most_ms: i64, waiting: impl Fn(&Self) -> bool) -> bool {
        let until = self.now + at_most_ms;
        while self.violation.is_none() && waiting(self) {
            if self.now >= until {
                return false;
            }
            self.run_for(SECOND.min(until - self.now));
        }
        true
    }

    fn happen(&mut self, msg: Msg) {
        match msg {
            Msg::Tick(actor) => self.tick(actor),
            Msg::Follow(actor) => self.follow(actor),
            Msg::Call { sent, .. } if self.now - sent >= PATIENCE_MS => {}
            Msg::Call {
                gateway,
                agent,
                boot,
                hello,
                call,
                ..
            } => self.gateway_called(gateway, agent, boot, hello, call),
            Msg::Reply { agent, boot, reply } => self.agent_hears(agent, boot, *reply),
            Msg::Late(command) => _ = self.execute(&command),
            Msg::Deed(deed) => self.deed_arrives(*deed),
            Msg::Owed { epoch, duty, seen } => self.signer_works(epoch, *duty, seen),
            Msg::Proved {
                agent,
                boot,
                generation,
            } => self.agent_proved(agent, boot, &generation),
            Msg::DrainOver { agent, boot, issuer } => self.drain_is_over(agent, boot, issuer),
            Msg::Up(actor) => self.come_up(actor),
            Msg::Heal(fault) => self.fault_ends(fault),
        }
    }

    fn tick(&mut self, actor: Actor) {
        match actor {
            Actor::Orchestrator(i) => self.orchestrator_tick(i),
            Actor::Signer => self.signer_tick(),
            Actor::Gateway(i) => self.gateway_tick(i),
            Actor::Agent(i) => self.agent_tick(i),
            Actor::Operator => self.operator_tick(),
            Actor::Chaos => self.chaos_tick(),
            Actor::Sessions => self.sessions_tick(),
        }
    }

    fn follow(&mut self, actor: Actor) {
        match actor {
            Actor::Signer => self.signer_follows(),
            Actor::Gateway(i) => self.gateway_follows(i),
            Actor::Agent(i) => self.agent_steps(i),
            Actor::Orchestrator(_) | Actor::Operator | Actor::Chaos | Actor::Sessions => {}
        }
    }

    fn come_up(&mut self, actor: Actor) {
        match actor {
            Actor::Orchestrator(i) => self.orchestrator_starts(i),
            Actor::Signer => self.signer_starts(),
            Actor::Gateway(i) => self.gateway_starts(i),
            Actor::Agent(i) => self.agent_starts(i),
            Actor::Operator | Actor::Chaos | Actor::Sessions => {}
        }
    }

    /// Appends facts as one, if the first one's subject has not grown since the fold they were decided on.
    /// Checks the invariants after each event.
    pub fn append(
        &mut self,
        facts: Vec<Fact>,
        word: &Word,
        decided_at: Position,
        time: Timestamp,
    ) -> Option<Position> {
        let subject = |fact: &Fact| (fact.family(), fact.holder());
        let tail = self
            .log
            .tails
            .get(&subject(&facts[0]))
            .copied()
            .unwrap_or_default();
        if tail > decided_at {
            return None;
        }
        self.log.appends += 1;
        for fact in facts {
            let position = Position(self.log.events.len() as u64 + 1);
            self.log.tails.insert(subject(&fact), position);
            let header = Header {
                position,
                id: domain::EventId(self.rng.uuid()),
                time,
                actor: word.actor.clone(),
                credential: word.credential.clone(),
                command: word.command.clone(),
                reason: word.reason.clone(),
                decided_at: Some(decided_at),
            };
            let event = Event { header, fact };
            self.tell(|| {
                format!(
                    "    log {position}: {} {}",
                    event.fact.type_name(),
                    words::brief(&event.fact)
                )
            });
            let mut watch = std::mem::take(&mut self.watch);
            watch.before(self, &event);
            self.fold(&event);
            watch.after(self, &event);
            self.watch = watch;
            self.log.events.push(event);
        }
        self.wake_followers();
        Some(Position(self.log.events.len() as u64))
    }

    fn wake_followers(&mut self) {
        let delay = |rng: &mut Rng| {
            if rng.chance(50) {
                rng.span(50, 2_000)
            } else {
                rng.span(1, 40)
            }
        };
        if !std::mem::replace(&mut self.signer.will_follow, true) {
            let at = self.now + delay(&mut self.rng);
            self.queue.at(at, Msg::Follow(Actor::Signer));
        }
        for i in 0..self.gateways.len() {
            if !std::mem::replace(&mut self.gateways[i].will_follow, true) {
                let at = self.now + delay(&mut self.rng) + self.gateways[i].slow_ms;
                self.queue.at(at, Msg::Follow(Actor::Gateway(i)));
            }
        }
    }

    /// Ends the run: an invariant does not hold.
    pub fn violate(&mut self, invariant: &'static str, detail: impl Into<String>) {
        if self.violation.is_none() {
            let detail = detail.into();
            self.tell(|| format!("VIOLATED {invariant}: {detail}"));
            let at = self.log.events.len() as u64;
            self.violation = Some(Violation {
                invariant,
                detail,
                position: at,
            });
        }
    }
}

/// Reads the log to its end.
pub fn catch_up(state: &mut ClusterState, log: &Log) {
    for event in &log.events[state.position.0 as usize..] {
        apply(state, event);
    }
}
