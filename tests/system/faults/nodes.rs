//! What is done to nodes, and what one of them does to the others.

use std::{
    fs,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use carousel_tests::{Dice, PATIENCE, eventually};
use domain::TokenHash;
use serde_json::json;

use super::{
    disk::{self, FakeClock},
    fleet::{Fleet, Node, lock},
    liar::{self, pins, tell},
    load, operator,
    plane::between,
};
use crate::world::Agent;

/// One thing that may happen to a node.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Frozen,
    Flapping,
    FullDisk,
    ReadOnlyDisk,
    Clock,
    /// Its directory is that of an earlier day.
    Restored,
    /// Whoever has its key claims what is not so.
    Lies,
}

const ALL: [Fault; 8] = [
    Fault::Killed,
    Fault::Frozen,
    Fault::Flapping,
    Fault::FullDisk,
    Fault::ReadOnlyDisk,
    Fault::Clock,
    Fault::Restored,
    Fault::Lies,
];

/// What each of them is called in the record.
pub(crate) fn names() -> impl Iterator<Item = String> {
    ALL.iter().map(|fault| format!("{fault:?}"))
}

/// One after another until the time is over: each kind once before any comes again.
pub(crate) fn trouble(fleet: &Fleet, seed: u64) {
    let mut dice = Dice::new(seed);
    for round in 0.. {
        let mut faults = ALL;
        dice.shuffle(&mut faults);
        for fault in faults {
            fleet.pass(between(&mut dice, 100, 1_500));
            if fleet.is_over() {
                return;
            }
            let victims = victims(fleet, &mut dice, fault);
            let names: Vec<_> = victims.iter().map(|node| node.name.as_str()).collect();
            let (kind, names) = (format!("{fault:?}"), names.join(" "));
            fleet.fault(&kind, &names, "begins", "");
            inflict(fleet, &mut dice, fault, &victims);
            fleet.fault(&kind, &names, "ends", "");
            for node in victims {
                node.busy.store(false, Ordering::Relaxed);
            }
        }
        fleet.rounds.fetch_add(usize::from(round == 0), Ordering::Relaxed);
    }
}

/// Nodes that the fault can be done to and that nobody else is at.
fn victims<'a>(fleet: &'a Fleet, dice: &mut Dice, fault: Fault) -> Vec<&'a Node> {
    let count = match fault {
        Fault::Killed | Fault::Frozen => 1 + dice.below(5),
        Fault::Flapping
        | Fault::FullDisk
        | Fault::ReadOnlyDisk
        | Fault::Clock
        | Fault::Restored
        | Fault::Lies => 1,
    };
    let fits = |node: &&Node| match fault {
        Fault::FullDisk | Fault::ReadOnlyDisk => node.disk.is_some(),
        Fault::Clock => node.clock.is_some(),
        // What one of them breaks for a while must not be taken for what another did.
        Fault::Killed | Fault::Frozen | Fault::Flapping | Fault::Restored | Fault::Lies => {
            node.disk.is_none() && node.clock.is_none()
        }
    };
    let mut fitting: Vec<_> = fleet.nodes.iter().filter(fits).collect();
    dice.shuffle(&mut fitting);
    let free = fitting
        .into_iter()
        .filter(|node| !node.busy.swap(true, Ordering::Relaxed));
    free.take(count).collect()
}

fn inflict(fleet: &Fleet, dice: &mut Dice, fault: Fault, victims: &[&Node]) {
    let a_while = between(dice, 300, 4_000);
    match fault {
        Fault::Killed => {
            victims.iter().for_each(|node| kill(fleet, node));
            fleet.pass(a_while);
            victims.iter().for_each(|node| lock(&node.agent).start());
        }
        Fault::Frozen => {
            let each = |what: fn(&carousel_tests::Proc)| {
                for node in victims {
                    lock(&node.agent).proc.iter().for_each(what);
                }
            };
            each(carousel_tests::Proc::stop);
            fleet.pass(a_while);
            each(carousel_tests::Proc::resume);
        }
        Fault::Flapping => {
            for _ in 0..6 {
                kill(fleet, victims[0]);
                lock(&victims[0].agent).start();
                fleet.pass(between(dice, 50, 700));
            }
        }
        Fault::FullDisk => {
            let disk = victims[0].disk.as_ref().expect("chosen for it");
            disk.fill();
            fleet.pass(a_while);
            disk.free();
        }
        Fault::ReadOnlyDisk => read_only(fleet, victims[0], a_while),
        Fault::Clock => clock(fleet, dice, victims[0], a_while),
        Fault::Restored => restored(fleet, victims[0], a_while),
        Fault::Lies => liar::lies(fleet, dice, victims[0]),
    }
}

/// Ends an agent without a word.
pub(crate) fn kill(fleet: &Fleet, node: &Node) {
    let taken = lock(&node.agent).proc.take();
    if let Some(mut proc) = taken {
        fleet.look_at("agent", proc.pid());
        proc.kill9();
        fleet.hear(&node.name, &proc);
    }
}

fn read_only(fleet: &Fleet, node: &Node, time: Duration) {
    let disk = node.disk.as_ref().expect("chosen for it");
    kill(fleet, node);
    disk.read_only(true);
    lock(&node.agent).start();
    fleet.pass(time);
    kill(fleet, node);
    disk.read_only(false);
    lock(&node.agent).start();
}

fn clock(fleet: &Fleet, dice: &mut Dice, node: &Node, time: Duration) {
    let clock = node.clock.as_ref().expect("chosen for it");
    let by_s = if dice.chance(500) {
        dice.span(30, 90_000)
    } else {
        -dice.span(30, 90_000)
    };
    // A peer may rightly take what it has for not yet or no longer valid, and it takes theirs so.
    node.excuse(Some("clock"));
    fleet.fault("clock", &node.name, "jumps", format!("{by_s:+} s"));
    clock.jump_s(by_s);
    fleet.pass(time + FakeClock::NOTICED);
    clock.jump_s(0);
    fleet.pass(FakeClock::NOTICED);
    comes_back(fleet, node);
}

/// A backup is put back, of now or of the time when this happened to the node before; the node recovers, or is told
/// that a newer one of it was seen, and a person gives it a new token.
fn restored(fleet: &Fleet, node: &Node, time: Duration) {
    let backup = fleet.world.dir.join(&format!("backup-{}", node.name));
    kill(fleet, node);
    if !backup.exists() {
        disk::copy(&node.dir, &backup);
        lock(&node.agent).start();
        fleet.pass(time);
        kill(fleet, node);
    }
    node.excuse(Some("restored"));
    disk::replace(&backup, &node.dir);
    // What the agent of before said of itself is no word of the one that starts now.
    let _ = fs::remove_file(node.dir.join("status.json"));
    lock(&node.agent).start();
    comes_back(fleet, node);
}

/// Waits until a gateway hears the node and it serves by the current row again; joins it anew when its agent has ended
/// with the word that only a person can help. What the control plane believes alone may be what it held before.
fn comes_back(fleet: &Fleet, node: &Node) {
    let (mut asked, end) = (false, Instant::now() + PATIENCE * 10);
    while !fleet.is_over() {
        assert!(Instant::now() < end, "{} does not come back", node.name);
        if node.is_heard() && reached(fleet, node) {
            node.excuse(None);
            return;
        }
        let mut agent = lock(&node.agent);
        let ended = agent.proc.as_mut().is_some_and(|proc| !proc.is_running());
        if ended {
            let mut proc = agent.proc.take().expect("it was there");
            let code = proc.wait(PATIENCE).code();
            fleet.fault("ended", &node.name, &format!("{code:?}"), proc.stderr());
            if !asked {
                asked = new_token(fleet, node, &mut agent).is_some();
            }
            agent.start();
        }
        drop(agent);
        fleet.pass(Duration::from_millis(100));
    }
}

/// A person pastes the line of a new token: with the pins of today.
fn new_token(fleet: &Fleet, node: &Node, agent: &mut Agent) -> Option<()> {
    let text = uuid::Uuid::now_v7().to_string();
    let hash = TokenHash(execution::sha256(text.as_bytes()));
    let body =
        json!({"id": uuid::Uuid::now_v7(), "hash": hash, "names": [node.name], "uses": 1, "ttl_ms": 600_000});
    let made = operator::until_answered(
        fleet,
        "/v1/tokens",
        &body,
        "tokens add for a node that was restored",
    )?;
    let bundle = made["bundle_pin"].as_str()?;
    let fresh = fleet
        .world
        .agent_for(&node.name, &text, &pins(&made["ca_pins"]), bundle);
    let env = std::mem::take(&mut agent.env);
    *agent = fresh;
    agent.env = env;
    Some(())
}

/// Has the node reached the cluster's phase of `host`, as the gate sees it, and does it serve?
fn reached(fleet: &Fleet, node: &Node) -> bool {
    liar::is_believed(fleet, node) && node.listens().is_some()
}

/// A node is removed: what it holds counts no more, neither at the gateway nor at its peers.
pub(crate) fn removed(fleet: &Fleet) {
    let [peer, .., gone] = &fleet.nodes[..] else {
        panic!("a fleet has two nodes");
    };
    let _ = fleet
        .world
        .carousel(&["nodes", "rm", &gone.name, "--reason", "its key is known"])
        .expect_code(0);
    let report = json!({"boot": uuid::Uuid::now_v7(), "seq": 1, "version": "gone", "authorities": {}});
    eventually("the gateway refuses what a removed node holds", || {
        let said = tell(fleet, gone, &report).to_lowercase();
        // By TLS already, or by a gateway that has not dropped the connection yet.
        ["revoked", "certificate_unknown: ", "node_removed: "]
            .iter()
            .any(|no| said.contains(no))
    });
    eventually("a peer refuses what a removed node holds", || {
        load::is_refused(gone, peer)
    });
    lock(&gone.agent).proc.take();
}

/// Everything is whole again: every agent runs, no disk is full, every clock is true.
pub(crate) fn heal(fleet: &Fleet) {
    for node in &fleet.nodes {
        if let Some(disk) = &node.disk {
            disk.free();
        }
        if let Some(clock) = &node.clock {
            clock.jump_s(0);
        }
        let mut agent = lock(&node.agent);
        if agent.proc.as_mut().is_none_or(|proc| !proc.is_running()) {
            agent.start();
        }
    }
    for node in fleet.nodes.iter().filter(|node| node.excused().is_some()) {
        comes_back(fleet, node);
    }
}
