//! How the signer, which decides nothing, writes its facts.

use domain::{ClusterName, Fact, Principal, Timestamp, id::SystemActor};
use eventlog::{Append, AppendError, Outcome, append_certainly};

use crate::{Fold, codec};

/// On which state of its subject an append stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// The subject's last position as this process's fold has it: whoever wrote in between wins.
    AsFolded,
    /// This position.
    At(u64),
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

    /// Makes one atomic append of facts; the condition stands on the subject of the first one.
    pub fn prepare(
        &self,
        cluster: &ClusterName,
        facts: &[Fact],
        now: Timestamp,
        expected: Expected,
    ) -> Option<Append> {
        let of = codec::Circumstances {
            // Never before the last event: the order of times is the order of positions.
            time: self.fold.read(|state| state.now(now)),
            actor: self.actor.clone(),
            credential: None,
            command: None,
            reason: None,
            traceparent: None,
            service: self.service,
        };
        let events: Vec<_> = facts
            .iter()
            .map(|fact| codec::encode(cluster, fact, &of))
            .collect();
        let subject = events.first()?.subject.clone();
        let expected = match expected {
            Expected::AsFolded => Some(self.fold.read_with_tails(|_, tail| tail(&subject))),
            Expected::At(position) => Some(position),
            Expected::Any => None,
        };
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
