//! Whom the gateways see: presence is not in the log, and a lagging policy must not pass over whoever is there.

use std::{collections::BTreeSet, future::Future, pin::Pin};

use domain::{NodeId, Timestamp};

/// An answer that comes later.
pub type Seen<'a> = Pin<Box<dyn Future<Output = Option<BTreeSet<NodeId>>> + Send + 'a>>;

/// What the gateways know of who is there. In one process it is a call, which the binary wires; over a bus it will be
/// a request to each gateway.
pub trait Presence: Send + Sync {
    /// Nodes that a gateway has now, or has had since; none if not every gateway can be asked. A policy then passes
    /// over nobody.
    fn seen_since(&self, since: Timestamp) -> Seen<'_>;
}
