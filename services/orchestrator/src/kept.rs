//! What the orchestrator keeps over its restarts, in one small file: how long it has been running since each step,
//! and the clock that it last believed. Neither is in the log, because both are of this machine alone.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use domain::{AuthorityType, Phase, Position, RotationId};
use runtime::harden;
use serde::{Deserialize, Serialize};

/// A sum is written down after growing so much. A crash loses at most this, and so errs towards waiting.
const WRITE_EVERY_MS: u64 = 5_000;
/// The believed clock is written down after following so much drift: little beside the 30 s that are a jump.
const WRITE_DRIFT_MS: u64 = 1_000;

/// The content of the file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Kept {
    /// Of all semi-automatic rotations in progress.
    pub(crate) sums: BTreeMap<AuthorityType, Sum>,
    /// None where the system does not name its boots.
    pub(crate) clock: Option<BelievedClock>,
}

/// How long the orchestrator has been running since one step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Sum {
    pub(crate) rotation: RotationId,
    pub(crate) phase: Phase,
    pub(crate) uptime_ms: u64,
}

/// The clock as it was last believed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct BelievedClock {
    /// The machine's boot: the offset says nothing in another one.
    pub(crate) boot: String,
    /// Wall minus monotonic time.
    pub(crate) offset_ms: i64,
    /// The last acceptance by an operator that was taken in: it does not speak for a later jump.
    pub(crate) accepted: Position,
}

/// The file.
pub(crate) struct KeptFile {
    path: PathBuf,
    written: Kept,
}

impl KeptFile {
    /// Reads it. A file that is missing or broken counts as empty: lagging policies then wait longer, and the clock is
    /// compared with the log alone, as after the first start.
    pub(crate) fn open(path: &Path) -> (Self, Kept) {
        let read = fs::read(path).ok().and_then(|bytes| {
            let read = serde_json::from_slice(&bytes);
            read.inspect_err(|error| tracing::warn!(%error, "what was kept of the last run cannot be read"))
                .ok()
        });
        let kept: Kept = read.unwrap_or_default();
        let file = Self {
            path: path.into(),
            written: kept.clone(),
        };
        (file, kept)
    }

    /// Writes it down when it has changed enough, or at the end.
    ///
    /// # Errors
    /// What the operating system said; everything goes on.
    pub(crate) fn persist(&mut self, now: &Kept, at_end: bool) -> io::Result<()> {
        let due = at_end || self.sums_are_due(now) || self.clock_is_due(now);
        if *now == self.written || !due {
            return Ok(());
        }
        let bytes = serde_json::to_vec(now).expect("sums have string keys");
        harden::atomic_write(&self.path, &bytes, harden::OWNER_ONLY)?;
        self.written = now.clone();
        Ok(())
    }

    fn sums_are_due(&self, now: &Kept) -> bool {
        let written = &self.written.sums;
        let grown = |(t, sum): (&AuthorityType, &Sum)| match written.get(t) {
            Some(old) if (old.rotation, old.phase) == (sum.rotation, sum.phase) => {
                sum.uptime_ms.saturating_sub(old.uptime_ms) >= WRITE_EVERY_MS
            }
            _ => true,
        };
        now.sums.len() != written.len() || now.sums.iter().any(grown)
    }

    fn clock_is_due(&self, now: &Kept) -> bool {
        match (&self.written.clock, &now.clock) {
            (Some(old), Some(new)) => {
                (&old.boot, old.accepted) != (&new.boot, new.accepted)
                    || old.offset_ms.abs_diff(new.offset_ms) >= WRITE_DRIFT_MS
            }
            (old, new) => old != new,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(offset_ms: i64) -> Kept {
        let clock = BelievedClock {
            boot: "a".into(),
            offset_ms,
            accepted: Position(0),
        };
        Kept {
            clock: Some(clock),
            ..Kept::default()
        }
    }

    #[test]
    fn a_broken_file_counts_as_empty_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orchestrator.json");
        fs::write(&path, "{").unwrap();
        let (mut file, kept) = KeptFile::open(&path);
        assert_eq!(kept, Kept::default());
        file.persist(&clock(7), false).unwrap();
        assert_eq!(KeptFile::open(&path).1, clock(7));
    }

    #[test]
    fn a_clock_is_written_when_it_has_drifted_and_not_at_every_tick() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("orchestrator.json");
        let (mut file, _) = KeptFile::open(&path);
        for (offset_ms, kept) in [(0, 0), (999, 0), (1_000, 1_000), (1, 1_000), (-1, -1)] {
            file.persist(&clock(offset_ms), false).unwrap();
            assert_eq!(KeptFile::open(&path).1, clock(kept), "{offset_ms}");
        }
    }
}
