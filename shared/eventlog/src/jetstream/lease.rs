//! Leases in a key-value bucket beside the stream.

use std::time::Duration;

use async_nats::jetstream::{
    Context,
    kv::Store,
    message::PublishMessage,
    stream::{Config, DiscardPolicy, LastRawMessageErrorKind, Stream},
};
use bytes::Bytes;
use futures::stream::StreamExt;
use tokio::sync::OnceCell;

use super::with_sources;
use crate::{Lease, LeaseError, cluster_token, model};

/// Whatever else happens, the bucket forgets after this long.
const LONGEST: Duration = Duration::from_secs(3600);

/// Headers of a record that only says that there is none.
const MARKERS: [&str; 2] = ["KV-Operation", "Nats-Marker-Reason"];

/// The bucket `CAROUSEL_LEASES_<cluster>`, opened at its first use.
#[derive(Debug)]
pub(super) struct Leases {
    context: Context,
    bucket: String,
    replicas: usize,
    stream: OnceCell<Stream>,
}

impl Leases {
    pub(super) fn new(context: Context, cluster: &str, replicas: usize) -> Self {
        let bucket = format!("CAROUSEL_LEASES_{}", cluster_token(cluster));
        Self {
            context,
            bucket,
            replicas,
            stream: OnceCell::new(),
        }
    }

    /// Writes with a time to live, so that the server forgets it even if nobody comes back.
    pub(super) async fn put(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), LeaseError> {
        model::check_lease(key, ttl)?;
        self.stream().await?;
        // The server counts whole seconds: rounding up never ends a lease early.
        let ttl = Duration::from_secs(ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0));
        let message = PublishMessage::build().payload(value).ttl(ttl);
        let answer = self
            .context
            .send_publish(self.subject(key), message)
            .await
            .map_err(unavailable)?;
        answer.await.map(|_| ()).map_err(unavailable)
    }

    /// The last value of every key, from the leader.
    pub(super) async fn list(&self) -> Result<Vec<Lease>, LeaseError> {
        let stream = self.stream().await?;
        let prefix = self.subject("");
        let mut subjects = stream
            .info_with_subjects(format!("{prefix}>"))
            .await
            .map_err(unavailable)?;
        let mut leases = Vec::new();
        while let Some(subject) = subjects.next().await {
            let (subject, _) = subject.map_err(unavailable)?;
            let message = match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => message,
                // It has vanished between the two requests.
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => continue,
                Err(error) => return Err(unavailable(error)),
            };
            let Some(key) = subject.strip_prefix(&prefix) else {
                continue;
            };
            if MARKERS
                .iter()
                .all(|marker| message.headers.get(*marker).is_none())
            {
                leases.push(Lease {
                    key: key.into(),
                    value: message.payload,
                    revision: message.sequence,
                });
            }
        }
        leases.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(leases)
    }

    /// Leaves a marker that says that the key is gone.
    pub(super) async fn remove(&self, key: &str) -> Result<(), LeaseError> {
        model::check_lease(key, LONGEST)?;
        self.stream().await?;
        let marker = PublishMessage::build()
            .header(MARKERS[0], "DEL")
            .ttl(Duration::from_secs(60));
        let answer = self
            .context
            .send_publish(self.subject(key), marker)
            .await
            .map_err(unavailable)?;
        answer.await.map(|_| ()).map_err(unavailable)
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.bucket)
    }

    async fn stream(&self) -> Result<&Stream, LeaseError> {
        self.stream
            .get_or_try_init(|| async { Ok(self.store().await?.stream) })
            .await
    }

    async fn store(&self) -> Result<Store, LeaseError> {
        if let Ok(store) = self.context.get_key_value(&self.bucket).await {
            return Ok(store);
        }
        let made = self.context.create_stream(self.stream_config()).await;
        // Somebody else may have made it in this moment.
        let found = self.context.get_key_value(&self.bucket).await;
        found.map_err(|missing| made.err().map_or_else(|| unavailable(missing), unavailable))
    }

    /// The stream under the bucket, as NATS' own clients make it for one with these settings (ADR-8 of NATS).
    pub(super) fn stream_config(&self) -> Config {
        Config {
            name: format!("KV_{}", self.bucket),
            description: Some("Who is alive in this Carousel cluster; not events, may be lost".into()),
            subjects: vec![self.subject(">")],
            max_messages_per_subject: 1,
            max_age: LONGEST,
            duplicate_window: Duration::from_secs(120),
            num_replicas: self.replicas,
            discard: DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            // Lets a single record carry its own time to live, and leaves a marker where one has ended.
            allow_message_ttl: true,
            subject_delete_marker_ttl: Some(Duration::from_secs(60)),
            ..Config::default()
        }
    }
}

fn unavailable(error: impl std::error::Error) -> LeaseError {
    LeaseError::Unavailable {
        detail: with_sources(&error),
    }
}
