//! Operators under fire: rotations forward, back and by schedule, one after another, and tokens beside them.
//!
//! A command whose answer did not come is repeated with the same id until there is one, as automation does: in the log
//! it must be once.

use std::time::Duration;

use api::ClientError;
use carousel_tests::{Dice, run};
use domain::TokenHash;
use serde_json::{Value, json};

use super::{fleet::Fleet, record::Entry};
use crate::wire::Wire;

/// How long an operator waits before the next try of what was refused for now.
const PATIENCE_PAUSE: Duration = Duration::from_millis(300);
/// The grace period of a semi-automatic rotation: a step every third of it.
const GRACE: Duration = Duration::from_secs(6);

/// Rotates until the time is over.
pub(crate) fn rotate(fleet: &Fleet, seed: u64) {
    let mut dice = Dice::new(seed);
    let forward: &[&str] = &["init", "update_clients", "update_servers", "standby"];
    let ways_back: [&[&str]; 3] = [
        &["init", "rollback", "standby"],
        &["init", "update_clients", "rollback", "standby"],
        &["init", "update_clients", "update_servers", "rollback", "standby"],
    ];
    while !fleet.is_over() {
        match dice.below(4) {
            0 | 1 => through(fleet, &mut dice, forward),
            2 => {
                let back = ways_back[dice.below(ways_back.len())];
                through(fleet, &mut dice, back);
            }
            _ => by_schedule(fleet),
        }
    }
}

/// Enters the phases one after another.
fn through(fleet: &Fleet, dice: &mut Dice, phases: &[&str]) {
    for phase in phases {
        // Now and then by the command line, which must say the same clear words.
        if dice.chance(250) {
            by_command_line(fleet, phase);
        }
        enter(fleet, phase);
    }
}

/// Enters one phase, however long its gate is closed.
pub(crate) fn enter(fleet: &Fleet, phase: &str) {
    let ask = |id: &str| {
        let body = json!({"id": id, "type": "host", "phase": phase, "manual": true});
        until_answered(fleet, "/v1/rotate", &body, &format!("rotate --phase={phase}"))
    };
    while !fleet.is_over() && ask(&fresh_id()).is_none() {
        fleet.pass(PATIENCE_PAUSE);
    }
}

/// One semi-automatic rotation; a node that is away holds it.
fn by_schedule(fleet: &Fleet) {
    let grace = u64::try_from(GRACE.as_millis()).expect("short");
    let body = json!({"id": fresh_id(), "type": "host", "grace_period_ms": grace});
    let begun = until_answered(fleet, "/v1/rotate", &body, "rotate");
    while begun.is_some() && !fleet.is_over() && in_progress(fleet) != Some(false) {
        if clock_is_suspect(fleet) {
            // As a person does who reads what the status says, and has looked at the clock.
            let body = json!({"id": fresh_id(), "reason": "the dice moved it"});
            until_answered(fleet, "/v1/clock/accept", &body, "clock accept");
        }
        fleet.pass(PATIENCE_PAUSE);
    }
}

/// Does the status say that no automatic step is taken?
fn clock_is_suspect(fleet: &Fleet) -> bool {
    let status = Wire::of_admin(&fleet.world).and_then(|wire| wire.try_get("/v1/status").ok());
    let warnings = status.as_ref().and_then(|status| status["warnings"].as_array());
    let mut warnings = warnings.into_iter().flatten().filter_map(Value::as_str);
    warnings.any(|warning| warning.contains("no automatic step is taken"))
}

/// Is a rotation of `host` in progress? `None` where nobody could say.
pub(crate) fn in_progress(fleet: &Fleet) -> Option<bool> {
    let wire = Wire::of_admin(&fleet.world)?;
    let status = wire.try_get("/v1/status").ok()?;
    let all = status["authorities"].as_array()?;
    let host = all.iter().find(|authority| authority["type"] == "host")?;
    Some(host["rotation"]["state"] == "in_progress")
}

fn by_command_line(fleet: &Fleet, phase: &str) {
    let phase = format!("--phase={phase}");
    let args = ["auth", "rotate", "--manual", "--type=host", &phase];
    let finished = run(&mut fleet.world.command(&args));
    fleet.record.note(Entry::Command {
        command: args.join(" "),
        id: None,
        code: finished.code.unwrap_or(-1),
        answer: Value::Null,
        said: finished.stderr,
    });
}

/// Makes tokens until the time is over; each is asked for twice.
pub(crate) fn make_tokens(fleet: &Fleet, seed: u64) {
    let mut dice = Dice::new(seed);
    while !fleet.is_over() {
        let hash = TokenHash(dice.bytes());
        let body =
            json!({"id": fresh_id(), "hash": hash, "names": ["later.test"], "uses": 1, "ttl_ms": 86_400_000});
        if until_answered(fleet, "/v1/tokens", &body, "tokens add").is_some() {
            until_answered(fleet, "/v1/tokens", &body, "tokens add");
        }
        fleet.pass(PATIENCE_PAUSE);
    }
}

/// Sends the same command until there is a definite answer: what was done, or `None` for a no.
pub(crate) fn until_answered(fleet: &Fleet, path: &str, body: &Value, command: &str) -> Option<Value> {
    let note = |code: i32, answer: Value, said: String| {
        fleet.record.note(Entry::Command {
            command: command.into(),
            id: body["id"].as_str().map(str::to_owned),
            code,
            answer,
            said,
        });
    };
    while !fleet.is_over() {
        let Some(wire) = Wire::of_admin(&fleet.world) else {
            fleet.pass(PATIENCE_PAUSE);
            continue;
        };
        match wire.try_post(path, body) {
            Ok(answer) => {
                note(0, answer.clone(), String::new());
                return Some(answer);
            }
            Err(ClientError::Problem(problem)) => {
                note(
                    3,
                    Value::Null,
                    format!("refused: {}: {}", problem.code.name(), problem.detail),
                );
                if problem.status != 429 && problem.status < 500 {
                    return None;
                }
            }
            Err(error) => note(4, Value::Null, in_words(&error)),
        }
        fleet.pass(PATIENCE_PAUSE);
    }
    None
}

fn fresh_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// An error with all that caused it.
pub(crate) fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
