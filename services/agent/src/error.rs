//! Why an agent ends, with the exit code that scripts see.

use std::{io, net::SocketAddr};

use domain::Code;
use runtime::config::ConfigError;

use crate::disk::DiskError;

/// Why an agent has ended. The text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// It was started without what a first join needs, or with something malformed.
    #[error("{0}")]
    Usage(String),
    /// The configuration file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An address of ours, the probe endpoint's or that of the metrics, cannot be opened.
    #[error(
        "the agent cannot listen on {addr}: {source}; choose another address (--listen, or metrics_listen in its configuration)"
    )]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The control plane said no to a join.
    #[error("refused: {code}: {text}")]
    Refused {
        /// The stable code.
        code: Code,
        /// What stands in the way.
        text: String,
    },
    /// Only a new token helps.
    #[error(
        "refused: {code}: {why}. The control plane does not take this node back by its old certificate: make a token with \
         `carousel tokens add --name {hostname}` and start the agent with it on the same data directory; it keeps its node id"
    )]
    NeedsToken {
        /// The stable code.
        code: Code,
        /// What the control plane said.
        why: String,
        /// The name to ask for.
        hostname: String,
    },
    /// The server is not the one that the pins name.
    #[error("the server is not trusted: {0}")]
    Untrusted(String),
    /// The certificates that were made cannot be used by TLS: a bug of one side.
    #[error("the installed certificates cannot be used: {0}")]
    Certificates(String),
}

impl AgentError {
    /// The process's exit code (contract): 1 failed, 2 usage, 3 refused, 4 not trusted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Config(_) => 2,
            Self::Refused { .. } | Self::NeedsToken { .. } => 3,
            Self::Untrusted(_) => 4,
            Self::Disk(_) | Self::Listen { .. } | Self::Certificates(_) => 1,
        }
    }
}
