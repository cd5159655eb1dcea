//! Who waits for whom: streams for their turn, joins for renewals.

use std::time::{Duration, Instant};

use api::{join::JoinRequest, node::CertificateRequest, route};
use domain::{AuthorityType, Phase, event::LeafUse};
use pki::{KeyPair, csr};
use runtime::clock::Clock;
use tokio::task::JoinSet;

use super::{join, next_desired, rotate, token};
use crate::testing::{Late, Running, SOON, World};

#[tokio::test(flavor = "multi_thread")]
async fn what_concerns_every_stream_comes_when_it_is_its_turn() {
    let w = World::new().await;
    let gateway = w.open(w.config("127.0.0.1:0")).await.unwrap();
    let (app, ready) = (gateway.app.clone(), gateway.ready());
    let (addr, stop, mut tasks) = (
        gateway.address().to_string(),
        w.stop.child_token(),
        JoinSet::new(),
    );
    tasks.spawn(gateway.run(stop.clone()));
    assert!(ready.wait().await);
    let gateway = Running { addr, stop, tasks };
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let client = w.client(&gateway.addr, Some((&node.key, &node.der)));
    let mut stream = client.sse(route::NODE_STREAM, SOON).await.unwrap();
    next_desired(&mut stream, Phase::Standby).await;
    assert!(
        stream.retry().is_some(),
        "it is told over which time to come back"
    );
    // A second's turns are taken by others.
    let (began, now) = (Instant::now(), w.clock.monotonic());
    let taken = (0..500).map(|_| app.hub.turns.take(now)).max().unwrap();
    rotate(&w, &gateway, Phase::Init).await.unwrap();
    next_desired(&mut stream, Phase::Init).await;
    assert!(began.elapsed() >= taken, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_is_decided_after_the_renewal_that_is_served() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let request = JoinRequest {
        token: token(&w, &gateway, "n2.example").await,
        hostname: "n2.example".into(),
        csr: csr::make_pem(&KeyPair::generate()),
        rejoin: None,
    };
    w.signer.late.send_replace(Late::Nodes);
    let renewal = CertificateRequest {
        id: w.id(),
        authority_type: AuthorityType::Host,
        usage: LeafUse::Both,
        issuer: None,
        csr: csr::make_pem(&KeyPair::generate()),
    };
    let (renews, joins) = (
        w.client(&gateway.addr, Some((&node.key, &node.der))),
        w.client(&gateway.addr, None),
    );
    let mut asking: JoinSet<Result<serde_json::Value, _>> = JoinSet::new();
    asking.spawn(async move { renews.post(route::NODE_CERTIFICATES, &renewal).await });
    w.until("the renewal waits for the signer", |s| !s.pending.is_empty())
        .await;
    let began = Instant::now();
    asking.spawn(async move { joins.post(route::JOIN, &request).await });
    w.until("the join is decided", |s| s.nodes.len() == 2).await;
    // The renewal is never answered here, and a join does not wait without end.
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
}
