//! Strangers at the probe endpoint.

use tokio::net::{TcpSocket, TcpStream};

use super::*;

/// As many connections from this loopback address as the listener takes; they say nothing.
async fn idle(from: &str, to: std::net::SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        streams.push(socket.connect(to).await.unwrap());
    }
    streams
}

#[tokio::test]
async fn a_flood_of_idle_connections_does_not_keep_a_node_from_proving_what_it_installed() {
    let (plane, dir) = (
        Plane::start(SystemClock::shared()).await,
        tempfile::tempdir().unwrap(),
    );
    let running = Running::start(plane.config(dir.path()));
    plane.reached().await;
    let listen = running.handle.status().borrow().listen.expect("it serves");
    let mut flood = Vec::new();
    for host in 2..=12 {
        flood.extend(idle(&format!("127.0.0.{host}"), listen, 64).await);
    }
    plane.enter(Phase::Init);
    plane.reached().await;
    assert!(plane.state().reports.iter().all(|r| r.failure.is_none()));
    drop(flood);
    running.stop().await;
}
