//! Probes of external consumers through the door, against real servers: what is seen is on record, and a rotation that
//! waits goes on by itself.

use api::{
    Client, ClientError,
    command::{CommandAnswer, ConsumerProbeRequest, ConsumerRequest, RotateRequest},
    route,
    shape::ConsumerProbeReport,
};
use domain::{
    AuthorityType, Code, Fact, MemberId, Phase, Principal,
    authority::KeyKind,
    event::{ConsumerAttested, LeafUse},
    probe::Sight,
};
use mtls::{Credential, Epochs, Now, SessionRegistry, TrustEpoch};
use pki::{CaCert, KeyPair};
use tokio::{net::TcpListener, task::JoinSet};

use super::code;
use crate::testing::{Running, World, granted};

const USER: AuthorityType = AuthorityType::User;

/// A TLS server that asks for certificates of people, and presents one that this cluster has nothing to do with people by.
struct Verifier {
    addr: String,
    epochs: Epochs,
    _tasks: JoinSet<()>,
}

impl Verifier {
    async fn trusting(w: &World, generations: &[bool]) -> Self {
        let epochs = Epochs::new(epoch(w, generations));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let (mut tasks, shared) = (JoinSet::new(), epochs.clone());
        tasks.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let _ = mtls::accept(tcp, &shared, &SessionRegistry::new()).await;
            }
        });
        Self {
            addr,
            epochs,
            _tasks: tasks,
        }
    }

    /// From now on it trusts these generations: `true` is the prepared one.
    fn trust(&self, w: &World, generations: &[bool]) {
        self.epochs.store(epoch(w, generations));
    }
}

fn epoch(w: &World, generations: &[bool]) -> std::sync::Arc<TrustEpoch> {
    let ca = |prepared: bool| {
        w.fold.read(|s| {
            let of = &s.types[&USER];
            let keys = if prepared { &of.prepared } else { &of.active };
            CaCert::from_base64(&keys[&KeyKind::Tls].certificate).unwrap()
        })
    };
    let cas: Vec<CaCert> = generations.iter().map(|prepared| ca(*prepared)).collect();
    let host = w
        .fold
        .read(|s| s.types[&AuthorityType::Host].server_issuer())
        .unwrap();
    let (key, holder) = (
        KeyPair::generate(),
        Principal::Gateway(MemberId(uuid::Uuid::from_u128(9))),
    );
    let issuer = (AuthorityType::Host, host);
    let granted = granted(&w.cluster, holder, issuer, LeafUse::Both, &key, w.executor.now());
    let leaf = w.signer.issue(&granted, &w.cluster);
    let clock = w.clock.clone();
    TrustEpoch::builder(Now::new(move || runtime::clock::Clock::now_ms(&*clock)))
        .trust(USER, cas)
        .server(Credential::new(vec![leaf.der.into()], &key).unwrap())
        .build()
        .unwrap()
}

async fn add(w: &World, gateway: &Running, name: &str, probe: Option<String>) {
    let request = ConsumerRequest {
        id: w.id(),
        reason: None,
        name: name.into(),
        authority_type: USER,
        owner: "team".into(),
        contact: String::new(),
        probe: probe.map(|at| at.parse().unwrap()),
    };
    let admin = w.admin(&gateway.addr);
    admin.post_only(route::CONSUMERS, &request).await.unwrap();
}

async fn enter(w: &World, gateway: &Running, phase: Phase) -> Result<CommandAnswer, ClientError> {
    let request = RotateRequest::manual(w.id(), USER, Some(phase));
    w.admin(&gateway.addr).post(route::ROTATE, &request).await
}

fn request(w: &World) -> ConsumerProbeRequest {
    ConsumerProbeRequest {
        id: w.id(),
        reason: None,
        authority_type: USER,
    }
}

async fn probe(
    admin: &Client,
    name: &str,
    request: &ConsumerProbeRequest,
) -> Result<ConsumerProbeReport, ClientError> {
    admin
        .post(&route::fill(route::CONSUMER_PROBE, name), request)
        .await
}

async fn attested(w: &World) -> Vec<ConsumerAttested> {
    let facts = w.facts().await.into_iter();
    let attested = facts.filter_map(|fact| match fact {
        Fact::ConsumerAttested(f) => Some(f),
        _ => None,
    });
    attested.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_probe_sees_is_said_at_any_time_and_on_record_only_where_it_proves_something() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let admin = w.admin(&gateway.addr);
    let server = Verifier::trusting(&w, &[false]).await;
    add(&w, &gateway, "bastion", Some(format!("tls://{}", server.addr))).await;
    // Without a rotation: does the probe work at all?
    let report = probe(&admin, "bastion", &request(&w)).await.unwrap();
    assert!(report.ok && report.position.is_none(), "{report:?}");

    enter(&w, &gateway, Phase::Init).await.unwrap();
    w.until("the new key", |s| s.types[&USER].prepared_is_complete())
        .await;
    assert_eq!(
        code(enter(&w, &gateway, Phase::UpdateClients).await),
        Code::ConsumersLagging
    );
    let new = w.fold.read(|s| s.types[&USER].prepared[&KeyKind::Tls].id);
    let report = probe(&admin, "bastion", &request(&w)).await.unwrap();
    let missing = report.missing.clone().unwrap_or_default();
    assert!(!report.ok && missing.contains(&new.to_string()), "{report:?}");
    assert!(
        report.saw.is_some() && attested(&w).await.is_empty(),
        "{report:?}"
    );

    server.trust(&w, &[false, true]);
    let asked = request(&w);
    let report = probe(&admin, "bastion", &asked).await.unwrap();
    assert!(report.ok && report.phase == Phase::Init, "{report:?}");
    // Another one has nothing to add.
    let later = request(&w);
    let noop = probe(&admin, "bastion", &later).await.unwrap();
    assert!(noop.ok && noop.position > report.position, "{noop:?}");
    server.trust(&w, &[false]);
    let [fact] = &attested(&w).await[..] else {
        panic!("one attestation");
    };
    assert!(fact.probed && fact.phase == Phase::Init);
    assert!(matches!(&fact.saw, Some(Sight::Tls { accepts: Some(a), .. }) if a.authorities.contains(&new)));
    enter(&w, &gateway, Phase::UpdateClients).await.unwrap();
    // The same request again is not another look: what was answered first is answered again, whatever is now.
    for (asked, first) in [(&asked, report), (&later, noop)] {
        assert_eq!(probe(&admin, "bastion", asked).await.unwrap(), first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_waited_for_is_looked_at_until_it_has_followed() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let server = Verifier::trusting(&w, &[false]).await;
    add(&w, &gateway, "bastion", Some(format!("tls://{}", server.addr))).await;
    enter(&w, &gateway, Phase::Init).await.unwrap();
    w.until("the new key", |s| s.types[&USER].prepared_is_complete())
        .await;
    server.trust(&w, &[false, true]);
    let has_attested = |phase| {
        move |s: &domain::ClusterState| {
            let mut consumers = s.consumers.values();
            consumers.any(|c| c.probed && c.attested.is_some_and(|(_, p)| p == phase))
        }
    };
    // The first look may have been too early; the next one is due a little later.
    w.until("it is seen", has_attested(Phase::Init)).await;
    enter(&w, &gateway, Phase::UpdateClients).await.unwrap();
    w.until("and again in the next phase", has_attested(Phase::UpdateClients))
        .await;
    let facts = attested(&w).await;
    assert_eq!(facts.len(), 2, "once in each phase: {facts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_probe_or_at_nothing_is_told_and_nobody_is_dialled() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let admin = w.admin(&gateway.addr);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = format!("tls://{}", listener.local_addr().unwrap());
    add(&w, &gateway, "watched", Some(at)).await;
    add(&w, &gateway, "asked", None).await;
    let unknown = probe(&admin, "nobody", &request(&w)).await;
    assert_eq!(code(unknown), Code::ConsumerUnknown);
    let unprobed = probe(&admin, "asked", &request(&w)).await;
    assert_eq!(code(unprobed), Code::BadRequest);
    let (key, leaf) = super::commands::auditor(&w, &gateway).await;
    let auditor = w.client(&gateway.addr, Some((&key, &leaf)));
    let refused = probe(&auditor, "watched", &request(&w)).await;
    assert_eq!(code(refused), Code::NotPermitted);
    let dialled = futures::FutureExt::now_or_never(listener.accept());
    assert!(dialled.is_none(), "by nobody: {dialled:?}");
}
