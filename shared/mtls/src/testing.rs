//! What the tests of this crate share: authorities, certificates and epochs, with fresh keys.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use domain::{
    AuthorityType, AuthorizationId, ClusterName, MemberId, NodeId, Phase, Principal, Serial, SpkiPin,
    Timestamp,
    event::{AuthorizationGranted, LeafUse, Occasion},
    time::{DAY_MS, MINUTE_MS},
};
use pki::{Blueprint, CaCert, KeyPair, authority, issue, random};
use tokio::{net::TcpListener, task::JoinSet};
use uuid::Uuid;

use crate::{Accepted, Credential, Epochs, Now, SessionRegistry, TlsError, accept, answer_probe};

/// 2026-09-20T01:44:36Z.
pub(crate) const NOW: Timestamp = Timestamp(1_789_868_676_000);

pub(crate) fn cluster() -> ClusterName {
    "acme.cluster".parse().unwrap()
}

/// A clock that moves when told.
#[derive(Clone)]
pub(crate) struct Hand(Arc<AtomicI64>);

impl Hand {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(NOW.0)))
    }
    pub(crate) fn advance(&self, ms: u64) {
        self.0.fetch_add(ms as i64, Ordering::SeqCst);
    }
    pub(crate) fn now(&self) -> Now {
        let shared = self.0.clone();
        Now::new(move || shared.load(Ordering::SeqCst))
    }
}

/// An authority that issues for the tests.
pub(crate) struct Ca {
    key: KeyPair,
    pub(crate) cert: CaCert,
    authority_type: AuthorityType,
}

impl Ca {
    pub(crate) fn new(authority_type: AuthorityType, generation: u32) -> Self {
        let (key, cluster) = (KeyPair::generate(), cluster());
        let serial = Serial::of_random(random());
        let blueprint = Blueprint {
            cluster: &cluster,
            authority_type,
            generation,
            serial,
            now: NOW,
        };
        let cert = authority::make(&blueprint, &key).unwrap();
        Self {
            key,
            cert,
            authority_type,
        }
    }

    pub(crate) fn pin(&self) -> SpkiPin {
        self.cert.pin()
    }

    pub(crate) fn issue(&self, holder: &Principal, usage: LeafUse) -> Credential {
        self.issue_until(holder, usage, NOW.plus_ms(DAY_MS))
    }

    pub(crate) fn issue_until(&self, holder: &Principal, usage: LeafUse, not_after: Timestamp) -> Credential {
        let (leaf, key) = self.make(holder, usage, not_after);
        Credential::new(vec![leaf.into()], &key).unwrap()
    }

    /// The leaf in DER and its key, for clients that are not ours.
    pub(crate) fn issue_with_key(&self, holder: &Principal, usage: LeafUse) -> (Vec<u8>, KeyPair) {
        self.make(holder, usage, NOW.plus_ms(DAY_MS))
    }

    fn make(&self, holder: &Principal, usage: LeafUse, not_after: Timestamp) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate();
        let granted = AuthorizationGranted {
            authorization: AuthorizationId(Uuid::from_u128(1)),
            holder: holder.clone(),
            authority_type: self.authority_type,
            issuer: self.pin(),
            usage,
            occasion: Occasion::Renewal,
            spki: key.spki_pin(),
            public_key: key.public().to_base64(),
            common_name: "test".into(),
            names: Vec::new(),
            addresses: Vec::new(),
            uri: holder.uri(&cluster()),
            serial: Serial::of_random(random()),
            not_before: NOW.minus_ms(5 * MINUTE_MS),
            not_after,
            rotation: None,
            phase: Phase::Standby,
            form: domain::event::Form::Tls,
        };
        let leaf = issue(&granted, &cluster(), &self.cert, &self.key).unwrap();
        (leaf.der, key)
    }
}

pub(crate) fn node(n: u128) -> Principal {
    Principal::Node(NodeId(Uuid::from_u128(n)))
}

pub(crate) fn gateway() -> Principal {
    Principal::Gateway(MemberId(Uuid::from_u128(99)))
}

/// A server on a free port of the loopback that answers probes until it is dropped, and keeps what it
/// was told about each connection.
pub(crate) struct Server {
    pub(crate) addr: String,
    pub(crate) epochs: Epochs,
    pub(crate) sessions: SessionRegistry,
    pub(crate) outcomes: tokio::sync::mpsc::UnboundedReceiver<Result<(), TlsError>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Each accepted connection is answered.
    pub(crate) async fn answering(epochs: Epochs) -> Self {
        Self::with(
            epochs,
            |mut accepted| async move { answer_probe(&mut accepted).await },
        )
        .await
    }

    /// Each accepted connection is held until its session must end.
    pub(crate) async fn holding(epochs: Epochs) -> Self {
        Self::with(epochs, |accepted| async move {
            accepted.session.closed().await;
            Ok(())
        })
        .await
    }

    pub(crate) async fn with<F, T>(epochs: Epochs, serve: F) -> Self
    where
        F: Fn(Accepted) -> T + Clone + Send + 'static,
        T: Future<Output = Result<(), TlsError>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let sessions = SessionRegistry::new();
        let (sender, outcomes) = tokio::sync::mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let (shared, registry) = (epochs.clone(), sessions.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (epochs, sessions, serve, sender) =
                    (shared.clone(), registry.clone(), serve.clone(), sender.clone());
                connections.spawn(async move {
                    let outcome = match accept(tcp, &epochs, &sessions).await {
                        Ok(accepted) => serve(accepted).await,
                        Err(error) => Err(error),
                    };
                    let _ = sender.send(outcome);
                });
            }
        });
        Self {
            addr,
            epochs,
            sessions,
            outcomes,
            _tasks: tasks,
        }
    }
}
