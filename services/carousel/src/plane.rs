//! The control plane: all services over one log, in one process.
//!
//! [`Core`] is what every mode needs (log, fold, executor, signer); [`Plane`] adds the orchestrator, the
//! projector and the gateway. Nothing here decides anything: it opens, wires and stops.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use domain::{ClusterName, Hostname};
use execution::{ExecuteError, FoldError};
use gateway::Gateway;
use orchestrator::{Messages, Orchestrator};
use projector::{LogAudit, Projector};
use runtime::harden;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    home::{Home, HomeError},
    host::HostSocket,
};
use presence::OneGateway;

pub use base::{Core, IfEmpty};
pub use log::open_log_to_read;

mod base;
mod identity;
mod log;
mod presence;
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
    /// The bus cannot be reached.
    #[error(transparent)]
    Bus(#[from] eventlog::bus::ConnectError),
    /// Commands cannot be taken from it.
    #[error(transparent)]
    Offer(#[from] eventlog::bus::OfferError),
    /// The log cannot be folded.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The genesis file.
    #[error(transparent)]
    Genesis(#[from] signer::founding::GenesisFileError),
    /// The place where keys are to be made.
    #[error("keys cannot be made there")]
    Keys(#[from] signer::KeyStoreError),
    /// The genesis was refused or not stored.
    #[error("the cluster could not be begun in this log")]
    Begin(#[source] ExecuteError),
    /// The log was there before, and is empty now or not there at all.
    #[error(
        "the log of this cluster is gone: it had been begun, and {found}; restore it from a copy, nothing was written"
    )]
    LostLog {
        /// What is there now.
        found: String,
    },
    /// Nobody has started it yet.
    #[error(
        "the cluster in {} was never started, so it has no log yet; start it with: carousel serve --data-dir {} (and --log, if its log is not to be the embedded one); from then on the admin.identity that `carousel init` made works", .0.display(), .0.display()
    )]
    NeverBegun(PathBuf),
    /// It was told to stop while it started.
    #[error("the start was interrupted")]
    Interrupted,
    /// The log is another cluster's.
    #[error("the log holds the cluster {log}, and this data directory belongs to {own}{}; nothing was written: give the log that belongs to this directory", if .log == .own { " (another one of the same name)" } else { "" })]
    OtherCluster {
        /// Whose log.
        log: ClusterName,
        /// Whose directory.
        own: ClusterName,
    },
    /// What `init` left was changed.
    #[error(
        "the first facts of the cluster are not what `carousel init` wrote: {0}; nothing was written: restore keys/genesis.json from a copy"
    )]
    Settings(#[from] domain::command::UnusableSetting),
    /// Files of two directories in one.
    #[error(
        "the keys in this data directory are those of the cluster {keys}, and cluster.json says {own}; nothing was written: restore the directory as one"
    )]
    OtherKeys {
        /// Whose keys.
        keys: ClusterName,
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
    #[error("the socket {} cannot be used", .path.display())]
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
    /// Where readers of tokens find it; none: where it accepts.
    pub public_url: Option<String>,
    /// The admin endpoint; none: not served.
    pub admin_listen: Option<SocketAddr>,
    /// Where new keys of authorities are made; none: where they were made before.
    pub keys: Option<signer::KeyPlace>,
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
        if let Some(place) = options.keys.clone() {
            let keys = home.keys();
            let placed = tokio::task::spawn_blocking(move || signer::make_keys_in(&keys, &place));
            placed.await.expect("opening a key store does not panic")?;
        }
        let asked = options.log.clone();
        let mut core = Core::start(home, asked.as_deref(), IfEmpty::Begin, stop).await?;
        match open_doors(&mut core, home, &options).await {
            Ok(Doors { url, address, admin }) => Ok(Self {
                core,
                url,
                address,
                admin,
            }),
            // In order: what the gateway has recorded of itself is then recorded as stopped.
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

/// Where a control plane answers.
struct Doors {
    url: String,
    address: SocketAddr,
    admin: Option<SocketAddr>,
}

/// Starts every service, waits until all are ready, and then takes the requests of this host.
async fn open_doors(core: &mut Core, home: &Home, options: &Options) -> Result<Doors, PlaneError> {
    // Bound before anything listens: a directory in which it cannot be made is refused at once.
    let path = home.host_socket();
    let failed = |source| PlaneError::HostSocket {
        path: path.clone(),
        source,
    };
    let socket = HostSocket::bind(&path).map_err(failed)?;
    let (address, admin) = services(core, home, options).await?;
    tokio::select! {
        ready = tokio::time::timeout(START_TIMEOUT, core.readiness.until_ready()) => {
            ready.map_err(|_| PlaneError::NotReady { waiting: core.readiness.describe() })?;
        }
        Some(ended) = core.tasks.join_next() => return Err(ended_early(ended)),
        () = core.stop.cancelled() => return Err(PlaneError::Interrupted),
    }
    let url = gateway::url_of(options.advertise.as_deref(), address);
    identity::name_server(&home.admin_identity(), &url).await?;
    let clock = core.clock.clone();
    let now = mtls::Now::new(move || clock.now_ms());
    let keeping = identity::keep(home.admin_identity(), core.fold.clone(), now, core.stop.clone());
    core.tasks.spawn(async move {
        keeping.await;
        Ok(())
    });
    let (fold, executor, server) = (core.fold.clone(), core.executor.clone(), url.clone());
    let serving = socket.serve(fold, executor, server, core.stop.clone());
    core.tasks.spawn(async move {
        serving.await;
        Ok(())
    });
    Ok(Doors { url, address, admin })
}

fn ended_early(ended: Result<Result<(), PlaneError>, tokio::task::JoinError>) -> PlaneError {
    match ended {
        Ok(Err(error)) => error,
        Ok(Ok(())) | Err(_) => PlaneError::Stopped,
    }
}

/// A certificate from an event, as DER.
pub(crate) fn der(base64: &str) -> Option<Vec<u8>> {
    BASE64_STANDARD.decode(base64).ok()
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
    let (address, presences) = door(core, home, options).await?;
    // It asks the gateway who is there, and so comes after it.
    keep_time(core, home, presences);
    Box::pin(take_messages(core, home)).await?;
    Ok((address, admin))
}

/// Commands that come over the bus, where there is one.
async fn take_messages(core: &mut Core, home: &Home) -> Result<(), PlaneError> {
    let Some(bus) = core.bus.clone() else {
        return Ok(());
    };
    let messages = Messages::new(
        core.fold.clone(),
        core.executor.clone(),
        home.description.cluster.clone(),
        core.metrics.clone(),
        core.stop.clone(),
    );
    let desk = messages.open(&bus).await?;
    core.tasks.spawn(async move {
        messages.run(desk).await;
        Ok(())
    });
    Ok(())
}

/// The orchestrator.
fn keep_time(core: &mut Core, home: &Home, presences: gateway::Presences) {
    let stop = core.stop.clone();
    let orchestrator = Orchestrator::new(
        orchestrator::Config {
            state_file: home.path().join("orchestrator.json"),
        },
        core.fold.clone(),
        core.executor.clone(),
        Arc::new(OneGateway {
            presences,
            now: core.now(),
        }),
        core.clock.clone(),
        core.clock_suspect.clone(),
        core.metrics.clone(),
        core.readiness.part("orchestrator", "its first tick"),
    );
    core.tasks.spawn(async move {
        orchestrator.run(stop).await;
        Ok(())
    });
}

/// The projector, and the gateway in front of everything. Gives the address that it accepts on, and who is there.
async fn door(
    core: &mut Core,
    home: &Home,
    options: &Options,
) -> Result<(SocketAddr, gateway::Presences), PlaneError> {
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
    // Before the door opens: every caller is a file.
    if let Err(error) = harden::raise_open_files() {
        tracing::warn!(%error, "the number of open files could not be raised: fewer connections fit");
    }
    let mut config = gateway::Config::new(options.listen, home.gateway(), home.description.member);
    config.names.clone_from(&options.names);
    config.addresses.clone_from(&options.addresses);
    config.advertise.clone_from(&options.advertise);
    config.public_url.clone_from(&options.public_url);
    let parts = gateway::Parts {
        fold: core.fold.clone(),
        executor: core.executor.clone(),
        queries: Arc::new(projector.queries()),
        audit: Arc::new(LogAudit::new(core.log.clone(), Some(checkpoints))),
        clock: core.clock.clone(),
        metrics: core.metrics.clone(),
    };
    let gateway = Gateway::open(config, parts).await?;
    let (address, ready, presences) = (gateway.address(), gateway.ready(), gateway.presences());
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
    Ok((address, presences))
}

#[cfg(test)]
mod tests;
