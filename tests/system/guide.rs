//! The rotation guide, line by line, as an administrator types it.
//!
//! Each step is taken as soon as the status allows; what the terminal showed is kept in `tests/scenarios`.

use std::process::Command;

use carousel_tests::{run, skip};
use serde_json::Value;

use crate::{
    terminal::Terminal,
    world::{Log, World},
};

/// The guide's own line.
const WHICH_PHASE: &str = "carousel get nodes --format=json | jq '.[] | {hostname: .spec.hostname, \
                           rotation: .spec.rotation.state, phase: .spec.rotation.phase}'";

/// A third of the grace period below, in milliseconds.
const THIRD_MS: u64 = 2000;

#[test]
fn the_guides_rotations_run_line_by_line() {
    if run(Command::new("sh").args(["-c", "command -v jq"])).code != Some(0) {
        return skip("the_guides_rotations_run_line_by_line", "jq is not installed");
    }
    let Some(mut world) = World::start("guide", Log::Embedded) else {
        return;
    };
    for name in ["node-1", "node-2", "node-3"] {
        world.join(name);
    }
    manual(&world);
    semi_automatic(&world);
    roll_back(&world);
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

fn manual(world: &World) {
    let mut terminal = Terminal::new(world);
    terminal.types("carousel status", 0);
    for phase in ["init", "update_clients", "update_servers", "standby"] {
        step(world, &mut terminal, phase);
    }
    terminal.kept_as("manual.txt");
}

fn roll_back(world: &World) {
    let mut terminal = Terminal::new(world);
    for phase in ["init", "update_clients", "update_servers", "rollback"] {
        step(world, &mut terminal, phase);
    }
    // From here the only way is back: the answer says so.
    terminal.types(
        "carousel auth rotate --manual --type=host --phase=update_servers",
        3,
    );
    step(world, &mut terminal, "standby");
    terminal.kept_as("rollback.txt");
}

/// One step of the guide: enter the phase, look at the status, look at the nodes.
fn step(world: &World, terminal: &mut Terminal<'_>, phase: &str) {
    terminal.types(
        &format!("carousel auth rotate --manual --type=host --phase={phase}"),
        0,
    );
    world.until_all_reached();
    terminal.types("carousel status", 0);
    terminal.types(WHICH_PHASE, 0);
}

/// Nobody touches it after the first line. How many nodes a status in the middle shows depends on the machine's
/// speed, so the log is asked afterwards.
fn semi_automatic(world: &World) {
    let before = world.json(&["status"])["position"].clone();
    let mut terminal = Terminal::new(world);
    terminal.types("carousel auth rotate --type=host --grace-period=6s", 0);
    terminal.types("carousel auth rotate --type=host", 3);
    terminal.types("carousel wait --type=host --phase=standby --timeout=60s", 0);
    world.until_all_reached();
    terminal.types("carousel status", 0);
    terminal.types(WHICH_PHASE, 0);
    terminal.kept_as("semi-automatic.txt");
    let entered = entered_since(world, &before);
    let phases: Vec<_> = entered.iter().map(|(phase, _)| phase.as_str()).collect();
    assert_eq!(phases, ["init", "update_clients", "update_servers", "standby"]);
    // Each step is due a third after the one before was made, and never earlier.
    for pair in entered.windows(2) {
        assert!(pair[1].1 - pair[0].1 >= THIRD_MS, "{entered:?}");
    }
}

/// The phases of the host authority that were entered after a position, with the milliseconds of the day.
fn entered_since(world: &World, position: &Value) -> Vec<(String, u64)> {
    let events = world.json(&["audit", "ls", "--type=rotation.phase-entered"]);
    let events = events.as_array().expect("an array of events").clone();
    let after = position.as_u64().expect("status names a position");
    events
        .iter()
        .filter(|event| event["position"].as_u64() > Some(after))
        .map(|event| {
            let phase = event["data"]["to"].as_str().expect("a phase").to_owned();
            (phase, millis(event["time"].as_str().expect("a time")))
        })
        .collect()
}

/// `2026-09-20T01:44:36.250Z` as milliseconds, good enough for differences within a month.
fn millis(time: &str) -> u64 {
    let part = |from: usize, to: usize| -> u64 { time[from..to].parse().expect("a number") };
    let hours = part(8, 10) * 24 + part(11, 13);
    ((hours * 60 + part(14, 16)) * 60 + part(17, 19)) * 1000 + part(20, 23)
}
