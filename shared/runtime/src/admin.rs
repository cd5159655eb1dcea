//! The plain HTTP endpoint for probes and scrapes: `/healthz`, `/livez`, `/readyz`, `/metrics`.
//!
//! It shows no secret and changes nothing, but it has no authentication either: it belongs on loopback or on a network
//! for monitoring. That is why it is a listener of its own, apart from the mTLS door.

use std::io;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::readiness::Readiness;

/// How long open connections may take to end after the shutdown; a scraper that hangs must not hold the process.
const LINGER: Duration = Duration::from_secs(1);

/// Serves until `shutdown` is cancelled.
///
/// - `/livez` 200 unless a part has failed (then 503: restart it and look at the log);
/// - `/readyz` 200 when every part is ready, else 503; both with one line per part;
/// - `/healthz` both at once: 200 when alive and ready;
/// - each with `?verbose`: a mark before each part, `[+]log ok`;
/// - `/metrics` Prometheus text.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let stop = shutdown.clone();
    let server = axum::serve(listener, router(metrics, readiness))
        .with_graceful_shutdown(async move { stop.cancelled().await });
    let lingering = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        served = server => served,
        () = lingering => Ok(()),
    }
}

/// The routes alone, for tests and for embedding.
pub fn router(metrics: Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Shared { metrics, readiness })
}

#[derive(Clone)]
struct Shared {
    metrics: Metrics,
    readiness: Readiness,
}

async fn healthz(State(shared): State<Shared>, RawQuery(query): RawQuery) -> impl IntoResponse {
    verdict(
        shared.readiness.is_alive() && shared.readiness.is_ready(),
        &shared.readiness,
        query.as_deref(),
    )
}

async fn livez(State(shared): State<Shared>, RawQuery(query): RawQuery) -> impl IntoResponse {
    verdict(shared.readiness.is_alive(), &shared.readiness, query.as_deref())
}

async fn readyz(State(shared): State<Shared>, RawQuery(query): RawQuery) -> impl IntoResponse {
    verdict(shared.readiness.is_ready(), &shared.readiness, query.as_deref())
}

async fn scrape(State(shared): State<Shared>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        shared.metrics.encode(),
    )
}

fn verdict(good: bool, readiness: &Readiness, query: Option<&str>) -> impl IntoResponse + use<> {
    let status = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let word = if good { "ok" } else { "not ok" };
    let asked = |pair: &str| pair.split('=').next() == Some("verbose");
    let parts = if query.is_some_and(|query| query.split('&').any(asked)) {
        readiness.marked()
    } else {
        readiness.describe()
    };
    // A cached answer about health is a wrong one.
    (
        status,
        [(header::CACHE_CONTROL, "no-store")],
        format!("{word}\n{parts}"),
    )
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;

    use super::*;

    async fn ask(addr: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("the endpoint listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn probes_follow_the_parts_and_the_scrape_shows_metrics() {
        let (metrics, readiness) = (Metrics::new("1.2.3"), Readiness::new());
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(
            listener,
            metrics.clone(),
            readiness.clone(),
            shutdown.clone(),
        ));

        let part = readiness.part("gateway", "the log");
        let answer = ask(addr, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("gateway: waiting for the log"),
            "{answer}"
        );
        let answer = ask(addr, "/readyz?verbose").await;
        assert!(answer.ends_with("[-]gateway waiting for the log\n"), "{answer}");
        assert!(ask(addr, "/livez").await.starts_with("HTTP/1.1 200"));
        assert!(ask(addr, "/healthz").await.starts_with("HTTP/1.1 503"));
        part.ready();
        assert!(ask(addr, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(addr, "/healthz").await.starts_with("HTTP/1.1 200"));
        part.failed("gap after position 41");
        assert!(ask(addr, "/livez").await.starts_with("HTTP/1.1 503"));
        let scraped = ask(addr, "/metrics").await;
        assert!(
            scraped.contains("carousel_build_info{version=\"1.2.3\"} 1"),
            "{scraped}"
        );
        assert!(ask(addr, "/").await.starts_with("HTTP/1.1 404"));

        // A client that connects and says nothing does not hold the end up.
        let _silent = TcpStream::connect(addr).await.expect("the endpoint listens");
        shutdown.cancel();
        tasks
            .join_next()
            .await
            .expect("one task")
            .expect("no panic")
            .expect("an orderly end");
    }
}
