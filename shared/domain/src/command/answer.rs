//! The answers to commands.

use serde::{Deserialize, Serialize};

use super::Mode;
use crate::{
    authority::AuthorityType,
    id::{AuthorizationId, NodeId, Position, RotationId, TokenId},
    phase::Phase,
    time::Timestamp,
};

/// The answer "yes" to a command: a function of the facts it led to, so that a repeated command gets
/// the first answer again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the fields are the answers of the contract")]
pub enum Answer {
    /// A phase was entered, or had been entered before (`noop`).
    Phase {
        #[serde(rename = "type")]
        authority_type: AuthorityType,
        rotation: Option<RotationId>,
        phase: Phase,
        mode: Option<Mode>,
        noop: bool,
        /// A semi-automatic rotation became manual by this step.
        became_manual: bool,
        /// Nodes that the end of a rotation cuts off until they return and recover: the first 100 names of those that
        /// lagged or were excluded.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cut_off: Vec<String>,
    },
    /// A token was made.
    Token { token: TokenId, expires: Timestamp },
    /// A node joined, rejoined or recovered; its first certificate is authorised.
    Joined {
        node: NodeId,
        authorization: AuthorizationId,
    },
    /// Certificates that do not count any more.
    Revoked { certificates: u32 },
    /// A certificate is authorised; `certificate.issued` follows.
    Authorized { authorization: AuthorizationId },
    /// Done.
    Done,
    /// Nothing was left to do.
    Noop { text: String },
}

impl Answer {
    /// Had it been so before, so that nothing was done?
    pub fn is_noop(&self) -> bool {
        match self {
            Self::Phase { noop, .. } => *noop,
            Self::Noop { .. } => true,
            Self::Token { .. }
            | Self::Joined { .. }
            | Self::Revoked { .. }
            | Self::Authorized { .. }
            | Self::Done => false,
        }
    }
}

/// An answer with the place in the log up to which a reader must have read to see its effect.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// The last position of the command's events; for what appended nothing, the fold it was decided on.
    pub position: Position,
    /// The answer.
    pub answer: Answer,
}
