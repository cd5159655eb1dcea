//! The protocol as a model: which steps there are in a world, and where each one leads.

use std::hash::{DefaultHasher, Hash, Hasher};

use domain::{
    AuthorizationId, Order,
    phase::Phase,
    reconcile::Proof,
    rules::{Rule, without},
};
use stateright::{Model, Property};

use crate::world::{HOST, Left, World, admin, rotate};

/// One step of somebody.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    Enter(Phase),
    Force(Phase),
    Exclude(usize),
    MakeKey,
    RecordKey,
    SignBundle,
    Sign(AuthorizationId),
    GatewayHolds,
    GatewayReports,
    GatewayBegins,
    GatewayStarts,
    GatewayIsLost,
    Call(usize),
    Send(usize),
    Step(usize),
    ReportArrives(usize),
    Sleep(usize),
    Wake(usize),
    Copy(usize),
    SetBack(usize),
    Renew(usize),
    Fail(usize),
    Wait,
}

/// How fine the steps are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grain {
    /// Every act by itself.
    Fine,
    /// Signer and gateway are done with what they owe after each step.
    Prompt,
    /// Besides, a node that talks to the gateway goes on until nothing is left for it to do.
    Coarse,
}

/// A model with its bounds.
#[derive(Clone, Debug)]
pub struct Protocol {
    pub agents: usize,
    pub left: Left,
    pub grain: Grain,
    /// The rule that is switched off.
    pub off: Option<Rule>,
    /// Every so many-th state is asked whether it heals; 0 asks none.
    pub heals_every: u64,
}

pub const LOST: &str = "no node is lost, and no retired authority accepted";
pub const HEALS: &str = "there is always a way to the end without force";

impl Protocol {
    pub fn new(agents: usize, grain: Grain, heals_every: u64, left: Left) -> Self {
        Self {
            agents,
            left,
            grain,
            off: None,
            heals_every,
        }
    }

    fn with_rules<R>(&self, work: impl FnOnce() -> R) -> R {
        match self.off {
            Some(rule) => without(rule, work),
            None => work(),
        }
    }

    fn take(&self, world: &mut World, action: &Action) -> bool {
        match action {
            Action::Enter(_) | Action::Force(_) | Action::Exclude(_) => return is_obeyed(world, action),
            Action::MakeKey => world.making = world.key_to_make(),
            Action::RecordKey => world.record_key(),
            Action::SignBundle => world.sign_bundle(HOST),
            Action::Sign(authorization) => world.sign(*authorization),
            Action::GatewayHolds => world.gateway_holds(),
            Action::GatewayReports => world.gateway_reports(),
            Action::GatewayBegins => world.gateway_begins(),
            Action::GatewayStarts => {
                world.left.restarts -= 1;
                world.gateway_starts();
            }
            Action::GatewayIsLost => {
                world.left.losses -= 1;
                if !world.gateway_is_lost() {
                    return false;
                }
            }
            Action::Call(i) if self.grain == Grain::Coarse => world.agent_goes_on(*i),
            Action::Call(i) => world.call(*i),
            Action::Send(i) => {
                if let Some(sent) = world.request_to_send(*i) {
                    world.send_request(*i, &sent);
                }
            }
            Action::Step(i) => {
                if let Some(step) = world.next_step(*i) {
                    world.take_step(*i, step);
                }
            }
            Action::ReportArrives(i) => world.report_arrives(*i),
            Action::Sleep(i) => {
                world.left.sleeps -= 1;
                world.agent_sleeps(*i);
            }
            Action::Wake(i) => world.agent_wakes(*i),
            Action::Copy(i) => {
                world.left.restores -= 1;
                world.agents[*i].backup = Some(world.agents[*i].disk.clone());
            }
            Action::SetBack(i) => world.agent_is_set_back(*i),
            Action::Renew(i) => {
                world.left.renewals -= 1;
                world.agents[*i].renews = true;
            }
            Action::Fail(i) => {
                world.left.failures -= 1;
                world.agents[*i].fails = true;
            }
            Action::Wait => {
                world.left.waits -= 1;
                world.now = world.now.plus_ms(11 * 60_000);
            }
        }
        true
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.with_rules(|| World::settled(self.agents, self.left))]
    }

    fn actions(&self, world: &World, to: &mut Vec<Action>) {
        self.with_rules(|| {
            let of = &world.log.types[&HOST];
            let next: &[Phase] = match of.phase {
                Phase::Standby if of.rotation.is_none() && world.left.rotations > 0 => &[Phase::Init],
                Phase::Standby => &[],
                Phase::Init => &[Phase::UpdateClients],
                Phase::UpdateClients => &[Phase::UpdateServers],
                Phase::UpdateServers | Phase::Rollback => &[Phase::Standby],
            };
            to.extend(next.iter().map(|phase| Action::Enter(*phase)));
            let is_under_way = of.rotation.is_some();
            if is_under_way && of.phase != Phase::Rollback && world.left.rollbacks > 0 {
                to.push(Action::Enter(Phase::Rollback));
            }
            if is_under_way && world.left.forces > 0 {
                to.extend(next.iter().map(|phase| Action::Force(*phase)));
            }
            if world.making.is_some() {
                to.push(Action::RecordKey);
            } else if world.key_to_make().is_some() {
                to.push(Action::MakeKey);
            }
            if world.owes_bundle() {
                to.push(Action::SignBundle);
            }
            to.extend(world.log.pending.keys().map(|id| Action::Sign(*id)));
            if world.gateway_may_hold() {
                to.push(Action::GatewayHolds);
            }
            if world.gateway_may_report() {
                to.push(Action::GatewayReports);
            }
            if world.gateway_may_begin() {
                to.push(Action::GatewayBegins);
            }
            if world.left.restarts > 0 {
                to.push(Action::GatewayStarts);
            }
            if world.left.losses > 0 {
                to.push(Action::GatewayIsLost);
            }
            if world.left.waits > 0 {
                to.push(Action::Wait);
            }
            for i in 0..world.agents.len() {
                self.actions_of(i, world, to);
            }
        });
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        self.with_rules(|| {
            let mut next = world.clone();
            if !self.take(&mut next, &action) {
                return None;
            }
            if self.grain != Grain::Fine {
                next.attend();
            }
            next.tidy();
            next.forget();
            next.check();
            (next != *world).then_some(next)
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LOST, |_, world: &World| world.wrong.is_none()),
            Property::always(HEALS, |model: &Self, world: &World| {
                let is_asked = model.heals_every > 0 && world.wrong.is_none() && {
                    let mut hasher = DefaultHasher::new();
                    world.hash(&mut hasher);
                    hasher.finish().is_multiple_of(model.heals_every)
                };
                !is_asked || model.with_rules(|| world.heals()).is_ok()
            }),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        world.wrong.is_none()
    }
}

impl Protocol {
    fn actions_of(&self, i: usize, world: &World, to: &mut Vec<Action>) {
        let (a, left) = (&world.agents[i], &world.left);
        if !a.up {
            if a.backup.is_some() {
                to.push(Action::SetBack(i));
            }
            to.push(Action::Wake(i));
        }
        if a.reporting.is_some() && world.gateway.serving {
            to.push(Action::ReportArrives(i));
        }
        if !a.up || a.stranded {
            return;
        }
        if world.may_call(i) {
            to.push(Action::Call(i));
        }
        let is_fine = self.grain != Grain::Coarse;
        if is_fine && world.request_to_send(i).is_some() {
            to.push(Action::Send(i));
        }
        if is_fine && world.next_step(i).is_some() {
            to.push(Action::Step(i));
        }
        if left.sleeps > 0 {
            to.push(Action::Sleep(i));
        }
        if left.restores > 0 && a.backup.is_none() && !a.set_back {
            to.push(Action::Copy(i));
        }
        if left.renewals > 0 && !a.renews && a.proof == Proof::Passed && a.disk.in_flight.is_empty() {
            to.push(Action::Renew(i));
        }
        if left.failures > 0 && !a.fails {
            to.push(Action::Fail(i));
        }
        let is_rotating = world.log.types[&HOST].rotation.is_some();
        if left.exclusions > 0 && is_rotating && !a.is_out {
            to.push(Action::Exclude(i));
        }
    }
}

/// A command of a person; one that is refused is no step.
fn is_obeyed(world: &mut World, action: &Action) -> bool {
    match action {
        Action::Enter(phase) => {
            match phase {
                Phase::Init => world.left.rotations -= 1,
                Phase::Rollback => world.left.rollbacks -= 1,
                Phase::Standby | Phase::UpdateClients | Phase::UpdateServers => {}
            }
            world.order(admin(), rotate(*phase, false)).is_ok()
        }
        Action::Force(phase) => {
            world.left.forces -= 1;
            world.order(admin(), rotate(*phase, true)).is_ok()
        }
        Action::Exclude(i) => {
            world.left.exclusions -= 1;
            let node = world.agents[*i].node();
            world.agents[*i].is_out = true;
            world.order(admin(), Order::ExcludeNode { node }).is_ok()
        }
        _ => false,
    }
}
