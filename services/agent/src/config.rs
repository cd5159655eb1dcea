//! What an agent is told at its start, and the file that an administrator keeps for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use domain::{AuthorityType, Hostname, SpkiPin};
use runtime::{config::ConfigError, metrics::Metrics};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::hooks::Hook;

/// The most labels that a node reports, the most bytes of a key or value, and of all of them as they are sent: a
/// report that is too large is refused, and the gate waits for it.
const MAX_LABELS: usize = 32;
const MAX_LABEL_BYTES: usize = 64;
const MAX_LABELS_BYTES: usize = 2048;

/// Everything that one agent needs to know. Programs that run many agents in one process (the demo, the
/// benchmarks) make one of these for each.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory that holds its identity, keys and certificates. No two agents may share one.
    pub data_dir: PathBuf,
    /// Gateways, tried in turn.
    pub servers: Vec<Server>,
    /// The name to join under.
    pub hostname: Hostname,
    /// Pins of host authorities; needed once, to join.
    pub ca_pins: BTreeSet<SpkiPin>,
    /// The pin of the bundle key; needed once, to join.
    pub bundle_pin: Option<SpkiPin>,
    /// The join token; needed once, and again where the control plane knows the node no more.
    pub token: Option<Token>,
    /// Where the probe endpoint listens; without one, only a loopback listener for the agent's own proof.
    pub listen: Option<SocketAddr>,
    /// What the configuration file says.
    pub settings: Settings,
    /// The file itself, read again at SIGHUP.
    pub config_file: Option<PathBuf>,
    /// How fast it tries again.
    pub pace: Pace,
    /// Where it counts, if anybody looks.
    pub metrics: Option<Metrics>,
}

/// Pauses and limits. The defaults are those of the contract; the demo and tests use shorter ones.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The shortest pause before a gateway is tried again.
    pub retry_min: Duration,
    /// The longest.
    pub retry_max: Duration,
    /// How often the clock is looked at for renewals and drains.
    pub tick: Duration,
    /// The pause after a failed proof or reload; doubles with each failure in a row, up to a minute.
    pub failure_pause: Duration,
    /// How long a report waits for a certificate that was asked for, and that it would have to tell of.
    pub certificate_wait: Duration,
    /// The pause before a certificate for sshd is asked for again that was refused for good; a new row ends it.
    pub refused_pause: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            retry_min: Duration::from_millis(250),
            retry_max: Duration::from_secs(10),
            tick: Duration::from_millis(500),
            failure_pause: Duration::from_secs(1),
            certificate_wait: Duration::from_secs(1),
            refused_pause: Duration::from_secs(15 * 60),
        }
    }
}

/// A join token: the text that `tokens add` printed. Shown nowhere.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// Takes a token as it stands in a file or variable; white space around it is dropped.
    ///
    /// # Errors
    /// In words, without the token.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() {
            return Err("the join token is empty");
        }
        if text.len() > 256 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err("this is not a join token: it is too long, or holds several words");
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, for the one request that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

/// The address of a gateway: `https://HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Server {
    /// A DNS name or an address.
    pub host: String,
    /// The port; 3025 when none is given.
    pub port: u16,
    /// The address of this host to dial it from; the system picks one where none is given.
    pub from: Option<IpAddr>,
}

impl Server {
    /// Reads `https://HOST[:PORT]`; the scheme may be left out, a path may not be there.
    ///
    /// # Errors
    /// In words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| {
            let shown: String = text.chars().take(120).collect();
            format!("{shown:?} is not a server address ({why}); write https://HOST:PORT")
        };
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => return Err(bad("only https is spoken")),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            // An IPv6 address has colons too; its port stands behind the bracket.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (
                host,
                port.parse()
                    .map_err(|_| bad("the port is not a number up to 65535"))?,
            ),
            Some(_) | None => (rest, 3025),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_usable = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
        if host.is_empty() || port == 0 || !host.chars().all(is_usable) {
            return Err(bad("host or port is missing or malformed"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            from: None,
        })
    }

    /// `HOST:PORT`, as a connection wants it.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

/// The configuration file (TOML). Everything in it may change while the agent runs (SIGHUP).
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Authority types that applications on this node count on. They come from the grant of the token; a
    /// type that is named here and not granted is an error that the node reports.
    pub uses: BTreeSet<AuthorityType>,
    /// What to run after new files were installed, in this order.
    pub reload: Vec<Hook>,
    /// Shown in `get nodes`; never decided on.
    pub labels: BTreeMap<String, String>,
    /// How long sessions on a retiring issuer may drain, in seconds; the cluster's setting is the limit.
    pub drain_timeout_s: Option<u64>,
    /// The public half of sshd's host key, `/etc/ssh/ssh_host_ed25519_key.pub`: the agent keeps a certificate of it in
    /// `current/ssh_host_key-cert.pub`, for sshd's `HostCertificate`.
    pub ssh_host_key: Option<PathBuf>,
    /// Where `/metrics` and the health routes are served in plain HTTP: `ADDRESS:PORT`, or a port of the loopback.
    /// Nowhere when it is not given. The one thing here that is read at the start alone.
    #[serde(deserialize_with = "metrics_listen")]
    pub metrics_listen: Option<SocketAddr>,
}

/// A port alone means the loopback: the endpoint asks nobody who they are.
fn metrics_listen<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Port(u16),
        Address(SocketAddr),
    }
    Ok(Some(match Given::deserialize(from)? {
        Given::Port(port) => (Ipv4Addr::LOCALHOST, port).into(),
        Given::Address(address) => address,
    }))
}

impl Settings {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`], with the line where there is one.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&runtime::config::read(path)?, path)
    }

    /// The same from the text; `path` is for the message only.
    ///
    /// # Errors
    /// As for [`Self::load`].
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let settings: Self = runtime::config::parse(text, path)?;
        settings.check().map_err(|message| ConfigError::Invalid {
            path: path.to_owned(),
            line: 1,
            message,
        })?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), String> {
        for (at, hook) in self.reload.iter().enumerate() {
            hook.check()
                .map_err(|why| format!("[[reload]] number {}: {why}", at + 1))?;
        }
        if let Some(path) = self.ssh_host_key.as_ref().filter(|path| !path.is_absolute()) {
            return Err(format!(
                "ssh_host_key = {:?}: give the whole path of sshd's public host key, such as \"/etc/ssh/ssh_host_ed25519_key.pub\"",
                path.display().to_string()
            ));
        }
        let is_short = |text: &String| !text.is_empty() && text.len() <= MAX_LABEL_BYTES;
        let sent = serde_json::to_vec(&self.labels).expect("a map of strings can be written");
        let fits = self.labels.len() <= MAX_LABELS && sent.len() <= MAX_LABELS_BYTES;
        if !fits || !self.labels.iter().all(|(k, v)| is_short(k) && is_short(v)) {
            return Err(format!(
                "too many or too long labels: at most {MAX_LABELS}, each key and value 1 to {MAX_LABEL_BYTES} bytes, and {MAX_LABELS_BYTES} bytes in all as JSON"
            ));
        }
        Ok(())
    }

    /// Does the file differ in what is run after an installation?
    pub fn has_other_hooks(&self, other: &Self) -> bool {
        self.reload != other.reload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_address_is_read_with_and_without_scheme_and_port() {
        for (text, host, port) in [
            ("https://ca.example.com:443", "ca.example.com", 443),
            ("ca.example.com", "ca.example.com", 3025),
            ("https://127.0.0.1:9/", "127.0.0.1", 9),
            ("https://[::1]:9", "::1", 9),
        ] {
            assert_eq!(
                Server::parse(text),
                Ok(Server {
                    host: host.into(),
                    port,
                    from: None
                }),
                "{text}"
            );
        }
        assert_eq!(
            Server::parse("https://[::1]:9").map(|s| s.to_string()),
            Ok("https://[::1]:9".into())
        );
        for bad in [
            "",
            "http://x:1",
            "https://x:99999",
            "https://x:1/path",
            "https://:1",
            "a b",
        ] {
            assert!(Server::parse(bad).is_err(), "{bad:?}");
        }
        let flood = Server::parse(&"a b".repeat(10_000)).unwrap_err();
        assert!(flood.len() < 300, "{flood:.300}");
    }

    #[test]
    fn a_token_is_trimmed_checked_and_never_shown() {
        let token = Token::parse("  s3cret-token\n").expect("it is a token");
        assert_eq!(token.reveal(), "s3cret-token");
        assert!(!format!("{token:?}").contains("s3cret"));
        assert!(Token::parse(" \n").is_err());
        assert!(Token::parse("two words").is_err());
    }

    #[test]
    fn labels_are_counted_in_bytes_as_the_report_carries_them() {
        let is_taken = |count: usize, value: &str| {
            let labels = (0..count).map(|n| (format!("label-{n:02}"), value.to_owned()));
            let settings = Settings {
                labels: labels.collect(),
                ..Settings::default()
            };
            settings.check().is_ok()
        };
        assert!(is_taken(32, &"x".repeat(40)) && !is_taken(33, "x"));
        assert!(is_taken(1, &"x".repeat(64)) && !is_taken(1, &"x".repeat(65)));
        assert!(is_taken(1, &"é".repeat(32)) && !is_taken(1, &"é".repeat(33)));
        assert!(!is_taken(32, &"x".repeat(64)), "too much in all");
        assert!(!is_taken(32, &"\"".repeat(40)), "too much in all, as JSON");
    }

    #[test]
    fn the_file_names_hooks_labels_and_uses_and_refuses_what_it_does_not_know() {
        let path = Path::new("agent.toml");
        let text = "uses = ['db']\n[labels]\nrack = 'r1'\n[[reload]]\ncommand = ['/bin/true', 'x']\n";
        let settings: Settings = runtime::config::parse(text, path).expect("valid");
        assert!(settings.check().is_ok());
        assert_eq!(settings.reload[0].command, ["/bin/true", "x"]);
        assert!(settings.uses.contains(&AuthorityType::Db));
        assert_eq!(settings.metrics_listen, None);
        for (given, address) in [("9464", "127.0.0.1:9464"), ("'[::]:9464'", "[::]:9464")] {
            let text = format!("metrics_listen = {given}\n");
            let settings: Settings = runtime::config::parse(&text, path).expect("valid");
            assert_eq!(settings.metrics_listen, address.parse().ok());
        }
        assert!(runtime::config::parse::<Settings>("metrics_listen = true\n", path).is_err());
        assert!(runtime::config::parse::<Settings>("hooks = 1\n", path).is_err());
        let relative: Settings =
            runtime::config::parse("[[reload]]\ncommand = ['true']\n", path).expect("parses");
        let why = relative.check().expect_err("a relative path");
        assert!(
            why.starts_with("[[reload]] number 1: ") && !why.contains("true"),
            "{why}"
        );
    }
}
