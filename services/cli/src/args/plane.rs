//! What runs a control plane: `demo`, `init`, `serve`, `recover`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use domain::{AuthorityType, ClusterName};

use super::values::parse_type;

/// `demo`.
#[derive(Args, Debug, Clone)]
pub struct DemoArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=500))]
    pub nodes: u32,
    /// Which authority.
    #[arg(long = "type", value_name = "TYPE", default_value = "host", value_parser = parse_type)]
    pub authority_type: AuthorityType,
    /// host, user, db_client and jwt, one after the other in one fleet.
    #[arg(long, conflicts_with = "authority_type")]
    pub all: bool,
    /// Change the mind half way.
    #[arg(long)]
    pub rollback: bool,
    /// Keep the data and the control plane to look around.
    #[arg(long)]
    pub keep: bool,
    /// Keep the log in a JetStream of this server instead of the embedded log.
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// Where to put the data (default: a temporary directory).
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// One line of JSON at the end.
    #[arg(long)]
    pub json: bool,
}

/// `init`.
#[derive(Args, Debug, Clone)]
pub struct InitArgs {
    /// The new data directory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// The cluster's name, a DNS name.
    #[arg(long, value_name = "NAME")]
    pub cluster: ClusterName,
    /// Where the key-encryption key is kept: file:PATH (which must exist), env:NAME, or a PKCS#11 token,
    /// pkcs11:token=NAME?module-path=FILE&pin-source=file:FILE
    /// [default: a file that is made beside the keys].
    #[arg(long, value_name = "KEK")]
    pub kek: Option<String>,
    /// Where the authorities' keys are made, as `serve --keys` takes it: `files`, or a PKCS#11 token [default: files].
    #[arg(long, value_name = "PLACE")]
    pub keys: Option<String>,
    /// A TOML file with other durations than the usual ones, such as node_ttl_ms. They are fixed for the cluster's
    /// life, and status warns where they are lower than usual: for demos and tests.
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// `serve`.
#[derive(Args, Debug, Clone)]
pub struct ServeArgs {
    /// The data directory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// A TOML file with the same settings.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The mTLS API [default: 127.0.0.1:3025]; port 0 picks one.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Names of the gateway's certificates, and the host of the `ready` line: a name, 192.0.2.1, [2001:db8::1]:3025.
    #[arg(long, value_name = "NAME[:PORT]")]
    pub advertise: Vec<String>,
    /// Where readers of tokens find this control plane, the beginning of their `iss` [default: as the `ready` line].
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,
    /// Plain /healthz /livez /readyz /metrics [default: 127.0.0.1:3026].
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<String>,
    /// `embedded` or nats://HOST:PORT; remembered after the first start.
    #[arg(long, value_name = "LOG")]
    pub log: Option<String>,
    /// Where new keys of authorities are made: `files`, or a token as
    /// pkcs11:token=NAME?module-path=/FULL/PATH.so&pin-source=file:/FULL/PATH; remembered. Others stay where they are
    /// until a rotation replaces them.
    #[arg(long, value_name = "PLACE")]
    pub keys: Option<String>,
    /// `all`, or a list of gateway, orchestrator, projector, signer: what this process runs of them. Apart from each other
    /// they need a log on NATS.
    #[arg(long, value_name = "LIST", default_value = "all")]
    pub services: String,
    /// Take part in this cluster with a data directory that need not be there yet, and never holds keys: for processes
    /// without a signer.
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
    /// Show each setting with where it comes from (flag, environment, file, default), and end.
    #[arg(long)]
    pub print_config: bool,
}

/// `recover`.
#[derive(Args, Debug, Clone)]
pub struct RecoverArgs {
    /// The control plane's data directory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Its log, as `serve` takes it: needed where the broker asks for credentials, which are not remembered.
    #[arg(long, value_name = "LOG")]
    pub log: Option<String>,
}

/// `nats`.
#[derive(Subcommand, Debug)]
pub enum NatsCommand {
    /// Make the streams of a cluster's log, or give them more replicas: what no service may do.
    Provision(ProvisionArgs),
}

/// `nats provision`.
#[derive(Args, Debug, Clone)]
pub struct ProvisionArgs {
    /// Whose log.
    #[arg(long, value_name = "NAME")]
    pub cluster: ClusterName,
    /// The broker, as a user that may make and change streams: nats://administrator:PASSWORD@HOST:4222.
    #[arg(long, env = "CAROUSEL_EVENT_LOG", hide_env_values = true, value_name = "URL")]
    pub log: String,
    /// On how many servers each event is kept: 3, or 5, in failure domains of their own.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub replicas: u8,
    /// State in the stream that these servers have `sync_interval: always`, which services cannot see.
    #[arg(long)]
    pub sync_always: bool,
    /// Show what would be done, and do nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `log`.
#[derive(Subcommand, Debug)]
pub enum LogCommand {
    /// Move a cluster's log between its file and NATS: copy it, compare every event, and serve from there.
    Copy(CopyArgs),
}

/// `log copy`.
#[derive(Args, Debug, Clone)]
pub struct CopyArgs {
    /// The control plane's data directory; nothing may serve from it, nor write the log.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where the log is to be: `embedded`, or nats://USER:PASSWORD@HOST:4222.
    #[arg(long, value_name = "LOG")]
    pub to: String,
    /// Where it is, as `serve` takes it: needed where the broker asks for credentials, which are not remembered.
    #[arg(long, value_name = "LOG")]
    pub log: Option<String>,
}
