//! What a gateway is told, and why it cannot start.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use domain::{Hostname, MemberId};
use runtime::ratelimit::Rate;

/// What a gateway is told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 picks one.
    pub listen: SocketAddr,
    /// The names of its server certificates; reserved for nodes from its start on.
    pub names: Vec<Hostname>,
    /// The addresses of its server certificates, usually the listen address.
    pub addresses: Vec<IpAddr>,
    /// The host to tell callers, with a port or without, where it is not the listen address.
    pub advertise: Option<String>,
    /// Where readers of tokens find this control plane, without a `/` at the end: the beginning of the tokens' issuer. None:
    /// where it accepts, see [`url_of`].
    pub public_url: Option<String>,
    /// Where its keys and certificates are kept: `D/gateway`, 0700. `carousel init` writes `genesis.key`
    /// and `genesis.crt` there.
    pub dir: PathBuf,
    /// Its id as a member, stable over restarts.
    pub member: MemberId,
    /// The most connections at once, as far as this process may open so many files. A quarter of them is for
    /// callers that the log does not know, or not yet: also during the handshake.
    pub max_connections: usize,
    /// The most of those from one source: an IPv4 address, or an IPv6 network of 64 bits.
    pub per_source: usize,
    /// How long a connection without a certificate that the log knows may stand.
    pub stranger_life: Duration,
    /// How often one source may join, and as often again recover. Renewals come with a certificate and are not counted.
    pub joins: Rate,
    /// How often one node may report. Each may be an event, and one stolen key must not fill the log.
    pub node_reports: Rate,
    /// How often one node may ask for a certificate with a new key, likewise. A new row begins the count anew, so
    /// that no rotation is too quick for it.
    pub node_certificates: Rate,
}

impl Config {
    /// The usual limits for a gateway that listens there.
    pub fn new(listen: SocketAddr, dir: PathBuf, member: MemberId) -> Self {
        let addresses = if listen.ip().is_unspecified() {
            vec![]
        } else {
            vec![listen.ip()]
        };
        Self {
            listen,
            names: vec![],
            addresses,
            advertise: None,
            public_url: None,
            dir,
            member,
            max_connections: 65_536,
            per_source: 4_096,
            stranger_life: Duration::from_secs(60),
            joins: Rate {
                burst: 512,
                per_second: 64.0,
            },
            node_reports: Rate {
                burst: 20,
                per_second: 1.0,
            },
            node_certificates: Rate {
                burst: 16,
                per_second: 1.0 / 30.0,
            },
        }
    }

    /// Does the gateway itself listen on loopback? Then nodes may be probed there.
    pub(crate) fn is_on_loopback(&self) -> bool {
        self.listen.ip().is_loopback()
    }
}

/// Where it accepts, as callers are told: `https://HOST:PORT`.
pub fn url_of(advertise: Option<&str>, address: SocketAddr) -> String {
    let has_port = |host: &str| {
        host.rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
    };
    match advertise {
        None => format!("https://{address}"),
        Some(host) if has_port(host) => format!("https://{host}"),
        Some(host) => format!("https://{host}:{}", address.port()),
    }
}

/// Why a gateway cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen}: {}", advice(*listen, source))]
    Listen {
        /// Where.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its own keys and certificates cannot be read or written.
    #[error("{0}")]
    Credentials(#[from] crate::member::CredentialError),
    /// Other gateways cannot ask it on the bus.
    #[error(transparent)]
    Offer(#[from] eventlog::bus::OfferError),
    /// The log holds no cluster.
    #[error("the log holds no cluster yet: append the genesis before the gateway starts")]
    NoCluster,
}

fn advice(listen: SocketAddr, error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::AddrInUse => {
            format!(
                "port {} is in use: stop what listens there, or choose another with --listen",
                listen.port()
            )
        }
        ErrorKind::AddrNotAvailable => "this machine has no such address: see --listen".into(),
        ErrorKind::PermissionDenied => {
            format!("port {} needs more rights: choose one above 1023", listen.port())
        }
        _ => error.to_string(),
    }
}
