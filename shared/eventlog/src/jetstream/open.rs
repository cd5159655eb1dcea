//! Opening the stream: making it once, refusing one that is not safe, and saying what cannot be seen.

use std::{io, time::Duration};

use async_nats::{
    Client,
    jetstream::{
        Context, ErrorCode,
        context::{CreateStreamErrorKind, GetStreamErrorKind},
        stream::Stream,
    },
};
use serde::Deserialize;

use super::{
    JetStreamOptions,
    protections::{self, OLDEST_SERVER},
};
use crate::bus::ConnectError;

/// Metadata or placement tag by which an operator states that the stream's servers sync always.
pub const SYNC_KEY: &str = "carousel.sync";
const SYNC_TAG: &str = "sync:always";

/// Why a log on JetStream was not opened. Nothing was changed on the server.
#[derive(Debug, thiserror::Error)]
pub enum JetStreamOpenError {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A server without what the log promises.
    #[error(
        "the NATS server is version {version}; the log needs {}.{}.{} or newer, because older ones lose or reorder \
         conditional writes: upgrade the server, or use the embedded log",
        OLDEST_SERVER.0, OLDEST_SERVER.1, OLDEST_SERVER.2
    )]
    TooOld {
        /// What it says it is.
        version: String,
    },
    /// A server that takes only small messages.
    #[error("the NATS server's max_payload is {max_payload} bytes, the log needs {needed}: raise it")]
    SmallPayload {
        /// Its limit.
        max_payload: usize,
        /// Ours.
        needed: usize,
    },
    /// A server without JetStream, or an account without.
    #[error(
        "the NATS server offers no JetStream to this account ({detail}): enable it, or use the embedded log"
    )]
    NoJetStream {
        /// What it said.
        detail: String,
    },
    /// A stream that must be there is not.
    #[error(
        "there is no stream {stream} on the NATS server; check the address, or restore the stream from a copy"
    )]
    Missing {
        /// Its name.
        stream: String,
    },
    /// A stream of that name that would not keep what is appended.
    #[error("the stream {stream} is not safe for the log: {}; restore these settings, or move it away", .differences.join("; "))]
    Unprotected {
        /// Its name.
        stream: String,
        /// How it differs.
        differences: Vec<String>,
    },
    /// The server refused to make or show it.
    #[error("the stream {stream} could not be opened; check the account's permissions and limits")]
    Stream {
        /// Its name.
        stream: String,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What to do where there is no stream yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum IfMissing {
    /// A log begins here.
    Make,
    /// There was one, or somebody only reads.
    Refuse,
}

/// The stream, made if it is not there and may be, and refused if it is not as it has to be.
///
/// Several processes may come here at once: the server makes one stream, and the others find it.
pub(super) async fn stream(
    context: &Context,
    options: &JetStreamOptions,
    if_missing: IfMissing,
) -> Result<Stream, JetStreamOpenError> {
    let want = protections::wanted(options);
    let name = want.name.clone();
    let stream = match found(context, &name).await? {
        Some(stream) => stream,
        None if if_missing == IfMissing::Refuse => return Err(JetStreamOpenError::Missing { stream: name }),
        None => match context.create_stream(want.clone()).await {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                CreateStreamErrorKind::JetStream(answer)
                    if answer.error_code() == ErrorCode::STREAM_NAME_EXIST =>
                {
                    let missing = || failed(&name, io::Error::other("it is there and then it is not"));
                    found(context, &name).await?.ok_or_else(missing)?
                }
                CreateStreamErrorKind::JetStreamUnavailable => {
                    return Err(JetStreamOpenError::NoJetStream {
                        detail: error.to_string(),
                    });
                }
                _ => return Err(failed(&name, error)),
            },
        },
    };
    let differences = protections::differences(&stream.cached_info().config, &want);
    if differences.is_empty() {
        Ok(stream)
    } else {
        Err(JetStreamOpenError::Unprotected {
            stream: name,
            differences,
        })
    }
}

pub(super) async fn found(context: &Context, name: &str) -> Result<Option<Stream>, JetStreamOpenError> {
    match context.get_stream(name).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(answer) => match answer.error_code() {
                ErrorCode::STREAM_NOT_FOUND => Ok(None),
                ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
                    Err(JetStreamOpenError::NoJetStream {
                        detail: answer.to_string(),
                    })
                }
                _ => Err(failed(name, error)),
            },
            // Without JetStream nobody listens on its API.
            GetStreamErrorKind::Request if super::with_sources(&error).contains("no responders") => {
                Err(JetStreamOpenError::NoJetStream {
                    detail: "nobody answers its requests".into(),
                })
            }
            _ => Err(failed(name, error)),
        },
    }
}

pub(super) fn failed(
    stream: &str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> JetStreamOpenError {
    JetStreamOpenError::Stream {
        stream: stream.into(),
        source: Box::new(source),
    }
}

/// What an operator should know about this stream's durability.
///
/// Neither the greeting nor the stream shows `sync_interval`. An account that may ask the server for its
/// JetStream settings gets them; otherwise the operator's own statement counts, a placement tag or metadata;
/// otherwise the warning says that it cannot be seen.
pub(super) async fn warnings(client: &Client, stream: &Stream) -> Vec<String> {
    let config = &stream.cached_info().config;
    let tagged = config
        .placement
        .iter()
        .flat_map(|placement| &placement.tags)
        .any(|tag| tag == SYNC_TAG);
    let stated = config
        .metadata
        .get(SYNC_KEY)
        .is_some_and(|value| value == "always");
    let mut warnings = Vec::new();
    match syncs_always(client).await {
        Some(true) => {}
        Some(false) => warnings.push(
            "the NATS server does not sync always: a power failure may lose events that were acknowledged; set \
             `sync_interval: always` in its jetstream block"
                .into(),
        ),
        None if tagged || stated => {}
        None => warnings.push(format!(
            "whether the NATS server syncs always can not be seen from here: set `sync_interval: always` in its \
             jetstream block, and say so in the stream's metadata ({SYNC_KEY}=always)"
        )),
    }
    if config.num_replicas == 1 {
        warnings
            .push("the stream has one replica: the loss of its server's disk is the loss of the log".into());
    }
    warnings
}

/// Asks the server itself; nobody answers unless this account may use the system services.
async fn syncs_always(client: &Client) -> Option<bool> {
    #[derive(Deserialize)]
    struct Answer {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        config: Settings,
    }
    #[derive(Deserialize)]
    struct Settings {
        #[serde(default)]
        sync_always: bool,
    }
    let subject = format!("$SYS.REQ.SERVER.{}.JSZ", client.server_info().server_id);
    let request = client.request(subject, "".into());
    let answer = tokio::time::timeout(Duration::from_millis(500), request)
        .await
        .ok()?
        .ok()?;
    let answer: Answer = serde_json::from_slice(&answer.payload).ok()?;
    Some(answer.data.config.sync_always)
}
