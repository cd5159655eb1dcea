//! Members that fell silent, by their leases and on this process's own monotonic clock.

use std::{collections::BTreeMap, time::Duration};

use domain::{BootId, ClusterState, MemberId, Position, schedule::MEMBER_SILENCE_MS};
use eventlog::Lease;

/// What the key of a member's lease begins with.
pub const MEMBER_LEASE_PREFIX: &str = "member.";

/// The key of a member's heartbeat lease.
pub fn member_lease(member: &MemberId) -> String {
    format!("{MEMBER_LEASE_PREFIX}{member}")
}

/// When each running member was last heard of.
///
/// Ages are taken from the moment when this process saw a change, never from another machine's clock. Nobody is
/// silent for longer than this process has been listening [M].
#[derive(Default)]
pub(crate) struct Members {
    heard: BTreeMap<MemberId, Heard>,
}

struct Heard {
    boot: BootId,
    lease: Option<u64>,
    event: Position,
    at: Duration,
}

/// A member to be given up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Silent {
    pub(crate) member: MemberId,
    pub(crate) boot: BootId,
    pub(crate) silent_ms: u64,
}

impl Members {
    /// Takes in what is known now and names the members that were silent too long.
    pub(crate) fn observe(&mut self, state: &ClusterState, leases: &[Lease], mono: Duration) -> Vec<Silent> {
        let running = |id: &MemberId| state.members.get(id).is_some_and(|m| m.running);
        self.heard.retain(|id, _| running(id));
        let mut silent = vec![];
        for member in state.members.values().filter(|m| m.running) {
            let Some(boot) = member.boot else { continue };
            let key = member_lease(&member.id);
            let lease = leases
                .iter()
                .find(|lease| lease.key == key)
                .map(|lease| lease.revision);
            let now = Heard {
                boot,
                lease,
                event: member.position,
                at: mono,
            };
            let before = self.heard.entry(member.id).or_insert(Heard { at: mono, ..now });
            // A lease that vanished is silence, not news.
            let renewed = lease.is_some() && lease != before.lease;
            if renewed || (before.boot, before.event) != (boot, member.position) {
                *before = now;
                continue;
            }
            let silent_ms = u64::try_from(mono.saturating_sub(before.at).as_millis()).unwrap_or(u64::MAX);
            if silent_ms >= MEMBER_SILENCE_MS {
                silent.push(Silent {
                    member: member.id,
                    boot,
                    silent_ms,
                });
            }
        }
        silent
    }

    /// Nothing could be heard: everybody's silence begins anew, because it was ours.
    pub(crate) fn was_deaf(&mut self) {
        self.heard.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::{Timestamp, state::Member};

    use super::*;

    const ID: MemberId = MemberId(uuid::Uuid::from_u128(1));

    fn state(running: bool, position: u64) -> ClusterState {
        let member = Member {
            id: ID,
            boot: Some(BootId(uuid::Uuid::from_u128(2))),
            seq: 1,
            service: "gateway".into(),
            running,
            names: vec![],
            addresses: vec![],
            facts: BTreeMap::new(),
            last_event: Timestamp(0),
            position: Position(position),
        };
        ClusterState {
            members: BTreeMap::from([(ID, member)]),
            ..ClusterState::default()
        }
    }

    fn lease(revision: u64) -> Vec<Lease> {
        vec![Lease {
            key: member_lease(&ID),
            value: Default::default(),
            revision,
        }]
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_counts_from_the_last_change_that_was_seen_here() {
        let mut members = Members::default();
        assert_eq!(members.observe(&state(true, 1), &lease(1), s(100)), []);
        assert_eq!(members.observe(&state(true, 1), &lease(2), s(125)), []);
        assert_eq!(members.observe(&state(true, 1), &lease(2), s(154)), []);
        let silent = members.observe(&state(true, 1), &[], s(155));
        assert_eq!(silent.iter().map(|l| l.silent_ms).collect::<Vec<_>>(), [30_000]);
    }

    #[test]
    fn a_start_of_the_orchestrator_gives_everybody_its_full_time() {
        let mut members = Members::default();
        assert_eq!(members.observe(&state(true, 1), &[], s(900)), []);
        assert_eq!(members.observe(&state(true, 1), &[], s(929)), []);
        assert_eq!(members.observe(&state(true, 1), &[], s(930)).len(), 1);
    }

    #[test]
    fn an_event_is_a_sign_of_life_and_a_member_that_stopped_is_not_missed() {
        let mut members = Members::default();
        members.observe(&state(true, 1), &[], s(0));
        assert_eq!(members.observe(&state(true, 2), &[], s(40)), []);
        assert_eq!(members.observe(&state(false, 3), &[], s(99)), []);
        assert_eq!(
            members.observe(&state(true, 4), &[], s(100)),
            [],
            "it began again"
        );
    }

    #[test]
    fn our_own_deafness_is_nobody_elses_silence() {
        let mut members = Members::default();
        members.observe(&state(true, 1), &lease(1), s(0));
        members.was_deaf();
        assert_eq!(members.observe(&state(true, 1), &lease(1), s(60)), []);
    }
}
