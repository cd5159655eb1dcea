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

use api::{Audit, Queries};
use base64::{Engine, prelude::BASE64_STANDARD};
use domain::{ClusterName, Hostname};
use execution::{ExecuteError, FoldError};
use gateway::Gateway;
use orchestrator::{AskedGateways, Messages, Orchestrator, Presence};
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
pub use services::{Service, Services};

mod base;
mod identity;
mod log;
mod presence;
mod pulse;
mod services;

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
    /// Nobody has begun it yet.
    #[error(
        "the log holds no cluster yet; begin it once with all services in one process (carousel serve, with the directory that `carousel init` made and a user of the broker that may write all events), then start the others"
    )]
    NotYetBegun,
    /// Services apart from each other need a bus.
    #[error(
        "services run in processes of their own only over NATS: give --log nats://HOST:PORT, or leave --services out"
    )]
    NeedsBus,
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
    /// What this process runs.
    pub services: Services,
}

/// The control plane, serving.
pub struct Plane {
    core: Core,
    /// Where it accepts, as callers are told: `https://HOST:PORT`. None without a gateway.
    pub url: Option<String>,
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
        let services = options.services.clone();
        let mut core = Core::start_with(home, asked.as_deref(), IfEmpty::Begin, services, stop).await?;
        match open_doors(&mut core, home, &options).await {
            Ok(Doors { url, admin }) => Ok(Self { core, url, admin }),
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
    url: Option<String>,
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
    // What it does needs the keys, the decision and the address of one place.
    let socket = if options.services.are_all() {
        Some(HostSocket::bind(&path).map_err(failed)?)
    } else {
        None
    };
    let (address, admin) = services(core, home, options).await?;
    tokio::select! {
        ready = tokio::time::timeout(START_TIMEOUT, core.readiness.until_ready()) => {
            ready.map_err(|_| PlaneError::NotReady { waiting: core.readiness.describe() })?;
        }
        Some(ended) = core.tasks.join_next() => return Err(ended_early(ended)),
        () = core.stop.cancelled() => return Err(PlaneError::Interrupted),
    }
    let Some(address) = address else {
        return Ok(Doors { url: None, admin });
    };
    let url = gateway::url_of(options.advertise.as_deref(), address);
    if let Some(socket) = socket {
        serve_host(core, home, socket, &url).await?;
    }
    Ok(Doors {
        url: Some(url),
        admin,
    })
}

/// What is kept and given on this host alone: the administrator's identity, and a new one.
async fn serve_host(core: &mut Core, home: &Home, socket: HostSocket, url: &str) -> Result<(), PlaneError> {
    identity::name_server(&home.admin_identity(), url).await?;
    let clock = core.clock.clone();
    let now = mtls::Now::new(move || clock.now_ms());
    let keeping = identity::keep(home.admin_identity(), core.fold.clone(), now, core.stop.clone());
    core.tasks.spawn(async move {
        keeping.await;
        Ok(())
    });
    let (fold, executor, server) = (core.fold.clone(), core.executor.clone(), url.to_owned());
    let serving = socket.serve(fold, executor, server, core.stop.clone());
    core.tasks.spawn(async move {
        serving.await;
        Ok(())
    });
    Ok(())
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

/// Orchestrator, projector and gateway, as far as this process runs them, and the admin endpoint. Gives the addresses of the
/// gateway and of the endpoint.
async fn services(
    core: &mut Core,
    home: &Home,
    options: &Options,
) -> Result<(Option<SocketAddr>, Option<SocketAddr>), PlaneError> {
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
    let answers = if options.services.has(Service::Projector) {
        Some(Box::pin(project(core, home, &options.services)).await?)
    } else {
        None
    };
    let door = if options.services.has(Service::Gateway) {
        Some(Box::pin(door(core, home, options, answers)).await?)
    } else {
        None
    };
    let (address, presences) = door.unzip();
    if options.services.has(Service::Orchestrator) {
        // It asks gateways who is there, and so comes after the one of this process.
        keep_time(core, home, presences.unwrap_or_default());
        Box::pin(take_messages(core, home)).await?;
    }
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
    let presence: Arc<dyn Presence> = match core.bus.clone() {
        Some(bus) => Arc::new(AskedGateways::new(
            bus,
            core.fold.clone(),
            home.description.cluster.clone(),
        )),
        None => Arc::new(OneGateway {
            presences,
            now: core.now(),
        }),
    };
    let orchestrator = Orchestrator::new(
        orchestrator::Config {
            state_file: home.path().join("orchestrator.json"),
        },
        core.fold.clone(),
        core.executor.clone(),
        presence,
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

/// Who answers what people ask.
type Answering = (Arc<dyn Queries>, Arc<dyn Audit>);

/// The projector, for the gateway of this process and for others.
async fn project(core: &mut Core, home: &Home, services: &Services) -> Result<Answering, PlaneError> {
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
    // They lie with the keys, and so with a signer.
    let checkpoints = home.keys().join("checkpoints.jsonl");
    let checkpoints = services.has(Service::Signer).then_some(checkpoints);
    let queries: Arc<dyn Queries> = Arc::new(projector.queries());
    let audit: Arc<dyn Audit> = Arc::new(LogAudit::new(core.log.clone(), checkpoints));
    if let Some(bus) = &core.bus {
        let desk = projector::open_queries(bus, &home.description.cluster).await?;
        let answering = projector::answer_queries(desk, queries.clone(), audit.clone(), stop.clone());
        core.tasks.spawn(async move {
            answering.await;
            Ok(())
        });
    }
    core.tasks.spawn(async move { Ok(projector.run(stop).await?) });
    Ok((queries, audit))
}

/// The gateway in front of everything. Gives the address that it accepts on, and who is there.
async fn door(
    core: &mut Core,
    home: &Home,
    options: &Options,
    answers: Option<Answering>,
) -> Result<(SocketAddr, gateway::Presences), PlaneError> {
    let stop = core.stop.clone();
    let (queries, audit) = match (answers, core.bus.clone()) {
        (Some(answers), _) => answers,
        (None, Some(bus)) => {
            let asked = Arc::new(projector::ask_projectors(bus, &home.description.cluster));
            (asked.clone() as Arc<dyn Queries>, asked as Arc<dyn Audit>)
        }
        (None, None) => return Err(PlaneError::NeedsBus),
    };
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
        queries,
        audit,
        clock: core.clock.clone(),
        metrics: core.metrics.clone(),
        bus: core.bus.clone(),
    };
    let gateway = Gateway::open(config, parts).await?;
    let (address, ready, presences) = (gateway.address(), gateway.ready(), gateway.presences());
    let part = core
        .readiness
        .part("gateway", "a report of its own, read back from the log");
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
