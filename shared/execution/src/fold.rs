//! The state of this process: folded from the log's beginning, then kept current by following it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, RwLock, Weak},
    time::Duration,
};

use domain::{AuthorizationId, ClusterState, Event, Position, evolve::apply};
use eventlog::{ReadError, SharedLog, Stored, Subject};
use futures::StreamExt;
use tokio::{
    sync::{broadcast, mpsc, watch},
    task::{JoinError, JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Events,
    codec::{self, DecodeError},
    settlement::{Settlement, Settlements},
};

/// How many records are folded under one lock: long enough to amortise it, short enough not to hold up readers.
const CHUNK: usize = 512;
/// From this many on records are decoded on a thread of their own, beside what is folded and read meanwhile.
const LARGE: usize = 64;
/// Chunks that are decoded at once: as many as a small machine has cores, and one that is ready.
const AHEAD: usize = 3;
/// Live events that a slow subscriber may fall behind; then it reads the log or the state instead.
const LIVE_EVENTS: usize = 16_384;

/// Why a fold could not be started.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// The log cannot be read.
    #[error("the event log cannot be read: {0}")]
    Read(#[from] ReadError),
    /// It holds something that is no event.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It stopped while it was being read.
    #[error("the event log could not be folded: {0}")]
    Stopped(String),
}

/// The fold has not read as far as was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the state is at position {at}, not yet at {wanted}")]
pub struct Behind {
    /// Where it is.
    pub at: Position,
    /// Where it should be.
    pub wanted: Position,
}

/// A handle to the process's fold. Cheap to clone; the following stops when the last handle is dropped.
#[derive(Clone)]
pub struct Fold {
    inner: Arc<Inner>,
}

struct Inner {
    log: SharedLog,
    folded: RwLock<Folded>,
    position: watch::Sender<Position>,
    failed: watch::Sender<Option<String>>,
    events: broadcast::Sender<Arc<Event>>,
    settlements: Settlements,
    stop: CancellationToken,
    /// Owns the tasks that follow the log; dropped with the fold.
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct Folded {
    state: ClusterState,
    /// The last position on each subject: what conditions are made of.
    tails: HashMap<Subject, u64>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Fold {
    /// Reads the log to its end, then follows it until `shutdown`.
    ///
    /// # Errors
    /// If the log cannot be read, has a hole, or holds an event that this version does not know.
    pub async fn start(log: SharedLog, shutdown: CancellationToken) -> Result<Self, FoldError> {
        let end = Position(log.last_position().await?);
        let inner = Arc::new(Inner {
            log: log.clone(),
            folded: RwLock::default(),
            position: watch::Sender::new(Position(0)),
            failed: watch::Sender::new(None),
            events: broadcast::Sender::new(LIVE_EVENTS),
            settlements: Settlements::default(),
            stop: shutdown.child_token(),
            tasks: Mutex::new(JoinSet::new()),
        });
        let fold = Self { inner: inner.clone() };
        let (read, chunks) = mpsc::channel(1);
        {
            let mut tasks = inner.tasks.lock().expect("no panic while spawning");
            tasks.spawn(read_ahead(log, read));
            tasks.spawn(fold_all(Arc::downgrade(&inner), chunks, inner.stop.clone()));
        }
        fold.reach(end).await.map_err(FoldError::Stopped)?;
        Ok(fold)
    }

    /// Looks at the state. Short: the lock is held meanwhile, so nothing is awaited inside.
    pub fn read<R>(&self, look: impl FnOnce(&ClusterState) -> R) -> R {
        look(&self.inner.folded.read().expect("folding does not panic").state)
    }

    /// Looks at the state and the last position of each subject.
    pub fn read_with_tails<R>(&self, look: impl FnOnce(&ClusterState, &dyn Fn(&Subject) -> u64) -> R) -> R {
        let folded = self.inner.folded.read().expect("folding does not panic");
        look(&folded.state, &|subject| {
            folded.tails.get(subject).copied().unwrap_or(0)
        })
    }

    /// The last position folded in.
    pub fn position(&self) -> Position {
        *self.inner.position.borrow()
    }

    /// Wakes whenever more was folded in.
    pub fn changes(&self) -> watch::Receiver<Position> {
        self.inner.position.subscribe()
    }

    /// Live events from now on. A subscriber that lags misses some and must look at the state or the log.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.inner.events.subscribe()
    }

    /// Everything behind a position, in order and without a gap, as it is folded.
    pub fn follow(&self, after: Position) -> Events {
        let (live, failed) = (self.inner.events.subscribe(), self.inner.failed.subscribe());
        Events::new(self.clone(), after, live, failed)
    }

    /// The event that settles an authorisation (`certificate.issued`, `certificate.refused` or
    /// `authorization.voided`), if it is folded in after this call. Whoever waits looks at the state after it.
    pub fn settlement(&self, authorization: AuthorizationId) -> Settlement {
        self.inner.settlements.of(authorization)
    }

    /// Why the fold stopped, if it did: a hole in the log, or an event that cannot be read.
    pub fn failed(&self) -> Option<String> {
        self.inner.failed.borrow().clone()
    }

    /// The log that is folded.
    pub fn log(&self) -> &SharedLog {
        &self.inner.log
    }

    /// Waits until `wanted` is folded in.
    ///
    /// # Errors
    /// [`Behind`] when the time is over or the fold has stopped.
    pub async fn wait_for(&self, wanted: Position, at_most: Duration) -> Result<(), Behind> {
        let behind = |_| Behind {
            at: self.position(),
            wanted,
        };
        timeout(at_most, self.reach(wanted))
            .await
            .map_err(|_| behind(String::new()))?
            .map_err(behind)
    }

    /// Reads to what is the log's end now, so that a caller sees everything that was durable before.
    ///
    /// # Errors
    /// [`Behind`] when the time is over, or the log's end cannot be learnt.
    pub async fn catch_up(&self, at_most: Duration) -> Result<Position, Behind> {
        let unknown = Behind {
            at: self.position(),
            wanted: Position(u64::MAX),
        };
        let end = timeout(at_most, self.inner.log.last_position())
            .await
            .map_err(|_| unknown.clone())?;
        let end = Position(end.map_err(|_| unknown)?);
        self.wait_for(end, at_most).await?;
        Ok(end)
    }

    async fn reach(&self, wanted: Position) -> Result<(), String> {
        let (mut position, mut failed) = (self.inner.position.subscribe(), self.inner.failed.subscribe());
        loop {
            if *position.borrow_and_update() >= wanted {
                return Ok(());
            }
            if let Some(why) = failed.borrow_and_update().clone() {
                return Err(why);
            }
            let gone = || "the fold was dropped".to_string();
            tokio::select! {
                changed = position.changed() => changed.map_err(|_| gone())?,
                changed = failed.changed() => changed.map_err(|_| gone())?,
            }
        }
    }
}

impl Inner {
    fn fold(&self, chunk: Decoded) -> Result<(), String> {
        let mut folded = Vec::with_capacity(chunk.events.len());
        let mut stopped = chunk.stopped;
        {
            let mut guard = self.folded.write().expect("folding does not panic");
            for (subject, event) in chunk.events {
                let (expected, found) = (guard.state.position.0 + 1, event.header.position.0);
                if found != expected {
                    stopped = Some(format!("position {expected} is missing: the log gave {found}"));
                    break;
                }
                apply(&mut guard.state, &event);
                guard.tails.insert(subject, found);
                folded.push(event);
            }
        }
        // Positions first: whoever hears of an event finds it in the state.
        if let Some(last) = folded.last() {
            self.position.send_replace(last.header.position);
        }
        for event in folded {
            self.settlements.settle(&event);
            // Nobody listening is no error.
            let _ = self.events.send(event);
        }
        stopped.map_or(Ok(()), Err)
    }
}

/// Reads and decodes what comes next while the chunk before it is folded. Ends when nobody folds any more.
async fn read_ahead(log: SharedLog, read: mpsc::Sender<Decoded>) {
    let mut decoded = log.follow(0).ready_chunks(CHUNK).map(decode).buffered(AHEAD);
    loop {
        let chunk = tokio::select! {
            () = read.closed() => return,
            chunk = decoded.next() => chunk,
        };
        let is_over = chunk.is_none();
        let chunk = chunk.unwrap_or_else(|| Decoded::stopped("the log ended its stream".into()));
        if read.send(chunk).await.is_err() || is_over {
            return;
        }
    }
}

async fn fold_all(fold: Weak<Inner>, mut chunks: mpsc::Receiver<Decoded>, stop: CancellationToken) {
    loop {
        let chunk = tokio::select! {
            () = stop.cancelled() => return,
            chunk = chunks.recv() => chunk,
        };
        // The last handle is gone: nobody reads this state any more.
        let Some(inner) = fold.upgrade() else { return };
        let outcome = match chunk {
            Some(chunk) => inner.fold(chunk),
            None => Err("the task that reads the log ended unexpectedly".into()),
        };
        if let Err(why) = outcome {
            tracing::error!(%why, "the fold stopped: nothing behind this position is used");
            inner.failed.send_replace(Some(why));
            return;
        }
    }
}

/// Records as events, up to the first that is none.
struct Decoded {
    events: Vec<(Subject, Arc<Event>)>,
    stopped: Option<String>,
}

impl Decoded {
    fn stopped(why: String) -> Self {
        Self {
            events: vec![],
            stopped: Some(why),
        }
    }
}

/// Before the state is locked, so that its readers wait for no decoding.
async fn decode(chunk: Vec<Result<Stored, ReadError>>) -> Decoded {
    if chunk.len() < LARGE {
        return decoded(chunk);
    }
    let stopped =
        |error: JoinError| Decoded::stopped(format!("the decoding task ended unexpectedly: {error}"));
    spawn_blocking(|| decoded(chunk)).await.unwrap_or_else(stopped)
}

fn decoded(chunk: Vec<Result<Stored, ReadError>>) -> Decoded {
    let mut events = Vec::with_capacity(chunk.len());
    for record in chunk {
        let event = record.map_err(|e| e.to_string()).and_then(|stored| {
            let event = codec::decode(&stored).map_err(|e| e.to_string())?;
            Ok((stored.subject, Arc::new(event)))
        });
        match event {
            Ok(event) => events.push(event),
            Err(why) => {
                return Decoded {
                    events,
                    stopped: Some(why),
                };
            }
        }
    }
    Decoded {
        events,
        stopped: None,
    }
}

#[cfg(test)]
mod tests;
