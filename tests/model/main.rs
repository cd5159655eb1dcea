//! The protocol checked exhaustively: every order of every step, within bounds, over the product's own functions.
//!
//! `cargo test --test model` checks the bounds below in minutes. `CAROUSEL_MODEL=heals` asks every state for its way to the
//! end and not every fourth, `large` takes larger bounds, `rules` looks for more counterexamples: hours.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a test program: what is public is public to its own modules"
)]
#![allow(clippy::print_stdout, reason = "the number of states is the result")]

mod agent;
mod canon;
mod check;
mod gateway;
mod protocol;
mod world;

use std::{
    collections::{BTreeMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    time::Instant,
};

use domain::rules::Rule;
use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    protocol::{Grain, HEALS, LOST, Protocol},
    world::{Left, World},
};

/// Looks at every state; the number of them.
fn explore(name: &str, model: Protocol) -> usize {
    let began = Instant::now();
    let checker = model
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::Any)
        .spawn_dfs()
        .join();
    let states = checker.unique_state_count();
    println!(
        "{name}: {states} states in {:.1} s",
        began.elapsed().as_secs_f64()
    );
    for property in [LOST, HEALS] {
        if let Some(path) = checker.discovery(property) {
            let last = path.last_state();
            let why = last.wrong.clone().or_else(|| last.heals().err());
            let steps: Vec<String> = path
                .clone()
                .into_actions()
                .iter()
                .map(|a| format!("{a:?}"))
                .collect();
            panic!("{name}: {why:?} after\n{}", steps.join("\n"));
        }
    }
    states
}

/// A rotation that may be turned back, and a node that sleeps.
const BACK: Left = Left {
    rotations: 1,
    rollbacks: 1,
    sleeps: 1,
    ..Left::NONE
};
const TWICE: Left = Left { rotations: 2, ..BACK };

/// The bounds that are checked, and how fine the steps are.
fn usual() -> Vec<(&'static str, Protocol)> {
    let (renewals, failures, restarts, losses) = (1, 1, 1, 1);
    let (forces, exclusions, restores, waits) = (1, 1, 1, 1);
    let renewed = Left { renewals, ..BACK };
    let failing = Left { failures, ..renewed };
    let unsteady = Left {
        restarts,
        losses,
        rollbacks: 0,
        sleeps: 0,
        ..BACK
    };
    let forced = Left {
        forces,
        exclusions,
        ..BACK
    };
    let copied = Left {
        restores,
        waits,
        rollbacks: 0,
        ..BACK
    };
    let every = if asked_for("heals") { 1 } else { 4 };
    vec![
        (
            "one node, every act by itself",
            Protocol::new(1, Grain::Fine, every, BACK),
        ),
        (
            "one node, renewals and failures",
            Protocol::new(1, Grain::Prompt, every, failing),
        ),
        (
            "one node, the gateway starts",
            Protocol::new(1, Grain::Fine, every, unsteady),
        ),
        (
            "one node, two rotations",
            Protocol::new(1, Grain::Prompt, every, TWICE),
        ),
        ("two nodes", Protocol::new(2, Grain::Coarse, every, renewed)),
        (
            "two nodes, force and exclusion",
            Protocol::new(2, Grain::Coarse, every, forced),
        ),
        (
            "two nodes, a backup",
            Protocol::new(2, Grain::Coarse, every, copied),
        ),
        ("three nodes", Protocol::new(3, Grain::Coarse, every, BACK)),
    ]
}

/// Larger ones, which take hours.
fn large() -> Vec<(&'static str, Protocol)> {
    let (renewals, failures, restarts, sleeps) = (1, 1, 1, 2);
    let (forces, exclusions, restores, waits) = (1, 1, 1, 1);
    let unsteady = Left {
        renewals,
        failures,
        restarts,
        ..BACK
    };
    let sleepy = Left { sleeps, ..TWICE };
    let forced = Left {
        forces,
        exclusions,
        ..sleepy
    };
    let copied = Left {
        restores,
        waits,
        renewals,
        ..sleepy
    };
    vec![
        (
            "one node, everything, every act by itself",
            Protocol::new(1, Grain::Fine, 64, unsteady),
        ),
        (
            "one node, two rotations, every act by itself",
            Protocol::new(1, Grain::Fine, 64, sleepy),
        ),
        (
            "two nodes, signer and gateway prompt",
            Protocol::new(2, Grain::Prompt, 64, BACK),
        ),
        (
            "two nodes, two rotations, force and exclusion",
            Protocol::new(2, Grain::Coarse, 64, forced),
        ),
        (
            "two nodes, two rotations, a backup",
            Protocol::new(2, Grain::Coarse, 64, copied),
        ),
        (
            "three nodes, two rotations",
            Protocol::new(3, Grain::Coarse, 64, sleepy),
        ),
    ]
}

#[test]
fn every_order_of_every_step_leaves_everybody_connected() {
    let models = if asked_for("large") { large() } else { usual() };
    for (name, model) in models {
        explore(name, model);
    }
}

/// The shortest way to what a rule prevents.
fn counterexample(model: Protocol) -> Option<String> {
    let checker = model
        .checker()
        .finish_when(HasDiscoveries::Any)
        .spawn_bfs()
        .join();
    [LOST, HEALS].into_iter().find_map(|property| {
        let path = checker.discovery(property)?;
        let last = path.last_state();
        let why = last.wrong.clone().unwrap_or_else(|| property.to_owned());
        let steps: Vec<String> = path
            .clone()
            .into_actions()
            .iter()
            .map(|a| format!("{a:?}"))
            .collect();
        Some(format!("{why}: {}", steps.join(", ")))
    })
}

/// The rules whose absence one of these models shows, with the model that does. `CAROUSEL_MODEL=rules` looks for the
/// others too, in hours; the simulation shows each of them.
const SHOWN: [(Rule, &str); 2] = [
    (Rule::FactsAreFresh, "one node, every act by itself"),
    (Rule::TrustIsEqual, "one node, renewals and failures"),
];

#[test]
fn without_a_rule_there_is_a_way_to_lose_a_node() {
    let is_search = asked_for("rules");
    for rule in Rule::ALL {
        let by = SHOWN.iter().find(|(of, _)| *of == rule).map(|(_, by)| *by);
        let mut found = false;
        for (name, model) in usual() {
            let is_due = by.map_or(is_search, |by| by == name);
            if !is_due || found {
                continue;
            }
            let off = Some(rule);
            let began = Instant::now();
            if let Some(why) = counterexample(Protocol { off, ..model }) {
                println!("{rule:?}: {name} ({:.1} s): {why}", began.elapsed().as_secs_f64());
                found = true;
            }
        }
        assert!(found || by.is_none(), "{rule:?} is not missed");
    }
}

/// `CAROUSEL_MODEL` says what to do beside the usual.
fn asked_for(what: &str) -> bool {
    std::env::vars().any(|(key, value)| key == "CAROUSEL_MODEL" && value == what)
}

/// States of each model whose futures are compared.
const COMPARED: usize = 4_000;

/// What of a world counts must be all that its future depends on: otherwise states would be taken for ones that were
/// looked at before, and never looked at.
#[test]
fn worlds_that_count_as_the_same_have_the_same_future() {
    let print = |world: &World| {
        let mut hasher = DefaultHasher::new();
        world.hash(&mut hasher);
        hasher.finish()
    };
    for (name, model) in usual() {
        let mut futures: BTreeMap<u64, (World, BTreeMap<u64, String>)> = BTreeMap::new();
        let mut to_do = VecDeque::from(model.init_states());
        let mut compared = 0;
        while let Some(world) = to_do.pop_front() {
            // A step that changes nothing that counts is none.
            let steps = model.next_steps(&world).into_iter();
            let future: BTreeMap<u64, String> = steps
                .map(|(action, next)| (print(&next), format!("{action:?}")))
                .filter(|(next, _)| *next != print(&world))
                .collect();
            match futures.get(&print(&world)) {
                Some((other, known)) if *other != world => {
                    compared += 1;
                    if !known.keys().eq(future.keys()) {
                        let (a, b) = (format!("{other:#?}"), format!("{world:#?}"));
                        let lines = a.lines().zip(b.lines()).filter(|(a, b)| a != b);
                        let lines: Vec<String> = lines.take(40).map(|(a, b)| format!("{a} | {b}")).collect();
                        panic!("{name}: {known:?}\n{future:?}\n{}", lines.join("\n"));
                    }
                }
                Some(_) => {}
                None => {
                    if futures.len() < COMPARED {
                        to_do.extend(model.next_states(&world));
                        futures.insert(print(&world), (world, future));
                    }
                }
            }
        }
        println!("{name}: {} states, {compared} compared", futures.len());
    }
}
