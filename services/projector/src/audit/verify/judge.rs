//! The second reading: each decision in the state that it was made on.

use std::collections::{BTreeMap, BTreeSet};

use domain::{AuthorityType, ClusterState, CommandId, Event, Fact, Position, Principal};

use super::{
    Check,
    actors::{self, Roles},
    count,
    phases::{self, Evaluated},
    survey::PhaseAt,
    thousands,
};

/// Decisions and phases, judged event by event.
pub(super) struct Judge {
    decisions: Check,
    phases: Check,
    rotations: BTreeSet<domain::RotationId>,
    refused: u64,
    commands: BTreeSet<(Principal, CommandId)>,
    accepted: u64,
    /// Phase events by the position of their gates, and the gates as evaluated there.
    wanted: BTreeMap<Position, Vec<PhaseAt>>,
    evaluated: BTreeMap<Position, Evaluated>,
    /// The last two events of the rotation family of each type: a step may come with `resumed` before it.
    tails: BTreeMap<AuthorityType, [Position; 2]>,
    roles: Roles,
}

impl Judge {
    pub(super) fn new(wanted: BTreeMap<Position, Vec<PhaseAt>>) -> Self {
        Self {
            decisions: Check::new("decisions"),
            phases: Check::new("phases"),
            rotations: BTreeSet::new(),
            refused: 0,
            commands: BTreeSet::new(),
            accepted: 0,
            wanted,
            evaluated: BTreeMap::new(),
            tails: BTreeMap::new(),
            roles: Roles::default(),
        }
    }

    /// Takes in an event; `state` is the fold of everything before it.
    pub(super) fn before(&mut self, state: &ClusterState, event: &Event) {
        let at = event.header.position;
        for phase in self.wanted.remove(&state.position).unwrap_or_default() {
            self.evaluated
                .insert(phase.event, phases::evaluate(state, &phase));
        }
        self.count(event);
        self.decisions.take(at, actors::check(state, &self.roles, event));
        self.roles.remember(state, event);
        if let Fact::RotationPhaseEntered(f) = &event.fact {
            self.rotations.insert(f.rotation);
            let tails = self.tails.get(&f.authority_type).copied().unwrap_or_default();
            let evaluated = self.evaluated.remove(&at);
            self.phases
                .take(at, phases::check(state, event, f, evaluated, tails));
        }
        if let Some(t) = type_of(&event.fact) {
            let tails = self.tails.entry(t).or_default();
            *tails = [tails[1], at];
        }
    }

    fn count(&mut self, event: &Event) {
        let Some(command) = &event.header.command else {
            return;
        };
        match &event.fact {
            Fact::CommandRefused(f) => self.refused += u64::from(f.count),
            _ if self.commands.insert((event.header.actor.clone(), command.id)) => self.accepted += 1,
            _ => {}
        }
    }

    pub(super) fn finish(mut self) -> (Check, Check) {
        let (accepted, refused) = (count(self.accepted, "command"), thousands(self.refused));
        self.decisions.text = format!(
            "{accepted} accepted, {refused} refused; {}, each by who might",
            count(self.decisions.checked, "event")
        );
        self.phases.text = format!(
            "{}, every transition legal, every gate recomputed",
            count(self.rotations.len() as u64, "rotation")
        );
        (self.decisions, self.phases)
    }
}

/// The type whose `rotation` subject a fact stands on.
fn type_of(fact: &Fact) -> Option<AuthorityType> {
    match fact {
        Fact::RotationPhaseEntered(f) => Some(f.authority_type),
        Fact::RotationHeld(f) => Some(f.authority_type),
        Fact::RotationResumed(f) => Some(f.authority_type),
        Fact::RotationModeChanged(f) => Some(f.authority_type),
        Fact::RotationSettled(f) => Some(f.authority_type),
        _ => None,
    }
}
