//! The command line of `carousel-agent`.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use agent::{
    AgentError, Config, Pace, Server, Settings, Token,
    disk::{self, DiskError},
};
use clap::{Args, Parser, Subcommand};
use domain::{Hostname, SpkiPin};
use runtime::harden;
use zeroize::Zeroizing;

/// The variable that may hold the join token.
const TOKEN_VARIABLE: &str = "CAROUSEL_TOKEN";
/// A file with a token is one line.
const MAX_TOKEN_FILE: u64 = 4096;

/// Keeps a node's certificates and trust current.
#[derive(Parser)]
#[command(name = "carousel-agent", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Join once with a token, then keep this node current; later starts need no token and no pins
    Start(StartArgs),
    /// Show what the agent of a data directory does and holds
    Status(StatusArgs),
}

#[derive(Args)]
pub(crate) struct StartArgs {
    /// The directory of this agent's identity, keys and certificates
    #[arg(long, value_name = "D")]
    data_dir: PathBuf,
    /// A gateway, https://HOST:PORT; several are tried in turn
    #[arg(long, value_name = "URL", required = true, value_parser = Server::parse)]
    server: Vec<Server>,
    /// The name to join under; it must be granted by the token
    #[arg(long, value_name = "NAME")]
    hostname: Option<Hostname>,
    /// Pin of a host authority (printed by `carousel tokens add`); either one of a rotation will do
    #[arg(long, value_name = "sha256:…")]
    ca_pin: Vec<SpkiPin>,
    /// Pin of the key that signs trust bundles (printed by `carousel tokens add`)
    #[arg(long, value_name = "sha256:…")]
    bundle_pin: Option<SpkiPin>,
    /// A file with the join token, which nobody else may read, or - for stdin; or set CAROUSEL_TOKEN
    #[arg(long, value_name = "F|-")]
    token_file: Option<PathBuf>,
    /// Refused: arguments can be read by every user of this host
    #[arg(long, hide = true)]
    token: Option<String>,
    /// Where the probe endpoint listens (mTLS)
    #[arg(long, value_name = "A")]
    listen: Option<SocketAddr>,
    /// Hooks, labels, uses and sshd's key (TOML); read again at SIGHUP
    #[arg(long, value_name = "F")]
    config: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    /// The agent's data directory
    #[arg(long, value_name = "D")]
    pub(crate) data_dir: PathBuf,
    /// Say what is wrong and exit 1 if anything is
    #[arg(long)]
    pub(crate) check: bool,
    /// text or json
    #[arg(long, short = 'o', value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    pub(crate) format: String,
}

impl StartArgs {
    /// The configuration that these arguments ask for.
    pub(crate) fn into_config(self) -> Result<Config, AgentError> {
        let usage = |text: &str| AgentError::Usage(text.to_owned());
        if self.token.is_some() {
            return Err(usage(
                "a join token on the command line can be read by every user of this host: put it in a file and give \
                 --token-file FILE (or - for stdin), or set CAROUSEL_TOKEN. This token should be removed: carousel tokens rm",
            ));
        }
        let known = match disk::peek_identity(&self.data_dir) {
            Ok(known) => known,
            // With a name and a token the node joins again; the agent says what is damaged where it has none.
            Err(DiskError::Damaged { .. }) if self.hostname.is_some() => None,
            Err(error) => return Err(error.into()),
        };
        let hostname = self
            .hostname
            .or_else(|| known.as_ref().map(|identity| identity.hostname.clone()));
        let hostname =
            hostname.ok_or_else(|| usage("this node has not joined yet and needs --hostname NAME"))?;
        let token = match token(self.token_file.as_deref()) {
            Ok(token) => token,
            Err(error) if known.is_some() => {
                // The file of a first join is often gone by the second start.
                tracing::debug!(%error, "no token was read; this node has joined already");
                None
            }
            Err(error) => return Err(error),
        };
        let settings = self
            .config
            .as_deref()
            .map(Settings::load)
            .transpose()?
            .unwrap_or_default();
        Ok(Config {
            data_dir: self.data_dir,
            servers: self.server,
            hostname,
            ca_pins: self.ca_pin.into_iter().collect::<BTreeSet<_>>(),
            bundle_pin: self.bundle_pin,
            token,
            listen: self.listen,
            settings,
            config_file: self.config,
            pace: Pace::default(),
            metrics: None,
        })
    }
}

/// The join token from its file, from stdin or from the environment. No error shows it.
fn token(file: Option<&Path>) -> Result<Option<Token>, AgentError> {
    let (text, from) = match file {
        Some(path) if path == Path::new("-") => (read(io::stdin().lock(), "stdin")?, "stdin".to_owned()),
        Some(path) => {
            let name = path.display().to_string();
            // What the shell hands over as a pipe has a name for the moment and a mode that means nothing.
            if path.is_file() {
                harden::owner_only(path).map_err(DiskError::from)?;
            }
            let opened = std::fs::File::open(path);
            let opened = opened
                .map_err(|e| AgentError::Usage(format!("the token file {name} cannot be read: {e}")))?;
            (read(opened, &name)?, name)
        }
        None => match runtime::config::env(TOKEN_VARIABLE)? {
            Some(text) => (Zeroizing::new(text), TOKEN_VARIABLE.to_owned()),
            None => return Ok(None),
        },
    };
    Token::parse(&text)
        .map(Some)
        .map_err(|why| AgentError::Usage(format!("{why} (from {from})")))
}

fn read(from: impl Read, name: &str) -> Result<Zeroizing<String>, AgentError> {
    let mut text = Zeroizing::new(String::new());
    match from.take(MAX_TOKEN_FILE).read_to_string(&mut text) {
        Ok(_) => Ok(text),
        Err(error) => Err(AgentError::Usage(format!(
            "the token cannot be read from {name}: {error}"
        ))),
    }
}
