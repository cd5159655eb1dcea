//! The broker goes away under commands: whatever was acknowledged is there once, and everybody else is told in words
//! that repeating is safe.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use carousel_tests::{Dice, eventually, run};

use crate::{
    kills::moment,
    world::{Log, World, text},
};

/// How often it dies.
const DEATHS: usize = 2;

#[test]
fn the_broker_dies_under_commands_and_no_acknowledged_one_is_lost() {
    let Some(mut world) = World::start("broker-dies", Log::JetStream) else {
        return;
    };
    let mut dice = Dice::new(3);
    let (mut acknowledged, mut failures) = (vec![], vec![]);
    for _ in 0..DEATHS {
        let (yes, no) = under_commands(&mut world, moment(&mut dice));
        acknowledged.extend(yes);
        failures.extend(no);
        world.start_broker();
        eventually("the control plane answers again", || {
            world.carousel(&["status"]).code == Some(0)
        });
    }
    assert!(
        !acknowledged.is_empty() && !failures.is_empty(),
        "the test met no death"
    );
    for (code, stderr) in &failures {
        // Either the control plane says that its log is away, or it has not answered at all: no other word is true.
        let is_said = match code {
            Some(3) => ["log_unavailable", "not_serving", "views_lagging"]
                .iter()
                .any(|code| stderr.starts_with(&format!("refused: {code}: "))),
            Some(4) => stderr.starts_with("unreachable: "),
            _ => false,
        };
        assert!(is_said, "exit code {code:?}\n{stderr}");
    }
    let tokens = world.json(&["audit", "ls", "--all", "--type", "access.token-created"]);
    let tokens: Vec<String> = tokens
        .as_array()
        .expect("an array of events")
        .iter()
        .map(|event| text(&event["data"]["token"]))
        .collect();
    for id in &acknowledged {
        let times = tokens.iter().filter(|token| *token == id).count();
        assert_eq!(
            times, 1,
            "token {id} was acknowledged and is {times} times in the log"
        );
    }
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// A command that failed: its exit code and what it said.
type Failure = (Option<i32>, String);

/// Two operators make tokens while the broker is killed `after` they began; each stops at its first failure.
fn under_commands(world: &mut World, after: Duration) -> (Vec<String>, Vec<Failure>) {
    let begun = AtomicBool::new(false);
    let mut broker = world.take_broker();
    let (yes, no) = thread::scope(|scope| {
        let operators: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| until_it_fails(world, &begun)))
            .collect();
        eventually("somebody has been answered", || begun.load(Ordering::Relaxed));
        // Not a wait for anything: the moment itself is what the test varies.
        thread::sleep(after);
        broker.kill();
        let both = operators.into_iter().map(|o| o.join().expect("no panic"));
        both.fold((vec![], vec![]), |(mut yes, mut no), (ids, failure)| {
            yes.extend(ids);
            no.push(failure);
            (yes, no)
        })
    });
    world.put_broker(broker);
    (yes, no)
}

fn until_it_fails(world: &World, begun: &AtomicBool) -> (Vec<String>, Failure) {
    let mut made = vec![];
    loop {
        let finished = run(&mut world.command(&["tokens", "add", "--name", "later", "--format=json"]));
        if finished.code != Some(0) {
            return (made, (finished.code, finished.stderr));
        }
        made.push(text(&finished.json()["id"]));
        begun.store(true, Ordering::Relaxed);
    }
}
