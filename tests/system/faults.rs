//! Faults for real: on both logs, a fleet of agents under constant mTLS load while rotations forward, back and by
//! schedule run, and everything that can break is broken by the dice.
//!
//! The record of a run is kept in `target/faults/LOG-SEED` and can be judged again:
//!
//! ```text
//! CAROUSEL_FAULTS_SECONDS=1800 tests/run faults            # longer (90 seconds for each log)
//! CAROUSEL_FAULTS_SEED=7 tests/run faults                  # other dice
//! CAROUSEL_FAULTS_RECORD=target/faults/embedded-7 tests/run a_kept_record_of_faults
//! ```

mod check;
mod disk;
mod fleet;
mod flood;
mod liar;
mod load;
mod nodes;
mod operator;
mod plane;
mod record;

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use carousel_tests::{PATIENCE, deadline, skip, source};
use fleet::{Fleet, lock};
use record::{Entry, Recorder};
use serde_json::Value;

use crate::world::Log;

/// So long each log is under fire where no other time is asked for.
const SECONDS: u64 = 90;
/// Agents, each a process.
const NODES: usize = 40;

/// Who makes trouble: for the control plane, and for nodes.
const TROUBLES: usize = 2;

/// Two fleets at once would be slow and prove nothing more.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

#[test]
fn under_fire_on_the_embedded_log_nothing_acknowledged_and_no_node_is_lost() {
    survives("under_fire_on_the_embedded_log", Log::Embedded);
}

#[test]
fn under_fire_on_jetstream_nothing_acknowledged_and_no_node_is_lost() {
    survives("under_fire_on_jetstream", Log::JetStream);
}

#[test]
fn a_kept_record_of_faults_is_judged_again() {
    let Some(dir) = variable("CAROUSEL_FAULTS_RECORD") else {
        return;
    };
    let (lines, events) = record::kept(&source::root().join(dir));
    let found = check::violations(&lines, &events);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

fn variable(name: &str) -> Option<String> {
    std::env::vars()
        .find(|(found, _)| found == name)
        .map(|(_, value)| value)
}

fn number(name: &str, usual: u64) -> u64 {
    variable(name).and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[allow(
    clippy::print_stdout,
    reason = "whoever runs the tests is told how to have the same run again"
)]
fn survives(test: &str, log: Log) {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (seed, seconds) = (
        number("CAROUSEL_FAULTS_SEED", 1),
        number("CAROUSEL_FAULTS_SECONDS", SECONDS),
    );
    let name = format!("{log:?}-{seed}").to_lowercase();
    let dir: PathBuf = source::root().join("target/faults").join(&name);
    println!(
        "CAROUSEL_FAULTS_SEED={seed} CAROUSEL_FAULTS_SECONDS={seconds}; the record is target/faults/{name}"
    );
    let record = Recorder::new(dir);
    record.note(Entry::Began {
        log: format!("{log:?}"),
        seed,
        seconds,
        nodes: NODES,
        faults: plane::names(log).chain(nodes::names()).collect(),
    });
    let Some(fleet) = Fleet::start(log, NODES, record) else {
        skip(
            test,
            "it needs root (to mount small disks), libfaketime and, on JetStream, nats-server",
        );
        return;
    };
    under_fire(&fleet, seed, Duration::from_secs(seconds));
    let events = ending(&fleet);
    let lines = fleet.record.finish(&events);
    let events = events.as_array().expect("an array of events");
    let found = check::violations(&lines, events);
    assert!(
        found.is_empty(),
        "{}\nthe record is {}",
        found.join("\n"),
        fleet.record.dir().display()
    );
}

/// Everything at once, for so long.
fn under_fire(fleet: &Fleet, seed: u64, time: Duration) {
    let flooder = fleet.nodes.last().expect("a fleet has nodes");
    flooder.busy.store(true, Ordering::Relaxed);
    thread::scope(|scope| {
        let start = |work: &'static str, run: &dyn Fn()| {
            let _end = EndsAll(fleet, work);
            run();
        };
        scope.spawn(move || start("load", &|| load::run(fleet, seed)));
        scope.spawn(move || start("rotations", &|| operator::rotate(fleet, seed ^ 1)));
        scope.spawn(move || start("tokens", &|| operator::make_tokens(fleet, seed ^ 2)));
        scope.spawn(move || start("control plane", &|| plane::trouble(fleet, seed ^ 3)));
        scope.spawn(move || start("nodes", &|| nodes::trouble(fleet, seed ^ 4)));
        scope.spawn(move || start("silence", &|| flood::silence(fleet)));
        scope.spawn(move || {
            fleet.pass(time / 6);
            start("flood", &|| flood::pour(fleet, flooder));
        });
        fleet.pass(time);
        // However slow the machine: everything happens once at least.
        while fleet.rounds.load(Ordering::Relaxed) < TROUBLES && !fleet.is_over() {
            fleet.pass(Duration::from_millis(100));
        }
        fleet.over.store(true, Ordering::Relaxed);
    });
}

/// One part that panics ends the others.
struct EndsAll<'a>(&'a Fleet, &'static str);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fault(self.1, "the test", "panicked", "");
            self.0.over.store(true, Ordering::Relaxed);
        }
    }
}

/// Everything is whole again: the rotation at hand ends, one more goes through, and the log is asked for everything.
fn ending(fleet: &Fleet) -> Value {
    fleet.over.store(false, Ordering::Relaxed);
    let began = Instant::now();
    fleet.serve_disk.free();
    fleet.serve_clock.jump_s(0);
    nodes::heal(fleet);
    let in_progress = deadline(PATIENCE * 2, "the control plane answers", || {
        operator::in_progress(fleet)
    });
    let phases: &[&str] = if in_progress {
        &["rollback", "standby"]
    } else {
        &[]
    };
    for phase in phases
        .iter()
        .chain(&["init", "update_clients", "update_servers", "standby"])
    {
        operator::enter(fleet, phase);
    }
    fleet.world.until_all_reached();
    nodes::removed(fleet);
    let verify = fleet.world.carousel(&["audit", "verify"]);
    for node in &fleet.nodes {
        nodes::kill(fleet, node);
    }
    let before = answers(fleet);
    fleet.kill_serve();
    std::fs::remove_dir_all(fleet.world.data().join("views")).expect("the views are there");
    fleet.start_serve();
    let after = answers(fleet);
    let differing = LISTS.iter().zip(before.iter().zip(&after));
    let differing: Vec<String> = differing
        .filter(|(_, (before, after))| before != after)
        .map(|(list, _)| (*list).to_owned())
        .collect();
    let events = fleet.world.json(&["audit", "ls", "--all"]);
    fleet.kill_serve();
    fleet.note_memory();
    fleet.record.note(Entry::Ended {
        verify_code: verify.code.unwrap_or(-1),
        differing,
        seconds: began.elapsed().as_secs_f64(),
    });
    drop(lock(&fleet.broker).take());
    events
}

/// What the views answer.
const LISTS: [&str; 7] = [
    "nodes",
    "rotations",
    "tokens",
    "users",
    "consumers",
    "authorities",
    "certificates",
];

/// All of it, without what a restart itself changes.
fn answers(fleet: &Fleet) -> Vec<Value> {
    let ask = |list: &&str| crate::replay::without_presence(fleet.world.json(&["get", list]));
    LISTS.iter().map(ask).collect()
}
