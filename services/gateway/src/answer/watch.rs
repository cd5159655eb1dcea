//! `GET /v1/watch/{type}`: how far a phase has come, a line whenever it changes.

use std::{sync::Arc, time::Duration};

use api::{node::HEARTBEAT_S, problem::Laggard, shape::WatchLine};
use domain::{
    AuthorityType, ClusterState, Code, Position,
    gate::{self, Lagging},
    phase::Phase,
    schedule::{followers, is_settled, not_followed},
    state::Node,
};
use tokio::{
    sync::watch,
    time::{Instant, Interval},
};

use super::{Asked, leave::Leave, reads};
use crate::{
    app::App,
    reply::{self, No, Reply},
};

/// The shortest time between two lines: a fleet's reports come in bursts.
const PAUSE: Duration = Duration::from_millis(100);
/// The most laggards that one line names.
const NAMED: usize = 100;

/// The stream. It does not end by itself: the watcher knows what it waits for.
pub(super) async fn watch(asked: &Asked) -> Reply {
    let authority_type: AuthorityType = asked.parse_part()?;
    asked.app.catch_up().await?;
    if asked.app.fold.read(|s| !s.types.contains_key(&authority_type)) {
        let text = format!("this cluster has no key of type {authority_type}: it is never in rotation");
        return Err(No::new(Code::TypeNotInService, text));
    }
    let watching = Watching {
        changes: asked.app.fold.changes(),
        app: asked.app.clone(),
        authority_type,
        last: None,
        due: true,
        spoken: Instant::now(),
        beat: tokio::time::interval(Duration::from_secs(HEARTBEAT_S)),
        leave: Leave::of(asked),
    };
    reply::stream(futures::stream::unfold(watching, |mut watching| async move {
        let bytes = watching.next().await?;
        Some((bytes, watching))
    }))
}

struct Watching {
    app: Arc<App>,
    authority_type: AuthorityType,
    changes: watch::Receiver<Position>,
    last: Option<WatchLine>,
    due: bool,
    spoken: Instant,
    beat: Interval,
    leave: Leave,
}

impl Watching {
    /// The next line; `None` ends the stream, and the watcher asks anew.
    async fn next(&mut self) -> Option<bytes::Bytes> {
        let bytes = self.wait().await;
        bytes.filter(|_| self.leave.stands())
    }

    async fn wait(&mut self) -> Option<bytes::Bytes> {
        loop {
            if self.due {
                self.due = false;
                if let Some(bytes) = self.news().await {
                    return Some(bytes);
                }
            }
            tokio::select! {
                biased;
                () = self.leave.over() => return None,
                changed = self.changes.changed() => {
                    changed.ok()?;
                    tokio::time::sleep_until(self.spoken + PAUSE).await;
                    self.changes.borrow_and_update();
                    self.due = true;
                }
                _ = self.beat.tick() => {
                    if !self.leave.reader_counts() {
                        return None;
                    }
                    self.due = true;
                    return Some(reply::comment());
                }
            }
        }
    }

    async fn news(&mut self) -> Option<bytes::Bytes> {
        let mut line = self
            .app
            .fold
            .read(|s| line(s, self.authority_type, self.app.now()))?;
        reads::see(&self.app, &mut line.lagging).await;
        let same = |before: &WatchLine| {
            let (time, position) = (line.time, line.position);
            let seen = line.lagging.iter().map(|l| l.status.last_seen);
            let mut before = WatchLine {
                time,
                position,
                ..before.clone()
            };
            // A laggard that was merely seen again is no news.
            before
                .lagging
                .iter_mut()
                .zip(seen)
                .for_each(|(l, seen)| l.status.last_seen = seen);
            before == line
        };
        if self.last.as_ref().is_some_and(same) {
            return None;
        }
        let data = serde_json::to_string(&line).ok()?;
        self.spoken = Instant::now();
        let position = line.position.0;
        self.last = Some(line);
        Some(reply::event("progress", Some(position), &data))
    }
}

/// One line, from the state alone. Who has reached is counted already; it costs more only for those who lag.
fn line(state: &ClusterState, authority_type: AuthorityType, now: domain::Timestamp) -> Option<WatchLine> {
    let of = state.types.get(&authority_type)?;
    let to = of.phase.next().unwrap_or(Phase::Standby);
    let gate = gate::outline(state, authority_type, to, state.now(now));
    let is_idle = of.phase == Phase::Standby;
    // Idle, a gate waits for nobody; a watcher still wants to know who has not followed.
    let (required, reached, lagging): (u32, u32, Vec<Lagging>) = if is_idle {
        let required = followers(state, authority_type, of);
        let behind: Vec<_> = not_followed(state, authority_type, of).collect();
        let reached = required.saturating_sub(u32::try_from(behind.len()).unwrap_or(u32::MAX));
        let lags = |node: &&Node| gate::lags(state, authority_type, node);
        (
            required,
            reached,
            behind.iter().filter_map(lags).take(NAMED).collect(),
        )
    } else {
        let lagging = gate::lagging(state, authority_type).take(NAMED);
        (gate.required, gate.reached, lagging.collect())
    };
    let members_hold = gate::lagging_members(state, authority_type, of).is_empty();
    // Idle: everybody has followed. In a phase: everybody has reached it, which is not yet leave to go on.
    let done = if is_idle {
        is_settled(state, authority_type)
    } else {
        required == reached && members_hold && gate.keys_missing.is_empty()
    };
    Some(WatchLine {
        time: now,
        authority_type,
        phase: of.phase,
        reached,
        required,
        excluded: gate.excluded,
        lagging: lagging.iter().map(|l| Laggard::of(l, of.phase)).collect(),
        done,
        mode: of.rotation.as_ref().map(|r| r.mode),
        next_refused: gate.refused,
        held: of.rotation.as_ref().is_some_and(|r| r.held.is_some()),
        outcome: of
            .ended
            .as_ref()
            .filter(|_| of.rotation.is_none())
            .map(|e| e.outcome),
        position: state.position,
    })
}
