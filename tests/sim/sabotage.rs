//! Parts of the control plane that do what they never may, one at a time.
//!
//! The rules that can be switched off break some invariants; the others would only ever be seen to hold. Here a
//! part does what its code has no switch for, and an ordinary rotation must give it away.

use domain::{
    AuthorizationId, Command, Event, Fact, Order, Phase, Principal, Timestamp, event::CertificateIssued,
    evolve::apply,
};

use crate::{
    invariants::{ACKNOWLEDGED, AGAIN, AUTHORISED, COMPLETES, GATE, REPLAY},
    rules::{enter, settled},
    run::complete,
    world::{MINUTE, World},
};

/// What is done that never may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// The orchestrator says yes, and dies before it appends.
    AnswersBeforeAppend,
    /// The orchestrator forgets what it has answered, and its answers are lost.
    ForgetsCommands,
    /// The orchestrator passes over nodes that nobody asked it to pass over.
    ForcesUnasked,
    /// The orchestrator counts a node that is not there.
    Miscounts,
    /// The signer signs what nobody authorised: the fold ignores it, and it is out in the world.
    SignerInvents,
    /// The signer signs a second time, with another key in it.
    SignerSubstitutes,
    /// The fold looks at something that is not in the log.
    FoldReadsTheClock,
    /// A follower leaves an event out.
    FollowerSkips,
}

impl Sabotage {
    pub const ALL: [Self; 8] = [
        Self::AnswersBeforeAppend,
        Self::ForgetsCommands,
        Self::ForcesUnasked,
        Self::Miscounts,
        Self::SignerInvents,
        Self::SignerSubstitutes,
        Self::FoldReadsTheClock,
        Self::FollowerSkips,
    ];

    /// The invariant that gives it away.
    pub fn breaks(self) -> &'static str {
        match self {
            Self::AnswersBeforeAppend | Self::ForgetsCommands => ACKNOWLEDGED,
            Self::ForcesUnasked => GATE,
            Self::Miscounts => AGAIN,
            Self::SignerInvents | Self::SignerSubstitutes => AUTHORISED,
            Self::FoldReadsTheClock | Self::FollowerSkips => REPLAY,
        }
    }
}

/// An ordinary rotation in a small cluster, with the questions that are asked at the end of every run.
pub fn an_ordinary_rotation(sabotage: Option<Sabotage>) -> World {
    let mut world = settled(2, 1);
    world.sabotage = sabotage;
    let ends = enter(&mut world, Phase::Init, false)
        && enter(&mut world, Phase::UpdateClients, false)
        && complete(&mut world, 30 * MINUTE);
    if world.violation.is_none() {
        world.ask_everything_again();
        world.compare_replay();
    }
    if !ends {
        world.violate(COMPLETES, "an ordinary rotation does not end");
    }
    world
}

impl World {
    pub fn is_sabotaged(&self, by: Sabotage) -> bool {
        self.sabotage == Some(by)
    }

    /// Is it a phase command of a person, which the orchestrator treats as it never may?
    pub fn is_mistreated(&self, command: &Command, by: Sabotage) -> bool {
        let is_theirs = matches!(command.principal, Principal::User(_));
        self.is_sabotaged(by) && is_theirs && matches!(command.order, Order::Rotate(_))
    }

    /// The orchestrator's fold loses what it has answered.
    pub fn forget_commands(&mut self, orchestrator: usize, command: &Command) {
        if self.is_mistreated(command, Sabotage::ForgetsCommands) {
            self.orchestrators[orchestrator].state.commands.clear();
        }
    }

    /// The command as it is decided: as it was asked.
    pub fn as_decided(&self, command: &Command) -> Command {
        let mut decided = command.clone();
        if let (true, Order::Rotate(rotate)) = (
            self.is_mistreated(command, Sabotage::ForcesUnasked),
            &mut decided.order,
        ) {
            rotate.force = true;
        }
        decided
    }

    /// The facts of a decision as they are appended: as they were decided.
    pub fn as_appended(&self, mut facts: Vec<Fact>) -> Vec<Fact> {
        for fact in &mut facts {
            if let (true, Fact::RotationPhaseEntered(f)) = (self.is_sabotaged(Sabotage::Miscounts), fact) {
                f.gate.required += 1;
            }
        }
        facts
    }

    /// What the signer records for an authorisation: the one certificate.
    pub fn as_signed(&mut self, issued: CertificateIssued) -> Vec<Fact> {
        match self.sabotage {
            Some(Sabotage::SignerInvents) => {
                let authorization = AuthorizationId(self.rng.uuid());
                let invented = CertificateIssued {
                    authorization,
                    ..issued.clone()
                };
                vec![issued.into(), invented.into()]
            }
            Some(Sabotage::SignerSubstitutes) => {
                let spki = self.rng.key();
                let substitute = CertificateIssued {
                    spki,
                    ..issued.clone()
                };
                vec![issued.into(), substitute.into()]
            }
            _ => vec![issued.into()],
        }
    }

    /// Folds an event into the truth.
    pub fn fold(&mut self, event: &Event) {
        if self.is_sabotaged(Sabotage::FoldReadsTheClock) {
            let mut late = event.clone();
            late.header.time = Timestamp(late.header.time.0 + 1);
            apply(&mut self.truth, &late);
        } else {
            apply(&mut self.truth, event);
        }
    }

    /// A gateway's fold goes over what it would skip: reports of nodes, without which it goes on for a while.
    pub fn skip_reports(&mut self, g: usize) {
        if !self.is_sabotaged(Sabotage::FollowerSkips) {
            return;
        }
        let state = &mut self.gateways[g].state;
        for event in &self.log.events[state.position.0 as usize..] {
            if matches!(event.fact, Fact::NodeReported(_)) {
                state.position = event.header.position;
            } else {
                apply(state, event);
            }
        }
    }
}
