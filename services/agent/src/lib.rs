//! The agent: on each node, from what is there to what should be there.
//!
//! It joins once with a token, holds one stream to a gateway, and from then on keeps the node's trust and
//! certificates at the row that the newest signed bundle names, whatever it missed in between. Everything
//! that it decides is `domain::reconcile`; what stands here moves bytes: files ([`disk`]), hooks
//! ([`hooks`]), handshakes, requests.
//!
//! A library, so that many agents run in one process (the demo, the benchmarks):
//!
//! ```text
//! Agent::new(config, SystemClock::shared()) -> Result<Agent, AgentError>
//! Agent::bare(config, clock)                  the same without a disk, thousands in one process
//! agent.handle() -> Handle { status(), epochs(), sessions(), reload() }
//! agent.run(shutdown).await -> Result<(), AgentError>       // AgentError::exit_code()
//! ```

use std::sync::Arc;

use domain::{NodeId, Principal, Timestamp};
use mtls::{Epochs, SessionRegistry, TrustEpoch};
use pki::Certificate;
use runtime::clock::SharedClock;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    disk::{DataDir, DiskError, Identity, credential::Credential},
    engine::Engine,
    enter::Joined,
};

pub use config::{Config, Pace, Server, Settings, Token};
pub use error::AgentError;
pub use status::{AgentStatus, Stage};

pub mod config;
pub mod disk;
pub mod hooks;
pub mod status;

mod attempt;
mod engine;
mod enter;
mod error;
mod gateway;
mod leaf;
mod link;
mod listener;
mod tls;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

/// One agent, not running yet.
pub struct Agent {
    config: Config,
    clock: SharedClock,
    shared: Arc<Shared>,
    is_bare: bool,
}

/// What an agent shares with the program that runs it.
pub(crate) struct Shared {
    pub(crate) epochs: Epochs,
    pub(crate) sessions: SessionRegistry,
    pub(crate) status: watch::Sender<AgentStatus>,
    pub(crate) reload: Notify,
}

/// A look at a running agent, and a way in for programs that act as this node.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// The agent's state, whenever it changes.
    pub fn status(&self) -> watch::Receiver<AgentStatus> {
        self.0.status.subscribe()
    }

    /// What this node trusts and presents now: dial peers with it as this node (`mtls::connect`). Trusts
    /// and presents nothing until the first generation is installed.
    pub fn epochs(&self) -> Epochs {
        self.0.epochs.clone()
    }

    /// The node's sessions with its peers; those that are dialled with [`Handle::epochs`] belong into it,
    /// so that they are drained and closed with the rest and hold the gate until then.
    pub fn sessions(&self) -> SessionRegistry {
        self.0.sessions.clone()
    }

    /// Reads the configuration file again, as SIGHUP does.
    pub fn reload(&self) {
        self.0.reload.notify_one();
    }
}

impl Agent {
    /// Prepares an agent; touches nothing yet.
    ///
    /// # Errors
    /// [`AgentError::Usage`]: no server is given.
    pub fn new(config: Config, clock: SharedClock) -> Result<Self, AgentError> {
        let Some(server) = config.servers.first() else {
            return Err(AgentError::Usage(
                "no server is given; add --server https://HOST:PORT".into(),
            ));
        };
        let nothing = TrustEpoch::builder(tls::now(&clock)).build();
        let nothing = nothing.map_err(|e| AgentError::Certificates(gateway::in_words(&e)))?;
        let status = AgentStatus::starting(
            config.hostname.clone(),
            server.to_string(),
            Timestamp(clock.now_ms()),
        );
        let shared = Shared {
            epochs: Epochs::new(nothing),
            sessions: SessionRegistry::new(),
            status: watch::Sender::new(status),
            reload: Notify::new(),
        };
        Ok(Self {
            config,
            clock,
            shared: Arc::new(shared),
            is_bare: false,
        })
    }

    /// The same agent without a disk and without the proof by a handshake with itself: both are a node's own work on a
    /// machine of its own, and benchmarks run thousands on one. It lives as long as its process and serves nobody.
    ///
    /// # Errors
    /// As [`Agent::new`].
    pub fn bare(config: Config, clock: SharedClock) -> Result<Self, AgentError> {
        let agent = Self::new(
            Config {
                listen: None,
                ..config
            },
            clock,
        )?;
        Ok(Self {
            is_bare: true,
            ..agent
        })
    }

    /// A look at this agent, also while it runs.
    pub fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }

    /// Joins if it has not, then keeps the node current until it is told to stop.
    ///
    /// # Errors
    /// [`AgentError`], for what only a person can mend. Everything else is tried again.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let disk = if self.is_bare {
            DataDir::nowhere()
        } else {
            DataDir::open(&self.config.data_dir)?
        };
        let (joined, is_fresh) = match self.known(&disk)? {
            Known::Joined(joined) => (*joined, false),
            Known::Nothing(old) => {
                check_listen(&self.config).await?;
                match enter::join(&self.config, &disk, &self.clock, old, &shutdown).await? {
                    Some(joined) => (joined, true),
                    None => return Ok(()),
                }
            }
        };
        let Self {
            config,
            clock,
            shared,
            ..
        } = self;
        let engine = Engine::new(config, clock, shared, disk, joined, is_fresh, shutdown)?;
        // The loop's state is large; on the heap it does not weigh on every future around it.
        Box::pin(engine.run()).await
    }

    /// What the data directory knows. Where it is damaged and a token is given, the node joins again,
    /// proven by whatever key is left.
    fn known(&self, disk: &DataDir) -> Result<Known, AgentError> {
        let has_token = self.config.token.is_some() && !self.config.ca_pins.is_empty();
        let identity = match disk.identity() {
            Ok(Some(identity)) => identity,
            Ok(None) => return Ok(Known::Nothing(None)),
            Err(error @ DiskError::Damaged { .. }) if has_token => {
                tracing::warn!(%error, "joining again with the token");
                return Ok(Known::Nothing(named_by_certificate(disk)));
            }
            Err(error) => return Err(error.into()),
        };
        self.compare(&identity);
        match disk.told(&identity) {
            Ok(Some(told)) => Ok(Known::Joined(Box::new(Joined { identity, told }))),
            Ok(None) | Err(DiskError::Damaged { .. }) if has_token => {
                tracing::warn!(
                    "what gateways told this node is lost or damaged; joining again with the token"
                );
                Ok(Known::Nothing(Some((identity.node, any_credential(disk)))))
            }
            Ok(None) => Err(AgentError::Disk(DiskError::Damaged {
                path: disk.root().join("desired.json"),
                why: "it is missing".into(),
            })),
            Err(error) => Err(error.into()),
        }
    }

    /// Says what of the command line is not heeded, because this directory has joined already.
    fn compare(&self, identity: &Identity) {
        if self
            .config
            .bundle_pin
            .is_some_and(|pin| pin != identity.bundle_pin)
        {
            tracing::warn!(cluster = %identity.cluster, "this data directory has joined a cluster under another bundle pin; the one given now is not heeded. To join another cluster use another data directory");
        }
        if self.config.hostname != identity.hostname {
            tracing::warn!(joined_as = %identity.hostname, "this data directory has joined under another hostname, which stays");
        }
    }
}

/// An address that cannot be opened is told before a join: the token would be used up by then. The port is
/// given back at once; it is opened for good only when the current row is held.
async fn check_listen(config: &Config) -> Result<(), AgentError> {
    let Some(addr) = config.listen else { return Ok(()) };
    let opened = tokio::net::TcpListener::bind(addr).await;
    opened
        .map(drop)
        .map_err(|source| AgentError::Listen { addr, source })
}

enum Known {
    Joined(Box<Joined>),
    Nothing(Option<(NodeId, Option<Credential>)>),
}

/// Any certificate with its key that is left on disk, to prove who this was: the newest.
fn any_credential(disk: &DataDir) -> Option<Credential> {
    let received = disk.requests().unwrap_or_default();
    let received = received.into_iter().filter_map(|r| r.received);
    disk.salvage()
        .into_iter()
        .chain(received)
        .max_by_key(|c| c.leaf.position)
}

/// Who this was, by the name in such a certificate.
fn named_by_certificate(disk: &DataDir) -> Option<(NodeId, Option<Credential>)> {
    let credential = any_credential(disk)?;
    let uri = Certificate::parse(&credential.certificate).ok()?.uri?;
    match domain::identity::parse_uri(&uri) {
        Some((_, Principal::Node(node))) => Some((node, Some(credential))),
        Some(_) | None => None,
    }
}
