//! The first moment of a virtual cluster.

use std::collections::BTreeMap;

use domain::{
    AuthorityId, AuthorityType, AuthorizationId, CertDigest, ClusterState, MemberId, Order, Position,
    Principal, Serial, Timestamp,
    authority::{AuthorityKey, KeyKind},
    command::{Genesis, Settings},
    event::{
        AuthorityActivated, AuthorityKeyGenerated, AuthorizationGranted, CertificateIssued, LeafUse, Occasion,
    },
    id::SystemActor,
    phase::Phase,
};

use super::{FAR, Knobs, Log, Outcome, START, World};
use crate::{
    chaos::Chaos,
    control::{Orchestrator, Signer},
    gateway::Gateway,
    invariants::Watch,
    net::{Actor, Msg, Queue},
    operator::Operators,
    rng::Rng,
};

/// The authority types that the virtual cluster has.
const TYPES: [AuthorityType; 2] = [AuthorityType::Host, AuthorityType::User];

impl World {
    /// A cluster at its first moment, with agents that are about to join.
    pub fn new(seed: u64, knobs: Knobs) -> Self {
        let mut rng = Rng::new(seed);
        let gateways: Vec<_> = (0..knobs.gateways).map(|_| Gateway::new(&mut rng)).collect();
        let mut world = Self {
            seed,
            now: START,
            queue: Queue::new(knobs.weather),
            log: Log::default(),
            truth: ClusterState::default(),
            orchestrators: (0..knobs.orchestrators)
                .map(|_| Orchestrator::new(START))
                .collect(),
            signer: Signer::default(),
            gateways,
            agents: vec![],
            owner: BTreeMap::new(),
            sessions: vec![],
            operators: Operators::new(),
            chaos: Chaos::default(),
            bundles: BTreeMap::new(),
            since_step: BTreeMap::new(),
            watch: Watch::default(),
            violation: None,
            trace: None,
            faults_on: false,
            asked: None,
            sabotage: None,
            rng,
            knobs,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let genesis = self.genesis();
        let begun = self.system(SystemActor::Host, Order::Genesis(Box::new(genesis)));
        assert!(matches!(begun, Outcome::Yes(_)), "an empty log takes the genesis");
        for i in 0..self.orchestrators.len() {
            self.queue.at(START + 1_000, Msg::Tick(Actor::Orchestrator(i)));
        }
        self.signer_starts();
        self.queue.at(START + 1_500, Msg::Tick(Actor::Signer));
        for i in 0..self.gateways.len() {
            self.gateway_starts(i);
        }
        for i in 0..self.knobs.agents {
            let at = START + 5_000 + 1_000 * i as i64;
            self.new_agent(at);
        }
        self.queue.at(START + 20_000, Msg::Tick(Actor::Sessions));
    }

    fn genesis(&mut self) -> Genesis {
        let mut keys = vec![];
        let mut authority = BTreeMap::new();
        let of_sshds = self.knobs.sshds.then_some((AuthorityType::Host, KeyKind::Ssh));
        for (authority_type, kind) in TYPES.map(|t| (t, KeyKind::Tls)).into_iter().chain(of_sshds) {
            let key = self.first_key(kind);
            self.signer.keys.insert(key.id);
            if kind == KeyKind::Tls {
                authority.insert(authority_type, key.id);
            }
            let activated = AuthorityActivated {
                authority_type,
                kind,
                authority: key.id,
            };
            keys.push((AuthorityKeyGenerated { authority_type, key }, activated));
        }
        let (admin, gateway) = (self.operators.admin(), self.gateways[0].id);
        let user_certificate = self.first_certificate(
            Principal::User(admin.clone()),
            AuthorityType::User,
            authority[&AuthorityType::User],
        );
        let gateway_certificate = self.first_certificate(
            Principal::Gateway(gateway),
            AuthorityType::Host,
            authority[&AuthorityType::Host],
        );
        self.gateways[0].keys.insert(gateway_certificate.0.spki);
        let knobs = &self.knobs;
        let settings = Settings {
            node_ttl_ms: knobs.node_ttl_ms,
            user_ttl_ms: knobs.user_ttl_ms,
            max_offline_ms: knobs.max_offline_ms,
            drain_timeout_ms: knobs.drain_timeout_ms,
            allow_loopback: true,
            ..Settings::default()
        };
        Genesis {
            cluster: "sim.cluster".parse().expect("it is a DNS name"),
            settings,
            bundle_key: self.rng.key(),
            bundle_public_key: String::new(),
            keys,
            admin,
            gateway: MemberId(gateway.0),
            certificates: vec![user_certificate, gateway_certificate],
        }
    }

    fn first_key(&mut self, kind: KeyKind) -> AuthorityKey {
        AuthorityKey {
            id: self.rng.key(),
            kind,
            public_key: String::new(),
            generation: 1,
            certificate: String::new(),
            algorithm: String::new(),
            storage: String::new(),
            not_after: FAR,
            rotation: None,
            position: Position(0),
        }
    }

    fn first_certificate(
        &mut self,
        holder: Principal,
        authority_type: AuthorityType,
        issuer: AuthorityId,
    ) -> (AuthorizationGranted, CertificateIssued) {
        let is_user = matches!(holder, Principal::User(_));
        let ttl_ms = if is_user {
            self.knobs.user_ttl_ms
        } else {
            self.knobs.node_ttl_ms
        };
        let granted = AuthorizationGranted {
            authorization: AuthorizationId(self.rng.uuid()),
            uri: domain::identity::uri(&"sim.cluster".parse().expect("it is a DNS name"), &holder),
            holder,
            authority_type,
            issuer,
            usage: if is_user { LeafUse::Client } else { LeafUse::Both },
            occasion: Occasion::Genesis,
            spki: self.rng.key(),
            public_key: String::new(),
            common_name: String::new(),
            names: vec![],
            addresses: vec![],
            serial: Serial::of_random(self.rng.bytes()),
            not_before: Timestamp(START),
            not_after: Timestamp(START).plus_ms(ttl_ms),
            rotation: None,
            phase: Phase::Standby,
            form: domain::event::Form::Tls,
        };
        let issued = issue(&granted, &mut self.rng);
        (granted, issued)
    }
}

/// The certificate of an authorisation. ECDSA is randomised: signing twice gives two certificates.
pub fn issue(granted: &AuthorizationGranted, rng: &mut Rng) -> CertificateIssued {
    granted.issued(CertDigest(rng.bytes()), String::new())
}
