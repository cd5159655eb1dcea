//! Every authority type that is in service goes through its rotation, not the host's alone.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use carousel_tests::{PATIENCE, deadline, run, skip};
use serde_json::Value;

use crate::{
    wire::Wire,
    world::{Log, World, authority},
};

/// Times of key sets that a test can wait for: a second until a new key signs, three until nothing of an old one lives.
const SHORT: &str = "jwks_max_age_ms = 1000\njwt_ttl_ms = 3000\n";
const FORWARD: [&str; 4] = ["init", "update_clients", "update_servers", "standby"];

#[test]
fn the_authority_of_people_rotates_and_whoever_works_on_keeps_access() {
    let mut world = World::start("types-user", Log::Embedded).expect("the embedded log is always there");
    join(&mut world, "n1", &["user"]);
    // Half a minute less than the time before a new key signs: some readers do not look again any sooner.
    if let Some((_, cache)) = fetched(&world, "/v1/jwks/jwt") {
        assert_eq!(cache, "public, max-age=300");
    }
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
    let started = World::start_with("types-others", Log::Embedded, Some(SHORT));
    let mut world = started.expect("the embedded log is always there");
    join(&mut world, "n1", &types);
    for name in types {
        let before = trusted(&world, "n1", name);
        assert_eq!(before.len(), 1, "{name}");
        for phase in ["init", "update_clients", "rollback", "standby"] {
            enter(&world, name, phase);
        }
        assert_eq!(trusted(&world, "n1", name), before, "{name} went back");
        assert_eq!(rotation(&world, name)["last_rotated"], Value::Null);
        for phase in FORWARD {
            enter(&world, name, phase);
            let expected = if phase == "standby" { 1 } else { 2 };
            assert_eq!(trusted(&world, "n1", name).len(), expected, "{name} in {phase}");
        }
        assert_ne!(trusted(&world, "n1", name), before, "{name} has a new authority");
        assert!(rotation(&world, name)["last_rotated"].is_string(), "{name}");
    }
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

#[test]
fn keys_without_certificates_rotate_and_go_back_and_are_published_for_those_who_verify() {
    let started = World::start_with("types-keys", Log::Embedded, Some(SHORT));
    let mut world = started.expect("the embedded log is always there");
    // A node verifies by all of them, and each gate waits for it.
    join(&mut world, "n1", &["openssh", "jwt", "oidc_idp", "okta", "user"]);
    for name in ["openssh", "jwt", "oidc_idp", "okta"] {
        let before = exported(&world, name);
        assert_eq!(before.len(), 1, "{name}: {before:?}");
        for phase in ["init", "update_clients", "rollback"] {
            enter(&world, name, phase);
            assert_eq!(exported(&world, name).len(), 2, "{name} in {phase}");
            assert_eq!(on_node(&world, name), exported(&world, name), "{name} in {phase}");
        }
        enter(&world, name, "standby");
        assert_eq!(exported(&world, name), before, "{name} went back");
        for phase in FORWARD {
            enter(&world, name, phase);
            let expected = if phase == "standby" { 1 } else { 2 };
            assert_eq!(exported(&world, name).len(), expected, "{name} in {phase}");
            assert_eq!(on_node(&world, name), exported(&world, name), "{name} in {phase}");
        }
        assert_ne!(exported(&world, name), before, "{name} has a new key");
    }
    // The types with keys of two kinds: what OpenSSH is given changes with what TLS is given.
    for name in ["host", "user"] {
        let lines = || ssh_lines(&world, name);
        let before = lines();
        assert_eq!(before.len(), 1, "{name}");
        enter(&world, name, "init");
        assert_eq!(lines().len(), 2, "{name}");
        assert!(lines().contains(&before[0]), "{name}: old and new side by side");
        assert_eq!(on_node(&world, name), lines(), "{name}");
        enter(&world, name, "rollback");
        enter(&world, name, "standby");
        assert_eq!(lines(), before, "{name}");
    }
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

#[test]
fn a_reader_of_key_sets_finds_a_new_key_before_it_signs_and_an_old_one_until_its_last_token_is_over() {
    let test = "types-jwks";
    let started = World::start_with(test, Log::Embedded, Some(SHORT));
    let world = started.expect("the embedded log is always there");
    let Some((keys, cache)) = fetched(&world, "/v1/jwks/jwt") else {
        return skip(test, "Python is not installed");
    };
    let [old] = &keys[..] else { panic!("{keys:?}") };
    let warnings = world.json(&["status"])["warnings"].to_string();
    assert!(
        warnings.contains("the life of a published key set is 1s"),
        "{warnings}"
    );
    assert_eq!(
        cache, "public, max-age=0",
        "less than the second before a new key signs"
    );
    world.enter_and_wait("jwt", "init");
    let both = kids(&world);
    assert_eq!((both.len(), &both[0]), (2, old));
    let new = both[1].clone();
    // Not before the publication time is over; then the rotation goes on.
    for phase in ["update_clients", "update_servers", "standby"] {
        enter(&world, "jwt", phase);
    }
    assert_eq!(kids(&world), [new.clone(), old.clone()]);
    deadline(PATIENCE, "the old key leaves the set", || {
        (kids(&world) == [new.clone()]).then_some(())
    });

    let bundle = Wire::of(&world).get("/v1/spiffe/bundle").expect("it is public");
    let uses: Vec<_> = bundle["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .map(|key| &key["use"])
        .collect();
    assert_eq!(uses, ["x509-svid", "jwt-svid"]);
    let sequence = |bundle: &Value| bundle["spiffe_sequence"].as_u64().expect("a number");
    world.enter_and_wait("spiffe", "init");
    let next = Wire::of(&world).get("/v1/spiffe/bundle").expect("it is public");
    assert_eq!(next["keys"].as_array().map(Vec::len), Some(4));
    assert!(sequence(&next) > sequence(&bundle));
}

/// The ids of the keys in the set, by somebody else's TLS and HTTP.
fn kids(world: &World) -> Vec<String> {
    fetched(world, "/v1/jwks/jwt").expect("as before").0
}

/// The key ids of a set and its `Cache-Control`, fetched by Python with its strictest rules for certificates; `None` without
/// Python.
fn fetched(world: &World, path: &str) -> Option<(Vec<String>, String)> {
    const SCRIPT: &str = "
import json, ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
context.verify_flags |= ssl.VERIFY_X509_STRICT
with urllib.request.urlopen(sys.argv[2], context=context, timeout=30) as answer:
    print(json.dumps([[key['kid'] for key in json.load(answer)['keys']], answer.headers['Cache-Control']]))
";
    let exists = Command::new("python3")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok();
    if !exists {
        return None;
    }
    let pem = world.carousel(&["auth", "export", "--type=host"]).expect_code(0);
    let pem = world.dir.write("host.pem", &pem);
    let mut python = Command::new("python3");
    python
        .args(["-c", SCRIPT])
        .arg(pem)
        .arg(format!("{}{path}", world.url));
    Some(serde_json::from_str(&run(&mut python).expect_code(0)).expect("the script's answer"))
}

/// One step, once its gate is open: what a new key signs waits for the time of its publication.
fn enter(world: &World, name: &str, phase: &str) {
    deadline(PATIENCE, &format!("{phase} of {name}"), || {
        let entered = world.enter(name, phase);
        let is_early = entered.code == Some(3) && entered.stderr.contains("publication_time");
        assert!(entered.code == Some(0) || is_early, "{}", entered.stderr);
        (!is_early).then_some(())
    });
    world.enter_and_wait(name, phase);
}

/// What a type's verifiers are given, one entry for each trusted key: its lines for OpenSSH, or the ids of its key set.
fn exported(world: &World, name: &str) -> Vec<String> {
    if name == "openssh" {
        return ssh_lines(world, name);
    }
    let of_type = format!("--type={name}");
    let text = world
        .carousel(&["auth", "export", &of_type, "--as=jwks"])
        .expect_code(0);
    let set: Value = serde_json::from_str(&text).expect("a key set");
    let keys = set["keys"].as_array().expect("keys").iter();
    let mut kids: Vec<String> = keys
        .map(|key| key["kid"].as_str().expect("an id").to_owned())
        .collect();
    kids.sort();
    kids
}

/// The same, as it lies on the node.
fn on_node(world: &World, name: &str) -> Vec<String> {
    let current = world.dir.join("node-n1").join("current");
    let mut found: Vec<String> = match name {
        "host" => read(&current.join("ssh_known_hosts"))
            .lines()
            .map(str::to_owned)
            .collect(),
        "user" | "openssh" => read(&current.join(name).join("trusted_user_ca_keys"))
            .lines()
            .map(str::to_owned)
            .collect(),
        _ => {
            let set: Value =
                serde_json::from_str(&read(&current.join(name).join("jwks.json"))).expect("a key set");
            let keys = set["keys"].as_array().expect("keys").iter();
            keys.map(|key| key["kid"].as_str().expect("an id").to_owned())
                .collect()
        }
    };
    found.sort();
    found
}

/// The lines that sshd or ssh are given; OpenSSH reads each of them.
fn ssh_lines(world: &World, name: &str) -> Vec<String> {
    let of_type = format!("--type={name}");
    let text = world
        .carousel(&["auth", "export", &of_type, "--as=ssh"])
        .expect_code(0);
    let path = world.dir.write("lines", &text).display().to_string();
    // Lines of known_hosts are looked up; those of TrustedUserCAKeys have a fingerprint each.
    let (marker, asked) = match name {
        "host" => (
            "@cert-authority * ecdsa-",
            ["-F", "web-1.example", "-f", &path].to_vec(),
        ),
        _ => ("ecdsa-", ["-l", "-f", &path].to_vec()),
    };
    let shown = run(Command::new("ssh-keygen").args(asked)).expect_code(0);
    let found = shown
        .lines()
        .filter(|line| line.starts_with("# Host ") || line.ends_with("(ECDSA)"))
        .count();
    assert_eq!(found, text.lines().count(), "{shown}");
    assert!(text.lines().all(|line| line.starts_with(marker)), "{text}");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
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

fn rotation(world: &World, name: &str) -> Value {
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
