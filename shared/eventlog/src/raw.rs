//! What the stores can do by themselves, for benchmarks: the same records with the same settings, and nothing of
//! ours around them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, Request, header, jetstream};

use crate::{
    JetStreamOpenError, JetStreamOptions, SqliteOpenError, Stored,
    bus::{self, BusOptions},
    jetstream::raw_stream,
    sqlite,
};

/// Messages in one atomic batch, as many as the executor appends together.
const GROUP: usize = 256;

/// Why a server's own rate could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// The stream could not be made.
    #[error(transparent)]
    Open(#[from] JetStreamOpenError),
    /// The server did not take a batch, or did not remove the stream.
    #[error("the server refused: {0}")]
    Refused(String),
}

/// Appends records to a new SQLite file in groups as large as the embedded log's, without conditions, tails or
/// answers. Blocking.
///
/// # Errors
/// When the file cannot be made or written.
pub fn append(path: &Path, records: &[Stored]) -> Result<(), SqliteOpenError> {
    sqlite::append_raw(path, records)
}

/// Appends records to the cluster's stream, made with the log's own settings, in atomic batches (ADR-50) without
/// conditions or message ids. Gives how long the appends took.
///
/// # Errors
/// [`RawError`].
pub async fn append_stream(
    bus: &BusOptions,
    options: &JetStreamOptions,
    records: &[Stored],
) -> Result<Duration, RawError> {
    let client = bus::connect(bus).await.map_err(JetStreamOpenError::from)?;
    raw_stream(jetstream::new(client.clone()), options).await?;
    let refused = |error: &dyn std::error::Error| RawError::Refused(error.to_string());
    let began = Instant::now();
    for (number, group) in records.chunks(GROUP).enumerate() {
        let id = format!("raw-{number}");
        for (at, record) in (1..).zip(group) {
            let (to, data) = (record.subject.to_string(), record.data.clone());
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_BATCH_ID, id.as_str());
            headers.insert(header::NATS_BATCH_SEQUENCE, at.to_string());
            if at < group.len() {
                let sent = client.publish_with_headers(to, headers, data).await;
                sent.map_err(|e| refused(&e))?;
                continue;
            }
            headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
            let request = Request::new().headers(headers).payload(data);
            let answer = client.send_request(to, request).await.map_err(|e| refused(&e))?;
            let text = String::from_utf8_lossy(&answer.payload);
            if !text.contains("\"seq\"") {
                return Err(RawError::Refused(text.into_owned()));
            }
        }
    }
    Ok(began.elapsed())
}

/// Removes the cluster's stream with everything in it: only ever that of a benchmark.
///
/// # Errors
/// [`RawError`]; a stream that is not there is no error.
pub async fn remove_stream(bus: &BusOptions, options: &JetStreamOptions) -> Result<(), RawError> {
    let client = bus::connect(bus).await.map_err(JetStreamOpenError::from)?;
    let context = jetstream::new(client);
    let name = crate::jetstream::stream_name(&options.cluster);
    if context.get_stream(&name).await.is_err() {
        return Ok(());
    }
    let removed = context.delete_stream(&name).await;
    removed
        .map(drop)
        .map_err(|error| RawError::Refused(error.to_string()))
}
