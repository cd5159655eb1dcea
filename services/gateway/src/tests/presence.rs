//! Who counts as online: whoever is heard, and nobody for what the kernel takes on its behalf.

use std::time::Duration;

use api::{route, shape::CheckReport};

use super::{Node, join};
use crate::testing::{Running, SOON, World};

/// What `check` says of the nodes that are there.
async fn online(w: &World, gateway: &Running) -> String {
    let report: CheckReport = w.admin(&gateway.addr).get(route::CHECK).await.unwrap();
    let found = report.checks.into_iter().find(|c| c.name == "nodes_offline");
    found.expect("check counts who is online").text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_online_for_what_it_sends_and_not_for_a_stream_that_it_left_open() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (hangs, _) = join(&w, &gateway, "n1.example").await;
    let (lives, _) = join(&w, &gateway, "n2.example").await;
    let client = |node: &Node| w.client(&gateway.addr, Some((&node.key, &node.der)));
    let mut silent = client(&hangs).sse(route::NODE_STREAM, SOON).await.unwrap();
    let beat = Duration::from_millis(5);
    let mut heard = client(&lives)
        .sse_with_beats(route::NODE_STREAM, SOON, beat)
        .await
        .unwrap();
    assert_eq!(
        online(&w, &gateway).await,
        "2 of 2 are online",
        "both have just called"
    );
    // Longer than a node counts as online without being heard, shorter than a gateway may go without its own report.
    w.clock.advance(Duration::from_secs(16));
    let reading = async {
        loop {
            tokio::select! {
                event = silent.next() => drop(event.unwrap()),
                event = heard.next() => drop(event.unwrap()),
            }
        }
    };
    let looking = async { while online(&w, &gateway).await != "1 of 2 are online" {} };
    tokio::select! {
        () = reading => {}
        looked = tokio::time::timeout(SOON, looking) => looked.expect("the node that sends is online, the other is not"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_not_believed_is_said_with_what_follows_from_it() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let said = async || {
        let report: CheckReport = w.admin(&gateway.addr).get(route::CHECK).await.unwrap();
        let found = report.checks.into_iter().find(|c| c.name == "clock");
        found.map(|found| found.text)
    };
    assert_eq!(said().await, None);
    w.executor.set_clock_suspect(true);
    let jumped = "the clock has jumped: no automatic step is taken";
    assert_eq!(said().await.as_deref(), Some(jumped));
}
