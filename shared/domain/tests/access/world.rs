//! A small cluster in memory: a log, its fold, a clock that only tests move, and a signer that signs at once.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    access::{Grant, NamePattern, RoleName, Uses},
    authority::{AuthorityType, KeyKind},
    command::{Answer, Command, Given, Join, KeyRequest, Order, Rejoin, Rotate, Settings},
    decide::{Decision, decide},
    event::{AuthorityKeyGenerated, AuthorizationGranted, CertificateIssued, Event, Fact, Header, LeafUse},
    evolve::apply,
    fact::{FactReport, Seen, TypeFacts},
    gate::{self, Outline},
    id::*,
    phase::Phase,
    refusal::{Code, Refusal},
    state::{Certificate, ClusterState},
    time::{DAY_MS, HOUR_MS, Timestamp},
};
use uuid::Uuid;

pub(crate) const START: Timestamp = Timestamp(1_789_868_676_000);
pub(crate) const ADMIN: &str = "root";

mod genesis;

/// A cluster with its log.
pub(crate) struct World {
    pub(crate) state: ClusterState,
    pub(crate) log: Vec<Event>,
    pub(crate) now: Timestamp,
    pub(crate) gateway: MemberId,
    /// The certificate that is shown with what is asked.
    pub(crate) shown: Option<CertDigest>,
    counter: u64,
}

impl World {
    /// A cluster `acme.cluster` with keys for `host`, `user` and `db`, an administrator and a gateway.
    pub(crate) fn new() -> Self {
        Self::with(Settings::default())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        let mut world = Self::empty();
        let genesis = world.genesis(settings);
        world.ask(host(), Order::Genesis(Box::new(genesis))).unwrap();
        world
    }

    /// The same world again, to go another way in.
    pub(crate) fn copy(&self) -> Self {
        Self {
            state: self.state.clone(),
            log: self.log.clone(),
            now: self.now,
            gateway: self.gateway,
            shown: self.shown,
            counter: self.counter,
        }
    }

    /// A log without a cluster.
    pub(crate) fn empty() -> Self {
        let gateway = MemberId(Uuid::from_u128(0x6a7e));
        Self {
            state: ClusterState::default(),
            log: vec![],
            now: START,
            gateway,
            shown: None,
            counter: 0,
        }
    }

    fn issued(&mut self, f: &AuthorizationGranted) -> CertificateIssued {
        f.issued(CertDigest(self.pin().0), "leaf".into())
    }

    /// Decides an order and appends what it gives.
    pub(crate) fn ask(&mut self, principal: Principal, order: Order) -> Result<Answer, Refusal> {
        self.decide(principal, order).map(|d| d.answer)
    }

    pub(crate) fn decide(&mut self, principal: Principal, order: Order) -> Result<Decision, Refusal> {
        self.decide_because(principal, order, Some("a test"))
    }

    pub(crate) fn decide_because(
        &mut self,
        principal: Principal,
        order: Order,
        reason: Option<&str>,
    ) -> Result<Decision, Refusal> {
        let command = Command {
            id: CommandId(self.uuid()),
            principal: principal.clone(),
            credential: self.shown.map(domain::Credential::Certificate),
            digest: BodyDigest([1; 32]),
            reason: reason.map(Into::into),
            order,
        };
        let given = Given {
            now: self.now,
            fresh: std::array::from_fn(|_| self.uuid()),
            serials: std::array::from_fn(|_| self.serial()),
            clock_suspect: false,
            sha256: |_| [0; 32],
        };
        let decision = decide(&self.state, &command, &given);
        self.decide_again(&command, &given, &decision);
        let decision = decision?;
        for fact in decision.facts.clone() {
            self.append(principal.clone(), fact);
        }
        Ok(decision)
    }

    pub(crate) fn refused(&mut self, principal: Principal, order: Order) -> Code {
        let events = self.log.len();
        let refusal = self.decide(principal, order).expect_err("it should be refused");
        assert_eq!(self.log.len(), events, "a refusal changes nothing");
        assert!(refusal.text.len() > 10, "{refusal} says what to do");
        refusal.code
    }

    pub(crate) fn append(&mut self, actor: Principal, fact: Fact) {
        let header = Header {
            position: Position(self.log.len() as u64 + 1),
            id: EventId(self.uuid()),
            time: self.now,
            actor,
            credential: self.shown.map(domain::Credential::Certificate),
            command: None,
            reason: None,
            decided_at: Some(self.state.position),
        };
        let event = Event { header, fact };
        apply(&mut self.state, &event);
        assert_eq!(domain::standing::miscounted(&self.state), None, "{event:?}");
        self.outlines_are_right();
        self.log.push(event);
    }

    /// Every outline says what its gate says.
    fn outlines_are_right(&self) {
        for (t, to) in self
            .state
            .types
            .keys()
            .flat_map(|t| Phase::ALL.map(|to| (*t, to)))
        {
            let gate = gate::evaluate(&self.state, t, to, self.now);
            let expected = Outline {
                required: gate.required,
                reached: gate.reached,
                excluded: gate.excluded,
                refused: gate.check(false).err().map(|refusal| refusal.code),
                keys_missing: gate.keys_missing,
                consumers: gate.consumers,
                time_condition: gate.time_condition,
            };
            assert_eq!(
                gate::outline(&self.state, t, to, self.now),
                expected,
                "{t} into {to}"
            );
        }
    }

    /// The signer signs all that waits.
    pub(crate) fn sign(&mut self) {
        let pending: Vec<_> = self.state.pending.values().map(|p| p.granted.clone()).collect();
        for granted in pending {
            self.sign_one(&granted);
        }
    }

    /// It signs one of them.
    pub(crate) fn sign_one(&mut self, granted: &AuthorizationGranted) {
        let issued = self.issued(granted);
        self.append(Principal::System(SystemActor::Signer), issued.into());
    }

    /// The signer signs the bundle of the current row, so that it can be handed out.
    pub(crate) fn sign_bundle(&mut self, authority_type: AuthorityType) {
        let of = &self.state.types[&authority_type];
        let fact = domain::event::AuthorityBundleSigned {
            revocation_lists: of.living().map(|key| (key.id, String::new())).collect(),
            authority_type,
            revision: of.bundle_due,
            phase: of.phase,
            expires: self.now.plus_ms(DAY_MS),
            bundle: domain::trust::SignedBundle {
                document: "bundle".into(),
                signature: "signature".into(),
                key: pin(0xb0b),
                public_key: "bundle".into(),
                replacements: vec![],
            },
        };
        self.append(Principal::System(SystemActor::Signer), fact.into());
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        self.counter += 1;
        let mut random = [0; 10];
        random[2..].copy_from_slice(&self.counter.to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(self.now.0 as u64, &random).into_uuid()
    }

    pub(crate) fn pin(&mut self) -> SpkiPin {
        self.counter += 1;
        pin(self.counter)
    }

    fn serial(&mut self) -> [u8; 16] {
        self.counter += 1;
        u128::from(self.counter).to_be_bytes()
    }

    pub(crate) fn key(&mut self) -> KeyRequest {
        KeyRequest {
            spki: self.pin(),
            public_key: "key".into(),
        }
    }

    /// The gateway begins to serve under these names, holding the current row.
    pub(crate) fn start_gateway(&mut self, names: &[&str], addresses: &[&str]) {
        let order = self.gateway_start(1, names, addresses);
        self.ask(Principal::Gateway(self.gateway), order).unwrap();
    }

    pub(crate) fn gateway_start(&self, boot: u128, names: &[&str], addresses: &[&str]) -> Order {
        Order::StartMember {
            member: self.gateway,
            boot: BootId(Uuid::from_u128(boot)),
            seq: 1,
            service: "gateway".into(),
            names: names.iter().map(|n| n.parse().unwrap()).collect(),
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            facts: self.report_of(boot, 1).authorities,
        }
    }

    /// A token for these names; its digest.
    pub(crate) fn token(&mut self, names: &[&str], uses: u32) -> TokenHash {
        self.token_for(HOUR_MS, grant(names), uses)
    }

    pub(crate) fn token_for(&mut self, ttl_ms: u64, grant: Grant, uses: u32) -> TokenHash {
        let hash = TokenHash(self.pin().0);
        let order = Order::CreateToken {
            hash,
            grant,
            uses,
            ttl_ms,
        };
        self.ask(admin(), order).unwrap();
        hash
    }

    /// A node that joined by a token of its own, with its first certificate.
    pub(crate) fn node(&mut self, name: &str) -> NodeId {
        let token = self.token(&[name], 1);
        let key = self.key();
        let node = self.joined(token, name, key, None).unwrap();
        self.sign();
        node
    }

    /// The same, with an address beside its name.
    pub(crate) fn node_at(&mut self, name: &str, address: &str) -> NodeId {
        let grant = Grant {
            addresses: vec![address.parse().unwrap()],
            ..grant(&[name])
        };
        let (token, key) = (self.token_for(HOUR_MS, grant, 1), self.key());
        let node = self.joined(token, name, key, None).unwrap();
        self.sign();
        node
    }

    pub(crate) fn join_order(token: TokenHash, name: &str, key: KeyRequest, rejoin: Option<Rejoin>) -> Order {
        Order::Join(Join {
            token,
            hostname: name.parse().unwrap(),
            key,
            rejoin,
        })
    }

    pub(crate) fn joined(
        &mut self,
        token: TokenHash,
        name: &str,
        key: KeyRequest,
        rejoin: Option<Rejoin>,
    ) -> Result<NodeId, Refusal> {
        match self.ask(Principal::Anonymous, Self::join_order(token, name, key, rejoin))? {
            Answer::Joined { node, .. } => Ok(node),
            other => panic!("{other:?} is no answer to a join"),
        }
    }

    /// A node asks for a `host` certificate with a new key.
    pub(crate) fn request(
        &mut self,
        node: NodeId,
        usage: LeafUse,
        issuer: Option<SpkiPin>,
    ) -> Result<Answer, Refusal> {
        let (authority_type, key) = (AuthorityType::Host, self.key());
        self.ask(
            Principal::Node(node),
            Order::RequestCertificate {
                authority_type,
                usage,
                issuer,
                key,
                form: KeyKind::Tls,
            },
        )
    }

    /// A node asks for a new certificate in both roles, and gets it.
    pub(crate) fn renew(&mut self, node: NodeId) {
        self.request(node, LeafUse::Both, None).unwrap();
        self.sign();
    }

    /// The newest certificate of a holder, with its digest.
    pub(crate) fn newest(&self, holder: &Principal) -> (CertDigest, Certificate) {
        let digest = *self.state.held[holder].last().unwrap();
        (digest, self.state.certificates[&digest].clone())
    }

    /// The facts of the last authorisation.
    pub(crate) fn last_granted(&self) -> AuthorizationGranted {
        self.log
            .iter()
            .rev()
            .find_map(|e| match &e.fact {
                Fact::AuthorizationGranted(f) => Some(f.clone()),
                _ => None,
            })
            .unwrap()
    }

    /// Enters a phase over whoever lags; the new key is there at once.
    pub(crate) fn enter(&mut self, authority_type: AuthorityType, phase: Phase) {
        let order = Order::Rotate(Rotate {
            authority_type,
            target: Some(phase),
            manual: true,
            grace_period_ms: None,
            on_lagging: None,
            force: phase != Phase::Init && phase != Phase::Rollback,
            expects: None,
        });
        self.ask(admin(), order).unwrap();
        if phase == Phase::Init && self.state.types[&authority_type].prepared.is_empty() {
            self.make_key(authority_type);
        }
    }

    /// The signer makes the new key of the rotation in progress.
    pub(crate) fn make_key(&mut self, authority_type: AuthorityType) {
        let of = &self.state.types[&authority_type];
        let (generation, rotation) = (of.newest_generation + 1, of.rotation_id());
        let key = self.authority_key(generation, rotation);
        let fact = AuthorityKeyGenerated { authority_type, key };
        self.append(Principal::System(SystemActor::Signer), fact.into());
    }

    pub(crate) fn ca(&self, authority_type: AuthorityType, prepared: bool) -> SpkiPin {
        let of = &self.state.types[&authority_type];
        if prepared {
            of.prepared[&KeyKind::Tls].id
        } else {
            of.active[&KeyKind::Tls].id
        }
    }

    /// A report of a node that has reached the current row.
    pub(crate) fn report_of(&self, boot: u128, seq: u64) -> FactReport {
        let of = &self.state.types[&AuthorityType::Host];
        let facts = TypeFacts {
            revision: of.row_position,
            trusted: of.trusted(),
            client_issuer: of.client_issuer(),
            server_issuer: of.server_issuer(),
            ..TypeFacts::default()
        };
        FactReport {
            boot: BootId(Uuid::from_u128(boot)),
            seq,
            version: "0.1.0".into(),
            addr: None,
            authorities: BTreeMap::from([(AuthorityType::Host, Box::new(facts))]),
            failure: None,
            unsynced: false,
            labels: BTreeMap::new(),
        }
    }

    /// What the gateway sees of a node that uses its newest certificate.
    pub(crate) fn seen(&self, node: NodeId) -> Seen {
        // What it holds for sshd is shown to no gateway.
        let held = self.state.held[&Principal::Node(node)].iter().rev();
        let mut held = held.filter_map(|digest| Some((*digest, self.state.certificates.get(digest)?)));
        let (certificate, known) = held.find(|(_, c)| c.kind == KeyKind::Tls).unwrap();
        Seen {
            certificate,
            issuer: known.issuer,
            from: Some("10.1.2.3:40112".into()),
        }
    }

    pub(crate) fn report(&mut self, node: NodeId, report: FactReport) -> Result<Decision, Refusal> {
        let seen = self.seen(node);
        self.decide(Principal::Node(node), Order::Report { node, report, seen })
    }
}

pub(crate) fn admin() -> Principal {
    Principal::User(ADMIN.parse().unwrap())
}

pub(crate) fn host() -> Principal {
    Principal::System(SystemActor::Host)
}

pub(crate) fn clock() -> Principal {
    Principal::System(SystemActor::Clock)
}

pub(crate) fn pin(n: u64) -> SpkiPin {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    SpkiPin(bytes)
}

pub(crate) fn grant(names: &[&str]) -> Grant {
    let names = names.iter().map(|n| n.parse::<NamePattern>().unwrap()).collect();
    Grant {
        names,
        addresses: vec![],
        uses: BTreeMap::from([(AuthorityType::Host, Uses::ALL)]),
    }
}

pub(crate) fn roles(roles: &[RoleName]) -> BTreeSet<RoleName> {
    roles.iter().copied().collect()
}

/// The type names of a decision's facts, without their prefix and version.
pub(crate) fn names_of(decision: &Decision) -> Vec<String> {
    let short = |f: &Fact| {
        f.type_name()
            .trim_start_matches("carousel.")
            .trim_end_matches(".v1")
            .to_owned()
    };
    decision.facts.iter().map(short).collect()
}
