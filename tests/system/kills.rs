//! The control plane dies without warning at a moment that a seed chooses, in every phase, on both logs.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use carousel_tests::{Dice, PATIENCE, Proc, eventually, run};
use serde_json::Value;

use crate::world::{Log, World, text};

/// The moment of death lies within so many milliseconds after the command was given.
const WINDOW_MS: u64 = 120;
/// What was acknowledged before the crash, besides the phases.
const HAMMERS: usize = 2;

#[test]
fn killed_in_every_phase_on_the_embedded_log_nothing_acknowledged_is_lost() {
    survives(Log::Embedded, seed(1));
}

#[test]
fn killed_in_every_phase_on_jetstream_nothing_acknowledged_is_lost() {
    survives(Log::JetStream, seed(2));
}

/// The seed of the moments: another one by `CAROUSEL_KILL_SEED`, and always said, so that a failure can be had again.
#[allow(clippy::print_stdout, reason = "the seed is told to whoever runs the tests")]
fn seed(usual: u64) -> u64 {
    let given = std::env::vars().find(|(name, _)| name == "CAROUSEL_KILL_SEED");
    let seed = given.and_then(|(_, text)| text.parse().ok()).unwrap_or(usual);
    println!("CAROUSEL_KILL_SEED={seed}");
    seed
}

fn survives(log: Log, seed: u64) {
    let Some(mut world) = World::start("kills", log) else {
        return;
    };
    for name in ["n1", "n2"] {
        world.join(name);
    }
    let mut dice = Dice::new(seed);
    let mut acknowledged = Acknowledged::default();
    let forward = ["init", "update_clients", "update_servers", "standby"];
    let back = ["init", "update_clients", "rollback", "standby"];
    for (rotation, phases) in [forward, back].into_iter().enumerate() {
        for phase in phases {
            let done = kill_while_entering(&mut world, phase, moment(&mut dice), &mut acknowledged);
            // The rotation goes on: the same command again is done or a noop, and everybody gets there.
            if done {
                assert_eq!(
                    world.host()["rotation"]["phase"],
                    phase,
                    "an acknowledged phase is lost"
                );
            }
            world.enter_and_wait("host", phase);
        }
        assert_eq!(
            phases_entered(&world, rotation),
            phases,
            "each phase once, in order"
        );
    }
    acknowledged.check(&world);
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
    probe_all(&world);
}

/// Gives the command while others are acknowledged, kills the control plane `after` that, and starts it again.
/// Says whether the command was acknowledged.
fn kill_while_entering(
    world: &mut World,
    phase: &str,
    after: Duration,
    acknowledged: &mut Acknowledged,
) -> bool {
    let flag = format!("--phase={phase}");
    let stop = AtomicBool::new(false);
    let mut serve = world.serve.take().expect("it runs");
    let (done, tokens) = thread::scope(|scope| {
        let hammers: Vec<_> = (0..HAMMERS)
            .map(|_| scope.spawn(|| hammer(world, &stop)))
            .collect();
        let mut command = world.command(&[
            "auth",
            "rotate",
            "--manual",
            "--type=host",
            &flag,
            "--format=json",
        ]);
        let mut entering = Proc::start("rotate", &mut command);
        // Not a wait for anything: the moment itself is what the test varies.
        thread::sleep(after);
        serve.kill9();
        stop.store(true, Ordering::Relaxed);
        let done = entering.wait(PATIENCE).code() == Some(0);
        let tokens: Vec<_> = hammers
            .into_iter()
            .flat_map(|h| h.join().expect("no panic"))
            .collect();
        (done, tokens)
    });
    acknowledged.tokens.extend(tokens);
    world.serve();
    done
}

/// Makes tokens until told to stop; gives the ids of those that were acknowledged.
fn hammer(world: &World, stop: &AtomicBool) -> Vec<String> {
    let mut made = vec![];
    while !stop.load(Ordering::Relaxed) {
        let mut command = world.command(&["tokens", "add", "--name", "later", "--format=json"]);
        let finished = run(&mut command);
        if finished.code == Some(0) {
            made.push(text(&finished.json()["id"]));
        }
    }
    made
}

/// What the control plane said yes to.
#[derive(Default)]
struct Acknowledged {
    tokens: Vec<String>,
}

impl Acknowledged {
    /// Each is in the log exactly once.
    fn check(&self, world: &World) {
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for event in events(world, "access.token-created") {
            *found.entry(text(&event["data"]["token"])).or_default() += 1;
        }
        assert!(
            !self.tokens.is_empty(),
            "the test acknowledged nothing before a crash"
        );
        for id in &self.tokens {
            assert_eq!(found.get(id), Some(&1), "token {id} in {found:?}");
        }
        assert!(found.values().all(|times| *times == 1), "{found:?}");
    }
}

/// The phases that the n-th rotation of the host authority entered, in the log's order.
fn phases_entered(world: &World, rotation: usize) -> Vec<String> {
    let mut rotations: Vec<(String, Vec<String>)> = vec![];
    for event in events(world, "rotation.phase-entered") {
        let (id, to) = (text(&event["data"]["rotation"]), text(&event["data"]["to"]));
        match rotations.last_mut() {
            Some((last, phases)) if *last == id => phases.push(to),
            _ => rotations.push((id, vec![to])),
        }
    }
    rotations.swap_remove(rotation).1
}

/// The stored events of a type. Each came of a command of its own: none was done twice.
fn events(world: &World, of: &str) -> Vec<Value> {
    let all = world.json(&["audit", "ls", "--all", "--type", of]);
    let all = all.as_array().expect("an array of events").clone();
    let commands: BTreeSet<String> = all.iter().map(|event| text(&event["causationid"])).collect();
    assert_eq!(commands.len(), all.len(), "a command was done twice: {all:?}");
    all
}

/// Every node serves a certificate that the gateway accepts.
fn probe_all(world: &World) {
    eventually("all nodes can be probed", || {
        world.carousel(&["probe", "--all"]).code == Some(0)
    });
}

/// The next moment of death.
pub(crate) fn moment(dice: &mut Dice) -> Duration {
    Duration::from_millis(dice.roll() % WINDOW_MS)
}
