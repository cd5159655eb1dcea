//! The pure core of Carousel: what a rotation is, who may ask for what, and what follows.
//!
//! Nothing here does I/O, reads a clock, draws a random number or logs. Time, fresh ids and serials
//! come in as arguments ([`Given`]), so that the simulation, the audit and the product run the same
//! code and get the same answers. Five functions carry everything (design: "five pure functions"):
//!
//! - [`decide`] a command against the state gives facts, or a [`Refusal`];
//! - [`evolve`] folds one event into the state (total: it never fails);
//! - [`desired`] says what one node should hold;
//! - [`reconcile`] is the agent's plan from what it has to what it should hold;
//! - [`duty`] is what the signer owes after an event.

pub mod access;
pub mod authority;
pub mod command;
pub mod decide;
pub mod desired;
pub mod duty;
pub mod event;
pub mod evolve;
pub mod fact;
pub mod gate;
pub mod id;
pub mod identity;
pub mod oracle;
pub mod own_parts;
pub mod phase;
pub mod plain;
pub mod probe;
pub mod reconcile;
pub mod refusal;
pub mod rules;
pub mod schedule;
pub mod standing;
pub mod state;
pub mod time;
pub mod trust;

pub use authority::AuthorityType;
pub use command::{Answer, Command, Credential, Given, Order};
pub use decide::{Decision, decide};
pub use desired::{DesiredState, desired};
pub use duty::{Duty, duty, owed};
pub use event::{Event, Fact, Header};
pub use evolve::evolve;
pub use id::*;
pub use phase::Phase;
pub use plain::plain;
pub use reconcile::{Have, Step, reconcile};
pub use refusal::{Code, Refusal};
pub use state::ClusterState;
pub use time::Timestamp;
