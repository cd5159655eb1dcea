//! The gateway: the one door of the control plane. Everybody who is not on the control-plane host comes in
//! here, over mTLS: agents, operators, and strangers for the few public documents.
//!
//! It decides nothing. It says who somebody is (a verified chain *and* the log), whether the route accepts
//! that kind of principal and its roles, turns a body into a command, and hands answers back. It is also a
//! *member*: it holds host certificates of its own and reports them, and serves only while it may.
//!
//! ```text
//! let gateway = Gateway::open(config, parts).await?;     // listens; fails here when the port is taken
//! gateway.address(); gateway.ready();                    // ready resolves once it serves
//! gateway.run(shutdown).await;                           // until the shutdown, then drains
//! ```
//!
//! Where to begin: [`route`] is the table of everything that can be asked; `answer` has a function for each
//! row; [`body`] reads what they are sent; `member` holds the row and the right to serve; `door` accepts connections; `caller` says who calls;
//! `handout` says what a node is told; `look` looks at external consumers, and `lookout` does so while a rotation waits.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use api::{Audit, Queries};
use eventlog::bus::{Bus, Desk};
use execution::{Executor, Fold};
use mtls::{ClientAuth, Epochs, Now, SessionRegistry, TrustEpoch};
use runtime::{clock::SharedClock, metrics::Metrics, ratelimit::KeyedLimit};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub use config::{Config, GatewayError, url_of};
pub use member::CredentialError;
pub use presence::Presences;
pub use reply::No;

use app::{App, Readings};
use firsts::Firsts;
use hub::Hub;
use limits::NodeLimits;
use member::Member;
use precedence::Precedence;
use presence::others::{self, Others};
use serving::Serving;
use strangers::Strangers;

pub mod body;
pub mod route;

mod answer;
mod app;
mod caller;
mod config;
mod door;
mod firsts;
mod handout;
mod hub;
mod limits;
mod look;
mod lookout;
mod member;
mod places;
mod precedence;
mod presence;
mod reply;
mod serving;
mod strangers;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod turns;

/// The most sources whose joins and recoveries are counted one by one.
const MAX_SOURCES: usize = 16_384;

/// What the gateway is given: handles of this process.
#[derive(Clone)]
pub struct Parts {
    /// The state.
    pub fold: Fold,
    /// Where commands go.
    pub executor: Executor,
    /// The projector's answers.
    pub queries: Arc<dyn Queries>,
    /// The audit's answers.
    pub audit: Arc<dyn Audit>,
    /// Wall and monotonic time.
    pub clock: SharedClock,
    /// Where it counts.
    pub metrics: Metrics,
    /// Where other gateways are; none where this is the only one.
    pub bus: Option<Bus>,
}

/// A gateway that listens, and is not run yet.
pub struct Gateway {
    app: Arc<App>,
    member: Member,
    listener: TcpListener,
    address: SocketAddr,
    ready: watch::Sender<bool>,
    /// Where others ask whom it sees.
    asked: Option<Desk>,
}

/// Resolves when the gateway serves for the first time.
#[derive(Clone, Debug)]
pub struct Ready(watch::Receiver<bool>);

impl Ready {
    /// Waits until the gateway serves; false if it ended before it ever did.
    pub async fn wait(mut self) -> bool {
        self.0.wait_for(|ready| *ready).await.is_ok()
    }
}

impl Gateway {
    /// Listens, reads its own keys and certificates, and builds what it serves with.
    ///
    /// # Errors
    /// [`GatewayError`]: the port is taken, its files cannot be used, or the log holds no cluster.
    pub async fn open(config: Config, parts: Parts) -> Result<Self, GatewayError> {
        if parts.fold.read(|state| state.cluster.is_none()) {
            return Err(GatewayError::NoCluster);
        }
        let listen = config.listen;
        let failed = |source| GatewayError::Listen { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let app = Arc::new(app(config, parts, address));
        let mut member = Member::open(app.clone())?;
        if let Err(trouble) = member.install_what_is_there() {
            tracing::warn!(%trouble, "what is on disk cannot be served; the gateway asks for new certificates");
        }
        let asked = match &app.others {
            Some(others) => Some(others.open().await?),
            None => None,
        };
        Ok(Self {
            app,
            member,
            listener,
            address,
            ready: watch::Sender::new(false),
            asked,
        })
    }

    /// Where it listens; tells the port when it was asked to pick one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who is there: kept current while it runs.
    pub fn presences(&self) -> Presences {
        self.app.presences.clone()
    }

    /// Resolves once it serves.
    pub fn ready(&self) -> Ready {
        Ready(self.ready.subscribe())
    }

    /// Serves until the shutdown: stops as a member, lets requests end, closes what is left after some seconds.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            app,
            member,
            listener,
            ready,
            asked,
            ..
        } = self;
        let mut tasks = JoinSet::new();
        let clock = app.clock.clone();
        let expiry = app.sessions.clone();
        let stop = app.shutdown.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = expiry.watch_expiry(Now::new(move || clock.now_ms())) => {}
            }
        });
        if let Some(desk) = asked {
            let (clock, of) = (app.clock.clone(), app.presences.clone());
            let answering = others::answer(desk, of, clock, app.shutdown.clone());
            tasks.spawn(answering);
        }
        tasks.spawn(Hub::run(app.clone(), app.shutdown.clone()));
        tasks.spawn(Firsts::run(app.clone()));
        tasks.spawn(lookout::run(app.clone()));
        tasks.spawn(member.run(ready));
        tasks.spawn(door::summaries(app.clone()));
        tasks.spawn(door::run(app.clone(), listener));
        shutdown.cancelled().await;
        // The right to serve ends first, then what is open; the member's stop is recorded meanwhile.
        app.serving.end("this gateway is stopping");
        app.shutdown.cancel();
        runtime::shutdown::drain(&mut tasks, runtime::shutdown::DRAIN_TIMEOUT).await;
    }
}

fn app(config: Config, parts: Parts, address: SocketAddr) -> App {
    let Parts {
        fold,
        executor,
        queries,
        audit,
        clock,
        metrics,
        bus,
    } = parts;
    let cluster = fold.read(|state| state.cluster_name().cloned());
    let others = bus.zip(cluster).map(|(bus, cluster)| Others {
        bus,
        cluster,
        own: config.member,
    });
    let now = clock.monotonic();
    let wall = clock.clone();
    // Trusts nobody and presents nothing until the member has read its files.
    let nothing = TrustEpoch::builder(Now::new(move || wall.now_ms()))
        .client_auth(ClientAuth::Optional)
        .build()
        .expect("an epoch without anchors and certificates can always be built");
    App {
        joins: KeyedLimit::new(config.joins, MAX_SOURCES, now),
        recoveries: KeyedLimit::new(config.joins, MAX_SOURCES, now),
        readings: Readings::default(),
        precedence: Precedence::default(),
        nodes: fold.read(|state| NodeLimits::new(&config, state.settings().node_ttl_ms, now)),
        strangers: Strangers::new(metrics.clone(), now),
        serving: Serving::new(clock.clone()),
        presences: Presences::default(),
        others,
        firsts: Firsts::default(),
        hub: Hub::new(),
        epochs: Epochs::new(nothing),
        sessions: SessionRegistry::new(),
        held: watch::Sender::new(BTreeMap::new()),
        shutdown: CancellationToken::new(),
        public_url: config
            .public_url
            .clone()
            .unwrap_or_else(|| url_of(config.advertise.as_deref(), address)),
        config,
        fold,
        executor,
        queries,
        audit,
        clock,
        metrics,
    }
}
