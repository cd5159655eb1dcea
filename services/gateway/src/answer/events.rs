//! The log as it is: stored bytes, unchanged, with their positions.

use api::audit::EventRecord;
use bytes::Bytes;
use domain::{Code, Position};
use eventlog::Stored;
use futures::StreamExt;
use serde_json::value::RawValue;

use super::Asked;
use crate::reply::{self, No, Reply};

/// The most events of one page.
const MAX_PAGE: usize = 1_000;

/// `GET /v1/events?after=N&limit=M`.
pub(super) async fn page(asked: &Asked) -> Reply {
    let after: u64 = asked.parse_parameter("after")?.unwrap_or(0);
    let limit: usize = asked.parse_parameter("limit")?.unwrap_or(MAX_PAGE);
    let end = asked.app.catch_up().await?;
    if after >= end.0 {
        return reply::json::<[EventRecord; 0]>(&[]);
    }
    let limit = limit.clamp(1, MAX_PAGE);
    let records = asked.app.fold.log().read(after + 1, limit).await;
    let records = records.map_err(|e| No::new(Code::LogUnavailable, e.to_string()))?;
    let records: Result<Vec<_>, _> = records.iter().map(record).collect();
    reply::json(&records?)
}

/// `GET /v1/events/follow?after=N`: everything after that position, then whatever is appended. The SSE id
/// is the position, to go on from after a lost connection.
pub(super) async fn follow(asked: &Asked) -> Reply {
    let after: u64 = match asked.parse_parameter("after")? {
        Some(after) => after,
        None => asked.app.catch_up().await?.0,
    };
    let drain = asked.connection.drain.clone();
    let beat = tokio::time::interval(std::time::Duration::from_secs(api::node::HEARTBEAT_S));
    let records = asked.app.fold.log().follow(after);
    reply::stream(futures::stream::unfold(
        (records, beat, drain),
        |(mut records, mut beat, drain)| async move {
            let bytes = tokio::select! {
                biased;
                () = drain.cancelled() => return None,
                stored = records.next() => line(&stored?.ok()?)?,
                _ = beat.tick() => reply::comment(),
            };
            Some((bytes, (records, beat, drain)))
        },
    ))
}

fn line(stored: &Stored) -> Option<Bytes> {
    let data = serde_json::to_string(&record(stored).ok()?).ok()?;
    Some(reply::event("event", Some(stored.position), &data))
}

fn record(stored: &Stored) -> Result<EventRecord, No> {
    let damaged = |_| {
        No::new(
            Code::LogUnavailable,
            format!("position {} holds no JSON", stored.position),
        )
    };
    let text = String::from_utf8(stored.data.to_vec()).map_err(|_| damaged(()))?;
    let event = RawValue::from_string(text).map_err(|_| damaged(()))?;
    let subject = stored.subject.as_str().to_owned();
    Ok(EventRecord {
        position: Position(stored.position),
        subject,
        event,
    })
}
