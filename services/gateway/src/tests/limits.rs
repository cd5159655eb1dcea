//! What one node may do to the log.

use api::{ClientError, Problem, node::DesiredUpdate, route};
use domain::{AuthorityType, BootId, Code, Phase, event::LeafUse, fact::FactReport};
use pki::KeyPair;

use super::{join, rotate};
use crate::testing::World;

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
    let held_back = problem(node.request(&w, &gateway, &KeyPair::generate(), usage, None).await);
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
            unsynced: false,
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
