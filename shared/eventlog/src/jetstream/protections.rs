//! What keeps the stream from being changed, and the check that it still does.
//!
//! `deny_delete` and `deny_purge` are not enough: an update of the stream with a limit erases its history. So
//! every limit is compared, at the start and again while the log is written.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use async_nats::{
    Client,
    jetstream::stream::{Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType, Stream},
};

use super::{JetStreamOpenError, JetStreamOptions};
use crate::{AppendError, MAX_EVENT_BYTES, cluster_token, event_prefix};

/// The oldest server on which conditional appends hold on a replicated stream, and acknowledged writes survive
/// a membership change.
pub(super) const OLDEST_SERVER: (i64, i64, i64) = (2, 12, 3);

/// How old a check of the protections may be when something is appended.
const CHECK_EVERY: Duration = Duration::from_secs(30);

/// Metadata by which the stream is recognised, and its layout's version.
const LAYOUT: (&str, &str) = ("carousel.log", "1");

/// Room for headers beside the largest event.
const MESSAGE_BYTES: i32 = (MAX_EVENT_BYTES + 8 * 1024) as i32;

/// The stream of a cluster's events.
pub(crate) fn stream_name(cluster: &str) -> String {
    format!("CAROUSEL_EVENTS_{}", cluster_token(cluster))
}

/// The stream as it has to be.
pub(super) fn wanted(options: &JetStreamOptions) -> Config {
    Config {
        name: stream_name(&options.cluster),
        description: Some(format!(
            "Events of the Carousel cluster {}; never delete or update",
            options.cluster
        )),
        subjects: vec![format!("{}>", event_prefix(&options.cluster))],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        // A full stream refuses new events; it never drops old ones.
        discard: DiscardPolicy::New,
        max_messages: -1,
        max_bytes: -1,
        max_messages_per_subject: -1,
        max_age: Duration::ZERO,
        max_message_size: MESSAGE_BYTES,
        num_replicas: options.replicas,
        duplicate_window: Duration::from_secs(120),
        deny_delete: true,
        deny_purge: true,
        allow_rollup: false,
        // Direct reads may be answered by a replica that lags; nothing here is read that way.
        allow_direct: false,
        allow_atomic_publish: true,
        allow_message_ttl: false,
        metadata: HashMap::from([(LAYOUT.0.into(), LAYOUT.1.into())]),
        ..Config::default()
    }
}

/// Refuses a server that cannot keep the log's promises.
pub(super) fn check_server(client: &Client) -> Result<(), JetStreamOpenError> {
    let info = client.server_info();
    let (major, minor, patch) = OLDEST_SERVER;
    if !client.is_server_compatible(major, minor, patch) {
        return Err(JetStreamOpenError::TooOld {
            version: info.version,
        });
    }
    let needed = MESSAGE_BYTES as usize;
    if info.max_payload < needed {
        return Err(JetStreamOpenError::SmallPayload {
            max_payload: info.max_payload,
            needed,
        });
    }
    Ok(())
}

/// How the stream differs from what it has to be, one text each; empty if it is safe.
pub(super) fn differences(have: &Config, want: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |holds: bool, text: &str| {
        if !holds {
            found.push(text.to_owned());
        }
    };
    check(have.deny_delete, "deny_delete is off");
    check(have.deny_purge, "deny_purge is off");
    check(!have.sealed, "the stream is sealed");
    check(!have.allow_rollup, "allow_rollup_hdrs is on");
    check(have.discard == want.discard, "discard is not `new`");
    check(have.retention == want.retention, "retention is not `limits`");
    check(have.storage == want.storage, "storage is not `file`");
    check(
        have.persist_mode != Some(PersistenceMode::Async),
        "persist_mode is `async`",
    );
    check(have.max_messages == -1, "max_msgs is set");
    check(have.max_bytes == -1, "max_bytes is set");
    check(have.max_messages_per_subject == -1, "max_msgs_per_subject is set");
    check(have.max_age.is_zero(), "max_age is set");
    check(!have.allow_message_ttl, "allow_msg_ttl is on");
    // Within it a repeated event without a condition is recognised by its id.
    check(
        have.duplicate_window >= want.duplicate_window,
        "duplicate_window is shorter than 120 s",
    );
    check(have.allow_atomic_publish, "allow_atomic is off");
    check(!have.no_ack, "no_ack is on");
    check(
        have.max_message_size == -1 || have.max_message_size >= want.max_message_size,
        "max_msg_size is too small",
    );
    check(
        have.num_replicas >= want.num_replicas,
        "it has fewer replicas than configured",
    );
    check(
        have.subjects == want.subjects,
        "its subjects are not this cluster's events and nothing else",
    );
    check(
        have.mirror.is_none() && have.sources.is_none(),
        "it copies from another stream",
    );
    check(have.subject_transform.is_none(), "it renames subjects");
    match have.metadata.get(LAYOUT.0).map(String::as_str) {
        Some(version) if version == LAYOUT.1 => {}
        Some(version) => found.push(format!("its layout is {version}, this build knows {}", LAYOUT.1)),
        None => found.push(format!("its metadata lacks {}", LAYOUT.0)),
    }
    found
}

/// Checks the protections again while the log is written, at most once in thirty seconds.
///
/// It runs on the way of an append and not in a task of its own: a log that nobody writes needs no check.
#[derive(Debug)]
pub(super) struct Guard {
    want: Config,
    state: Mutex<Checked>,
}

#[derive(Debug)]
struct Checked {
    at: Instant,
    problem: Option<String>,
}

impl Guard {
    pub(super) fn new(want: Config) -> Self {
        Self {
            want,
            state: Mutex::new(Checked {
                at: Instant::now(),
                problem: None,
            }),
        }
    }

    /// Refuses to write to a stream that would not keep it.
    pub(super) async fn check(&self, client: &Client, stream: &Stream) -> Result<(), AppendError> {
        if !self.is_due() {
            return self.verdict();
        }
        let problem = match stream.get_info().await {
            Ok(info) => {
                let mut found = differences(&info.config, &self.want);
                found.extend(check_server(client).err().map(|error| error.to_string()));
                (!found.is_empty()).then(|| found.join("; "))
            }
            Err(error) => {
                self.lock().at = Instant::now()
                    .checked_sub(CHECK_EVERY)
                    .unwrap_or_else(Instant::now);
                return Err(AppendError::Unreachable {
                    detail: super::with_sources(&error),
                });
            }
        };
        if let Some(problem) = &problem {
            tracing::error!(
                problem,
                "the event stream's protections were changed; nothing is written"
            );
        }
        self.lock().problem = problem;
        self.verdict()
    }

    /// Makes the next append look again, for tests that do not wait half a minute.
    #[cfg(test)]
    pub(super) fn expire(&self) {
        self.lock().at = Instant::now()
            .checked_sub(CHECK_EVERY * 2)
            .expect("the machine is up for a minute");
    }

    /// True for one caller when a check is due; the others go on with the last verdict meanwhile.
    fn is_due(&self) -> bool {
        let mut state = self.lock();
        let due = state.problem.is_some() || state.at.elapsed() >= CHECK_EVERY;
        if due {
            state.at = Instant::now();
        }
        due
    }

    fn verdict(&self) -> Result<(), AppendError> {
        match self.lock().problem.clone() {
            Some(detail) => Err(AppendError::ProtectionsChanged { detail }),
            None => Ok(()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Checked> {
        self.state
            .lock()
            .expect("no code panics while it holds the guard's lock")
    }
}
