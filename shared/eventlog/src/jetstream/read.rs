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
        while (records.len() as u64) < wanted {
            let before = records.len();
            self.fetch(from + before as u64, wanted - before as u64, &mut records)
                .await?;
            if records.len() == before {
                self.explain_silence(from + before as u64).await?;
            }
        }
        Ok(records)
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
    async fn fetch(&self, from: u64, count: u64, records: &mut Vec<Stored>) -> Result<(), ReadError> {
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

    /// A consumer that delivers nothing, though the leader has it: damage and delay look alike from there.
    async fn explain_silence(&self, expected: u64) -> Result<(), ReadError> {
        match self.record_at(expected).await? {
            None => Err(ReadError::Gap {
                expected,
                found: None,
            }),
            Some(_) => Err(ReadError::Unreachable {
                detail: format!("position {expected} is not delivered"),
            }),
        }
    }
}

async fn collect(
    consumer: &Consumer<pull::Config>,
    from: u64,
    count: u64,
    records: &mut Vec<Stored>,
) -> Result<(), ReadError> {
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
            return Err(ReadError::Gap {
                expected,
                found: Some(position),
            });
        }
        let (message, _) = message.split();
        records.push(record(position, &message.subject, message.payload)?);
        expected += 1;
    }
    Ok(())
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
