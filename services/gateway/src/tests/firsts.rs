//! The first use of a node's certificate: what shows a thief.

use std::time::Duration;

use api::{
    node::{CertificateAnswer, DesiredUpdate},
    route,
};
use domain::{CertDigest, ClusterState, Code, Fact, event::LeafUse};
use pki::KeyPair;

use super::{Node, code, der, join};
use crate::testing::{Running, SOON, World};

/// A little longer than a report is waited for, and too short for a member to lapse.
const A_MOMENT: Duration = Duration::from_secs(6);

fn digest(der: &[u8]) -> CertDigest {
    pki::Certificate::parse(der).unwrap().digest
}

fn in_use(certificate: CertDigest) -> impl Fn(&ClusterState) -> bool {
    move |s| s.certificates[&certificate].presented.is_some()
}

/// Asks until the gateway serves again.
async fn ask(w: &World, gateway: &Running, node: &Node) -> Code {
    let asking = async {
        loop {
            match code(
                w.client(&gateway.addr, node.own())
                    .get_bytes(route::NODE_DESIRED)
                    .await,
            ) {
                Code::NotServing => tokio::task::yield_now().await,
                other => return other,
            }
        }
    };
    tokio::time::timeout(SOON, asking)
        .await
        .expect("it serves again soon")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thief_that_only_reads_shows_itself_by_what_it_takes_from_the_node() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    // With the stolen key it gets a certificate of its own, and from then on does nothing but look.
    let key = KeyPair::generate();
    let answer: CertificateAnswer = node
        .request(&w, &gateway, &key, LeafUse::Both, None)
        .await
        .unwrap();
    let leaf = der(&answer.certificate);
    let thief = w.client(&gateway.addr, Some((&key, &leaf)));
    thief.get::<DesiredUpdate>(route::NODE_DESIRED).await.unwrap();
    w.clock.advance(A_MOMENT);
    w.until(
        "the thief's certificate is on record as used",
        in_use(digest(&leaf)),
    )
    .await;
    thief.get::<DesiredUpdate>(route::NODE_DESIRED).await.unwrap();
    let alerts = w
        .metrics
        .counter("carousel_gateway_alerts_total", &["superseded"]);
    assert_eq!(alerts.get(), 0);
    w.clock.advance(Duration::from_secs(10 * 60));
    assert_eq!(ask(&w, &gateway, &node).await, Code::CertificateSuperseded);
    assert_eq!(alerts.get(), 1, "and an alert names the node");
    // However often it was used: one event.
    let told =
        |fact: &Fact| matches!(fact, Fact::AccessCredentialPresented(f) if f.certificate == digest(&leaf));
    assert_eq!(w.facts().await.iter().filter(|f| told(f)).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_reports_costs_no_event_beside_its_report() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (mut one, joined) = join(&w, &gateway, "n1.example").await;
    let (two, _) = join(&w, &gateway, "n2.example").await;
    let update = DesiredUpdate {
        desired: joined.desired,
        bundles: joined.bundles,
    };
    for node in [&one, &two] {
        let client = w.client(&gateway.addr, node.own());
        client.get::<DesiredUpdate>(route::NODE_DESIRED).await.unwrap();
    }
    one.follow(&w, &gateway, &update).await;
    w.clock.advance(A_MOMENT);
    w.until("what no report says is on record", in_use(digest(&two.der)))
        .await;
    gateway.stop().await;
    let told: Vec<_> = w
        .facts()
        .await
        .into_iter()
        .filter_map(|fact| match fact {
            Fact::AccessCredentialPresented(f) => Some(f.certificate),
            _ => None,
        })
        .collect();
    assert!(told.contains(&digest(&two.der)) && !told.contains(&digest(&one.der)));
}
