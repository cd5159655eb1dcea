//! What the tests of this crate share: a control plane in small, with real TLS, real certificates and real
//! HTTP, that does what a test tells it and remembers what it was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use api::{join::RejoinProof, node::DesiredUpdate};
use domain::{
    AuthorityType, AuthorizationId, CertDigest, ClusterName, Code, DesiredState, MemberId, NodeId, Phase,
    Position, Principal, Serial, SpkiPin, Timestamp,
    access::Uses,
    authority::KeyKind,
    desired::DesiredAuthority,
    event::{AuthorizationGranted, Form, LeafUse, Occasion},
    fact::FactReport,
    reconcile::desired_of_bundle,
    time::{DAY_MS, MINUTE_MS},
    trust::{AuthorityStatus, Bundle, BundleAuthority, SignedBundle},
};
use mtls::{ClientAuth, Credential, Epochs, SessionRegistry, TrustEpoch};
use pki::{Blueprint, CaCert, KeyPair};
use runtime::clock::SharedClock;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{Config, Pace, Server, Settings, Token, tls};

mod routes;
pub(crate) mod sshd;

pub(crate) const CLUSTER: &str = "acme.cluster";
pub(crate) const TOKEN: &str = "a-token";
/// How long a test waits for what must happen; one that passes never does.
const PATIENCE: Duration = Duration::from_secs(30);

/// The control plane in small. Ends when it is dropped.
pub(crate) struct Plane {
    pub(crate) addr: SocketAddr,
    pub(crate) inner: Arc<Inner>,
    _tasks: JoinSet<()>,
}

pub(crate) struct Inner {
    clock: SharedClock,
    cluster: ClusterName,
    pub(crate) node: NodeId,
    pub(crate) bundle_key: KeyPair,
    user_ca: CaCert,
    state: Mutex<State>,
    epochs: Epochs,
    sessions: SessionRegistry,
    changed: watch::Sender<u64>,
}

pub(crate) struct State {
    pub(crate) active: (Arc<KeyPair>, CaCert),
    pub(crate) prepared: Option<(Arc<KeyPair>, CaCert)>,
    /// What the node is called, but for its certificates for TLS.
    pub(crate) name: &'static str,
    /// The SSH authorities of the same generations.
    pub(crate) ssh_active: Arc<KeyPair>,
    pub(crate) ssh_prepared: Option<Arc<KeyPair>>,
    pub(crate) phase: Phase,
    pub(crate) revision: u64,
    generation: u32,
    position: u64,
    pub(crate) ttl_ms: u64,
    pub(crate) reports: Vec<FactReport>,
    pub(crate) issued: BTreeMap<CertDigest, (NodeId, SpkiPin)>,
    /// The requests that came with joins and recoveries, whatever was answered.
    pub(crate) asked: Vec<String>,
    /// Who each join said that it was before.
    pub(crate) rejoins: Vec<Option<RejoinProof>>,
    pub(crate) joins: u32,
    pub(crate) recoveries: u32,
    /// The token is good for one key, as most are: another one is refused, the same one gets the first result.
    pub(crate) one_use: bool,
    /// The types that the node is granted: `host`, and perhaps `user`.
    pub(crate) granted: BTreeSet<AuthorityType>,
    pub(crate) used_by: Option<(SpkiPin, Vec<u8>, Position)>,
    /// Answers of this kind instead of the usual ones.
    pub(crate) refuse_join: Option<Code>,
    pub(crate) refuse_recovery: Option<Code>,
    pub(crate) refuse_certificates: bool,
    pub(crate) refuse_request: Option<Code>,
    pub(crate) refuse_sshd: Option<Code>,
    pub(crate) refuse_trust: Option<Code>,
    /// The next certificates are for somebody else, this many.
    pub(crate) misissue: u32,
    /// How often the signed bundle was asked for without trust.
    pub(crate) trust_asked: u32,
}

impl Plane {
    pub(crate) async fn start(clock: SharedClock) -> Self {
        Self::start_at(clock, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(clock: SharedClock, addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let nothing = TrustEpoch::builder(tls::now(&clock)).build().unwrap();
        let active = authority(&clock, AuthorityType::Host, 1);
        let user_ca = authority(&clock, AuthorityType::User, 1).1;
        let state = State {
            active,
            prepared: None,
            name: "n1.acme.cluster",
            ssh_active: Arc::new(KeyPair::generate()),
            ssh_prepared: None,
            phase: Phase::Standby,
            revision: 10,
            generation: 1,
            position: 10,
            ttl_ms: DAY_MS,
            reports: vec![],
            issued: BTreeMap::new(),
            asked: vec![],
            rejoins: vec![],
            joins: 0,
            recoveries: 0,
            one_use: false,
            granted: [AuthorityType::Host].into(),
            used_by: None,
            refuse_join: None,
            refuse_recovery: None,
            refuse_certificates: false,
            refuse_request: None,
            refuse_sshd: None,
            refuse_trust: None,
            misissue: 0,
            trust_asked: 0,
        };
        let inner = Arc::new(Inner {
            clock,
            cluster: CLUSTER.parse().unwrap(),
            node: NodeId(uuid::Uuid::from_u128(7)),
            bundle_key: KeyPair::generate(),
            user_ca,
            state: Mutex::new(state),
            epochs: Epochs::new(nothing),
            sessions: SessionRegistry::new(),
            changed: watch::Sender::new(0),
        });
        inner.install();
        let addr = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let serving = inner.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                connections.spawn(serving.clone().connection(tcp));
            }
        });
        Self {
            addr,
            inner,
            _tasks: tasks,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    /// How many joins and how many recoveries were granted.
    pub(crate) fn ways_in(&self) -> (u32, u32) {
        let state = self.state();
        (state.joins, state.recoveries)
    }

    /// Enters a phase, with the same effect on keys as the real one.
    pub(crate) fn enter(&self, phase: Phase) {
        {
            let mut state = self.state();
            let from = state.phase;
            state.revision = state.next_position();
            state.phase = phase;
            match (from, phase) {
                (Phase::Standby, Phase::Init) => {
                    state.generation += 1;
                    state.prepared = Some(authority(
                        &self.inner.clock,
                        AuthorityType::Host,
                        state.generation,
                    ));
                    state.ssh_prepared = Some(Arc::new(KeyPair::generate()));
                }
                (Phase::UpdateServers, Phase::Standby) => {
                    state.active = state.prepared.take().unwrap();
                    state.ssh_active = state.ssh_prepared.take().unwrap();
                }
                (Phase::Rollback, Phase::Standby) => (state.prepared, state.ssh_prepared) = (None, None),
                _ => {}
            }
        }
        self.inner.install();
    }

    /// A whole rotation, with nobody to wait for.
    pub(crate) fn rotate(&self) {
        for phase in [
            Phase::Init,
            Phase::UpdateClients,
            Phase::UpdateServers,
            Phase::Standby,
        ] {
            self.enter(phase);
        }
    }

    pub(crate) fn active(&self) -> SpkiPin {
        self.state().active.1.pin()
    }

    pub(crate) fn config(&self, data_dir: &std::path::Path) -> Config {
        Config {
            data_dir: data_dir.to_owned(),
            servers: vec![Server {
                from: None,
                host: self.addr.ip().to_string(),
                port: self.addr.port(),
            }],
            hostname: "n1.acme.cluster".parse().unwrap(),
            ca_pins: [self.active()].into(),
            bundle_pin: Some(self.inner.bundle_key.spki_pin()),
            token: Some(Token::parse(TOKEN).unwrap()),
            listen: Some("127.0.0.1:0".parse().unwrap()),
            settings: Settings::default(),
            config_file: None,
            metrics: None,
            pace: Pace {
                retry_min: Duration::from_millis(10),
                retry_max: Duration::from_millis(100),
                tick: Duration::from_millis(20),
                failure_pause: Duration::from_millis(20),
                certificate_wait: Duration::from_millis(20),
                refused_pause: Duration::from_millis(20),
            },
        }
    }

    /// The row that stands now.
    pub(crate) fn row(&self) -> DesiredAuthority {
        desired_of_bundle(&self.inner.bundle(), Uses::ALL, None)
    }

    /// Waits until the node reports that it holds the row that stands now, exactly.
    pub(crate) async fn reached(&self) -> FactReport {
        let row = self.row();
        let holds = |report: &FactReport| {
            report.authorities.get(&AuthorityType::Host).is_some_and(|facts| {
                facts.revision >= row.revision
                    && facts.trusted == row.trusted
                    && facts.client_issuer == row.client_issuer
                    && facts.server_issuer == row.server_issuer
                    && !facts.sessions_on_retiring
            })
        };
        self.reported(&format!("the row of {}", row.phase), holds).await
    }

    /// Waits for a newest report of this kind.
    pub(crate) async fn reported(&self, what: &str, is_it: impl Fn(&FactReport) -> bool) -> FactReport {
        eventually(what, || self.state().reports.last().filter(|r| is_it(r)).cloned()).await
    }
}

/// Polls until there is something, or fails the test with what it waited for.
pub(crate) async fn eventually<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl State {
    fn next_position(&mut self) -> u64 {
        self.position += 1;
        self.position
    }
}

fn authority(clock: &SharedClock, authority_type: AuthorityType, generation: u32) -> (Arc<KeyPair>, CaCert) {
    let key = KeyPair::generate();
    let cluster = CLUSTER.parse().unwrap();
    let blueprint = Blueprint {
        cluster: &cluster,
        authority_type,
        generation,
        serial: Serial::of_random(pki::random()),
        now: Timestamp(clock.now_ms()),
    };
    let ca = pki::authority::make(&blueprint, &key).unwrap();
    (Arc::new(key), ca)
}

impl Inner {
    fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn bundle(&self) -> Bundle {
        let state = self.state();
        let listed = |ca: &CaCert, status| BundleAuthority {
            id: ca.pin(),
            kind: KeyKind::Tls,
            public_key: String::new(),
            status,
            generation: 1,
            certificate: ca.to_base64(),
        };
        let for_ssh = |key: &KeyPair, status| BundleAuthority {
            id: key.spki_pin(),
            kind: KeyKind::Ssh,
            public_key: key.public().to_base64(),
            status,
            generation: 1,
            certificate: String::new(),
        };
        let prepared = state
            .prepared
            .as_ref()
            .map(|(_, ca)| listed(ca, AuthorityStatus::Prepared));
        let ssh_prepared = state.ssh_prepared.as_ref();
        let ssh_prepared = ssh_prepared.map(|key| for_ssh(key, AuthorityStatus::Prepared));
        Bundle {
            cluster: self.cluster.clone(),
            authority_type: AuthorityType::Host,
            rotation: None,
            phase: state.phase,
            revision: Position(state.revision),
            authorities: [listed(&state.active.1, AuthorityStatus::Active)]
                .into_iter()
                .chain(prepared)
                .chain([for_ssh(&state.ssh_active, AuthorityStatus::Active)])
                .chain(ssh_prepared)
                .collect(),
            denied: vec![],
            expires: self.now().plus_ms(DAY_MS),
        }
    }

    pub(crate) fn signed(&self) -> SignedBundle {
        pki::bundle::sign(&self.bundle(), &self.bundle_key, vec![])
    }

    pub(crate) fn update(&self) -> DesiredUpdate {
        let (granted, node_ttl_ms, name) = {
            let state = self.state();
            (state.granted.clone(), state.ttl_ms, state.name)
        };
        let (mut authorities, mut bundles) = (BTreeMap::new(), BTreeMap::new());
        for authority_type in granted {
            let bundle = if authority_type == AuthorityType::User {
                self.user_bundle()
            } else {
                self.bundle()
            };
            let row = desired_of_bundle(&bundle, Uses::usual(authority_type), None);
            authorities.insert(authority_type, row);
            bundles.insert(
                authority_type,
                pki::bundle::sign(&bundle, &self.bundle_key, vec![]),
            );
        }
        let desired = DesiredState {
            position: Position(self.state().revision),
            names: vec![name.parse().unwrap()],
            authorities,
            drain_timeout_ms: 200,
            node_ttl_ms,
        };
        DesiredUpdate { desired, bundles }
    }

    /// Puts the gateway's own trust and certificate for the phase in force, and tells everybody.
    pub(crate) fn install(&self) {
        let bundle = self.bundle();
        let key = KeyPair::generate();
        let holder = Principal::Gateway(MemberId(uuid::Uuid::from_u128(1)));
        let row = bundle.server_issuer().unwrap();
        let mut builder = TrustEpoch::builder(tls::now(&self.clock))
            .trust(AuthorityType::Host, pki::bundle::authorities(&bundle))
            .client_auth(ClientAuth::Optional);
        for issuer in bundle.trusted() {
            let der = self
                .issue(
                    &holder,
                    LeafUse::Both,
                    issuer,
                    &key.public().to_base64(),
                    key.spki_pin(),
                )
                .0;
            let credential = Credential::new(vec![der.into()], &key).unwrap();
            builder = if issuer == row {
                builder.server(credential)
            } else {
                builder.also_serve(credential)
            };
        }
        let epoch = builder.build().unwrap();
        self.epochs.install(epoch, &self.sessions);
        self.changed.send_modify(|n| *n += 1);
    }

    fn issue(
        &self,
        holder: &Principal,
        usage: LeafUse,
        issuer: SpkiPin,
        public_key: &str,
        spki: SpkiPin,
    ) -> (Vec<u8>, Position) {
        let mut state = self.state();
        let prepared = state.prepared.clone();
        let (signer, ca) = [Some(state.active.clone()), prepared]
            .into_iter()
            .flatten()
            .find(|(_, ca)| ca.pin() == issuer)
            .unwrap();
        let (now, ttl_ms, phase) = (self.now(), state.ttl_ms, state.phase);
        let granted = AuthorizationGranted {
            spki,
            public_key: public_key.to_owned(),
            ..self.granted(holder, usage, issuer, (now, ttl_ms, phase))
        };
        let leaf = pki::issue(&granted, &self.cluster, &ca, signer.as_ref()).unwrap();
        if let Principal::Node(node) = holder {
            state.issued.insert(leaf.digest, (*node, spki));
        }
        (leaf.der, Position(state.next_position()))
    }

    fn granted(
        &self,
        holder: &Principal,
        usage: LeafUse,
        issuer: SpkiPin,
        (now, ttl_ms, phase): (Timestamp, u64, Phase),
    ) -> AuthorizationGranted {
        AuthorizationGranted {
            authorization: AuthorizationId(uuid::Uuid::from_u128(1)),
            uri: holder.uri(&self.cluster),
            holder: holder.clone(),
            authority_type: AuthorityType::Host,
            issuer,
            usage,
            occasion: Occasion::Renewal,
            spki: SpkiPin([0; 32]),
            public_key: String::new(),
            common_name: "n1".into(),
            names: vec!["n1.acme.cluster".parse().unwrap()],
            addresses: vec![],
            serial: Serial::of_random(pki::random()),
            not_before: now.minus_ms(5 * MINUTE_MS),
            not_after: now.plus_ms(ttl_ms),
            rotation: None,
            phase,
            form: Form::Tls,
        }
    }

    /// A certificate of this node from the active authority.
    pub(crate) fn leaf(&self, key: &KeyPair, usage: LeafUse) -> Vec<u8> {
        let issuer = self.state().active.1.pin();
        self.issue(
            &Principal::Node(self.node),
            usage,
            issuer,
            &key.public().to_base64(),
            key.spki_pin(),
        )
        .0
    }
}
