//! The door as a whole, over real TLS: who gets in, what is handed out and when, and what strangers get.

use std::{collections::BTreeMap, time::Duration};

use api::{
    ClientError,
    command::{
        CommandAnswer, PlainRequest, RotateRequest, TokenAnswer, TokenRequest, UserCertificateAnswer,
        UserRequest,
    },
    join::{JoinAnswer, JoinRequest},
    node::{
        CERTIFICATE_EVENT, CertificateAnswer, CertificateRequest, DESIRED_EVENT, DesiredUpdate,
        PushedCertificate,
    },
    route,
    shape::{CheckReport, Whoami},
};
use domain::{
    AuthorityType, BootId, Code, NodeId, Phase, Principal, SpkiPin, TokenHash,
    access::RoleName,
    event::LeafUse,
    fact::{FactReport, TypeFacts},
};
use pki::{KeyPair, csr, pem};

use crate::testing::{Running, SOON, World};

mod checked;
mod commands;
mod door;
mod firsts;
mod joining;
mod lapses;
mod limits;
mod presence;
mod probes;
mod settled;
mod strangers;
mod turns;

/// A node as a test plays it.
struct Node {
    id: NodeId,
    key: KeyPair,
    der: Vec<u8>,
    seq: u64,
}

impl Node {
    fn own(&self) -> Option<(&KeyPair, &[u8])> {
        Some((&self.key, &self.der))
    }

    /// Follows the newest desired state: new certificate where the row names another issuer, then facts.
    async fn follow(&mut self, w: &World, gateway: &Running, update: &DesiredUpdate) {
        let row = &update.desired.authorities[&AuthorityType::Host];
        let have = pki::Certificate::parse(&self.der).unwrap().issuer;
        if row.client_issuer != have {
            let (key, usage) = (KeyPair::generate(), LeafUse::Client);
            let answer = self
                .request(w, gateway, &key, usage, row.client_issuer)
                .await
                .unwrap();
            self.der = der(&answer.certificate);
            self.key = key;
        }
        let facts = TypeFacts {
            revision: row.revision,
            trusted: row.trusted.clone(),
            client_issuer: row.client_issuer,
            server_issuer: row.server_issuer,
            ..Default::default()
        };
        self.report(w, gateway, facts).await;
    }

    async fn report(&mut self, w: &World, gateway: &Running, facts: TypeFacts) {
        self.seq += 1;
        let report = FactReport {
            boot: BootId(uuid::Uuid::from_u128(1)),
            seq: self.seq,
            version: "test".into(),
            addr: None,
            authorities: [(AuthorityType::Host, Box::new(facts))].into(),
            failure: None,
            unsynced: false,
            labels: BTreeMap::new(),
        };
        w.client(&gateway.addr, self.own())
            .post_only(route::NODE_FACTS, &report)
            .await
            .unwrap();
    }

    async fn request(
        &self,
        w: &World,
        gateway: &Running,
        key: &KeyPair,
        usage: LeafUse,
        issuer: Option<SpkiPin>,
    ) -> Result<CertificateAnswer, ClientError> {
        let (id, csr) = (w.id(), csr::make_pem(key));
        let request = CertificateRequest {
            id,
            authority_type: AuthorityType::Host,
            usage,
            issuer,
            csr,
        };
        w.client(&gateway.addr, self.own())
            .post(route::NODE_CERTIFICATES, &request)
            .await
    }
}

fn der(text: &str) -> Vec<u8> {
    pem::certificates(text).unwrap()[0].to_vec()
}

async fn token(w: &World, gateway: &Running, name: &str) -> String {
    let token = format!("token-of-{name}");
    let request = TokenRequest {
        id: w.id(),
        reason: None,
        hash: TokenHash(execution::sha256(token.as_bytes())),
        names: vec![name.into()],
        addresses: vec![],
        types: BTreeMap::new(),
        uses: 1,
        ttl_ms: 60_000,
    };
    let answer: TokenAnswer = w
        .admin(&gateway.addr)
        .post(route::TOKENS, &request)
        .await
        .unwrap();
    assert_eq!(
        answer.ca_pins.len(),
        w.fold.read(|s| s.types[&AuthorityType::Host].trusted().len())
    );
    token
}

async fn join(w: &World, gateway: &Running, name: &str) -> (Node, JoinAnswer) {
    let token = token(w, gateway, name).await;
    let key = KeyPair::generate();
    let request = JoinRequest {
        token,
        hostname: name.into(),
        csr: csr::make_pem(&key),
        rejoin: None,
    };
    let answer: JoinAnswer = w
        .client(&gateway.addr, None)
        .post(route::JOIN, &request)
        .await
        .unwrap();
    (
        Node {
            id: answer.node,
            key,
            der: der(&answer.certificate),
            seq: 0,
        },
        answer,
    )
}

async fn rotate(w: &World, gateway: &Running, phase: Phase) -> Result<CommandAnswer, ClientError> {
    let request = RotateRequest::manual(w.id(), AuthorityType::Host, Some(phase));
    w.admin(&gateway.addr).post(route::ROTATE, &request).await
}

fn code(result: Result<impl std::fmt::Debug, ClientError>) -> Code {
    match result {
        Err(ClientError::Problem(problem)) => problem.code,
        other => panic!("a problem was expected, not {other:?}"),
    }
}

async fn next_desired(stream: &mut api::client::EventStream, phase: Phase) -> DesiredUpdate {
    let reading = async {
        loop {
            let event = stream.next().await.unwrap().expect("the stream stays open");
            if event.name == DESIRED_EVENT {
                let update: DesiredUpdate = event.json().unwrap();
                let Some(row) = update.desired.authorities.get(&AuthorityType::Host) else {
                    continue;
                };
                // The key may come after the phase: what follows waits for the row with both authorities.
                if row.phase == phase && (phase == Phase::Standby || row.trusted.len() == 2) {
                    return update;
                }
            }
        }
    };
    tokio::time::timeout(SOON, reading)
        .await
        .expect("the desired state is pushed soon")
}

async fn open_stream(w: &World, gateway: &Running, node: &Node) -> api::client::EventStream {
    let client = w.client(&gateway.addr, node.own());
    client
        .sse(route::NODE_STREAM, Duration::from_secs(15))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_of_one_rotates_through_the_door_and_the_gateway_with_it() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (mut node, joined) = join(&w, &gateway, "n1.example").await;
    assert_eq!(joined.usage, LeafUse::Both);
    let old = w
        .fold
        .read(|s| s.types[&AuthorityType::Host].client_issuer())
        .unwrap();
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ] {
        let mut stream = open_stream(&w, &gateway, &node).await;
        let answer = rotate(&w, &gateway, phase)
            .await
            .unwrap_or_else(|e| panic!("{phase}: {e:?}"));
        assert_eq!(answer.warning, None, "{phase}");
        // The gateway asks for its own sessions to be dialled anew where an issuer retires.
        let retires = matches!(phase, Phase::UpdateServers | Phase::Standby);
        if retires {
            stream = open_stream(&w, &gateway, &node).await;
        }
        let update = next_desired(&mut stream, phase).await;
        let bundle = &update.bundles[&AuthorityType::Host];
        let pin = w.fold.read(|s| s.cluster.as_ref().unwrap().bundle_key);
        let read = pki::bundle::verify(
            bundle,
            &pin,
            w.executor.now(),
            Some(&w.cluster),
            AuthorityType::Host,
        )
        .unwrap();
        assert_eq!(
            read.revision,
            update.desired.authorities[&AuthorityType::Host].revision
        );
        node.follow(&w, &gateway, &update).await;
        w.until("the node has reached the phase", |s| {
            domain::gate::missing(s, AuthorityType::Host, &s.nodes[&node.id]).is_ok()
        })
        .await;
    }
    let new = w
        .fold
        .read(|s| s.types[&AuthorityType::Host].client_issuer())
        .unwrap();
    assert_ne!(old, new);
    let me: Whoami = w.admin(&gateway.addr).get(route::WHOAMI).await.unwrap();
    assert_eq!(me.principal, Principal::User("admin".parse().unwrap()));
    gateway.stop().await;
    assert!(
        w.fold.read(|s| !s.members[&w.member].running),
        "an orderly stop is on record"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_looked_up_at_each_request_and_ends_with_its_user() {
    let (w, key) = (World::new().await, KeyPair::generate());
    let gateway = w.gateway().await;
    let request = UserRequest {
        id: w.id(),
        reason: Some("on call".into()),
        name: "audrey".into(),
        roles: vec![RoleName::Auditor],
        logins: vec![],
        csr: csr::make_pem(&key),
    };
    let answer: UserCertificateAnswer = w.admin(&gateway.addr).post(route::USERS, &request).await.unwrap();
    // The same command again, its answer lost on the way, gives the same certificate.
    let again: UserCertificateAnswer = w.admin(&gateway.addr).post(route::USERS, &request).await.unwrap();
    assert_eq!(again.certificate, answer.certificate);
    let leaf = der(&answer.certificate);
    let audrey = w.client(&gateway.addr, Some((&key, &leaf)));
    let report: CheckReport = audrey.get(route::CHECK).await.unwrap();
    assert_eq!(report.errors, 0, "{report:?}");
    let plain = PlainRequest {
        id: w.id(),
        reason: None,
    };
    let rotating = RotateRequest::manual(w.id(), AuthorityType::Host, None);
    assert_eq!(
        code(audrey.post_only(route::ROTATE, &rotating).await),
        Code::NotPermitted
    );
    assert_eq!(
        code(audrey.get_bytes(route::NODE_STREAM).await),
        Code::NotPermitted
    );
    w.until("the first use is on record", |s| {
        let digest = pki::Certificate::parse(&leaf).unwrap().digest;
        s.certificates[&digest].presented.is_some()
    })
    .await;
    let path = route::fill(route::USER_REMOVE, "audrey");
    w.admin(&gateway.addr).post_only(&path, &plain).await.unwrap();
    // Refused by the log at once, and in the handshake once the deny list is in force.
    match audrey.get_bytes(route::WHOAMI).await {
        Err(ClientError::Problem(problem)) => assert_eq!(problem.code, Code::CertificateUnknown),
        Err(ClientError::Trust { .. } | ClientError::Unreachable { .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_gate_says_who_lags_and_what_would_break() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    join(&w, &gateway, "n2.example").await;
    rotate(&w, &gateway, Phase::Init).await.unwrap();
    let refused = rotate(&w, &gateway, Phase::UpdateClients).await;
    let Err(ClientError::Problem(problem)) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(problem.code, Code::NodesLagging);
    let gate = problem.gate.unwrap();
    let names: Vec<_> = gate.lagging.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["n1.example", "n2.example"]);
    assert!(gate.lagging[0].status.online, "it joined a moment ago");
    assert_eq!(gate.if_forced.unwrap().total, 2);
    // Excluded by name, by whoever may; the other one still holds the gate.
    let path = route::fill(route::NODE_EXCLUDE, "n1.example");
    let request = PlainRequest {
        id: w.id(),
        reason: Some("gone".into()),
    };
    w.admin(&gateway.addr).post_only(&path, &request).await.unwrap();
    assert!(
        w.fold
            .read(|s| s.nodes[&node.id].excluded.contains_key(&AuthorityType::Host))
    );
    assert_eq!(
        code(rotate(&w, &gateway, Phase::UpdateClients).await),
        Code::NodesLagging
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_again_takes_up_its_certificates_and_a_taken_port_is_named() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let addr = gateway.addr.clone();
    let error = w
        .start_gateway(&addr)
        .await
        .expect_err("the port is taken")
        .to_string();
    assert!(error.contains("is in use") && error.contains(&addr), "{error}");
    gateway.stop().await;
    let certificates = w.fold.read(|s| s.held[&Principal::Gateway(w.member)].len());
    let gateway = w.gateway().await;
    assert_eq!(
        w.fold.read(|s| s.held[&Principal::Gateway(w.member)].len()),
        certificates
    );
    w.admin(&gateway.addr).get::<Whoami>(route::WHOAMI).await.unwrap();
    // A key that others can read is not used.
    gateway.stop().await;
    let dir = w.dir.path().join("gateway");
    let key = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension() == Some("key".as_ref()));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(key.unwrap(), mode).unwrap();
    assert!(w.start_gateway("127.0.0.1:0").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_mind_certifies_the_gateways_client_role_anew() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    rotate(&w, &gateway, Phase::Init).await.unwrap();
    rotate(&w, &gateway, Phase::UpdateClients).await.unwrap();
    let client_certificates = |s: &domain::ClusterState| {
        let active = s.types[&AuthorityType::Host].active.values().next().unwrap().id;
        let held = s.held[&Principal::Gateway(w.member)]
            .iter()
            .map(|d| &s.certificates[d]);
        held.filter(|c| c.issuer == active && c.usage.client()).count()
    };
    let before = w.fold.read(client_certificates);
    rotate(&w, &gateway, Phase::Rollback).await.unwrap();
    assert!(
        w.fold.read(client_certificates) > before,
        "an earlier certificate was taken up again"
    );
    let answer = rotate(&w, &gateway, Phase::Standby).await.unwrap();
    assert_eq!(answer.warning, None);
    w.admin(&gateway.addr).get::<Whoami>(route::WHOAMI).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_trusts_only_the_old_authority_still_finds_the_door_until_the_end() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    // Its trust is of now: it sleeps through what follows.
    let sleeper = w.client(&gateway.addr, None);
    let bundle = route::fill(route::TRUST, "host");
    for phase in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
        rotate(&w, &gateway, phase).await.unwrap();
        sleeper
            .get_bytes(&bundle)
            .await
            .unwrap_or_else(|e| panic!("{phase}: {e}"));
    }
    rotate(&w, &gateway, Phase::Standby).await.unwrap();
    assert!(matches!(
        sleeper.get_bytes(&bundle).await,
        Err(ClientError::Trust { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_was_frozen_serves_again_only_after_a_new_start_on_record() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let boot = |s: &domain::ClusterState| s.members[&w.member].boot;
    let first = w.fold.read(boot);
    w.clock.advance(Duration::from_secs(31));
    // The first caller after the freeze is refused, or comes after the new start: never in between.
    match w.admin(&gateway.addr).get::<Whoami>(route::WHOAMI).await {
        Ok(_) => assert_ne!(w.fold.read(boot), first),
        refused => assert_eq!(code(refused), Code::NotServing),
    }
    w.until("a new start is on record", |s| boot(s) != first).await;
    let serving = async {
        while w.admin(&gateway.addr).get::<Whoami>(route::WHOAMI).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, serving)
        .await
        .expect("it serves again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_pushed_to_the_stream_of_its_holder_alone() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (one, _) = join(&w, &gateway, "n1.example").await;
    let (two, _) = join(&w, &gateway, "n2.example").await;
    let (mut of_one, mut of_two) = (
        open_stream(&w, &gateway, &one).await,
        open_stream(&w, &gateway, &two).await,
    );
    let mine = one
        .request(&w, &gateway, &KeyPair::generate(), LeafUse::Both, None)
        .await
        .unwrap();
    let theirs = two
        .request(&w, &gateway, &KeyPair::generate(), LeafUse::Both, None)
        .await
        .unwrap();
    for (stream, expected) in [(&mut of_one, mine), (&mut of_two, theirs)] {
        let pushed = async {
            loop {
                let event = stream.next().await.unwrap().expect("the stream stays open");
                if event.name == CERTIFICATE_EVENT {
                    return event.json::<PushedCertificate>().unwrap();
                }
            }
        };
        let pushed = tokio::time::timeout(SOON, pushed)
            .await
            .expect("it is pushed soon");
        assert_eq!(pushed.certificate, expected.certificate);
    }
}
