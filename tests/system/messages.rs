//! Commands as messages: what a program sends on the bus counts, is refused and is on record like what comes by the door.

use std::{process::Command, time::Duration};

use carousel_tests::{Finished, PATIENCE, run, skip, source::root};
use eventlog::bus::{Answer, Bus, BusOptions};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    wire::runtime,
    world::{World, text},
};

/// How long somebody waits who was told that a node lags.
const LOOK: Duration = Duration::from_millis(100);

/// Whoever sends commands, on a connection of its own.
struct Sender {
    bus: Bus,
    name: &'static str,
}

impl Sender {
    async fn new(world: &World, name: &'static str) -> Self {
        Self::as_user(world, name, name).await
    }

    /// On a connection of this user of the bus, which may not be the one that is spoken for.
    async fn as_user(world: &World, user: &'static str, name: &'static str) -> Self {
        let options = BusOptions {
            url: world.bus_url(user),
            inbox_prefix: Some(format!("_INBOX_{user}")),
            name: name.into(),
            ..BusOptions::default()
        };
        let bus = Bus::connect(&options).await.expect("the broker is there");
        Self { bus, name }
    }

    /// Sends a command and hears the answer, or the code of a no with its document.
    async fn send(&self, command: &str, body: &Value) -> Result<Value, (String, Value)> {
        let subject = format!("carousel.v1.acme_cluster.cmd.user-{}.{command}", self.name);
        let body = serde_json::to_vec(body).expect("plain data");
        let asked = self.bus.ask(&subject, &[], body, PATIENCE).await;
        let Answer { body, no } = asked.expect("somebody answers");
        let document: Value = serde_json::from_slice(&body).expect("a document");
        match no {
            None => Ok(document),
            Some((status, line)) => {
                assert_eq!(document["status"], status, "{document}");
                let code = text(&document["code"]);
                assert!(line.starts_with(&format!("{code}: ")), "{line}");
                Err((code, document))
            }
        }
    }
}

fn id() -> Uuid {
    Uuid::now_v7()
}

fn rotate(phase: &str) -> Value {
    json!({"id": id(), "reason": "CHG-4411", "type": "host", "manual": true, "phase": phase})
}

#[test]
fn a_program_rotates_by_messages_alone_and_is_refused_and_recorded_like_everybody() {
    let Some(world) = with_deploy("messages") else {
        return;
    };
    world.until_reached("n1");
    runtime().block_on(async {
        let sender = Sender::new(&world, "deploy").await;
        refused(&sender).await;
        strangers(&world).await;
        once(&sender).await;
        rotated(&world, &sender).await;
        found(&sender).await;
    });
    let log = world.carousel(&["audit", "ls", "--all"]).expect_code(0);
    // What only the control plane's own parts are late with is waited for, not refused.
    for code in [": members_lagging", ": key_missing", ": internal"] {
        assert!(!log.contains(code), "{log}");
    }
    // POS, DATE, TIME, WHO
    let of_deploy = log
        .lines()
        .filter(|line| line.split_whitespace().nth(3) == Some("deploy"));
    let (refused, done): (Vec<_>, Vec<_>) = of_deploy.partition(|line| line.contains("REFUSED"));
    assert_eq!(done.len(), 4, "four steps, and nothing else: {log}");
    let is_on_record = |code: &str| refused.iter().any(|line| line.contains(code));
    assert!(
        is_on_record("tokens-add: not_permitted") && is_on_record("nodes_lagging"),
        "{log}"
    );
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// A cluster with a node and a user `deploy`, on a broker as it is shipped.
fn with_deploy(test: &str) -> Option<World> {
    let mut world = World::start_shipped(test)?;
    world.join("n1");
    let out = world.dir.join("deploy.identity").display().to_string();
    let _ = world
        .carousel(&["users", "add", "deploy", "--roles", "operator", "--out", &out])
        .expect_code(0);
    Some(world)
}

/// Runs an example of the guide as it stands there.
fn rotate_by(world: &World, interpreter: &str, example: &str) -> Finished {
    let mut program = Command::new(interpreter);
    program.arg(root().join("docs/examples").join(example));
    program.args([
        &world.bus_url("deploy"),
        "acme.cluster",
        "deploy",
        "host",
        "CHG-4411",
    ]);
    run(&mut program)
}

/// It says each phase, and the authority is rotated.
fn rotates(world: &World, interpreter: &str, example: &str) {
    let said = rotate_by(world, interpreter, example).expect_code(0);
    let phases: Vec<_> = said.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(
        phases,
        ["init", "update_clients", "update_servers", "standby"],
        "{said}"
    );
    assert!(world.host()["rotation"]["last_rotated"].is_string());
}

#[test]
fn the_examples_in_python_rotate_an_authority_and_follow_every_event_once() {
    let test = "messages-python";
    let mut import = Command::new("python3");
    let has_client = import.args(["-c", "import nats"]).output();
    if !has_client.is_ok_and(|output| output.status.success()) {
        return skip(test, "Python has no nats-py");
    }
    let Some(world) = with_deploy(test) else {
        return;
    };
    rotates(&world, "python3", "rotate.py");
    let follow = || {
        let mut python = Command::new("python3");
        python.arg(root().join("docs/examples/follow.py"));
        python.args([&world.bus_url("deploy"), "acme.cluster", "deploy", "1", "--once"]);
        run(&mut python).expect_code(0)
    };
    let followed = follow();
    let positions: Vec<_> = followed
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let count = positions.len();
    let all: Vec<_> = (1..=count).map(|at| format!("@{at}")).collect();
    assert_eq!(positions, all, "none is left out");
    assert!(
        followed.contains("rotation.phase-entered user/deploy"),
        "{followed}"
    );
    // Whoever lost its rights is told so, and only what came since follows.
    let _ = world.carousel(&["users", "rm", "deploy"]).expect_code(0);
    let refused = rotate_by(&world, "python3", "rotate.py");
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("refused: not_permitted: "),
        "{}",
        refused.stderr
    );
    let since = follow();
    assert!(since.starts_with(&format!("@{} ", count + 1)), "{since}");
    assert!(since.contains("access.user-removed user/admin"), "{since}");
}

/// With the `nats` tool, where it is installed: no package of ours brings it.
#[test]
fn the_example_in_the_shell_rotates_an_authority_where_the_tool_is_installed() {
    let tool = Command::new("nats").arg("--version").output();
    if !tool.is_ok_and(|output| output.status.success()) {
        return;
    }
    let Some(world) = with_deploy("messages-shell") else {
        return;
    };
    rotates(&world, "bash", "rotate.sh");
}

/// What is no command, or not theirs, is refused by its code; nothing is done.
async fn refused(sender: &Sender) {
    let plain = |name: &str| json!({"id": id(), "name": name, "reason": "CHG-1"});
    let not_theirs = json!({"id": id(), "hash": format!("sha256:{}", "00".repeat(32)), "names": ["n2"], "uses": 1, "ttl_ms": 60_000});
    for (command, body, expected) in [
        ("nodes-exclude", plain("nobody"), "node_unknown"),
        ("nodes-exclude", json!({"id": id()}), "bad_request"),
        (
            "rotate",
            json!({"id": id(), "type": "host", "phaze": "init"}),
            "bad_request",
        ),
        ("rotate", json!("init"), "bad_request"),
        (
            "rotate",
            json!({"id": Uuid::new_v4(), "type": "host", "manual": true}),
            "command_id_stale",
        ),
        ("rotate", rotate("standby-ish"), "bad_request"),
        ("rotate", rotate("update_servers"), "illegal_transition"),
        ("users-add", json!({"id": id(), "name": "eve"}), "bad_request"),
        ("tokens-add", not_theirs, "not_permitted"),
    ] {
        let (code, problem) = sender.send(command, &body).await.expect_err(command);
        assert_eq!(code, expected, "{command} {body}: {problem}");
    }
}

/// Who is no user, or is not spelled as one: as the gateway's user, the only one that the bus lets send for others.
async fn strangers(world: &World) {
    let ghost = Sender::as_user(world, "gateway", "ghost").await;
    let (code, _) = ghost.send("rotate", &rotate("init")).await.expect_err("a ghost");
    assert_eq!(code, "not_permitted");
    let subject = "carousel.v1.acme_cluster.cmd.0198f3c2-77a1-7d01-9b1e-5c2f6a10e9d3.rotate";
    let asked = ghost.bus.ask(subject, &[], b"{}".to_vec(), PATIENCE).await;
    assert_eq!(asked.expect("it is answered").no.expect("a no").0, 400);
}

/// The same message again is the same command; its id for another one is refused.
async fn once(sender: &Sender) {
    let mut init = rotate("init");
    let first = sender.send("rotate", &init).await.expect("it begins");
    assert_eq!(first["answer"]["phase"], "init", "{first}");
    assert_eq!(
        first["warning"],
        Value::Null,
        "the control plane's own parts are there"
    );
    let again = sender.send("rotate", &init).await.expect("the first answer");
    assert_eq!(again["position"], first["position"]);
    init["phase"] = json!("rollback");
    let (code, _) = sender.send("rotate", &init).await.expect_err("another command");
    assert_eq!(code, "command_id_reused");
}

/// Step by step to the end; a step that comes too early says who lags.
async fn rotated(world: &World, sender: &Sender) {
    for phase in ["update_clients", "update_servers", "standby"] {
        let entering = async {
            // A refusal is on record under its id: whoever tries again makes a new one.
            while let Err((code, problem)) = sender.send("rotate", &rotate(phase)).await {
                assert_eq!(code, "nodes_lagging", "{problem}");
                assert_eq!(problem["gate"]["lagging"][0]["name"], "n1", "{problem}");
                tokio::time::sleep(LOOK).await;
            }
        };
        timeout(PATIENCE, entering)
            .await
            .unwrap_or_else(|_| panic!("{phase} is never entered"));
    }
    assert!(world.host()["rotation"]["last_rotated"].is_string());
}

/// The service is found with the tools of others.
async fn found(sender: &Sender) {
    let asked = sender.bus.ask("$SRV.INFO.carousel", &[], vec![], PATIENCE).await;
    let info: Value = serde_json::from_slice(&asked.expect("it is there").body).expect("a document");
    assert_eq!(info["metadata"]["cluster"], "acme.cluster", "{info}");
    assert_eq!(
        info["endpoints"][0]["subject"], "carousel.v1.acme_cluster.cmd.*.*",
        "{info}"
    );
    assert!(
        text(&info["metadata"]["commands"]).contains("nodes-exclude"),
        "{info}"
    );
}
