//! A control plane in memory for the tests of this crate: a log, a fold, a small signer with real keys, and
//! a gateway that listens on loopback. Real TLS, real HTTP.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::{
    At, Audit, Client, Connect, ConnectError, Queries, QueryError,
    audit::{AuditView, DiffDoc, VerifyReport},
    client::Io,
    queries::Answering,
    shape::{AuthorityDoc, CertificateDoc, ConsumerDoc, NodeDoc, RotationDoc, Status, TokenDoc, UserDoc},
};
use domain::{
    AuthorityType, AuthorizationId, ClusterName, ClusterState, CommandId, Duty, Fact, MemberId, Order, Phase,
    Position, Principal, Serial, SpkiPin,
    authority::{AuthorityKey, KeyKind},
    command::{Genesis, Settings},
    duty::{bundle_content, owed},
    event::{
        AuthorityActivated, AuthorityBundleSigned, AuthorityDestroyed, AuthorityKeyGenerated,
        AuthorityRetired, AuthorizationGranted, CertificateIssued, CertificateRevoked, LeafUse, Occasion,
    },
    id::SystemActor,
};
use eventlog::{MemoryLog, SharedLog};
use execution::{Executor, Expected, FactWriter, Fold};
use futures::future::BoxFuture;
use mtls::{ClientAuth, Credential, Epochs, Expect, Now, SessionRegistry, TrustEpoch};
use pki::{Blueprint, CaCert, KeyPair, authority, bundle, issue, pem};
use runtime::{
    clock::{SharedClock, SystemClock},
    metrics::Metrics,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{Config, Gateway, Parts};

/// How long a test waits for what should come at once.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The control plane.
pub(crate) struct World {
    pub(crate) fold: Fold,
    pub(crate) executor: Executor,
    pub(crate) cluster: ClusterName,
    pub(crate) clock: SharedClock,
    pub(crate) signer: Arc<SmallSigner>,
    pub(crate) dir: TempDir,
    pub(crate) admin: (KeyPair, Vec<u8>),
    pub(crate) member: MemberId,
    pub(crate) stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// A gateway that runs.
pub(crate) struct Running {
    pub(crate) addr: String,
    pub(crate) stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// Signs whatever is owed, with keys in memory.
pub(crate) struct SmallSigner {
    keys: Mutex<BTreeMap<SpkiPin, (KeyPair, CaCert)>>,
    bundle_key: KeyPair,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = SystemClock::shared();
        let wall = clock.clone();
        let now: execution::Now = Arc::new(move || domain::Timestamp(wall.now_ms()));
        let log: SharedLog = Arc::new(MemoryLog::new());
        let stop = CancellationToken::new();
        let fold = Fold::start(log, stop.clone()).await.unwrap();
        let executor = Executor::new(fold.clone(), now.clone(), Arc::default(), stop.clone());
        let cluster: ClusterName = "acme.cluster".parse().unwrap();
        let signer = Arc::new(SmallSigner {
            keys: Mutex::default(),
            bundle_key: KeyPair::generate(),
        });
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
            stop,
            tasks,
        }
    }

    /// Starts a gateway and waits until it serves.
    pub(crate) async fn gateway(&self) -> Running {
        let running = self.start_gateway("127.0.0.1:0").await.unwrap();
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
        let config = Config::new(
            listen.parse().unwrap(),
            self.dir.path().join("gateway"),
            self.member,
        );
        let parts = Parts {
            fold: self.fold.clone(),
            executor: self.executor.clone(),
            queries: Arc::new(Nothing),
            audit: Arc::new(Nothing),
            clock: self.clock.clone(),
            metrics: Metrics::new("test"),
        };
        let gateway = Gateway::open(config, parts).await?;
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
            let keys = of.active.values().chain(of.prepared.values());
            keys.map(|k| CaCert::from_base64(&k.certificate).unwrap())
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

impl SmallSigner {
    /// An authority's key and certificate.
    pub(crate) fn make(
        &self,
        cluster: &ClusterName,
        authority_type: AuthorityType,
        generation: u32,
        now: domain::Timestamp,
    ) -> AuthorityKey {
        let key = KeyPair::generate();
        let serial = Serial::of_random(pki::random());
        let ca = authority::make(
            &Blueprint {
                cluster,
                authority_type,
                generation,
                serial,
                now,
            },
            &key,
        )
        .unwrap();
        let public = ca.authority_key(generation, "memory", None, Position(0));
        self.keys.lock().unwrap().insert(public.id, (key, ca));
        public
    }

    /// Signs outside the log, as a thief with the authority's key would.
    pub(crate) fn issue(&self, granted: &AuthorizationGranted, cluster: &ClusterName) -> pki::IssuedLeaf {
        let keys = self.keys.lock().unwrap();
        let (key, ca) = &keys[&granted.issuer];
        issue(granted, cluster, ca, key).unwrap()
    }

    async fn run(self: Arc<Self>, fold: Fold, now: execution::Now) {
        let writer = FactWriter::signer(fold.clone());
        let mut changes = fold.changes();
        loop {
            let (duties, cluster) = fold.read(|s| (owed(s, s.now(now())), s.cluster_name().cloned()));
            for duty in duties {
                let cluster = cluster.as_ref().expect("the genesis came first");
                let facts = fold.read(|s| self.facts(s, &duty, cluster, now()));
                if !facts.is_empty() {
                    let outcome = writer
                        .append(cluster, &facts, now(), Expected::AsFolded)
                        .await
                        .unwrap();
                    if let eventlog::Outcome::Stored { last, .. } = outcome {
                        fold.wait_for(Position(last), SOON).await.unwrap();
                    }
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn facts(
        &self,
        s: &ClusterState,
        duty: &Duty,
        cluster: &ClusterName,
        now: domain::Timestamp,
    ) -> Vec<Fact> {
        match duty.clone() {
            Duty::GenerateKey {
                authority_type,
                rotation,
                generation,
                ..
            } => {
                let key = self.make(cluster, authority_type, generation, now);
                vec![
                    AuthorityKeyGenerated {
                        authority_type,
                        key: AuthorityKey {
                            rotation: Some(rotation),
                            ..key
                        },
                    }
                    .into(),
                ]
            }
            Duty::Sign { authorization } => {
                let Some(pending) = s.pending.get(&authorization) else {
                    return vec![];
                };
                let leaf = self.issue(&pending.granted, cluster);
                vec![issued(&pending.granted, &leaf).into()]
            }
            Duty::SignBundle { authority_type, .. } => {
                let content = bundle_content(s, authority_type, s.now(now)).unwrap();
                let (revision, phase, expires) = (content.revision, content.phase, content.expires);
                let bundle = bundle::sign(&content, &self.bundle_key, vec![]);
                vec![
                    AuthorityBundleSigned {
                        authority_type,
                        revision,
                        phase,
                        expires,
                        bundle,
                    }
                    .into(),
                ]
            }
            Duty::RecordRetirement {
                authority_type,
                authority,
                outcome,
                activated,
            } => {
                let activated = activated.into_iter().map(|(kind, authority)| {
                    Fact::from(AuthorityActivated {
                        authority_type,
                        kind,
                        authority,
                    })
                });
                activated
                    .chain([AuthorityRetired {
                        authority_type,
                        authority,
                        outcome,
                    }
                    .into()])
                    .collect()
            }
            Duty::Destroy {
                authority_type,
                authority,
            } => {
                vec![
                    AuthorityDestroyed {
                        authority_type,
                        authority,
                        stores: vec!["memory".into()],
                    }
                    .into(),
                ]
            }
            Duty::Revoke { holder, certificates } => {
                vec![
                    CertificateRevoked {
                        holder,
                        certificates,
                        why: "removed".into(),
                    }
                    .into(),
                ]
            }
        }
    }
}

pub(crate) fn issued(granted: &AuthorizationGranted, leaf: &pki::IssuedLeaf) -> CertificateIssued {
    use base64::{Engine, engine::general_purpose::STANDARD};
    CertificateIssued {
        authorization: granted.authorization,
        holder: granted.holder.clone(),
        authority_type: granted.authority_type,
        issuer: granted.issuer,
        usage: granted.usage,
        serial: granted.serial,
        spki: granted.spki,
        digest: leaf.digest,
        not_after: granted.not_after,
        certificate: STANDARD.encode(&leaf.der),
    }
}

/// Exactly what a certificate would say.
pub(crate) fn granted(
    cluster: &ClusterName,
    holder: Principal,
    issuer: (AuthorityType, SpkiPin),
    usage: LeafUse,
    key: &KeyPair,
    now: domain::Timestamp,
) -> AuthorizationGranted {
    AuthorizationGranted {
        authorization: AuthorizationId(execution::fresh_id(now)),
        uri: holder.uri(cluster),
        common_name: "test".into(),
        holder,
        authority_type: issuer.0,
        issuer: issuer.1,
        usage,
        occasion: Occasion::Genesis,
        spki: key.spki_pin(),
        public_key: key.public().to_base64(),
        names: vec![],
        addresses: vec![],
        serial: Serial::of_random(pki::random()),
        not_before: now.minus_ms(60_000),
        not_after: now.plus_ms(3_600_000),
        rotation: None,
        phase: Phase::Standby,
    }
}

type Credentials = (KeyPair, Vec<u8>);

fn genesis(
    signer: &SmallSigner,
    cluster: &ClusterName,
    member: MemberId,
    now: domain::Timestamp,
) -> (Genesis, Credentials, Credentials) {
    let keys: Vec<_> = [AuthorityType::Host, AuthorityType::User]
        .into_iter()
        .map(|authority_type| {
            let key = signer.make(cluster, authority_type, 1, now);
            let activated = AuthorityActivated {
                authority_type,
                kind: KeyKind::Tls,
                authority: key.id,
            };
            (AuthorityKeyGenerated { authority_type, key }, activated)
        })
        .collect();
    let issuer = |at: usize| (keys[at].0.authority_type, keys[at].0.key.id);
    let mut certificates = vec![];
    let mut leaf = |holder: Principal, issuer, usage| {
        let key = KeyPair::generate();
        let granted = granted(cluster, holder, issuer, usage, &key, now);
        let leaf = signer.issue(&granted, cluster);
        certificates.push((granted.clone(), issued(&granted, &leaf)));
        (key, leaf.der.to_vec())
    };
    let admin = leaf(
        Principal::User("admin".parse().unwrap()),
        issuer(1),
        LeafUse::Client,
    );
    let gateway = leaf(Principal::Gateway(member), issuer(0), LeafUse::Both);
    let genesis = Genesis {
        cluster: cluster.clone(),
        settings: Settings {
            allow_loopback: true,
            ..Settings::default()
        },
        bundle_key: signer.bundle_key.spki_pin(),
        bundle_public_key: signer.bundle_key.public().to_base64(),
        keys,
        admin: "admin".parse().unwrap(),
        gateway: member,
        certificates,
    };
    (genesis, admin, gateway)
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
    fn verify(&self) -> Answering<'_, VerifyReport> {
        none()
    }
}
