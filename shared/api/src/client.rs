//! An HTTP client over any byte stream. It knows no TLS: a connector brings the stream, already encrypted
//! and with the other side's identity checked.
//!
//! Each request has a connection of its own. Reuse would save a handshake of about a millisecond, and cost
//! the rule that what a caller presents is its newest certificate: the gateway compares a report with the
//! certificate of the connection that it came by.

use std::{io, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::problem::Problem;

pub use sse::{EventReader, EventStream, ServerEvent};

use sent::Sent;

mod sent;
mod sse;

/// The most that an answer may weigh: a list of a hundred thousand nodes.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// How long a request may take when nothing else is said: the gateway itself answers within 10 s.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// A byte stream to the server.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Opens connections to one server.
pub trait Connect: Send + Sync {
    /// A new connection, with the server's identity checked.
    fn connect(&self) -> BoxFuture<'_, Result<Box<dyn Io>, ConnectError>>;

    /// `host:port`, for the `Host` header and messages.
    fn authority(&self) -> String;

    /// Explains an error of a connection that was open. With TLS 1.3 a client's handshake is over before the
    /// server has judged its certificate, so that a refusal arrives as an error of the first read.
    fn judge(&self, _error: &io::Error) -> Option<ConnectError> {
        None
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody answers, but one side does not trust the other.
    #[error("{0}")]
    Trust(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a request has no answer, or the answer is no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers, or the answer did not come in time. Whether the request took effect is not known: send
    /// it again with the same id.
    #[error("cannot reach {authority}: {detail}")]
    Unreachable {
        /// The server.
        authority: String,
        /// What happened.
        detail: String,
    },
    /// One side does not trust the other. The source is the connector's own error.
    #[error("{authority} is not trusted, or does not trust this identity")]
    Trust {
        /// The server.
        authority: String,
        /// The connector's own error, to be looked into by type.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The control plane says no.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// What came back is not this API.
    #[error("{authority} does not speak this API: {detail}")]
    Protocol {
        /// The server.
        authority: String,
        /// What was wrong with it.
        detail: String,
    },
}

impl ClientError {
    /// The problem, if the control plane said no.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Problem(problem) => Some(problem),
            Self::Unreachable { .. } | Self::Trust { .. } | Self::Protocol { .. } => None,
        }
    }

    /// May the same request succeed later by itself? 429 and 5xx are no answer, not a refusal.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Problem(problem) => problem.status == 429 || problem.status >= 500,
            Self::Trust { .. } | Self::Protocol { .. } => false,
        }
    }
}

/// Told of each request before it is sent, by method and path; gives the `traceparent` that goes with it.
pub type Tracer = Arc<dyn Fn(&Method, &str) -> String + Send + Sync>;

/// A client of one server. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    connector: Arc<dyn Connect>,
    timeout: Duration,
    limit: usize,
    tracer: Option<Tracer>,
}

impl Client {
    /// A client that opens its connections with `connector`.
    pub fn new(connector: Arc<dyn Connect>) -> Self {
        Self {
            connector,
            timeout: REQUEST_TIMEOUT,
            limit: MAX_ANSWER_BYTES,
            tracer: None,
        }
    }

    /// The same, with a trace of each request (W3C trace context).
    #[must_use]
    pub fn with_tracer(mut self, tracer: Tracer) -> Self {
        self.tracer = Some(tracer);
        self
    }

    /// The same with another limit for each request (event streams have their own).
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same, and no answer may weigh more: for servers that are not ours.
    #[must_use]
    pub fn with_limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }

    /// Asks for a document.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.parse(&self.exchange(Method::GET, path, None).await?)
    }

    /// Sends a document and reads one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.parse(&self.post_raw(path, body).await?)
    }

    /// Sends a document where no answer but success is expected.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_only<B: Serialize>(&self, path: &str, body: &B) -> Result<(), ClientError> {
        self.post_raw(path, body).await.map(drop)
    }

    /// The bytes of a document, unchanged.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_bytes(&self, path: &str) -> Result<Bytes, ClientError> {
        self.exchange(Method::GET, path, None).await
    }

    /// Opens an event stream. It ends with an error when nothing, not even a heartbeat, came for `idle`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sse(&self, path: &str, idle: Duration) -> Result<EventStream, ClientError> {
        self.open_stream(self.request(Method::GET, path, None)?, idle)
            .await
    }

    /// The same, and lets the server hear of us as long as the stream is read: a byte now and then, on the same
    /// connection. What only the operating system sends for a process that hangs is no sign of life.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sse_with_beats(
        &self,
        path: &str,
        idle: Duration,
        every: Duration,
    ) -> Result<EventStream, ClientError> {
        let (mut head, _) = self.request(Method::GET, path, None)?.into_parts();
        // Said outright, because a body of unknown length is not expected of this method.
        let chunked = header::HeaderValue::from_static("chunked");
        head.headers.insert(header::TRANSFER_ENCODING, chunked);
        self.open_stream(Request::from_parts(head, Sent::beats(every)), idle)
            .await
    }

    async fn open_stream(&self, request: Request<Sent>, idle: Duration) -> Result<EventStream, ClientError> {
        let open = async {
            let (mut sender, connection) = self.open().await?;
            let mut connection: sse::Connection = Box::pin(connection);
            let response = drive(&mut connection, sender.send_request(request)).await;
            let response = response.map_err(|e| self.failed(&e))?;
            if !response.status().is_success() {
                let (status, body) = (response.status(), response.into_body());
                let bytes = drive(&mut connection, self.collect(body)).await?;
                return Err(self.problem(status, &bytes));
            }
            Ok(EventStream::new(
                self.clone(),
                sender,
                connection,
                response.into_body(),
                idle,
            ))
        };
        self.in_time(open).await
    }

    async fn post_raw<B: Serialize>(&self, path: &str, body: &B) -> Result<Bytes, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.protocol(e))?;
        self.exchange(Method::POST, path, Some(body.into())).await
    }

    async fn exchange(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Bytes, ClientError> {
        let exchange = async {
            let (mut sender, connection) = self.open().await?;
            let mut connection: sse::Connection = Box::pin(connection);
            let request = self.request(method, path, body)?;
            let whole = async {
                let response = sender.send_request(request).await.map_err(|e| self.failed(&e))?;
                let (status, body) = (response.status(), response.into_body());
                Ok((status, self.collect(body).await?))
            };
            let (status, bytes) = drive(&mut connection, whole).await?;
            if status.is_success() {
                Ok(bytes)
            } else {
                Err(self.problem(status, &bytes))
            }
        };
        self.in_time(exchange).await
    }

    async fn open(&self) -> Result<(http1::SendRequest<Sent>, Http1), ClientError> {
        let io = self.connector.connect().await.map_err(|e| self.unconnected(e))?;
        http1::handshake(TokioIo::new(io))
            .await
            .map_err(|e| self.failed(&e))
    }

    fn request(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Request<Sent>, ClientError> {
        let asked = method.clone();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.connector.authority())
            .header(header::ACCEPT, "application/json, text/event-stream");
        if let Some(tracer) = &self.tracer {
            request = request.header("traceparent", tracer(&asked, path));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        request
            .body(Sent::whole(body.unwrap_or_default()))
            .map_err(|e| self.protocol(e))
    }

    async fn collect(&self, mut body: Incoming) -> Result<Bytes, ClientError> {
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| self.failed(&e))?;
            if let Some(data) = frame.data_ref() {
                if bytes.len() + data.len() > self.limit {
                    return Err(self.protocol("the answer is too large"));
                }
                bytes.extend_from_slice(data);
            }
        }
        Ok(bytes.freeze())
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(done) => done,
            Err(_) => Err(self.unreachable(format!("no answer within {} s", self.timeout.as_secs()))),
        }
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(bytes).map_err(|e| self.protocol(e))
    }

    fn problem(&self, status: StatusCode, bytes: &[u8]) -> ClientError {
        match serde_json::from_slice::<Problem>(bytes) {
            Ok(problem) => ClientError::Problem(Box::new(problem)),
            Err(_) => self.protocol(format!("status {status} without a problem document")),
        }
    }

    fn unconnected(&self, error: ConnectError) -> ClientError {
        let authority = self.connector.authority();
        match error {
            ConnectError::Unreachable(detail) => ClientError::Unreachable { authority, detail },
            ConnectError::Trust(source) => ClientError::Trust { authority, source },
        }
    }

    /// What an error of an open connection means: the connector may know more than HTTP does.
    fn failed(&self, error: &hyper::Error) -> ClientError {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(this) = cause {
            if let Some(judged) = this
                .downcast_ref::<io::Error>()
                .and_then(|io| self.connector.judge(io))
            {
                return self.unconnected(judged);
            }
            cause = this.source();
        }
        let detail =
            std::error::Error::source(error).map_or_else(|| error.to_string(), |s| format!("{error}: {s}"));
        self.unreachable(detail)
    }

    fn unreachable(&self, detail: String) -> ClientError {
        ClientError::Unreachable {
            authority: self.connector.authority(),
            detail,
        }
    }

    fn protocol(&self, detail: impl ToString) -> ClientError {
        ClientError::Protocol {
            authority: self.connector.authority(),
            detail: detail.to_string(),
        }
    }
}

type Http1 = http1::Connection<TokioIo<Box<dyn Io>>, Sent>;

/// Polls the connection while `work` waits for it. When the connection ends first, `work` still gets what
/// arrived, or the error.
async fn drive<T>(connection: &mut sse::Connection, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => done,
        _ = connection => work.await,
    }
}
