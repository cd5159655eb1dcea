//! The world of the model: the log's state, one gateway, a signer, and a few agents.
//!
//! Everything that the product decides is decided by the product's own functions. Identities are made from who asks
//! and how often, so that two orders of independent steps end in the same state.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    Answer, AuthorityType, BodyDigest, Command, CommandId, Event, EventId, Fact, Given, Header, MemberId,
    Order, Position, Principal, Refusal, Serial, SpkiPin, Timestamp,
    access::{Grant, Uses},
    authority::{AuthorityKey, KeyKind},
    command::{Genesis, Join, KeyRequest, Rotate, Settings},
    decide,
    duty::{Duty, bundle_content, owed, void_authorizations},
    event::{
        AuthorityActivated, AuthorityBundleSigned, AuthorityDestroyed, AuthorityKeyGenerated,
        AuthorityRetired, AuthorizationGranted, CertificateIssued, CertificateRevoked, LeafUse, Occasion,
    },
    evolve::apply,
    id::{CertDigest, SystemActor, TokenHash},
    phase::Phase,
    schedule,
    state::ClusterState,
    trust::{Bundle, SignedBundle},
};

use crate::{agent::Agent, gateway::Gateway};

mod duties;

/// The authority that rotates.
pub const HOST: AuthorityType = AuthorityType::Host;
/// The moment at which the model begins; time stands still but for the steps that let it pass.
const START: i64 = 1_800_000_000_000;
/// After everything.
const FAR: Timestamp = Timestamp(START + 10 * 365 * 24 * 3_600_000);

/// How often each trouble may still come: what makes the state space finite.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Left {
    /// Rotations that may begin.
    pub rotations: u8,
    /// Ways back that may be taken.
    pub rollbacks: u8,
    /// Steps by force.
    pub forces: u8,
    /// Exclusions.
    pub exclusions: u8,
    /// Nodes that go to sleep (or die) and come back later.
    pub sleeps: u8,
    /// Backups of a node's disk that are put back.
    pub restores: u8,
    /// Renewals in the middle.
    pub renewals: u8,
    /// Proofs that fail.
    pub failures: u8,
    /// Starts of the gateway.
    pub restarts: u8,
    /// Gateways that a fresh orchestrator has not heard.
    pub losses: u8,
    /// Jumps of ten minutes, after which an earlier certificate is superseded.
    pub waits: u8,
}

impl Left {
    /// Nothing happens.
    pub const NONE: Self = Self {
        rotations: 0,
        rollbacks: 0,
        forces: 0,
        exclusions: 0,
        sleeps: 0,
        restores: 0,
        renewals: 0,
        failures: 0,
        restarts: 0,
        losses: 0,
        waits: 0,
    };
}

/// A key that the signer has made and not recorded yet.
pub type Making = Option<AuthorityKeyGenerated>;

/// The whole world.
#[derive(Clone, PartialEq, Debug)]
pub struct World {
    /// The fold of the log.
    pub log: ClusterState,
    /// The clock.
    pub now: Timestamp,
    /// The newest signed bundle of each type.
    pub bundles: BTreeMap<AuthorityType, Bundle>,
    /// The keys in the signer's store.
    pub keys: BTreeSet<SpkiPin>,
    /// A key under way.
    pub making: Making,
    /// The only gateway.
    pub gateway: Gateway,
    /// The nodes.
    pub agents: Vec<Agent>,
    /// What may still happen.
    pub left: Left,
    /// How many identities each asked for.
    pub asked: BTreeMap<Principal, u64>,
    /// What does not hold, if something does not.
    pub wrong: Option<String>,
}

impl World {
    /// A cluster in which every node has joined, is proven, and has reported `standby`.
    pub fn settled(agents: usize, left: Left) -> Self {
        let mut world = Self {
            log: ClusterState::default(),
            now: Timestamp(START),
            bundles: BTreeMap::new(),
            keys: BTreeSet::new(),
            making: None,
            gateway: Gateway::new(),
            agents: vec![],
            left,
            asked: BTreeMap::new(),
            wrong: None,
        };
        world.begin();
        for i in 0..agents {
            world.agents.push(Agent::new(i));
            world.let_join(i);
        }
        world.run_to_rest();
        for agent in &mut world.agents {
            agent.is_new = false;
        }
        world.forget();
        world
    }

    fn begin(&mut self) {
        let mut keys = vec![];
        for (authority_type, name) in [(HOST, "authority"), (AuthorityType::User, "authority of users")] {
            let key = self.key_of_generation(name, 1, None);
            self.keys.insert(key.id);
            let activated = AuthorityActivated {
                authority_type,
                kind: KeyKind::Tls,
                authority: key.id,
            };
            keys.push((AuthorityKeyGenerated { authority_type, key }, activated));
        }
        let issuer = keys[0].0.key.id;
        let gateway = self.gateway.id;
        let granted = self.first_authorization(Principal::Gateway(gateway), issuer);
        let issued = issue(&granted);
        let genesis = Genesis {
            cluster: "model.cluster".parse().expect("it is a DNS name"),
            settings: Settings {
                allow_loopback: true,
                ..Settings::default()
            },
            bundle_key: pin("bundle", 0),
            bundle_public_key: String::new(),
            keys,
            admin: "admin".parse().expect("it is a user name"),
            gateway: MemberId(gateway.0),
            certificates: vec![(granted, issued)],
        };
        let by = Principal::System(SystemActor::Host);
        self.order(by, Order::Genesis(Box::new(genesis)))
            .expect("an empty log takes the genesis");
        self.tidy();
        self.sign_bundle(HOST);
        self.sign_bundle(AuthorityType::User);
        self.gateway_holds();
        self.gateway_reports();
        self.gateway_begins();
    }

    fn first_authorization(&mut self, holder: Principal, issuer: SpkiPin) -> AuthorizationGranted {
        let cluster = "model.cluster".parse().expect("it is a DNS name");
        AuthorizationGranted {
            authorization: domain::AuthorizationId(uuid("first", 0)),
            uri: domain::identity::uri(&cluster, &holder),
            holder,
            authority_type: HOST,
            issuer,
            usage: LeafUse::Both,
            occasion: Occasion::Genesis,
            spki: pin("first", 0),
            public_key: String::new(),
            common_name: String::new(),
            names: vec![],
            addresses: vec![],
            serial: Serial::of_random([7; 16]),
            not_before: self.now,
            not_after: self.now.plus_ms(self.log.settings().node_ttl_ms),
            rotation: None,
            phase: Phase::Standby,
            form: domain::event::Form::Tls,
        }
    }

    fn let_join(&mut self, i: usize) {
        let hash = TokenHash(bytes("token", i as u64));
        let hostname = self.agents[i].hostname.clone();
        let grant = Grant {
            names: vec![hostname.to_string().parse().expect("a name is a pattern")],
            addresses: vec![],
            uses: [(HOST, Uses::ALL)].into(),
        };
        let make = Order::CreateToken {
            hash,
            grant,
            uses: 1,
            ttl_ms: 3_600_000,
        };
        self.order(admin(), make).expect("an administrator makes tokens");
        let key = self.key_of(&Principal::Anonymous);
        let join = Order::Join(Join {
            token: hash,
            hostname,
            key,
            rejoin: None,
        });
        let answer = self.order(Principal::Anonymous, join);
        let Ok(Answer::Joined { node, authorization }) = answer else {
            panic!("a fresh token lets a node in: {answer:?}");
        };
        self.sign(authorization);
        self.agent_joined(i, node, authorization);
    }

    /// Decides a command and appends what follows.
    pub fn order(&mut self, by: Principal, order: Order) -> Result<Answer, Refusal> {
        let n = self.asked.get(&by).copied().unwrap_or_default();
        let who = by.to_string();
        let mut id = uuid(&who, n).into_bytes();
        id[..6].copy_from_slice(&self.now.0.to_be_bytes()[2..]);
        (id[6], id[8]) = ((id[6] & 0x0f) | 0x70, (id[8] & 0x3f) | 0x80);
        let command = Command {
            id: CommandId(domain_uuid(id)),
            principal: by.clone(),
            credential: None,
            digest: BodyDigest([0; 32]),
            reason: Some("the model asks".into()),
            order,
        };
        // A rotation is named by how many there have been, whatever else was asked for.
        let (who, n) = match &command.order {
            Order::Rotate(_) => ("rotation".to_owned(), u64::from(self.left.rotations)),
            _ => (who, n),
        };
        let given = Given {
            now: self.log.now(self.now),
            fresh: std::array::from_fn(|k| uuid(&format!("{who}/{k}"), n)),
            serials: std::array::from_fn(|k| serial(&format!("{who}/{k}"), n)),
            clock_suspect: false,
            sha256: |of| fnv(of),
        };
        let decision = decide(&self.log, &command, &given)?;
        if !decision.facts.is_empty() {
            *self.asked.entry(by.clone()).or_default() += 1;
            self.append(by, decision.facts);
        }
        Ok(decision.answer)
    }

    /// Appends facts, and looks at each phase that is entered.
    pub fn append(&mut self, by: Principal, facts: Vec<Fact>) {
        for fact in facts {
            let header = Header {
                position: Position(self.log.position.0 + 1),
                id: EventId(uuid("event", 0)),
                time: self.log.now(self.now),
                actor: by.clone(),
                credential: None,
                // Without an id nothing is remembered of it: the answers of then are no part of this model.
                command: None,
                reason: None,
                decided_at: None,
            };
            if let Fact::RotationPhaseEntered(entered) = &fact {
                let entered = entered.clone();
                self.check_step(&entered);
            }
            apply(&mut self.log, &Event { header, fact });
        }
    }

    pub fn say_wrong(&mut self, what: impl FnOnce() -> String) {
        if self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }

    /// What nobody asks for again: the model stays small.
    pub fn forget(&mut self) {
        self.log.settled_authorizations.clear();
        self.log.settled_order.clear();
        self.log.refusals.clear();
    }

    /// A key that nobody has asked for before.
    pub fn key_of(&self, holder: &Principal) -> KeyRequest {
        let n = self.asked.get(holder).copied().unwrap_or_default();
        KeyRequest {
            spki: pin(&format!("key of {holder}"), n),
            public_key: String::new(),
        }
    }
}

pub fn admin() -> Principal {
    Principal::User("admin".parse().expect("it is a user name"))
}

pub fn rotate(phase: Phase, force: bool) -> Order {
    Order::Rotate(Rotate {
        authority_type: HOST,
        target: Some(phase),
        manual: true,
        grace_period_ms: None,
        on_lagging: None,
        force,
        expects: None,
    })
}

/// The certificate of an authorisation.
fn issue(granted: &AuthorizationGranted) -> CertificateIssued {
    granted.issued(CertDigest(granted.spki.0), String::new())
}

pub fn pin(of: &str, n: u64) -> SpkiPin {
    SpkiPin(bytes(of, n))
}

pub fn uuid(of: &str, n: u64) -> uuid::Uuid {
    let bytes: [u8; 32] = bytes(of, n);
    domain_uuid(bytes[..16].try_into().expect("sixteen bytes"))
}

fn domain_uuid(bytes: [u8; 16]) -> uuid::Uuid {
    uuid::Uuid::from_bytes(bytes)
}

fn serial(of: &str, n: u64) -> [u8; 16] {
    *uuid(of, n).as_bytes()
}

fn bytes(of: &str, n: u64) -> [u8; 32] {
    fnv(format!("{of} {n}").as_bytes())
}

/// A digest that is good enough for a world without adversaries (FNV-1a, four times).
fn fnv(of: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    for (i, chunk) in out.chunks_mut(8).enumerate() {
        let hash = of.iter().fold(0xcbf2_9ce4_8422_2325 ^ i as u64, |h: u64, b| {
            (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3)
        });
        // A finaliser: short texts that differ in one letter differ in every byte.
        let hash = (hash ^ (hash >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        chunk.copy_from_slice(&hash.to_le_bytes());
    }
    out
}
