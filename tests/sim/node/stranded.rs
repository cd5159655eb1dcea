//! Nodes without a way back but a new token.

use super::*;
use crate::invariants::ROLLBACK;

impl World {
    /// From here on only a new token helps. Nobody has to be joined anew for having been away: this is for whoever
    /// was set back or copied, removed, or away for longer than is kept; an operator would heal the others too,
    /// and nobody would see that they were lost.
    pub(super) fn strand(&mut self, i: usize, why: &'static str) {
        let a = &mut self.agents[i];
        (a.stranded, a.serving) = (Some(why), false);
        self.sessions.retain(|s| s.client != i && s.server != i);
        self.tell(|| format!("agent {i} is stranded: {why}"));
        let a = &self.agents[i];
        let was_removed = a
            .disk
            .node
            .is_some_and(|node| !self.truth.nodes.contains_key(&node));
        if !a.set_back && !a.tampered && !was_removed && !self.is_too_long_away(i) {
            self.violate(
                ROLLBACK,
                format!("agent {i} is lost until somebody joins it anew: {why}"),
            );
        }
    }

    /// Forgets the join or recovery under way.
    pub(super) fn ask_no_more(&mut self, i: usize) {
        let disk = &mut self.agents[i].disk;
        if let Some(asking) = disk.asking.take() {
            disk.keys.remove(&asking.spki);
        }
    }

    /// The newest certificate whose key is here: one that was never presented serves as well, and a later one may
    /// have superseded those before it.
    pub(super) fn proof(&self, i: usize) -> Option<CertDigest> {
        let newest = self.proofs(i).max_by_key(|l| l.position)?;
        self.agents[i].disk.digests.get(&newest.spki).copied()
    }

    /// What proves who it is: client certificates whose keys it has.
    fn proofs(&self, i: usize) -> impl Iterator<Item = &Leaf> {
        let disk = &self.agents[i].disk;
        let generations = disk.last_passed.iter().chain([&disk.installed]);
        let leaves = generations.flat_map(|g| g.client.iter().chain(&g.server));
        leaves
            .chain(&disk.received)
            .filter(|l| disk.keys.contains(&l.spki) && l.usage.client())
    }

    /// Has the last certificate that it can prove itself with expired for longer than is kept?
    fn is_too_long_away(&self, i: usize) -> bool {
        let last = self.proofs(i).map(|l| l.not_after).max();
        // By the log's time, or by ours: whoever decides has one of them.
        let now = self.truth.now(Timestamp(self.now));
        last.is_some_and(|end| end.plus_ms(self.knobs.max_offline_ms) < now)
    }
}
