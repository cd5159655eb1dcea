//! The proof after the rotation: what every node serves now, and that it refuses what it must no longer accept.

use std::sync::Arc;

use domain::{AuthorityType, Phase};
use mtls::{Epochs, Expect, SessionRegistry, TrustEpoch, probe};

use super::fleet::Fleet;

/// What was found by dialling every node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof {
    /// Nodes that serve a certificate of the authority that signs now.
    pub serve_current: usize,
    /// Nodes that were asked to accept a certificate of the dropped authority.
    pub tried: usize,
    /// Nodes that refused it.
    pub refused: usize,
    /// Is there such a certificate at all? Types whose leaves nobody in the demo holds have none.
    pub applies: bool,
}

/// Gathers, during the rotation, certificates that are dropped at its end.
pub(crate) struct Collector {
    authority_type: AuthorityType,
    rollback: bool,
    /// Each node's view when it presented the authority that will be dropped.
    epochs: Vec<Arc<TrustEpoch>>,
}

impl Collector {
    pub(crate) fn new(authority_type: AuthorityType, rollback: bool) -> Self {
        Self {
            authority_type,
            rollback,
            epochs: vec![],
        }
    }

    /// After a phase was reached. On the way forward the old certificates are taken before the rotation, for a
    /// rollback the new ones are taken in `update_clients`.
    pub(crate) fn collect(&mut self, fleet: &Fleet, phase: Phase) {
        let wanted = if self.rollback {
            Phase::UpdateClients
        } else {
            Phase::Standby
        };
        if self.authority_type != AuthorityType::Host || phase != wanted || !self.epochs.is_empty() {
            return;
        }
        self.epochs = fleet.nodes().iter().map(|m| m.handle.epochs().load()).collect();
    }

    /// Dials every node: with the node's neighbour as it is now, and with that neighbour's dropped certificate.
    pub(crate) async fn prove(self, fleet: &Fleet) -> Proof {
        let nodes = fleet.nodes();
        let active = fleet.active(AuthorityType::Host);
        let mut proof = Proof {
            applies: !self.epochs.is_empty(),
            ..Proof::default()
        };
        for (i, node) in nodes.iter().enumerate() {
            let neighbour = &nodes[(i + 1) % nodes.len()];
            let expect = Expect::Node {
                cluster: fleet.cluster.clone(),
                node: node.node,
            };
            let (addr, sessions) = (node.addr.to_string(), SessionRegistry::new());
            let now = neighbour.handle.epochs();
            if let Ok(result) = probe(&addr, &now, &sessions, &expect).await {
                proof.serve_current += usize::from(Some(result.identity.issuer) == active);
            }
            let then = self
                .epochs
                .get((i + 1) % nodes.len())
                .and_then(|epoch| epoch.client().cloned());
            let Some(dropped) = then else { continue };
            // The dropped certificate, but today's trust: only the server may say no.
            let epoch = now.load().presenting(dropped);
            proof.tried += 1;
            let refused = match probe(&addr, &Epochs::new(epoch), &sessions, &expect).await {
                Err(error) => error.is_trust_failure(),
                Ok(_) => false,
            };
            proof.refused += usize::from(refused);
        }
        proof
    }
}
