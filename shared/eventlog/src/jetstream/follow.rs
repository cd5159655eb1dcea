//! Following the stream for ever: over lost connections, restarted servers and consumers that fall silent.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::consumer::{
    DeliverPolicy,
    pull::{Ordered, OrderedConfig},
};
use futures::stream::{self, BoxStream, StreamExt};

use super::{Inner, read, unreachable};
use crate::{ReadError, Stored};

/// How long a follower hears nothing before it compares its position with the stream's.
///
/// The client recreates a consumer that misses heartbeats, but has been seen to hang after a server's restart.
const WATCHDOG: Duration = Duration::from_secs(2);

/// The longest pause between two attempts to reach the server again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Everything after `after`. Trouble with the network is waited out; trouble with the log ends it.
pub(super) fn follow(inner: Arc<Inner>, after: u64) -> BoxStream<'static, Result<Stored, ReadError>> {
    let closing = inner.closing.subscribe();
    let start = Some(Follower {
        inner,
        position: after,
        messages: None,
        failures: 0,
        closing,
    });
    stream::unfold(start, |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(record) => Some((Ok(record), Some(follower))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

struct Follower {
    inner: Arc<Inner>,
    /// The last record handed out.
    position: u64,
    messages: Option<Box<Ordered>>,
    /// Attempts since something last went well.
    failures: u32,
    closing: tokio::sync::watch::Receiver<bool>,
}

/// What listening came to.
enum Heard {
    Record(Stored),
    /// A record that does not follow the last one.
    OutOfOrder(u64),
    Silence,
    Broken(String),
}

impl Follower {
    async fn next(&mut self) -> Result<Stored, ReadError> {
        let mut closing = self.closing.clone();
        tokio::select! {
            record = self.next_record() => record,
            _ = closing.wait_for(|closing| *closing) => Err(ReadError::Closed),
        }
    }

    async fn next_record(&mut self) -> Result<Stored, ReadError> {
        loop {
            if self.messages.is_none() && !self.subscribe().await? {
                continue;
            }
            match self.listen().await? {
                Heard::Record(record) => {
                    self.position = record.position;
                    self.failures = 0;
                    return Ok(record);
                }
                // Delivered twice, as after a reconnection.
                Heard::OutOfOrder(found) if found <= self.position => {}
                Heard::OutOfOrder(found) => self.examine(Some(found)).await?,
                Heard::Silence => self.compare().await?,
                Heard::Broken(why) => self.start_again(&why).await,
            }
        }
    }

    /// Begins to listen behind the last record; false if it did not work out and a pause was made.
    async fn subscribe(&mut self) -> Result<bool, ReadError> {
        match self.try_subscribe().await {
            Ok(messages) => {
                self.messages = Some(messages);
                Ok(true)
            }
            Err(error) if error.is_transient() => {
                self.start_again(&error.to_string()).await;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    async fn try_subscribe(&mut self) -> Result<Box<Ordered>, ReadError> {
        let last = self.inner.last().await?;
        if last < self.position {
            return Err(ReadError::Shrunk {
                position: self.position,
                last,
            });
        }
        let config = OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.position + 1,
            },
            max_batch: 512,
            ..OrderedConfig::default()
        };
        let consumer = self
            .inner
            .stream
            .create_consumer(config)
            .await
            .map_err(|error| unreachable(&error))?;
        Ok(Box::new(
            consumer.messages().await.map_err(|error| unreachable(&error))?,
        ))
    }

    async fn listen(&mut self) -> Result<Heard, ReadError> {
        let Some(messages) = &mut self.messages else {
            return Ok(Heard::Broken("not subscribed".into()));
        };
        let message = match tokio::time::timeout(WATCHDOG, messages.next()).await {
            Err(_) => return Ok(Heard::Silence),
            Ok(None) => return Ok(Heard::Broken("the consumer ended".into())),
            Ok(Some(Err(error))) => return Ok(Heard::Broken(error.to_string())),
            Ok(Some(Ok(message))) => message,
        };
        let position = message.info().map_err(read::not_a_delivery)?.stream_sequence;
        if position != self.position + 1 {
            return Ok(Heard::OutOfOrder(position));
        }
        let (message, _) = message.split();
        Ok(Heard::Record(read::record(
            position,
            &message.subject,
            message.payload,
        )?))
    }

    /// The watchdog: silence is right at the end of the log and nowhere else.
    async fn compare(&mut self) -> Result<(), ReadError> {
        match self.inner.last().await {
            Ok(last) if last < self.position => Err(ReadError::Shrunk {
                position: self.position,
                last,
            }),
            Ok(last) if last == self.position => Ok(()),
            Ok(_) => self.examine(None).await,
            // The consumer is left in place: it recovers with the connection.
            Err(error) if error.is_transient() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The next record was not delivered: is it lost, or only not delivered? Only the leader knows.
    async fn examine(&mut self, found: Option<u64>) -> Result<(), ReadError> {
        let expected = self.position + 1;
        match self.inner.record_at(expected).await {
            Ok(None) => Err(ReadError::Gap { expected, found }),
            Ok(Some(_)) => {
                self.start_again(&format!("position {expected} was not delivered"))
                    .await;
                Ok(())
            }
            Err(error) if error.is_transient() => {
                self.start_again(&error.to_string()).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Drops the consumer and pauses, longer each time.
    async fn start_again(&mut self, why: &str) {
        self.messages = None;
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            tracing::info!(why, position = self.position, "following the log again");
        }
        let most = Duration::from_millis(20 << self.failures.min(8)).min(LONGEST_PAUSE);
        tokio::time::sleep(most.mul_f64(rand::random_range(0.5..=1.0))).await;
    }
}
