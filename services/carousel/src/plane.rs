//! The control plane: all services over one log, in one process.
//!
//! [`Core`] is what every mode needs (log, fold, executor, signer); [`Plane`] adds the orchestrator, the
//! projector and the gateway. Nothing here decides anything: it opens, wires and stops.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use domain::{ClusterName, Hostname, Principal, command::Genesis, id::SystemActor};
use eventlog::{JetStreamLog, JetStreamOptions, SharedLog, SqliteLog, bus};
use execution::{ExecuteError, Executor, Fold, FoldError, Now};
use gateway::Gateway;
use orchestrator::Orchestrator;
use projector::{LogAudit, Projector};
use runtime::{
    clock::{SharedClock, SystemClock},
    metrics::Metrics,
    readiness::Readiness,
    shutdown::{DRAIN_TIMEOUT, drain},
};
use signer::Signer;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    home::{Home, HomeError},
    now_of,
};

mod identity;
mod pulse;

/// How long the services have to become ready before a start is given up.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the control plane does not start, or has stopped.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The data directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// The embedded log cannot be opened.
    #[error(transparent)]
    Sqlite(#[from] eventlog::SqliteOpenError),
    /// The stream cannot be opened.
    #[error(transparent)]
    JetStream(#[from] eventlog::JetStreamOpenError),
    /// The broker cannot be reached as told.
    #[error("{0} is no log; give `embedded` or nats://HOST:PORT")]
    UnknownLog(String),
    /// The log cannot be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The genesis file.
    #[error(transparent)]
    Genesis(#[from] signer::founding::GenesisFileError),
    /// The genesis was refused or not stored.
    #[error("the cluster could not be begun in this log")]
    Begin(#[source] ExecuteError),
    /// The log was there before and is empty now.
    #[error(
        "the log of this cluster is gone: it had been begun, and what is there now is empty; restore it from a copy, nothing was written"
    )]
    LostLog,
    /// The log is another cluster's.
    #[error("the log holds the cluster {log}, and this data directory belongs to {own}{}; nothing was written: give the log that belongs to this directory", if .log == .own { " (another one of the same name)" } else { "" })]
    OtherCluster {
        /// Whose log.
        log: ClusterName,
        /// Whose directory.
        own: ClusterName,
    },
    /// The signer.
    #[error(transparent)]
    Signer(#[from] signer::SignerError),
    /// The projector.
    #[error(transparent)]
    Projector(#[from] projector::ProjectorError),
    /// The gateway.
    #[error(transparent)]
    Gateway(#[from] gateway::GatewayError),
    /// The admin endpoint.
    #[error("cannot listen on {listen} for the admin endpoint (see --admin-listen)")]
    Admin {
        /// Where.
        listen: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The socket for this host.
    #[error("the socket {} cannot be made", .path.display())]
    HostSocket {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It did not become ready.
    #[error("the control plane did not become ready within {} s:\n{waiting}", START_TIMEOUT.as_secs())]
    NotReady {
        /// What it waited for, a line each.
        waiting: String,
    },
    /// The administrator's identity file.
    #[error(transparent)]
    Identity(#[from] cli::identity::IdentityError),
    /// A service ended although nobody asked it to.
    #[error("a service stopped unexpectedly; see the log above")]
    Stopped,
}

/// Where and how to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// `embedded` or a NATS URL; none: the one remembered.
    pub log: Option<String>,
    /// The mTLS API; port 0 picks one.
    pub listen: SocketAddr,
    /// Names of the gateway's certificates.
    pub names: Vec<Hostname>,
    /// Addresses of the gateway's certificates.
    pub addresses: Vec<IpAddr>,
    /// The host and port to tell callers, when it is not the listen address.
    pub advertise: Option<String>,
    /// The admin endpoint; none: not served.
    pub admin_listen: Option<SocketAddr>,
}

/// Log, fold, executor and signer.
pub struct Core {
    /// The log.
    pub log: SharedLog,
    /// The state of this process.
    pub fold: Fold,
    /// The only place where commands become events.
    pub executor: Executor,
    /// Metrics of this process.
    pub metrics: Metrics,
    /// What it still waits for.
    pub readiness: Readiness,
    clock: SharedClock,
    clock_suspect: Arc<AtomicBool>,
    tasks: JoinSet<Result<(), PlaneError>>,
    stop: CancellationToken,
    /// Ends what the services stand on, after them.
    base: CancellationToken,
}

impl Core {
    /// Opens the log, begins the cluster in it if it is empty, and starts the signer.
    ///
    /// # Errors
    /// [`PlaneError`]. A start that fails leaves nothing half done: the genesis is one atomic append.
    pub async fn start(home: &Home, log: Option<&str>, stop: CancellationToken) -> Result<Self, PlaneError> {
        let clock = SystemClock::shared();
        let now = now_of(clock.clone());
        let chosen = log.or(home.description.log.as_deref()).unwrap_or("embedded");
        let log = open_log(home, chosen).await?;
        for warning in log.warnings() {
            tracing::warn!(log = log.name(), "{warning}");
        }
        let (metrics, readiness) = (Metrics::new(env!("CARGO_PKG_VERSION")), Readiness::new());
        // State and commands outlive the services: a gateway's stop is still recorded, and requests at hand answered.
        let base = CancellationToken::new();
        let fold = Fold::start(log.clone(), base.clone()).await?;
        let clock_suspect = Arc::new(AtomicBool::new(false));
        let executor = Executor::new(fold.clone(), now.clone(), clock_suspect.clone(), base.clone());
        begin(home, &fold, &executor).await?;
        let part = readiness.part("signer", "its keys and what it owes");
        let config = signer::Config { key_dir: home.keys() };
        let signer = Signer::open(config, fold.clone(), now, metrics.clone(), part).await?;
        let mut tasks = JoinSet::new();
        let token = stop.clone();
        tasks.spawn(async move { Ok(signer.run(token).await?) });
        let (part, token) = (readiness.part("log", "its first answer"), stop.clone());
        let watched = log.clone();
        tasks.spawn(async move {
            pulse::watch(watched, part, token).await;
            Ok(())
        });
        Ok(Self {
            log,
            fold,
            executor,
            metrics,
            readiness,
            clock,
            clock_suspect,
            tasks,
            stop,
            base,
        })
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

/// The control plane, serving.
pub struct Plane {
    core: Core,
    /// Where it accepts, as callers are told: `https://HOST:PORT`.
    pub url: String,
    /// Where it accepts.
    pub address: SocketAddr,
    /// Where the admin endpoint answers.
    pub admin: Option<SocketAddr>,
}

impl Plane {
    /// Starts every service and waits until all are ready: then scripts read their own writes.
    ///
    /// # Errors
    /// [`PlaneError`]; what was started is stopped again.
    pub async fn start(
        home: &mut Home,
        options: Options,
        stop: CancellationToken,
    ) -> Result<Self, PlaneError> {
        let chosen = home.remember_log(options.log.as_deref())?;
        let mut core = Core::start(home, Some(&chosen), stop.clone()).await?;
        // The log holds the cluster now: from here on it is this directory's log.
        home.save()?;
        let started = services(&mut core, home, &options).await;
        let outcome = match started {
            Ok((address, admin)) => {
                let ready = tokio::time::timeout(START_TIMEOUT, core.readiness.until_ready());
                tokio::select! {
                    ready = ready => ready
                        .map(|()| (address, admin))
                        .map_err(|_| PlaneError::NotReady { waiting: core.readiness.describe() }),
                    Some(ended) = core.tasks.join_next() => Err(ended_early(ended)),
                }
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok((address, admin)) => {
                let url = format!(
                    "https://{}",
                    options.advertise.clone().map_or_else(
                        || address.to_string(),
                        |host| if has_port(&host) {
                            host
                        } else {
                            format!("{host}:{}", address.port())
                        },
                    )
                );
                let (path, fold, executor) = (home.host_socket(), core.fold.clone(), core.executor.clone());
                let server = url.clone();
                identity::name_server(&home.admin_identity(), &url).await?;
                let clock = core.clock.clone();
                let now = mtls::Now::new(move || clock.now_ms());
                let keeping = identity::keep(home.admin_identity(), core.fold.clone(), now, stop.clone());
                core.tasks.spawn(async move {
                    keeping.await;
                    Ok(())
                });
                core.tasks.spawn(async move {
                    crate::host::serve(&path, fold, executor, server, stop)
                        .await
                        .map_err(|source| PlaneError::HostSocket { path, source })
                });
                Ok(Self {
                    core,
                    url,
                    address,
                    admin,
                })
            }
            Err(error) => {
                core.stop().await;
                Err(error)
            }
        }
    }

    /// Serves until the token is cancelled or a service cannot go on.
    ///
    /// # Errors
    /// What ended it, if nobody asked for the end.
    pub async fn run(mut self) -> Result<(), PlaneError> {
        let stop = self.core.stop.clone();
        let outcome = tokio::select! {
            // First, because tasks that end by the stop are ready at the same moment.
            biased;
            () = stop.cancelled() => Ok(()),
            Some(ended) = self.core.tasks.join_next() => Err(ended_early(ended)),
        };
        self.core.stop().await;
        outcome
    }

    /// Ends it now.
    pub async fn stop(self) {
        self.core.stop().await;
    }

    /// Log, fold and executor, for who runs in this process.
    pub fn core(&self) -> &Core {
        &self.core
    }
}

fn ended_early(ended: Result<Result<(), PlaneError>, tokio::task::JoinError>) -> PlaneError {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) | Err(_) => PlaneError::Stopped,
    }
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

/// A certificate from an event, as DER.
pub(crate) fn der(base64: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(base64).ok()
}

/// The directory's log, to be read only.
///
/// # Errors
/// When it cannot be opened, or is damaged as a file.
pub async fn open_log_to_read(home: &Home, chosen: &str) -> Result<SharedLog, PlaneError> {
    if chosen == "embedded" {
        return Ok(SqliteLog::open_read_only(home.log_file()).await?);
    }
    open_log(home, chosen).await
}

async fn open_log(home: &Home, chosen: &str) -> Result<SharedLog, PlaneError> {
    if chosen == "embedded" {
        return Ok(SqliteLog::open(home.log_file()).await?);
    }
    if !chosen.contains("://") {
        return Err(PlaneError::UnknownLog(chosen.into()));
    }
    let options = JetStreamOptions {
        cluster: home.description.cluster.to_string(),
        replicas: 1,
    };
    let bus = bus::BusOptions {
        url: chosen.into(),
        name: "carousel".into(),
        ..bus::BusOptions::default()
    };
    Ok(JetStreamLog::connect(&bus, &options).await?)
}

/// Begins the cluster in an empty log; refuses a log that holds another one.
async fn begin(home: &Home, fold: &Fold, executor: &Executor) -> Result<(), PlaneError> {
    let genesis: Genesis = signer::load_genesis(&home.keys())?;
    let own = home.description.cluster.clone();
    let found = fold.read(|s| s.cluster.as_ref().map(|c| (c.name.clone(), c.bundle_key)));
    match found {
        Some((name, key)) if name == own && key == genesis.bundle_key => Ok(()),
        Some((log, _)) => Err(PlaneError::OtherCluster { log, own }),
        // A second genesis would be another cluster's beginning under the same keys.
        None if home.was_begun => Err(PlaneError::LostLog),
        None => {
            let host = Principal::System(SystemActor::Host);
            let command = executor.own_command(host, signer::first_order(genesis));
            executor.execute(command).await.map_err(PlaneError::Begin)?;
            Ok(())
        }
    }
}

/// Orchestrator, projector, gateway and the admin endpoint.
async fn services(
    core: &mut Core,
    home: &Home,
    options: &Options,
) -> Result<(SocketAddr, Option<SocketAddr>), PlaneError> {
    let stop = core.stop.clone();
    let admin = match options.admin_listen {
        Some(listen) => {
            let failed = |source| PlaneError::Admin { listen, source };
            let listener = TcpListener::bind(listen).await.map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            let (metrics, readiness, token) = (core.metrics.clone(), core.readiness.clone(), stop.clone());
            core.tasks.spawn(async move {
                runtime::admin::serve(listener, metrics, readiness, token)
                    .await
                    .map_err(|source| PlaneError::Admin { listen, source })
            });
            Some(bound)
        }
        None => None,
    };
    let orchestrator = Orchestrator::new(
        orchestrator::Config {
            state_file: home.path().join("orchestrator.json"),
        },
        core.fold.clone(),
        core.executor.clone(),
        core.clock.clone(),
        core.clock_suspect.clone(),
        core.metrics.clone(),
        core.readiness.part("orchestrator", "its first tick"),
    );
    let token = stop.clone();
    core.tasks.spawn(async move {
        orchestrator.run(token).await;
        Ok(())
    });
    let address = door(core, home, options).await?;
    Ok((address, admin))
}

/// The projector, and the gateway in front of everything. Gives the address that it accepts on.
async fn door(core: &mut Core, home: &Home, options: &Options) -> Result<SocketAddr, PlaneError> {
    let stop = core.stop.clone();
    let projector = Projector::open(
        projector::Config {
            views_dir: home.views(),
        },
        core.fold.clone(),
        core.now(),
        core.metrics.clone(),
        core.readiness
            .part("projector", "the views to hold the log's end"),
    )
    .await?;
    let checkpoints = home.keys().join("checkpoints.jsonl");
    let mut config = gateway::Config::new(options.listen, home.gateway(), home.description.member);
    config.names.clone_from(&options.names);
    config.addresses.clone_from(&options.addresses);
    let parts = gateway::Parts {
        fold: core.fold.clone(),
        executor: core.executor.clone(),
        queries: Arc::new(projector.queries()),
        audit: Arc::new(LogAudit::new(core.log.clone(), Some(checkpoints))),
        clock: core.clock.clone(),
        metrics: core.metrics.clone(),
    };
    let gateway = Gateway::open(config, parts).await?;
    let (address, ready) = (gateway.address(), gateway.ready());
    let part = core
        .readiness
        .part("gateway", "a report of its own, read back from the log");
    let token = stop.clone();
    core.tasks.spawn(async move { Ok(projector.run(token).await?) });
    core.tasks.spawn(async move {
        let serving = gateway.run(stop);
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => return Ok(()),
            served = ready.wait() => if served { part.ready() },
        }
        serving.await;
        Ok(())
    });
    Ok(address)
}
