//! The server's side of a handshake.

use std::time::Duration;

use domain::{CertDigest, SpkiPin};
use rustls::server::Acceptor;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

use crate::{
    epochs::Epochs,
    error::{PeerFault, TlsError},
    identity::PeerIdentity,
    registry::{Session, SessionRegistry},
    verdict::{failure, judged, peer_of},
};

/// The longest a handshake may take, on either side.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long, and over how many bytes, a refused client is listened to so that it can read why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 * 1024;

/// A connection whose peer was judged.
#[derive(Debug)]
pub struct Accepted {
    /// The stream; give it up when [`Session::closed`] resolves.
    pub stream: TlsStream<TcpStream>,
    /// Who connected; none if it presented no certificate ([`crate::ClientAuth::Optional`] only).
    pub peer: Option<PeerIdentity>,
    /// The issuer of the certificate that was served.
    pub served: SpkiPin,
    /// The certificate that was served.
    pub served_digest: CertDigest,
    /// The place in the registry. Dropping it ends the registration, not the stream.
    pub session: Session,
}

impl Accepted {
    /// The peer, where a certificate is needed.
    pub fn require_peer(&self) -> Result<&PeerIdentity, TlsError> {
        self.peer.as_ref().ok_or(TlsError::Peer(PeerFault::NoCertificate))
    }
}

/// Makes the handshake with a client that connected, under the epoch of this moment.
///
/// Registered first, then judged again by the epoch that is current by then, and only then returned: a
/// change of trust in between either finds the session in the registry or is seen by the second look. A session
/// that would be served another issuer's certificate by then is good, but asked to end: it came too late to be
/// asked with the others.
pub async fn accept(
    tcp: TcpStream,
    epochs: &Epochs,
    sessions: &SessionRegistry,
) -> Result<Accepted, TlsError> {
    // Small messages both ways; without this each would wait for the other side's acknowledgement.
    tcp.set_nodelay(true).map_err(TlsError::Broken)?;
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let late = |_| TlsError::Timeout {
        after: HANDSHAKE_TIMEOUT,
    };
    let hello = timeout_at(deadline, LazyConfigAcceptor::new(Acceptor::default(), tcp))
        .await
        .map_err(late)?
        .map_err(TlsError::of_io)?;
    let named = hello.client_hello().certificate_authorities().map(<[_]>::to_vec);
    let epoch = epochs.load();
    let (credential, config) = epoch.serve(named.as_deref()).ok_or(TlsError::NotServing)?;
    let handshake = hello.into_stream(config.clone()).into_fallible();
    let (result, verdict) = timeout_at(deadline, judged(handshake)).await.map_err(late)?;
    let stream = match result {
        Ok(stream) => stream,
        Err((error, tcp)) => {
            linger(tcp).await;
            return Err(failure(error, verdict));
        }
    };
    let peer = peer_of(stream.get_ref().1, verdict)?;
    let session = sessions.register(peer.clone(), Some(credential.issuer()), &epoch);
    let current = epochs.load();
    session.check(&current)?;
    // Whoever asked the sessions on our certificate to end did so before this one was there.
    let would_serve = current.serve(named.as_deref()).map(|(now, _)| now.issuer());
    if would_serve != Some(credential.issuer()) {
        session.ask_to_end();
    }
    let (served, served_digest) = (credential.issuer(), credential.certificate().digest);
    Ok(Accepted {
        stream,
        peer,
        served,
        served_digest,
        session,
    })
}

/// Lets a refused client read the alert.
///
/// In TLS 1.3 it may have sent a request already; closing with that unread makes the system reset the
/// connection, and the client would see "reset" instead of why.
async fn linger(mut tcp: TcpStream) {
    // Best effort: the refusal stands whatever becomes of the connection.
    let _ = timeout(LINGER, async {
        tcp.shutdown().await?;
        tokio::io::copy(&mut (&mut tcp).take(LINGER_BYTES), &mut tokio::io::sink()).await
    })
    .await;
}
