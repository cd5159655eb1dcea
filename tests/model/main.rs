//! The protocol checked exhaustively: every order of every step, within bounds, over the product's own functions.
//!
//! `cargo test --test model` checks the bounds below in minutes; `CAROUSEL_MODEL=large` takes larger ones, and hours.

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

use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    protocol::{Grain, HEALS, LOST, Protocol},
    world::Left,
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

/// The bounds that are checked, and how fine the steps are. Those of `large` take hours.
fn models(large: bool) -> Vec<(&'static str, Protocol)> {
    let model = |agents, grain, left| Protocol {
        agents,
        left,
        grain,
        off: None,
        heals_every: if large { 64 } else { 16 },
    };
    let none = Left::default();
    let one = Left { rotations: 1, ..none };
    let back = Left {
        rollbacks: 1,
        sleeps: 1,
        ..one
    };
    let twice = Left { rotations: 2, ..back };
    if large {
        return vec![
            (
                "one node, everything, every act by itself",
                model(
                    1,
                    Grain::Fine,
                    Left {
                        renewals: 1,
                        failures: 1,
                        restarts: 1,
                        ..back
                    },
                ),
            ),
            (
                "one node, two rotations, every act by itself",
                model(1, Grain::Fine, Left { sleeps: 2, ..twice }),
            ),
            ("two nodes", model(2, Grain::Prompt, back)),
            (
                "two nodes, two rotations, force and exclusion",
                model(
                    2,
                    Grain::Coarse,
                    Left {
                        sleeps: 2,
                        forces: 1,
                        exclusions: 1,
                        ..twice
                    },
                ),
            ),
            (
                "two nodes, two rotations, a backup",
                model(
                    2,
                    Grain::Coarse,
                    Left {
                        sleeps: 2,
                        restores: 1,
                        waits: 1,
                        renewals: 1,
                        ..twice
                    },
                ),
            ),
            (
                "three nodes, two rotations",
                model(3, Grain::Coarse, Left { sleeps: 2, ..twice }),
            ),
        ];
    }
    vec![
        ("one node, every act by itself", model(1, Grain::Fine, back)),
        (
            "one node, renewals and failures",
            model(
                1,
                Grain::Prompt,
                Left {
                    renewals: 1,
                    failures: 1,
                    ..back
                },
            ),
        ),
        (
            "one node, the gateway starts",
            model(
                1,
                Grain::Fine,
                Left {
                    restarts: 1,
                    losses: 1,
                    ..one
                },
            ),
        ),
        ("one node, two rotations", model(1, Grain::Prompt, twice)),
        ("two nodes", model(2, Grain::Coarse, Left { renewals: 1, ..back })),
        (
            "two nodes, force and exclusion",
            model(
                2,
                Grain::Coarse,
                Left {
                    forces: 1,
                    exclusions: 1,
                    ..back
                },
            ),
        ),
        (
            "two nodes, a backup",
            model(
                2,
                Grain::Coarse,
                Left {
                    restores: 1,
                    waits: 1,
                    sleeps: 1,
                    ..one
                },
            ),
        ),
        ("three nodes", model(3, Grain::Coarse, back)),
    ]
}

#[test]
fn every_order_of_every_step_leaves_everybody_connected() {
    let large = std::env::vars().any(|(key, value)| key == "CAROUSEL_MODEL" && value == "large");
    for (name, model) in models(large) {
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

#[test]
fn without_a_rule_there_is_a_way_to_lose_a_node() {
    for rule in domain::rules::Rule::ALL {
        let mut found = None;
        for (name, model) in models(false) {
            let began = Instant::now();
            let off = Protocol {
                off: Some(rule),
                heals_every: 1,
                ..model
            };
            if let Some(why) = counterexample(off) {
                found = Some(format!("{name} ({:.1} s): {why}", began.elapsed().as_secs_f64()));
                break;
            }
        }
        println!("{rule:?}: {found:?}");
    }
}
