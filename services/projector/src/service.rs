//! The projector as a service: batches of the log into batches of documents.

use std::{path::PathBuf, sync::Arc, time::Duration};

use api::shape::Status;
use domain::{Event, Phase, Position};
use eventlog::{ReadError, Stored};
use execution::{Events, Fold, FoldError, Now, codec};
use runtime::{backoff::Backoff, metrics::Metrics, readiness::Part};
use tokio::{
    sync::{Notify, watch},
    task::JoinError,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use views::{Doubt, Mark, ViewError, ViewStore};

use crate::{Answers, documents, touched::Gathered};

/// Raised whenever a document changes its shape: older views are then made anew.
const SCHEMA: u32 = 2;
/// The most events that are taken at once,
const BATCH: usize = 8_192;
/// and after how many nothing is gathered any more before it is written: a busy log makes batches by itself, and larger
/// ones write fewer documents twice.
const GATHERED: usize = 4 * BATCH;
/// The longest pause between batches: documents that change again and again are not written each time.
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// How long the projector waits before it opens its views again after the disk failed,
const AGAIN: Duration = Duration::from_millis(200);
/// and how long at most.
const AGAIN_AT_MOST: Duration = Duration::from_secs(5);

/// What the projector needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// `D/views`: may be deleted while nobody runs.
    pub views_dir: PathBuf,
}

/// The service that keeps the views.
pub struct Projector {
    fold: Fold,
    store: ViewStore,
    metrics: Metrics,
    part: Part,
    now: Now,
    reach: watch::Sender<Reach>,
    /// Somebody read a document that cannot be read.
    doubt: Arc<Notify>,
    /// The furthest position that anybody waits for.
    wanted: watch::Sender<Position>,
}

/// How far the views are, and which views: begun anew, they are others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Reach {
    pub(crate) epoch: u64,
    pub(crate) position: Position,
}

/// Why there are no views, or they have stopped.
#[derive(Debug, thiserror::Error)]
pub enum ProjectorError {
    /// They cannot be opened or written.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The log cannot be read.
    #[error("the log cannot be projected: {0}")]
    Log(#[from] ReadError),
    /// The log holds something that this version does not understand.
    #[error("the log cannot be projected: {0}")]
    Decode(#[from] codec::DecodeError),
    /// The state has stopped following the log.
    #[error("the log cannot be projected: {0}")]
    Fold(#[from] FoldError),
    /// A bug.
    #[error("a task of the projector ended unexpectedly")]
    Task(#[from] JoinError),
}

impl Projector {
    /// Opens the views, or begins them anew at any doubt.
    ///
    /// # Errors
    /// [`ProjectorError`]; `InUse` when another process has them.
    pub async fn open(
        config: Config,
        fold: Fold,
        now: Now,
        metrics: Metrics,
        part: Part,
    ) -> Result<Self, ProjectorError> {
        let dir = config.views_dir;
        let (store, doubt) = tokio::task::spawn_blocking(move || ViewStore::open(&dir, SCHEMA)).await??;
        let projector = Self {
            fold,
            store,
            metrics,
            part,
            now,
            reach: watch::Sender::default(),
            doubt: Arc::new(Notify::new()),
            wanted: watch::Sender::default(),
        };
        if let Some(doubt) = doubt {
            projector.count_rebuild(doubt);
        } else {
            projector.check_mark().await?;
        }
        Ok(projector)
    }

    /// Who answers from these views.
    pub fn queries(&self) -> Answers {
        Answers::new(
            self.store.clone(),
            self.reach.subscribe(),
            self.doubt.clone(),
            self.wanted.clone(),
            self.fold.clone(),
            self.now.clone(),
            self.metrics.clone(),
        )
    }

    /// Follows the log until shutdown. A disk that fails, or is full, is waited for: views can be made anew, and the
    /// control plane goes on without them meanwhile.
    ///
    /// # Errors
    /// When the log has a hole or holds what cannot be read: readiness says so too.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), ProjectorError> {
        let mut backoff = Backoff::new(AGAIN, AGAIN_AT_MOST, runtime::backoff::random_seed());
        loop {
            let began = Instant::now();
            match self.follow(&shutdown).await {
                Err(ProjectorError::View(error)) => {
                    tracing::error!(%error, "the views cannot be written; they are opened again");
                    self.part.waiting(&error.to_string());
                }
                Err(error) => {
                    self.part.failed(&error.to_string());
                    return Err(error);
                }
                Ok(()) => return Ok(()),
            }
            if began.elapsed() > AGAIN_AT_MOST {
                backoff.reset();
            }
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    () = tokio::time::sleep(backoff.next_pause()) => {}
                }
                match self.reopen().await {
                    Ok(()) => break,
                    Err(error) => tracing::warn!(%error, "the views cannot be opened again yet"),
                }
            }
        }
    }

    /// Opens the views again; they may be behind what they were, so that whoever reads meanwhile is told.
    async fn reopen(&self) -> Result<(), ProjectorError> {
        self.doubtful();
        let store = self.store.clone();
        let doubt = tokio::task::spawn_blocking(move || store.reopen(SCHEMA)).await??;
        if let Some(doubt) = doubt {
            self.count_rebuild(doubt);
        }
        Ok(())
    }

    async fn follow(&self, shutdown: &CancellationToken) -> Result<(), ProjectorError> {
        loop {
            let mut mark = self.store.mark().unwrap_or_default();
            let end = self.fold.position();
            if mark.position == Position(0) {
                mark = self.make_all(end).await?;
            }
            self.reached(mark.position);
            let mut events = self.fold.follow(mark.position);
            let mut wanted = self.wanted.subscribe();
            if mark.position >= end {
                self.part.ready();
            }
            let mut gathered = Gathered::default();
            loop {
                let more = async {
                    match gathered.events {
                        0 => events.next(BATCH).await,
                        _ => Ok(vec![]),
                    }
                };
                let batch = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Ok(()),
                    () = self.doubt.notified() => {
                        self.begin_anew(Doubt::Damaged).await?;
                        break;
                    }
                    batch = more => batch?,
                };
                gathered.take(&batch, &self.fold);
                let began = Instant::now();
                let (reached, meanwhile) = self.project(gathered, &mut events).await?;
                gathered = meanwhile;
                if reached >= end {
                    self.part.ready();
                    if gathered.events >= BATCH {
                        continue;
                    }
                    // At most a fifth of the time, once the views have caught up, and not while somebody waits for more.
                    tokio::select! {
                        () = tokio::time::sleep((began.elapsed() * 4).min(MAX_PAUSE)) => {}
                        _ = wanted.wait_for(|wanted| *wanted > reached) => {}
                    }
                }
            }
        }
    }

    /// Writes the documents from the state at or after the events, then the mark, and gathers meanwhile what comes: what
    /// waited longer would have to be read from the log and decoded a second time.
    async fn project(
        &self,
        gathered: Gathered,
        events: &mut Events,
    ) -> Result<(Position, Gathered), ProjectorError> {
        let (position, fold, store) = (gathered.mark.position, self.fold.clone(), self.store.clone());
        let mut writing = tokio::task::spawn_blocking(move || documents::write(&fold, &store, gathered));
        let (mut meanwhile, mut failed) = (Gathered::default(), None);
        let written = loop {
            let has_room = failed.is_none() && meanwhile.events < GATHERED;
            tokio::select! {
                biased;
                written = &mut writing => break written??,
                batch = events.next(BATCH), if has_room => match batch {
                    Ok(batch) => meanwhile.take(&batch, &self.fold),
                    // Nothing is tried again before the documents are written.
                    Err(error) => failed = Some(error),
                },
            }
        };
        self.show(&written);
        self.reached(position);
        match failed {
            Some(error) => Err(error.into()),
            None => Ok((position, meanwhile)),
        }
    }

    /// All documents at once, for views that hold nothing yet: those of the state as it is, and the history of
    /// rotations from their own events, which are read meanwhile. A crash on the way leaves no mark, and they are
    /// made anew.
    async fn make_all(&self, end: Position) -> Result<Mark, ProjectorError> {
        if end == Position(0) {
            return Ok(Mark::default());
        }
        // What an interrupted attempt left behind may be nobody's any more.
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.clear()).await??;
        let (nodes, certificates) = (self.fold.clone(), self.fold.clone());
        let (nodes_in, certificates_in) = (self.store.clone(), self.store.clone());
        let nodes = tokio::task::spawn_blocking(move || documents::all_nodes(&nodes, &nodes_in));
        let certificates =
            tokio::task::spawn_blocking(move || documents::all_certificates(&certificates, &certificates_in));
        // All of them end before anything is tried again.
        let (history, nodes, certificates) = tokio::join!(self.history(end), nodes, certificates);
        nodes??;
        certificates??;
        let (rotations, mark) = history?;
        let (fold, store) = (self.fold.clone(), self.store.clone());
        let finished =
            tokio::task::spawn_blocking(move || documents::finish(&fold, &store, &rotations, &mark));
        self.show(&finished.await??);
        Ok(mark)
    }

    /// The events of rotations up to this position, and its mark. Not further: the documents are those of a state that
    /// may end here.
    async fn history(&self, end: Position) -> Result<(Vec<Event>, Mark), ProjectorError> {
        let mut rotations = Vec::new();
        for position in self.fold.rotations().into_iter().filter(|at| *at <= end) {
            rotations.push(codec::decode(&self.record(position).await?)?);
        }
        let last = self.record(end).await?;
        let mark = Mark {
            position: end,
            event: eventlog::event_id(&last.data).map(domain::EventId),
        };
        Ok((rotations, mark))
    }

    /// What the log holds where the state has been.
    async fn record(&self, at: Position) -> Result<Stored, ProjectorError> {
        let found = self.fold.log().read(at.0, 1).await?.into_iter().next();
        Ok(found.ok_or_else(|| FoldError::Stopped("the log is shorter than it was".into()))?)
    }

    /// Are the views of this log? The event at their mark must be the one that they saw there.
    async fn check_mark(&self) -> Result<(), ProjectorError> {
        let Ok(mark) = self.store.mark() else {
            return self.begin_anew(Doubt::Damaged).await;
        };
        if mark.position == Position(0) {
            return Ok(());
        }
        let found = self.fold.log().read(mark.position.0, 1).await?;
        let id = found
            .first()
            .and_then(|record| eventlog::event_id(&record.data))
            .map(domain::EventId);
        if id.is_some() && id == mark.event {
            Ok(())
        } else {
            self.begin_anew(Doubt::OtherLog).await
        }
    }

    async fn begin_anew(&self, doubt: Doubt) -> Result<(), ProjectorError> {
        self.count_rebuild(doubt);
        self.part.waiting("the views to be made anew");
        // Before anything goes: whoever reads meanwhile sees that these are not the views that were waited for.
        self.doubtful();
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.clear()).await??;
        Ok(())
    }

    fn doubtful(&self) {
        self.reach.send_modify(|reach| {
            *reach = Reach {
                epoch: reach.epoch + 1,
                position: Position(0),
            }
        });
    }

    fn reached(&self, position: Position) {
        self.reach.send_modify(|reach| reach.position = position);
    }

    fn count_rebuild(&self, doubt: Doubt) {
        tracing::info!(reason = doubt.name(), "the views are made anew from the log");
        self.metrics
            .counter("carousel_view_rebuilds_total", &[doubt.name()])
            .inc();
    }

    /// What dashboards need of the status.
    fn show(&self, status: &Status) {
        let set = |name, labels: &[&str], value: u64| {
            self.metrics
                .gauge(name, labels)
                .set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set("carousel_view_position", &[], status.position.0);
        set("carousel_log_position", &[], self.fold.position().0);
        for authority in status.authorities.iter().filter(|a| !a.keys.is_empty()) {
            let t = authority.authority_type.name();
            set("carousel_rotation_held", &[t], u64::from(authority.rotation.held));
            for phase in Phase::ALL {
                set(
                    "carousel_rotation_phase",
                    &[t, phase.name()],
                    u64::from(authority.rotation.phase == phase),
                );
            }
            let counts = authority.nodes;
            for (state, count) in [
                ("required", counts.required),
                ("reached", counts.reached),
                ("lagging", counts.lagging),
                ("excluded", counts.excluded),
            ] {
                set("carousel_rotation_nodes", &[t, state], u64::from(count));
            }
        }
    }
}

#[cfg(test)]
mod tests;
