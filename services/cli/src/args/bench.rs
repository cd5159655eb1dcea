//! The benchmarks' flags.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `bench`.
#[derive(Subcommand, Debug, Clone)]
pub enum BenchCommand {
    /// A whole rotation of a simulated fleet: real keys, requests, signatures, log and views; no sockets.
    Fleet(FleetArgs),
    /// The log: appending and replaying a rotation's events, each store beside what it can do by itself.
    Log(LogArgs),
    /// The gateway: agents in processes of their own with a connection each, a rotation through TLS, and storms after a
    /// restart.
    Gateway(GatewayArgs),
    /// One process of `bench gateway`'s agents; what it is to do comes by its stdin.
    #[command(hide = true)]
    Agents,
}

/// `bench fleet`.
#[derive(Args, Debug, Clone)]
pub struct FleetArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub nodes: u32,
    /// Where to put the data (default: a temporary directory).
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `bench gateway`.
#[derive(Args, Debug, Clone)]
pub struct GatewayArgs {
    /// How many agents.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub agents: u32,
    /// Where to put the data (default: a temporary directory).
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `bench log`.
#[derive(Args, Debug, Clone)]
pub struct LogArgs {
    /// How many nodes' rotation makes the events.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub nodes: u32,
    /// A NATS server to measure as well; the stream of the cluster `bench.carousel` is made there and removed.
    #[arg(long, value_name = "URL")]
    pub nats: Option<String>,
    /// Where to put the data (default: a temporary directory).
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}
