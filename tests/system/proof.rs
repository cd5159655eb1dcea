//! A log that was changed is found out, and a stolen authority key alone gets nobody in.

use std::{fs, path::Path, process::Command};

use carousel_tests::{PATIENCE, bin, run};
use domain::AuthorityType;
use eventlog::testing::tamper;
use serde_json::Value;

use crate::{
    forged::Authority,
    wire::Wire,
    world::{Log, World, carousel, text},
};

#[test]
fn a_changed_log_is_found_by_verify_and_refused_by_serve() {
    let mut world = World::start("proof", Log::Embedded).expect("the embedded log is always there");
    for phase in ["init", "update_clients", "rollback", "standby"] {
        world.enter_and_wait("host", phase);
    }
    let phases = world.json(&["audit", "ls", "--all", "--type", "rotation.phase-entered"]);
    let (init, clients) = (
        phases[0]["position"].to_string(),
        phases[1]["position"].to_string(),
    );
    stop(&mut world);
    assert_eq!(verify(&world.data()).0, 0, "untouched it holds");
    let replace = |old: &str, new: &str| {
        format!(
            "UPDATE events SET data = CAST(replace(CAST(data AS TEXT), '{old}', '{new}') AS BLOB) WHERE seq = {clients}"
        )
    };
    let swap = format!(
        "UPDATE events SET seq = -1 WHERE seq = {init}; UPDATE events SET seq = {init} WHERE seq = {clients};
         UPDATE events SET seq = {clients} WHERE seq = -1"
    );
    let tail = format!("DELETE FROM events WHERE seq > {clients}");
    // What was done, the checks that must fail beside the checkpoints, and where at the latest.
    let changes = [
        (
            "a changed actor",
            replace("\"authid\":\"admin\"", "\"authid\":\"mallory\""),
            Some("decisions"),
        ),
        (
            "a changed phase",
            replace("\"to\":\"update_clients\"", "\"to\":\"update_servers\""),
            Some("phases"),
        ),
        ("swapped events", swap, Some("phases")),
        ("a deleted tail", tail, None),
    ];
    for (what, sql, found_by) in changes {
        let copy = world.dir.join(&what.replace(' ', "-"));
        copy_dir(&world.data(), &copy);
        tamper(copy.join("log.sqlite"), &sql);
        let (code, report) = verify(&copy);
        assert_eq!(code, 1, "{what}: {report}");
        assert_eq!(
            check(&report, "checkpoints")["outcome"],
            "failed",
            "{what}: {report}"
        );
        let refused = serve(&copy).expect_stderr(1);
        assert!(refused.contains("this signer"), "{what}: {refused}");
        // Also without anything to compare with, whatever contradicts the rules or itself is found.
        fs::remove_file(copy.join("keys/checkpoints.jsonl")).expect("it was written at the stop");
        let (code, report) = verify(&copy);
        let Some(name) = found_by else { continue };
        let failed = check(&report, name);
        assert_eq!(
            (code, &failed["outcome"]),
            (1, &Value::from("failed")),
            "{what}: {report}"
        );
        let place = failed["position"].as_u64().expect("a position");
        assert!(place <= clients.parse().expect("a number"), "{what}: {report}");
    }
}

#[test]
fn a_leaf_signed_with_the_genuine_key_but_never_issued_is_nobody() {
    let mut world = World::start("stolen", Log::Embedded).expect("the embedded log is always there");
    world.join("n1");
    let node = text(&world.node("n1").expect("it joined")["metadata"]["name"]);
    let holders = [
        (format!("node/{node}"), "/v1/node/desired"),
        ("user/admin".into(), "/v1/status"),
    ];
    let wire = Wire::of(&world);
    let types = [AuthorityType::Host, AuthorityType::User];
    for (authority, (holder, path)) in Authority::stolen(&world, &types).iter().zip(holders) {
        let forged = authority.forge(&holder.parse().expect("a holder"));
        let refused = wire.forged(&forged).get(path).expect_err("nobody gets in");
        assert_eq!(
            refused.code.name(),
            "certificate_unknown",
            "{holder}: {refused:?}"
        );
    }
    // The genuine ones work meanwhile, so it is the leaf that was refused and not the question.
    let (certificate, key) = wire.files_of(world.agent("n1"));
    let _ = wire
        .presenting(&certificate, &key)
        .get("/v1/node/desired")
        .expect("the node gets in");
}

/// Stops the control plane in order.
pub(crate) fn stop(world: &mut World) {
    let mut serve = world.serve.take().expect("it runs");
    serve.terminate();
    assert_eq!(serve.wait(PATIENCE).code(), Some(0), "{}", serve.stderr());
}

/// The verification of a stopped control plane's log: exit code and report.
pub(crate) fn verify(data: &Path) -> (i32, Value) {
    let data = data.display().to_string();
    let finished = run(&mut carousel(&[
        "audit",
        "verify",
        "--data-dir",
        &data,
        "--format=json",
    ]));
    let report = serde_json::from_str(&finished.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", finished.stdout, finished.stderr));
    (finished.code.expect("it ends by itself"), report)
}

fn check(report: &Value, name: &str) -> Value {
    let checks = report["checks"].as_array().expect("checks");
    checks
        .iter()
        .find(|c| c["name"] == name)
        .cloned()
        .unwrap_or_else(|| panic!("no {name} in {report}"))
}

/// `serve` on this directory; for starts that must fail.
pub(crate) fn serve(data: &Path) -> Refused {
    let mut command = Command::new(bin("carousel"));
    command.arg("serve").arg("--data-dir").arg(data);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    Refused(run(&mut command))
}

/// A command that must not have worked.
pub(crate) struct Refused(pub(crate) carousel_tests::Finished);

impl Refused {
    /// Checks the exit code, that nothing panicked, and gives what was said on stderr.
    pub(crate) fn expect_stderr(self, code: i32) -> String {
        let Self(finished) = self;
        assert_eq!(
            finished.code,
            Some(code),
            "{}\n{}",
            finished.stdout,
            finished.stderr
        );
        assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
        finished.stderr
    }
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory can be made");
    let mode = fs::metadata(from).expect("it is there").permissions();
    fs::set_permissions(to, mode).expect("our own directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("a readable entry");
        let target = to.join(entry.file_name());
        let kind = entry.file_type().expect("a kind");
        if kind.is_dir() {
            copy_dir(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}
