//! What can keep the control plane from serving.

use std::{net::SocketAddr, path::PathBuf};

use domain::ClusterName;
use execution::{ExecuteError, FoldError};

use super::START_TIMEOUT;
use crate::home::HomeError;

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
