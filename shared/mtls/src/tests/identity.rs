//! Who may be whom: URIs, authority types, usages, time, the deny list.

use domain::{
    AuthorityType, NodeId, Principal,
    event::LeafUse,
    time::{HOUR_MS, MINUTE_MS},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use uuid::Uuid;

use crate::{
    ClientAuth, Credential, EpochError, Epochs, Expect, PeerFault, PeerRefusal, SessionRegistry, TlsError,
    TrustEpoch, connect, connect_anonymous, probe,
    testing::{Ca, Hand, NOW, Server, cluster, gateway, node},
};

fn epochs(host: &Ca, holder: &Principal, hand: &Hand) -> Epochs {
    let epoch = TrustEpoch::builder(hand.now())
        .trust(AuthorityType::Host, [host.cert.clone()])
        .client(host.issue(holder, LeafUse::Client))
        .server(host.issue(holder, LeafUse::Server))
        .build()
        .unwrap();
    Epochs::new(epoch)
}

async fn try_probe(server: &Server, epochs: &Epochs, expect: &Expect) -> Result<(), TlsError> {
    probe(&server.addr, epochs, &SessionRegistry::new(), expect)
        .await
        .map(|_| ())
}

#[tokio::test]
async fn a_server_with_another_identity_than_the_wanted_one_is_refused() {
    let (hand, host) = (Hand::new(), Ca::new(AuthorityType::Host, 1));
    let mut server = Server::answering(epochs(&host, &node(2), &hand)).await;
    let mine = epochs(&host, &node(1), &hand);
    let id = |n| NodeId(Uuid::from_u128(n));
    let other = || "other.cluster".parse().unwrap();
    for right in [
        Expect::Node {
            cluster: cluster(),
            node: id(2),
        },
        Expect::AnyNode { cluster: cluster() },
    ] {
        try_probe(&server, &mine, &right).await.unwrap();
        server.outcomes.recv().await.unwrap().unwrap();
    }
    for wrong in [
        Expect::Node {
            cluster: cluster(),
            node: id(3),
        },
        Expect::Gateway { cluster: cluster() },
        Expect::AnyNode { cluster: other() },
        Expect::Node {
            cluster: other(),
            node: id(2),
        },
    ] {
        let error = try_probe(&server, &mine, &wrong).await.unwrap_err();
        assert!(
            matches!(error, TlsError::Peer(PeerFault::WrongIdentity { .. })),
            "{wrong:?}: {error:?}"
        );
        // The server learns of it, and was shown no certificate of ours.
        let seen = server.outcomes.recv().await.unwrap().unwrap_err();
        assert!(
            matches!(seen, TlsError::Refused(PeerRefusal::WrongIdentity)),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn a_chain_counts_for_the_type_of_its_anchors_only() {
    let (hand, host, user) = (
        Hand::new(),
        Ca::new(AuthorityType::Host, 1),
        Ca::new(AuthorityType::User, 1),
    );
    let alice = Principal::User("alice".parse().unwrap());
    let epoch = TrustEpoch::builder(hand.now())
        .trust(AuthorityType::Host, [host.cert.clone()])
        .trust(AuthorityType::User, [user.cert.clone()])
        .server(host.issue(&gateway(), LeafUse::Server))
        .build()
        .unwrap();
    let (sender, mut peers) = tokio::sync::mpsc::channel(8);
    let server = Server::with(Epochs::new(epoch), move |accepted| {
        let sender = sender.clone();
        async move {
            sender.send(accepted.peer.clone().unwrap()).await.unwrap();
            Ok(())
        }
    })
    .await;
    let expect = Expect::Gateway { cluster: cluster() };
    for (ca, holder, who) in [
        (&host, node(1), Some(node(1))),
        (&user, alice.clone(), Some(alice.clone())),
        // The user authority cannot make nodes, nor the host authority people: nobody, in both cases.
        (&user, node(1), None),
        (&host, alice, None),
        (&user, gateway(), None),
    ] {
        let epoch = TrustEpoch::builder(hand.now())
            .trust(AuthorityType::Host, [host.cert.clone()])
            .client(ca.issue(&holder, LeafUse::Client))
            .build()
            .unwrap();
        let sessions = SessionRegistry::new();
        let connected = connect(&server.addr, &Epochs::new(epoch), &sessions, &expect)
            .await
            .unwrap();
        assert_eq!(connected.peer.principal(&cluster()), Some(gateway()));
        let peer = peers.recv().await.unwrap();
        assert_eq!(peer.uri, holder.uri(&cluster()));
        assert_eq!(peer.issuer, ca.pin());
        assert_eq!(peer.principal(&cluster()), who);
        assert_eq!(peer.principal(&"other.cluster".parse().unwrap()), None);
    }
}

#[tokio::test]
async fn a_server_certificate_of_the_user_authority_is_refused() {
    let (hand, host, user) = (
        Hand::new(),
        Ca::new(AuthorityType::Host, 1),
        Ca::new(AuthorityType::User, 1),
    );
    let server_epoch = TrustEpoch::builder(hand.now())
        .trust(AuthorityType::Host, [host.cert.clone()])
        .server(user.issue(&node(2), LeafUse::Server))
        .build()
        .unwrap();
    let server = Server::answering(Epochs::new(server_epoch)).await;
    let epoch = TrustEpoch::builder(hand.now())
        .trust(AuthorityType::Host, [host.cert.clone()])
        .trust(AuthorityType::User, [user.cert.clone()])
        .client(host.issue(&node(1), LeafUse::Client))
        .build()
        .unwrap();
    let expect = Expect::AnyNode { cluster: cluster() };
    let error = try_probe(&server, &Epochs::new(epoch), &expect)
        .await
        .unwrap_err();
    assert!(
        matches!(error, TlsError::Peer(PeerFault::UnknownIssuer { .. })),
        "{error:?}"
    );
}

#[test]
fn a_leaf_for_the_other_role_or_with_another_key_cannot_be_installed() {
    let (hand, host) = (Hand::new(), Ca::new(AuthorityType::Host, 1));
    let build = |client, server| {
        TrustEpoch::builder(hand.now())
            .client(host.issue(&node(1), client))
            .server(host.issue(&node(1), server))
            .build()
    };
    assert!(build(LeafUse::Both, LeafUse::Both).is_ok());
    assert!(matches!(
        build(LeafUse::Server, LeafUse::Both),
        Err(EpochError::WrongUsage("client"))
    ));
    assert!(matches!(
        build(LeafUse::Both, LeafUse::Client),
        Err(EpochError::WrongUsage("server"))
    ));
    let leaf = host.issue(&node(1), LeafUse::Both);
    let other = Credential::new(vec![leaf.der().clone()], &pki::KeyPair::generate());
    assert!(matches!(other, Err(EpochError::OtherKey { .. })));
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_either_side_and_says_so() {
    let (hand, host) = (Hand::new(), Ca::new(AuthorityType::Host, 1));
    let mut server = Server::answering(epochs(&host, &node(2), &hand)).await;
    let soon = NOW.plus_ms(HOUR_MS);
    let epoch = TrustEpoch::builder(hand.now())
        .trust(AuthorityType::Host, [host.cert.clone()])
        .client(host.issue_until(&node(1), LeafUse::Client, soon))
        .server(host.issue_until(&node(1), LeafUse::Server, soon))
        .build()
        .unwrap();
    let short = Epochs::new(epoch);
    let expect = Expect::AnyNode { cluster: cluster() };
    try_probe(&server, &short, &expect).await.unwrap();
    server.outcomes.recv().await.unwrap().unwrap();
    hand.advance(HOUR_MS + MINUTE_MS);
    let error = try_probe(&server, &short, &expect).await.unwrap_err();
    assert!(
        matches!(error, TlsError::Refused(PeerRefusal::Expired)),
        "{error:?}"
    );
    let seen = server.outcomes.recv().await.unwrap().unwrap_err();
    assert!(
        matches!(seen, TlsError::Peer(PeerFault::Expired { not_after }) if not_after == soon),
        "{seen:?}"
    );
    let expired = Server::answering(short).await;
    let error = try_probe(&expired, &server.epochs, &expect).await.unwrap_err();
    assert!(
        matches!(error, TlsError::Peer(PeerFault::Expired { .. })),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_denied_certificate_is_refused_although_its_chain_is_good() {
    let (hand, host) = (Hand::new(), Ca::new(AuthorityType::Host, 1));
    let mine = epochs(&host, &node(1), &hand);
    let denied = mine.load().client().unwrap().certificate().digest;
    let epoch = TrustEpoch::builder(hand.now())
        .trust(AuthorityType::Host, [host.cert.clone()])
        .deny([denied])
        .server(host.issue(&node(2), LeafUse::Server))
        .build()
        .unwrap();
    let server = Server::answering(Epochs::new(epoch)).await;
    let expect = Expect::AnyNode { cluster: cluster() };
    let error = try_probe(&server, &mine, &expect).await.unwrap_err();
    assert!(
        matches!(error, TlsError::Refused(PeerRefusal::Revoked)),
        "{error:?}"
    );
}

#[tokio::test]
async fn without_a_certificate_one_gets_in_only_where_that_is_allowed() {
    let (hand, host) = (Hand::new(), Ca::new(AuthorityType::Host, 1));
    let mine = epochs(&host, &node(1), &hand);
    let mut strict = Server::answering(epochs(&host, &node(2), &hand)).await;
    let sessions = SessionRegistry::new();
    let expect = Expect::AnyNode { cluster: cluster() };
    // The client's side of the handshake succeeds; only the server's shows that it was refused.
    let _refused = connect_anonymous(&strict.addr, &mine, &sessions, &expect)
        .await
        .unwrap();
    let seen = strict.outcomes.recv().await.unwrap().unwrap_err();
    assert!(
        matches!(seen, TlsError::Peer(PeerFault::NoCertificate)),
        "{seen:?}"
    );
    let epoch = TrustEpoch::builder(hand.now())
        .trust(AuthorityType::Host, [host.cert.clone()])
        .server(host.issue(&node(2), LeafUse::Server))
        .client_auth(ClientAuth::Optional)
        .build()
        .unwrap();
    let open = Server::holding(Epochs::new(epoch)).await;
    let connected = connect_anonymous(&open.addr, &mine, &sessions, &expect)
        .await
        .unwrap();
    assert_eq!(connected.ca_names, mine.load().ca_names());
}

#[tokio::test]
async fn nobody_there_and_somebody_without_tls_are_not_failures_of_trust() {
    use tokio::io::AsyncWriteExt;
    let (hand, host) = (Hand::new(), Ca::new(AuthorityType::Host, 1));
    let (mine, sessions) = (epochs(&host, &node(1), &hand), SessionRegistry::new());
    let expect = Expect::AnyNode { cluster: cluster() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let plain = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        tcp
    };
    let (error, _tcp) = tokio::join!(connect(&addr, &mine, &sessions, &expect), plain);
    let error = error.unwrap_err();
    assert!(
        matches!(error, TlsError::Broken(_)) && error.is_transient(),
        "{error:?}"
    );
    drop(listener);
    let error = connect(&addr, &mine, &sessions, &expect).await.unwrap_err();
    assert!(
        matches!(error, TlsError::Unreachable { .. }) && !error.is_trust_failure(),
        "{error:?}"
    );
    assert!(error.to_string().contains(&addr) && sessions.is_empty());
}

/// A stranger in between needs no key to send an alert in plain text; were it believed, it could end an agent.
#[tokio::test]
async fn an_alert_before_the_server_has_proved_itself_is_not_a_refusal() {
    let (hand, host) = (Hand::new(), Ca::new(AuthorityType::Host, 1));
    let mine = epochs(&host, &node(1), &hand);
    for alert in [42, 44, 45, 46, 48, 49, 116] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let stranger = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tcp.write_all(&[21, 3, 3, 0, 2, 2, alert]).await.unwrap();
            tcp.shutdown().await.unwrap();
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        };
        let (expect, sessions) = (Expect::Gateway { cluster: cluster() }, SessionRegistry::new());
        let (result, ()) = tokio::join!(connect(&addr, &mine, &sessions, &expect), stranger);
        let error = result.unwrap_err();
        assert!(
            matches!(error, TlsError::Broken(_)) && !error.is_trust_failure(),
            "{alert}: {error:?}"
        );
    }
}
