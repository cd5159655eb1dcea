//! The log on NATS JetStream: one stream per cluster, its sequence numbers are the positions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_nats::{
    Client,
    connection::State,
    jetstream::{
        Context,
        context::ContextBuilder,
        stream::{LastRawMessageErrorKind, Stream},
    },
};
use bytes::Bytes;
use futures::{
    future::{BoxFuture, FutureExt},
    stream::BoxStream,
};
use tokio::sync::watch;

use crate::{
    Append, AppendError, EventLog, Lease, LeaseError, Outcome, ReadError, SharedLog, Stored, Subject,
    bus::{self, BusOptions},
    event_prefix,
};

pub(crate) use self::protections::stream_name;
use self::{lease::Leases, protections::Guard};
pub use self::{
    open::{JetStreamOpenError, SYNC_KEY},
    provision::{Done, Provision, Provisioned},
};

mod append;
mod follow;
mod lease;
mod open;
mod protections;
mod provision;
mod read;

/// How long one request to the server may take before its outcome is unknown.
const ANSWER: Duration = Duration::from_secs(5);

/// Appends in flight at once; more wait, so that a slow server is not met with an ever longer queue.
const IN_FLIGHT: usize = 1024;

/// Which stream, and how it is kept.
#[derive(Debug, Clone)]
pub struct JetStreamOptions {
    /// The cluster whose log it is.
    pub cluster: String,
    /// Copies of the stream: 1, 3 or 5. A stream that has fewer is refused.
    pub replicas: usize,
}

/// A log in the stream `CAROUSEL_EVENTS_<cluster>`.
#[derive(Debug, Clone)]
pub struct JetStreamLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    context: Context,
    stream: Stream,
    stream_name: String,
    /// What every subject of this log begins with; the stream takes no other.
    prefix: String,
    server: String,
    warnings: Vec<String>,
    guard: Guard,
    leases: Leases,
    closed: AtomicBool,
    /// Wakes followers when the log is closed.
    closing: watch::Sender<bool>,
}

impl JetStreamLog {
    /// Connects, checks the server, makes the stream if it is not there, and checks its protections.
    pub async fn connect(
        bus: &BusOptions,
        options: &JetStreamOptions,
    ) -> Result<SharedLog, JetStreamOpenError> {
        Self::open(bus, options, open::IfMissing::Make).await
    }

    /// The same where there must be a stream: a missing one is refused, and nothing is made.
    ///
    /// For reading, and for a log that was begun before: an empty stream in its place would be in the way of the
    /// copy to restore.
    pub async fn connect_existing(
        bus: &BusOptions,
        options: &JetStreamOptions,
    ) -> Result<SharedLog, JetStreamOpenError> {
        Self::open(bus, options, open::IfMissing::Refuse).await
    }

    async fn open(
        bus: &BusOptions,
        options: &JetStreamOptions,
        if_missing: open::IfMissing,
    ) -> Result<SharedLog, JetStreamOpenError> {
        let (client, server) = (bus::connect(bus).await?, &bus.url);
        let context = context(client.clone());
        protections::check_server(&client)?;
        let stream = open::stream(&context, options, if_missing).await?;
        let warnings = open::warnings(&client, &stream).await;
        let log = Self::assemble(client, context, stream, server, options, warnings);
        Ok(Arc::new(log))
    }

    fn assemble(
        client: Client,
        context: Context,
        stream: Stream,
        server: &str,
        options: &JetStreamOptions,
        warnings: Vec<String>,
    ) -> Self {
        let stream_name = stream_name(&options.cluster);
        let inner = Inner {
            guard: Guard::new(protections::wanted(options)),
            leases: Leases::new(context.clone(), &options.cluster, options.replicas),
            client,
            context,
            stream,
            stream_name,
            prefix: event_prefix(&options.cluster),
            server: bus::redacted(server),
            warnings,
            closed: AtomicBool::new(false),
            closing: watch::Sender::new(false),
        };
        Self {
            inner: Arc::new(inner),
        }
    }
}

/// The stream as the log makes it, for benchmarks of the server itself.
pub(crate) async fn raw_stream(
    context: Context,
    options: &JetStreamOptions,
) -> Result<Stream, JetStreamOpenError> {
    open::stream(&context, options, open::IfMissing::Make).await
}

/// A context with our limits: async-nats would otherwise wait longer than its own request timeout.
fn context(client: Client) -> Context {
    ContextBuilder::new()
        .timeout(ANSWER)
        .ack_timeout(ANSWER)
        .max_ack_inflight(IN_FLIGHT)
        .backpressure_on_inflight(true)
        .build(client)
}

impl Inner {
    fn open(&self) -> Result<(), ReadError> {
        if self.closed.load(Ordering::Acquire) {
            Err(ReadError::Closed)
        } else {
            Ok(())
        }
    }

    /// The last sequence, from the stream's leader.
    async fn last(&self) -> Result<u64, ReadError> {
        self.open()?;
        let info = self
            .stream
            .get_info()
            .await
            .map_err(|error| unreachable(&error))?;
        Ok(info.state.last_sequence)
    }

    /// The last record on a subject, from the stream's leader; never from a replica that may lag.
    async fn tail(&self, subject: &Subject) -> Result<Option<Stored>, ReadError> {
        self.open()?;
        match self
            .stream
            .get_last_raw_message_by_subject(subject.as_str())
            .await
        {
            Ok(message) => Ok(Some(read::record(
                message.sequence,
                &message.subject,
                message.payload,
            )?)),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// Nothing is sent on a lost connection: the client would keep it and send it much later.
    fn connected(&self) -> Result<(), String> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => Err(format!("no connection to {}", self.server)),
        }
    }
}

/// An error of the client or the server that says nothing about the log's content.
fn unreachable(error: &dyn std::error::Error) -> ReadError {
    ReadError::Unreachable {
        detail: with_sources(error),
    }
}

/// The whole chain in one line: the client's own texts stop at the first link.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

impl EventLog for JetStreamLog {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Outcome, AppendError>> {
        async move { self.inner.append(append).await }.boxed()
    }

    fn append_all(&self, appends: Vec<Append>) -> BoxFuture<'_, Vec<Result<Outcome, AppendError>>> {
        async move { self.inner.append_all(appends).await }.boxed()
    }

    fn read(&self, from: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Stored>, ReadError>> {
        async move { self.inner.read(from.max(1), limit).await }.boxed()
    }

    fn follow(&self, after: u64) -> BoxStream<'static, Result<Stored, ReadError>> {
        follow::follow(self.inner.clone(), after)
    }

    fn tail<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<Option<Stored>, ReadError>> {
        async move { self.inner.tail(subject).await }.boxed()
    }

    fn last_position(&self) -> BoxFuture<'_, Result<u64, ReadError>> {
        async move { self.inner.last().await }.boxed()
    }

    fn name(&self) -> String {
        format!("JetStream {} at {}", self.inner.stream_name, self.inner.server)
    }

    fn warnings(&self) -> Vec<String> {
        self.inner.warnings.clone()
    }

    fn put_lease(&self, key: &str, value: Bytes, ttl: Duration) -> BoxFuture<'_, Result<(), LeaseError>> {
        let key = key.to_owned();
        async move {
            self.inner.open().map_err(|_| LeaseError::Closed)?;
            self.inner.leases.put(&key, value, ttl).await
        }
        .boxed()
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<Lease>, LeaseError>> {
        async move {
            self.inner.open().map_err(|_| LeaseError::Closed)?;
            self.inner.leases.list().await
        }
        .boxed()
    }

    fn drop_lease(&self, key: &str) -> BoxFuture<'_, Result<(), LeaseError>> {
        let key = key.to_owned();
        async move {
            self.inner.open().map_err(|_| LeaseError::Closed)?;
            self.inner.leases.remove(&key).await
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.inner.closed.store(true, Ordering::Release);
            self.inner.closing.send_replace(true);
            // The connection may be shared: what was handed to it is written out, the connection stays.
            if self.inner.connected().is_ok() {
                let _ = tokio::time::timeout(ANSWER, self.inner.client.flush()).await;
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
