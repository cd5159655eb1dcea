//! Refusals in the log: the first at once, repeats within a minute as one with a count.

use std::collections::{HashMap, VecDeque};

use domain::{
    BodyDigest, ClusterState, Code, Command, CommandId, Principal, Refusal, Timestamp,
    decide::ID_AGE_MS,
    event::{CommandRef, CommandRefused},
    evolve::refusal_kind,
    state::RefusalKind,
    time::MINUTE_MS,
};

/// How many different refusals are counted at once; one more pushes its own event out at once.
const COUNTED: usize = 1_024;
/// How many commands are remembered whose refusal was only counted: minutes of somebody who asks without a pause.
const REMEMBERED: usize = 4_096;

/// Refusals that were not written down yet, and those that never are for themselves.
#[derive(Default)]
pub(super) struct Refusals {
    repeated: HashMap<RefusalKind, Repeated>,
    /// The first answers to commands that were only counted. No event names them, so the state does not know
    /// them. They are lost with the process: then such a command is decided anew, and as nothing was done for it,
    /// nothing is done twice.
    answered: HashMap<(Principal, CommandId), FirstNo>,
    /// The same, oldest first, to forget them.
    order: VecDeque<(Timestamp, Principal, CommandId)>,
}

/// Which of the counted refusals are to be written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those whose minute is over.
    Due,
    /// All of them, because this process ends.
    All,
}

struct Repeated {
    first: Timestamp,
    fact: CommandRefused,
}

struct FirstNo {
    digest: BodyDigest,
    refusal: Refusal,
}

/// A refusal that is to be written at once.
pub(super) struct ToWrite {
    pub(super) fact: CommandRefused,
    /// The command whose first answer it is; none if its id has had another answer before.
    pub(super) command: Option<CommandRef>,
}

impl Refusals {
    /// The first answer to a command whose refusal was only counted.
    pub(super) fn first_no(&self, command: &Command) -> Option<Refusal> {
        let first = self.answered.get(&(command.principal.clone(), command.id))?;
        if first.digest == command.digest {
            return Some(first.refusal.clone());
        }
        let text = "this command id was used before with another body: make a new id for a new command";
        Some(Refusal::new(Code::CommandIdReused, text))
    }

    /// The event to append for a refusal, or none: it is on record, was only counted, or its caller is nobody.
    pub(super) fn record(
        &mut self,
        state: &ClusterState,
        command: &Command,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<ToWrite> {
        let authenticated = matches!(command.principal, Principal::User(_) | Principal::Node(_));
        if !authenticated || !command.order.is_command() || state.cluster.is_none() {
            return None;
        }
        let first = self.first_answer(state, command);
        if first.is_some_and(|first| first == (command.digest, Some(refusal.code))) {
            return None;
        }
        let fact = refused(command, refusal, 1);
        let kind = refusal_kind(&fact);
        let is_recent = state
            .refusals
            .get(&kind)
            .is_some_and(|at| now.since_ms(*at) < MINUTE_MS);
        let has_room = self.repeated.len() < COUNTED;
        let is_counted = match self.repeated.get_mut(&kind) {
            Some(repeated) => {
                repeated.fact.count = repeated.fact.count.saturating_add(1);
                true
            }
            None if is_recent && has_room => {
                let fact = fact.clone();
                self.repeated.insert(kind, Repeated { first: now, fact });
                true
            }
            None => false,
        };
        if is_counted {
            if first.is_none() {
                self.remember(command, refusal, now);
            }
            return None;
        }
        Some(ToWrite {
            // Alone it says what was asked for, so that it can be decided again.
            fact: CommandRefused {
                order: Some(Box::new(command.order.clone())),
                ..fact
            },
            command: first.is_none().then_some(CommandRef {
                id: command.id,
                digest: command.digest,
            }),
        })
    }

    /// The body that the id came with first, and the code if the answer was a no.
    fn first_answer(&self, state: &ClusterState, command: &Command) -> Option<(BodyDigest, Option<Code>)> {
        let key = (command.principal.clone(), command.id);
        if let Some(done) = state.commands.get(&key) {
            return Some((done.digest, done.answer.as_ref().err().map(|(code, _)| *code)));
        }
        let first = self.answered.get(&key)?;
        Some((first.digest, Some(first.refusal.code)))
    }

    fn remember(&mut self, command: &Command, refusal: &Refusal, now: Timestamp) {
        while let Some((at, principal, id)) = self.order.front().cloned() {
            if self.order.len() < REMEMBERED && now.since_ms(at) <= ID_AGE_MS {
                break;
            }
            self.order.pop_front();
            self.answered.remove(&(principal, id));
        }
        self.order.push_back((now, command.principal.clone(), command.id));
        let first = FirstNo {
            digest: command.digest,
            // The list of who lags is old when it is asked for, and large.
            refusal: Refusal::new(refusal.code, refusal.text.clone()),
        };
        self.answered
            .insert((command.principal.clone(), command.id), first);
    }

    /// Hands out what is to be written and forgets it.
    pub(super) fn take(&mut self, which: Which, now: Timestamp) -> Vec<(Principal, CommandRefused)> {
        let due: Vec<_> = self
            .repeated
            .iter()
            .filter(|(_, r)| which == Which::All || now.since_ms(r.first) >= MINUTE_MS)
            .map(|(kind, _)| kind.clone())
            .collect();
        due.into_iter()
            .filter_map(|kind| self.repeated.remove(&kind).map(|r| (kind.0, r.fact)))
            .collect()
    }
}

/// The event of one refusal.
fn refused(command: &Command, refusal: &Refusal, count: u32) -> CommandRefused {
    CommandRefused {
        principal: command.principal.clone(),
        command: command.order.name().into(),
        target: command.order.target(),
        code: refusal.code,
        text: refusal.text.clone(),
        count,
        order: None,
    }
}
