//! `audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use domain::AuthorityType;

use super::values::parse_type;

/// `audit`.
#[derive(Subcommand, Debug)]
pub enum AuditCommand {
    /// When, who, what, why.
    Ls(AuditFilter),
    /// The same, live.
    Follow(AuditFilter),
    /// One event in full, and what it led to.
    Show {
        /// Its position.
        position: u64,
    },
    /// The state then, from the log alone.
    Replay {
        /// A time (RFC 3339) or log position.
        #[arg(long, value_name = "TIME|POS")]
        as_of: String,
        /// What to show.
        #[arg(long, value_parser = ["status", "nodes", "authorities", "certificates"], default_value = "status")]
        view: String,
    },
    /// What changed between two moments.
    Diff {
        /// The earlier one.
        a: String,
        /// The later one.
        b: String,
    },
    /// Re-read the log and decide it again.
    Verify {
        /// Verify the log of a stopped control plane in this data directory instead.
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Its log, as `serve` takes it: needed where the broker asks for credentials, which are not remembered.
        #[arg(long, value_name = "LOG", requires = "data_dir")]
        log: Option<String>,
    },
}

/// What `audit ls` and `follow` show.
#[derive(Args, Debug, Clone, Default)]
pub struct AuditFilter {
    /// From this time, or so long ago (30m).
    #[arg(long, value_name = "TIME|DURATION")]
    pub since: Option<String>,
    /// Up to this time, or so long ago.
    #[arg(long, value_name = "TIME|DURATION")]
    pub until: Option<String>,
    /// Only this author: a user's name, `clock`, `signer`, or a principal such as node/ID.
    #[arg(long)]
    pub actor: Option<String>,
    /// Only events of this type, such as rotation or rotation.phase-entered.
    #[arg(long = "type", value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Only events about this node.
    #[arg(long)]
    pub node: Option<String>,
    /// Only events about this authority.
    #[arg(long, value_name = "TYPE", value_parser = parse_type)]
    pub ca: Option<AuthorityType>,
    /// Only events of this rotation.
    #[arg(long, value_name = "ID")]
    pub rotation: Option<domain::RotationId>,
    /// Do not fold events of a kind into one row.
    #[arg(long)]
    pub all: bool,
    /// Newest first.
    #[arg(long)]
    pub reverse: bool,
}
