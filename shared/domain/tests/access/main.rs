//! Given a log, when somebody asks, then the domain says this: who may come in, and as whom.
//!
//! Each test drives the two functions that the product runs, `decide` and `evolve`, over a log of its own.
#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic like the tests themselves"
)]

mod again;
mod caches;
mod certificates;
mod clones;
mod consumers;
mod endings;
mod forgetting;
mod genesis;
mod identity;
mod joining;
mod kinds;
mod members;
mod nodes;
mod probes;
mod properties;
mod recovering;
mod reports;
mod revoking;
mod rotations;
mod schedules;
mod shown;
mod signing;
mod ssh;
mod tokens;
mod users;
mod world;
