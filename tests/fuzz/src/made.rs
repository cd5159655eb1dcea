//! What is made once in a process: keys, certificates, and a small cluster in several states of a rotation.
//!
//! Keys are fresh in each process, so that none lies in the repository; inputs name parts of documents and not their
//! bytes, and so mean the same in each.

use std::{collections::BTreeMap, sync::OnceLock};

use domain::{
    Answer, AuthorityType, BodyDigest, ClusterName, ClusterState, Command, CommandId, Decision, Event,
    EventId, Fact, Given, Header, MemberId, NodeId, Order, Phase, Position, Principal, Refusal, Serial,
    SystemActor, Timestamp, TokenHash,
    access::{Grant, Uses},
    authority::KeyKind,
    command::{Genesis, Join, Rotate, Settings},
    decide,
    event::{
        AuthorityActivated, AuthorityKeyGenerated, AuthorizationGranted, CertificateIssued, LeafUse, Occasion,
    },
    evolve::apply,
    time::{DAY_MS, HOUR_MS, MINUTE_MS},
};
use pki::{Blueprint, CaCert, KeyPair, authority, issue};
use uuid::Uuid;

/// The time of every input: 2026-09-20T01:44:36Z.
pub const NOW: Timestamp = Timestamp(1_789_868_676_000);
/// Stands wherever a secret stands: a token, a key, a setting.
pub const SECRET: &str = "hunter2-hunter2-hunter2";
/// The first administrator.
pub const ADMIN: &str = "root";

/// All of it.
pub struct Made {
    /// `acme.cluster`.
    pub cluster: ClusterName,
    /// The host authority.
    pub host: (KeyPair, CaCert),
    /// The next one, of the rotation.
    pub next: (KeyPair, CaCert),
    /// The user authority.
    pub user: (KeyPair, CaCert),
    /// What the cluster began with.
    pub genesis: Genesis,
    /// The key that signs bundles.
    pub bundle_key: KeyPair,
    /// The key of the one node, and that of whoever asks for a certificate.
    pub node_key: KeyPair,
    /// The node.
    pub node: NodeId,
    /// Its certificate, DER.
    pub leaf: Vec<u8>,
    /// A request of a new key, PEM.
    pub request: String,
    /// No cluster; a node that joined; each phase of a rotation; a rollback.
    pub states: Vec<ClusterState>,
}

/// What this process made.
pub fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(make)
}

/// What `decide` is given, the same each time.
pub fn given() -> Given {
    Given {
        now: NOW,
        fresh: std::array::from_fn(|n| id(0xf0 + n as u128)),
        serials: [[1; 16], [2; 16]],
        clock_suspect: false,
        sha256: execution::sha256,
    }
}

/// A UUIDv7 of this moment.
pub fn id(n: u128) -> Uuid {
    let mut random = [0; 10];
    random.copy_from_slice(&n.to_be_bytes()[6..]);
    uuid::Builder::from_unix_timestamp_millis(NOW.0 as u64, &random).into_uuid()
}

/// A command of somebody.
pub fn command(principal: Principal, order: Order) -> Command {
    Command {
        id: CommandId(id(0xc0)),
        principal,
        credential: None,
        digest: BodyDigest([1; 32]),
        reason: Some("a test".into()),
        order,
    }
}

/// The event of a fact behind what a state holds.
pub fn event(state: &ClusterState, actor: Principal, fact: Fact) -> Event {
    let position = Position(state.position.0.saturating_add(1));
    let header = Header {
        position,
        id: EventId(id(u128::from(position.0))),
        time: NOW,
        actor,
        credential: None,
        command: None,
        reason: None,
        decided_at: Some(state.position),
    };
    Event { header, fact }
}

/// The administrator.
pub fn admin() -> Principal {
    Principal::User(ADMIN.parse().expect("a user name"))
}

/// The gateway.
pub fn gateway() -> MemberId {
    MemberId(id(0x6a7e))
}

fn make() -> Made {
    let cluster: ClusterName = "acme.cluster".parse().expect("a name");
    let (host, next) = (
        ca(&cluster, AuthorityType::Host, 1),
        ca(&cluster, AuthorityType::Host, 2),
    );
    let user = ca(&cluster, AuthorityType::User, 1);
    let (bundle_key, node_key) = (KeyPair::generate(), KeyPair::generate());
    let mut log = Log::default();
    log.states.push(log.state.clone());
    let genesis = genesis(&cluster, &host, &user, &bundle_key);
    log.ask(
        Principal::System(SystemActor::Host),
        Order::Genesis(Box::new(genesis.clone())),
    )
    .expect("a cluster begins");
    let node = log.join(&node_key);
    let leaf = log.sign(&cluster, &host);
    log.states.push(log.state.clone());
    log.enter(Phase::Init);
    let rotation = log.state.types[&AuthorityType::Host].rotation_id();
    let key = next.1.authority_key(2, "software", rotation, Position(0));
    log.append(
        Principal::System(SystemActor::Signer),
        AuthorityKeyGenerated {
            authority_type: AuthorityType::Host,
            key,
        }
        .into(),
    );
    log.states.push(log.state.clone());
    for phase in [Phase::UpdateClients, Phase::UpdateServers, Phase::Rollback] {
        log.enter(phase);
        log.states.push(log.state.clone());
    }
    Made {
        cluster,
        host,
        next,
        user,
        genesis,
        bundle_key,
        node_key,
        node,
        leaf,
        request: pki::csr::make_pem(&KeyPair::generate()),
        states: log.states,
    }
}

fn ca(cluster: &ClusterName, authority_type: AuthorityType, generation: u32) -> (KeyPair, CaCert) {
    let key = KeyPair::generate();
    let blueprint = Blueprint {
        cluster,
        authority_type,
        generation,
        serial: Serial::of_random([generation as u8; 16]),
        now: NOW,
    };
    let ca = authority::make(&blueprint, &key).expect("an authority is made");
    (key, ca)
}

fn genesis(
    cluster: &ClusterName,
    host: &(KeyPair, CaCert),
    user: &(KeyPair, CaCert),
    bundle_key: &KeyPair,
) -> Genesis {
    let first = |authority_type, ca: &CaCert| {
        let key = ca.authority_key(1, "software", None, Position(0));
        let activated = AuthorityActivated {
            authority_type,
            kind: KeyKind::Tls,
            authority: key.id,
        };
        (AuthorityKeyGenerated { authority_type, key }, activated)
    };
    let certificate = |n, holder: Principal, authority_type, (key, ca): &(KeyPair, CaCert), usage| {
        let asked = KeyPair::generate();
        let granted = AuthorizationGranted {
            authorization: domain::AuthorizationId(id(n)),
            uri: holder.uri(cluster),
            holder,
            authority_type,
            issuer: ca.pin(),
            usage,
            occasion: Occasion::Genesis,
            spki: asked.spki_pin(),
            public_key: asked.public().to_base64(),
            common_name: "first".into(),
            names: vec![],
            addresses: vec![],
            serial: Serial::of_random([n as u8; 16]),
            not_before: NOW.minus_ms(5 * MINUTE_MS),
            not_after: NOW.plus_ms(12 * HOUR_MS),
            rotation: None,
            phase: Phase::Standby,
            form: domain::event::Form::Tls,
        };
        let issued = issued(&granted, cluster, key, ca);
        (granted, issued)
    };
    Genesis {
        cluster: cluster.clone(),
        settings: Settings::default(),
        bundle_key: bundle_key.spki_pin(),
        bundle_public_key: bundle_key.public().to_base64(),
        keys: vec![
            first(AuthorityType::Host, &host.1),
            first(AuthorityType::User, &user.1),
        ],
        admin: ADMIN.parse().expect("a user name"),
        gateway: gateway(),
        certificates: vec![
            certificate(2, admin(), AuthorityType::User, user, LeafUse::Client),
            certificate(
                3,
                Principal::Gateway(gateway()),
                AuthorityType::Host,
                host,
                LeafUse::Both,
            ),
        ],
    }
}

fn issued(
    granted: &AuthorizationGranted,
    cluster: &ClusterName,
    key: &KeyPair,
    ca: &CaCert,
) -> CertificateIssued {
    let leaf = issue(granted, cluster, ca, key).expect("what was authorised is signed");
    granted.issued(leaf.digest, leaf.to_base64())
}

/// The cluster while it is made.
#[derive(Default)]
struct Log {
    state: ClusterState,
    states: Vec<ClusterState>,
    asked: u128,
}

impl Log {
    fn ask(&mut self, principal: Principal, order: Order) -> Result<Answer, Refusal> {
        self.asked += 1;
        let command = Command {
            id: CommandId(id(0x1000 + self.asked)),
            ..command(principal.clone(), order)
        };
        let given = Given {
            fresh: std::array::from_fn(|n| id(0x2000 + 16 * self.asked + n as u128)),
            serials: [[self.asked as u8; 16], [0x80 | self.asked as u8; 16]],
            ..given()
        };
        let Decision { facts, answer, .. } = decide(&self.state, &command, &given)?;
        facts
            .into_iter()
            .for_each(|fact| self.append(principal.clone(), fact));
        Ok(answer)
    }

    fn append(&mut self, actor: Principal, fact: Fact) {
        let event = event(&self.state, actor, fact);
        apply(&mut self.state, &event);
    }

    fn join(&mut self, key: &KeyPair) -> NodeId {
        let hash = TokenHash(execution::sha256(SECRET.as_bytes()));
        let grant = Grant {
            names: vec!["*.example.com".parse().expect("a pattern")],
            addresses: vec![],
            uses: BTreeMap::from([(AuthorityType::Host, Uses::ALL)]),
        };
        let token = Order::CreateToken {
            hash,
            grant,
            uses: 100,
            ttl_ms: DAY_MS,
        };
        self.ask(admin(), token).expect("a token is made");
        let join = Join {
            token: hash,
            hostname: "n1.example.com".parse().expect("a name"),
            key: key.key_request(),
            rejoin: None,
        };
        match self.ask(Principal::Anonymous, Order::Join(join)) {
            Ok(Answer::Joined { node, .. }) => node,
            other => panic!("{other:?} is no answer to a good join"),
        }
    }

    /// Signs the one certificate that is authorised.
    fn sign(&mut self, cluster: &ClusterName, (key, ca): &(KeyPair, CaCert)) -> Vec<u8> {
        let pending = self
            .state
            .pending
            .values()
            .next()
            .expect("a join authorises a certificate");
        let granted = pending.granted.clone();
        let fact = issued(&granted, cluster, key, ca);
        let der = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &fact.certificate);
        self.append(Principal::System(SystemActor::Signer), fact.into());
        der.expect("an event carries base64")
    }

    fn enter(&mut self, phase: Phase) {
        let order = Order::Rotate(Rotate {
            authority_type: AuthorityType::Host,
            target: Some(phase),
            manual: true,
            grace_period_ms: None,
            on_lagging: None,
            force: phase != Phase::Init && phase != Phase::Rollback,
            expects: None,
        });
        self.ask(admin(), order)
            .expect("an administrator goes on by force");
    }
}
