//! The control plane: all services over one log, in one process.
//!
//! [`Core`] is what every mode needs (log, fold, executor, signer); [`Plane`] adds the orchestrator, the
//! projector and the gateway. Nothing here decides anything: it opens, wires and stops.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use api::{Audit, Queries};
use base64::{Engine, prelude::BASE64_STANDARD};
use domain::Hostname;
use gateway::Gateway;
use orchestrator::{AskedGateways, Messages, Orchestrator, Presence};
use projector::{LogAudit, Projector};
use runtime::harden;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{home::Home, host::HostSocket};
use presence::OneGateway;

pub use base::{Core, IfEmpty};
pub use error::PlaneError;
pub use log::open_log_to_read;
pub use services::{Service, Services};

mod base;
mod error;
mod identity;
pub(crate) mod log;
mod presence;
mod pulse;
mod services;

/// How long the services have to become ready before a start is given up.
const START_TIMEOUT: Duration = Duration::from_secs(60);

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
