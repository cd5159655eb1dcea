//! Every authority type that is in service goes through its rotation, not the host's alone.

use std::{fs, path::Path};

use carousel_tests::{PATIENCE, deadline};

use crate::world::{Log, World, authority};

const FORWARD: [&str; 4] = ["init", "update_clients", "update_servers", "standby"];

#[test]
fn the_authority_of_people_rotates_and_whoever_works_on_keeps_access() {
    let mut world = World::start("types-user", Log::Embedded).expect("the embedded log is always there");
    join(&mut world, "n1", &["user"]);
    let alice = world.dir.join("alice.identity").display().to_string();
    let _ = world
        .carousel(&["users", "add", "alice", "--roles", "operator", "--out", &alice])
        .expect_code(0);
    let stays_away = world.dir.join("copy.identity").display().to_string();
    fs::copy(&alice, &stays_away).expect("a copy of the identity");
    let before = trusted(&world, "n1", "user");
    assert_eq!(before.len(), 1);
    world.enter_and_wait("user", "init");
    assert_eq!(trusted(&world, "n1", "user").len(), 2, "old and new side by side");
    world.enter_and_wait("user", "update_clients");
    world.enter_and_wait("user", "update_servers");
    // Alice holds a certificate of the old authority until she does something: the end waits for her, by name.
    let refused = world.enter("user", "standby");
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("alice"), "{}", refused.stderr);
    let _ = world.carousel(&["--identity", &alice, "status"]).expect_code(0);
    world.enter_and_wait("user", "standby");
    let after = trusted(&world, "n1", "user");
    assert_eq!(after.len(), 1);
    assert_ne!(after, before, "the node trusts the new authority alone");
    let _ = world.carousel(&["--identity", &alice, "status"]).expect_code(0);
    // The copy of before is of an authority that nobody accepts any more.
    let old = world.carousel(&["--identity", &stays_away, "status"]);
    assert_eq!(old.code, Some(4), "{}\n{}", old.stdout, old.stderr);
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

#[test]
fn every_other_type_rotates_and_goes_back_with_nodes_as_its_verifiers() {
    let types = ["db", "db_client", "saml_idp", "spiffe", "awsra", "windows"];
    let mut world = World::start("types-others", Log::Embedded).expect("the embedded log is always there");
    join(&mut world, "n1", &types);
    for name in types {
        let before = trusted(&world, "n1", name);
        assert_eq!(before.len(), 1, "{name}");
        for phase in ["init", "update_clients", "rollback", "standby"] {
            world.enter_and_wait(name, phase);
        }
        assert_eq!(trusted(&world, "n1", name), before, "{name} went back");
        assert_eq!(rotation(&world, name)["last_rotated"], serde_json::Value::Null);
        for phase in FORWARD {
            world.enter_and_wait(name, phase);
            let expected = if phase == "standby" { 1 } else { 2 };
            assert_eq!(trusted(&world, "n1", name).len(), expected, "{name} in {phase}");
        }
        assert_ne!(trusted(&world, "n1", name), before, "{name} has a new authority");
        assert!(rotation(&world, name)["last_rotated"].is_string(), "{name}");
    }
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// A node whose token grants these types beside `host`, once it holds all of them.
fn join(world: &mut World, name: &str, types: &[&str]) {
    let uses: Vec<String> = ["host"]
        .iter()
        .chain(types)
        .map(|t| format!("--use={t}"))
        .collect();
    let mut args = vec!["--name", name];
    args.extend(uses.iter().map(String::as_str));
    let (token, pins, bundle) = world.token(&args);
    world.join_with(name, &token, &pins, &bundle);
    world.until_reached(name);
    deadline(PATIENCE, &format!("{name} holds every type"), || {
        let node = world.node(name)?;
        let held = &node["spec"]["authorities"];
        types
            .iter()
            .all(|t| held[t].is_object() && held[t]["missing"].is_null())
            .then_some(())
    });
}

fn rotation(world: &World, name: &str) -> serde_json::Value {
    authority(&world.json(&["status"]), name)["rotation"].clone()
}

/// The certificates of a type's authorities that the node's applications are given.
fn trusted(world: &World, node: &str, name: &str) -> Vec<String> {
    let dir = world.dir.join(&format!("node-{node}"));
    let text = read(&dir.join("current").join(name).join("trust.pem"));
    let mut found: Vec<String> = text
        .split_inclusive("-----END CERTIFICATE-----")
        .filter(|part| part.contains("BEGIN CERTIFICATE"))
        .map(|part| part.trim().to_owned())
        .collect();
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
