//! How long the orchestrator has been running since each step: lagging policies act on nobody's word but time
//! that was spent listening, and restarts do not reset the sum [M].

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use domain::{AuthorityType, ClusterState, Phase, RotationId, command::Mode};
use runtime::harden;
use serde::{Deserialize, Serialize};

/// A sum is written down after growing so much. A crash loses at most this, and so errs towards waiting.
const WRITE_EVERY_MS: u64 = 5_000;

/// The sums of all semi-automatic rotations in progress, kept in a small file.
pub(crate) struct Uptime {
    path: PathBuf,
    sums: BTreeMap<AuthorityType, Sum>,
    written: BTreeMap<AuthorityType, Sum>,
    last: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Sum {
    rotation: RotationId,
    phase: Phase,
    uptime_ms: u64,
}

impl Uptime {
    /// Reads the sums. A file that is missing or broken counts as zero: the policies then wait longer.
    pub(crate) fn open(path: &Path, mono: Duration) -> Self {
        let read = fs::read(path).ok().and_then(|bytes| {
            let read = serde_json::from_slice(&bytes);
            read.inspect_err(|error| tracing::warn!(%error, "the sums of uptime begin anew"))
                .ok()
        });
        let sums: BTreeMap<AuthorityType, Sum> = read.unwrap_or_default();
        Self {
            path: path.into(),
            written: sums.clone(),
            sums,
            last: mono,
        }
    }

    /// Adds the time since the last call to every step that is still the current one.
    pub(crate) fn count(&mut self, state: &ClusterState, mono: Duration) {
        let passed_ms = u64::try_from(mono.saturating_sub(self.last).as_millis()).unwrap_or(u64::MAX);
        self.last = mono;
        let mut sums = BTreeMap::new();
        for (t, of) in &state.types {
            let Some(rotation) = of.rotation.as_ref().filter(|r| r.mode == Mode::Automatic) else {
                continue;
            };
            let before = self
                .sums
                .get(t)
                .filter(|s| (s.rotation, s.phase) == (rotation.id, of.phase));
            // A step counts from when it was first seen: never more than was spent listening.
            let uptime_ms = before.map_or(0, |sum| sum.uptime_ms.saturating_add(passed_ms));
            sums.insert(
                *t,
                Sum {
                    rotation: rotation.id,
                    phase: of.phase,
                    uptime_ms,
                },
            );
        }
        self.sums = sums;
    }

    /// The sum since the current step of this type.
    pub(crate) fn since_step_ms(&self, authority_type: AuthorityType) -> u64 {
        self.sums.get(&authority_type).map_or(0, |sum| sum.uptime_ms)
    }

    /// Writes the sums down when they have grown enough, or at the end.
    ///
    /// # Errors
    /// What the operating system said; counting goes on.
    pub(crate) fn persist(&mut self, at_end: bool) -> io::Result<()> {
        let grown = |(t, sum): (&AuthorityType, &Sum)| match self.written.get(t) {
            Some(old) if (old.rotation, old.phase) == (sum.rotation, sum.phase) => {
                sum.uptime_ms - old.uptime_ms >= WRITE_EVERY_MS
            }
            _ => true,
        };
        let due = self.sums.len() != self.written.len() || self.sums.iter().any(grown);
        if self.sums == self.written || !(due || at_end) {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&self.sums).expect("sums have string keys");
        harden::atomic_write(&self.path, &bytes, harden::OWNER_ONLY)?;
        self.written = self.sums.clone();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use domain::{
        Timestamp,
        command::LaggingPolicy,
        state::{Rotation, TypeState},
    };

    use super::*;

    const T: AuthorityType = AuthorityType::Host;

    fn state(phase: Phase) -> ClusterState {
        let rotation = Rotation {
            id: RotationId(uuid::Uuid::from_u128(1)),
            started: Timestamp(0),
            mode: Mode::Automatic,
            grace_period_ms: 3_000,
            on_lagging: LaggingPolicy::Proceed,
            stepped: Timestamp(0),
            held: None,
            excluded: BTreeSet::new(),
        };
        let of = TypeState {
            phase,
            rotation: Some(rotation),
            ..TypeState::default()
        };
        ClusterState {
            types: BTreeMap::from([(T, of)]),
            ..ClusterState::default()
        }
    }

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_restart_goes_on_with_the_sum_and_the_time_between_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uptime.json");
        let mut first = Uptime::open(&path, s(10));
        first.count(&state(Phase::Init), s(10));
        first.count(&state(Phase::Init), s(17));
        first.persist(true).unwrap();
        let mut second = Uptime::open(&path, s(500));
        second.count(&state(Phase::Init), s(503));
        assert_eq!(second.since_step_ms(T), 10_000);
    }

    #[test]
    fn a_new_step_counts_from_zero() {
        let dir = tempfile::tempdir().unwrap();
        let mut uptime = Uptime::open(&dir.path().join("uptime.json"), s(0));
        uptime.count(&state(Phase::Init), s(0));
        uptime.count(&state(Phase::Init), s(9));
        uptime.count(&state(Phase::UpdateClients), s(20));
        assert_eq!(uptime.since_step_ms(T), 0);
    }

    #[test]
    fn a_broken_file_makes_the_policies_wait_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("uptime.json");
        fs::write(&path, "{").unwrap();
        let mut uptime = Uptime::open(&path, s(0));
        uptime.count(&state(Phase::Init), s(1));
        uptime.count(&state(Phase::Init), s(2));
        uptime.persist(true).unwrap();
        assert_eq!(Uptime::open(&path, s(0)).sums[&T].uptime_ms, 1_000);
    }
}
