//! The routes of the control plane in small.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use api::{
    join::{JoinAnswer, JoinRequest, RECOVER_CONTEXT, RecoverRequest},
    node::{CertificateAnswer, CertificateRequest},
    problem::Problem,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use domain::{
    AuthorityType, AuthorizationId, Code, NodeId, Phase, Position, Principal,
    authority::KeyKind,
    event::LeafUse,
    fact::FactReport,
    phase::Generation,
    trust::{AuthorityStatus, Bundle, BundleAuthority},
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use mtls::PeerIdentity;
use pki::Certificate;

use super::{Inner, TOKEN};

pub(super) type Body = BoxBody<Bytes, Infallible>;

impl Inner {
    pub(super) async fn connection(self: Arc<Self>, tcp: tokio::net::TcpStream) {
        let Ok(accepted) = mtls::accept(tcp, &self.epochs, &self.sessions).await else {
            return;
        };
        let peer = accepted.peer.clone();
        let service = hyper::service::service_fn(move |request| {
            let (inner, peer) = (self.clone(), peer.clone());
            async move { Ok::<_, Infallible>(inner.route(request, peer).await) }
        });
        let closed = accepted.session.close_token();
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(accepted.stream), service);
        tokio::select! {
            () = closed.cancelled() => {}
            _ = connection => {}
        }
    }

    async fn route(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: Option<PeerIdentity>,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        // What comes beside a stream has no end; nobody counts presence here.
        let body = if parts.method == Method::POST {
            body.collect().await.unwrap().to_bytes()
        } else {
            Bytes::new()
        };
        match (parts.method, parts.uri.path()) {
            (Method::GET, "/v1/trust/host") => {
                self.state().trust_asked += 1;
                let refused = self.state().refuse_trust;
                refused.map_or_else(|| json(&self.signed()), problem)
            }
            (Method::POST, "/v1/join") => self.join(&body),
            (Method::POST, "/v1/recover") => self.recover(&body),
            (method, path) => {
                let known = peer.filter(|peer| self.state().issued.contains_key(&peer.digest));
                let Some(_) = known.filter(|_| !self.state().refuse_certificates) else {
                    return problem(Code::CertificateUnknown);
                };
                match (method, path) {
                    (Method::GET, "/v1/node/stream") => self.stream(),
                    (Method::POST, "/v1/node/certificates") => self.certificate(&body),
                    (Method::POST, "/v1/node/facts") => {
                        let report: FactReport = serde_json::from_slice(&body).unwrap();
                        let granted = self.state().granted.clone();
                        if !report.authorities.keys().all(|t| granted.contains(t)) {
                            return problem(Code::TypeNotGranted);
                        }
                        self.state().reports.push(report);
                        Response::builder()
                            .status(StatusCode::NO_CONTENT)
                            .body(empty())
                            .unwrap()
                    }
                    _ => problem(Code::NotFound),
                }
            }
        }
    }

    fn join(&self, body: &[u8]) -> Response<Body> {
        let asked: JoinRequest = serde_json::from_slice(body).unwrap();
        self.state().asked.push(asked.csr.clone());
        self.state().rejoins.push(asked.rejoin.clone());
        if let Some(code) = self.state().refuse_join {
            return problem(code);
        }
        if asked.token != TOKEN {
            return problem(Code::TokenUnknown);
        }
        let key = pki::csr::parse_and_verify(asked.csr.as_bytes()).unwrap();
        let used = {
            let state = self.state();
            state.used_by.clone().filter(|_| state.one_use)
        };
        match used {
            Some((spki, der, position)) if spki == key.spki => self.answer(&der, position),
            Some(_) => problem(Code::TokenUsed),
            None => {
                self.state().joins += 1;
                self.first(&asked.csr)
            }
        }
    }

    fn recover(&self, body: &[u8]) -> Response<Body> {
        let asked: RecoverRequest = serde_json::from_slice(body).unwrap();
        self.state().asked.push(asked.csr.clone());
        if let Some(code) = self.state().refuse_recovery {
            return problem(code);
        }
        let old = pki::pem::certificates(&asked.certificate).unwrap().remove(0);
        let old = Certificate::parse(&old).unwrap();
        let signature = STANDARD.decode(asked.signature).unwrap();
        let spki = old.public_key.spki_der();
        let is_proven =
            pki::statement::verify(spki, RECOVER_CONTEXT, asked.csr.as_bytes(), &signature).is_ok();
        if !is_proven || !self.state().issued.contains_key(&old.digest) {
            return problem(Code::RecoveryRefused);
        }
        self.state().recoveries += 1;
        self.first(&asked.csr)
    }

    fn first(&self, csr: &str) -> Response<Body> {
        let key = pki::csr::parse_and_verify(csr.as_bytes()).unwrap();
        let bundle = self.bundle();
        let (client, server) = (
            bundle.issuer(bundle.phase.row().client).unwrap(),
            bundle.issuer(Generation::Active).unwrap(),
        );
        let usage = if bundle.client_issuer() == bundle.server_issuer() {
            LeafUse::Both
        } else {
            LeafUse::Client
        };
        assert!(usage == LeafUse::Client || client == server || bundle.phase == Phase::UpdateServers);
        let holder = Principal::Node(self.node);
        let (der, position) = self.issue(&holder, usage, client, &key.public_key, key.spki);
        self.state().used_by = Some((key.spki, der.clone(), position));
        self.answer(&der, position)
    }

    fn answer(&self, der: &[u8], position: Position) -> Response<Body> {
        let update = self.update();
        json(&JoinAnswer {
            node: self.node,
            cluster: self.cluster.clone(),
            position,
            certificate: pki::pem::encode("CERTIFICATE", der),
            usage: Certificate::parse(der).unwrap().usage().unwrap(),
            bundles: update.bundles,
            desired: update.desired,
        })
    }

    fn certificate(&self, body: &[u8]) -> Response<Body> {
        if let Some(code) = self.state().refuse_request {
            return problem(code);
        }
        let asked: CertificateRequest = serde_json::from_slice(body).unwrap();
        if !asked.csr.starts_with("-----") {
            return self.certificate_of_sshd(&asked);
        }
        let key = pki::csr::parse_and_verify(asked.csr.as_bytes()).unwrap();
        let bundle = self.bundle();
        let row = if asked.usage.client() {
            bundle.client_issuer()
        } else {
            bundle.server_issuer()
        };
        if asked.issuer != row {
            return problem(Code::StaleView);
        }
        let holder = self.misissued_to();
        let (der, position) = self.issue(
            &Principal::Node(holder),
            asked.usage,
            row.unwrap(),
            &key.public_key,
            key.spki,
        );
        json(&CertificateAnswer {
            authorization: AuthorizationId(uuid::Uuid::from_u128(1)),
            not_after: Certificate::parse(&der).unwrap().not_after,
            certificate: pki::pem::encode("CERTIFICATE", &der),
            position,
        })
    }

    /// The bundle of `user`, whose authority stays the same.
    pub(super) fn user_bundle(&self) -> Bundle {
        let authority = BundleAuthority {
            id: self.user_ca.pin(),
            kind: KeyKind::Tls,
            public_key: String::new(),
            status: AuthorityStatus::Active,
            generation: 1,
            certificate: self.user_ca.to_base64(),
        };
        Bundle {
            authority_type: AuthorityType::User,
            phase: Phase::Standby,
            revision: Position(5),
            authorities: vec![authority],
            ..self.bundle()
        }
    }

    /// This node, unless the test wants somebody else's.
    pub(super) fn misissued_to(&self) -> NodeId {
        let mut state = self.state();
        let is_wrong = state.misissue > 0;
        state.misissue = state.misissue.saturating_sub(1);
        if is_wrong {
            NodeId(uuid::Uuid::from_u128(99))
        } else {
            self.node
        }
    }

    fn stream(self: Arc<Self>) -> Response<Body> {
        let changed = self.changed.subscribe();
        let events =
            futures::stream::unfold((self, changed, true), |(inner, mut changed, first)| async move {
                if !first {
                    changed.changed().await.ok()?;
                }
                changed.mark_unchanged();
                let text = format!(
                    "event: desired\ndata: {}\n\n",
                    serde_json::to_string(&inner.update()).unwrap()
                );
                Some((
                    Ok::<_, Infallible>(Frame::data(Bytes::from(text))),
                    (inner, changed, false),
                ))
            });
        Response::new(BodyExt::boxed(StreamBody::new(Box::pin(SyncStream(Mutex::new(
            Box::pin(events),
        ))))))
    }
}

/// A stream that may be shared, which a boxed body has to be and nobody does.
struct SyncStream<S>(Mutex<std::pin::Pin<Box<S>>>);

impl<S: futures::Stream> futures::Stream for SyncStream<S> {
    type Item = S::Item;
    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.0.lock().unwrap().as_mut().poll_next(cx)
    }
}

fn empty() -> Body {
    Full::new(Bytes::new()).boxed()
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Response<Body> {
    Response::new(Full::new(Bytes::from(serde_json::to_vec(value).unwrap())).boxed())
}

pub(super) fn problem(code: Code) -> Response<Body> {
    let problem = Problem::new(code, "as the test wants it");
    let body = serde_json::to_vec(&problem).unwrap();
    Response::builder()
        .status(problem.status)
        .body(Full::new(Bytes::from(body)).boxed())
        .unwrap()
}
