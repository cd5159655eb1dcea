//! The gate for those who count and do not name: views and watchers ask it at every change, however large the fleet is.

use super::{TimeCondition, without_names};
use crate::{
    authority::{AuthorityType, KeyKind},
    phase::Phase,
    refusal::Code,
    state::ClusterState,
    time::Timestamp,
};

/// What a gate waits for, without the names of the nodes.
#[derive(Clone, PartialEq, Debug)]
pub struct Outline {
    /// How many nodes are required.
    pub required: u32,
    /// How many of those have reached.
    pub reached: u32,
    /// How many nodes are excluded from the rotation.
    pub excluded: u32,
    /// New keys that are not in the log yet.
    pub keys_missing: Vec<KeyKind>,
    /// External consumers that have not attested.
    pub consumers: Vec<String>,
    /// Leaves held by parties without an agent.
    pub time_condition: Option<TimeCondition>,
    /// What a command through the gate is refused with, without force; none while it is open.
    pub refused: Option<Code>,
}

/// The outline of the gate from the current phase of a type into `to`: what [`super::evaluate`] says, at the same cost for
/// any number of nodes.
pub fn outline(state: &ClusterState, authority_type: AuthorityType, to: Phase, now: Timestamp) -> Outline {
    let (gate, waits) = without_names(state, authority_type, to, now);
    let lagging = if waits { gate.required - gate.reached } else { 0 };
    Outline {
        required: gate.required,
        reached: gate.reached,
        excluded: gate.excluded,
        refused: gate.obstacle(lagging as usize, false),
        keys_missing: gate.keys_missing,
        consumers: gate.consumers,
        time_condition: gate.time_condition,
    }
}
