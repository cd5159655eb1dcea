//! Following a log that lies inside this process: read to the end, then wait for more.

use std::{collections::VecDeque, sync::Arc};

use futures::{
    future::BoxFuture,
    stream::{self, BoxStream, StreamExt},
};

use crate::{ReadError, Stored};

/// How many records a follower holds at once; it reads the next ones only when these are taken.
const BATCH: usize = 2_048;

/// What a follower needs of a log. It must not keep the log open: a follower may outlive it.
pub(crate) trait Source: Send + Sync + 'static {
    /// Records from position `from` on, at most `limit`, none only at the end.
    fn read_from(&self, from: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Stored>, ReadError>>;

    /// The last position.
    fn last(&self) -> BoxFuture<'_, Result<u64, ReadError>>;

    /// Returns when the log may have grown behind `position`.
    fn wait_past(&self, position: u64) -> BoxFuture<'_, Result<(), ReadError>>;
}

/// Everything after `after`, for ever; one error ends it.
pub(crate) fn follow(source: Arc<dyn Source>, after: u64) -> BoxStream<'static, Result<Stored, ReadError>> {
    let start = Some(Follower {
        source,
        position: after,
        ready: VecDeque::new(),
        checked: false,
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
    source: Arc<dyn Source>,
    /// The last record handed out.
    position: u64,
    ready: VecDeque<Stored>,
    /// Whether the log was seen to reach the position from which this follower started.
    checked: bool,
}

impl Follower {
    async fn next(&mut self) -> Result<Stored, ReadError> {
        self.check_start().await?;
        loop {
            if let Some(record) = self.ready.pop_front() {
                let expected = self.position + 1;
                if record.position != expected {
                    return Err(ReadError::Gap {
                        expected,
                        found: Some(record.position),
                    });
                }
                self.position = expected;
                return Ok(record);
            }
            self.ready = self.source.read_from(self.position + 1, BATCH).await?.into();
            if self.ready.is_empty() {
                self.source.wait_past(self.position).await?;
            }
        }
    }

    /// A reader that has seen more than there is stands on another log than the one it has read.
    async fn check_start(&mut self) -> Result<(), ReadError> {
        if self.checked {
            return Ok(());
        }
        let last = self.source.last().await?;
        if last < self.position {
            return Err(ReadError::Shrunk {
                position: self.position,
                last,
            });
        }
        self.checked = true;
        Ok(())
    }
}
