//! Bad input at the door: each with its code, its exit code and what to do, and no secret anywhere afterwards.

use std::fs;

use carousel_tests::{Finished, PATIENCE, eventually};
use serde_json::{Value, json};

use crate::{
    wire::Wire,
    world::{Log, World, given_up},
};

mod host;

#[test]
fn whoever_may_not_join_is_told_why_and_nothing_is_lost() {
    let mut world = World::start("joining-refused", Log::Embedded).expect("the embedded log is always there");
    let unused = world.token(&["--name", "n1"]);
    let (pins, bundle) = (unused.1.clone(), unused.2.clone());
    let wrong_pin = format!("sha256:{}", "ab".repeat(32));
    let wrong_token = "deadbeef".repeat(8);
    // Whoever is not sure of the server sends it no token: this one still works below.
    let (wrong_ca, wrong_key) = (([wrong_pin.clone()], &*bundle), (&pins[..], &*wrong_pin));
    refused_join(
        &world,
        "n1",
        &unused.0,
        (&wrong_ca.0, wrong_ca.1),
        4,
        "none of its authorities has a given --ca-pin",
    );
    refused_join(
        &world,
        "n1",
        &unused.0,
        wrong_key,
        4,
        "not by the pinned bundle key",
    );
    let good = (&pins[..], &*bundle);
    refused_join(&world, "n1", &wrong_token, good, 3, "refused: token_unknown:");
    refused_join(&world, "n2", &unused.0, good, 3, "refused: name_not_granted:");
    let expired = world.token(&["--name", "n3", "--ttl", "1s"]).0;
    eventually("the token expires", || {
        let tokens = world.json(&["get", "tokens"]);
        let is_over = |token: &Value| token["names"][0] == "n3" && token["expired"] == true;
        tokens.as_array().expect("tokens").iter().any(is_over)
    });
    refused_join(&world, "n3", &expired, good, 3, "refused: token_expired:");
    // The first good join, with a token that went through all of this.
    world.join_with("n1", &unused.0, &pins, &bundle);
    world.until_reached("n1");
    refused_join(&world, "n1", &unused.0, good, 3, "refused: token_used:");
    let taken = world.token(&["--name", "n1"]);
    refused_join(&world, "n1", &taken.0, good, 3, "refused: name_taken:");
    let hidden = [&unused.0, &expired, &taken.0, &wrong_token];
    no_secret(&mut world, &hidden.map(String::as_str));
}

/// A join into a directory of its own that must end with this code and these words.
fn refused_join(
    world: &World,
    name: &str,
    token: &str,
    (pins, bundle): (&[String], &str),
    code: i32,
    words: &str,
) {
    let refused = given_up(world.first_contact(&world.url, (name, token), (pins, bundle)));
    let said = refused.stderr;
    assert_eq!(refused.code, Some(code), "{words}: {said}");
    assert!(said.contains(words), "{words:?} is not in: {said}");
    assert!(!said.contains("panicked") && !said.contains(token), "{said}");
}

/// Neither the log nor a process's output nor a file of the control plane holds one of these.
fn no_secret(world: &mut World, secrets: &[&str]) {
    let mut places = vec![(
        "audit".to_owned(),
        world.carousel(&["audit", "ls", "--all", "--format=json"]).stdout,
    )];
    let mut serve = world.serve.take().expect("it runs");
    serve.terminate();
    let _ = serve.wait(PATIENCE);
    places.push(("serve".into(), serve.stdout() + &serve.stderr()));
    for agent in &world.agents {
        let process = agent.proc.as_ref().expect("it runs");
        places.push((agent.name.clone(), process.stdout() + &process.stderr()));
    }
    let log = fs::read(world.data().join("log.sqlite")).expect("the log");
    places.push(("log.sqlite".into(), String::from_utf8_lossy(&log).into_owned()));
    for (place, text) in &places {
        assert!(!text.is_empty(), "{place} was looked at");
        for secret in secrets.iter().chain(&["PRIVATE KEY"]) {
            assert!(!text.contains(secret), "{place} shows a secret: {secret}");
        }
    }
}

#[test]
fn names_and_roles_are_granted_and_never_claimed() {
    let mut world = World::start("claims", Log::Embedded).expect("the embedded log is always there");
    for name in [
        "acme.cluster",
        "localhost",
        "127.0.0.1",
        "*",
        "../../etc/passwd",
        "a b",
        "-rf",
        "",
    ] {
        let refused = world.carousel(&["tokens", "add", &format!("--name={name}"), "--format=json"]);
        match refused.code {
            Some(3) => assert_eq!(problem(&refused)["code"], "name_reserved", "{name}"),
            code => assert_eq!(code, Some(2), "{name}: {}", refused.stderr),
        }
    }
    let auditor = world.dir.join("joe.identity").display().to_string();
    let _ = world
        .carousel(&["users", "add", "joe", "--roles", "auditor", "--out", &auditor])
        .expect_code(0);
    let as_joe = |args: &[&str]| {
        let mut all = vec!["--identity", &auditor];
        all.extend(args);
        world.carousel(&all)
    };
    let _ = as_joe(&["status"]).expect_code(0);
    for args in [
        &["auth", "rotate", "--type=host", "--manual"][..],
        &["tokens", "add", "--name", "x"],
        &["users", "add", "eve", "--roles", "admin", "--out", "eve.identity"],
        &["nodes", "exclude", "x", "--reason", "y"],
    ] {
        let refused = as_joe(args);
        assert_eq!(refused.code, Some(3), "{args:?}: {}", refused.stderr);
        assert!(
            refused.stderr.starts_with("refused: not_permitted: "),
            "{}",
            refused.stderr
        );
    }
    let last = world.carousel(&["users", "rm", "admin"]);
    assert!(
        last.code == Some(3) && last.stderr.starts_with("refused: last_admin: "),
        "{}",
        last.stderr
    );
    assert_eq!(
        world.host()["rotation"]["state"],
        "standby",
        "nothing has happened"
    );
    nodes_speak_for_themselves(&mut world);
}

/// What a node's certificate is good for, and what a hostile one sends.
fn nodes_speak_for_themselves(world: &mut World) {
    for name in ["n1", "n2"] {
        world.join(name);
    }
    let wire = Wire::of(world);
    let (certificate, key) = wire.files_of(world.agent("n1"));
    let other = world.node("n2").expect("it joined");
    let n1 = || wire.presenting(&certificate, &key);
    // An operator's route; another node's name in the body is not even read.
    assert_eq!(
        n1().get("/v1/status").expect_err("not a person").code.name(),
        "not_permitted"
    );
    assert_eq!(
        n1().post("/v1/tokens", &json!({}))
            .expect_err("not a person")
            .code
            .name(),
        "not_permitted"
    );
    let own = n1().get("/v1/node/desired").expect("its own state");
    assert!(
        !own.to_string()
            .contains(other["metadata"]["name"].as_str().expect("an id")),
        "{own}"
    );
    // Nobody is nobody: every route but the public ones.
    for path in [
        "/v1/status",
        "/v1/node/desired",
        "/v1/events",
        "/v1/audit/verify",
        "/v1/whoami",
    ] {
        let refused = wire.anonymous().get(path).expect_err("nobody");
        assert!(matches!(refused.status, 401 | 403), "{path}: {refused:?}");
    }
    assert!(
        wire.anonymous().get("/v1/trust/host").is_ok(),
        "the public route is public"
    );
    hostile_requests(&wire, &certificate, &key);
    // The node is well after all of it.
    assert!(n1().get("/v1/node/desired").is_ok());
}

/// Requests for certificates that nobody may get.
fn hostile_requests(wire: &Wire, certificate: &str, key: &str) {
    let good = pki::csr::make(&pki::KeyPair::generate());
    let mut broken = good.clone();
    *broken.last_mut().expect("not empty") ^= 1;
    let pem = |der: &[u8]| pki::pem::encode("CERTIFICATE REQUEST", der);
    let huge = pem(&vec![0x30; 8 * 1024]);
    let ask = |csr: &str, of: &str| {
        let id = uuid::Uuid::now_v7();
        let body = json!({"id": id, "type": of, "usage": "both", "csr": csr});
        wire.presenting(certificate, key)
            .post("/v1/node/certificates", &body)
    };
    for (what, csr) in [
        ("a bad signature", pem(&broken)),
        ("more than may be", huge),
        ("no request at all", "hello".to_owned()),
        ("a certificate", certificate.to_owned()),
    ] {
        let refused = ask(&csr, "host").expect_err(what);
        assert!(
            refused.status >= 400 && refused.status < 500,
            "{what}: {refused:?}"
        );
        assert!(
            !refused.detail.to_string().contains("panicked"),
            "{what}: {refused:?}"
        );
    }
    // What it asks for beside a key is not even read: an authority, other names, a person.
    let answer = ask(include_str!("refusals/greedy.csr"), "host").expect("a certificate of its own");
    let leaf = answer["certificate"].as_str().expect("PEM");
    let ders = pki::pem::certificates(leaf).expect("PEM");
    let leaf = pki::Certificate::parse(&ders[0]).expect("a certificate");
    assert!(!leaf.is_ca && leaf.names == ["n1"], "{:?}", leaf.names);
    assert!(
        leaf.uri
            .expect("a URI")
            .starts_with("carousel://acme.cluster/node/")
    );
    // A type that the node's grant does not name.
    let refused = ask(&pem(&good), "user").expect_err("not granted");
    assert!(
        refused.status == 403 || refused.status == 409 || refused.status == 422,
        "{refused:?}"
    );
    // More than a body may hold is cut off before anybody reads it.
    let flood = json!({"id": uuid::Uuid::now_v7(), "padding": "x".repeat(32 * 1024)});
    let refused = wire
        .presenting(certificate, key)
        .post("/v1/node/certificates", &flood)
        .expect_err("too large");
    assert_eq!(refused.status, 413, "{refused:?}");
}

/// The problem on stdout of a refused command with `--format=json`.
fn problem(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}{}", finished.stdout, finished.stderr))
}
