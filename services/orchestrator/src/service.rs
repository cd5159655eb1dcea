//! The ticking service.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::{
    AuthorityType, Code, NodeId, Order, Phase, Position, Principal, RotationId, Timestamp,
    command::{Expectation, LaggingPolicy},
    duty::void_authorizations,
    id::SystemActor,
    schedule::{due_steps, to_settle},
};
use eventlog::{Subject, event_prefix};
use execution::{ExecuteError, Executor, Fold, codec};
use runtime::{clock::SharedClock, metrics::Metrics, readiness::Part};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::ClockJudge,
    kept::{Kept, KeptFile},
    members::Members,
    presence::Presence,
    uptime::Uptime,
};

/// How often the clock is looked at. A due step is late by at most this.
const TICK: Duration = Duration::from_millis(250);
/// A step that is due and held is tried this often, and whenever the log has grown.
const RETRY: Duration = Duration::from_secs(1);

/// How often members are listened to; they say something every five seconds.
const LISTEN: Duration = Duration::from_secs(2);

/// What the orchestrator needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the sums of its running time and the clock that it believes are kept, `D/orchestrator.json`.
    pub state_file: PathBuf,
}

/// The service that keeps the time.
pub struct Orchestrator {
    fold: Fold,
    executor: Executor,
    presence: Arc<dyn Presence>,
    clock: SharedClock,
    clock_suspect: Arc<AtomicBool>,
    metrics: Metrics,
    part: Part,
    judge: ClockJudge,
    members: Members,
    listened: Option<Duration>,
    uptime: Uptime,
    kept: KeptFile,
    /// The last event of the `cluster` family that was looked at: among them are acceptances of the clock.
    accepted: u64,
    /// Up to where the log was looked at for what only events make due.
    seen: Option<Position>,
    /// The due steps that were ordered last, and when.
    tried: Vec<(AuthorityType, RotationId, Phase)>,
    tried_at: Duration,
}

impl Orchestrator {
    /// An orchestrator that sets `clock_suspect`, the flag that the executor reads.
    #[allow(
        clippy::too_many_arguments,
        reason = "each is a part of the process, and a struct would name them once more"
    )]
    pub fn new(
        config: Config,
        fold: Fold,
        executor: Executor,
        presence: Arc<dyn Presence>,
        clock: SharedClock,
        clock_suspect: Arc<AtomicBool>,
        metrics: Metrics,
        part: Part,
    ) -> Self {
        let started = clock.monotonic();
        let (file, kept) = KeptFile::open(&config.state_file);
        Self {
            judge: ClockJudge::new(clock.clone(), kept.clock),
            members: Members::default(),
            listened: None,
            uptime: Uptime::new(kept.sums, started),
            kept: file,
            fold,
            executor,
            presence,
            clock,
            clock_suspect,
            metrics,
            part,
            accepted: 0,
            seen: None,
            tried: vec![],
            tried_at: started,
        }
    }

    /// Ticks until shutdown.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut ticks = interval(TICK);
        // A process that was stopped for an hour does not make up for its ticks.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.tick() => {}
            }
            self.part.ready();
        }
        self.keep(true);
    }

    async fn tick(&mut self) {
        self.judge_clock().await;
        self.count_uptime();
        self.keep(false);
        self.miss_members().await;
        let position = self.fold.position();
        let has_grown = self.seen != Some(position);
        // What could not be ordered because the log was away is ordered again, though nothing has grown.
        if has_grown && self.settle().await && self.void().await {
            self.seen = Some(position);
        }
        self.step(has_grown).await;
    }

    /// Sets the flag before anything of this tick is ordered.
    async fn judge_clock(&mut self) {
        if let Some(record) = self.newest_acceptance().await {
            self.judge.accepted(&record);
        }
        let suspicion = self.judge.suspicion(self.fold.read(|state| state.time));
        let was = self.clock_suspect.swap(suspicion.is_some(), Ordering::SeqCst);
        self.metrics
            .gauge("carousel_clock_suspect", &[])
            .set(i64::from(suspicion.is_some()));
        match suspicion {
            Some(why) if !was => {
                tracing::error!(%why, "no automatic step is taken until it agrees again or `carousel clock accept`");
            }
            None if was => tracing::info!("the clock is believed again"),
            _ => {}
        }
    }

    /// The last fact of the `cluster` family, when it is a new one.
    async fn newest_acceptance(&mut self) -> Option<domain::Event> {
        let (tail, subject) = self.fold.read_with_tails(|state, tail| {
            let prefix = event_prefix(state.cluster_name()?.as_str());
            let subject = Subject::parse(format!("{prefix}cluster.cluster")).expect("a literal of tokens");
            Some((tail(&subject), subject))
        })?;
        if tail == self.accepted {
            return None;
        }
        // If it cannot be read now, the next tick tries again: the clock stays suspect until then.
        let record = self.fold.log().tail(&subject).await.ok()??;
        let event = codec::decode(&record).ok()?;
        self.accepted = tail;
        Some(event)
    }

    fn count_uptime(&mut self) {
        let mono = self.clock.monotonic();
        let uptime = &mut self.uptime;
        if self.fold.read(|state| uptime.count(state, mono)) {
            tracing::warn!("this process stood still: it judges who is silent or lags as after a start");
            self.members.was_deaf();
        }
    }

    fn keep(&mut self, at_end: bool) {
        let now = Kept {
            sums: self.uptime.sums().clone(),
            clock: self.judge.believed(),
        };
        if let Err(error) = self.kept.persist(&now, at_end) {
            tracing::warn!(%error, "uptime and clock could not be kept: after a restart lagging policies wait longer");
        }
    }

    async fn miss_members(&mut self) {
        let mono = self.clock.monotonic();
        if self.listened.is_some_and(|at| mono.saturating_sub(at) < LISTEN) {
            return;
        }
        self.listened = Some(mono);
        let leases = match self.fold.log().leases().await {
            Ok(leases) => leases,
            Err(error) => {
                tracing::warn!(%error, "members cannot be heard");
                self.members.was_deaf();
                return;
            }
        };
        let members = &mut self.members;
        let silent = self.fold.read(|state| members.observe(state, &leases, mono));
        for silent in silent {
            let (member, boot, silent_ms) = (silent.member, silent.boot, silent.silent_ms);
            tracing::warn!(%member, silent_ms, "a member fell silent: gates wait for it no longer");
            self.order(Order::LoseMember {
                member,
                boot,
                silent_ms,
                uptime_ms: self.uptime_ms(),
            })
            .await;
        }
        let (running, lost) = self.fold.read(|state| {
            let running = state.members.values().filter(|m| m.running).count();
            (running, state.members.len() - running)
        });
        self.metrics
            .gauge("carousel_members", &["required"])
            .set(i64::try_from(running).unwrap_or(i64::MAX));
        self.metrics
            .gauge("carousel_members", &["lost"])
            .set(i64::try_from(lost).unwrap_or(i64::MAX));
    }

    async fn settle(&self) -> bool {
        let mut answered = true;
        for (authority_type, rotation) in self.fold.read(to_settle) {
            answered &= self
                .order(Order::Settle {
                    authority_type,
                    rotation,
                })
                .await;
        }
        answered
    }

    async fn void(&self) -> bool {
        let mut answered = true;
        for authorization in self.fold.read(void_authorizations) {
            let why = "its authority signs no more".into();
            answered &= self.order(Order::VoidAuthorization { authorization, why }).await;
        }
        answered
    }

    /// Every step that is due. What the domain makes of it depends on the gate and the policy; one that is
    /// held is not tried at every tick, because a gate is counted over all nodes.
    async fn step(&mut self, has_grown: bool) {
        let (now, mono) = (Timestamp(self.clock.now_ms()), self.clock.monotonic());
        let due = self.fold.read(|state| due_steps(state, state.now(now)));
        let is_news = has_grown || due != self.tried;
        if due.is_empty() || !(is_news || mono.saturating_sub(self.tried_at) >= RETRY) {
            return;
        }
        (self.tried, self.tried_at) = (due.clone(), mono);
        for (authority_type, rotation, phase) in due {
            let seen = self.seen_since_the_step(authority_type).await;
            self.order(Order::ScheduledStep {
                authority_type,
                expects: Expectation {
                    rotation: Some(rotation),
                    phase,
                },
                uptime_since_step_ms: self.uptime.since_step_ms(authority_type),
                uptime_ms: self.uptime_ms(),
                seen,
            })
            .await;
        }
    }

    /// Whom the gateways have seen since the step before; asked only where the policy may pass over somebody.
    async fn seen_since_the_step(&self, authority_type: AuthorityType) -> Option<BTreeSet<NodeId>> {
        let since = self.fold.read(|state| {
            let rotation = state.types.get(&authority_type)?.rotation.as_ref()?;
            (rotation.on_lagging == LaggingPolicy::Proceed).then_some(rotation.stepped)
        })?;
        self.presence.seen_since(since).await
    }

    /// Orders something; was there an answer? A no is one: somebody else was faster, or the clock is suspect.
    async fn order(&self, order: Order) -> bool {
        let name = order.name();
        let command = self
            .executor
            .own_command(Principal::System(SystemActor::Clock), order);
        match self.executor.execute(command).await {
            Ok(_) => true,
            Err(ExecuteError::Refused(refusal)) => {
                if matches!(refusal.code, Code::StaleView | Code::ClockSuspect) {
                    tracing::debug!(order = name, %refusal, "not now");
                } else {
                    tracing::warn!(order = name, %refusal, "refused");
                }
                true
            }
            Err(error) => {
                tracing::warn!(order = name, %error, "not done; it is tried again");
                false
            }
        }
    }

    fn uptime_ms(&self) -> u64 {
        self.uptime.total_ms(self.clock.monotonic())
    }
}

#[cfg(test)]
pub(crate) mod tests;
