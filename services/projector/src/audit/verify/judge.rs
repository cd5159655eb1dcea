//! The second reading, event by event: phases, and who did what where the log does not say on which state.

use std::collections::{BTreeMap, BTreeSet};

use domain::{AuthorityType, ClusterState, Event, Fact, Position, event::Writer};

use super::{
    Check,
    actors::{self, Roles},
    count,
    decisions::Decisions,
    phases::{self, Evaluated},
    survey::PhaseAt,
};

/// Decisions and phases, judged event by event.
pub(super) struct Judge {
    pub(super) decisions: Check,
    phases: Check,
    rotations: BTreeSet<domain::RotationId>,
    /// Events of older versions, which do not say on which state they were decided.
    silent: u64,
    /// Who has said it, and so says it always: the orchestrator, the signer.
    has_said: [bool; 2],
    /// Phase events by the position that they were decided on, and their gates as evaluated there.
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
            silent: 0,
            has_said: [false; 2],
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
        self.on_which_state(state, event);
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

    /// An event that names the state that it was decided on is judged there. Of one that does not, only the actor is
    /// asked for, in the state before it; and a writer that has begun to name it does not stop.
    fn on_which_state(&mut self, state: &ClusterState, event: &Event) {
        let at = event.header.position;
        let said = &mut self.has_said[match event.fact.writer() {
            Writer::Orchestrator => 0,
            Writer::Signer => 1,
        }];
        match event.header.decided_at {
            Some(decided_at) if decided_at < at => *said = true,
            Some(decided_at) => {
                let why =
                    format!("says that it was decided on position {decided_at}, which is not before it");
                self.decisions.fail(Some(at), why);
            }
            None if *said => {
                let why = "does not say on which position it was decided, as its writer does by now";
                self.decisions.fail(Some(at), why);
            }
            None => {
                self.silent += 1;
                self.decisions.take(at, actors::check(state, &self.roles, event));
            }
        }
    }

    pub(super) fn finish(mut self, decisions: &Decisions) -> (Check, Check) {
        self.decisions.text = decisions.text();
        if self.silent > 0 {
            self.decisions.text.push_str(&format!(
                "; {} of an older version, not decided again: each by who might",
                count(self.silent, "event")
            ));
        }
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
