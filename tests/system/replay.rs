//! The log alone tells what was: replays are held against what was answered at the time.

use std::fs;

use carousel_tests::eventually;
use serde_json::Value;

use crate::{
    proof::stop,
    world::{Log, World},
};

/// What was answered at one moment.
struct Moment {
    position: String,
    status: String,
    nodes: Value,
}

#[test]
fn a_replay_gives_what_was_answered_and_views_may_be_deleted() {
    let mut world = World::start("replay", Log::Embedded).expect("the embedded log is always there");
    let mut moments = vec![moment(&world)];
    for name in ["n1", "n2"] {
        world.join(name);
        moments.push(moment(&world));
    }
    for phase in ["init", "update_clients", "update_servers", "standby"] {
        world.enter_and_wait("host", phase);
        moments.push(moment(&world));
    }
    // A rotation that one node holds up, and its way back.
    world.agent("n2").kill();
    let _ = world.enter("host", "init").expect_code(0);
    moments.push(moment(&world));
    let _ = world
        .carousel(&["nodes", "exclude", "n2", "--reason", "its disk is dead"])
        .expect_code(0);
    moments.push(moment(&world));
    world.enter_and_wait("host", "rollback");
    moments.push(moment(&world));
    world.enter_and_wait("host", "standby");
    moments.push(moment(&world));
    assert!(moments.len() >= 10);
    moments.iter().for_each(|moment| check(&world, moment));
    views_are_disposable(&mut world, &moments);
}

/// Asks until nothing happened between the answers, so that they are about one position.
fn moment(world: &World) -> Moment {
    let mut found = None;
    eventually("a moment in which nothing happens", || {
        let status = json_text(world, &["status"]);
        let nodes = world.json(&["get", "nodes"]);
        let position = position(&status);
        let is_quiet = position == self::position(&json_text(world, &["status"]));
        let nodes = without_presence(nodes);
        found = is_quiet.then_some(Moment {
            position,
            status,
            nodes,
        });
        is_quiet
    });
    found.expect("set when it was quiet")
}

/// The same from the log alone, and by `--at`: byte for byte, but for presence.
fn check(world: &World, moment: &Moment) {
    let at = &moment.position;
    for args in [
        &["audit", "replay", "--view", "status", "--as-of", at][..],
        &["status", "--at", at],
    ] {
        let now = json_text(world, args);
        if moment.status.contains("\"online\"") {
            assert_eq!(
                without_presence(parsed(&now)),
                without_presence(parsed(&moment.status))
            );
        } else {
            assert_eq!(now, moment.status, "{args:?}");
        }
    }
    let nodes = world.json(&["audit", "replay", "--as-of", at, "--view", "nodes"]);
    assert_eq!(without_presence(nodes), moment.nodes, "nodes at {at}");
}

/// A control plane without its views makes them again from the log and gives the same answers.
fn views_are_disposable(world: &mut World, moments: &[Moment]) {
    let before = answers(world);
    stop(world);
    fs::remove_dir_all(world.data().join("views")).expect("the views are there");
    world.serve();
    assert_eq!(answers(world), before);
    moments.iter().for_each(|moment| check(world, moment));
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// What does not change by a restart itself, as bytes.
fn answers(world: &World) -> Vec<String> {
    let lists = ["rotations", "tokens", "users", "consumers", "authorities"];
    lists
        .iter()
        .map(|list| json_text(world, &["get", list]))
        .collect()
}

fn json_text(world: &World, args: &[&str]) -> String {
    let mut args = args.to_vec();
    args.push("--format=json");
    world.carousel(&args).expect_code(0)
}

fn position(status: &str) -> String {
    parsed(status)["position"].to_string()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// Presence is not in the log and outside every promise of sameness: in every answer it is an object `status`, and what
/// is left without those is the same for ever.
pub(crate) fn without_presence(mut answer: Value) -> Value {
    match &mut answer {
        Value::Object(fields) => {
            fields.retain(|name, value| name != "status" || !value.is_object());
            for value in fields.values_mut() {
                *value = without_presence(value.take());
            }
        }
        Value::Array(items) => {
            for item in items {
                *item = without_presence(item.take());
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    answer
}
