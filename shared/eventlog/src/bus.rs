//! The connection to NATS: one place that says how we connect, and in what words it fails.

use std::{fmt, io, path::PathBuf, time::Duration};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};

pub use requests::{Answer, AskError, Bus, Desk, Offer, OfferError, Question};

mod requests;

/// How to reach and enter a NATS server.
///
/// Credentials are files, never text in a configuration; a URL with a password works, and is never printed.
#[derive(Clone, Default)]
pub struct BusOptions {
    /// One URL, or several of one cluster separated by commas.
    pub url: String,
    /// What the server shows as this connection's name, such as `carousel-signer`.
    pub name: String,
    /// A credentials file (JWT and seed), as `nsc` makes it.
    pub credentials: Option<PathBuf>,
    /// A file that holds an nkey seed.
    pub nkey_seed: Option<PathBuf>,
    /// Certificate authorities to trust for TLS, in PEM.
    pub ca: Option<PathBuf>,
    /// Certificate and key to present, in PEM.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Where answers arrive. Users with different rights need different ones: who may subscribe to another's
    /// inbox reads his answers.
    pub inbox_prefix: Option<String>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("\"{url}\" is not a NATS URL; write nats://HOST:PORT or tls://HOST:PORT")]
    Url {
        /// As given, without credentials.
        url: String,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// A credentials or seed file.
    #[error("the NATS credentials {} could not be read", .path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody answers there.
    #[error("no NATS server answers at {url}; start it, or correct the address")]
    Unreachable {
        /// As given, without credentials.
        url: String,
        /// The network's error.
        #[source]
        source: async_nats::ConnectError,
    },
    /// It answers and refuses us.
    #[error("the NATS server at {url} refuses these credentials; check the user and its permissions")]
    Refused {
        /// As given, without credentials.
        url: String,
        /// The server's word.
        #[source]
        source: async_nats::ConnectError,
    },
}

/// Connects once, and fails if nobody answers: a wrong address must not look like a slow server.
///
/// From then on the connection is re-established for ever by itself; what was in flight has an unknown outcome.
pub async fn connect(options: &BusOptions) -> Result<Client, ConnectError> {
    let url = redacted(&options.url);
    let servers = options
        .url
        .split(',')
        .map(|one| one.trim().parse())
        .collect::<io::Result<Vec<ServerAddr>>>()
        .map_err(|source| ConnectError::Url {
            url: url.clone(),
            source,
        })?;
    let mut settings = settings(options).await?;
    // The client does not read credentials out of a URL by itself.
    if let Some((user, password)) = servers
        .iter()
        .find_map(|one| Some((one.username()?, one.password())))
    {
        settings = match password {
            Some(password) => settings.user_and_password(decoded(user), decoded(password)),
            None => settings.token(decoded(user)),
        };
    }
    settings
        .connect(servers)
        .await
        .map_err(|source| match source.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                ConnectError::Refused { url, source }
            }
            _ => ConnectError::Unreachable { url, source },
        })
}

async fn settings(options: &BusOptions) -> Result<ConnectOptions, ConnectError> {
    let mut settings = ConnectOptions::new()
        .name(&options.name)
        .connection_timeout(Duration::from_secs(5))
        .request_timeout(Some(Duration::from_secs(5)))
        .ping_interval(Duration::from_secs(5))
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(|event| async move { note(&event) });
    if let Some(path) = &options.credentials {
        let source = |source| ConnectError::Credentials {
            path: path.clone(),
            source,
        };
        settings = settings.credentials_file(path).await.map_err(source)?;
    }
    if let Some(path) = &options.nkey_seed {
        let source = |source| ConnectError::Credentials {
            path: path.clone(),
            source,
        };
        let seed = tokio::fs::read_to_string(path).await.map_err(source)?;
        settings = settings.nkey(seed.trim().to_owned());
    }
    if let Some(path) = &options.ca {
        settings = settings.add_root_certificates(path.clone()).require_tls(true);
    }
    if let Some((certificate, key)) = &options.identity {
        settings = settings.add_client_certificate(certificate.clone(), key.clone());
    }
    if let Some(prefix) = &options.inbox_prefix {
        settings = settings.custom_inbox_prefix(prefix);
    }
    Ok(settings)
}

/// Undoes a URL's percent-encoding; what is no encoding stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let code = tail
            .get(..2)
            .and_then(|hex| u8::from_str_radix(str::from_utf8(hex).ok()?, 16).ok());
        match code {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// 50 ms to 2 s, partly random: after a broker's restart not everybody knocks at the same moment.
fn reconnect_delay(attempt: usize) -> Duration {
    let most = 50u64.saturating_mul(1 << attempt.min(6)).min(2_000);
    Duration::from_millis(rand::random_range(most / 2..=most))
}

/// The user that a URL of servers names, if it names one with a password.
pub fn user_of(url: &str) -> Option<String> {
    let user = |one: &str| {
        let one: ServerAddr = one.trim().parse().ok()?;
        one.password()?;
        one.username().map(decoded)
    };
    url.split(',').find_map(user)
}

/// The server's name for people: no user, no password.
pub fn redacted(url: &str) -> String {
    let one = |url: &str| match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}{}", &url[..scheme + 3], &url[at + 1..]),
        (None, Some(at)) => url[at + 1..].to_owned(),
        _ => url.to_owned(),
    };
    url.split(',')
        .map(|url| one(url.trim()))
        .collect::<Vec<_>>()
        .join(",")
}

fn note(event: &Event) {
    match event {
        Event::Connected => tracing::info!("connected to NATS"),
        Event::Disconnected => tracing::warn!("the connection to NATS is lost; reconnecting"),
        Event::LameDuckMode => tracing::info!("the NATS server is shutting down; moving to another one"),
        Event::SlowConsumer(_) => {
            tracing::warn!("NATS messages were dropped because they were not read in time")
        }
        Event::ServerError(error) => tracing::warn!(%error, "the NATS server reports an error"),
        Event::ClientError(error) => tracing::warn!(%error, "the NATS connection reports an error"),
        Event::Draining | Event::Closed => tracing::debug!("the connection to NATS is closing"),
    }
}

impl fmt::Debug for BusOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusOptions")
            .field("url", &redacted(&self.url))
            .field("name", &self.name)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_never_shown() {
        let url = "nats://admin:s3cret@one:4222, tls://u:s3cret@two, s3cret@three:1";
        let options = BusOptions {
            url: url.into(),
            ..BusOptions::default()
        };
        for shown in [redacted(url), format!("{options:?}")] {
            assert!(!shown.contains("s3cret"), "{shown}");
            assert!(shown.contains("nats://one:4222,tls://two,three:1"), "{shown}");
        }
    }

    #[test]
    fn a_password_may_be_percent_encoded() {
        assert_eq!(decoded("a%40b%2Fc%"), "a@b/c%");
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }

    #[tokio::test]
    async fn a_wrong_address_is_an_error_and_not_a_wait() {
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let options = BusOptions {
            url: format!("nats://u:s3cret@{free}"),
            ..BusOptions::default()
        };
        let error = connect(&options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Unreachable { .. }));
        assert!(!error.to_string().contains("s3cret"));
        let options = BusOptions {
            url: "http://x y".into(),
            ..BusOptions::default()
        };
        assert!(matches!(connect(&options).await, Err(ConnectError::Url { .. })));
    }
}
