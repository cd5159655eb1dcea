//! On whose word a phase was entered, and was it theirs to give?

use domain::{
    access::RoleName,
    command::{Expectation, LaggingPolicy, Rotate},
    event::RotationPhaseEntered,
    evolve::apply,
    state::Node,
};

use super::{
    phases::{row_is_met, sshd_is_met},
    *,
};

impl Watch {
    /// One command is carried out by one append.
    pub(super) fn carried_out(&mut self, world: &mut World, event: &Event) {
        if let Some(command) = &event.header.command {
            let key = (event.header.actor.clone(), command.id);
            let before = self.commands.insert(key, world.log.appends);
            if before.is_some_and(|before| before != world.log.appends) {
                world.violate(
                    ACKNOWLEDGED,
                    format!(
                        "one command was carried out twice, again at {}",
                        event.header.position
                    ),
                );
            }
        }
    }

    /// Who may ask for what, and whom a gate waits for that has no agent.
    pub(super) fn follow_people(&mut self, world: &mut World, event: &Event) {
        match &event.fact {
            Fact::AccessUserAdded(f) if f.roles.contains(&RoleName::Operator) => {
                self.operators.insert(Principal::User(f.user.clone()));
            }
            Fact::AccessRecovered(f) => _ = self.operators.insert(Principal::User(f.user.clone())),
            Fact::ClusterClockAccepted(f) => {
                self.clock_accepted = true;
                for orchestrator in &mut world.orchestrators {
                    orchestrator.accept_clock(event.header.time, f.behind_ms);
                }
            }
            Fact::ConsumerAdded(f) => {
                let key = (f.authority_type, f.consumer.clone());
                self.consumers.insert(key, (event.header.position, None));
            }
            Fact::ConsumerAttested(f) => {
                let key = (f.authority_type, f.consumer.clone());
                if let Some((_, attested)) = self.consumers.get_mut(&key) {
                    *attested = Some((f.rotation, f.phase));
                }
            }
            Fact::ConsumerWithdrawn(f) => {
                self.consumers.remove(&(f.authority_type, f.consumer.clone()));
            }
            _ => {}
        }
    }

    /// Held against the order as it was asked, not as the event tells it.
    pub(super) fn nobody_asked(
        &self,
        world: &World,
        event: &Event,
        f: &RotationPhaseEntered,
    ) -> Option<String> {
        let Some(command) = &world.asked else {
            return Some("nobody asked for it".into());
        };
        match &command.order {
            Order::Rotate(asked) => {
                if event.header.actor != command.principal || !self.operators.contains(&command.principal) {
                    return Some(format!("{} may not ask for it", command.principal));
                }
                self.differs_from_asked(f, asked).or_else(|| {
                    let has_reason = event
                        .header
                        .reason
                        .as_deref()
                        .is_some_and(|r| !r.trim().is_empty());
                    self.wrongly_forced(f, asked.force && has_reason)
                })
            }
            Order::ScheduledStep {
                authority_type,
                expects,
                ..
            } => {
                let is_due = *authority_type == f.authority_type && self.is_as_expected(f, expects);
                if !is_due {
                    return Some("another step was due".into());
                }
                let policy = self.policies.get(&f.authority_type).copied().unwrap_or_default();
                self.against_policy(world, f, policy)
            }
            other => Some(format!("`{}` enters no phase", other.name())),
        }
    }

    fn differs_from_asked(&self, f: &RotationPhaseEntered, asked: &Rotate) -> Option<String> {
        let target = asked.target.unwrap_or(Phase::Init);
        let is_it = asked.authority_type == f.authority_type && target == f.to;
        let is_as_shown = asked.expects.as_ref().is_none_or(|e| self.is_as_expected(f, e));
        (!is_it || !is_as_shown).then(|| format!("asked was {target}, as of {:?}", asked.expects))
    }

    fn is_as_expected(&self, f: &RotationPhaseEntered, expects: &Expectation) -> bool {
        expects.phase == f.from && expects.rotation == self.rotations.get(&f.authority_type).copied()
    }

    /// Nodes are passed over by a person who says so, and why.
    fn wrongly_forced(&self, f: &RotationPhaseEntered, is_forced: bool) -> Option<String> {
        let overrides = f.gate.overridden > 0;
        let is_wrong = overrides != f.forced || (overrides && !is_forced);
        is_wrong.then(|| format!("{} were passed over, and nobody forced it", f.gate.overridden))
    }

    /// The schedule passes over nodes, or turns back, as the policy says that was given with the rotation.
    fn against_policy(
        &self,
        world: &World,
        f: &RotationPhaseEntered,
        policy: LaggingPolicy,
    ) -> Option<String> {
        if f.to == Phase::Rollback {
            let may = policy == LaggingPolicy::Rollback && self.enough_lag(world, f);
            return (!may).then(|| format!("the schedule turned back by {policy:?}"));
        }
        let may = policy == LaggingPolicy::Proceed && f.to != Phase::Standby;
        (f.gate.overridden > 0 && !may).then(|| format!("the schedule passed over nodes by {policy:?}"))
    }

    /// At least 5 % and at least two, by what the nodes had said when it was decided.
    fn enough_lag(&self, world: &World, f: &RotationPhaseEntered) -> bool {
        let mut then = domain::ClusterState::default();
        for event in &world.log.events[..f.gate.position.0 as usize] {
            apply(&mut then, event);
        }
        let t = f.authority_type;
        let (mut required, mut behind) = (0, 0);
        for node in then.nodes.values() {
            let is_out = node.excluded.get(&t) == Some(&f.rotation);
            if node.uses(t).is_some() && !is_out {
                required += 1;
                behind += usize::from(is_behind(&then, t, node));
            }
        }
        behind >= 2 && behind * 20 >= required
    }
}

/// The rules for facts once more, by themselves.
fn is_behind(state: &domain::ClusterState, t: AuthorityType, node: &Node) -> bool {
    let (Some(uses), Some(of)) = (node.uses(t), state.types.get(&t)) else {
        return false;
    };
    let Some(reported) = &node.report else {
        return true;
    };
    let Some(facts) = reported.report.authorities.get(&t) else {
        return true;
    };
    let is_met = row_is_met(&facts.trusted, facts.client_issuer, facts.server_issuer, uses, of)
        && sshd_is_met(facts.ssh_issuer, of);
    let contradicts = t == AuthorityType::Host && facts.client_issuer != Some(reported.seen.issuer);
    let is_old = facts.revision < of.row_position;
    let talks_on = of.phase == Phase::UpdateServers && facts.sessions_on_retiring;
    node.clone_suspect.is_some() || is_old || talks_on || contradicts || !is_met
}
