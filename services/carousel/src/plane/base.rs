//! What every mode needs: the log, the fold, the executor and the signer; and how a cluster begins in its log.

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicBool},
};

use domain::{Principal, command::Genesis, id::SystemActor};
use eventlog::{SharedLog, bus::Bus};
use execution::{Executor, Fold, Now, forward::Forwarder};
use runtime::{
    clock::{SharedClock, SystemClock},
    metrics::Metrics,
    readiness::Readiness,
    shutdown::{DRAIN_TIMEOUT, drain},
};
use signer::Signer;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    PlaneError, Service, Services,
    log::{open_bus, open_log},
    pulse,
};
use crate::{
    home::{EMBEDDED, Home},
    now_of,
};

/// What becomes of a log that holds no cluster yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IfEmpty {
    /// The cluster begins in it: the first `serve`.
    Begin,
    /// It is refused: nobody who only wants to use a cluster may choose its log.
    Refuse,
}

/// Log, fold, executor and signer.
pub struct Core {
    /// The log.
    pub log: SharedLog,
    /// The state of this process.
    pub fold: Fold,
    /// The only place where commands become events.
    pub executor: Executor,
    /// Where commands come as messages; none where the log is a file.
    pub bus: Option<Bus>,
    /// Metrics of this process.
    pub metrics: Metrics,
    /// What it still waits for.
    pub readiness: Readiness,
    pub(super) clock: SharedClock,
    pub(super) clock_suspect: Arc<AtomicBool>,
    pub(super) tasks: JoinSet<Result<(), PlaneError>>,
    pub(super) stop: CancellationToken,
    /// Ends what the services stand on, after them.
    base: CancellationToken,
}

impl Core {
    /// The same as [`Core::start_with`] for a process that runs everything.
    ///
    /// # Errors
    /// [`PlaneError`].
    pub async fn start(
        home: &mut Home,
        asked: Option<&str>,
        if_empty: IfEmpty,
        stop: CancellationToken,
    ) -> Result<Self, PlaneError> {
        Self::start_with(home, asked, if_empty, Services::all(), stop).await
    }

    /// Opens the log (the one asked for, or the one remembered) and the keys, begins the cluster in the log if it is
    /// empty and may be begun, and starts the signer, where these services have one. Without an orchestrator, commands are
    /// sent to one.
    ///
    /// # Errors
    /// [`PlaneError`]; what was started is stopped again. A log that holds nothing is left so, unless everything that
    /// a control plane needs was there.
    pub async fn start_with(
        home: &mut Home,
        asked: Option<&str>,
        if_empty: IfEmpty,
        services: Services,
        stop: CancellationToken,
    ) -> Result<Self, PlaneError> {
        // No log was ever chosen: opening the usual one would make it.
        if if_empty == IfEmpty::Refuse && home.description.log.is_none() {
            return Err(PlaneError::NeverBegun(home.path().into()));
        }
        let chosen = home.description.choose_log(asked)?;
        if chosen == EMBEDDED && !services.are_all() {
            return Err(PlaneError::NeedsBus);
        }
        let (log, bus) = reach(home, &chosen, services.are_all(), &stop).await?;
        // State and commands outlive the services: a gateway's stop is still recorded, and requests at hand answered.
        let base = CancellationToken::new();
        let folding = async { Ok(Fold::start(log.clone(), base.clone()).await?) };
        let fold = match unless_stopped(&stop, folding).await {
            Ok(fold) => fold,
            Err(error) => {
                base.cancel();
                log.close().await;
                return Err(error);
            }
        };
        let clock = SystemClock::shared();
        let clock_suspect = Arc::new(AtomicBool::new(false));
        let executor = if services.has(Service::Orchestrator) {
            let now = now_of(clock.clone());
            Executor::new(fold.clone(), now, clock_suspect.clone(), base.clone())
        } else {
            let bus = bus.clone().ok_or(PlaneError::NeedsBus)?;
            forwarding(home, bus, fold.clone(), now_of(clock.clone()), base.clone())
        };
        let mut core = Self {
            log,
            fold,
            executor,
            bus,
            metrics: Metrics::new(env!("CARGO_PKG_VERSION")),
            readiness: Readiness::new(),
            clock,
            clock_suspect,
            tasks: JoinSet::new(),
            stop,
            base,
        };
        let begun = if services.has(Service::Signer) {
            let if_empty = if services.are_all() {
                if_empty
            } else {
                IfEmpty::Refuse
            };
            core.begin(home, &chosen, if_empty).await
        } else {
            core.join(home, &chosen)
        };
        match begun {
            Ok(()) => Ok(core),
            Err(error) => {
                core.stop().await;
                Err(error)
            }
        }
    }

    /// Takes part in the cluster of the log, without keys: refuses a log that holds another one, or none.
    fn join(&mut self, home: &mut Home, chosen: &str) -> Result<(), PlaneError> {
        let own = home.description.cluster.clone();
        match self.fold.read(|state| state.cluster_name().cloned()) {
            Some(name) if name == own => home.remember_begun(chosen)?,
            Some(log) => return Err(PlaneError::OtherCluster { log, own }),
            None => return Err(PlaneError::NotYetBegun),
        }
        self.watch_log();
        Ok(())
    }

    /// Begins the cluster in an empty log, refuses a log that holds another one, and starts the signer.
    async fn begin(&mut self, home: &mut Home, chosen: &str, if_empty: IfEmpty) -> Result<(), PlaneError> {
        let genesis: Genesis = signer::load_genesis(&home.keys())?;
        let own = home.description.cluster.clone();
        if genesis.cluster != own {
            let keys = genesis.cluster;
            return Err(PlaneError::OtherKeys { keys, own });
        }
        let found = self
            .fold
            .read(|s| s.cluster.as_ref().map(|c| (c.name.clone(), c.bundle_key)));
        let is_empty = match found {
            Some((name, key)) if name == own && key == genesis.bundle_key => false,
            Some((log, _)) => return Err(PlaneError::OtherCluster { log, own }),
            // A second genesis would be another cluster's beginning under the same keys.
            None if home.was_begun() => {
                return Err(PlaneError::LostLog {
                    found: "what is there now is empty".into(),
                });
            }
            None if if_empty == IfEmpty::Refuse => return Err(PlaneError::NeverBegun(home.path().into())),
            None => {
                genesis.settings.check()?;
                true
            }
        };
        // Before the first fact: a cluster whose keys do not open must not begin, least of all in the wrong log.
        let part = self.readiness.part("signer", "its keys and what it owes");
        let config = signer::Config { key_dir: home.keys() };
        let (fold, metrics) = (self.fold.clone(), self.metrics.clone());
        let signer = Signer::open(config, fold, self.now(), metrics, part).await?;
        if is_empty {
            // Crash point: from here on no other log is taken, whether or not the append below was stored. The next
            // start finds the genesis in this log, or begins it there.
            home.remember_log(chosen)?;
            let host = Principal::System(SystemActor::Host);
            let command = self.executor.own_command(host, signer::first_order(genesis));
            self.executor.execute(command).await.map_err(PlaneError::Begin)?;
        }
        // Crash point: begun, and not remembered as such: the next start finds the cluster and remembers it then.
        home.remember_begun(chosen)?;
        let token = self.stop.clone();
        self.tasks.spawn(async move { Ok(signer.run(token).await?) });
        self.watch_log();
        Ok(())
    }

    fn watch_log(&mut self) {
        let (part, token) = (self.readiness.part("log", "its first answer"), self.stop.clone());
        let watched = self.log.clone();
        self.tasks.spawn(async move {
            pulse::watch(watched, part, token).await;
            Ok(())
        });
    }

    /// Stops it and lets go of the log.
    pub async fn stop(mut self) {
        self.stop.cancel();
        drain(&mut self.tasks, DRAIN_TIMEOUT).await;
        self.base.cancel();
        drop((self.executor, self.fold));
        self.log.close().await;
    }

    /// The clock as everybody in this process reads it.
    pub fn now(&self) -> Now {
        now_of(self.clock.clone())
    }
}

/// The log that was chosen, and the bus where it is on one. What a log has to say about itself is said.
async fn reach(
    home: &Home,
    chosen: &str,
    may_begin: bool,
    stop: &CancellationToken,
) -> Result<(SharedLog, Option<Bus>), PlaneError> {
    // A file opens soon, and a file that is left half opened is still locked for whoever comes next.
    let log = match chosen {
        EMBEDDED => Box::pin(open_log(home, EMBEDDED, may_begin)).await?,
        broker => Box::pin(unless_stopped(stop, open_log(home, broker, may_begin))).await?,
    };
    for warning in log.warnings() {
        tracing::warn!(log = log.name(), "{warning}");
    }
    match unless_stopped(stop, Box::pin(open_bus(chosen))).await {
        Ok(bus) => Ok((log, bus)),
        Err(error) => {
            log.close().await;
            Err(error)
        }
    }
}

/// An executor that sends commands to an orchestrator, as this directory's member.
fn forwarding(home: &Home, bus: Bus, fold: Fold, now: Now, base: CancellationToken) -> Executor {
    let own = &home.description;
    let subject = api::message::forward_subject(&own.cluster, own.member);
    Executor::forwarding(fold, now, Forwarder::new(bus, subject), base)
}

/// A broker that does not answer must not keep a stop waiting.
async fn unless_stopped<T>(
    stop: &CancellationToken,
    opening: impl Future<Output = Result<T, PlaneError>>,
) -> Result<T, PlaneError> {
    tokio::select! {
        opened = opening => opened,
        () = stop.cancelled() => Err(PlaneError::Interrupted),
    }
}
