//! What goes wrong in the virtual cluster, and when it ends.

use crate::{
    net::{Actor, Msg, Weather},
    node::Disk,
    world::{MINUTE, SECOND, Uptimes, World},
};

/// A fault that lasts.
#[derive(Clone, Copy, Debug)]
enum Fault {
    AgentOff(usize),
    AgentOffline(usize),
    /// A second instance with a copy of the disk.
    Clone(usize),
    OrchestratorOff(usize),
    SignerOff,
    GatewayOff(usize),
    GatewayCut(usize),
    GatewaySlow(usize),
    ClockOff(usize),
    /// The wall clock goes far ahead of the monotonic one, and comes back.
    ClockAhead(usize),
}

/// The troubles of a run.
#[derive(Default)]
pub struct Chaos {
    pub busy: bool,
    faults: Vec<Option<Fault>>,
    /// Disks as they were once, by agent.
    backups: Vec<(usize, Disk)>,
    /// The orchestrators' file of running times, as it was once.
    uptimes: Uptimes,
}

impl World {
    /// Something goes wrong, now and then.
    pub fn chaos_tick(&mut self) {
        if !self.chaos.busy {
            return;
        }
        let next = self.now + self.rng.span(10 * SECOND, 4 * MINUTE);
        self.queue.at(next, Msg::Tick(Actor::Chaos));
        let agent = self.rng.below(self.agents.len());
        let gateway = self.rng.below(self.gateways.len());
        let orchestrator = self.rng.below(self.orchestrators.len());
        let short = self.rng.span(SECOND, 2 * MINUTE);
        let long = self.rng.span(SECOND, 40 * MINUTE);
        match self.rng.below(100) {
            0..20 => self.break_for(Fault::AgentOff(agent), long),
            20..25 => {
                let very_long = self.rng.span(30 * MINUTE, 180 * MINUTE);
                self.break_for(Fault::AgentOff(agent), very_long);
            }
            25..35 => self.break_for(Fault::AgentOffline(agent), long),
            35..42 => self.agents[agent].broken_until = self.now + short,
            42..46 => self.back_up(agent),
            46..49 => self.restore_a_backup(),
            49..51 => self.break_for(Fault::Clone(agent), short),
            51..60 => self.break_for(Fault::OrchestratorOff(orchestrator), short),
            60..63 => self.break_for(Fault::OrchestratorOff(orchestrator), long),
            63..70 => self.break_for(Fault::SignerOff, short),
            70..72 => self.break_for(Fault::SignerOff, long),
            72..79 => self.break_for(Fault::GatewayOff(gateway), short),
            79..81 => self.break_for(Fault::GatewayOff(gateway), long),
            81..86 => self.break_for(Fault::GatewayCut(gateway), short),
            86..92 => self.break_for(Fault::GatewaySlow(gateway), long),
            92..94 => self.break_for(Fault::ClockOff(orchestrator), short),
            94..96 => self.break_for(Fault::ClockAhead(orchestrator), short),
            96 => self.chaos.uptimes = self.since_step.clone(),
            97 => self.since_step = self.chaos.uptimes.clone(),
            _ => self.change_the_weather(),
        }
    }

    fn break_for(&mut self, fault: Fault, ms: i64) {
        if self
            .chaos
            .faults
            .iter()
            .flatten()
            .any(|f| std::mem::discriminant(f) == std::mem::discriminant(&fault))
            && self.rng.chance(500)
        {
            return;
        }
        self.tell(|| format!("fault {fault:?} for {} s", ms / 1000));
        match fault {
            Fault::AgentOff(i) if self.agents[i].up => self.agent_stops(i),
            Fault::AgentOff(_) => return,
            Fault::AgentOffline(i) => self.agents[i].online = false,
            Fault::Clone(i) => {
                let a = &self.agents[i];
                let is_itself = a.disk.node.is_some_and(|node| self.owner.get(&node) == Some(&i));
                if !is_itself || a.stranded.is_some() || a.gone {
                    return;
                }
                self.clone_agent(i);
                let clone = self.agents.len() - 1;
                return self.note(Fault::Clone(clone), ms);
            }
            Fault::OrchestratorOff(i) => self.orchestrators[i].up = false,
            Fault::SignerOff => self.signer_dies(),
            Fault::GatewayOff(i) => {
                let in_order = self.rng.chance(500);
                self.gateway_stops(i, in_order);
            }
            Fault::GatewayCut(i) => self.gateways[i].cut = true,
            Fault::GatewaySlow(i) => self.gateways[i].slow_ms = self.rng.span(SECOND, 15 * SECOND),
            Fault::ClockOff(i) => {
                self.orchestrators[i].clock_offset_ms = self.rng.span(-120 * SECOND, 20 * SECOND)
            }
            Fault::ClockAhead(i) => {
                self.orchestrators[i].clock_offset_ms = self.rng.span(31 * SECOND, 30 * MINUTE)
            }
        }
        self.note(fault, ms);
    }

    fn note(&mut self, fault: Fault, ms: i64) {
        self.chaos.faults.push(Some(fault));
        let number = self.chaos.faults.len() - 1;
        self.queue.at(self.now + ms, Msg::Heal(number));
    }

    pub fn fault_ends(&mut self, number: usize) {
        let Some(fault) = self.chaos.faults[number].take() else {
            return;
        };
        self.tell(|| format!("end of fault {fault:?}"));
        match fault {
            Fault::AgentOff(i) => self.agent_starts(i),
            Fault::AgentOffline(i) => {
                self.agents[i].online = true;
                self.agents[i].online_since = self.now;
            }
            Fault::Clone(i) => {
                self.agent_stops(i);
                self.agents[i].gone = true;
            }
            Fault::OrchestratorOff(i) => self.orchestrator_starts(i),
            Fault::SignerOff => self.signer_starts(),
            Fault::GatewayOff(i) => self.gateway_starts(i),
            Fault::GatewayCut(i) => self.gateways[i].cut = false,
            Fault::GatewaySlow(i) => self.gateways[i].slow_ms = 0,
            Fault::ClockOff(i) | Fault::ClockAhead(i) => self.orchestrators[i].clock_offset_ms = 0,
        }
    }

    fn back_up(&mut self, i: usize) {
        if self.agents[i].disk.node.is_some() && !self.agents[i].tampered && !self.agents[i].gone {
            self.chaos.backups.push((i, self.agents[i].disk.clone()));
        }
    }

    /// A node's disk is set back to what it was.
    pub fn restore_a_backup(&mut self) {
        if self.chaos.backups.is_empty() {
            return;
        }
        let which = self.rng.below(self.chaos.backups.len());
        let (i, disk) = self.chaos.backups.swap_remove(which);
        if self.agents[i].disk.node != disk.node {
            return;
        }
        self.agent_stops(i);
        let a = &mut self.agents[i];
        (a.disk, a.tampered, a.set_back) = (disk, true, true);
        self.watch.leaves_fleet(i);
        self.tell(|| format!("agent {i} is set back to a backup"));
        let at = self.now + self.rng.span(SECOND, 20 * SECOND);
        self.queue.at(at, Msg::Up(Actor::Agent(i)));
    }

    /// A second instance of a node starts from a copy of its disk.
    fn clone_agent(&mut self, i: usize) {
        (self.agents[i].tampered, self.agents[i].set_back) = (true, true);
        self.watch.leaves_fleet(i);
        let (disk, hostname, uses) = (
            self.agents[i].disk.clone(),
            self.agents[i].hostname.clone(),
            self.agents[i].uses.clone(),
        );
        let clone = self.new_agent(self.now + 100);
        let a = &mut self.agents[clone];
        (a.disk, a.hostname, a.uses, a.tampered) = (disk, hostname, uses, true);
    }

    fn change_the_weather(&mut self) {
        let slow_ms = [0, SECOND, 30 * SECOND, 200 * SECOND][self.rng.below(4)];
        self.queue.weather = Weather {
            loss_permille: [0, 10, 100, 300][self.rng.below(4)],
            duplicate_permille: [0, 50, 200][self.rng.below(3)],
            slow_permille: [0, 50, 200][self.rng.below(3)],
            slow_ms,
        };
    }

    /// Everything that is broken is mended; nothing breaks any more.
    pub fn heal(&mut self) {
        self.tell(|| "everything is mended".into());
        (self.chaos.busy, self.operators.busy, self.faults_on) = (false, false, false);
        self.queue.weather = Weather::FAIR;
        for number in 0..self.chaos.faults.len() {
            self.fault_ends(number);
        }
        for i in 0..self.orchestrators.len() {
            self.orchestrator_starts(i);
        }
        self.signer_starts();
        self.knobs.signer_ms = 20;
        for i in 0..self.gateways.len() {
            (self.gateways[i].cut, self.gateways[i].slow_ms) = (false, 0);
            self.gateway_starts(i);
        }
        for i in 0..self.agents.len() {
            self.agents[i].broken_until = 0;
            self.agents[i].online = true;
            self.agent_starts(i);
        }
    }
}
