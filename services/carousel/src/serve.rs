//! `carousel serve`: the control plane as a command, with its configuration, signals and the `ready` line.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, ToSocketAddrs},
    path::Path,
};

use cli::args::ServeArgs;
use domain::{Hostname, plain};
use runtime::{
    clock::SystemClock,
    config::{self, ConfigError},
    shutdown::{DRAIN_TIMEOUT, Hangups, Signals},
    telemetry::{LogFormat, Telemetry, TelemetryConfig},
};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{
    home::{Home, HomeError, names_a_log},
    plane::{Options, Plane, PlaneError, Services},
};

use settings::Settings;

mod settings;

/// The settings of `serve` as a file; flags and the environment go before it.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FileConfig {
    /// As `--listen`.
    pub listen: Option<String>,
    /// As `--advertise`.
    pub advertise: Vec<String>,
    /// As `--public-url`.
    pub public_url: Option<String>,
    /// As `--admin-listen`.
    pub admin_listen: Option<String>,
    /// As `--log`.
    pub log: Option<String>,
    /// As `--keys`.
    pub keys: Option<String>,
    /// How log lines look: `text` or `json`. Read again at SIGHUP.
    pub log_format: Option<String>,
    /// What is logged, such as `info,gateway=debug`. Read again at SIGHUP.
    pub log_filter: Option<String>,
}

/// Why it does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration file or the environment cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// One of its services.
    #[error(transparent)]
    Plane(#[from] PlaneError),
    /// The log filter.
    #[error("logging could not be set up")]
    Telemetry(#[from] runtime::telemetry::TelemetryError),
    /// What the operating system said.
    #[error("signals cannot be handled")]
    Signals(#[source] std::io::Error),
    /// The administrator's identity file.
    #[error(transparent)]
    Identity(#[from] cli::identity::IdentityError),
    /// A setting's value, in words.
    #[error("{0}")]
    Usage(String),
}

/// The command.
pub async fn run(args: &ServeArgs) -> u8 {
    match Box::pin(try_run(args)).await {
        Ok(()) => 0,
        Err(ServeError::Usage(text)) => {
            anstream::eprintln!("error: {text}");
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
    let settings = Settings::read(args, &file)?;
    // Refused when it is printed as it would be at the start, so that a configuration can be tried.
    let (mut options, logging) = understood(&settings)?;
    options.services = args.services.parse().map_err(ServeError::Usage)?;
    let services = options.services.to_string();
    if args.print_config {
        anstream::print!("{}", settings.with_origins());
        return Ok(());
    }
    let telemetry = Telemetry::init(&logging)?;
    let mut home = match &args.cluster {
        Some(cluster) => {
            let now = (crate::now_of(SystemClock::shared()))();
            Home::open_or_join(&args.data_dir, cluster, &options.services, now)?
        }
        None => Home::open(&args.data_dir)?,
    };
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
    tasks.spawn(reread(hangups, args.clone(), telemetry));
    let ready = plane.url.clone().unwrap_or(services);
    if let Some(admin) = plane.admin {
        tracing::info!(api = %ready, admin = %format!("http://{admin}"), log = plane.core().log.name(), "serving");
    }
    anstream::println!("ready {ready}");
    let outcome = plane.run().await;
    tasks.shutdown().await;
    Ok(outcome?)
}

/// SIGHUP rereads the configuration; a bad one is refused and the old kept.
async fn reread(mut hangups: Hangups, args: ServeArgs, telemetry: Telemetry) {
    loop {
        hangups.next().await;
        let applied = read_config(args.config.as_deref()).and_then(|file| {
            telemetry.apply(&telemetry_of(&Settings::read(&args, &file)?)?)?;
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

/// What a start does with the settings, or why it would refuse them.
fn understood(settings: &Settings) -> Result<(Options, TelemetryConfig), ServeError> {
    let (options, logging) = (options(settings)?, telemetry_of(settings)?);
    logging.check()?;
    Ok((options, logging))
}

/// What `--print-config` prints for a configuration file of this text where the environment says nothing.
///
/// # Errors
/// As the start would refuse it; no message and nothing that is printed holds a credential.
pub fn printed(args: &ServeArgs, text: &str) -> Result<String, ServeError> {
    let path = args.config.clone().unwrap_or_default();
    let settings = Settings::read_from(args, &config::parse(text, &path)?, |_| Ok(None))?;
    understood(&settings)?;
    Ok(settings.with_origins())
}

fn telemetry_of(settings: &Settings) -> Result<TelemetryConfig, ServeError> {
    let format = match settings.log_format.value.as_str() {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        other => {
            return Err(ServeError::Usage(format!(
                "log_format is text or json, not {:?}",
                plain(other)
            )));
        }
    };
    Ok(TelemetryConfig {
        format,
        filter: Some(settings.log_filter.value.clone()),
    })
}

fn options(settings: &Settings) -> Result<Options, ServeError> {
    let listen = address(&settings.listen.value, "--listen")?;
    let admin = address(&settings.admin_listen.value, "--admin-listen")?;
    let advertise = &settings.advertise.value;
    if listen.ip().is_unspecified() && advertise.is_empty() {
        let text =
            format!("{listen} listens everywhere, so nobody knows under which name: give --advertise NAME");
        return Err(ServeError::Usage(text));
    }
    if !settings.log.value.as_deref().is_none_or(names_a_log) {
        return Err(HomeError::NoLog.into());
    }
    let keys = settings.keys.value.as_deref().map(str::parse).transpose();
    let keys = keys.map_err(|error: signer::TokenUriError| {
        ServeError::Usage(format!("--keys is `files` or a token: {error}"))
    })?;
    let public_url = settings.public_url.value.as_deref().map(public_url).transpose()?;
    let mut options = Options {
        log: settings.log.value.clone(),
        listen,
        names: vec![],
        addresses: vec![],
        advertise: advertise.first().map(|entry| host_of_url(entry)),
        public_url,
        admin_listen: Some(admin),
        keys,
        services: Services::all(),
    };
    if !listen.ip().is_unspecified() {
        options.addresses.push(listen.ip());
    }
    for entry in advertise {
        match named(entry)? {
            Named::Address(address) if options.addresses.contains(&address) => {}
            Named::Address(address) => options.addresses.push(address),
            Named::Name(name) => options.names.push(name),
        }
    }
    Ok(options)
}

/// An entry as it stands in a URL: an IPv6 address has brackets there, or its last part would be taken for a port.
fn host_of_url(entry: &str) -> String {
    match entry.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]"),
        Err(_) => entry.to_owned(),
    }
}

/// An address of the web without anything behind its path: readers compare it letter by letter, and add to it.
fn public_url(text: &str) -> Result<String, ServeError> {
    let rest = text.strip_prefix("https://").filter(|rest| !rest.is_empty());
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:/[]".contains(&b);
    match rest {
        Some(rest) if text.len() <= 200 && rest.bytes().all(is_plain) && !rest.ends_with('/') => {
            Ok(text.into())
        }
        _ => Err(ServeError::Usage(format!(
            "--public-url is an address such as https://ca.example.com, without `/` at its end: {:?} is none",
            plain(text)
        ))),
    }
}

/// What `--advertise` names.
#[derive(PartialEq, Eq, Debug)]
enum Named {
    Address(IpAddr),
    Name(Hostname),
}

/// `NAME`, `NAME:PORT`, `192.0.2.1:3025`; an IPv6 address as it is, or in brackets with a port behind it.
fn named(entry: &str) -> Result<Named, ServeError> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = entry
        .parse::<SocketAddr>()
        .map(|address| address.ip())
        .or_else(|_| bare.unwrap_or(entry).parse::<IpAddr>());
    if let Ok(address) = address {
        return Ok(Named::Address(address));
    }
    let host = entry
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .map_or(entry, |(host, _)| host);
    host.parse()
        .map(Named::Name)
        .map_err(|error: domain::InvalidId| ServeError::Usage(format!("--advertise: {error}")))
}

fn address(text: &str, flag: &str) -> Result<SocketAddr, ServeError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let found = text.to_socket_addrs().ok().and_then(|mut all| all.next());
    found.ok_or_else(|| {
        ServeError::Usage(format!(
            "{flag}: {:?} is no address to listen on, such as 127.0.0.1:3025",
            plain(text)
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_an_address_of_either_family_can_be_advertised_with_a_port_and_without() {
        for (entry, address) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:3025", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:3025", "2001:db8::1"),
        ] {
            let found = named(entry).unwrap();
            assert_eq!(found, Named::Address(address.parse().unwrap()), "{entry}");
        }
        for entry in ["cp.example", "cp.example:3025"] {
            assert_eq!(named(entry).unwrap(), Named::Name("cp.example".parse().unwrap()));
        }
        assert!(named("cp_example:x").is_err());
        assert_eq!(host_of_url("2001:db8::1"), "[2001:db8::1]");
        assert_eq!(host_of_url("[2001:db8::1]:3025"), "[2001:db8::1]:3025");
    }
}
