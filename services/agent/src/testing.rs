//! What the tests of this crate share: a control plane in small, with real TLS, real certificates and real
//! HTTP, that does what a test tells it and remembers what it was told.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use api::{
    join::{JoinAnswer, JoinRequest, RECOVER_CONTEXT, RecoverRequest},
    node::{CertificateAnswer, CertificateRequest, DesiredUpdate},
    problem::Problem,
};
use bytes::Bytes;
use domain::{
    AuthorityType, AuthorizationId, CertDigest, ClusterName, Code, DesiredState, MemberId, NodeId, Phase,
    Position, Principal, Serial, SpkiPin, Timestamp,
    access::Uses,
    authority::KeyKind,
    desired::DesiredAuthority,
    event::{AuthorizationGranted, LeafUse, Occasion},
    fact::FactReport,
    phase::Generation,
    reconcile::desired_of_bundle,
    time::{DAY_MS, MINUTE_MS},
    trust::{AuthorityStatus, Bundle, BundleAuthority, SignedBundle},
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use mtls::{ClientAuth, Credential, Epochs, PeerIdentity, SessionRegistry, TrustEpoch};
use pki::{Blueprint, CaCert, Certificate, KeyPair};
use runtime::clock::SharedClock;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use crate::{Config, Pace, Server, Settings, Token, tls};

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
    state: Mutex<State>,
    epochs: Epochs,
    sessions: SessionRegistry,
    changed: watch::Sender<u64>,
}

pub(crate) struct State {
    pub(crate) active: (Arc<KeyPair>, CaCert),
    pub(crate) prepared: Option<(Arc<KeyPair>, CaCert)>,
    pub(crate) phase: Phase,
    pub(crate) revision: u64,
    generation: u32,
    position: u64,
    pub(crate) ttl_ms: u64,
    pub(crate) reports: Vec<FactReport>,
    pub(crate) issued: BTreeMap<CertDigest, (NodeId, SpkiPin)>,
    pub(crate) joins: u32,
    pub(crate) recoveries: u32,
    /// Answers of this kind instead of the usual ones.
    pub(crate) refuse_join: Option<Code>,
    pub(crate) refuse_recovery: Option<Code>,
    pub(crate) refuse_certificates: bool,
}

type Body = BoxBody<Bytes, Infallible>;

impl Plane {
    pub(crate) async fn start(clock: SharedClock) -> Self {
        Self::start_at(clock, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(clock: SharedClock, addr: SocketAddr) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let nothing = TrustEpoch::builder(tls::now(&clock)).build().unwrap();
        let active = authority(&clock, 1);
        let state = State {
            active,
            prepared: None,
            phase: Phase::Standby,
            revision: 10,
            generation: 1,
            position: 10,
            ttl_ms: DAY_MS,
            reports: vec![],
            issued: BTreeMap::new(),
            joins: 0,
            recoveries: 0,
            refuse_join: None,
            refuse_recovery: None,
            refuse_certificates: false,
        };
        let inner = Arc::new(Inner {
            clock,
            cluster: CLUSTER.parse().unwrap(),
            node: NodeId(uuid::Uuid::from_u128(7)),
            bundle_key: KeyPair::generate(),
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
                    state.prepared = Some(authority(&self.inner.clock, state.generation));
                }
                (Phase::UpdateServers, Phase::Standby) => state.active = state.prepared.take().unwrap(),
                (Phase::Rollback, Phase::Standby) => state.prepared = None,
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
            pace: Pace {
                retry_min: Duration::from_millis(10),
                retry_max: Duration::from_millis(100),
                tick: Duration::from_millis(20),
                failure_pause: Duration::from_millis(20),
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

fn authority(clock: &SharedClock, generation: u32) -> (Arc<KeyPair>, CaCert) {
    let key = KeyPair::generate();
    let cluster = CLUSTER.parse().unwrap();
    let blueprint = Blueprint {
        cluster: &cluster,
        authority_type: AuthorityType::Host,
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
            status,
            generation: 1,
            certificate: ca.to_base64(),
        };
        let prepared = state
            .prepared
            .as_ref()
            .map(|(_, ca)| listed(ca, AuthorityStatus::Prepared));
        Bundle {
            cluster: self.cluster.clone(),
            authority_type: AuthorityType::Host,
            rotation: None,
            phase: state.phase,
            revision: Position(state.revision),
            authorities: [listed(&state.active.1, AuthorityStatus::Active)]
                .into_iter()
                .chain(prepared)
                .collect(),
            denied: vec![],
            expires: self.now().plus_ms(DAY_MS),
        }
    }

    pub(crate) fn signed(&self) -> SignedBundle {
        pki::bundle::sign(&self.bundle(), &self.bundle_key, vec![])
    }

    pub(crate) fn update(&self) -> DesiredUpdate {
        let (row, signed) = (desired_of_bundle(&self.bundle(), Uses::ALL, None), self.signed());
        let desired = DesiredState {
            position: row.revision,
            names: vec!["n1.acme.cluster".parse().unwrap()],
            authorities: [(AuthorityType::Host, row)].into(),
            drain_timeout_ms: 200,
            node_ttl_ms: self.state().ttl_ms,
        };
        DesiredUpdate {
            desired,
            bundles: [(AuthorityType::Host, signed)].into(),
        }
    }

    /// Puts the gateway's own trust and certificate for the phase in force, and tells everybody.
    fn install(&self) {
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
        let granted = AuthorizationGranted {
            authorization: AuthorizationId(uuid::Uuid::from_u128(1)),
            uri: holder.uri(&self.cluster),
            holder: holder.clone(),
            authority_type: AuthorityType::Host,
            issuer,
            usage,
            occasion: Occasion::Renewal,
            spki,
            public_key: public_key.to_owned(),
            common_name: "n1".into(),
            names: vec!["n1.acme.cluster".parse().unwrap()],
            addresses: vec![],
            serial: Serial::of_random(pki::random()),
            not_before: self.now().minus_ms(5 * MINUTE_MS),
            not_after: self.now().plus_ms(state.ttl_ms),
            rotation: None,
            phase: state.phase,
        };
        let leaf = pki::issue(&granted, &self.cluster, &ca, signer.as_ref()).unwrap();
        if let Principal::Node(node) = holder {
            state.issued.insert(leaf.digest, (*node, spki));
        }
        (leaf.der, Position(state.next_position()))
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

    async fn connection(self: Arc<Self>, tcp: tokio::net::TcpStream) {
        let Ok(accepted) = mtls::accept(tcp, &self.epochs, &self.sessions).await else {
            return;
        };
        let peer = accepted.peer.clone();
        let service = hyper::service::service_fn(move |request| {
            let (inner, peer) = (self.clone(), peer.clone());
            async move { Ok::<_, Infallible>(inner.route(request, peer).await) }
        });
        let closed = accepted.session.close_token();
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(accepted.stream), service);
        tokio::select! {
            () = closed.cancelled() => {}
            _ = connection => {}
        }
    }

    async fn route(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Option<PeerIdentity>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        match (parts.method, parts.uri.path()) {
            (Method::GET, "/v1/trust/host") => json(&self.signed()),
            (Method::POST, "/v1/join") => self.join(&body),
            (Method::POST, "/v1/recover") => self.recover(&body),
            (method, path) => {
                let known = peer.filter(|peer| self.state().issued.contains_key(&peer.digest));
                let Some(_) = known.filter(|_| !self.state().refuse_certificates) else {
                    return problem(Code::CertificateUnknown);
                };
                match (method, path) {
                    (Method::GET, "/v1/node/stream") => self.stream(),
                    (Method::POST, "/v1/node/certificates") => self.certificate(&body),
                    (Method::POST, "/v1/node/facts") => {
                        self.state().reports.push(serde_json::from_slice(&body).unwrap());
                        Response::builder()
                            .status(StatusCode::NO_CONTENT)
                            .body(empty())
                            .unwrap()
                    }
                    _ => problem(Code::NotFound),
                }
            }
        }
    }

    fn join(&self, body: &[u8]) -> Response<Body> {
        let asked: JoinRequest = serde_json::from_slice(body).unwrap();
        if let Some(code) = self.state().refuse_join {
            return problem(code);
        }
        if asked.token != TOKEN {
            return problem(Code::TokenUnknown);
        }
        self.state().joins += 1;
        self.first(&asked.csr)
    }

    fn recover(&self, body: &[u8]) -> Response<Body> {
        let asked: RecoverRequest = serde_json::from_slice(body).unwrap();
        if let Some(code) = self.state().refuse_recovery {
            return problem(code);
        }
        let old = pki::pem::certificates(&asked.certificate).unwrap().remove(0);
        let old = Certificate::parse(&old).unwrap();
        use base64::{Engine, engine::general_purpose::STANDARD};
        let signature = STANDARD.decode(asked.signature).unwrap();
        let spki = old.public_key.spki_der();
        let is_proven =
            pki::statement::verify(spki, RECOVER_CONTEXT, asked.csr.as_bytes(), &signature).is_ok();
        if !is_proven || !self.state().issued.contains_key(&old.digest) {
            return problem(Code::RecoveryRefused);
        }
        self.state().recoveries += 1;
        self.first(&asked.csr)
    }

    fn first(&self, csr: &str) -> Response<Body> {
        let key = pki::csr::parse_and_verify(csr.as_bytes()).unwrap();
        let bundle = self.bundle();
        let (client, server) = (
            bundle.issuer(bundle.phase.row().client).unwrap(),
            bundle.issuer(Generation::Active).unwrap(),
        );
        let usage = if bundle.client_issuer() == bundle.server_issuer() {
            LeafUse::Both
        } else {
            LeafUse::Client
        };
        assert!(usage == LeafUse::Client || client == server || bundle.phase == Phase::UpdateServers);
        let holder = Principal::Node(self.node);
        let (der, position) = self.issue(&holder, usage, client, &key.public_key, key.spki);
        let update = self.update();
        json(&JoinAnswer {
            node: self.node,
            cluster: self.cluster.clone(),
            position,
            certificate: pki::pem::encode("CERTIFICATE", &der),
            usage,
            bundles: update.bundles,
            desired: update.desired,
        })
    }

    fn certificate(&self, body: &[u8]) -> Response<Body> {
        let asked: CertificateRequest = serde_json::from_slice(body).unwrap();
        let key = pki::csr::parse_and_verify(asked.csr.as_bytes()).unwrap();
        let bundle = self.bundle();
        let row = if asked.usage.client() {
            bundle.client_issuer()
        } else {
            bundle.server_issuer()
        };
        if asked.issuer != row {
            return problem(Code::StaleView);
        }
        let (der, position) = self.issue(
            &Principal::Node(self.node),
            asked.usage,
            row.unwrap(),
            &key.public_key,
            key.spki,
        );
        json(&CertificateAnswer {
            authorization: AuthorizationId(uuid::Uuid::from_u128(1)),
            not_after: Certificate::parse(&der).unwrap().not_after,
            certificate: pki::pem::encode("CERTIFICATE", &der),
            position,
        })
    }

    fn stream(self: Arc<Self>) -> Response<Body> {
        let changed = self.changed.subscribe();
        let events =
            futures::stream::unfold((self, changed, true), |(inner, mut changed, first)| async move {
                if !first {
                    changed.changed().await.ok()?;
                }
                changed.mark_unchanged();
                let text = format!(
                    "event: desired\ndata: {}\n\n",
                    serde_json::to_string(&inner.update()).unwrap()
                );
                Some((
                    Ok::<_, Infallible>(Frame::data(Bytes::from(text))),
                    (inner, changed, false),
                ))
            });
        Response::new(BodyExt::boxed(StreamBody::new(Box::pin(SyncStream(Mutex::new(
            Box::pin(events),
        ))))))
    }
}

/// A stream that may be shared, which a boxed body has to be and nobody does.
struct SyncStream<S>(Mutex<std::pin::Pin<Box<S>>>);

impl<S: futures::Stream> futures::Stream for SyncStream<S> {
    type Item = S::Item;
    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().unwrap().as_mut().poll_next(cx)
    }
}

fn empty() -> Body {
    Full::new(Bytes::new()).boxed()
}

fn json<T: serde::Serialize>(value: &T) -> Response<Body> {
    Response::new(Full::new(Bytes::from(serde_json::to_vec(value).unwrap())).boxed())
}

fn problem(code: Code) -> Response<Body> {
    let problem = Problem::new(code, "as the test wants it");
    let body = serde_json::to_vec(&problem).unwrap();
    Response::builder()
        .status(problem.status)
        .body(Full::new(Bytes::from(body)).boxed())
        .unwrap()
}
