//! README's first command in each of its forms, as a user starts it: no handshake fails, the log verifies, and the
//! answer for scripts says so. How many handshakes there are depends on the machine, so no number is asked for.

use carousel_tests::{NatsServer, TestDir, run};
use serde_json::Value;

use crate::world::carousel;

const FORWARD: [&str; 4] = ["init", "update_clients", "update_servers", "standby"];
const BACK: [&str; 4] = ["init", "update_clients", "rollback", "standby"];

#[test]
fn the_demo_rotates_a_host_authority_under_load_without_a_failed_handshake() {
    assert_eq!(phases(&demo(&["--nodes", "60"]), 60, "host"), FORWARD);
}

#[test]
fn the_demo_changes_its_mind_half_way_without_a_failed_handshake() {
    assert_eq!(phases(&demo(&["--nodes", "6", "--rollback"]), 6, "host"), BACK);
}

#[test]
fn the_demo_rotates_the_authority_of_its_operators_without_a_failed_handshake() {
    assert_eq!(
        phases(&demo(&["--nodes", "6", "--type", "user"]), 6, "user"),
        FORWARD
    );
}

#[test]
fn the_demo_rotates_every_other_type_with_an_application_whose_credentials_nodes_verify() {
    // Types of one kind of key are one path; each is a row of its own all the same, and all are here.
    for authority_type in [
        "db",
        "db_client",
        "openssh",
        "saml_idp",
        "spiffe",
        "awsra",
        "windows",
        "jwt",
        "oidc_idp",
        "okta",
    ] {
        let said = demo(&["--nodes", "3", "--type", authority_type]);
        assert_eq!(phases(&said, 3, authority_type), FORWARD);
        credentials(&said);
    }
    for authority_type in ["openssh", "jwt"] {
        let said = demo(&["--nodes", "3", "--rollback", "--type", authority_type]);
        assert_eq!(phases(&said, 3, authority_type), BACK);
        credentials(&said);
    }
}

/// An application has shown its own, and each was taken.
fn credentials(said: &Value) {
    assert!(said["credentials"]["total"].as_u64() > Some(0), "{said}");
    assert_eq!(said["credentials"]["failed"], 0, "{said}");
}

#[test]
fn the_demo_rotates_one_type_of_each_kind_in_one_fleet() {
    let said = demo(&["--nodes", "4", "--all"]);
    assert_eq!(phases(&said, 4, "host"), FORWARD);
    credentials(&said);
    let rotated = said["rotations"].as_array().expect("all of them").iter();
    let rotated: Vec<_> = rotated
        .map(|rotation| {
            assert_eq!(names(rotation), FORWARD);
            rotation["type"].as_str().expect("a name")
        })
        .collect();
    assert_eq!(rotated, ["host", "user", "db_client", "jwt"]);
}

#[tokio::test]
async fn the_demo_runs_on_a_jetstream_as_well() {
    let dir = TestDir::new("demo-nats");
    let Some(nats) = NatsServer::start(dir.join("nats")).await else {
        return;
    };
    let url = nats.url();
    let ran = tokio::task::spawn_blocking(move || demo(&["--nodes", "6", "--nats", &url]));
    assert_eq!(phases(&ran.await.expect("no panic"), 6, "host"), FORWARD);
}

#[test]
fn a_demo_for_people_says_the_truth_first_and_cleans_up() {
    let finished = run(&mut carousel(&["demo", "--nodes", "3"]));
    for phase in FORWARD {
        let reached = format!("Z {phase:<15} 3/3 nodes ");
        let lines = finished.stderr.lines().filter(|line| line.contains(&reached));
        assert_eq!(lines.count(), 1, "{phase}: {}", finished.stderr);
    }
    let said = finished.expect_code(0);
    let first = said.lines().next().unwrap_or_default();
    assert!(
        first.contains("Host CA rotated under load") && first.ends_with("0 failed."),
        "{said}"
    );
    assert!(
        said.contains("refuse a client certificate of the old CA"),
        "{said}"
    );
    assert!(said.contains("Data removed"), "{said}");
}

/// Runs it and reads its one line.
fn demo(args: &[&str]) -> Value {
    let mut all = vec!["demo", "--json"];
    all.extend(args);
    let said = run(&mut carousel(&all)).expect_code(0);
    assert_eq!(said.lines().count(), 1, "one line for scripts: {said}");
    serde_json::from_str(&said).expect("JSON")
}

/// The phases of the rotation, once everything else was as promised.
fn phases(said: &Value, nodes: u64, authority_type: &str) -> Vec<String> {
    assert_eq!(said["nodes"], nodes, "{said}");
    assert_eq!(said["rotation"]["type"], authority_type, "{said}");
    assert_eq!(said["handshakes"]["failed"], 0, "{said}");
    assert!(said["handshakes"]["total"].as_u64() > Some(0), "{said}");
    assert_eq!(said["audit"]["verified"], true, "{said}");
    assert!(said["audit"]["events"].as_u64() > Some(nodes), "{said}");
    assert!(said["seconds"].as_f64() > Some(0.0), "{said}");
    let id = said["rotation"]["id"].as_str().expect("an id");
    assert!(uuid::Uuid::parse_str(id).is_ok(), "{said}");
    names(&said["rotation"])
}

/// The phases that were gone through.
fn names(rotation: &Value) -> Vec<String> {
    let phases = rotation["phases"].as_array().expect("phases");
    phases
        .iter()
        .map(|phase| {
            assert!(phase["seconds"].as_f64() >= Some(0.0), "{rotation}");
            phase["phase"].as_str().expect("a name").to_owned()
        })
        .collect()
}
