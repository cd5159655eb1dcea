//! The history of rotations, which the state forgets: one document for each, from its events alone.

use api::shape::{RotationDoc, RotationPhaseDoc, go_duration};
use domain::{
    Event, Fact, Header, Phase, RotationId,
    command::{LaggingPolicy, Mode},
    event::RotationPhaseEntered,
};

/// The rotation that an event belongs to, if its document shows something of it.
pub(crate) fn rotation_of(event: &Event) -> Option<RotationId> {
    match &event.fact {
        Fact::RotationPhaseEntered(f) => Some(f.rotation),
        Fact::RotationModeChanged(f) => Some(f.rotation),
        Fact::RotationSettled(f) => Some(f.rotation),
        _ => None,
    }
}

/// The document after the event.
pub(crate) fn record(doc: Option<RotationDoc>, event: &Event) -> Option<RotationDoc> {
    let Event { header, fact } = event;
    match fact {
        Fact::RotationPhaseEntered(f) => {
            let mut doc = doc.unwrap_or_else(|| begun(header, f));
            enter(&mut doc, header, f);
            Some(doc)
        }
        Fact::RotationModeChanged(f) => doc.map(|doc| RotationDoc { mode: f.mode, ..doc }),
        Fact::RotationSettled(_) => doc.map(|doc| RotationDoc {
            settled: Some(header.time),
            ..doc
        }),
        _ => doc,
    }
}

fn begun(header: &Header, f: &RotationPhaseEntered) -> RotationDoc {
    RotationDoc {
        id: f.rotation,
        authority_type: f.authority_type,
        phase: Phase::Standby,
        mode: Mode::Manual,
        grace_period: go_duration(f.grace_period_ms),
        on_lagging: LaggingPolicy::default(),
        started: header.time,
        ended: None,
        outcome: None,
        settled: None,
        phases: vec![],
    }
}

fn enter(doc: &mut RotationDoc, header: &Header, f: &RotationPhaseEntered) {
    doc.phase = f.to;
    doc.mode = f.mode;
    doc.on_lagging = f.on_lagging;
    doc.outcome = f.outcome;
    doc.ended = f.outcome.map(|_| header.time);
    // The same event twice, after a crash between the log and the views, is one phase.
    if doc
        .phases
        .last()
        .is_none_or(|last| last.position < header.position)
    {
        doc.phases.push(RotationPhaseDoc {
            phase: f.to,
            entered: header.time,
            by: header.actor.clone(),
            reason: header.reason.clone(),
            position: header.position,
            gate: f.gate,
            forced: f.forced,
        });
    }
}
