//! Refusals in the log: the first at once, repeats within a minute as one with a count.

use std::collections::HashMap;

use domain::{
    ClusterState, Code, Command, Fact, Principal, Refusal, Timestamp, event::CommandRefused, time::MINUTE_MS,
};

use super::refused;

/// How many different refusals are counted at once; one more pushes its own event out at once.
const COUNTED: usize = 1_024;

/// Refusals that were not written down yet.
#[derive(Default)]
pub(super) struct Refusals {
    repeated: HashMap<(Principal, String, Code), Repeated>,
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

impl Refusals {
    /// The event to append for a refusal, or none: it was only counted, or its caller is nobody.
    pub(super) fn record(
        &mut self,
        state: &ClusterState,
        command: &Command,
        refusal: &Refusal,
        now: Timestamp,
    ) -> Option<Fact> {
        let authenticated = matches!(command.principal, Principal::User(_) | Principal::Node(_));
        let known = state
            .commands
            .contains_key(&(command.principal.clone(), command.id));
        if !authenticated || !command.order.is_command() || known || state.cluster.is_none() {
            return None;
        }
        let key = (
            command.principal.clone(),
            command.order.name().to_owned(),
            refusal.code,
        );
        let recent = state
            .refusals
            .get(&key)
            .is_some_and(|at| now.since_ms(*at) < MINUTE_MS);
        if let Some(repeated) = self.repeated.get_mut(&key) {
            repeated.fact.count = repeated.fact.count.saturating_add(1);
            repeated.fact.text.clone_from(&refusal.text);
            return None;
        }
        if recent && self.repeated.len() < COUNTED {
            self.repeated.insert(
                key,
                Repeated {
                    first: now,
                    fact: refused(command, refusal, 1),
                },
            );
            return None;
        }
        // Alone it says what was asked for, so that it can be decided again.
        let order = Some(Box::new(command.order.clone()));
        Some(
            CommandRefused {
                order,
                ..refused(command, refusal, 1)
            }
            .into(),
        )
    }

    /// Hands out what is to be written and forgets it.
    pub(super) fn take(&mut self, which: Which, now: Timestamp) -> Vec<(Principal, CommandRefused)> {
        let due: Vec<_> = self
            .repeated
            .iter()
            .filter(|(_, r)| which == Which::All || now.since_ms(r.first) >= MINUTE_MS)
            .map(|(key, _)| key.clone())
            .collect();
        due.into_iter()
            .filter_map(|key| self.repeated.remove(&key).map(|r| (key.0, r.fact)))
            .collect()
    }
}
