//! The simulation: a seeded virtual cluster that drives the product's pure functions through everything that goes wrong.
//!
//! `CAROUSEL_SIM_SEED=n` runs one seed and prints what happened; `CAROUSEL_SIM_SEEDS=n` runs so many. A seed that
//! violates an invariant is written to `tests/regressions/`, and all that stand there are run first.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "a test program: what is public is public to its own modules"
)]
#![allow(
    clippy::print_stdout,
    reason = "a failing run is told to whoever runs the tests"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use domain::rules::{Rule, without};

use crate::{invariants::Violation, sabotage::Sabotage};

mod chaos;
mod control;
mod gateway;
mod invariants;
mod net;
mod node;
mod operator;
mod rng;
mod rules;
mod run;
mod sabotage;
mod world;

/// How many seeds a normal run tries.
const SEEDS: u64 = 2_000;
/// How many seeds are tried to break something without a rule.
const SEEDS_PER_RULE: u64 = 400;

#[test]
fn no_seed_violates_an_invariant() {
    if let Some(seed) = setting("CAROUSEL_SIM_SEED") {
        let world = run::seed(seed, true);
        println!("{}", run::tell_story(&world));
        assert_eq!(world.violation, None, "seed {seed}");
        return;
    }
    for seed in kept_seeds() {
        let violation = run::seed(seed, false).violation;
        assert_eq!(
            violation, None,
            "seed {seed} of tests/regressions is violated again"
        );
    }
    let failed = search(setting("CAROUSEL_SIM_SEEDS").unwrap_or(SEEDS));
    let first = failed.first().map(|(seed, _)| *seed).unwrap_or_default();
    let again = format!("CAROUSEL_SIM_SEED={first} cargo test -p carousel-tests --test sim -- --nocapture");
    assert!(
        failed.is_empty(),
        "{} seeds failed; to read the first: {again}",
        failed.len()
    );
}

#[test]
fn one_seed_is_one_history() {
    let (one, two) = (run::seed(11, false), run::seed(11, false));
    assert!(one.log.events == two.log.events && one.truth == two.truth);
    assert!(one.log.events != run::seed(12, false).log.events);
}

#[test]
fn every_directed_schedule_holds_while_every_rule_does() {
    for rule in Rule::ALL {
        let Some(schedule) = rules::directed(rule) else {
            continue;
        };
        let world = schedule();
        assert_eq!(world.violation, None, "{rule:?}\n{}", run::tell_story(&world));
    }
    let world = sabotage::an_ordinary_rotation(None);
    assert_eq!(world.violation, None, "{}", run::tell_story(&world));
}

#[test]
fn every_necessary_rule_is_seen_to_be_necessary() {
    for (rule, seen) in &breakages().without_rules {
        assert!(
            seen.as_ref()
                .is_some_and(|(_, v)| rules::breaks(*rule).contains(&v.invariant)),
            "without {rule:?} one of {:?} must be violated, seen was {seen:?}",
            rules::breaks(*rule)
        );
    }
}

#[test]
fn every_sabotage_is_given_away() {
    for (sabotage, seen) in &breakages().by_sabotage {
        let invariant = seen.as_ref().map(|v| v.invariant);
        assert_eq!(invariant, Some(sabotage.breaks()), "{sabotage:?}: {seen:?}");
    }
}

/// An invariant that nothing breaks could as well be missing.
#[test]
fn every_invariant_is_seen_to_fail() {
    let found = breakages();
    let without_rules = found.without_rules.iter().filter_map(|(_, seen)| seen.as_ref());
    let seen: BTreeSet<_> = without_rules
        .map(|(_, violation)| violation)
        .chain(found.by_sabotage.iter().filter_map(|(_, seen)| seen.as_ref()))
        .map(|violation| violation.invariant)
        .collect();
    assert_eq!(seen, BTreeSet::from(invariants::ALL));
}

/// What was seen to break, without each rule and by each sabotage.
struct Breakages {
    without_rules: Vec<(Rule, Option<(String, Violation)>)>,
    by_sabotage: Vec<(Sabotage, Option<Violation>)>,
}

/// Sought once, for every test that asks.
fn breakages() -> &'static Breakages {
    static FOUND: OnceLock<Breakages> = OnceLock::new();
    FOUND.get_or_init(|| {
        let next = AtomicU64::new(0);
        let without_rules = in_threads(|| {
            let mut seen = vec![];
            while let Some(rule) = Rule::ALL
                .get(next.fetch_add(1, Ordering::Relaxed) as usize)
                .copied()
            {
                let how = break_without(rule);
                if let Some((how, violation)) = &how {
                    println!(
                        "{rule:?} -> {} ({how}): {}",
                        violation.invariant, violation.detail
                    );
                }
                seen.push((rule, how));
            }
            seen
        });
        let by_sabotage = Sabotage::ALL.map(|sabotage| {
            let violation = sabotage::an_ordinary_rotation(Some(sabotage)).violation;
            println!("{sabotage:?} -> {violation:?}");
            (sabotage, violation)
        });
        Breakages {
            without_rules,
            by_sabotage: by_sabotage.to_vec(),
        }
    })
}

/// What breaks without a rule, and how it was found: by a directed schedule, or by a seed that holds with the rule
/// and violates an invariant that the rule is there for.
fn break_without(rule: Rule) -> Option<(String, Violation)> {
    if let Some(schedule) = rules::directed(rule) {
        let violation = without(rule, || schedule().violation)?;
        return Some(("a directed schedule".into(), violation));
    }
    (0..SEEDS_PER_RULE).find_map(|seed| {
        let violation = without(rule, || run::seed(seed, false).violation)?;
        let is_it = rules::breaks(rule).contains(&violation.invariant);
        (is_it && run::seed(seed, false).violation.is_none()).then(|| (format!("seed {seed}"), violation))
    })
}

/// Runs seeds on every core; the ones that failed, in order.
fn search(count: u64) -> Vec<(u64, Violation)> {
    let next = AtomicU64::new(0);
    let mut failed = in_threads(|| {
        let mut failed = vec![];
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count {
                return failed;
            }
            if let Some(violation) = run::seed(seed, false).violation {
                // At once, so that a run that is cut short has kept what it found.
                keep(seed, &violation);
                failed.push((seed, violation));
            }
        }
    });
    failed.sort_by_key(|(seed, _)| *seed);
    failed
}

fn in_threads<T: Send>(work: impl Fn() -> Vec<T> + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        running
            .into_iter()
            .flat_map(|thread| thread.join().expect("a run does not panic"))
            .collect()
    })
}

fn setting(name: &str) -> Option<u64> {
    std::env::vars()
        .find(|(key, _)| key == name)
        .and_then(|(_, value)| value.parse().ok())
}

fn regressions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

/// The seeds that failed once, from the first line of each file: `seed N`.
fn kept_seeds() -> Vec<u64> {
    let entries = fs::read_dir(regressions())
        .into_iter()
        .flatten()
        .filter_map(Result::ok);
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let mut seeds: Vec<u64> = texts
        .filter_map(|text| text.lines().next()?.strip_prefix("seed ")?.parse().ok())
        .collect();
    seeds.sort_unstable();
    seeds
}

/// Tells of a failing seed, and writes it where it is run first from now on.
fn keep(seed: u64, violation: &Violation) {
    println!(
        "seed {seed}: {} at position {}: {}",
        violation.invariant, violation.position, violation.detail
    );
    let text = format!("seed {seed}\n{}\n{}\n", violation.invariant, violation.detail);
    let _ = fs::write(regressions().join(format!("seed-{seed}.txt")), text);
}
