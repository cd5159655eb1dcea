//! The state of this process: folded from the log's beginning, then kept current by following it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use domain::{AuthorizationId, ClusterState, Event, Position, evolve::apply};
use eventlog::{ReadError, SharedLog, Subject};
use tokio::{
    sync::{broadcast, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Events,
    codec::DecodeError,
    settlement::{Settlement, Settlements},
};

/// How many records are folded under one lock: long enough to amortise it, short enough not to hold up readers.
const CHUNK: usize = 512;
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
    /// Where the log tells of rotations.
    rotations: Vec<Position>,
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
        let records = log.follow(0);
        let inner = Arc::new(Inner {
            log,
            folded: RwLock::default(),
            position: watch::Sender::new(Position(0)),
            failed: watch::Sender::new(None),
            events: broadcast::Sender::new(LIVE_EVENTS),
            settlements: Settlements::default(),
            stop: shutdown.child_token(),
            tasks: Mutex::new(JoinSet::new()),
        });
        let records = reading::catch_up(&inner, records, end)
            .await
            .map_err(FoldError::Stopped)?;
        {
            let mut tasks = inner.tasks.lock().expect("no panic while spawning");
            reading::follow(&inner, records, &mut tasks);
        }
        Ok(Self { inner })
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

    /// Where the log tells of rotations, up to where it is folded: what the state forgets of them is read there again.
    pub fn rotations(&self) -> Vec<Position> {
        self.inner
            .folded
            .read()
            .expect("folding does not panic")
            .rotations
            .clone()
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
    /// Events in their order. Those before a hole are folded.
    fn fold(&self, events: Vec<(Subject, Arc<Event>)>) -> Result<(), String> {
        let mut events = events.into_iter();
        while events.len() > 0 {
            self.fold_some(events.by_ref().take(CHUNK))?;
        }
        Ok(())
    }

    fn fold_some(&self, events: impl Iterator<Item = (Subject, Arc<Event>)>) -> Result<(), String> {
        let mut folded = Vec::with_capacity(CHUNK);
        let mut stopped = Ok(());
        {
            let mut guard = self.folded.write().expect("folding does not panic");
            for (subject, event) in events {
                let (expected, found) = (guard.state.position.0 + 1, event.header.position);
                if found.0 != expected {
                    stopped = Err(format!("position {expected} is missing: the log gave {found}"));
                    break;
                }
                apply(&mut guard.state, &event);
                guard.tails.insert(subject, found.0);
                if event.fact.family() == "rotation" {
                    guard.rotations.push(found);
                }
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
        stopped
    }
}

mod reading;
#[cfg(test)]
mod tests;
