//! `carousel serve`: the control plane as a command, with its configuration, signals and the `ready` line.

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
};

use cli::args::ServeArgs;
use domain::Hostname;
use runtime::{
    config::{self, ConfigError},
    shutdown::{DRAIN_TIMEOUT, Hangups, Signals},
    telemetry::{LogFormat, Telemetry, TelemetryConfig},
};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    home::{Home, HomeError},
    plane::{Options, Plane, PlaneError},
};

/// Where the API listens when nothing is said.
const LISTEN: &str = "127.0.0.1:3025";
/// Where the admin endpoint listens when nothing is said.
const ADMIN_LISTEN: &str = "127.0.0.1:3026";

/// The settings of `serve` as a file; flags go before it.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    /// As `--listen`.
    pub listen: Option<String>,
    /// As `--advertise`.
    pub advertise: Vec<String>,
    /// As `--admin-listen`.
    pub admin_listen: Option<String>,
    /// As `--log`.
    pub log: Option<String>,
    /// How log lines look: `text` or `json`. Read again at SIGHUP.
    pub log_format: Option<String>,
    /// What is logged, such as `info,gateway=debug`. Read again at SIGHUP.
    pub log_filter: Option<String>,
}

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Plane(#[from] PlaneError),
    #[error("logging could not be set up")]
    Telemetry(#[from] runtime::telemetry::TelemetryError),
    #[error("signals cannot be handled")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Identity(#[from] cli::identity::IdentityError),
    #[error("{0}")]
    Usage(String),
}

/// The command.
pub async fn run(args: &ServeArgs) -> u8 {
    match Box::pin(try_run(args)).await {
        Ok(()) => 0,
        Err(ServeError::Usage(text)) => {
            anstream::eprintln!("usage: {text}");
            2
        }
        Err(error) => crate::failed(&error),
    }
}

async fn try_run(args: &ServeArgs) -> Result<(), ServeError> {
    // Before anything else: a signal during the start must not kill it in the middle of a write.
    let signals = Signals::install().map_err(ServeError::Signals)?;
    let hangups = Hangups::install().map_err(ServeError::Signals)?;
    let file = read_config(args.config.as_deref())?;
    let telemetry = Telemetry::init(&telemetry_of(&file)?)?;
    if args.services != "all" {
        let text = "this version runs all services in one process: --services takes only `all`";
        return Err(ServeError::Usage(text.into()));
    }
    let options = options(args, &file)?;
    let mut home = Home::open(&args.data_dir)?;
    let _held = home.hold()?;
    // Refused before anything listens when others could read it; one that was moved away is told later.
    if home.admin_identity().exists() {
        cli::identity::Identity::load(&home.admin_identity())?;
    }
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(signals.watch(stop.clone()));
    // A token of its own: a start that fails stops its services, and must not look like a signal.
    let starting = Plane::start(&mut home, options, stop.child_token());
    tokio::pin!(starting);
    let plane = tokio::select! {
        plane = &mut starting => plane,
        () = stop.cancelled() => match tokio::time::timeout(DRAIN_TIMEOUT, starting).await {
            Ok(plane) => plane,
            Err(_) => return Ok(()),
        },
    };
    let plane = match plane {
        Ok(plane) => plane,
        // It ended in order what it had begun, and was told to.
        Err(_) if stop.is_cancelled() => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    tasks.spawn(reread(hangups, args.config.clone(), telemetry));
    if let Some(admin) = plane.admin {
        tracing::info!(api = %plane.url, admin = %format!("http://{admin}"), log = plane.core().log.name(), "serving");
    }
    anstream::println!("ready {}", plane.url);
    let outcome = plane.run().await;
    tasks.shutdown().await;
    Ok(outcome?)
}

/// SIGHUP rereads the configuration; a bad one is refused and the old kept.
async fn reread(mut hangups: Hangups, path: Option<PathBuf>, telemetry: Telemetry) {
    loop {
        hangups.next().await;
        let applied = read_config(path.as_deref()).and_then(|file| {
            telemetry.apply(&telemetry_of(&file)?)?;
            Ok(())
        });
        match applied {
            Ok(()) => tracing::info!(
                "the configuration was read again; addresses and the log change with a restart"
            ),
            Err(error) => {
                tracing::error!(%error, "the configuration was refused; the old one stays in force")
            }
        }
    }
}

fn read_config(path: Option<&Path>) -> Result<FileConfig, ServeError> {
    match path {
        Some(path) => Ok(config::load(path)?),
        None => Ok(FileConfig::default()),
    }
}

fn telemetry_of(file: &FileConfig) -> Result<TelemetryConfig, ServeError> {
    let format = match file.log_format.as_deref() {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => {
            return Err(ServeError::Usage(format!(
                "log_format is text or json, not {other:?}"
            )));
        }
    };
    Ok(TelemetryConfig {
        format,
        filter: file.log_filter.clone(),
    })
}

fn options(args: &ServeArgs, file: &FileConfig) -> Result<Options, ServeError> {
    let pick = |flag: &Option<String>, file: &Option<String>, usual: &str| {
        flag.clone()
            .or_else(|| file.clone())
            .unwrap_or_else(|| usual.to_owned())
    };
    let listen = address(&pick(&args.listen, &file.listen, LISTEN), "--listen")?;
    let admin = address(
        &pick(&args.admin_listen, &file.admin_listen, ADMIN_LISTEN),
        "--admin-listen",
    )?;
    let advertise = if args.advertise.is_empty() {
        &file.advertise
    } else {
        &args.advertise
    };
    if listen.ip().is_unspecified() && advertise.is_empty() {
        let text =
            format!("{listen} listens everywhere, so nobody knows under which name: give --advertise NAME");
        return Err(ServeError::Usage(text));
    }
    let mut options = Options {
        log: args.log.clone().or_else(|| file.log.clone()),
        listen,
        names: vec![],
        addresses: vec![],
        advertise: advertise.first().cloned(),
        admin_listen: Some(admin),
    };
    if !listen.ip().is_unspecified() {
        options.addresses.push(listen.ip());
    }
    for entry in advertise {
        let host = entry
            .rsplit_once(':')
            .filter(|(_, port)| port.parse::<u16>().is_ok())
            .map_or(&entry[..], |(h, _)| h);
        match (host.parse::<IpAddr>(), host.parse::<Hostname>()) {
            (Ok(address), _) if !options.addresses.contains(&address) => options.addresses.push(address),
            (Ok(_), _) => {}
            (Err(_), Ok(name)) => options.names.push(name),
            (Err(_), Err(error)) => return Err(ServeError::Usage(format!("--advertise: {error}"))),
        }
    }
    Ok(options)
}

fn address(text: &str, flag: &str) -> Result<SocketAddr, ServeError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    found.ok_or_else(|| {
        ServeError::Usage(format!(
            "{flag}: {text:?} is no address to listen on, such as 127.0.0.1:3025"
        ))
    })
}
