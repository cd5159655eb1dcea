//! The client's side of a handshake.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::ring::default_provider,
    sign::CertifiedKey,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    net::{TcpSocket, TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    accept::HANDSHAKE_TIMEOUT,
    credential::Credential,
    epoch::TrustEpoch,
    epochs::Epochs,
    error::{PeerFault, TlsError, refused_by_peer},
    identity::{Expect, PeerIdentity},
    registry::{Session, SessionRegistry},
    verdict::{Verdict, failure, judged, peer_of},
    verify::AnyServer,
};

/// Where to connect to, and from where.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// `host:port`.
    pub addr: &'a str,
    /// An address of this host; the system picks one where none is given.
    pub from: Option<IpAddr>,
}

impl<'a> From<&'a str> for Target<'a> {
    fn from(addr: &'a str) -> Self {
        Self { addr, from: None }
    }
}

impl<'a> From<&'a String> for Target<'a> {
    fn from(addr: &'a String) -> Self {
        Self::from(&**addr)
    }
}

/// A connection to the server that was wanted.
///
/// The server may still refuse our certificate: the first read says so ([`crate::refused_by_peer`]).
#[derive(Debug)]
pub struct Connected {
    /// The stream; give it up when [`Session::closed`] resolves.
    pub stream: TlsStream<TcpStream>,
    /// The server.
    pub peer: PeerIdentity,
    /// The place in the registry.
    pub session: Session,
    /// The subjects (DER) of the authorities that the server says it accepts clients of; none if it
    /// did not ask for a certificate or named nobody.
    pub ca_names: BTreeSet<Vec<u8>>,
}

/// A connection to somebody. Only for reading documents that carry their own signature.
#[derive(Debug)]
pub struct Untrusted {
    /// The stream: send nothing over it that is not public.
    pub stream: TlsStream<TcpStream>,
    /// What the server presented; it proves nothing.
    pub presented: Vec<CertificateDer<'static>>,
}

/// Connects to `host:port`, presents our client certificate if asked, and accepts only the server that
/// is expected.
pub async fn connect(
    to: impl Into<Target<'_>>,
    epochs: &Epochs,
    sessions: &SessionRegistry,
    expect: &Expect,
) -> Result<Connected, TlsError> {
    dial(to.into(), epochs, sessions, expect, true).await
}

/// The same without presenting a certificate: for `recover`, where ours is refused, and for `join`,
/// where there is none yet.
pub async fn connect_anonymous(
    to: impl Into<Target<'_>>,
    epochs: &Epochs,
    sessions: &SessionRegistry,
    expect: &Expect,
) -> Result<Connected, TlsError> {
    dial(to.into(), epochs, sessions, expect, false).await
}

/// Connects to `host:port` whoever answers there.
pub async fn connect_untrusted(to: impl Into<Target<'_>>) -> Result<Untrusted, TlsError> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::Broken(io::Error::other(error)))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    let (stream, _) = handshake(to.into(), config).await?;
    let presented = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let presented = presented.iter().map(|c| c.clone().into_owned()).collect();
    Ok(Untrusted { stream, presented })
}

async fn dial(
    to: Target<'_>,
    epochs: &Epochs,
    sessions: &SessionRegistry,
    expect: &Expect,
    present: bool,
) -> Result<Connected, TlsError> {
    let epoch = epochs.load();
    let presenter = Arc::new(Presenter::new(&epoch, present));
    let config = epoch
        .dial(expect, presenter.clone())
        .map_err(|error| TlsError::Broken(io::Error::other(error)))?;
    let (stream, verdict) = handshake(to, config).await?;
    let peer = peer_of(stream.get_ref().1, verdict)?.ok_or(PeerFault::NoCertificate)?;
    let (asked, ca_names) = presenter.seen();
    let own = epoch
        .client()
        .filter(|_| present && asked)
        .map(Credential::issuer);
    // Registered first, then judged again: as in `accept`.
    let session = sessions.register(Some(peer.clone()), own, &epoch);
    session.check(&epochs.load())?;
    Ok(Connected {
        stream,
        peer,
        session,
        ca_names,
    })
}

type Handshaken = (TlsStream<TcpStream>, Option<Verdict>);

/// Reaches the address and makes the handshake, both within one deadline.
async fn handshake(to: Target<'_>, config: ClientConfig) -> Result<Handshaken, TlsError> {
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let late = |_| TlsError::Timeout {
        after: HANDSHAKE_TIMEOUT,
    };
    let unreachable = |source| TlsError::Unreachable {
        addr: to.addr.to_owned(),
        source,
    };
    let name = server_name(to.addr).ok_or_else(|| unreachable(io::ErrorKind::InvalidInput.into()))?;
    let tcp = timeout_at(deadline, reach(to))
        .await
        .map_err(late)?
        .map_err(unreachable)?;
    tcp.set_nodelay(true).map_err(unreachable)?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp);
    let (result, verdict) = timeout_at(deadline, judged(connecting)).await.map_err(late)?;
    match result {
        Ok(stream) => Ok((stream, verdict)),
        Err(error) => Err(unanswered(error, verdict)),
    }
}

/// Opens the connection under it.
async fn reach(to: Target<'_>) -> io::Result<TcpStream> {
    let Some(from) = to.from else {
        return TcpStream::connect(to.addr).await;
    };
    let mut why = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let reachable = lookup_host(to.addr)
        .await?
        .filter(|at| at.is_ipv4() == from.is_ipv4());
    for at in reachable {
        let socket = if from.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.bind((from, 0).into())?;
        match socket.connect(at).await {
            Ok(tcp) => return Ok(tcp),
            Err(error) => why = error,
        }
    }
    Err(why)
}

/// Why there is no connection. An alert within the handshake is nobody's word: it may come in plain text from whoever
/// sits in between, and a server judges our certificate only after our last message (RFC 8446, section 4.4.2.4). So
/// it is a broken connection, and only an alert that comes later, under the keys of a server that proved itself, says
/// that we were refused.
fn unanswered(error: io::Error, verdict: Option<Verdict>) -> TlsError {
    let is_judged = matches!(verdict, Some(Err(_)));
    if !is_judged && refused_by_peer(&error).is_some() {
        return TlsError::Broken(error);
    }
    failure(error, verdict)
}

/// The name for the handshake's server name indication; identity is not read from it.
fn server_name(addr: &str) -> Option<ServerName<'static>> {
    let (host, _port) = addr.rsplit_once(':')?;
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}

/// Presents our certificate when asked, and remembers what the question said.
#[derive(Debug)]
pub(crate) struct Presenter {
    certified: Option<Arc<CertifiedKey>>,
    /// The subjects in the CertificateRequest; none before there was one.
    named: Mutex<Option<BTreeSet<Vec<u8>>>>,
}

impl Presenter {
    pub(crate) fn new(epoch: &TrustEpoch, present: bool) -> Self {
        let certified = epoch.client().filter(|_| present).map(Credential::certified);
        Self {
            certified,
            named: Mutex::default(),
        }
    }

    /// Presents nothing, and only sees what is asked for.
    pub(crate) fn nothing() -> Self {
        Self {
            certified: None,
            named: Mutex::default(),
        }
    }

    /// Was a certificate asked for, and of which authorities?
    pub(crate) fn seen(&self) -> (bool, BTreeSet<Vec<u8>>) {
        let named = self.named.lock().unwrap_or_else(PoisonError::into_inner).take();
        (named.is_some(), named.unwrap_or_default())
    }
}

impl ResolvesClientCert for Presenter {
    fn resolve(&self, root_hint_subjects: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let named = root_hint_subjects
            .iter()
            .map(|subject| subject.to_vec())
            .collect();
        *self.named.lock().unwrap_or_else(PoisonError::into_inner) = Some(named);
        // Presented whatever the server names: being refused tells more than presenting nothing.
        self.certified.clone()
    }

    fn has_certs(&self) -> bool {
        // True also without one, so that the question is seen.
        true
    }
}
