//! Resumption skips verification, so it must never happen, whatever the client would like.

use std::sync::Arc;

use domain::{AuthorityType, event::LeafUse};
use rustls::{HandshakeKind, client::Resumption, version::TLS13};
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::{
    Epochs, Expect, SessionRegistry, TrustEpoch, connect,
    testing::{Ca, Hand, Server, cluster, gateway, node},
    verify::AnyServer,
};

fn epochs(host: &Ca, hand: &Hand) -> Epochs {
    let epoch = TrustEpoch::builder(hand.now())
        .trust(AuthorityType::Host, [host.cert.clone()])
        .client(host.issue(&node(1), LeafUse::Client))
        .server(host.issue(&gateway(), LeafUse::Server))
        .alpn(["h2", "http/1.1"])
        .client_alpn(["http/1.1"])
        .build()
        .unwrap();
    Epochs::new(epoch)
}

#[tokio::test]
async fn our_own_connections_are_full_handshakes_every_time() {
    let (hand, host) = (Hand::new(), Ca::new(AuthorityType::Host, 1));
    let server = Server::answering(epochs(&host, &hand)).await;
    let (mine, sessions) = (epochs(&host, &hand), SessionRegistry::new());
    for _ in 0..3 {
        let expect = Expect::Gateway { cluster: cluster() };
        let connected = connect(&server.addr, &mine, &sessions, &expect).await.unwrap();
        let tls = connected.stream.get_ref().1;
        assert_eq!(tls.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(tls.alpn_protocol(), Some(&b"http/1.1"[..]));
    }
}

/// A client that is not ours and would resume gladly. The server gives it no ticket to do it with.
#[tokio::test]
async fn a_client_that_wants_to_resume_cannot() {
    let (hand, host) = (Hand::new(), Ca::new(AuthorityType::Host, 1));
    let server = Server::answering(epochs(&host, &hand)).await;
    let (leaf, key) = host.issue_with_key(&node(1), LeafUse::Client);
    let private = PrivateKeyDer::Pkcs8(key.to_pkcs8_der().to_vec().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_client_auth_cert(vec![leaf.into()], private)
        .unwrap();
    config.resumption = Resumption::in_memory_sessions(16);
    let connector = TlsConnector::from(Arc::new(config));
    for _ in 0..3 {
        let tcp = TcpStream::connect(&server.addr).await.unwrap();
        let name = ServerName::try_from("gateway.acme.cluster").unwrap();
        let mut stream = connector.connect(name, tcp).await.unwrap();
        stream.write_all(b"carousel-probe/1\n").await.unwrap();
        let mut answer = Vec::new();
        // Tickets, if there were any, would have arrived before the answer's end.
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"{"));
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}
