//! The proof around the rotation, counted and never assumed: what every node serves and trusts before and after, and
//! that nobody accepts any more what was dropped.

use std::{sync::Arc, time::Duration};

use api::shape::Whoami;
use cli::connect::Session;
use domain::{AuthorityType, Phase, SpkiPin};
use mtls::{Epochs, Expect, SessionRegistry, TrustEpoch, probe};
use tempfile::NamedTempFile;

use super::{
    DemoError,
    credentials::{self, Credential},
    fleet::{Fleet, Member},
};

/// How often an operator's identity is looked at until it is of the authority that will be dropped.
const LOOKS: u32 = 100;
/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How many nodes hold what they should.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// Dialled, they serve a certificate of the authority that signs.
    pub serve: usize,
    /// They proved to trust that authority and no other.
    pub trust: usize,
}

/// What was found by dialling.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof {
    /// Before the rotation.
    pub before: Held,
    /// After it.
    pub after: Held,
    /// Doors that were asked to accept something of the dropped authority: every node, or the gateway.
    pub tried: usize,
    /// Those that refused it.
    pub refused: usize,
}

impl Proof {
    /// Is everything proven that can be, for a fleet of so many nodes?
    pub(crate) fn holds(&self, authority_type: AuthorityType, nodes: usize) -> bool {
        let is_held = |held: &Held| {
            held.trust == nodes && (authority_type != AuthorityType::Host || held.serve == nodes)
        };
        // A proof that was never tried proves nothing.
        let doors = match authority_type {
            AuthorityType::User => 1,
            _ => nodes,
        };
        is_held(&self.before) && is_held(&self.after) && self.tried == doors && self.refused == doors
    }
}

/// Gathers, before and during the rotation, what is dropped at its end.
pub(crate) struct Collector {
    authority_type: AuthorityType,
    rollback: bool,
    before: Held,
    /// Each node's view when it presented the authority that will be dropped.
    epochs: Vec<Arc<TrustEpoch>>,
    /// The operator's identity of that time.
    identity: Option<NamedTempFile>,
    /// What was signed by hand at that time.
    credential: Option<Credential>,
}

impl Collector {
    /// Counts what holds before the rotation.
    pub(crate) async fn begin(fleet: &Fleet, authority_type: AuthorityType, rollback: bool) -> Self {
        Self {
            authority_type,
            rollback,
            before: count(fleet, authority_type).await,
            epochs: vec![],
            identity: None,
            credential: None,
        }
    }

    /// After a phase was reached. On the way forward the old certificates are taken before the rotation, for a
    /// rollback the new ones are taken in `update_clients`.
    ///
    /// # Errors
    /// [`DemoError`] when the operator's identity cannot be copied.
    pub(crate) async fn collect(&mut self, fleet: &Fleet, phase: Phase) -> Result<(), DemoError> {
        let wanted = if self.rollback {
            Phase::UpdateClients
        } else {
            Phase::Standby
        };
        if phase != wanted {
            return Ok(());
        }
        match self.authority_type {
            AuthorityType::Host if self.epochs.is_empty() => {
                self.epochs = fleet.nodes().iter().map(|m| m.handle.epochs().load()).collect();
            }
            AuthorityType::User if self.identity.is_none() => {
                let dropped = fleet.client_issuer(AuthorityType::User);
                self.identity = copy_of_identity(fleet, dropped).await?;
            }
            AuthorityType::Host | AuthorityType::User => {}
            other if self.credential.is_none() => {
                let asked = credentials::ask(&fleet.home.admin_identity(), other, &fleet.now()).await;
                self.credential = Some(asked.map_err(DemoError::Credential)?);
            }
            _ => {}
        }
        Ok(())
    }

    /// Dials every node: with the node's neighbour as it is now, and with that neighbour's dropped certificate.
    pub(crate) async fn prove(self, fleet: &Fleet) -> Proof {
        let after = count(fleet, self.authority_type).await;
        let mut proof = Proof {
            before: self.before,
            after,
            ..Proof::default()
        };
        for (i, then) in self.epochs.iter().enumerate() {
            let nodes = fleet.nodes();
            let (neighbour, node) = (&nodes[i], &nodes[(i + 1) % nodes.len()]);
            let Some(dropped) = then.client().cloned() else {
                continue;
            };
            // The dropped certificate, but today's trust: only the server may say no.
            let epochs = Epochs::new(neighbour.handle.epochs().load().presenting(dropped));
            proof.tried += 1;
            let result = probe(
                &node.addr.to_string(),
                &epochs,
                &SessionRegistry::new(),
                &expect(fleet, node),
            )
            .await;
            proof.refused += usize::from(result.is_err_and(|error| error.is_trust_failure()));
        }
        if let Some(identity) = &self.identity {
            proof.tried += 1;
            proof.refused += usize::from(look_in(fleet, identity.path()).await.is_none());
        }
        for node in fleet.verifiers() {
            let Some(dropped) = &self.credential else { break };
            proof.tried += 1;
            proof.refused += usize::from(dropped.shown_to(&node).is_err());
        }
        proof
    }
}

/// Dials every node as its neighbour does now, and asks the state what each has proven to trust.
async fn count(fleet: &Fleet, authority_type: AuthorityType) -> Held {
    let nodes = fleet.nodes();
    let mut held = Held {
        serve: 0,
        trust: fleet.trust_alone(authority_type),
    };
    if authority_type != AuthorityType::Host {
        return held;
    }
    let active = fleet.active(AuthorityType::Host);
    for (i, node) in nodes.iter().enumerate() {
        let now = nodes[(i + 1) % nodes.len()].handle.epochs();
        let sessions = SessionRegistry::new();
        if let Ok(result) = probe(&node.addr.to_string(), &now, &sessions, &expect(fleet, node)).await {
            held.serve += usize::from(Some(result.identity.issuer) == active);
        }
    }
    held
}

fn expect(fleet: &Fleet, node: &Member) -> Expect {
    Expect::Node {
        cluster: fleet.cluster.clone(),
        node: node.node,
    }
}

/// The operator's identity as it is while its certificate is of this authority; none if it does not become that.
async fn copy_of_identity(
    fleet: &Fleet,
    issuer: Option<SpkiPin>,
) -> Result<Option<NamedTempFile>, DemoError> {
    for _ in 0..LOOKS {
        // A file of our own (0600): the identity is renewed in place while the rotation goes on.
        let copy = NamedTempFile::new().map_err(DemoError::Place)?;
        std::fs::copy(fleet.home.admin_identity(), copy.path()).map_err(DemoError::Place)?;
        if look_in(fleet, copy.path())
            .await
            .is_some_and(|me| Some(me.issuer) == issuer)
        {
            return Ok(Some(copy));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(None)
}

/// Who the gateway takes the identity for; none if it does not accept it.
async fn look_in(fleet: &Fleet, identity: &std::path::Path) -> Option<Whoami> {
    let clock = fleet.now();
    let session = Session::open(identity, None, mtls::Now::new(move || clock().0)).ok()?;
    session.get::<Whoami>(api::route::WHOAMI).await.ok()
}
