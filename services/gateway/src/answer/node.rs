//! What a node does: hold a stream, ask for certificates, report facts. Each speaks for itself alone.

use std::{sync::Arc, time::Duration};

use api::MAX_BODY_BYTES;
use api::node::{CERTIFICATE_EVENT, CertificateAnswer, DESIRED_EVENT, HEARTBEAT_S};
use bytes::Bytes;
use domain::{Answer, Code, NodeId, Order, Principal, authority::KeyKind, fact::Seen};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Interval};

use super::{Asked, leave::Leave};
use crate::{
    app::{App, PATIENCE},
    body,
    handout::{self, Handout},
    hub::{Hub, Subscription},
    presence::Present,
    reply::{self, No, Reply},
    turns,
};

/// `GET /v1/node/stream`: the newest desired state at once and whenever it changes, certificates as they
/// are issued, and a heartbeat.
pub(super) async fn stream(asked: &Asked) -> Reply {
    let node = asked.caller.node()?;
    let app = asked.app.clone();
    // Subscribed before the first look: a change in between wakes the stream.
    let subscription = Hub::subscribe(&app, node);
    let present = app.presences.stream(node, app.now());
    let gauge = app.metrics.gauge("carousel_gateway_streams", &[]);
    gauge.inc();
    let open = Open {
        node,
        leave: Leave::of(asked),
        subscription,
        present,
        gauge: Counted(gauge),
        sent: None,
        due: true,
        turn: None,
        beside: asked.take_beside(),
        left: MAX_BODY_BYTES,
        heartbeat: tokio::time::interval(Duration::from_secs(HEARTBEAT_S)),
        app,
    };
    reply::stream(futures::stream::unfold(open, |mut open| async move {
        let bytes = open.next().await?;
        Some((bytes, open))
    }))
}

/// One open stream.
struct Open {
    app: Arc<App>,
    node: NodeId,
    leave: Leave,
    subscription: Subscription,
    present: Present,
    #[allow(dead_code, reason = "counts down when the stream is dropped")]
    gauge: Counted,
    sent: Option<Handout>,
    due: bool,
    /// When it is this stream's turn to look at what has changed for all of them.
    turn: Option<Instant>,
    /// The node's own bytes: whatever it sends there, it lives. What we send it proves nothing, for the kernel takes
    /// it on behalf of a process that hangs.
    beside: Option<Incoming>,
    /// How many bytes more it may send there.
    left: usize,
    heartbeat: Interval,
}

struct Counted(runtime::metrics::IntGauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Open {
    /// The next event; `None` ends the stream, and the node dials anew. A member that lapsed serves nobody, not
    /// even with what it found before: the node dials perhaps another gateway.
    async fn next(&mut self) -> Option<Bytes> {
        let bytes = self.wait().await;
        bytes.filter(|_| self.leave.stands())
    }

    async fn wait(&mut self) -> Option<Bytes> {
        loop {
            if self.due {
                self.due = false;
                match Box::pin(self.newest()).await {
                    Newest::Same => {}
                    Newest::Event(bytes) => return Some(bytes),
                    Newest::Gone => return None,
                }
            }
            tokio::select! {
                biased;
                () = self.leave.over() => return None,
                changed = self.subscription.version.changed() => {
                    if changed.is_err() { return None; }
                    self.turn.get_or_insert_with(|| {
                        Instant::now() + self.app.hub.turns.take(self.app.clock.monotonic())
                    });
                }
                () = until(self.turn) => {
                    self.turn = None;
                    self.due = true;
                }
                certificate = self.subscription.certificates.recv() => {
                    // None: newer streams of this node took its place.
                    let certificate = certificate?;
                    let data = serde_json::to_string(&certificate).ok()?;
                    return Some(reply::event(CERTIFICATE_EVENT, Some(certificate.position.0), &data));
                }
                bytes = heard(&mut self.beside) => match bytes {
                    // Like any body, it has an end: after a day of beats the node dials anew.
                    Some(bytes) if bytes > self.left => return None,
                    Some(bytes) => {
                        self.left -= bytes;
                        self.present.touch(self.app.now());
                    }
                    None => self.beside = None,
                },
                _ = self.heartbeat.tick() => {
                    if !self.leave.reader_counts() {
                        return None;
                    }
                    self.due = self.turn.is_none();
                    return Some(reply::comment());
                }
            }
        }
    }

    async fn newest(&mut self) -> Newest {
        let node = self.node;
        let (known, handout) = self
            .app
            .fold
            .read(|s| (s.nodes.contains_key(&node), handout::current(&self.app, s, node)));
        if !known {
            return Newest::Gone;
        }
        let is_news = |new: &Handout| self.sent.as_ref().is_none_or(|sent| new.is_news_after(sent));
        let Some(handout) = handout.filter(is_news) else {
            return Newest::Same;
        };
        match handout::with_bundles(&self.app, handout.clone()).await {
            Ok(update) => {
                let Ok(data) = serde_json::to_string(&update) else {
                    return Newest::Gone;
                };
                let position = handout.desired.position.0;
                self.sent = Some(handout);
                let retry = reply::retry(turns::coming_back(self.app.hub.nodes()));
                let event = reply::event(DESIRED_EVENT, Some(position), &data);
                Newest::Event([retry, event].concat().into())
            }
            Err(no) => {
                // The log cannot be read now: the next heartbeat looks again.
                tracing::warn!(problem = %no.0, "a desired state could not be sent");
                Newest::Same
            }
        }
    }
}

/// Waits for a moment; for ever where there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Waits for the node's next bytes and counts them; none when none will come any more.
async fn heard(beside: &mut Option<Incoming>) -> Option<usize> {
    match beside {
        Some(body) => {
            let frame = body.frame().await?.ok()?;
            Some(frame.data_ref().map_or(0, Bytes::len))
        }
        None => std::future::pending().await,
    }
}

enum Newest {
    Same,
    Event(Bytes),
    Gone,
}

/// `GET /v1/node/desired`: the same once.
pub(super) async fn desired(asked: &Asked) -> Reply {
    let (app, node) = (&asked.app, asked.caller.node()?);
    app.catch_up().await?;
    let found = app
        .wait_until(Instant::now() + PATIENCE, |s| handout::current(app, s, node))
        .await;
    let Some(handout) = found else {
        let text = "this gateway does not hold the current row yet: ask again, or another one";
        return Err(No::new(Code::NotServing, text).retry_after(1));
    };
    reply::json(&handout::with_bundles(app, handout).await?)
}

/// `POST /v1/node/certificates`.
pub(super) async fn certificate(asked: &Asked) -> Reply {
    let node = asked.caller.node()?;
    let (wanted, key) = body::certificate(&asked.body)?;
    let is_tls = matches!(
        wanted.order,
        Order::RequestCertificate {
            form: KeyKind::Tls,
            ..
        }
    );
    asked
        .app
        .nodes
        .certificate(&asked.app, node, is_tls.then_some(key.spki))?;
    let _renewal = asked.app.precedence.renewal();
    let answered = asked.execute(asked.command(wanted)).await?;
    let Answer::Authorized { authorization } = answered.answer else {
        return Err(No::new(
            Code::Internal,
            "a request for a certificate was answered with something else",
        ));
    };
    let holder = Principal::Node(node);
    let issued = asked.app.certificate(&holder, authorization).await?;
    reply::json(&CertificateAnswer {
        authorization,
        certificate: issued.text,
        position: issued.position,
        not_after: issued.not_after,
    })
}

/// `POST /v1/node/facts`: with what the gateway saw of the connection that the report came by.
pub(super) async fn facts(asked: &Asked) -> Reply {
    let result = report(asked).await;
    let outcome = match &result {
        Ok(outcome) => outcome,
        Err(no) if matches!(no.code(), Code::ReportTooOften | Code::RateLimited) => "limited",
        Err(_) => "refused",
    };
    asked
        .app
        .metrics
        .counter("carousel_node_reports_total", &[outcome])
        .inc();
    result?;
    reply::done()
}

/// What became of a report.
async fn report(asked: &Asked) -> Result<&'static str, No> {
    let node = asked.caller.node()?;
    asked.app.nodes.report(&asked.app, node)?;
    let report = body::report(&asked.body)?;
    let peer = asked.caller.require_peer()?;
    let seen = Seen {
        certificate: peer.digest,
        issuer: peer.issuer,
        // Without the port: the same report over another connection says the same.
        from: Some(asked.connection.from.to_canonical().to_string()),
    };
    let before = asked.app.fold.position();
    let answered = asked
        .execute_own(Principal::Node(node), Order::Report { node, report, seen })
        .await?;
    Ok(if answered.position > before {
        "recorded"
    } else {
        "unchanged"
    })
}
