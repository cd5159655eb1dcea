//! The phases of a rotation, what each means for certificates and trust, and which follows which.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::{InvalidId, text_serde};

/// A phase of one authority type. The names appear verbatim in commands, JSON, events and metrics.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Phase {
    /// No rotation: one authority signs, and it alone is trusted.
    #[default]
    Standby,
    /// The prepared authority is made and trusted; nothing is signed by it.
    Init,
    /// Client certificates come from the prepared authority.
    UpdateClients,
    /// Server certificates come from it too.
    UpdateServers,
    /// The change of mind: everything comes from the active authority again.
    Rollback,
}

/// Which of the two authorities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Generation {
    /// The one that signed before the rotation.
    Active,
    /// The new one.
    Prepared,
}

/// What a phase asks of everybody (rotation.md section 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Where certificates for the client role, and leaves of people and tokens, come from.
    pub client: Generation,
    /// Where certificates for the server role come from.
    pub server: Generation,
    /// Do verifiers trust the prepared authority beside the active one?
    pub trusts_prepared: bool,
}

/// The answer of the transition table to "enter this phase now".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transition {
    /// Legal, if the gate is open.
    Forward,
    /// `update_servers -> standby`: the prepared authority becomes active.
    Complete,
    /// Into `rollback`: waits for nobody.
    RollBack,
    /// `rollback -> standby`.
    FinishRollback,
    /// Already there.
    Noop,
    /// E1: a rotation is in progress.
    InProgress,
    /// E2, E3: the phase follows another one than the current.
    OnlyFrom(Phase),
    /// E4: there is no way from here to there.
    NoWay,
}

impl Phase {
    /// All phases, in the order in which a rotation meets them.
    pub const ALL: [Self; 5] = [
        Self::Standby,
        Self::Init,
        Self::UpdateClients,
        Self::UpdateServers,
        Self::Rollback,
    ];

    /// The name in commands, JSON, events and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Init => "init",
            Self::UpdateClients => "update_clients",
            Self::UpdateServers => "update_servers",
            Self::Rollback => "rollback",
        }
    }

    /// The word in `status`: `rotating clients`. Standby has none of its own (see `rotated T`).
    pub fn status_word(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Init => "initialized",
            Self::UpdateClients => "rotating clients",
            Self::UpdateServers => "rotating servers",
            Self::Rollback => "rolling back",
        }
    }

    /// What is true once every node has reached the phase, in one line for people.
    pub fn now_true(self) -> &'static str {
        match self {
            Self::Standby => "old CA dropped, sessions closed",
            Self::Init => "every node trusts old and new CA",
            Self::UpdateClients => "clients present the new CA",
            Self::UpdateServers => "servers switch, both trusted",
            Self::Rollback => "everybody presents the old CA again",
        }
    }

    /// The row of the table for this phase.
    pub fn row(self) -> Row {
        use Generation::{Active, Prepared};
        let (client, server, trusts_prepared) = match self {
            Self::Standby => (Active, Active, false),
            Self::Init | Self::Rollback => (Active, Active, true),
            Self::UpdateClients => (Prepared, Active, true),
            Self::UpdateServers => (Prepared, Prepared, true),
        };
        Row {
            client,
            server,
            trusts_prepared,
        }
    }

    /// The phase that follows when all goes well; none after `standby`, which a command leaves.
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Standby => None,
            Self::Init => Some(Self::UpdateClients),
            Self::UpdateClients => Some(Self::UpdateServers),
            Self::UpdateServers | Self::Rollback => Some(Self::Standby),
        }
    }

    /// The transition table (rotation.md section 2).
    pub fn transition_to(self, target: Self) -> Transition {
        use Phase::{Init, Rollback, Standby, UpdateClients, UpdateServers};
        match (self, target) {
            (a, b) if a == b => Transition::Noop,
            (Standby, Init) | (Init, UpdateClients) | (UpdateClients, UpdateServers) => Transition::Forward,
            (UpdateServers, Standby) => Transition::Complete,
            (Rollback, Standby) => Transition::FinishRollback,
            (Init | UpdateClients | UpdateServers, Rollback) => Transition::RollBack,
            (_, Init) => Transition::InProgress,
            (_, UpdateClients) => Transition::OnlyFrom(Init),
            (_, UpdateServers) => Transition::OnlyFrom(UpdateClients),
            (_, Rollback | Standby) => Transition::NoWay,
        }
    }

    /// The phases that a command may ask for from here, for interactive help and remedies.
    pub fn legal_targets(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |to| {
            matches!(
                self.transition_to(*to),
                Transition::Forward
                    | Transition::Complete
                    | Transition::RollBack
                    | Transition::FinishRollback
            )
        })
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Phase {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        Self::ALL.into_iter().find(|p| p.name() == s).ok_or_else(|| {
            InvalidId::new(
                s,
                "a phase: init, update_clients, update_servers, standby, rollback",
            )
        })
    }
}

text_serde! { Phase: "^(standby|init|update_clients|update_servers|rollback)$"; }
