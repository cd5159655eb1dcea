//! Who is there, for the orchestrator: services never import one another, so this is wired here.

use domain::Timestamp;
use execution::Now;
use gateway::Presences;
use orchestrator::{Presence, Seen};

/// The one gateway of this process. It was started with it, and so knows of nobody before; the orchestrator's own rules
/// ask for more patience after a start than an agent needs to come back.
pub(super) struct OneGateway {
    pub(super) presences: Presences,
    pub(super) now: Now,
}

impl Presence for OneGateway {
    fn seen_since(&self, since: Timestamp) -> Seen<'_> {
        let seen = self.presences.seen_since(since, (self.now)());
        Box::pin(async { Some(seen) })
    }
}
