//! What the next steps of a rotation would do: computed by the oracle over current facts, never guessed.

use domain::{AuthorityType, Code, Phase, Position, Timestamp, command::Mode};
use serde::{Deserialize, Serialize};

use crate::problem::{Connections, GateDetails, TimeConditionDoc};

/// `GET /v1/plan/{type}`. Nothing is changed by it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The cluster.
    pub cluster: String,
    /// Which authority.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// The state that it was computed on.
    pub position: Position,
    /// The time of it.
    pub time: Timestamp,
    /// The current phase.
    pub phase: Phase,
    /// The mode of the rotation in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// When the rotation in progress began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// When the current phase was entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The generation that signs, and the one that will.
    pub generations: (u32, u32),
    /// The gate into the next phase; none while idle (there is no gate into `init`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateDetails>,
    /// External consumers registered, and how many of them have attested.
    pub consumers: (u32, u32),
    /// Connections that are broken already, before anything is forced.
    #[serde(default)]
    pub broken_now: Connections,
    /// Each step that is left, in order (or up to the asked phase).
    pub steps: Vec<PlanStep>,
    /// Who would be cut off, and how.
    pub who: Vec<PlanSubject>,
    /// What a person has to do outside the agents' reach.
    pub by_hand: Vec<PlanByHand>,
    /// Why the next step would be refused now, if it would.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_with: Option<Code>,
}

/// One step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlanStep {
    /// The phase that it enters.
    pub phase: Phase,
    /// What it does: `12 new client certificates`.
    pub does: String,
    /// What would break if it were forced now, with every node that lags staying as it is.
    pub if_forced: Connections,
    /// Who would be cut off, by name (the first hundred); excluded nodes too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut_off: Vec<String>,
    /// Who holds certificates of the authority that the step retires, and would be locked out by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_out: Option<TimeConditionDoc>,
    /// Consumers that would be cut off.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<String>,
}

/// Somebody who would be cut off.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlanSubject {
    /// The node or consumer.
    pub name: String,
    /// What is missing, and from which step on it hurts.
    pub text: String,
}

/// Something for a person to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PlanByHand {
    /// Once the rotation is in this phase, and before the step after it.
    pub phase: Phase,
    /// Who, and what.
    pub text: String,
    /// The command that gives what is needed; it ends in `...` where its `--help` says what else it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}
