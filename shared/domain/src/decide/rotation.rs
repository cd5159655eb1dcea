//! Phase commands, scheduled steps and the end of a rotation.

use std::collections::BTreeSet;

use super::{Decided, Decision, needs_reason};
use crate::{
    authority::AuthorityType,
    command::{Answer, Command, Expectation, Given, LaggingPolicy, Mode, Order, Rotate},
    event::{
        ClusterClockAccepted, GateRecord, RotationHeld, RotationOutcome, RotationPhaseEntered,
        RotationResumed, RotationSettled,
    },
    gate::{self, Gate},
    id::{NodeId, RotationId},
    phase::{Phase, Transition},
    refusal::{Code, Refusal},
    schedule,
    state::{ClusterState, Rotation, TypeState},
    time::HOUR_MS,
};

/// The grace period when none is given, as in the operator's guide.
pub const DEFAULT_GRACE_PERIOD_MS: u64 = 48 * HOUR_MS;
/// How many names of passed-over nodes an event lists; all of them are in its digest.
const NAMES_IN_EVENT: usize = 100;

/// For how long the orchestrator has been there to hear of nodes, and whom the gateways saw.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Its running time in all since the step before, over restarts.
    pub uptime_since_step_ms: u64,
    /// Since its last start.
    pub uptime_ms: u64,
    /// Nodes that a gateway has or has had since the step before; none if nobody can say.
    pub seen: Option<&'a BTreeSet<NodeId>>,
}

/// A phase command of a person.
pub fn rotate(state: &ClusterState, command: &Command, rotate: &Rotate, given: &Given) -> Decided {
    let t = rotate.authority_type;
    let of = in_service(state, t)?;
    if rotate.grace_period_ms == Some(0) {
        return Err(Refusal::new(
            Code::GracePeriodInvalid,
            "the grace period must be longer than 0s",
        ));
    }
    expect(t, of, rotate.expects.as_ref())?;
    let Some(target) = rotate.target else {
        return start(of, rotate, given);
    };
    match of.phase.transition_to(target) {
        Transition::Noop => Ok(Decision::noop(
            command,
            format!("the {t} CA is already in phase {target}"),
            None,
        )),
        Transition::Forward if target == Phase::Init => start(of, rotate, given),
        Transition::Forward | Transition::Complete | Transition::FinishRollback => {
            let gate = gate::evaluate(state, t, target, given.now);
            gate.check(rotate.force)?;
            if !gate.is_open() {
                let text = "passing over lagging nodes needs --reason TEXT: it stands in the audit log";
                needs_reason(command, text).map_err(|no| Refusal::closed(no.code, no.text, gate.clone()))?;
            }
            step(state, t, target, Mode::Manual, &gate, given)
        }
        Transition::RollBack => {
            let gate = gate::evaluate(state, t, target, given.now);
            step(state, t, target, Mode::Manual, &gate, given)
        }
        Transition::InProgress => Err(in_progress()),
        Transition::OnlyFrom(from) => Err(Refusal::new(
            Code::IllegalTransition,
            format!(
                "can only switch to phase {target} from {from}, current phase is {}",
                of.phase
            ),
        )),
        Transition::NoWay => Err(Refusal::new(
            Code::IllegalTransition,
            format!("can not transition to phase {target} from phase {}", of.phase),
        )),
    }
}

/// The gate that a phase command would meet now, if it is a step and the gate is closed.
pub(super) fn still_closed(state: &ClusterState, command: &Command, given: &Given) -> Option<Gate> {
    let Order::Rotate(rotate) = &command.order else {
        return None;
    };
    let (of, target) = (state.types.get(&rotate.authority_type)?, rotate.target?);
    let is_step = matches!(
        of.phase.transition_to(target),
        Transition::Forward | Transition::Complete | Transition::FinishRollback
    );
    let gate = is_step.then(|| gate::evaluate(state, rotate.authority_type, target, given.now))?;
    (!gate.is_open()).then_some(gate)
}

/// A due step of a semi-automatic rotation: enters the next phase, or holds, or does what the policy says.
pub fn scheduled_step(
    state: &ClusterState,
    authority_type: AuthorityType,
    expects: &Expectation,
    heard: Heard<'_>,
    given: &Given,
) -> Decided {
    let of = in_service(state, authority_type)?;
    expect(authority_type, of, Some(expects))?;
    if given.clock_suspect {
        return Err(Refusal::new(
            Code::ClockSuspect,
            "no automatic step is taken while the clock is suspect",
        ));
    }
    let stale = || Refusal::new(Code::StaleView, "no step of a semi-automatic rotation is due");
    let rotation = of.rotation.as_ref().ok_or_else(stale)?;
    let (target, due_at) = schedule::next_step(rotation, of.phase).ok_or_else(stale)?;
    if given.now < due_at {
        return Err(stale());
    }
    let gate = gate::evaluate(state, authority_type, target, given.now);
    // However a step that was held goes on, the log says that nobody waits any more.
    let go_on = |to: Phase, mode: Mode, gate: &Gate| {
        let mut decision = step(state, authority_type, to, mode, gate, given)?;
        if rotation.held.is_some() {
            let resumed = RotationResumed {
                authority_type,
                rotation: rotation.id,
                due: to,
            };
            decision.facts.insert(0, resumed.into());
        }
        Ok(decision)
    };
    if gate.is_open() {
        return go_on(target, Mode::Automatic, &gate);
    }
    let may_act = schedule::policy_may_act(rotation, heard.uptime_since_step_ms, heard.uptime_ms)
        && schedule::row_was_handed_out(of, rotation, given.now);
    match rotation.on_lagging {
        LaggingPolicy::Proceed
            if may_act
                && schedule::proceed_may_pass(&gate, rotation)
                && schedule::nobody_is_there(&gate, heard.seen) =>
        {
            go_on(target, Mode::Automatic, &gate)
        }
        LaggingPolicy::Rollback if may_act && schedule::rollback_is_called_for(&gate) => {
            let back = gate::evaluate(state, authority_type, Phase::Rollback, given.now);
            go_on(Phase::Rollback, Mode::Manual, &back)
        }
        LaggingPolicy::Hold | LaggingPolicy::Proceed | LaggingPolicy::Rollback => {
            Ok(hold(rotation, &gate, due_at))
        }
    }
}

/// Records that everybody has followed a rotation into standby.
pub fn settle(state: &ClusterState, authority_type: AuthorityType, rotation: RotationId) -> Decided {
    let of = in_service(state, authority_type)?;
    let due = of.ended.as_ref().is_some_and(|e| e.id == rotation && !e.settled);
    if !due || !schedule::is_settled(state, authority_type) {
        return Err(Refusal::new(
            Code::StaleView,
            "the rotation is not there to be settled",
        ));
    }
    // All of them have reached it: who was excluded and is still away is neither required nor counted.
    let settled = RotationSettled {
        authority_type,
        rotation,
        required: schedule::followers(state, authority_type, of),
    };
    Ok(Decision::done(vec![settled.into()]))
}

/// A person says that the clock is right after all: automatic steps go on.
pub fn accept_clock(command: &Command, behind_ms: u64, given: &Given) -> Decided {
    if !given.clock_suspect {
        return Err(Refusal::new(
            Code::NothingSuspect,
            "the clock is not suspect; there is nothing to accept",
        ));
    }
    needs_reason(
        command,
        "accepting a suspect clock needs --reason TEXT: it stands in the audit log",
    )?;
    Ok(Decision::done(vec![ClusterClockAccepted { behind_ms }.into()]))
}

fn in_service(state: &ClusterState, t: AuthorityType) -> Result<&TypeState, Refusal> {
    let missing = || {
        let text = format!(
            "the {t} CA has no keys in this cluster, which an older version began; there is nothing to rotate"
        );
        Refusal::new(Code::TypeNotInService, text)
    };
    let of = state.types.get(&t).filter(|of| of.is_in_service());
    of.ok_or_else(missing)
}

fn in_progress() -> Refusal {
    Refusal::new(
        Code::RotationInProgress,
        "can not initiate rotation while another is in progress",
    )
}

/// Refuses when the caller looked at another rotation or phase than the current one.
pub(super) fn expect(t: AuthorityType, of: &TypeState, expects: Option<&Expectation>) -> Result<(), Refusal> {
    match expects.filter(|e| **e != of.expectation()) {
        Some(e) => Err(Refusal::new(
            Code::StaleView,
            format!(
                "the {t} CA is in phase {} now, not in {}: look again and repeat",
                of.phase, e.phase
            ),
        )),
        None => Ok(()),
    }
}

/// `standby -> init`: no gate. With a phase, or with `--manual`, the rotation is manual.
fn start(of: &TypeState, rotate: &Rotate, given: &Given) -> Decided {
    if of.phase != Phase::Standby {
        return Err(in_progress());
    }
    let mode = if rotate.manual || rotate.target.is_some() {
        Mode::Manual
    } else {
        Mode::Automatic
    };
    let entered = RotationPhaseEntered {
        authority_type: rotate.authority_type,
        rotation: RotationId(given.fresh[0]),
        from: Phase::Standby,
        to: Phase::Init,
        outcome: None,
        mode,
        grace_period_ms: rotate.grace_period_ms.unwrap_or(DEFAULT_GRACE_PERIOD_MS),
        on_lagging: rotate.on_lagging.unwrap_or_default(),
        gate: GateRecord::default(),
        forced: false,
        passed_over: vec![],
        passed_over_digest: None,
    };
    let answer = answer_of(&entered, false);
    Ok(Decision::new(vec![entered.into()], answer))
}

/// One step of a rotation in progress, through a gate that was checked or is overridden.
fn step(
    state: &ClusterState,
    t: AuthorityType,
    to: Phase,
    mode: Mode,
    gate: &Gate,
    given: &Given,
) -> Decided {
    let of = in_service(state, t)?;
    let rotation = of.rotation.as_ref().ok_or_else(in_progress)?;
    let outcome = match of.phase.transition_to(to) {
        Transition::Complete => Some(RotationOutcome::Completed),
        Transition::FinishRollback => Some(RotationOutcome::RolledBack),
        Transition::Forward
        | Transition::RollBack
        | Transition::Noop
        | Transition::InProgress
        | Transition::OnlyFrom(_)
        | Transition::NoWay => None,
    };
    let mut names = gate.overridden_names();
    if outcome.is_some() {
        // Whoever is excluded when the rotation ends is cut off until it returns and recovers.
        names.extend(
            rotation
                .excluded
                .iter()
                .filter_map(|id| state.nodes.get(id))
                .map(|n| n.hostname.to_string()),
        );
    }
    let digest = (!names.is_empty()).then(|| hex((given.sha256)(names.join("\n").as_bytes())));
    let entered = RotationPhaseEntered {
        authority_type: t,
        rotation: rotation.id,
        from: of.phase,
        to,
        outcome,
        mode,
        grace_period_ms: rotation.grace_period_ms,
        on_lagging: rotation.on_lagging,
        gate: record(gate),
        forced: mode == Mode::Manual && gate.overridden() > 0,
        passed_over: names.into_iter().take(NAMES_IN_EVENT).collect(),
        passed_over_digest: digest,
    };
    let became_manual = rotation.mode == Mode::Automatic && mode == Mode::Manual;
    let answer = answer_of(&entered, became_manual);
    Ok(Decision::new(vec![entered.into()], answer))
}

/// The answer to a phase command, from its event alone (a repeated command gets it from the log).
pub fn answer_of(entered: &RotationPhaseEntered, became_manual: bool) -> Answer {
    // Only nodes are cut off. Consumers and conditions stand in the same list, in words: a host name has no blank.
    let passed_over = entered.passed_over.iter().filter(|_| entered.outcome.is_some());
    let cut_off = passed_over.filter(|name| !name.contains(' ')).cloned();
    Answer::Phase {
        authority_type: entered.authority_type,
        rotation: Some(entered.rotation),
        phase: entered.to,
        mode: Some(entered.mode),
        noop: false,
        became_manual,
        cut_off: cut_off.collect(),
    }
}

fn hold(rotation: &Rotation, gate: &Gate, due_at: crate::Timestamp) -> Decision {
    if rotation.held.is_some() {
        return Decision::done(vec![]);
    }
    let mut names = gate.overridden_names();
    names.extend(gate.members.iter().map(|m| format!("{} {}", m.service, m.member)));
    names.extend(
        gate.keys_missing
            .iter()
            .map(|k| format!("new {} key", k.as_str())),
    );
    let held = RotationHeld {
        authority_type: gate.authority_type,
        rotation: rotation.id,
        due: gate.to,
        due_at,
        lagging: u32::try_from(gate.lagging.len()).unwrap_or(u32::MAX),
        names: names.into_iter().take(NAMES_IN_EVENT).collect(),
    };
    Decision::done(vec![held.into()])
}

/// The totals of a gate, for the event.
pub fn record(gate: &Gate) -> GateRecord {
    GateRecord {
        position: gate.position,
        required: gate.required,
        reached: gate.reached,
        excluded: gate.excluded,
        overridden: gate.overridden(),
    }
}

fn hex(digest: [u8; 32]) -> String {
    crate::id::BodyDigest(digest).to_string()
}
