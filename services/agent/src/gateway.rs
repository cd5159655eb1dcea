//! Connections to a gateway: with our certificate, without one, or (public documents only) without trust.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use api::{Client, ClientError, Connect, ConnectError, client::Io};
use domain::{AuthorityType, ClusterName, Code, trust::SignedBundle};
use futures::future::BoxFuture;
use mtls::{Epochs, Expect, PeerFault, SessionRegistry, Target, TlsError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::config::Server;

/// How a gateway is dialled.
#[derive(Clone)]
pub(crate) enum Trust {
    /// With our certificate, to a gateway of the cluster.
    Certified {
        /// What is trusted and presented.
        epochs: Epochs,
        /// Whose gateway.
        cluster: ClusterName,
    },
    /// Without a certificate, to a gateway of the cluster: to join and to recover.
    Anonymous {
        /// What is trusted.
        epochs: Epochs,
        /// Whose gateway.
        cluster: ClusterName,
    },
    /// Whoever answers: only for documents that carry their own signature.
    Nobody,
}

/// A client of one gateway. Sessions are registered, so that a change of trust reaches them as well.
pub(crate) fn client(server: &Server, trust: Trust, registry: &SessionRegistry) -> Client {
    Client::new(Arc::new(Door {
        server: server.clone(),
        trust,
        registry: registry.clone(),
    }))
}

/// Fetches the trust bundle of a type without trusting the connection; the caller verifies the document.
pub(crate) async fn fetch_bundle(
    server: &Server,
    authority_type: AuthorityType,
) -> Result<SignedBundle, ClientError> {
    let path = api::route::fill(api::route::TRUST, authority_type.name());
    client(server, Trust::Nobody, &SessionRegistry::new())
        .get(&path)
        .await
}

/// What a failed exchange with a gateway means to an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// No answer: unreachable, overloaded, not ready. Try again.
    NoAnswer(String),
    /// It presents a certificate that we do not trust: fetch the newest signed bundle.
    Untrusted(String),
    /// It does not accept our certificate: recover. With the code, if it was said over HTTP and not by TLS.
    Refused(Option<Code>, String),
    /// It knows this node no more: only a person can help.
    Gone(Code, String),
    /// It refuses this one request; the connection is good.
    No(Code, String),
}

impl Trouble {
    /// Sorts an error by what to do about it.
    pub(crate) fn of(error: &ClientError) -> Self {
        let text = in_words(error);
        match error {
            ClientError::Unreachable { .. } | ClientError::Protocol { .. } => Self::NoAnswer(text),
            ClientError::Trust { source, .. } => match source.downcast_ref::<TlsError>() {
                Some(TlsError::Refused(_)) => Self::Refused(None, text),
                // Our clock or its: no document heals that, but nothing is lost by looking.
                Some(TlsError::Peer(PeerFault::NoCertificate)) | None => Self::NoAnswer(text),
                Some(_) => Self::Untrusted(text),
            },
            ClientError::Problem(problem) if problem.status == 429 || problem.status >= 500 => {
                Self::NoAnswer(text)
            }
            ClientError::Problem(problem) => match problem.code {
                code @ (Code::CertificateUnknown | Code::CertificateSuperseded | Code::Unauthenticated) => {
                    Self::Refused(Some(code), problem.detail.clone())
                }
                code @ (Code::NodeRemoved | Code::NodeUnknown) => Self::Gone(code, problem.detail.clone()),
                code => Self::No(code, problem.detail.clone()),
            },
        }
    }

    /// Does a gateway that proved itself say for good that there is no way in: about the token, the name or the
    /// proof? Whatever else it says (the row moved on, nothing is signed yet, a code of a later version) may be over
    /// by the next time. What it says by TLS alone does not count: without a certificate of ours there is nothing
    /// that it could refuse in that way.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            self.code(),
            Some(
                Code::TokenUnknown
                    | Code::TokenExpired
                    | Code::TokenUsed
                    | Code::TokenInvalid
                    | Code::NameNotGranted
                    | Code::NameTaken
                    | Code::NameReserved
                    | Code::AddressNotGranted
                    | Code::RecoveryRefused
                    | Code::CertificateSuperseded
                    | Code::NodeRemoved
                    | Code::CsrInvalid
                    | Code::KeyReused
            )
        )
    }

    /// What happened, for a person.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::NoAnswer(text)
            | Self::Untrusted(text)
            | Self::Refused(_, text)
            | Self::Gone(_, text)
            | Self::No(_, text) => text,
        }
    }

    /// The control plane's code, if it said one.
    pub(crate) fn code(&self) -> Option<Code> {
        match self {
            Self::NoAnswer(_) | Self::Untrusted(_) => None,
            Self::Refused(code, _) => *code,
            Self::Gone(code, _) | Self::No(code, _) => Some(*code),
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<ClientError>() {
        Some(ClientError::Problem(problem)) => format!("{}: {}", problem.code, problem.detail),
        Some(_) | None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(this) = cause {
        text.push_str(": ");
        text.push_str(&this.to_string());
        cause = this.source();
    }
    text
}

struct Door {
    server: Server,
    trust: Trust,
    registry: SessionRegistry,
}

impl Connect for Door {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, ConnectError>> {
        Box::pin(async {
            let authority = self.server.authority();
            let to = Target {
                addr: &authority,
                from: self.server.from,
            };
            match &self.trust {
                Trust::Nobody => {
                    let untrusted = mtls::connect_untrusted(to).await.map_err(sorted)?;
                    Ok(Box::new(untrusted.stream) as Box<dyn Io>)
                }
                Trust::Anonymous { epochs, cluster } => {
                    let expect = Expect::Gateway {
                        cluster: cluster.clone(),
                    };
                    let connected = mtls::connect_anonymous(to, epochs, &self.registry, &expect).await;
                    Ok(guarded(connected.map_err(sorted)?))
                }
                Trust::Certified { epochs, cluster } => {
                    let expect = Expect::Gateway {
                        cluster: cluster.clone(),
                    };
                    let connected = mtls::connect(to, epochs, &self.registry, &expect).await;
                    Ok(guarded(connected.map_err(sorted)?))
                }
            }
        })
    }

    fn authority(&self) -> String {
        self.server.authority()
    }

    fn judge(&self, error: &io::Error) -> Option<ConnectError> {
        // TLS 1.3: the gateway's verdict on our certificate arrives with the first read.
        mtls::refused_by_peer(error).map(|refusal| ConnectError::Trust(Box::new(TlsError::Refused(refusal))))
    }
}

fn sorted(error: TlsError) -> ConnectError {
    if error.is_trust_failure() {
        ConnectError::Trust(Box::new(error))
    } else {
        ConnectError::Unreachable(in_words(&error))
    }
}

fn guarded(connected: mtls::Connected) -> Box<dyn Io> {
    let ended = Box::pin(connected.session.close_token().cancelled_owned());
    Box::new(Guarded {
        stream: connected.stream,
        ended,
        _session: connected.session,
    })
}

/// A stream that stays registered as long as it is open, and ends when its session is closed.
struct Guarded<S> {
    stream: S,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    _session: mtls::Session,
}

fn closed() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the session was closed by a change of trust",
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(closed()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(closed()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
