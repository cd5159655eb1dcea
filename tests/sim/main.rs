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
    let count: u64 = std::env::vars().find(|(k, _)| k == "CAROUSEL_SIM_SEEDS").and_then(|(_, v)| v.parse().ok()).unwrap_or(400);
    let threads: Vec<_> = (0..2u64)
        .map(|t| {
            std::thread::spawn(move || {
                let mut failed = vec![];
                let mut events = 0;
                for n in (t..count).step_by(2) {
                    let world = run::seed(n, false);
                    events += world.log.events.len();
                    if let Some(v) = world.violation {
                        println!("{n}: {} {}", v.invariant, v.detail);
                        failed.push((v.invariant, n));
                    }
                }
                (failed, events)
            })
        })
        .collect();
    let mut events = 0;
    let mut failed = std::collections::BTreeMap::<&str, Vec<u64>>::new();
    for t in threads {
        let (f, e) = t.join().unwrap();
        events += e;
        for (i, n) in f {
            failed.entry(i).or_default().push(n);
        }
    }
    println!("{:?} {events} events {failed:?}", started.elapsed());
}

#[test]
fn search() {
    use domain::rules::{Rule, without};
    let count: u64 = std::env::vars().find(|(k, _)| k == "CAROUSEL_SIM_SEEDS").and_then(|(_, v)| v.parse().ok()).unwrap_or(100);
    let half = |t: usize| {
        std::thread::spawn(move || {
            for (_, rule) in Rule::ALL.into_iter().enumerate().filter(|(k, _)| k % 2 == t) {
                let mut found = vec![];
                for n in 0..count {
                    let v = without(rule, || run::seed(n, false).violation);
                    if let Some(v) = v {
                        found.push((n, v));
                        if found.len() > 2 {
                            break;
                        }
                    }
                }
                println!("{rule:?}: {:?}", found.iter().map(|(n, v)| format!("{n} {} {}", v.invariant, v.detail)).collect::<Vec<_>>());
            }
        })
    };
    let threads = [half(0), half(1)];
    for t in threads {
        t.join().unwrap();
    }
}
