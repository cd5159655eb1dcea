//! Reading a stretch of the stream.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, Consumer, DeliverPolicy, pull},
    stream::{LastRawMessageErrorKind, RawMessageError},
};
use bytes::Bytes;
use futures::stream::StreamExt;

use super::{ANSWER, Inner, unreachable, with_sources};
use crate::{ReadError, Stored, Subject};

/// Up to this many records are fetched one by one, which is cheaper than a consumer for them.
const SINGLY: u64 = 4;

/// The most records one read hands out, whatever was asked for: they wait in the client's memory.
const AT_ONCE: u64 = 4096;

/// How often a read tries again when a consumer does not answer, and how much longer it waits each time.
const RETRIES: u32 = 5;
const RETRY_AFTER: Duration = Duration::from_millis(40);

impl Inner {
    /// Records from `from` on, up to what the leader had stored when this was called.
    pub(super) async fn read(&self, from: u64, limit: usize) -> Result<Vec<Stored>, ReadError> {
        let last = self.last().await?;
        let wanted = (last + 1).saturating_sub(from).min(limit as u64).min(AT_ONCE);
        if wanted <= SINGLY {
            let mut records = Vec::new();
            for position in from..from + wanted {
                match self.record_at(position).await? {
                    Some(record) => records.push(record),
                    None => {
                        return Err(ReadError::Gap {
                            expected: position,
                            found: None,
                        });
                    }
                }
            }
            return Ok(records);
        }
        let mut records = Vec::with_capacity(wanted as usize);
        let mut failures = 0;
        while (records.len() as u64) < wanted {
            let have = records.len() as u64;
            match self.stretch(from + have, wanted - have, &mut records).await {
                Ok(()) => failures = 0,
                // A consumer that was just made on another server may not answer yet.
                Err(error) if error.is_transient() && failures < RETRIES => {
                    failures += 1;
                    tokio::time::sleep(RETRY_AFTER * failures).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    /// Reads on through one consumer; an answer without progress is examined, because damage and delay look
    /// alike from there, and only the leader can tell them apart.
    async fn stretch(&self, from: u64, count: u64, records: &mut Vec<Stored>) -> Result<(), ReadError> {
        let before = records.len();
        let found = self.fetch(from, count, records).await?;
        if records.len() > before {
            return Ok(());
        }
        match self.record_at(from).await? {
            None => Err(ReadError::Gap {
                expected: from,
                found,
            }),
            Some(_) => Err(ReadError::Unreachable {
                detail: format!("position {from} is not delivered"),
            }),
        }
    }

    /// One record from the leader; `None` if it is not there.
    pub(super) async fn record_at(&self, position: u64) -> Result<Option<Stored>, ReadError> {
        match self.stream.get_raw_message(position).await {
            Ok(message) => Ok(Some(record(message.sequence, &message.subject, message.payload)?)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// Reads through a consumer of its own, which the server forgets by itself if we crash here.
    async fn fetch(
        &self,
        from: u64,
        count: u64,
        records: &mut Vec<Stored>,
    ) -> Result<Option<u64>, ReadError> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: Duration::from_secs(30),
            ..pull::Config::default()
        };
        let consumer: Consumer<pull::Config> = self
            .stream
            .create_consumer(config)
            .await
            .map_err(|error| unreachable(&error))?;
        let result = collect(&consumer, from, count, records).await;
        // Only a courtesy: an inactive consumer ends after half a minute.
        let _ = self.stream.delete_consumer(&consumer.cached_info().name).await;
        result
    }
}

/// Takes what is delivered in order; answers with the position that came instead of the next one, if one did.
async fn collect(
    consumer: &Consumer<pull::Config>,
    from: u64,
    count: u64,
    records: &mut Vec<Stored>,
) -> Result<Option<u64>, ReadError> {
    let batch = consumer
        .batch()
        .max_messages(count as usize)
        .expires(ANSWER)
        .messages();
    let mut messages = batch.await.map_err(|error| unreachable(&error))?;
    let mut expected = from;
    while expected < from + count {
        let Some(message) = messages.next().await else {
            break;
        };
        let message = message.map_err(|error| ReadError::Unreachable {
            detail: error.to_string(),
        })?;
        let position = message.info().map_err(not_a_delivery)?.stream_sequence;
        if position != expected {
            return Ok(Some(position));
        }
        let (message, _) = message.split();
        records.push(record(position, &message.subject, message.payload)?);
        expected += 1;
    }
    Ok(None)
}

/// A message of the stream as a record of the log.
pub(super) fn record(position: u64, subject: &str, data: Bytes) -> Result<Stored, ReadError> {
    let subject = Subject::parse(subject).map_err(|error| ReadError::Damaged {
        detail: format!("position {position}: {error}"),
    })?;
    Ok(Stored {
        position,
        subject,
        data,
    })
}

pub(super) fn not_a_delivery(error: async_nats::Error) -> ReadError {
    ReadError::Damaged {
        detail: format!(
            "a message that is no delivery of the stream: {}",
            with_sources(&*error)
        ),
    }
}

fn is_missing(error: &RawMessageError) -> bool {
    error.kind() == LastRawMessageErrorKind::NoMessageFound
}
