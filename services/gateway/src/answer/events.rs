//! The log as it is: stored bytes, unchanged, with their positions.

use std::time::Duration;

use api::audit::EventRecord;
use bytes::Bytes;
use domain::{Code, Position};
use eventlog::{ReadError, Stored};
use futures::{StreamExt, stream::BoxStream};
use serde_json::value::RawValue;
use tokio::time::Interval;

use super::{Asked, leave::Leave};
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
    let records = records.map_err(|e| No::new(Code::LogUnavailable, e.to_string()).retry_after(1))?;
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
    let following = Following {
        records: asked.app.fold.log().follow(after),
        beat: tokio::time::interval(Duration::from_secs(api::node::HEARTBEAT_S)),
        leave: Leave::of(asked),
    };
    reply::stream(futures::stream::unfold(following, |mut following| async move {
        let bytes = following.next().await?;
        Some((bytes, following))
    }))
}

struct Following {
    leave: Leave,
    records: BoxStream<'static, Result<Stored, ReadError>>,
    beat: Interval,
}

impl Following {
    /// The next event; `None` ends the stream, and the reader goes on from its last position.
    async fn next(&mut self) -> Option<Bytes> {
        let bytes = tokio::select! {
            biased;
            () = self.leave.over() => None,
            // Before the records: a log that never pauses must not put the look off.
            _ = self.beat.tick() => self.leave.reader_counts().then(reply::comment),
            stored = self.records.next() => line(&stored?.ok()?),
        };
        bytes.filter(|_| self.leave.stands())
    }
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
