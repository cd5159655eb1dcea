//! The command line of `carousel`: every command and flag, and nothing of what they do.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::{
    AuthorityType, Phase, TokenId, UserName,
    access::{NamePattern, RoleName},
    command::LaggingPolicy,
};

pub use audit::{AuditCommand, AuditFilter};
pub use bench::{BenchCommand, FleetArgs, GatewayArgs, LogArgs};
pub use consumers::{ConsumerAddArgs, ConsumerArgs, ConsumersCommand};
pub use plane::{
    CopyArgs, DemoArgs, InitArgs, LogCommand, NatsCommand, ProvisionArgs, RecoverArgs, ServeArgs,
};
pub use sign::{CertificatesCommand, LoginArgs, RevokeArgs, SignArgs, TokenArgs};

use values::{parse_duration, parse_hosts, parse_name, parse_phase, parse_role, parse_type};

mod audit;
mod bench;
mod consumers;
mod plane;
mod sign;
mod values;

/// How a command ends: in the long help, in the manual pages and in `carousel help exit-codes`.
macro_rules! exit_codes {
    () => {
        "\
  0    done, also when there was nothing to do
  1    failed
  2    the command line is wrong
  3    refused by the control plane; stderr begins `refused: CODE: text`
  4    the control plane cannot be reached, or one side does not trust the other
  5    not yet: a wait timed out, nothing was undone
  130  interrupted"
    };
}

/// How a command ends, a line each.
pub(crate) const EXIT_CODES: &str = exit_codes!();

/// What scripts rely on, at the end of the long help.
const EXIT_STATUS: &str = concat!(
    "Exit status:\n",
    exit_codes!(),
    "\n\nExamples:
  carousel demo
  carousel status
  carousel auth rotate --manual --type=host --phase=init --wait
  carousel get nodes --lagging=host

More about any refusal: carousel explain CODE; also carousel help exit-codes, rotation, environment, formatting"
);

/// Rotates certificate authorities across a fleet without losing a node, and can prove afterwards what happened.
#[derive(Parser, Debug)]
#[command(
    name = "carousel",
    version,
    propagate_version = true,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Begin with `carousel demo`. More about any refusal: `carousel explain CODE`; also `carousel help \
                  rotation`, `help exit-codes`, `help environment`, `help formatting`.",
    after_long_help = EXIT_STATUS
)]
pub struct Cli {
    /// What all commands understand.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Args, Debug, Clone)]
pub struct Global {
    /// How to print: for people (text, which may change), for `jq`, or names for `xargs`.
    #[arg(long, short = 'o', visible_alias = "output", value_enum, default_value_t = Format::Text, global = true)]
    pub format: Format,
    /// The control plane, https://HOST:PORT (an identity file names its own).
    #[arg(long, env = "CAROUSEL_SERVER", value_name = "URL", global = true)]
    pub server: Option<String>,
    /// Your identity file.
    #[arg(long, env = "CAROUSEL_IDENTITY", value_name = "FILE", global = true)]
    pub identity: Option<PathBuf>,
    /// Why: stands in the audit log with whatever the command changes.
    #[arg(long, value_name = "TEXT", global = true)]
    pub reason: Option<String>,
    /// Never ask on the terminal.
    #[arg(long, global = true)]
    pub no_input: bool,
    /// No progress on stderr; errors stay.
    #[arg(long, short = 'q', global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Show each request on stderr, with the id of its trace.
    #[arg(long, short = 'v', global = true)]
    pub verbose: bool,
}

/// How to print.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For people with wide terminals: more columns.
    Wide,
    /// One document; JSON Lines for what follows or waits.
    Json,
    /// The same as YAML.
    Yaml,
    /// One name per line.
    Name,
}

/// Every command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Show a whole rotation on this machine: a control plane, nodes, traffic, and the proof.
    Demo(DemoArgs),
    /// Measure, with raw limits from the same run beside each figure.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Make a new cluster's keys and first identity in a data directory.
    Init(InitArgs),
    /// Run the control plane.
    Serve(ServeArgs),
    /// Make a new administrator identity, on the control-plane host.
    Recover(RecoverArgs),
    /// Move a cluster's log.
    #[command(subcommand)]
    Log(LogCommand),
    /// The streams of a log on NATS, for the administrator of the broker.
    #[command(subcommand)]
    Nats(NatsCommand),
    /// Show the cluster and its rotations.
    Status(StatusArgs),
    /// Rotate authorities; export their public material; sign by hand.
    #[command(subcommand)]
    Auth(AuthCommand),
    /// Wait until every node has reached the phase.
    Wait(WaitArgs),
    /// List nodes, authorities, rotations, tokens, certificates, consumers or users.
    Get(GetArgs),
    /// Take nodes out of a rotation, in again, or away.
    #[command(subcommand)]
    Nodes(NodesCommand),
    /// Join tokens.
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// Operators.
    #[command(subcommand)]
    Users(UsersCommand),
    /// Parties without an agent that trust an exported authority: each forward step waits for their word.
    #[command(subcommand)]
    Consumers(ConsumersCommand),
    /// Short-lived certificates of your own, for TLS and SSH.
    Login(LoginArgs),
    /// Revoke certificates; `get certificates -o wide` lists them with their serials.
    #[command(subcommand)]
    Certificates(CertificatesCommand),
    /// Dial nodes and see what they serve.
    Probe(ProbeArgs),
    /// Preflight and health in one.
    Check(CheckArgs),
    /// What a refusal or check means and what to do; offline.
    Explain {
        /// A code such as `nodes_lagging`; none lists them all.
        code: Option<String>,
    },
    /// The log as people read it, and its verification.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// The control plane's clock.
    #[command(subcommand)]
    Clock(ClockCommand),
    /// Completions for a shell, on stdout.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Manual pages.
    #[command(hide = true)]
    Man {
        /// A directory for one page per command; without it the main page goes to stdout.
        #[arg(value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Help on a command, or on a topic: exit-codes, rotation, environment, formatting.
    Help {
        /// A topic, or a command with its subcommand.
        words: Vec<String>,
    },
}

/// `status`.
#[derive(Args, Debug, Clone)]
pub struct StatusArgs {
    /// As it was at this time (RFC 3339) or log position.
    #[arg(long, value_name = "TIME|POS")]
    pub at: Option<String>,
}

/// `auth`.
#[derive(Subcommand, Debug)]
pub enum AuthCommand {
    /// Start a rotation, or make its next step; at a terminal without flags it asks.
    Rotate(RotateArgs),
    /// Public material of all trusted generations.
    Export(ExportArgs),
    /// A certificate for a party without an agent: a database, a desktop, an OpenSSH host.
    Sign(SignArgs),
    /// A token for an application, on stdout.
    Token(TokenArgs),
}

/// `auth rotate`.
#[derive(Args, Debug, Clone)]
pub struct RotateArgs {
    /// Which authority: host, user, db, db_client, openssh, jwt, saml_idp, oidc_idp, spiffe, okta, awsra, windows.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    pub authority_type: Option<AuthorityType>,
    /// Each step is made by hand. Without --phase: start with init.
    #[arg(long)]
    pub manual: bool,
    /// The phase to enter: init, update_clients, update_servers, standby, rollback.
    #[arg(long, value_parser = parse_phase)]
    pub phase: Option<Phase>,
    /// Length of a semi-automatic rotation, such as 48h; each of its three steps is due a third of it later.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub grace_period: Option<Duration>,
    /// What a due step does when nodes lag. hold: waits until they have caught up. proceed: passes over nodes that
    /// were not seen since the step before (of a fleet of one or of three: over an offline one, never over the
    /// final standby). rollback: turns back if 5 % and at least two nodes lag (never in a fleet of one; in one of
    /// three when two lag).
    #[arg(long, value_enum, value_name = "POLICY")]
    pub on_lagging: Option<OnLagging>,
    /// Change nothing; show what each next step does and which connections break if it were forced now.
    #[arg(long)]
    pub plan: bool,
    /// Pass over lagging nodes, consumers and time conditions (needs --reason).
    #[arg(long)]
    pub force: bool,
    /// Wait until every node has reached the phase (semi-automatic: until the end).
    #[arg(long)]
    pub wait: bool,
    /// Wait at most so long; then exit 5. Nothing is undone.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    pub timeout: Option<Duration>,
}

/// `--on-lagging`.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnLagging {
    /// Wait for them.
    Hold,
    /// Pass over those that are offline.
    Proceed,
    /// Turn back.
    Rollback,
}

impl From<OnLagging> for LaggingPolicy {
    fn from(policy: OnLagging) -> Self {
        match policy {
            OnLagging::Hold => Self::Hold,
            OnLagging::Proceed => Self::Proceed,
            OnLagging::Rollback => Self::Rollback,
        }
    }
}

/// `auth export`.
#[derive(Args, Debug, Clone)]
pub struct ExportArgs {
    /// Which authority.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    pub authority_type: Option<AuthorityType>,
    /// In which form; certificates where the type has any, else its OpenSSH lines or its key set.
    #[arg(long = "as", value_enum, value_name = "FORM")]
    pub form: Option<ExportForm>,
    /// Of which hosts the lines of `--type=host --as=ssh` are to be believed (a pattern of known_hosts).
    #[arg(long, value_name = "PATTERN", value_parser = parse_hosts)]
    pub hosts: Option<String>,
}

/// Forms of public material.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportForm {
    /// CA certificates, PEM.
    Pem,
    /// CA certificates, DER, one after the other.
    Der,
    /// OpenSSH lines: `@cert-authority` for known_hosts (host), or for TrustedUserCAKeys.
    Ssh,
    /// A JSON Web Key set.
    Jwks,
    /// Revocation lists of the CAs (RFC 5280), PEM.
    Crl,
    /// OpenSSH's key revocation list, for sshd's RevokedKeys; binary.
    Krl,
    /// Pins.
    Pin,
}

/// `wait`.
#[derive(Args, Debug, Clone)]
pub struct WaitArgs {
    /// Which authority.
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    pub authority_type: Option<AuthorityType>,
    /// Wait for this phase rather than for the current one.
    #[arg(long, value_parser = parse_phase)]
    pub phase: Option<Phase>,
    /// At most so long; then exit 5.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// What `get` lists.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Nodes.
    #[value(alias = "node")]
    Nodes,
    /// Keys of all generations.
    #[value(alias = "authority")]
    Authorities,
    /// Rotations, the newest first.
    #[value(alias = "rotation")]
    Rotations,
    /// Join tokens.
    #[value(alias = "token")]
    Tokens,
    /// Certificates.
    #[value(alias = "certificate")]
    Certificates,
    /// External consumers.
    #[value(alias = "consumer")]
    Consumers,
    /// Operators.
    #[value(alias = "user")]
    Users,
}

/// `get`.
#[derive(Args, Debug, Clone)]
pub struct GetArgs {
    /// What to list.
    #[arg(value_enum)]
    pub kind: Kind,
    /// Columns of this authority (default: the one in rotation, else host).
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type)]
    pub authority_type: Option<AuthorityType>,
    /// Only nodes that have not reached the phase of this authority (default: of any in rotation).
    #[arg(long, value_name = "TYPE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub lagging: Option<String>,
    /// Only nodes that are offline.
    #[arg(long)]
    pub offline: bool,
    /// Only nodes that are excluded.
    #[arg(long)]
    pub excluded: bool,
    /// Only nodes with this label.
    #[arg(long, short = 'l', value_name = "KEY=VALUE")]
    pub label: Vec<String>,
}

/// `nodes`.
#[derive(Subcommand, Debug)]
pub enum NodesCommand {
    /// Take an unreachable node out of the rotations in progress.
    Exclude(NodeArg),
    /// Take it in again.
    Include(NodeArg),
    /// Remove a node for good; its certificates stop counting.
    Rm(NodeArg),
}

/// One node.
#[derive(Args, Debug, Clone)]
pub struct NodeArg {
    /// Its host name or id.
    pub name: String,
}

/// `tokens`.
#[derive(Subcommand, Debug)]
pub enum TokensCommand {
    /// Make a join token; prints the line to run on the node.
    Add(TokenAddArgs),
    /// Remove one.
    Rm {
        /// Its id.
        id: TokenId,
    },
}

/// `tokens add`.
#[derive(Args, Debug, Clone)]
#[command(group = clap::ArgGroup::new("granted").required(true).multiple(true))]
pub struct TokenAddArgs {
    /// A name that the node may bear; repeat for several names of one node.
    #[arg(long = "name", value_name = "NAME", group = "granted", value_parser = parse_name)]
    pub name: Vec<NamePattern>,
    /// A pattern such as '*.db.acme' that each joining node may bear one name of.
    #[arg(long = "names", value_name = "PATTERN", group = "granted", value_parser = parse_name)]
    pub names: Vec<NamePattern>,
    /// Authority types that the node verifies, beside host.
    #[arg(long = "use", value_name = "TYPE", value_parser = parse_type)]
    pub uses_types: Vec<AuthorityType>,
    /// An address that its certificates may bear and its probe endpoint may listen on.
    #[arg(long, value_name = "ADDR")]
    pub address: Vec<IpAddr>,
    /// How long the token lives.
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_duration)]
    pub ttl: Duration,
    /// How many nodes may join with it.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,
}

/// `users`.
#[derive(Subcommand, Debug)]
pub enum UsersCommand {
    /// Add an operator and write the identity file.
    Add {
        /// The name.
        name: UserName,
        /// admin, operator, auditor, separated by commas.
        #[arg(long, value_delimiter = ',', required = true, value_parser = parse_role)]
        roles: Vec<RoleName>,
        /// The accounts that SSH certificates of theirs are good for, separated by commas [default: NAME].
        #[arg(long = "logins", value_name = "ACCOUNT", value_delimiter = ',')]
        logins: Vec<String>,
        /// Where to write the identity (0600).
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Remove an operator; the certificates stop counting.
    Rm {
        /// The name.
        name: UserName,
    },
    /// List operators.
    Ls,
}

/// `probe`.
#[derive(Args, Debug, Clone)]
pub struct ProbeArgs {
    /// The node's host name or id.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    pub node: Option<String>,
    /// Every node.
    #[arg(long)]
    pub all: bool,
}

/// `check`.
#[derive(Args, Debug, Clone)]
pub struct CheckArgs {
    /// `warn`: warnings count as errors.
    #[arg(long, value_name = "LEVEL", value_parser = ["error", "warn"], default_value = "error")]
    pub fail_on: String,
    /// Repeat until clean.
    #[arg(long)]
    pub wait: bool,
    /// Wait at most so long; then exit 5.
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    pub timeout: Option<Duration>,
}

/// `clock`.
#[derive(Subcommand, Debug)]
pub enum ClockCommand {
    /// Accept the clock after it was suspect (needs --reason).
    Accept,
}
