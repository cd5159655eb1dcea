//! What one node may do to the log.

use api::{
    ClientError, Problem,
    node::{CERTIFICATE_EVENT, DesiredUpdate},
    route,
};
use domain::{AuthorityType, BootId, Code, Phase, event::LeafUse, fact::FactReport};
use pki::KeyPair;
use tokio::time::timeout;

use super::{join, open_stream, rotate};
use crate::testing::{SOON, World};

fn problem(result: Result<impl std::fmt::Debug, ClientError>) -> Problem {
    match result {
        Err(ClientError::Problem(problem)) => *problem,
        other => panic!("a problem was expected, not {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_that_asks_on_and_on_is_held_back_until_the_row_changes_and_another_is_not() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let (other, _) = join(&w, &gateway, "n2.example").await;
    let usage = LeafUse::Client;
    let mut last = KeyPair::generate();
    for _ in 0..16 {
        last = KeyPair::generate();
        node.request(&w, &gateway, &last, usage, None).await.unwrap();
    }
    let held_back = problem(
        node.request(&w, &gateway, &KeyPair::generate(), usage, None)
            .await,
    );
    assert_eq!(
        (held_back.code, held_back.status, held_back.retry_after_s),
        (Code::RateLimited, 429, Some(30))
    );
    // An answer that was lost is given again, and nobody else waits.
    node.request(&w, &gateway, &last, usage, None).await.unwrap();
    other
        .request(&w, &gateway, &KeyPair::generate(), usage, None)
        .await
        .unwrap();
    // A phase asks everybody at once, however soon it comes after the one before.
    rotate(&w, &gateway, Phase::Init).await.unwrap();
    node.request(&w, &gateway, &KeyPair::generate(), usage, None)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_opens_stream_after_stream_keeps_the_newest() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let mut streams = vec![];
    for _ in 0..5 {
        let mut stream = open_stream(&w, &gateway, &node).await;
        assert!(
            stream.next().await.unwrap().is_some(),
            "each begins with the desired state"
        );
        streams.push(stream);
    }
    let ending = async { while streams[0].next().await.unwrap().is_some() {} };
    timeout(SOON, ending).await.expect("the oldest ends");
    let (key, usage) = (KeyPair::generate(), LeafUse::Both);
    node.request(&w, &gateway, &key, usage, None).await.unwrap();
    for stream in &mut streams[1..] {
        let event = timeout(SOON, stream.next())
            .await
            .expect("it is pushed to all others");
        assert_eq!(event.unwrap().expect("it stands").name, CERTIFICATE_EVENT);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_node_that_reports_on_and_on_is_held_back() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let client = w.client(&gateway.addr, node.own());
    let mut seq = 0;
    let mut report = || {
        seq += 1;
        FactReport {
            boot: BootId(uuid::Uuid::from_u128(1)),
            seq,
            version: format!("test {seq}"),
            addr: None,
            authorities: Default::default(),
            failure: None,
            // News each time: what brings none is refused before it could fill the log.
            unsynced: seq % 2 == 0,
            labels: Default::default(),
        }
    };
    for _ in 0..20 {
        client.post_only(route::NODE_FACTS, &report()).await.unwrap();
    }
    let held_back = problem(client.post_only(route::NODE_FACTS, &report()).await);
    assert_eq!(
        (held_back.code, held_back.retry_after_s),
        (Code::RateLimited, Some(1))
    );
    // It is told what to do all the same.
    let update: DesiredUpdate = client.get(route::NODE_DESIRED).await.unwrap();
    assert!(update.desired.authorities.contains_key(&AuthorityType::Host));
}
