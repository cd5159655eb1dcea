//! The door: connections in, handshakes, HTTP, and the orderly end of each.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mtls::{Accepted, PeerFault, PeerIdentity, TlsError, accept};
use runtime::ratelimit::source_of;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{answer, app::App, caller::still_counts, config::Config, reply::Body, strangers::SUMMARY_EVERY};
use places::{Place, Places, Stand};

mod places;

/// How long a client may take to send a request's head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to end in order, counted from when it was asked to: a node's is dialled
/// anew at once; a person's request may be waiting for an answer.
const NODE_END: Duration = Duration::from_secs(4);
const PERSON_END: Duration = Duration::from_secs(12);
/// How long connections may take to end when the process stops.
const STOP_END: Duration = Duration::from_secs(8);
/// Open files that are not connections: the log, the views, the listeners, and room to accept in.
const OTHER_FILES: u64 = 1024;
/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;

/// What is known of a connection while its requests are answered.
#[derive(Clone)]
pub(crate) struct Connection {
    /// Whose certificate was presented and verified; none for a caller without one.
    pub(crate) peer: Option<PeerIdentity>,
    /// Where it comes from.
    pub(crate) from: IpAddr,
    /// Cancelled when the connection should end: event streams end by themselves then.
    pub(crate) drain: CancellationToken,
    /// Its place at the door.
    pub(crate) stand: Stand,
}

/// Accepts until the shutdown, then lets what is open end.
pub(crate) async fn run(app: Arc<App>, listener: TcpListener) {
    let places = Places::new(most(&app.config), app.config.per_source);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = app.shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        // Finished connections leave the set here, so that it holds only open ones.
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((tcp, from)) => {
                // Without a place it is closed at once: what it would cost is a handshake.
                let Ok(place) = places.enter(source_of(from.ip())) else {
                    app.strangers.count("crowded");
                    continue;
                };
                connections.spawn(connection(app.clone(), tcp, from, place));
            }
            Err(error) => {
                // Out of file descriptors, most likely: those that are open go on and free theirs.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    runtime::shutdown::drain(&mut connections, STOP_END).await;
}

/// Writes down, minute by minute, who was turned away. Beside the door, because it matters most when the door
/// is busy.
pub(crate) async fn summaries(app: Arc<App>) {
    let mut every = tokio::time::interval(SUMMARY_EVERY);
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            _ = every.tick() => {
                app.strangers.summarise();
                app.presences.retain(|node| app.fold.read(|state| state.nodes.contains_key(node)));
            }
        }
    }
}

/// The most connections: what was configured, and never more than there are files for.
fn most(config: &Config) -> usize {
    let files = runtime::harden::open_files();
    // Where the limit is tight, half of it: a door that is too small is better than a log without a file.
    let places = files.saturating_sub(OTHER_FILES).max(files / 2);
    usize::try_from(places).map_or(config.max_connections, |places| {
        places.min(config.max_connections)
    })
}

async fn connection(app: Arc<App>, tcp: TcpStream, from: SocketAddr, place: Place) {
    let open = app.metrics.gauge("carousel_gateway_connections", &[]);
    open.inc();
    let begun = app.clock.monotonic();
    let gives_way = place.gives_way();
    // On the heap, here and below: thousands of connections stand idle, and none keeps room for its handshake or for
    // the largest answer.
    let accepting = Box::pin(accept(tcp, &app.epochs, &app.sessions));
    let accepted = tokio::select! {
        accepted = accepting => accepted.map(Box::new),
        () = gives_way.cancelled() => {
            app.strangers.count("crowded");
            return open.dec();
        }
    };
    let outcome = if accepted.is_ok() { "ok" } else { "failed" };
    let took = app.clock.monotonic().saturating_sub(begun);
    app.metrics
        .histogram("carousel_gateway_handshake_seconds", &[outcome])
        .observe(took.as_secs_f64());
    match accepted {
        Ok(accepted) => serve(&app, accepted, from.ip(), place).await,
        Err(error) => {
            app.strangers.count(reason(&error));
            tracing::debug!(%from, %error, "a handshake failed");
        }
    }
    open.dec();
}

async fn serve(app: &Arc<App>, accepted: Box<Accepted>, from: IpAddr, place: Place) {
    let is_h2 = accepted.stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let Accepted {
        stream,
        peer,
        session,
        ..
    } = *accepted;
    // Ends with the session's drain, and with the process.
    let drain = session.drain_token().child_token();
    let stop = app.shutdown.clone();
    let end = if peer
        .as_ref()
        .is_some_and(|p| p.authority_type == domain::AuthorityType::Host)
    {
        NODE_END
    } else {
        PERSON_END
    };
    let stand = place.stand();
    let life = life(app, peer.clone(), place);
    let caller = Connection {
        peer,
        from,
        drain: drain.clone(),
        stand,
    };
    let service = service_fn(|request: Request<Incoming>| {
        let (app, caller) = (app.clone(), caller.clone());
        Box::pin(async move { Ok::<Response<Body>, Infallible>(answer::answer(app, caller, request).await) })
    });
    let io = TokioIo::new(stream);
    let closed = async {
        tokio::select! {
            () = session.closed() => {}
            () = life => {}
        }
    };
    let ending = async {
        tokio::select! {
            () = session.draining() => {}
            () = stop.cancelled() => drain.cancel(),
        }
    };
    // Errors of a connection are its peer's business: it went away, or does not speak HTTP.
    if is_h2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(HEADER_TIMEOUT);
        let connection = Box::pin(builder.serve_connection(io, service));
        until_the_end!(connection, closed, ending, end);
    } else {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(64 * 1024);
        let connection = Box::pin(builder.serve_connection(io, service));
        until_the_end!(connection, closed, ending, end);
    }
}

/// How long a connection may stand at all: without end for whom the log knows, a minute for everybody else.
/// Whoever has no certificate asks for one document, or joins; nothing else would ever end its connection.
async fn life(app: &Arc<App>, peer: Option<PeerIdentity>, mut place: Place) {
    let gives_way = place.gives_way();
    // A certificate may be newer than the state: it is looked up again when the time is over.
    if !still_counts(app, peer.as_ref()) {
        tokio::select! {
            () = tokio::time::sleep(app.config.stranger_life) => {}
            () = gives_way.cancelled() => return app.strangers.count("crowded"),
        }
        if !still_counts(app, peer.as_ref()) {
            return;
        }
    }
    match place.is_known() {
        // The place is held as long as the connection.
        Ok(()) => std::future::pending().await,
        Err(_) => tracing::warn!("a connection is closed: every place for those we know is taken"),
    }
}

/// Drives a connection until it ends, must end, or was asked to end and did not in time.
macro_rules! until_the_end {
    ($connection:ident, $closed:ident, $ending:ident, $end:ident) => {{
        let mut connection = $connection;
        tokio::pin!($closed, $ending);
        tokio::select! {
            _ = &mut connection => return,
            () = &mut $closed => return,
            () = &mut $ending => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = &mut connection => {}
            () = $closed => {}
            () = tokio::time::sleep($end) => {}
        }
    }};
}
use until_the_end;

/// The reason of a failed handshake as a metric's label: few values, whatever the peers do.
fn reason(error: &TlsError) -> &'static str {
    match error {
        TlsError::Peer(fault) => match fault {
            PeerFault::UnknownIssuer { .. } => "unknown_issuer",
            PeerFault::Expired { .. } => "expired",
            PeerFault::NotYetValid { .. } => "not_yet_valid",
            PeerFault::Denied { .. } => "denied",
            PeerFault::WrongUsage | PeerFault::WrongIdentity { .. } => "wrong_identity",
            PeerFault::Malformed(_) | PeerFault::BadSignature => "malformed",
            PeerFault::NoCertificate => "no_certificate",
        },
        TlsError::Refused(_) => "refused_us",
        TlsError::Changed => "trust_changed",
        TlsError::Timeout { .. } => "timeout",
        TlsError::NotServing => "no_own_certificate",
        TlsError::Unreachable { .. } | TlsError::Broken(_) => "broken",
    }
}
