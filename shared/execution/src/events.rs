//! Following the fold: the events behind a position in their order, decoded once for everybody in this process.

use std::sync::Arc;

use domain::{Event, Position};
use tokio::sync::{
    broadcast::{self, error::RecvError, error::TryRecvError},
    watch,
};

use crate::{Fold, codec, fold::FoldError};

/// Events as they are folded. What was folded long ago, or faster than they are taken, is read from the log again.
pub struct Events {
    fold: Fold,
    /// The last one that was handed out.
    last: Position,
    live: broadcast::Receiver<Arc<Event>>,
    failed: watch::Receiver<Option<String>>,
}

/// What the live events offer.
enum Offer {
    /// The next one.
    Next(Arc<Event>),
    /// One that was read from the log before.
    Old,
    /// Some are missing here.
    Missed,
    Nothing,
}

impl Events {
    pub(crate) fn new(
        fold: Fold,
        after: Position,
        live: broadcast::Receiver<Arc<Event>>,
        failed: watch::Receiver<Option<String>>,
    ) -> Self {
        Self {
            fold,
            last: after,
            live,
            failed,
        }
    }

    /// At least one event and at most `limit`, all of them in the state already. Waits until there are some.
    ///
    /// # Errors
    /// When the fold has stopped, or the log cannot be read again.
    pub async fn next(&mut self, limit: usize) -> Result<Vec<Arc<Event>>, FoldError> {
        let mut taken = Vec::new();
        loop {
            let offer = match self.live.try_recv() {
                Ok(event) => self.judge(event),
                Err(TryRecvError::Lagged(_)) => Offer::Missed,
                Err(TryRecvError::Empty) => Offer::Nothing,
                Err(TryRecvError::Closed) => return Err(self.stopped()),
            };
            match offer {
                Offer::Old => {}
                Offer::Next(event) => {
                    self.last = event.header.position;
                    taken.push(event);
                    if taken.len() == limit {
                        return Ok(taken);
                    }
                }
                Offer::Missed | Offer::Nothing if !taken.is_empty() => return Ok(taken),
                // What is missing is in the log: the state is never ahead of it.
                Offer::Missed => return self.read(limit).await,
                Offer::Nothing if self.last < self.fold.position() => return self.read(limit).await,
                Offer::Nothing => {
                    if let Some(event) = self.wait().await? {
                        self.last = event.header.position;
                        taken.push(event);
                    }
                }
            }
        }
    }

    fn judge(&self, event: Arc<Event>) -> Offer {
        match event.header.position.0.checked_sub(self.last.0) {
            None | Some(0) => Offer::Old,
            Some(1) => Offer::Next(event),
            Some(_) => Offer::Missed,
        }
    }

    /// The next event when it is folded; none when there is something else to look at.
    async fn wait(&mut self) -> Result<Option<Arc<Event>>, FoldError> {
        if self.failed.borrow_and_update().is_some() {
            return Err(self.stopped());
        }
        let received = tokio::select! {
            biased;
            received = self.live.recv() => received,
            _ = self.failed.changed() => return Ok(None),
        };
        match received {
            Ok(event) => Ok(match self.judge(event) {
                Offer::Next(event) => Some(event),
                Offer::Old | Offer::Missed | Offer::Nothing => None,
            }),
            Err(RecvError::Lagged(_)) => Ok(None),
            Err(RecvError::Closed) => Err(self.stopped()),
        }
    }

    /// From the log, up to where the state is.
    async fn read(&mut self, limit: usize) -> Result<Vec<Arc<Event>>, FoldError> {
        let end = self.fold.position();
        let records = self.fold.log().read(self.last.0 + 1, limit).await?;
        let folded = records.iter().take_while(|record| record.position <= end.0);
        let events: Vec<_> = folded
            .map(|record| codec::decode(record).map(Arc::new))
            .collect::<Result<_, _>>()?;
        match events.last() {
            Some(last) => self.last = last.header.position,
            None => return Err(FoldError::Stopped("the log is shorter than it was".into())),
        }
        Ok(events)
    }

    fn stopped(&self) -> FoldError {
        let why = self.failed.borrow().clone();
        FoldError::Stopped(why.unwrap_or_else(|| "the fold was dropped".into()))
    }
}
