//! Opening the log that a data directory names. It is made once, at the first start, and never again.

use eventlog::{
    JetStreamLog, JetStreamOpenError, JetStreamOptions, SharedLog, SqliteLog, SqliteOpenError,
    bus::{Bus, BusOptions},
};

use super::PlaneError;
use crate::home::{EMBEDDED, Home};

/// The user that runs every service, whose inbox is the usual one.
const ALL_SERVICES: &str = "control-plane";

/// The directory's log, to be read only.
///
/// # Errors
/// When it is not there, cannot be opened, or is damaged as a file. Nothing is made.
pub async fn open_log_to_read(home: &Home, chosen: &str) -> Result<SharedLog, PlaneError> {
    if chosen == EMBEDDED {
        return Ok(SqliteLog::open_read_only(home.log_file()).await?);
    }
    let (bus, options) = stream_of(home, chosen);
    Ok(JetStreamLog::connect_existing(&bus, &options).await?)
}

/// The directory's log, made if its cluster was not begun yet and `may_begin`.
///
/// # Errors
/// [`PlaneError::LostLog`] where there was one and is none: an empty log in its place would be in the way of the
/// copy to restore.
pub(super) async fn open_log(home: &Home, chosen: &str, may_begin: bool) -> Result<SharedLog, PlaneError> {
    if chosen == EMBEDDED {
        return Ok(if home.was_begun() {
            SqliteLog::open_existing(home.log_file())
                .await
                .map_err(lost_file)?
        } else {
            SqliteLog::open(home.log_file()).await?
        });
    }
    let (bus, options) = stream_of(home, chosen);
    Ok(if home.was_begun() {
        JetStreamLog::connect_existing(&bus, &options)
            .await
            .map_err(lost_stream)?
    } else if may_begin {
        JetStreamLog::connect(&bus, &options).await?
    } else {
        JetStreamLog::connect_existing(&bus, &options).await?
    })
}

pub(crate) fn stream_of(home: &Home, chosen: &str) -> (BusOptions, JetStreamOptions) {
    let options = JetStreamOptions {
        cluster: home.description.cluster.to_string(),
        replicas: 1,
    };
    (bus_of(chosen, "carousel"), options)
}

/// How the bus of that URL is entered, under a name that its server shows.
pub(crate) fn bus_of(url: &str, name: &str) -> BusOptions {
    BusOptions {
        url: url.into(),
        name: name.into(),
        inbox_prefix: inbox_of(url),
        ..BusOptions::default()
    }
}

/// Where a user of the bus hears answers: as `deploy/nats` has it, below a prefix of its own, but for the one of all services.
fn inbox_of(url: &str) -> Option<String> {
    let user = eventlog::bus::user_of(url)?;
    (user != ALL_SERVICES).then(|| format!("_INBOX_{user}"))
}

/// A connection for requests, beside the log's own: a slow reader of the log does not hold up commands. None where the
/// log is a file.
///
/// # Errors
/// When nobody answers there.
pub(super) async fn open_bus(chosen: &str) -> Result<Option<Bus>, PlaneError> {
    if chosen == EMBEDDED {
        return Ok(None);
    }
    Ok(Some(Bus::connect(&bus_of(chosen, "carousel-commands")).await?))
}

fn lost_file(error: SqliteOpenError) -> PlaneError {
    match error {
        SqliteOpenError::Missing { path } => PlaneError::LostLog {
            found: format!("there is no file {} now", path.display()),
        },
        error => error.into(),
    }
}

fn lost_stream(error: JetStreamOpenError) -> PlaneError {
    match error {
        JetStreamOpenError::Missing { stream } => PlaneError::LostLog {
            found: format!("there is no stream {stream} on its server now"),
        },
        error => error.into(),
    }
}
