//! A control plane in memory for the tests of this crate: a log, a fold, a small signer with real keys, and
//! a gateway that listens on loopback. Real TLS, real HTTP.

use std::{sync::Arc, time::Duration};

use api::{
    At, Audit, Client, Connect, ConnectError, Queries, QueryError,
    audit::{AuditView, DiffDoc, EventAudit, VerifyReport},
    client::Io,
    queries::Answering,
    shape::{AuthorityDoc, CertificateDoc, ConsumerDoc, NodeDoc, RotationDoc, Status, TokenDoc, UserDoc},
};
use domain::{
    AuthorityType, ClusterName, ClusterState, CommandId, Fact, MemberId, Order, Position, Principal,
    Timestamp, id::SystemActor,
};
use eventlog::{MemoryLog, SharedLog};
use execution::{Executor, Fold};
use futures::future::BoxFuture;
use mtls::{ClientAuth, Credential, Epochs, Expect, Now, SessionRegistry, TrustEpoch};
use pki::{CaCert, KeyPair, pem};
use runtime::{
    clock::{Clock, ManualClock, SystemClock},
    metrics::Metrics,
    ratelimit::Rate,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use signer::{Late, SmallSigner, granted, issued};

use crate::{Config, Gateway, Parts};
use signer::genesis;

mod signer;

/// How long a test waits for what should come at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The control plane.
pub(crate) struct World {
    pub(crate) fold: Fold,
    pub(crate) executor: Executor,
    pub(crate) cluster: ClusterName,
    /// Stands still unless a test moves it.
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) signer: Arc<SmallSigner>,
    pub(crate) dir: TempDir,
    pub(crate) admin: (KeyPair, Vec<u8>),
    pub(crate) member: MemberId,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// A gateway that runs.
pub(crate) struct Running {
    pub(crate) addr: String,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: JoinSet<()>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = ManualClock::new(SystemClock.now_ms());
        let wall = clock.clone();
        let now: execution::Now = Arc::new(move || Timestamp(wall.now_ms()));
        let log: SharedLog = Arc::new(MemoryLog::new());
        let stop = CancellationToken::new();
        let fold = Fold::start(log, stop.clone()).await.unwrap();
        let executor = Executor::new(fold.clone(), now.clone(), Arc::default(), stop.clone());
        let cluster: ClusterName = "acme.cluster".parse().unwrap();
        let signer = Arc::new(SmallSigner::new());
        let member = MemberId(uuid::Uuid::from_u128(7));
        let dir = TempDir::new().unwrap();
        let (genesis, admin, gateway) = genesis(&signer, &cluster, member, now());
        std::fs::create_dir(dir.path().join("gateway")).unwrap();
        let path = |name: &str| dir.path().join("gateway").join(name);
        runtime::harden::atomic_write(&path("genesis.key"), gateway.0.to_pem().as_bytes(), 0o600).unwrap();
        std::fs::write(path("genesis.crt"), pem::encode_certificates([&gateway.1[..]])).unwrap();
        let order = Order::Genesis(Box::new(genesis));
        executor
            .execute(executor.own_command(Principal::System(SystemActor::Host), order))
            .await
            .unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(signer.clone().run(fold.clone(), now));
        Self {
            fold,
            executor,
            cluster,
            clock,
            signer,
            dir,
            admin,
            member,
            metrics: Metrics::new("test"),
            stop,
            tasks,
        }
    }

    /// Starts a gateway and waits until it serves.
    pub(crate) async fn gateway(&self) -> Running {
        self.gateway_with(|_| {}).await
    }

    /// The same with other limits.
    pub(crate) async fn gateway_with(&self, adjust: impl FnOnce(&mut Config)) -> Running {
        let mut config = self.config("127.0.0.1:0");
        adjust(&mut config);
        let running = self.open_gateway(config).await.unwrap();
        let (addr, stop, tasks, ready) = running;
        assert!(
            tokio::time::timeout(SOON, ready.wait())
                .await
                .expect("the gateway serves soon")
        );
        Running { addr, stop, tasks }
    }

    pub(crate) async fn start_gateway(
        &self,
        listen: &str,
    ) -> Result<(String, CancellationToken, JoinSet<()>, crate::Ready), crate::GatewayError> {
        self.open_gateway(self.config(listen)).await
    }

    pub(crate) fn config(&self, listen: &str) -> Config {
        let mut config = Config::new(
            listen.parse().unwrap(),
            self.dir.path().join("gateway"),
            self.member,
        );
        config.joins = Rate {
            burst: 20,
            per_second: 1.0,
        };
        config
    }

    /// A gateway that listens and is not run.
    pub(crate) async fn open(&self, config: Config) -> Result<Gateway, crate::GatewayError> {
        let parts = Parts {
            fold: self.fold.clone(),
            executor: self.executor.clone(),
            queries: Arc::new(Nothing),
            audit: Arc::new(Nothing),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            bus: None,
        };
        Gateway::open(config, parts).await
    }

    async fn open_gateway(
        &self,
        config: Config,
    ) -> Result<(String, CancellationToken, JoinSet<()>, crate::Ready), crate::GatewayError> {
        let gateway = self.open(config).await?;
        let (addr, ready, stop) = (
            gateway.address().to_string(),
            gateway.ready(),
            self.stop.child_token(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(gateway.run(stop.clone()));
        Ok((addr, stop, tasks, ready))
    }

    /// What a client trusts now: every authority of the newest host row.
    pub(crate) fn epochs(&self, own: Option<(&KeyPair, &[u8])>) -> Epochs {
        let anchors: Vec<CaCert> = self.fold.read(|s| {
            let of = &s.types[&AuthorityType::Host];
            of.living()
                .map(|k| CaCert::from_base64(&k.certificate).unwrap())
                .collect()
        });
        let clock = self.clock.clone();
        let mut builder = TrustEpoch::builder(Now::new(move || clock.now_ms()))
            .client_auth(ClientAuth::Optional)
            .trust(AuthorityType::Host, anchors);
        if let Some((key, der)) = own {
            builder = builder.client(Credential::new(vec![der.to_vec().into()], key).unwrap());
        }
        Epochs::new(builder.build().unwrap())
    }

    /// An HTTP client with this certificate, or without one.
    pub(crate) fn client(&self, addr: &str, own: Option<(&KeyPair, &[u8])>) -> Client {
        Client::new(Arc::new(Dial {
            addr: addr.to_owned(),
            epochs: self.epochs(own),
            expect: Expect::Gateway {
                cluster: self.cluster.clone(),
            },
        }))
    }

    /// The administrator's client.
    pub(crate) fn admin(&self, addr: &str) -> Client {
        self.client(addr, Some((&self.admin.0, &self.admin.1)))
    }

    /// Everything that happened.
    pub(crate) async fn facts(&self) -> Vec<Fact> {
        let records = self.fold.log().read(1, 10_000).await.unwrap();
        records
            .iter()
            .map(|r| execution::codec::decode(r).unwrap().fact)
            .collect()
    }

    pub(crate) fn id(&self) -> CommandId {
        self.executor.command_id()
    }

    /// Waits until the state is as it should be.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&ClusterState) -> bool) {
        let mut changes = self.fold.changes();
        let waiting = async {
            while !self.fold.read(&is) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(SOON, waiting)
            .await
            .unwrap_or_else(|_| panic!("not in time: {what}"));
    }
}

impl Running {
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.abort_all();
    }
}

struct Dial {
    addr: String,
    epochs: Epochs,
    expect: Expect,
}

impl Connect for Dial {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, ConnectError>> {
        Box::pin(async {
            let connected =
                mtls::connect(&self.addr, &self.epochs, &SessionRegistry::new(), &self.expect).await;
            match connected {
                Ok(connected) => Ok(Box::new(connected.stream) as Box<dyn Io>),
                Err(error) if error.is_trust_failure() => Err(ConnectError::Trust(Box::new(error))),
                Err(error) => Err(ConnectError::Unreachable(error.to_string())),
            }
        })
    }

    fn authority(&self) -> String {
        self.addr.clone()
    }

    fn judge(&self, error: &std::io::Error) -> Option<ConnectError> {
        let refusal = mtls::refused_by_peer(error)?;
        Some(ConnectError::Trust(Box::new(mtls::TlsError::Refused(refusal))))
    }
}

/// Views are another crate's; the routes that need them are tested with the whole control plane.
struct Nothing;

fn none<T>() -> Answering<'static, T> {
    Box::pin(async { Err(QueryError::Unavailable("no views in this test".into())) })
}

impl Queries for Nothing {
    fn status(&self, _: At, _: Position) -> Answering<'_, Status> {
        none()
    }
    fn nodes(&self, _: At, _: Position) -> Answering<'_, Vec<NodeDoc>> {
        none()
    }
    fn authorities(&self, _: At, _: Position) -> Answering<'_, Vec<AuthorityDoc>> {
        none()
    }
    fn rotations(&self, _: Position) -> Answering<'_, Vec<RotationDoc>> {
        none()
    }
    fn tokens(&self, _: Position) -> Answering<'_, Vec<TokenDoc>> {
        none()
    }
    fn certificates(&self, _: At, _: Position) -> Answering<'_, Vec<CertificateDoc>> {
        none()
    }
    fn users(&self, _: Position) -> Answering<'_, Vec<UserDoc>> {
        none()
    }
    fn consumers(&self, _: Position) -> Answering<'_, Vec<ConsumerDoc>> {
        none()
    }
}

impl Audit for Nothing {
    fn replay(&self, _: At, _: AuditView) -> Answering<'_, serde_json::Value> {
        none()
    }
    fn diff(&self, _: At, _: At) -> Answering<'_, DiffDoc> {
        none()
    }
    fn event(&self, _: Position) -> Answering<'_, EventAudit> {
        none()
    }
    fn verify(&self) -> Answering<'_, VerifyReport> {
        none()
    }
}
