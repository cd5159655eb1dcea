//! The door under a crowd: strangers get their minute and their share, and never the places of others.

use std::{net::SocketAddr, time::Duration};

use api::{client::EventStream, node::CERTIFICATE_EVENT, route, shape::Whoami};
use domain::event::LeafUse;
use mtls::{Expect, SessionRegistry};
use pki::KeyPair;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{Node, join, open_stream};
use crate::testing::{Running, SOON, World};

/// A connection from another address of this machine, which says nothing.
async fn silent(gateway: &Running, from: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, from], 0))).unwrap();
    socket.connect(gateway.addr.parse().unwrap()).await.unwrap()
}

/// Sooner than a handshake that says nothing is given up.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Does the other side let go of it?
async fn ends(mut stream: impl tokio::io::AsyncRead + Unpin) -> bool {
    let reading = async { while stream.read(&mut [0; 256]).await.is_ok_and(|n| n > 0) {} };
    timeout(AT_ONCE, reading).await.is_ok()
}

/// Is the node's stream still there? What it is given comes over it.
async fn hears(w: &World, gateway: &Running, node: &Node, stream: &mut EventStream) {
    let (key, usage) = (KeyPair::generate(), LeafUse::Both);
    node.request(w, gateway, &key, usage, None).await.unwrap();
    let hearing =
        async { while stream.next().await.unwrap().expect("the stream stands").name != CERTIFICATE_EVENT {} };
    timeout(SOON, hearing).await.expect("it is pushed soon");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_certificate_ends_by_itself_and_a_nodes_stream_does_not() {
    let w = World::new().await;
    let gateway = w
        .gateway_with(|config| config.stranger_life = Duration::from_secs(2))
        .await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let mut stream = open_stream(&w, &gateway, &node).await;
    let (expect, sessions) = (
        Expect::Gateway {
            cluster: w.cluster.clone(),
        },
        SessionRegistry::new(),
    );
    let mut stranger = mtls::connect(&gateway.addr, &w.epochs(None), &sessions, &expect)
        .await
        .unwrap();
    // It asks, is answered, and could go on for ever by what HTTP/1.1 says.
    let request = format!(
        "GET {} HTTP/1.1\r\nhost: x\r\n\r\n",
        route::fill(route::TRUST, "host")
    );
    stranger.stream.write_all(request.as_bytes()).await.unwrap();
    assert!(stranger.stream.read(&mut [0; 16]).await.unwrap() > 0);
    assert!(ends(stranger.stream).await);
    // The node's came before it and stands.
    hears(&w, &gateway, &node, &mut stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_that_says_nothing_keeps_nobody_out() {
    let w = World::new().await;
    let gateway = w
        .gateway_with(|config| (config.max_connections, config.per_source) = (64, 4))
        .await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let mut stream = open_stream(&w, &gateway, &node).await;
    // Sixteen places for strangers; eight sources want five each, and four is a source's share.
    let mut crowd = vec![];
    for source in 2..10 {
        for _ in 0..4 {
            crowd.push(silent(&gateway, source).await);
        }
        assert!(
            ends(silent(&gateway, source).await).await,
            "one more than its share"
        );
    }
    w.admin(&gateway.addr).get::<Whoami>(route::WHOAMI).await.unwrap();
    hears(&w, &gateway, &node, &mut stream).await;
    assert!(ends(crowd.remove(0)).await, "who came first gave way");
    let turned_away = w
        .metrics
        .counter("carousel_gateway_unauthenticated_total", &["crowded"]);
    assert!(turned_away.get() >= 8 + 16);
}
