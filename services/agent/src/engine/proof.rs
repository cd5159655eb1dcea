//! The proof: hooks run, a handshake shows that what is installed is in force, and only then has it passed.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    AuthorityType,
    fact::Failure,
    reconcile::{Proof, keys_to_keep},
};

use super::{Engine, leaves};
use crate::{
    disk::{
        DiskError,
        beside::Beside,
        generations::Link,
        requests::{Purpose, Request},
    },
    gateway::in_words,
    tls,
};

/// The most that a failure's text may have, in characters; reports are small.
pub(super) const MAX_DETAIL: usize = 300;

/// Why hooks have not all run.
enum NotRun {
    /// One of them said no.
    Failed(String),
    /// None was begun: that they were could not be noted.
    Disk(DiskError),
}

impl Engine {
    /// Hooks first, then the handshake: what passes both is what may be presented and reported.
    pub(super) async fn prove(&mut self) -> bool {
        if !self.again.is_due() {
            return false;
        }
        if matches!(self.proof, Proof::Failed { .. }) && !self.install.is_due() {
            return false;
        }
        let found = match self.run_hooks().await {
            // Nobody is served what a bare agent holds: it is in force here and nowhere else.
            Ok(()) if self.disk.is_nowhere() => Ok(()),
            Ok(()) => {
                let (epochs, sessions) = (self.shared.epochs.clone(), self.shared.sessions.clone());
                let (cluster, node) = (self.identity.cluster.clone(), self.identity.node);
                match tls::prove(self.listen, &epochs, &sessions, &cluster, node).await {
                    Ok(()) => Ok(()),
                    Err(error) if error.is_open() => {
                        // Nothing was found out, so that nothing is put back: the proof stays due.
                        self.again.fail();
                        self.fail("proof", in_words(&error));
                        return false;
                    }
                    Err(error) => Err(("proof", in_words(&error))),
                }
            }
            Err(NotRun::Failed(why)) => Err(("reload", why)),
            Err(NotRun::Disk(error)) => {
                self.disk_refused(&error);
                return false;
            }
        };
        if self.shutdown.is_cancelled() {
            return false;
        }
        match found {
            Ok(()) => self.pass(),
            Err((step, why)) => {
                self.fail(step, why);
                self.proof = Proof::Failed {
                    count: self.failure.as_ref().map_or(1, |f| f.count),
                };
            }
        }
        true
    }

    /// The installed generation passed: it is the one to present, to report and to come back to.
    fn pass(&mut self) {
        if self.passed.as_ref().map(|p| p.number) != Some(self.installed.number) {
            // Crash point: before this line the next start proves this generation again.
            if let Err(error) = self.disk.point(Link::Passed, self.installed.number) {
                // It is in force, and the proof is due again: what a restart would not know has not passed.
                self.disk_refused(&error);
                return;
            }
            self.passed = Some(self.installed.clone());
            self.count_installed("passed");
            tracing::info!(generation = self.installed.number, "proven");
        }
        self.proof = Proof::Passed;
        self.again.succeed();
        if !self.restored {
            self.failure = None;
            self.install.succeed();
        }
        self.prune_requests();
        self.disk.prune_generations();
    }

    /// Throws away the requests whose keys are needed no more, or lie in the generation that has passed. A way back
    /// that is under way is no step of the plan, so that the plan does not know of its key.
    fn prune_requests(&mut self) {
        let held: BTreeSet<_> = leaves(&self.installed.material.generation)
            .map(|l| l.spki)
            .collect();
        let keep = keys_to_keep(&self.have());
        let is_stranded = self.dial.borrow().is_none();
        let is_way_back = |r: &Request| is_stranded && !matches!(r.purpose, Purpose::Row { .. });
        let is_over = |r: &Request| held.contains(&r.spki) || !(keep.contains(&r.spki) || is_way_back(r));
        let over: Vec<_> = self
            .requests
            .iter()
            .filter(|r| is_over(r))
            .map(|r| r.spki)
            .collect();
        over.iter().for_each(|spki| self.forget(spki));
    }

    /// The disk refuses (it is full, most often): the node goes on with what it has, says so, and tries again.
    pub(super) fn disk_refused(&mut self, error: &DiskError) {
        self.again.fail();
        self.fail("disk", error.to_string());
    }

    /// The disk has taken what it refused before, so that nothing is left to complain about.
    pub(super) fn disk_took(&mut self) {
        self.again.succeed();
        let is_over = self.proof == Proof::Passed && !self.restored;
        if is_over && self.failure.as_ref().is_some_and(|f| f.step == "disk") {
            self.failure = None;
            self.install.succeed();
        }
    }

    /// Notes a failure and makes the next attempt wait.
    pub(super) fn fail(&mut self, step: &str, why: String) {
        let count = self.failure.as_ref().map_or(0, |f| f.count) + 1;
        let detail: String = why.chars().take(MAX_DETAIL).collect();
        tracing::error!(
            step,
            count,
            detail,
            "this node cannot go on to the desired state; it tries again"
        );
        self.failure = Some(Failure {
            step: step.to_owned(),
            detail,
            count,
        });
        self.install.fail();
    }

    /// Runs the hooks that care for what has changed since they last ran.
    async fn run_hooks(&mut self) -> Result<(), NotRun> {
        let changed = self.changed_for_hooks();
        let hooks = self.config.settings.reload.clone();
        let hooks: Vec<_> = hooks.into_iter().filter(|hook| hook.concerns(&changed)).collect();
        if !changed.is_empty() && !hooks.is_empty() {
            // Crash point: from here until all have run nobody knows what applications hold, and a start that finds
            // no link runs them all again.
            self.hooked = None;
            self.disk.unlink(Link::Hooked).map_err(NotRun::Disk)?;
            for hook in hooks {
                tokio::select! {
                    () = self.shutdown.cancelled() => return Err(NotRun::Failed("the agent was stopped".into())),
                    ran = hook.run() => ran.map_err(|e| {
                        if let Some(metrics) = &self.config.metrics {
                            metrics.counter("carousel_agent_reload_failures_total", &[]).inc();
                        }
                        NotRun::Failed(e.to_string())
                    })?,
                }
            }
            if let Err(error) = self.disk.point(Link::Hooked, self.installed.number) {
                tracing::warn!(%error, "the next start will run the hooks again");
            }
        }
        self.hooked = Some(self.installed.material.generation.clone());
        self.hooked_beside.clone_from(&self.installed.material.beside);
        Ok(())
    }

    /// The types whose files are not those that hooks have seen.
    fn changed_for_hooks(&self) -> Vec<AuthorityType> {
        let now = &self.installed.material.generation;
        let Some(before) = &self.hooked else {
            return now.trusted.keys().copied().collect();
        };
        let leaves_changed =
            before.client != now.client || before.server != now.server || before.ssh != now.ssh;
        let (beside, seen) = (&self.installed.material.beside, &self.hooked_beside);
        let beside_changed = |t: &AuthorityType| {
            let files = |of: &BTreeMap<_, Beside>| of.get(t).cloned().unwrap_or_default();
            files(beside) != files(seen)
        };
        let is_changed = |t: &AuthorityType| {
            before.trusted.get(t) != now.trusted.get(t)
                || (*t == AuthorityType::Host && leaves_changed)
                || beside_changed(t)
        };
        // Files of a type that is not granted any more are gone, which is a change as well.
        let types: BTreeSet<_> = now.trusted.keys().chain(before.trusted.keys()).copied().collect();
        types.into_iter().filter(is_changed).collect()
    }

    /// Hooks are to run again, whatever they have seen.
    pub(super) fn forget_hooked(&mut self) {
        self.hooked = None;
        if let Err(error) = self.disk.unlink(Link::Hooked) {
            tracing::warn!(%error, "a start before the hooks have run will not run them again");
        }
    }
}
