//! The simulation: a seeded virtual cluster that drives the product's pure functions through everything that goes wrong.
//!
//! `CAROUSEL_SIM_SEED=n` runs one seed and prints what happened; `CAROUSEL_SIM_SEEDS=n` runs so many. A seed that
//! violates an invariant is written to `tests/regressions/`, and all that stand there are run first.

#![allow(missing_docs, reason = "a test program: what is public is public to its own modules")]

mod chaos;
mod control;
mod gateway;
mod invariants;
mod net;
mod node;
mod operator;
mod rng;
mod run;
mod world;

#[test]
fn smoke() {
    let one = std::env::vars().find(|(k, _)| k == "CAROUSEL_SIM_SEED").and_then(|(_, v)| v.parse().ok());
    if let Some(n) = one {
        let world = run::seed(n, true);
        println!("{}", run::tell_story(&world));
        assert!(world.violation.is_none());
        return;
    }
    let started = std::time::Instant::now();
    let mut failed = std::collections::BTreeMap::<&str, Vec<u64>>::new();
    let mut events = 0;
    for n in 0..200 {
        let world = run::seed(n, false);
        events += world.log.events.len();
        if let Some(v) = world.violation {
            println!("{n}: {} {}", v.invariant, v.detail);
            failed.entry(v.invariant).or_default().push(n);
        }
    }
    println!("{:?} {events} events {failed:?}", started.elapsed());
}
