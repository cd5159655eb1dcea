//! Nobody has to be joined again for having been away, and nobody who is away is forgotten.

use carousel_tests::{PATIENCE, deadline};
use serde_json::Value;

use crate::world::{Log, World, text};

/// Long enough that a busy machine renews in time, short enough that a test can wait for the end of a certificate.
const SHORT_LIFE: &str = "node_ttl_ms = 8000\n";

const SLEEPER: &str = "sleeper";

#[test]
fn an_agent_stopped_in_init_catches_up_in_update_servers() {
    let mut world = world("catch-up", None);
    let id = id_of(&world);
    world.enter_and_wait("host", "init");
    world.agent(SLEEPER).kill();
    let _ = world.enter("host", "update_clients").expect_code(0);
    steps_over(&world, "update_servers");
    wakes_up(&mut world, &id);
    world.enter_and_wait("host", "standby");
    world.until_all_reached();
    assert_eq!(
        recoveries(&world),
        0,
        "a certificate that was still good needs no recovery"
    );
}

#[test]
fn an_agent_whose_certificate_expired_meanwhile_catches_up_too() {
    let mut world = world("expired", Some(SHORT_LIFE));
    let warning = world.carousel(&["status", "--format=json"]).stdout;
    assert!(
        warning.contains("the life of nodes' certificates is"),
        "{warning}"
    );
    let id = id_of(&world);
    world.enter_and_wait("host", "init");
    world.agent(SLEEPER).kill();
    let expiry = text(&sleeper(&world)["spec"]["authorities"]["host"]["client_not_after"]);
    let _ = world.enter("host", "update_clients").expect_code(0);
    steps_over(&world, "update_servers");
    // The steady node renews and reports on; once it was seen after that moment, the moment has passed.
    deadline(PATIENCE, "the sleeper's certificate expires", || {
        let steady = world.node("steady")?;
        (text(&steady["status"]["last_seen"]) > expiry).then_some(())
    });
    wakes_up(&mut world, &id);
    assert!(
        recoveries(&world) > 0,
        "an expired certificate is replaced by a recovery, which is an event"
    );
}

#[test]
fn an_agent_that_slept_through_one_rotation_or_two_comes_back_by_itself() {
    let mut world = world("rotations", None);
    let id = id_of(&world);
    for rotations in [1, 2] {
        world.agent(SLEEPER).kill();
        for _ in 0..rotations {
            let _ = world.enter("host", "init").expect_code(0);
            let exclude = ["nodes", "exclude", SLEEPER, "--reason", "at sea"];
            let _ = world.carousel(&exclude).expect_code(0);
            for phase in ["update_clients", "update_servers", "standby"] {
                world.enter_and_wait("host", phase);
            }
        }
        let before = recoveries(&world);
        wakes_up(&mut world, &id);
        assert!(recoveries(&world) > before, "after {rotations} rotations");
        world.until_all_reached();
    }
}

#[test]
fn an_agent_stopped_in_update_servers_holds_the_gate_until_somebody_answers_for_it() {
    let mut world = world("held-gate", None);
    let id = id_of(&world);

    // First somebody steps over it, with a reason.
    for phase in ["init", "update_clients"] {
        world.enter_and_wait("host", phase);
    }
    world.agent(SLEEPER).kill();
    let _ = world.enter("host", "update_servers").expect_code(0);
    steps_over(&world, "standby");
    assert_eq!(world.host()["rotation"]["state"], "standby");
    wakes_up(&mut world, &id);
    world.until_all_reached();

    // Then somebody takes it out of one rotation, with a reason.
    for phase in ["init", "update_clients"] {
        world.enter_and_wait("host", phase);
    }
    world.agent(SLEEPER).kill();
    let _ = world.enter("host", "update_servers").expect_code(0);
    is_refused_for_the_sleeper(&world, "standby");
    let exclude = ["nodes", "exclude", SLEEPER, "--reason", "sunk"];
    let _ = world.carousel(&exclude).expect_code(0);
    world.enter_and_wait("host", "standby");
    let position = newest(&world, "node.excluded");
    let shown = world.carousel(&["audit", "show", &position]).expect_code(0);
    assert!(shown.contains("sunk") && shown.contains(SLEEPER), "{shown}");
    wakes_up(&mut world, &id);
    // Out of that rotation only: in the next one it counts again.
    assert!(sleeper(&world)["spec"]["excluded"].is_null());
    let _ = world.enter("host", "init").expect_code(0);
    assert_eq!(world.host()["nodes"]["required"], 2);
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

#[test]
fn a_semi_automatic_rotation_is_held_for_a_sleeper_and_goes_on_by_itself() {
    let mut world = world("held", None);
    let id = id_of(&world);
    world.agent(SLEEPER).kill();
    let start = ["auth", "rotate", "--type=host", "--grace-period=3s"];
    let _ = world.carousel(&start).expect_code(0);
    deadline(PATIENCE, "the due step is held", || {
        (world.host()["rotation"]["held"] == true).then_some(())
    });
    assert_eq!(world.host()["rotation"]["phase"], "init");
    let status = world.carousel(&["status"]).expect_code(0);
    assert!(
        status.contains("held: 1 lagging") && status.contains(SLEEPER),
        "{status}"
    );
    let waited = world.carousel(&["wait", "--type=host", "--phase=standby", "--timeout=1s"]);
    assert_eq!(
        waited.code,
        Some(5),
        "not yet is an exit code of its own: {waited:?}"
    );
    wakes_up(&mut world, &id);
    let wait = ["wait", "--type=host", "--phase=standby", "--timeout=50s"];
    let _ = world.carousel(&wait).expect_code(0);
    world.until_all_reached();
    assert!(!events(&world, "rotation.resumed").is_empty());
}

/// A cluster with a node that stays and one that will sleep.
fn world(test: &str, settings: Option<&str>) -> World {
    let mut world =
        World::start_with(test, Log::Embedded, settings).expect("the embedded log is always to be had");
    world.join("steady");
    world.join(SLEEPER);
    world
}

/// The old data directory, no token, no word from anybody: the same node, where the cluster is.
fn wakes_up(world: &mut World, id: &str) {
    world.agent(SLEEPER).start_without_token();
    // It was seen before it slept; only an answer from now on counts.
    deadline(PATIENCE, "the sleeper is connected", || {
        (sleeper(world)["status"]["online"] == true).then_some(())
    });
    world.until_reached(SLEEPER);
    assert_eq!(id_of(world), id, "it is the node that it was");
}

/// The gate is closed and names the sleeper; a force needs a reason, and the audit shows who, why and over whom.
fn steps_over(world: &World, phase: &str) {
    is_refused_for_the_sleeper(world, phase);
    let of = format!("--phase={phase}");
    let forced = ["auth", "rotate", "--manual", "--type=host", &of, "--force"];
    let unexplained = world.carousel(&forced);
    assert_ne!(unexplained.code, Some(0), "a force without a reason");
    let mut forced = forced.to_vec();
    forced.extend(["--reason", "the sleeper is in repair"]);
    let _ = world.carousel(&forced).expect_code(0);
    let position = newest(world, "rotation.phase-entered");
    let shown = world.carousel(&["audit", "show", &position]).expect_code(0);
    for needle in ["FORCED", "the sleeper is in repair", "admin", SLEEPER] {
        assert!(shown.contains(needle), "{needle} in {shown}");
    }
}

fn is_refused_for_the_sleeper(world: &World, phase: &str) {
    // The steady node needs a moment of its own; what is refused after that is for the sleeper alone.
    world.until_reached("steady");
    deadline(PATIENCE, "nothing but the sleeper lags", || {
        (world.host()["nodes"]["lagging"] == 1).then_some(())
    });
    let refused = world.enter("host", phase);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(
        refused.stderr.starts_with("refused: nodes_lagging: 1 of 2 nodes"),
        "{refused:?}"
    );
    assert!(refused.stderr.contains(SLEEPER), "{refused:?}");
    assert!(!refused.stderr.contains("steady"), "{refused:?}");
}

fn sleeper(world: &World) -> Value {
    world.node(SLEEPER).expect("a node is kept while it sleeps")
}

fn id_of(world: &World) -> String {
    text(&sleeper(world)["metadata"]["name"])
}

/// How many recoveries the log holds.
fn recoveries(world: &World) -> usize {
    events(world, "node.recovered").len()
}

/// The position of the newest event of a type.
fn newest(world: &World, of: &str) -> String {
    let events = events(world, of);
    events.last().expect("an event of this type")["position"].to_string()
}

fn events(world: &World, of: &str) -> Vec<Value> {
    let kind = format!("--type={of}");
    let events = world.json(&["audit", "ls", "--all", &kind]);
    events.as_array().expect("an array of events").clone()
}
