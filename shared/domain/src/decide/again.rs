//! Decisions made again: from the facts of one append back to the order that led to them, and forward through
//! [`decide`] in the state that it was decided on.
//!
//! The log stores an order only where it led to nothing. What was accepted carries nearly all of it in its facts, fresh
//! ids and serials included. The little that it does not carry (for how long the orchestrator was up) is taken as
//! what allows the recorded facts. Whatever else differs was not decided by these rules.
//!
//! Who presented which certificate is not asked here: that is the gateway's question, see
//! [`identify`](crate::identity::identify).

use crate::{
    command::{Command, Given},
    decide::decide,
    event::{ClusterCreated, CommandNoop, CommandRefused, Event, Fact, Writer},
    id::{BodyDigest, CommandId, Position, Principal},
    refusal::Refusal,
    state::ClusterState,
};

mod orders;
mod signed;

/// Why facts do not follow from the state that they were decided on.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Difference {
    /// The rules say no.
    #[error("recorded accepted, recomputed refused {} ({})", .0.code.name(), .0.text)]
    Refused(Box<Refusal>),
    /// The rules say something else than the refusal on record.
    #[error("recorded refused {recorded}, recomputed {recomputed}")]
    Answer {
        /// The code on record.
        recorded: &'static str,
        /// The code, or the yes, that the order gets.
        recomputed: &'static str,
    },
    /// The answer is yes, but there was nothing to record: it was done before.
    #[error("recorded as done, recomputed: it was done before, and nothing was left to record")]
    Nothing,
    /// The same order leads to other facts.
    #[error("recorded as {recorded}, recomputed with another content, or as {recomputed}")]
    Fact {
        /// The first one that differs.
        at: Position,
        /// Its type.
        recorded: &'static str,
        /// The type of the fact that stands there when it is decided again.
        recomputed: &'static str,
    },
    /// Facts that are decided and stored as one do not all follow.
    #[error("{0} stands without the facts that are stored with it as one")]
    Incomplete(&'static str),
    /// No order leads to facts that begin with this one.
    #[error("nothing that can be asked for leads to {0} here")]
    NoOrder(&'static str),
    /// One decision has one time, one actor, one command and one reason.
    #[error("the facts of one decision are recorded with different circumstances")]
    Circumstances(Position),
    /// Commands have an id, and nothing else has.
    #[error("`{0}` is recorded with a command id that it does not have, or without the one that it has")]
    Command(&'static str),
    /// Time never goes back for whoever decides.
    #[error("recorded earlier than the last event of the state that it was decided on")]
    Early,
    /// The signer does nothing but what it owes.
    #[error("the signer did not owe {0} in the state at the position that it names")]
    NotOwed(&'static str),
    /// Keys, bundles and certificates are the signer's alone.
    #[error("{0} wrote a fact of the signer")]
    NotTheSigner(Principal),
}

impl Difference {
    /// The fact that differs, where it is not the first one of its append.
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Fact { at, .. } | Self::Circumstances(at) => Some(*at),
            Self::Refused(_)
            | Self::Answer { .. }
            | Self::Nothing
            | Self::Incomplete(_)
            | Self::NoOrder(_)
            | Self::Command(_)
            | Self::Early
            | Self::NotOwed(_)
            | Self::NotTheSigner(_) => None,
        }
    }
}

/// Decides again what the first of these events is the beginning of, and says how many of them the decision covers.
///
/// `state` is the fold up to the position that the events name (`decided_at`), `events` begins with the first fact
/// of an append and goes on as the log does: the first fact fixes the order, and the order the number of facts.
///
/// # Errors
/// [`Difference`]: what is recorded was not decided by these rules on this state.
pub fn again(
    state: &ClusterState,
    events: &[Event],
    sha256: fn(&[u8]) -> [u8; 32],
) -> Result<usize, Difference> {
    let Some(first) = events.first() else {
        return Ok(0);
    };
    if first.header.time < state.time {
        return Err(Difference::Early);
    }
    let covered = match first.fact.writer() {
        Writer::Orchestrator => decided(state, first, events, sha256)?,
        Writer::Signer => signed::signed(state, first, events)?,
    };
    match events[..covered].iter().find(|event| !is_of_one(first, event)) {
        Some(stranger) => Err(Difference::Circumstances(stranger.header.position)),
        None => Ok(covered),
    }
}

/// The order again, through the same function that decided it.
fn decided(
    state: &ClusterState,
    first: &Event,
    events: &[Event],
    sha256: fn(&[u8]) -> [u8; 32],
) -> Result<usize, Difference> {
    let asked = orders::asked(state, first, events)?;
    let header = &first.header;
    if asked.order.is_command() != header.command.is_some() {
        return Err(Difference::Command(asked.order.name()));
    }
    // Orders that are not commands have an id that is never looked at.
    let (id, digest) = header
        .command
        .as_ref()
        .map_or((CommandId(uuid::Uuid::nil()), BodyDigest([0; 32])), |command| {
            (command.id, command.digest)
        });
    let command = Command {
        id,
        principal: header.actor.clone(),
        credential: header.credential.clone(),
        digest,
        reason: header.reason.clone(),
        order: asked.order,
    };
    let given = Given {
        now: header.time,
        fresh: asked.fresh,
        serials: [asked.serial; 2],
        clock_suspect: asked.clock_suspect,
        sha256,
    };
    if let Fact::CommandRefused(f) = &first.fact {
        return refused(f, &command, decide(state, &command, &given).err());
    }
    let facts = decide(state, &command, &given)
        .map_err(|refusal| Difference::Refused(Box::new(refusal)))?
        .facts;
    if facts.is_empty() {
        return Err(Difference::Nothing);
    }
    for (n, recomputed) in facts.iter().enumerate() {
        let recorded = events
            .get(n)
            .ok_or(Difference::Incomplete(first.fact.type_name()))?;
        if !is_same(&recorded.fact, recomputed) {
            return Err(Difference::Fact {
                at: recorded.header.position,
                recorded: recorded.fact.type_name(),
                recomputed: recomputed.type_name(),
            });
        }
    }
    Ok(facts.len())
}

/// A refusal again: the same code. Its words are those of the version that wrote them.
fn refused(
    recorded: &CommandRefused,
    command: &Command,
    recomputed: Option<Refusal>,
) -> Result<usize, Difference> {
    let recomputed = recomputed.map(|refusal| refusal.code);
    let is_its = recorded.command == command.order.name()
        && recorded.target == command.order.target()
        && recorded.principal == command.principal;
    if recomputed == Some(recorded.code) && is_its && recorded.count == 1 {
        return Ok(1);
    }
    Err(Difference::Answer {
        recorded: recorded.code.name(),
        recomputed: recomputed.map_or("accepted, or as another's", |code| code.name()),
    })
}

/// Equal facts, but for what names the version that wrote them.
fn is_same(recorded: &Fact, recomputed: &Fact) -> bool {
    match (recorded, recomputed) {
        (Fact::ClusterCreated(recorded), Fact::ClusterCreated(recomputed)) => {
            let version = recorded.version.clone();
            let recomputed = recomputed.clone();
            *recorded
                == ClusterCreated {
                    version,
                    ..recomputed
                }
        }
        // What is said to people changes from version to version.
        (Fact::CommandNoop(recorded), Fact::CommandNoop(recomputed)) => {
            let text = recorded.text.clone();
            let recomputed = recomputed.clone();
            *recorded == CommandNoop { text, ..recomputed }
        }
        (recorded, recomputed) => recorded == recomputed,
    }
}

/// Was this event appended with the first one, as far as its circumstances say?
pub fn is_of_one(first: &Event, event: &Event) -> bool {
    let (a, b) = (&first.header, &event.header);
    (a.time, a.decided_at) == (b.time, b.decided_at)
        && (&a.actor, &a.credential, &a.command, &a.reason)
            == (&b.actor, &b.credential, &b.command, &b.reason)
}
