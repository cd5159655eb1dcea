//! What wakes the nodes' streams: a change of any row, and certificates of one's own.
//!
//! A fleet holds one stream per node. Recomputing each node's desired state at every event would be
//! quadratic in a rotation, where every node reports; so the hub looks at each event once and wakes the
//! streams only for what can change a desired state.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::node::PushedCertificate;
use domain::{
    AuthorityId, AuthorityType, Event, Fact, NodeId, Position, Principal, authority::KeyKind,
    trust::SignedBundle,
};
use tokio::sync::{broadcast::error::RecvError, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{app::App, turns::Turns};

/// Certificates that wait for one slow stream: a node asks for one per type and role at a time. One that
/// finds no place is not lost, the node asks for it again.
const WAITING: usize = 16;

/// The streams of one node: one, and another for a moment when it dials anew. More are a thief's or a mistake's,
/// and each costs a place and every wake-up.
const STREAMS: usize = 4;

/// The streams and what they share.
#[derive(Debug)]
pub(crate) struct Hub {
    version: watch::Sender<u64>,
    streams: Mutex<Streams>,
    bundles: Mutex<Bundles>,
    next: std::sync::atomic::AtomicU64,
    /// In which order the streams look at what has changed for all of them.
    pub(crate) turns: Turns,
}

/// What the signer published for a type: the bundle, and each authority's revocation list, DER, base64.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) bundle: Arc<SignedBundle>,
    pub(crate) lists: Arc<BTreeMap<AuthorityId, String>>,
}

type Bundles = HashMap<AuthorityType, (Position, Published)>;
/// The open streams of each node; a node that dials anew has two for a moment.
type Streams = HashMap<NodeId, Vec<(u64, mpsc::Sender<PushedCertificate>)>>;

/// One stream's place in the hub.
pub(crate) struct Subscription {
    app: Arc<App>,
    node: NodeId,
    id: u64,
    /// Changes when a desired state may have.
    pub(crate) version: watch::Receiver<u64>,
    /// The node's new certificates.
    pub(crate) certificates: mpsc::Receiver<PushedCertificate>,
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self {
            version: watch::Sender::new(0),
            streams: Mutex::default(),
            bundles: Mutex::default(),
            next: Default::default(),
            turns: Turns::default(),
        }
    }

    /// Desired states may have changed.
    pub(crate) fn wake(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// How many nodes hold a stream.
    pub(crate) fn nodes(&self) -> usize {
        self.streams().len()
    }

    /// Registers a stream of a node.
    pub(crate) fn subscribe(app: &Arc<App>, node: NodeId) -> Subscription {
        let hub = &app.hub;
        let id = hub.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (sender, certificates) = mpsc::channel(WAITING);
        let mut streams = hub.streams();
        let of_node = streams.entry(node).or_default();
        // The oldest ends by losing its sender: the newest certificate and connection are what counts.
        if of_node.len() >= STREAMS {
            of_node.remove(0);
        }
        of_node.push((id, sender));
        drop(streams);
        Subscription {
            app: app.clone(),
            node,
            id,
            version: hub.version.subscribe(),
            certificates,
        }
    }

    /// The signed bundle that the state names, read from the log once and kept.
    pub(crate) async fn bundle(
        app: &App,
        authority_type: AuthorityType,
        position: Position,
    ) -> Result<Arc<SignedBundle>, crate::reply::No> {
        Ok(Self::published(app, authority_type, position).await?.bundle)
    }

    /// The same with the revocation lists beside it.
    pub(crate) async fn published(
        app: &App,
        authority_type: AuthorityType,
        position: Position,
    ) -> Result<Published, crate::reply::No> {
        if let Some((at, published)) = app.hub.bundles().get(&authority_type)
            && *at == position
        {
            return Ok(published.clone());
        }
        let Fact::AuthorityBundleSigned(fact) = app.event(position).await? else {
            let text = format!("position {position} holds no trust bundle");
            return Err(crate::reply::No::new(domain::Code::Internal, text));
        };
        let published = Published {
            bundle: Arc::new(fact.bundle),
            lists: Arc::new(fact.revocation_lists),
        };
        app.hub
            .bundles()
            .insert(authority_type, (position, published.clone()));
        Ok(published)
    }

    /// Follows the events of this process and wakes whom they concern. A hub that falls behind wakes everybody.
    pub(crate) async fn run(app: Arc<App>, shutdown: CancellationToken) {
        let mut events = app.fold.events();
        loop {
            let event = tokio::select! {
                () = shutdown.cancelled() => return,
                event = events.recv() => event,
            };
            match event {
                Ok(event) => app.hub.take(&app, &event),
                Err(RecvError::Lagged(missed)) => {
                    tracing::warn!(
                        missed,
                        "the streams fell behind the log: every node is sent its newest state"
                    );
                    app.hub.wake();
                }
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn take(&self, app: &App, event: &Event) {
        match &event.fact {
            Fact::CertificateIssued(fact) => {
                // One that was revoked or voided while it was being signed stands in the log as well, and counts for nobody.
                let counts = || {
                    app.fold.read(|state| {
                        let known = state.certificates.get(&fact.digest);
                        known.is_some_and(|certificate| !certificate.revoked)
                    })
                };
                if let (Principal::Node(node), KeyKind::Tls) = (&fact.holder, fact.kind)
                    && counts()
                {
                    self.push(*node, fact, event.header.position);
                }
            }
            fact if changes_a_desired_state(fact) => self.wake(),
            _ => {}
        }
    }

    fn push(&self, node: NodeId, fact: &domain::event::CertificateIssued, position: Position) {
        let streams = self.streams();
        let Some(of_node) = streams.get(&node) else { return };
        let Some(certificate) = to_pem(&fact.certificate) else {
            return;
        };
        for (_, sender) in of_node {
            let pushed = PushedCertificate {
                authorization: fact.authorization,
                certificate: certificate.clone(),
                position,
            };
            // A stream that is full or gone: the node asks again.
            let _ = sender.try_send(pushed);
        }
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        // Both maps are whole at every moment: each change is one call.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bundles(&self) -> MutexGuard<'_, Bundles> {
        self.bundles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut streams = self.app.hub.streams();
        if let Some(of_node) = streams.get_mut(&self.node) {
            of_node.retain(|(id, _)| *id != self.id);
            if of_node.is_empty() {
                streams.remove(&self.node);
            }
        }
    }
}

/// A certificate of an event (DER in base64) as PEM.
pub(crate) fn to_pem(base64_der: &str) -> Option<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let der = STANDARD.decode(base64_der).ok()?;
    Some(pki::pem::encode_certificates([&der[..]]))
}

/// May the desired state of a node with a stream differ after this event? One that joins has none yet.
fn changes_a_desired_state(fact: &Fact) -> bool {
    match fact {
        Fact::ClusterCreated(_)
        | Fact::RotationPhaseEntered(_)
        | Fact::NodeRejoined(_)
        | Fact::NodeExcluded(_)
        | Fact::NodeIncluded(_)
        | Fact::NodeRemoved(_)
        | Fact::AuthorityKeyGenerated(_)
        | Fact::AuthorityBundleSigned(_) => true,
        Fact::ClusterClockAccepted(_)
        | Fact::NodeJoined(_)
        | Fact::AuthorityActivated(_)
        | Fact::AuthorityRetired(_)
        | Fact::CertificateRevoked(_)
        | Fact::RotationHeld(_)
        | Fact::RotationResumed(_)
        | Fact::RotationModeChanged(_)
        | Fact::RotationSettled(_)
        | Fact::NodeRecovered(_)
        | Fact::NodeReported(_)
        | Fact::MemberStarted(_)
        | Fact::MemberReported(_)
        | Fact::MemberLost(_)
        | Fact::MemberStopped(_)
        | Fact::AccessTokenCreated(_)
        | Fact::AccessTokenUsed(_)
        | Fact::AccessTokenRemoved(_)
        | Fact::AccessUserAdded(_)
        | Fact::AccessUserRemoved(_)
        | Fact::AccessRecovered(_)
        | Fact::AccessNamesReleased(_)
        | Fact::AccessCertificatesRevoked(_)
        | Fact::AccessCredentialPresented(_)
        | Fact::ConsumerAdded(_)
        | Fact::ConsumerAttested(_)
        | Fact::ConsumerWithdrawn(_)
        | Fact::CommandRefused(_)
        | Fact::CommandNoop(_)
        | Fact::AuthorizationGranted(_)
        | Fact::AuthorizationVoided(_)
        | Fact::AuthorityDestroyed(_)
        | Fact::CertificateIssued(_)
        | Fact::CertificateRefused(_) => false,
    }
}
