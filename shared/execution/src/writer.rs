//! How the signer, which decides nothing, writes its facts.

use domain::{ClusterName, Fact, Position, Principal, Timestamp, id::SystemActor};
use eventlog::{Append, AppendError, Outcome, Subject, append_certainly};

use crate::{Fold, codec};

/// The state in which something was seen to be owed: the facts that follow say so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its position.
    pub position: Position,
    /// The time it was looked at with.
    pub time: Timestamp,
    /// The last position on the subject of the first fact.
    pub tail: u64,
}

/// On which state of its subject an append stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// The subject's last position as this process's fold has it: whoever wrote in between wins.
    AsFolded,
    /// The one of an earlier look at the state: whoever wrote since then wins.
    At(Seen),
    /// Any.
    Any,
}

/// Writes facts of one service under its name.
#[derive(Clone)]
pub struct FactWriter {
    fold: Fold,
    service: &'static str,
    actor: Principal,
}

impl FactWriter {
    /// A writer for the signer.
    pub fn signer(fold: Fold) -> Self {
        Self {
            fold,
            service: "signer",
            actor: Principal::System(SystemActor::Signer),
        }
    }

    /// Looks at the state once: what is seen, and on which condition facts about it may be written.
    pub fn look<R>(
        &self,
        subject: &Subject,
        clock: Timestamp,
        look: impl FnOnce(&domain::ClusterState, Timestamp) -> R,
    ) -> (R, Seen) {
        self.fold.read_with_tails(|state, tail| {
            let time = state.now(clock);
            let seen = Seen {
                position: state.position,
                time,
                tail: tail(subject),
            };
            (look(state, time), seen)
        })
    }

    /// Makes one atomic append of facts; the condition stands on the subject of the first one. `now` is the clock,
    /// for what no earlier look at the state has timed.
    pub fn prepare(
        &self,
        cluster: &ClusterName,
        facts: &[Fact],
        now: Timestamp,
        expected: Expected,
    ) -> Option<Append> {
        let subject = codec::subject_of(cluster, facts.first()?);
        let seen = match expected {
            Expected::At(seen) => seen,
            Expected::AsFolded | Expected::Any => self.look(&subject, now, |_, _| ()).1,
        };
        let of = codec::Circumstances {
            // Never before the last event: the order of times is the order of positions.
            time: seen.time,
            actor: self.actor.clone(),
            credential: None,
            command: None,
            reason: None,
            decided_at: Some(seen.position),
            traceparent: None,
            service: self.service,
        };
        let events: Vec<_> = facts
            .iter()
            .map(|fact| codec::encode(cluster, fact, &of))
            .collect();
        let expected = (expected != Expected::Any).then_some(seen.tail);
        Some(Append {
            subject,
            expected,
            events,
        })
    }

    /// Appends facts and clears up a lost answer.
    ///
    /// # Errors
    /// What the log said; nothing was stored then.
    pub async fn append(
        &self,
        cluster: &ClusterName,
        facts: &[Fact],
        now: Timestamp,
        expected: Expected,
    ) -> Result<Outcome, AppendError> {
        match self.prepare(cluster, facts, now, expected) {
            Some(append) => append_certainly(&**self.fold.log(), append).await,
            None => Err(AppendError::Invalid {
                detail: "no facts to append".into(),
            }),
        }
    }
}
