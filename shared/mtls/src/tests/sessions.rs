//! Sessions that stand when trust changes.

use std::{
    collections::BTreeSet,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use domain::{
    AuthorityType, NodeId,
    event::LeafUse,
    time::{DAY_MS, HOUR_MS},
};
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use uuid::Uuid;

use crate::{
    Connected, Drained, Epochs, Expect, PeerFault, PeerRefusal, SessionRegistry, Standing, TlsError,
    TrustEpoch, connect, refused_by_peer,
    testing::{Ca, Hand, NOW, Server, cluster, node},
};

const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    hand: Hand,
    active: Ca,
    prepared: Ca,
}

impl World {
    fn new() -> Self {
        let (active, prepared) = (Ca::new(AuthorityType::Host, 1), Ca::new(AuthorityType::Host, 2));
        Self {
            hand: Hand::new(),
            active,
            prepared,
        }
    }

    /// An epoch of node `id` with certificates of `issuer`, trusting these.
    fn epoch(&self, id: u128, issuer: &Ca, trusts: &[&Ca]) -> Arc<TrustEpoch> {
        TrustEpoch::builder(self.hand.now())
            .trust(AuthorityType::Host, trusts.iter().map(|ca| ca.cert.clone()))
            .client(issuer.issue(&node(id), LeafUse::Client))
            .server(issuer.issue(&node(id), LeafUse::Server))
            .build()
            .unwrap()
    }

    fn both(&self, id: u128, issuer: &Ca) -> Arc<TrustEpoch> {
        self.epoch(id, issuer, &[&self.active, &self.prepared])
    }
}

async fn dial(server: &Server, epochs: &Epochs, sessions: &SessionRegistry) -> Connected {
    let expect = Expect::AnyNode { cluster: cluster() };
    connect(&server.addr, epochs, sessions, &expect).await.unwrap()
}

/// Waits until this many sessions stand; a client is done with a handshake earlier than its server.
async fn standing(registry: &SessionRegistry, count: usize) {
    let all = async {
        while registry.len() != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, all).await.expect("the sessions are entered");
}

#[tokio::test]
async fn an_old_certificate_is_refused_and_its_session_closed_once_trust_has_changed() {
    let w = World::new();
    let server = Server::holding(Epochs::new(w.both(2, &w.prepared))).await;
    let (old, new) = (
        Epochs::new(w.both(1, &w.active)),
        Epochs::new(w.both(3, &w.prepared)),
    );
    let sessions = SessionRegistry::new();
    let mut on_old = dial(&server, &old, &sessions).await;
    let on_new = dial(&server, &new, &sessions).await;
    standing(&server.sessions, 2).await;
    let closed = server
        .epochs
        .install(w.epoch(2, &w.prepared, &[&w.prepared]), &server.sessions);
    assert_eq!(closed, 1);
    // The server lets go of the old one: the client reads its end.
    let end = timeout(PATIENCE, on_old.stream.read(&mut [0; 8])).await.unwrap();
    assert!(end.is_err() || end.is_ok_and(|n| n == 0));
    // The other one stands, and a new connection with the old certificate does not come to be.
    standing(&server.sessions, 1).await;
    let mut refused = dial(&server, &old, &sessions).await;
    let error = timeout(PATIENCE, refused.stream.read(&mut [0; 8]))
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(refused_by_peer(&error), Some(PeerRefusal::UnknownIssuer));
    drop(on_new);
}

#[tokio::test]
async fn the_session_of_a_peer_that_is_denied_from_now_on_ends_and_others_stand() {
    let w = World::new();
    let server = Server::holding(Epochs::new(w.both(2, &w.active))).await;
    let (revoked, other) = (
        Epochs::new(w.both(1, &w.active)),
        Epochs::new(w.both(3, &w.active)),
    );
    let sessions = SessionRegistry::new();
    let mut of_revoked = dial(&server, &revoked, &sessions).await;
    let of_other = dial(&server, &other, &sessions).await;
    standing(&server.sessions, 2).await;
    let digest = revoked.load().client().unwrap().certificate().digest;
    let denies = TrustEpoch::builder(w.hand.now())
        .trust(
            AuthorityType::Host,
            [w.active.cert.clone(), w.prepared.cert.clone()],
        )
        .deny([digest])
        .client(w.active.issue(&node(2), LeafUse::Client))
        .server(w.active.issue(&node(2), LeafUse::Server))
        .build()
        .unwrap();
    assert_eq!(server.epochs.install(denies, &server.sessions), 1);
    let end = timeout(PATIENCE, of_revoked.stream.read(&mut [0; 8]))
        .await
        .unwrap();
    assert!(end.is_err() || end.is_ok_and(|n| n == 0));
    standing(&server.sessions, 1).await;
    drop(of_other);
}

#[tokio::test]
async fn a_drain_waits_for_sessions_to_end_and_closes_the_rest() {
    let w = World::new();
    // These holders end when asked, as ours do.
    let server = Server::with(Epochs::new(w.both(2, &w.prepared)), |accepted| async move {
        accepted.session.draining().await;
        Ok(())
    })
    .await;
    let (old, new) = (
        Epochs::new(w.both(1, &w.active)),
        Epochs::new(w.both(3, &w.prepared)),
    );
    let sessions = SessionRegistry::new();
    let _held = [
        dial(&server, &old, &sessions).await,
        dial(&server, &new, &sessions).await,
    ];
    standing(&server.sessions, 2).await;
    let polite = server.sessions.drain(w.active.pin(), PATIENCE).await;
    assert_eq!(polite, Drained { ended: 1, closed: 0 });
    assert_eq!(server.sessions.len(), 1);

    let stubborn = Server::holding(Epochs::new(w.both(2, &w.prepared))).await;
    let _held = dial(&stubborn, &old, &sessions).await;
    standing(&stubborn.sessions, 1).await;
    let cut = stubborn.sessions.drain(w.active.pin(), Duration::ZERO).await;
    assert_eq!(cut, Drained { ended: 0, closed: 1 });
    assert!(stubborn.sessions.is_empty());
    assert_eq!(
        stubborn.sessions.drain(w.active.pin(), PATIENCE).await,
        Drained::default()
    );
}

#[tokio::test]
async fn sessions_on_the_retiring_issuer_are_counted_by_what_their_peers_are() {
    let w = World::new();
    let server = Server::holding(Epochs::new(w.both(2, &w.prepared))).await;
    let sessions = SessionRegistry::new();
    let mut held = Vec::new();
    for (id, issuer) in [(1, &w.active), (3, &w.active), (4, &w.prepared)] {
        held.push(dial(&server, &Epochs::new(w.both(id, issuer)), &sessions).await);
    }
    standing(&server.sessions, 3).await;
    let excluded = BTreeSet::from([NodeId(Uuid::from_u128(3))]);
    let on_old = server.sessions.standing_on(w.active.pin(), &excluded);
    assert_eq!(
        on_old,
        Standing {
            required: 1,
            excluded: 1,
            others: 0
        }
    );
    let issuers = server.sessions.issuers(&excluded);
    assert_eq!(
        issuers.required,
        BTreeSet::from([w.active.pin(), w.prepared.pin()])
    );
    // The server's own certificate counts as well: the peer has to let go of it too.
    assert_eq!(
        issuers.excluded,
        BTreeSet::from([w.active.pin(), w.prepared.pin()])
    );
    // The clients' side sees its own old certificates in the same sessions.
    assert_eq!(sessions.standing_on(w.active.pin(), &BTreeSet::new()).required, 2);
    held.clear();
    assert!(sessions.is_empty());
}

#[tokio::test]
async fn a_session_ends_when_the_peers_certificate_does() {
    let w = World::new();
    let server = Server::holding(Epochs::new(w.both(2, &w.active))).await;
    let epoch = TrustEpoch::builder(w.hand.now())
        .trust(AuthorityType::Host, [w.active.cert.clone()])
        .client(
            w.active
                .issue_until(&node(1), LeafUse::Client, NOW.plus_ms(HOUR_MS)),
        )
        .build()
        .unwrap();
    let sessions = SessionRegistry::new();
    let _held = dial(&server, &Epochs::new(epoch), &sessions).await;
    standing(&server.sessions, 1).await;
    assert_eq!(server.sessions.close_expired(NOW.plus_ms(HOUR_MS - 1)), 0);
    w.hand.advance(HOUR_MS);
    // The watcher begins with a look; it never ends by itself.
    let mut watcher = JoinSet::new();
    let (registry, now) = (server.sessions.clone(), w.hand.now());
    watcher.spawn(async move { registry.watch_expiry(now).await });
    standing(&server.sessions, 0).await;
    assert_eq!(sessions.close_expired(NOW.plus_ms(DAY_MS)), 1);
}

/// Trust changes at arbitrary moments while old certificates dial: whoever got in before is closed, and
/// nobody is served after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_survives_a_change_of_trust_however_they_race() {
    let w = World::new();
    let (wide, narrow) = (w.both(2, &w.prepared), w.epoch(2, &w.prepared, &[&w.prepared]));
    // Echoes until it is closed: a session is usable exactly if it echoes.
    let server = Server::with(Epochs::new(wide.clone()), |mut accepted| async move {
        let mut byte = [0];
        loop {
            tokio::select! {
                biased;
                () = accepted.session.closed() => return Ok(()),
                read = accepted.stream.read_exact(&mut byte) => { read.map_err(TlsError::of_io)?; }
            }
            accepted.stream.write_all(&byte).await.map_err(TlsError::of_io)?;
            accepted.stream.flush().await.map_err(TlsError::of_io)?;
        }
    })
    .await;
    let old = Epochs::new(w.both(1, &w.active));
    for round in 0..60_u32 {
        server.epochs.store(wide.clone());
        let mut first = dial(&server, &old, &SessionRegistry::new()).await;
        assert!(
            echo(&mut first).await,
            "round {round}: not usable before the change"
        );
        let mut dials = JoinSet::new();
        for _ in 0..4 {
            let (addr, old) = (server.addr.clone(), old.clone());
            dials.spawn(async move {
                let (sessions, expect) = (SessionRegistry::new(), Expect::AnyNode { cluster: cluster() });
                let mut connected = connect(&addr, &old, &sessions, &expect).await.ok()?;
                echo(&mut connected).await;
                Some(connected)
            });
        }
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        server.epochs.install(narrow.clone(), &server.sessions);
        assert!(!echo(&mut first).await, "round {round}: usable after the change");
        while let Some(dialled) = dials.join_next().await {
            let Some(mut connected) = dialled.unwrap() else {
                continue;
            };
            assert!(
                !echo(&mut connected).await,
                "round {round}: usable after the change"
            );
        }
    }
    assert!(server.sessions.is_empty());
    // The same server and certificate work as soon as both are trusted again: it was the change.
    server.epochs.store(wide);
    assert!(echo(&mut dial(&server, &old, &SessionRegistry::new()).await).await);
}

/// The exact moment that the second look is for: the handshake was begun under the old epoch and ends
/// under the new one, after the scan.
#[tokio::test]
async fn a_handshake_that_began_before_a_change_of_trust_is_judged_by_what_holds_after_it() {
    let w = World::new();
    let mut server = Server::holding(Epochs::new(w.both(2, &w.prepared))).await;
    let (epochs, sessions) = (server.epochs.clone(), server.sessions.clone());
    let narrow = w.epoch(2, &w.prepared, &[&w.prepared]);
    let act = move || assert_eq!(epochs.install(narrow, &sessions), 0);
    let mut stream = dial_and(&server, &w.both(1, &w.active), act).await;
    let seen = timeout(PATIENCE, server.outcomes.recv())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(seen, TlsError::Peer(PeerFault::UnknownIssuer { .. })),
        "{seen:?}"
    );
    assert!(server.sessions.is_empty());
    assert!(
        !timeout(PATIENCE, stream.read(&mut [0]))
            .await
            .unwrap()
            .is_ok_and(|n| n > 0)
    );
}

/// A drain asks the sessions that stand. One whose handshake ends after that stands on the retiring certificate
/// as well, and nobody would ever ask it.
#[tokio::test]
async fn a_handshake_that_began_before_a_drain_is_asked_to_end_when_it_is_done() {
    let w = World::new();
    let mut server = Server::with(Epochs::new(w.both(2, &w.active)), |accepted| async move {
        accepted.session.draining().await;
        Ok(())
    })
    .await;
    let (epochs, sessions) = (server.epochs.clone(), server.sessions.clone());
    let (switched, retiring) = (w.both(2, &w.prepared), w.active.pin());
    let act = move || {
        assert_eq!(epochs.install(switched, &sessions), 0);
        assert_eq!(sessions.ask_to_end(retiring), 0);
    };
    let _late = dial_and(&server, &w.both(1, &w.prepared), act).await;
    timeout(PATIENCE, server.outcomes.recv())
        .await
        .expect("it is asked to end")
        .unwrap()
        .unwrap();
    // One that begins after the switch stands on the new certificate, and stays.
    let _new = dial(
        &server,
        &Epochs::new(w.both(3, &w.prepared)),
        &SessionRegistry::new(),
    )
    .await;
    standing(&server.sessions, 1).await;
    assert_eq!(
        server.sessions.standing_on(retiring, &BTreeSet::new()).required,
        0
    );
}

/// Dials and does something in the middle of the handshake: the server's first bytes show that it has taken its
/// epoch, and ours come after what is done.
async fn dial_and<F: FnOnce() + Unpin>(
    server: &Server,
    client: &TrustEpoch,
    act: F,
) -> TlsStream<AtFirstRead<F>> {
    let presents = SingleCertAndKey::from(client.client().unwrap().certified());
    let config = client
        .dial(&Expect::AnyNode { cluster: cluster() }, Arc::new(presents))
        .unwrap();
    let tcp = AtFirstRead {
        tcp: TcpStream::connect(&server.addr).await.unwrap(),
        act: Some(act),
    };
    let name = ServerName::try_from("node.acme.cluster").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .unwrap()
}

/// A connection that does something once, when the first bytes have arrived.
struct AtFirstRead<F> {
    tcp: TcpStream,
    act: Option<F>,
}

impl<F: FnOnce() + Unpin> AsyncRead for AtFirstRead<F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.tcp).poll_read(cx, buf);
        if buf.filled().len() > before
            && let Some(act) = self.act.take()
        {
            act();
        }
        read
    }
}

impl<F: Unpin> AsyncWrite for AtFirstRead<F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// A node lets go of what stands on its own retired certificate too, whoever is at the other end.
#[tokio::test]
async fn a_session_on_our_own_retired_certificate_is_closed_as_well() {
    let w = World::new();
    // The node still served its old certificate when a client with a new one came.
    let server = Server::holding(Epochs::new(w.both(2, &w.active))).await;
    let new = Epochs::new(w.both(1, &w.prepared));
    let sessions = SessionRegistry::new();
    let _held = dial(&server, &new, &sessions).await;
    standing(&server.sessions, 1).await;
    assert_eq!(server.epochs.install(w.both(2, &w.prepared), &server.sessions), 0);
    assert_eq!(
        server
            .epochs
            .install(w.epoch(2, &w.prepared, &[&w.prepared]), &server.sessions),
        1
    );
    assert_eq!(new.install(w.epoch(1, &w.prepared, &[&w.prepared]), &sessions), 1);
}

async fn echo(connected: &mut Connected) -> bool {
    let exchange = async {
        connected.stream.write_all(b"x").await?;
        connected.stream.flush().await?;
        connected.stream.read_exact(&mut [0]).await
    };
    timeout(PATIENCE, exchange).await.is_ok_and(|r| r.is_ok())
}
