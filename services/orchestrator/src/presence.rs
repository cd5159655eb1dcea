//! Whom the gateways see: presence is not in the log, and a lagging policy must not pass over whoever is there.

use std::{collections::BTreeSet, future::Future, pin::Pin, time::Duration};

use api::message::{self, PresenceAnswer, PresenceQuestion};
use domain::{ClusterName, MemberId, NodeId, Timestamp};
use eventlog::bus::{Answer, Bus};
use execution::Fold;
use futures::future::join_all;

/// How long a gateway may take to say whom it sees.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer that comes later.
pub type Seen<'a> = Pin<Box<dyn Future<Output = Option<BTreeSet<NodeId>>> + Send + 'a>>;

/// What the gateways know of who is there. In one process it is a call, which the binary wires; over a bus it is
/// a request to each gateway ([`AskedGateways`]).
pub trait Presence: Send + Sync {
    /// Nodes that a gateway has now, or has had since; none if not every gateway can be asked. A policy then passes
    /// over nobody.
    fn seen_since(&self, since: Timestamp) -> Seen<'_>;
}

/// Every gateway that runs, by the log, is asked over the bus.
pub struct AskedGateways {
    bus: Bus,
    fold: Fold,
    cluster: ClusterName,
}

impl AskedGateways {
    /// Asks on this bus the gateways of this state.
    pub fn new(bus: Bus, fold: Fold, cluster: ClusterName) -> Self {
        Self { bus, fold, cluster }
    }

    async fn ask(&self, gateway: MemberId, since: Timestamp) -> Option<PresenceAnswer> {
        let subject = message::presence_subject(&self.cluster, gateway);
        let body = serde_json::to_vec(&PresenceQuestion { since: Some(since) }).expect("plain data");
        match self.bus.ask(&subject, &[], body, PATIENCE).await {
            Ok(Answer { body, no: None }) => serde_json::from_slice(&body).ok(),
            Ok(Answer { no: Some(_), .. }) | Err(_) => None,
        }
    }
}

impl Presence for AskedGateways {
    fn seen_since(&self, since: Timestamp) -> Seen<'_> {
        Box::pin(async move {
            let gateways: Vec<MemberId> = self.fold.read(|state| state.gateways().collect());
            // Where none runs nobody can say who is there: all may be, and find no door.
            if gateways.is_empty() {
                return None;
            }
            let asked = gateways.into_iter().map(|gateway| self.ask(gateway, since));
            let answers: Option<Vec<PresenceAnswer>> = join_all(asked).await.into_iter().collect();
            Some(answers?.into_iter().flat_map(PresenceAnswer::into_keys).collect())
        })
    }
}
