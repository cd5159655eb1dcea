//! The signer as a service: what is owed is done, over and over, until shutdown.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use domain::{AuthorityId, AuthorityType, ClusterName, Duty, RotationId, Timestamp, owed};
use eventlog::AppendError;
use execution::{FactWriter, Fold, Now};
use pki::KeyPair;
use runtime::{backoff::Backoff, metrics::Metrics, readiness::Part};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    authorities::{Authorities, OpenError},
    bundles::{Told, Tried},
    checkpoints::{CheckpointError, Checkpoints},
    founding,
    keystore::{KeyStore, KeyStoreError, Stores},
};

/// What only time makes due (a bundle at half its life) is looked for this often.
const TICK: Duration = Duration::from_secs(5);
/// How long the signer waits to read its own facts back before it looks again.
pub(crate) const READ_BACK: Duration = Duration::from_secs(5);

/// What the signer needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// `D/keys`: the sealed keys and the checkpoints.
    pub key_dir: PathBuf,
}

/// The signing service.
pub struct Signer {
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) bundle_key: Arc<KeyPair>,
    pub(crate) cluster: ClusterName,
    pub(crate) fold: Fold,
    pub(crate) writer: FactWriter,
    pub(crate) metrics: Metrics,
    /// The keys that `init` made: this signer's own, even where a file of one is lost.
    pub(crate) founders: BTreeSet<AuthorityId>,
    pub(crate) told: Told,
    pub(crate) tried: Tried,
    now: Now,
    checkpoints: Checkpoints,
    part: Part,
}

/// Why the signer does not start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// The keys cannot be opened.
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    /// The log is not the one that this signer knows.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The keys are another cluster's.
    #[error(
        "the keys are those of the cluster {keys}, the log is that of {log}; give the data directory and the log of one cluster"
    )]
    OtherCluster {
        /// Whose keys.
        keys: ClusterName,
        /// Whose log.
        log: ClusterName,
    },
    /// A bug.
    #[error("a task of the signer ended unexpectedly")]
    Task(#[from] JoinError),
}

/// Why one duty was not done. It stays owed; the signer tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DutyError {
    #[error(transparent)]
    Authority(#[from] OpenError),
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    #[error("a CA certificate could not be made")]
    Certificate(#[from] pki::AuthorityError),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("it is not known whether the log stored what was appended ({0})")]
    Unknown(String),
    #[error("the log stored what was appended, but it was not read back: {0}")]
    Behind(#[from] execution::Behind),
    #[error("the last trust bundle cannot be read from the log: {0}")]
    Unreadable(String),
    #[error("a signing task ended unexpectedly")]
    Task(#[from] JoinError),
    #[error("the authority's key did not sign")]
    Sign(#[source] pki::IssueError),
}

impl Signer {
    /// Opens the keys and holds the log against the checkpoints.
    ///
    /// # Errors
    /// [`SignerError`]: without its keys, or with a log that was changed or cut, it does not start.
    pub async fn open(
        config: Config,
        fold: Fold,
        now: Now,
        metrics: Metrics,
        part: Part,
    ) -> Result<Self, SignerError> {
        let dir = config.key_dir.clone();
        let (store, founders) = tokio::task::spawn_blocking(move || {
            // Whoever begins the log reads the same file and says what is wrong with it; here it only vouches.
            let genesis = founding::load_genesis(&dir).ok();
            let first = genesis.into_iter().flat_map(|genesis| genesis.keys);
            let founders = first.map(|(generated, _)| generated.key.id).collect();
            Stores::open(&dir).map(|store| (store, founders))
        })
        .await??;
        let checkpoints = Checkpoints::open(&config.key_dir, fold.log().clone(), now.clone()).await?;
        Self::with_store(Arc::new(store), founders, fold, now, metrics, part, checkpoints)
    }

    fn with_store(
        store: Arc<Stores>,
        founders: BTreeSet<AuthorityId>,
        fold: Fold,
        now: Now,
        metrics: Metrics,
        part: Part,
        checkpoints: Checkpoints,
    ) -> Result<Self, SignerError> {
        let cluster = store.cluster().clone();
        let signer = Self {
            bundle_key: Arc::new(store.bundle_key()?),
            authorities: Arc::new(Authorities::new(store)),
            writer: FactWriter::signer(fold.clone()),
            cluster,
            fold,
            metrics,
            founders,
            told: Told::default(),
            tried: Tried::default(),
            now,
            checkpoints,
            part,
        };
        signer.check_cluster()?;
        Ok(signer)
    }

    /// Works until shutdown.
    ///
    /// # Errors
    /// When it cannot go on: the log is another cluster's, or the checkpoints cannot be kept.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), SignerError> {
        let mut tasks = JoinSet::new();
        // Our own end, not the process's: whoever runs us decides what our failure means for the others.
        let stop = shutdown.child_token();
        let checkpoints = std::mem::replace(&mut self.checkpoints, Checkpoints::none());
        tasks.spawn(checkpoints.run(stop.clone()));
        let outcome = tokio::select! {
            outcome = self.work(&stop) => outcome,
            Some(ended) = tasks.join_next() => ended.map_err(SignerError::from).and_then(|kept| Ok(kept?)),
        };
        // The last checkpoint is written on the way out.
        stop.cancel();
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        if let Err(error) = &outcome {
            self.part.failed(&chain(error));
        }
        outcome
    }

    async fn work(&self, shutdown: &CancellationToken) -> Result<(), SignerError> {
        let mut changes = self.fold.changes();
        let mut swept = None;
        let mut backoff = Backoff::new(
            Duration::from_millis(100),
            Duration::from_secs(5),
            runtime::backoff::random_seed(),
        );
        loop {
            changes.borrow_and_update();
            self.check_cluster()?;
            let did = self.pass(&mut swept).await;
            let pause = match did {
                Ok(Progress::Some) => {
                    backoff.reset();
                    Duration::ZERO
                }
                Ok(Progress::None) => {
                    backoff.reset();
                    self.part.ready();
                    TICK
                }
                Err(error) => {
                    let why = chain(&error);
                    tracing::warn!(%why, "a duty of the signer waits; it is tried again");
                    self.part.waiting(&why);
                    backoff.next_pause()
                }
            };
            if shutdown.is_cancelled() {
                return Ok(());
            }
            if pause.is_zero() {
                continue;
            }
            // After a failure a change of the log is no reason to hurry: the cause is elsewhere.
            let is_idle = pause == TICK;
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
                Ok(()) = changes.changed(), if is_idle => {}
            }
        }
    }

    /// Does what is owed now. Every duty may be done twice and late, so that the state is enough to begin with.
    /// What is in the store and in nobody's use is looked for when a rotation began or ended, once all is done.
    async fn pass(&self, swept: &mut Option<Rotations>) -> Result<Progress, DutyError> {
        let now = self.now();
        let duties = self.fold.read(|state| owed(state, state.now(now)));
        let mut progress = Progress::None;
        let mut failed = None;
        let mut to_sign = vec![];
        for duty in duties {
            if let Duty::Sign { authorization } = duty {
                to_sign.push(authorization);
                continue;
            }
            match self.perform(&duty).await {
                Ok(did) => progress = progress.or(did),
                // One type's trouble does not keep the others waiting.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.metrics
            .gauge("carousel_signer_duties", &[])
            .set(i64::try_from(to_sign.len()).unwrap_or(i64::MAX));
        match self.sign(&to_sign).await {
            Ok(did) => progress = progress.or(did),
            Err(error) => failed = failed.or(Some(error)),
        }
        let rotations: Rotations = self
            .fold
            .read(|state| state.types.iter().map(|(t, of)| (*t, of.rotation_id())).collect());
        if progress == Progress::None && failed.is_none() && swept.as_ref() != Some(&rotations) {
            self.sweep().await?;
            *swept = Some(rotations);
        }
        match (progress, failed) {
            (Progress::None, Some(error)) => Err(error),
            (progress, Some(error)) => {
                tracing::warn!(why = %chain(&error), "a duty of the signer waits; it is tried again");
                Ok(progress)
            }
            (progress, None) => Ok(progress),
        }
    }

    fn check_cluster(&self) -> Result<(), SignerError> {
        let log = self
            .fold
            .read(|state| state.cluster.as_ref().map(|c| (c.name.clone(), c.bundle_key)));
        match log {
            Some((name, key)) if name != self.cluster || key != self.bundle_key.spki_pin() => {
                Err(SignerError::OtherCluster {
                    keys: self.cluster.clone(),
                    log: name,
                })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        (self.now)()
    }
}

/// The rotations in progress: what keys may be waiting for.
type Rotations = BTreeMap<AuthorityType, Option<RotationId>>;

/// Was anything done, so that it is worth looking again at once?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Progress {
    Some,
    None,
}

impl Progress {
    pub(crate) fn or(self, other: Self) -> Self {
        if self == Self::Some { self } else { other }
    }
}

/// An error with its causes, for one line of a log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
