//! Each phase event decided again: the transition, the gate where it was evaluated, and who passed over what.

use domain::{
    BodyDigest, ClusterState, Event, Phase, Position, Principal,
    command::{LaggingPolicy, Mode},
    decide::rotation::record,
    event::{RotationOutcome, RotationPhaseEntered},
    gate::{self, Gate},
    id::SystemActor,
    phase::Transition,
    schedule::{proceed_may_pass, rollback_is_called_for},
    state::{Rotation, TypeState},
};

use super::survey::PhaseAt;

/// How many names the event lists.
const NAMES_IN_EVENT: usize = 100;

/// The gate as it was at the position that the event names.
pub(super) struct Evaluated {
    gate: Gate,
    /// The gate into the next phase: what a policy of turning back looks at.
    forward: Option<Gate>,
    rotation: Option<Rotation>,
    excluded: Vec<String>,
}

/// Evaluates a gate in the state where it was evaluated first.
pub(super) fn evaluate(state: &ClusterState, phase: &PhaseAt) -> Evaluated {
    let t = phase.authority_type;
    let of = state.types.get(&t);
    let rotation = of.and_then(|of| of.rotation.clone());
    let excluded = rotation
        .iter()
        .flat_map(|r| &r.excluded)
        .filter_map(|id| state.nodes.get(id));
    let next = of.and_then(|of| of.phase.next());
    Evaluated {
        gate: gate::evaluate(state, t, phase.to, phase.time),
        forward: next.map(|next| gate::evaluate(state, t, next, phase.time)),
        excluded: excluded.map(|node| node.hostname.to_string()).collect(),
        rotation,
    }
}

/// Was this phase rightly entered? `tails` are the last two positions on the rotation's subject before it.
pub(super) fn check(
    state: &ClusterState,
    event: &Event,
    f: &RotationPhaseEntered,
    evaluated: Option<Evaluated>,
    tails: [Position; 2],
) -> Result<(), String> {
    let idle = TypeState::default();
    let of = state.types.get(&f.authority_type).unwrap_or(&idle);
    if f.from != of.phase {
        return Err(format!(
            "recorded as a step from {}, but {} was in {}",
            f.from, f.authority_type, of.phase
        ));
    }
    let transition = of.phase.transition_to(f.to);
    let outcome = match transition {
        Transition::Forward | Transition::RollBack => None,
        Transition::Complete => Some(RotationOutcome::Completed),
        Transition::FinishRollback => Some(RotationOutcome::RolledBack),
        Transition::Noop | Transition::InProgress | Transition::OnlyFrom(_) | Transition::NoWay => {
            return Err(format!("there is no way from {} to {}", f.from, f.to));
        }
    };
    if f.outcome != outcome {
        return Err(format!(
            "the outcome of a step from {} to {} is recorded wrongly",
            f.from, f.to
        ));
    }
    if f.to == Phase::Init {
        return if of.rotation.is_none() {
            Ok(())
        } else {
            Err("a rotation began inside another one".into())
        };
    }
    if of.rotation_id() != Some(f.rotation) {
        return Err(format!("the rotation {} is not the one in progress", f.rotation));
    }
    if event.header.decided_at.is_some_and(|at| at != f.gate.position) {
        return Err(format!(
            "its gate is recorded at position {}, but it was decided elsewhere",
            f.gate.position
        ));
    }
    // The condition of the append: nothing happened to the rotation between its gate and its step, but for the
    // `resumed` that is stored together with it.
    let is_alone = tails[1] <= f.gate.position
        || (tails[1].0 + 1 == event.header.position.0 && tails[0] <= f.gate.position);
    let evaluated = evaluated.filter(|_| is_alone && f.gate.position < event.header.position);
    let evaluated = evaluated.ok_or_else(|| {
        format!(
            "its gate is recorded at position {}, which does not belong to this step",
            f.gate.position
        )
    })?;
    check_gate(event, f, transition, &evaluated)
}

fn check_gate(
    event: &Event,
    f: &RotationPhaseEntered,
    transition: Transition,
    evaluated: &Evaluated,
) -> Result<(), String> {
    let gate = &evaluated.gate;
    let found = record(gate);
    if found != f.gate {
        return Err(format!(
            "the gate at position {} is recorded with {} of {} nodes reached ({} passed over), recomputed with {} of {} ({})",
            f.gate.position,
            f.gate.reached,
            f.gate.required,
            f.gate.overridden,
            found.reached,
            found.required,
            found.overridden
        ));
    }
    check_names(f, evaluated)?;
    let by_clock = event.header.actor == Principal::System(SystemActor::Clock);
    let rotation = evaluated
        .rotation
        .as_ref()
        .ok_or("no rotation was in progress at its gate")?;
    match transition {
        Transition::RollBack if by_clock => {
            let called_for = evaluated.forward.as_ref().is_some_and(rollback_is_called_for);
            if rotation.on_lagging == LaggingPolicy::Rollback && called_for {
                Ok(())
            } else {
                Err("the schedule turned back without being told to".into())
            }
        }
        Transition::RollBack => Ok(()),
        _ if gate.is_open() => Ok(()),
        _ if !gate.is_open_by_force() => Err(refused(
            gate,
            "a control-plane service or a new key was missing, which nobody may pass over",
        )),
        _ if by_clock => {
            let policy = rotation.mode == Mode::Automatic && rotation.on_lagging == LaggingPolicy::Proceed;
            if policy && proceed_may_pass(gate, rotation) {
                Ok(())
            } else {
                Err(refused(
                    gate,
                    "the schedule passed over more than its policy allows",
                ))
            }
        }
        _ if f.forced
            && event
                .header
                .reason
                .as_deref()
                .is_some_and(|reason| !reason.trim().is_empty()) =>
        {
            Ok(())
        }
        _ => Err(refused(gate, "nobody overrode it with a reason")),
    }
}

/// Whoever was passed over is named in the event: the first hundred, and all of them by digest.
fn check_names(f: &RotationPhaseEntered, evaluated: &Evaluated) -> Result<(), String> {
    let mut names = evaluated.gate.overridden_names();
    if f.outcome.is_some() {
        names.extend(evaluated.excluded.iter().cloned());
    }
    let digest =
        (!names.is_empty()).then(|| BodyDigest(execution::sha256(names.join("\n").as_bytes())).to_string());
    if digest != f.passed_over_digest || !names.iter().take(NAMES_IN_EVENT).eq(&f.passed_over) {
        return Err("the names of those who were passed over are not those of the gate".into());
    }
    Ok(())
}

/// `recorded accepted, recomputed refused nodes_lagging (edge-3): …`.
fn refused(gate: &Gate, why: &str) -> String {
    let code = gate
        .check(false)
        .err()
        .map(|refusal| refusal.code.name())
        .unwrap_or("open");
    let names = gate.overridden_names();
    let shown = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    format!("recorded accepted, recomputed refused {code} ({shown}): {why}")
}
