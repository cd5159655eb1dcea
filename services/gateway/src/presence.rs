//! Who is there: nodes that were heard a moment ago, by a call or beside their stream. Not in the log, and decided on in
//! one place alone: a lagging policy passes over nobody who is there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::shape::Presence;
use domain::{NodeId, Timestamp};

pub(crate) mod others;

/// A node counts as online for so long after it was last heard, in milliseconds: three of its beats.
const LINGER_MS: u64 = 15_000;

/// The presence of all nodes at this gateway, as far as it has been running.
#[derive(Debug, Clone, Default)]
pub struct Presences {
    nodes: Arc<Mutex<HashMap<NodeId, Seen>>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    streams: u32,
    last: Timestamp,
}

/// A node's open stream. That it is open says nothing: only what comes by it does.
#[derive(Debug)]
pub(crate) struct Present {
    presences: Presences,
    node: NodeId,
}

impl Presences {
    /// The node called.
    pub(crate) fn saw(&self, node: NodeId, now: Timestamp) {
        let mut nodes = self.lock();
        let seen = nodes.entry(node).or_default();
        seen.last = seen.last.max(now);
    }

    /// The node holds a stream from now on.
    pub(crate) fn stream(&self, node: NodeId, now: Timestamp) -> Present {
        self.saw(node, now);
        self.lock().entry(node).or_default().streams += 1;
        Present {
            presences: self.clone(),
            node,
        }
    }

    /// Is the node there? `reported` is its last report in the log, for a gateway that was started since.
    pub(crate) fn of(&self, node: NodeId, reported: Option<Timestamp>, now: Timestamp) -> Presence {
        let seen = self.lock().get(&node).copied();
        let last_seen = seen.map(|s| s.last).max(reported);
        let heard = seen.is_some_and(|s| now.since_ms(s.last) < LINGER_MS);
        Presence {
            online: heard,
            last_seen,
        }
    }

    /// The nodes that are online, or have been heard since then. A stream that is open, and by which nothing comes, is
    /// that of an agent which hangs: it is not there.
    pub fn seen_since(&self, since: Timestamp, now: Timestamp) -> BTreeSet<NodeId> {
        let nodes = self.lock();
        let seen = nodes
            .iter()
            .filter(|(_, s)| s.last >= since || now.since_ms(s.last) < LINGER_MS);
        seen.map(|(node, _)| *node).collect()
    }

    /// The same nodes, and when each was last heard.
    pub(crate) fn heard_since(&self, since: Timestamp, now: Timestamp) -> BTreeMap<NodeId, Timestamp> {
        let seen = self.seen_since(since, now);
        let nodes = self.lock();
        let heard = |node: NodeId| Some((node, nodes.get(&node)?.last));
        seen.into_iter().filter_map(heard).collect()
    }

    /// What is known here and by others, as it is now.
    fn and(&self, others: Vec<BTreeMap<NodeId, Timestamp>>) -> Self {
        if others.is_empty() {
            return self.clone();
        }
        let together = Self {
            nodes: Arc::new(Mutex::new(self.lock().clone())),
        };
        for (node, last) in others.into_iter().flatten() {
            together.saw(node, last);
        }
        together
    }

    /// Forgets nodes that are gone from the log.
    pub(crate) fn retain(&self, known: impl Fn(&NodeId) -> bool) {
        self.lock().retain(|node, seen| seen.streams > 0 || known(node));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Seen>> {
        // Counters are whole at every moment, whatever panicked elsewhere.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    /// The node was heard beside its stream.
    pub(crate) fn touch(&self, now: Timestamp) {
        self.presences.saw(self.node, now);
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        if let Some(seen) = self.presences.lock().get_mut(&self.node) {
            seen.streams = seen.streams.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_online_a_moment_after_it_was_last_heard_whatever_streams_are_open() {
        let (presences, node) = (Presences::default(), NodeId(uuid::Uuid::nil()));
        assert_eq!(presences.of(node, None, Timestamp(0)), Presence::default());
        let stream = presences.stream(node, Timestamp(1_000));
        assert!(presences.of(node, None, Timestamp(15_999)).online);
        assert!(
            !presences.of(node, None, Timestamp(16_000)).online,
            "the stream is open, and nothing comes by it"
        );
        stream.touch(Timestamp(20_000));
        drop(stream);
        assert!(presences.of(node, None, Timestamp(21_000)).online);
        let gone = presences.of(node, Some(Timestamp(100)), Timestamp(60_000));
        assert_eq!(
            gone,
            Presence {
                online: false,
                last_seen: Some(Timestamp(20_000))
            }
        );
    }

    #[test]
    fn whoever_is_online_or_was_heard_since_then_was_seen_and_an_agent_that_hangs_was_not() {
        let presences = Presences::default();
        let [online, heard, hangs] = [1, 2, 3].map(|n| NodeId(uuid::Uuid::from_u128(n)));
        let _held = presences.stream(hangs, Timestamp(10));
        presences.saw(heard, Timestamp(1_000));
        presences.saw(online, Timestamp(999));
        // Soon after the step somebody may not have had his next beat yet.
        let seen = presences.seen_since(Timestamp(1_000), Timestamp(15_998));
        assert_eq!(seen, [online, heard].into());
        let seen = presences.seen_since(Timestamp(1_000), Timestamp(15_999));
        assert_eq!(seen, [heard].into());
    }

    #[test]
    fn what_others_have_seen_is_added_and_nothing_is_forgotten() {
        let presences = Presences::default();
        let [here, there, both] = [1, 2, 3].map(|n| NodeId(uuid::Uuid::from_u128(n)));
        presences.saw(here, Timestamp(1_000));
        presences.saw(both, Timestamp(5_000));
        let other = BTreeMap::from([(there, Timestamp(2_000)), (both, Timestamp(3_000))]);
        let together = presences.and(vec![other]);
        let last = |node| together.of(node, None, Timestamp(60_000)).last_seen;
        assert_eq!(
            [here, there, both].map(last),
            [
                Some(Timestamp(1_000)),
                Some(Timestamp(2_000)),
                Some(Timestamp(5_000))
            ]
        );
        assert_eq!(
            presences.of(there, None, Timestamp(2_000)),
            Presence::default(),
            "ours are ours"
        );
    }
}
