//! What somebody tries who should not be here: one function for each attack, and the code that it is refused with.
//!
//! Each attack goes over real sockets to real processes. What a defence is made of is tested where it stands; here
//! it is only whether anybody gets through.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    wire::Wire,
    world::{World, text},
};

mod exposed;
mod impostor;
mod replays;
mod routes;
mod stolen;
mod strangers;

/// The administrator's own way to the gateway.
fn admin(world: &World) -> Wire {
    identified(&Wire::of(world), &world.data().join("admin.identity"))
}

/// A new person with these roles.
fn person(world: &World, wire: &Wire, name: &str, roles: &str) -> Wire {
    let file = world.dir.join(&format!("{name}.identity"));
    let out = file.display().to_string();
    let add = ["users", "add", name, "--roles", roles, "--out", &out];
    let _ = world.carousel(&add).expect_code(0);
    identified(wire, &file)
}

/// With the certificate and key of an identity file.
fn identified(wire: &Wire, file: &Path) -> Wire {
    let identity = fs::read(file).expect("it was written");
    let identity: Value = serde_json::from_slice(&identity).expect("JSON");
    wire.presenting(&text(&identity["certificate"]), &text(&identity["key"]))
}

/// A command's body with an id of its own.
fn command(mut body: Value) -> Value {
    body["id"] = json!(Uuid::now_v7());
    body
}

/// The events of a type, or of all.
fn events(world: &World, of: Option<&str>) -> Vec<Value> {
    let mut args = vec!["audit", "ls", "--all"];
    args.extend(of.map(|of| ["--type", of]).into_iter().flatten());
    world.json(&args).as_array().expect("an array of events").clone()
}

/// How often what was done: all events by their type, without those that come by themselves, and refusals.
fn deeds(world: &World) -> BTreeMap<String, usize> {
    let quiet = [
        "rotation.settled",
        "node.reported",
        "member.reported",
        "command.refused",
        "command.noop",
        "access.credential-presented",
        "authorization.granted",
        "certificate.issued",
        "authority.bundle-signed",
    ];
    let mut counted = BTreeMap::new();
    for event in events(world, None) {
        let of = text(&event["type"]);
        if !quiet.iter().any(|quiet| of.contains(quiet)) {
            *counted.entry(of).or_insert(0) += 1;
        }
    }
    counted
}
