//! A guided rotation for the tests of its parts: two authorities with keys, the host's as a rotation has it.

use api::{
    plan::{Plan, PlanByHand, PlanStep},
    problem::Connections,
    shape::{Status, WatchLine},
};
use domain::{AuthorityType, Phase, Position, RotationId, command::Mode};

use super::{
    keys::Key,
    machine::{Effect, Guided},
};
use crate::screen::samples::{self, at};

/// The rotation in progress.
pub(super) fn rotation() -> RotationId {
    RotationId(uuid::Uuid::from_u128(7))
}

/// The status while the host authority is in this phase.
pub(super) fn status(phase: Phase) -> Status {
    let mut status = samples::status();
    let keys = status.authorities[0].keys.clone();
    status.authorities[1].keys = keys;
    let host = &mut status.authorities[0].rotation;
    host.phase = phase;
    host.current_id = (phase != Phase::Standby).then(rotation);
    status
}

/// The plan of the steps that are left.
pub(super) fn plan(phase: Phase, steps: &[Phase]) -> Plan {
    let idle = phase == Phase::Standby;
    let step = |phase: &Phase| PlanStep {
        phase: *phase,
        does: format!("what {phase} does"),
        if_forced: Connections { broken: 0, total: 6 },
        cut_off: vec![],
        locked_out: None,
        consumers: vec![],
    };
    Plan {
        cluster: "acme.cluster".into(),
        authority_type: AuthorityType::Host,
        position: Position(1042),
        time: at("02:00:00"),
        phase,
        mode: (!idle).then_some(Mode::Manual),
        started: (!idle).then(|| at("01:44:36")),
        since: (!idle).then(|| at("01:58:00")),
        broken_now: Connections::default(),
        generations: (1, 2),
        gate: None,
        consumers: (0, 0),
        steps: steps.iter().map(step).collect(),
        who: vec![],
        by_hand: vec![PlanByHand {
            phase: Phase::Standby,
            text: "join lines with the old pin stop".into(),
            command: None,
        }],
        refused_with: None,
    }
}

/// A line of the watch: everybody is there, or one of three lags.
pub(super) fn line(phase: Phase, done: bool, position: u64) -> WatchLine {
    let mut lagging = samples::laggards();
    lagging.truncate(usize::from(!done));
    WatchLine {
        time: at("02:00:00"),
        authority_type: AuthorityType::Host,
        phase,
        reached: if done { 3 } else { 2 },
        required: 3,
        excluded: 0,
        lagging,
        done,
        mode: (phase != Phase::Standby).then_some(Mode::Manual),
        held: false,
        next_refused: (!done).then_some(domain::Code::NodesLagging),
        outcome: None,
        position: Position(position),
    }
}

/// The host authority is chosen and shown in this phase.
pub(super) fn at_steps(phase: Phase) -> Guided {
    let mut guided = Guided::new(status(phase), None);
    let effect = guided.key(Key::Enter, at("02:00:00"));
    assert_eq!(effect, Effect::Look(AuthorityType::Host));
    let left = match phase {
        Phase::Standby => vec![Phase::Init],
        _ => phase.next().into_iter().collect(),
    };
    assert_eq!(guided.looked(status(phase), plan(phase, &left)), Effect::Nothing);
    guided
}

/// Types a text and Enter; the last key's effect.
pub(super) fn types(guided: &mut Guided, text: &str) -> Effect {
    for c in text.chars() {
        assert_eq!(guided.key(Key::Char(c), at("02:00:00")), Effect::Nothing, "{c}");
    }
    guided.key(Key::Enter, at("02:00:00"))
}
