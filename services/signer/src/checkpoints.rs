//! Checkpoints of the log, kept beside the keys: the signer refuses a log that was changed or cut.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use domain::Position;
use eventlog::{ReadError, SharedLog};
use execution::{
    Now,
    checkpoint::{Chain, Checkpoint, read_file},
};
use futures::StreamExt;
use runtime::harden::{self, OWNER_ONLY};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A checkpoint is due after so many records,
const EVERY_RECORDS: u64 = 1_000;
/// or so long after the first record that none covers.
const EVERY: Duration = Duration::from_secs(60);
/// How soon a checkpoint that could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// Records read at once at the start.
const BATCH: usize = 1_000;
const FILE: &str = "checkpoints.jsonl";

/// The checkpoints of one log and the chain that continues them.
pub struct Checkpoints {
    path: PathBuf,
    /// None only in the place of one that runs.
    log: Option<SharedLog>,
    now: Option<Now>,
    chain: Chain,
    covered: Position,
}

/// Why the log is not trusted, or the checkpoints cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file of checkpoints is not as it was written.
    #[error("the checkpoints {} cannot be read; restore the file from a copy, or, if you know why, move it away: what is in the log then counts as honest", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found.
        #[source]
        source: io::Error,
    },
    /// A checkpoint cannot be written.
    #[error("a checkpoint could not be written to {}; check the disk", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The log cannot be read.
    #[error("the log cannot be held against the checkpoints")]
    Read(#[from] ReadError),
    /// Something up to this position was changed.
    #[error(
        "the log differs from what this signer saw: the records up to position {position} had the digest {saw}, now they have {found}; something between {after} and {position} was changed. Keep both, run `carousel audit verify`, and restore the log from a copy: nothing is signed until then"
    )]
    Differs {
        /// The first checkpoint that fails.
        position: Position,
        /// The last one that holds.
        after: Position,
        /// The digest that was written down.
        saw: domain::BodyDigest,
        /// The digest of what is there.
        found: domain::BodyDigest,
    },
    /// The end of the log is gone.
    #[error(
        "the log ends at position {end}, but this signer has seen position {position}: its end was cut off, or an older copy was restored. Restore a copy that reaches position {position}: nothing is signed until then"
    )]
    Shorter {
        /// Where it ends.
        end: Position,
        /// What was seen.
        position: Position,
    },
}

impl Checkpoints {
    /// Reads the whole log once and holds it against every checkpoint.
    ///
    /// # Errors
    /// `Differs` or `Shorter`, in words that say what to do.
    pub async fn open(key_dir: &Path, log: SharedLog, now: Now) -> Result<Self, CheckpointError> {
        let path = key_dir.join(FILE);
        let known = read_file(&path).map_err(|source| CheckpointError::File {
            path: path.clone(),
            source,
        })?;
        drop_cut_line(&path, &known).map_err(|source| CheckpointError::Write {
            path: path.clone(),
            source,
        })?;
        let chain = hold_against(&log, &known).await?;
        let covered = known.last().map(|c| c.position).unwrap_or_default();
        Ok(Self {
            path,
            log: Some(log),
            now: Some(now),
            chain,
            covered,
        })
    }

    pub(crate) fn none() -> Self {
        Self {
            path: PathBuf::new(),
            log: None,
            now: None,
            chain: Chain::default(),
            covered: Position(0),
        }
    }

    /// Follows the log and writes checkpoints until shutdown; the last one then.
    ///
    /// # Errors
    /// When the log has a hole or the last checkpoint cannot be written.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), CheckpointError> {
        let (Some(log), Some(now)) = (self.log.clone(), self.now.clone()) else {
            return Ok(());
        };
        let mut records = log.follow(self.chain.position().0);
        let mut when = When::Idle;
        loop {
            let uncovered = self.chain.position().0 - self.covered.0;
            when = when.seen(uncovered, Instant::now());
            if when.is_due(uncovered, Instant::now()) {
                // A full disk is no reason to stop signing: it is said, and the next attempt covers more.
                when = match self.write(&now).await {
                    Ok(()) => When::Idle,
                    Err(error) => {
                        tracing::error!(why = %crate::service::chain(&error), "no checkpoint of the log");
                        When::Again(Instant::now() + AGAIN)
                    }
                };
            }
            let wake = when.wake(Instant::now());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return self.write(&now).await,
                record = records.next() => match record {
                    Some(record) => self.chain.push(&record?),
                    None => return self.write(&now).await,
                },
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// One line, durable before it counts. Crash point: a line that was cut off is left out by the next start.
    async fn write(&mut self, now: &Now) -> Result<(), CheckpointError> {
        if self.chain.position() == self.covered {
            return Ok(());
        }
        let checkpoint = self.chain.checkpoint(now());
        let (path, position) = (self.path.clone(), checkpoint.position);
        tokio::task::spawn_blocking(move || append_line(&path, &checkpoint))
            .await
            .unwrap_or_else(|panicked| Err(io::Error::other(panicked)))
            .map_err(|source| CheckpointError::Write {
                path: self.path.clone(),
                source,
            })?;
        self.covered = position;
        Ok(())
    }
}

/// When the next checkpoint is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// Everything is covered.
    Idle,
    /// At the latest then: there are records that no checkpoint covers.
    Due(Instant),
    /// Not before then: it could not be written, however many records wait.
    Again(Instant),
}

impl When {
    /// The first record that is not covered sets the time.
    fn seen(self, uncovered: u64, now: Instant) -> Self {
        match self {
            Self::Idle if uncovered > 0 => Self::Due(now + EVERY),
            Self::Idle | Self::Due(_) | Self::Again(_) => self,
        }
    }

    fn is_due(self, uncovered: u64, now: Instant) -> bool {
        match self {
            Self::Idle => false,
            Self::Due(at) => uncovered >= EVERY_RECORDS || at <= now,
            Self::Again(at) => at <= now,
        }
    }

    fn wake(self, now: Instant) -> Instant {
        match self {
            Self::Idle => now + EVERY,
            Self::Due(at) | Self::Again(at) => at,
        }
    }
}

/// The chain at the log's end, if every checkpoint holds.
async fn hold_against(log: &SharedLog, known: &[Checkpoint]) -> Result<Chain, CheckpointError> {
    let mut chain = Chain::default();
    let mut after = Position(0);
    let mut waiting = known.iter().peekable();
    loop {
        let batch = log.read(chain.position().0 + 1, BATCH).await?;
        if batch.is_empty() {
            break;
        }
        for record in &batch {
            chain.push(record);
            let Some(next) = waiting.peek() else { continue };
            match chain.agrees(next) {
                None => {}
                Some(true) => {
                    after = next.position;
                    waiting.next();
                }
                Some(false) => {
                    let found = chain.checkpoint(next.time).sha256;
                    return Err(CheckpointError::Differs {
                        position: next.position,
                        after,
                        saw: next.sha256,
                        found,
                    });
                }
            }
        }
    }
    match known.last().filter(|last| last.position > chain.position()) {
        Some(last) => Err(CheckpointError::Shorter {
            end: chain.position(),
            position: last.position,
        }),
        None => Ok(chain),
    }
}

fn append_line(path: &Path, checkpoint: &Checkpoint) -> io::Result<()> {
    let is_new = !path.exists();
    let mut file = open_for_append(path)?;
    let before = file.metadata()?.len();
    let mut line = serde_json::to_vec(checkpoint).expect("a checkpoint is plain data");
    line.push(b'\n');
    if let Err(error) = file.write_all(&line).and_then(|()| file.sync_data()) {
        // Half a line would spoil the next one. If this fails too, the next start finds no end of line.
        let _ = file.set_len(before);
        return Err(error);
    }
    match path.parent().filter(|_| is_new) {
        Some(dir) => harden::sync_dir(dir),
        None => Ok(()),
    }
}

/// Rewrites the file without a last line that a crash cut off, so that the next line begins a line.
fn drop_cut_line(path: &Path, whole: &[Checkpoint]) -> io::Result<()> {
    let Ok(text) = std::fs::read(path) else {
        return Ok(());
    };
    if text.is_empty() || text.ends_with(b"\n") {
        return Ok(());
    }
    let mut lines = vec![];
    for checkpoint in whole {
        serde_json::to_writer(&mut lines, checkpoint)?;
        lines.push(b'\n');
    }
    harden::atomic_write(path, &lines, OWNER_ONLY)
}

fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(OWNER_ONLY)
        .open(path)
}

#[cfg(test)]
mod tests;
