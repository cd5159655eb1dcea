//! The connector under the HTTP client: dials a gateway of the cluster, or, for signed documents, anybody.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use api::{Connect, ConnectError, client::Io};
use futures::future::BoxFuture;
use mtls::{Epochs, Expect, SessionRegistry, TlsError};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How one server is dialled.
pub struct Door {
    authority: String,
    trust: Trust,
}

enum Trust {
    Certified {
        epochs: Epochs,
        sessions: SessionRegistry,
        expect: Expect,
    },
    Anybody,
}

impl Door {
    /// With our certificate, to the server that is expected, by whatever epoch is in force then.
    pub fn certified(authority: String, epochs: Epochs, sessions: SessionRegistry, expect: Expect) -> Self {
        Self {
            authority,
            trust: Trust::Certified {
                epochs,
                sessions,
                expect,
            },
        }
    }

    /// Whoever answers. Only for documents that carry their own signature: nothing is sent but the question.
    pub fn anybody(authority: String) -> Self {
        Self {
            authority,
            trust: Trust::Anybody,
        }
    }
}

impl Connect for Door {
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, ConnectError>> {
        Box::pin(async {
            match &self.trust {
                Trust::Anybody => {
                    let untrusted = mtls::connect_untrusted(&self.authority).await.map_err(sorted)?;
                    Ok(Box::new(untrusted.stream) as Box<dyn Io>)
                }
                Trust::Certified {
                    epochs,
                    sessions,
                    expect,
                } => {
                    let connected = mtls::connect(&self.authority, epochs, sessions, expect)
                        .await
                        .map_err(sorted)?;
                    Ok(Box::new(Registered {
                        stream: connected.stream,
                        _session: connected.session,
                    }) as Box<dyn Io>)
                }
            }
        })
    }

    fn authority(&self) -> String {
        self.authority.clone()
    }

    fn judge(&self, error: &io::Error) -> Option<ConnectError> {
        // TLS 1.3: the server's verdict on our certificate arrives with the first read.
        mtls::refused_by_peer(error).map(|refusal| ConnectError::Trust(Box::new(TlsError::Refused(refusal))))
    }
}

fn sorted(error: TlsError) -> ConnectError {
    if error.is_trust_failure() {
        ConnectError::Trust(Box::new(error))
    } else {
        ConnectError::Unreachable(crate::failure::in_words(&error))
    }
}

/// A stream that keeps its place in the registry as long as it is open.
struct Registered<S> {
    stream: S,
    _session: mtls::Session,
}

impl<S: AsyncRead + Unpin> AsyncRead for Registered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Registered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
