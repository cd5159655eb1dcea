//! A cluster in memory with real keys and a signer that does what is owed when it is asked, for the tests of
//! this crate. Its [`story`] touches every document of the views.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use api::shape::{AuthorityDoc, CertificateDoc, ConsumerDoc, NodeDoc, Status, TokenDoc, UserDoc};
use domain::{
    Answer, AuthorityType, AuthorizationId, BootId, ClusterState, Command, MemberId, NodeId, Order, Phase,
    Principal, Serial, SpkiPin, Timestamp, TokenHash,
    access::{Grant, NamePattern, RoleName, Uses},
    authority::KeyKind,
    command::{Genesis, Join, KeyRequest, Rotate, Settings},
    event::{AuthorityActivated, AuthorizationGranted, LeafUse, Occasion},
    fact::{FactReport, Seen, TypeFacts},
    id::SystemActor,
};
use eventlog::SharedLog;
use execution::{Executor, Fold, Now};
use pki::{CaCert, KeyPair, random};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::shape;

mod signer;

const START: i64 = 1_790_000_000_000;
const CLUSTER: &str = "acme.cluster";

/// A cluster at work.
pub(crate) struct World {
    pub(crate) log: SharedLog,
    pub(crate) fold: Fold,
    pub(crate) now: Now,
    executor: Executor,
    clock: Arc<AtomicI64>,
    keys: Mutex<HashMap<SpkiPin, Arc<KeyPair>>>,
    bundle_key: KeyPair,
    _stop: DropGuard,
}

/// Everything that people can ask for at one moment, but for the history of rotations.
#[derive(Debug, PartialEq)]
pub(crate) struct All {
    pub(crate) status: Status,
    pub(crate) nodes: Vec<NodeDoc>,
    pub(crate) authorities: Vec<AuthorityDoc>,
    pub(crate) certificates: Vec<CertificateDoc>,
    pub(crate) tokens: Vec<TokenDoc>,
    pub(crate) users: Vec<UserDoc>,
    pub(crate) consumers: Vec<ConsumerDoc>,
}

impl All {
    pub(crate) fn of(state: &ClusterState) -> Self {
        Self {
            status: shape::status(state),
            nodes: shape::nodes(state),
            authorities: shape::authorities(state),
            certificates: shape::certificates(state),
            tokens: shape::tokens(state, state.time),
            users: shape::users(state),
            consumers: shape::consumers(state),
        }
    }
}

/// Joins, a rotation of the host authority with a laggard and an override, a rollback, an exclusion, people who
/// come and go, a consumer, refusals: about a hundred events.
pub(crate) async fn story(log: SharedLog) -> World {
    let world = World::on(log).await;
    let (one, two) = (world.join("db-1").await, world.join("db-2").await);
    world.report(one, 1).await;
    world.report(two, 1).await;
    world.add_user("otto", RoleName::Operator).await;
    world.add_user("ada", RoleName::Auditor).await;
    world.consumer("etl").await;
    world
        .rotate(AuthorityType::Host, Phase::Init, None)
        .await
        .unwrap();
    world.report(one, 2).await;
    world.refuse_step(Phase::UpdateClients).await;
    world.report(two, 2).await;
    world
        .rotate(AuthorityType::Host, Phase::UpdateClients, None)
        .await
        .unwrap();
    world.renew(one, LeafUse::Client).await;
    world.reuse_an_id(one).await;
    world.report(one, 3).await;
    world
        .rotate(AuthorityType::Host, Phase::UpdateServers, Some("db-2 is away"))
        .await
        .unwrap();
    world
        .admin_asks(Order::ExcludeNode { node: two }, Some("db-2 is away"))
        .await;
    world.renew(one, LeafUse::Both).await;
    world.report(one, 4).await;
    world
        .rotate(AuthorityType::Host, Phase::Standby, None)
        .await
        .unwrap();
    world.report(one, 5).await;
    world.settle(AuthorityType::Host).await;
    for phase in [Phase::Init, Phase::Rollback, Phase::Standby] {
        world.rotate(AuthorityType::Db, phase, None).await.unwrap();
    }
    world
        .admin_asks(
            Order::RemoveUser {
                user: "ada".parse().unwrap(),
            },
            None,
        )
        .await;
    world.admin_asks(Order::RemoveNode { node: two }, None).await;
    // What it asked for while it was removed is refused, with the certificate that it came with.
    let late = world.certificate_order(LeafUse::Both);
    let refused = world.ask(Principal::Node(two), late, None).await;
    assert!(refused.is_err(), "it is no node any more");
    world.automatic(AuthorityType::Db).await;
    world
}

impl World {
    pub(crate) async fn on(log: SharedLog) -> Self {
        let (clock, stop) = (Arc::new(AtomicI64::new(START)), CancellationToken::new());
        let of = clock.clone();
        let now: Now = Arc::new(move || Timestamp(of.load(Ordering::SeqCst)));
        let fold = Fold::start(log.clone(), stop.child_token()).await.unwrap();
        let suspect = Arc::new(AtomicBool::new(false));
        let executor = Executor::new(fold.clone(), now.clone(), suspect, stop.child_token());
        let world = Self {
            log,
            fold,
            now,
            executor,
            clock,
            keys: Mutex::default(),
            bundle_key: KeyPair::generate(),
            _stop: stop.drop_guard(),
        };
        let genesis = world.genesis();
        world
            .ask(
                Principal::System(SystemActor::Host),
                Order::Genesis(Box::new(genesis)),
                None,
            )
            .await
            .unwrap();
        world.sign().await;
        world
    }

    fn genesis(&self) -> Genesis {
        let types = [AuthorityType::Host, AuthorityType::User, AuthorityType::Db];
        let keys = types.map(|t| {
            let key = self.authority(t, 1, None);
            let authority = key.key.id;
            (
                key,
                AuthorityActivated {
                    authority_type: t,
                    kind: KeyKind::Tls,
                    authority,
                },
            )
        });
        let issuer = CaCert::from_base64(&keys[1].0.key.certificate).unwrap();
        let key = KeyPair::generate();
        let holder = Principal::User("admin".parse().unwrap());
        let granted = AuthorizationGranted {
            authorization: AuthorizationId(uuid::Uuid::from_u128(1)),
            uri: holder.uri(&CLUSTER.parse().unwrap()),
            holder,
            authority_type: AuthorityType::User,
            issuer: issuer.pin(),
            usage: LeafUse::Client,
            occasion: Occasion::Genesis,
            spki: key.spki_pin(),
            public_key: key.public().to_base64(),
            common_name: "admin".into(),
            names: vec![],
            addresses: vec![],
            serial: Serial::of_random(random()),
            not_before: Timestamp(START - 1_000),
            not_after: Timestamp(START + 40_000_000),
            rotation: None,
            phase: Phase::Standby,
            form: domain::event::Form::Tls,
        };
        let issued = self.issued(&granted, &issuer);
        Genesis {
            cluster: CLUSTER.parse().unwrap(),
            settings: Settings {
                allow_loopback: true,
                ..Settings::default()
            },
            bundle_key: self.bundle_key.spki_pin(),
            bundle_public_key: self.bundle_key.public().to_base64(),
            keys: keys.to_vec(),
            admin: "admin".parse().unwrap(),
            gateway: MemberId(uuid::Uuid::from_u128(2)),
            certificates: vec![(granted, issued)],
        }
    }

    /// Orders something ten seconds later, and lets the signer work.
    async fn ask(
        &self,
        principal: Principal,
        order: Order,
        reason: Option<&str>,
    ) -> Result<Answer, execution::ExecuteError> {
        self.clock.fetch_add(10_000, Ordering::SeqCst);
        let mut command = self.command(principal, order);
        command.reason = reason.map(Into::into);
        let answered = self.executor.execute(command).await?;
        self.sign().await;
        Ok(answered.answer)
    }

    /// A command with the certificate that people and nodes show: of a report the one that it was seen with.
    fn command(&self, principal: Principal, order: Order) -> Command {
        let credential = match &order {
            Order::Report { seen, .. } => Some(seen.certificate),
            _ => self.fold.read(|state| {
                let held = state.held.get(&principal).into_iter().flatten().rev();
                held.copied()
                    .find(|digest| state.certificates[digest].usage.client())
            }),
        };
        Command {
            credential: credential.map(domain::Credential::Certificate),
            ..self.executor.own_command(principal, order)
        }
    }

    pub(crate) async fn admin_asks(&self, order: Order, reason: Option<&str>) -> Answer {
        self.ask(Principal::User("admin".parse().unwrap()), order, reason)
            .await
            .unwrap()
    }

    fn request(&self) -> KeyRequest {
        let key = KeyPair::generate();
        KeyRequest {
            spki: key.spki_pin(),
            public_key: key.public().to_base64(),
        }
    }

    async fn join(&self, name: &str) -> NodeId {
        let hash = TokenHash(random());
        let grant = Grant {
            names: vec![NamePattern::Exact(name.parse().unwrap())],
            addresses: vec![],
            uses: BTreeMap::from([(AuthorityType::Host, Uses::ALL)]),
        };
        self.admin_asks(
            Order::CreateToken {
                hash,
                grant,
                uses: 1,
                ttl_ms: 60_000,
            },
            None,
        )
        .await;
        let join = Join {
            token: hash,
            hostname: name.parse().unwrap(),
            key: self.request(),
            rejoin: None,
        };
        match self
            .ask(Principal::Anonymous, Order::Join(join), None)
            .await
            .unwrap()
        {
            Answer::Joined { node, .. } => node,
            other => panic!("a join is answered with a node, not {other:?}"),
        }
    }

    pub(crate) async fn renew(&self, node: NodeId, usage: LeafUse) {
        let order = self.certificate_order(usage);
        self.ask(Principal::Node(node), order, None).await.unwrap();
    }

    fn certificate_order(&self, usage: LeafUse) -> Order {
        Order::RequestCertificate {
            authority_type: AuthorityType::Host,
            usage,
            issuer: None,
            key: self.request(),
            form: KeyKind::Tls,
        }
    }

    /// A node asks for two certificates under one id: the second one is refused, and that is on record.
    async fn reuse_an_id(&self, node: NodeId) {
        let first = self.command(Principal::Node(node), self.certificate_order(LeafUse::Client));
        let second = Command {
            digest: domain::BodyDigest([7; 32]),
            order: self.certificate_order(LeafUse::Client),
            ..first.clone()
        };
        self.executor.execute(first).await.unwrap();
        self.sign().await;
        self.executor.execute(second).await.unwrap_err();
    }

    /// The node reports the row as it should be, with the newest certificate that it may present.
    pub(crate) async fn report(&self, node: NodeId, seq: u64) {
        let (report, seen) = self.fold.read(|state| {
            let of = &state.types[&AuthorityType::Host];
            let held = state.held[&Principal::Node(node)].iter().rev();
            let client = held
                .filter_map(|d| Some((*d, state.certificates.get(d)?)))
                .find(|(_, c)| c.usage.client() && Some(c.issuer) == of.client_issuer());
            let (digest, certificate) = client.unwrap_or_else(|| {
                let digest = *state.held[&Principal::Node(node)].last().unwrap();
                (digest, &state.certificates[&digest])
            });
            let facts = TypeFacts {
                revision: of.row_position,
                trusted: of.trusted(),
                client_issuer: Some(certificate.issuer),
                server_issuer: of.server_issuer(),
                client_not_after: Some(certificate.not_after),
                ..TypeFacts::default()
            };
            let report = FactReport {
                boot: BootId(uuid::Uuid::from_u128(7)),
                seq,
                version: "0.1.0".into(),
                addr: None,
                authorities: BTreeMap::from([(AuthorityType::Host, Box::new(facts))]),
                failure: None,
                unsynced: false,
                labels: BTreeMap::new(),
            };
            (
                report,
                Seen {
                    certificate: digest,
                    issuer: certificate.issuer,
                    from: None,
                },
            )
        });
        self.ask(Principal::Node(node), Order::Report { node, report, seen }, None)
            .await
            .unwrap();
    }

    pub(crate) async fn rotate(
        &self,
        authority_type: AuthorityType,
        target: Phase,
        force: Option<&str>,
    ) -> Result<Answer, execution::ExecuteError> {
        let rotate = Rotate {
            authority_type,
            target: Some(target),
            manual: true,
            grace_period_ms: None,
            on_lagging: None,
            force: force.is_some(),
            expects: None,
        };
        self.ask(
            Principal::User("admin".parse().unwrap()),
            Order::Rotate(rotate),
            force,
        )
        .await
    }

    async fn refuse_step(&self, target: Phase) {
        assert!(self.rotate(AuthorityType::Host, target, None).await.is_err());
    }

    async fn add_user(&self, name: &str, role: RoleName) {
        let order = Order::AddUser {
            user: name.parse().unwrap(),
            roles: [role].into(),
            key: self.request(),
            logins: vec![],
        };
        self.admin_asks(order, None).await;
    }

    pub(crate) async fn consumer(&self, name: &str) {
        let consumer = name.parse().unwrap();
        let (owner, contact) = ("data-team".to_owned(), "data@acme.example".to_owned());
        let order = Order::AddConsumer {
            authority_type: AuthorityType::Db,
            consumer,
            owner,
            contact,
            probe: None,
        };
        self.admin_asks(order, None).await;
    }

    async fn settle(&self, authority_type: AuthorityType) {
        let ended = self
            .fold
            .read(|state| state.types[&authority_type].ended.as_ref().map(|ended| ended.id));
        let order = Order::Settle {
            authority_type,
            rotation: ended.unwrap(),
        };
        self.ask(Principal::System(SystemActor::Clock), order, None)
            .await
            .unwrap();
    }

    /// A semi-automatic rotation whose key comes late, and whose consumer does not attest: its first step is held
    /// until the consumer is withdrawn, and then goes on by itself.
    async fn automatic(&self, authority_type: AuthorityType) {
        let rotate = Rotate {
            authority_type,
            target: None,
            manual: false,
            grace_period_ms: Some(30_000),
            on_lagging: None,
            force: false,
            expects: None,
        };
        let admin = Principal::User("admin".parse().unwrap());
        let begin = self.command(admin, Order::Rotate(rotate));
        self.executor.execute(begin).await.unwrap();
        self.clock.fetch_add(11_000, Ordering::SeqCst);
        self.due_step(authority_type).await;
        self.sign().await;
        let consumer = "etl".parse().unwrap();
        self.admin_asks(
            Order::WithdrawConsumer {
                authority_type,
                consumer,
            },
            None,
        )
        .await;
        self.due_step(authority_type).await;
        self.sign().await;
    }

    async fn due_step(&self, authority_type: AuthorityType) {
        let order = Order::ScheduledStep {
            authority_type,
            expects: self.fold.read(|state| state.types[&authority_type].expectation()),
            uptime_since_step_ms: 0,
            uptime_ms: 0,
            seen: None,
        };
        let clock = Principal::System(SystemActor::Clock);
        self.executor
            .execute(self.executor.own_command(clock, order))
            .await
            .unwrap();
    }
}
