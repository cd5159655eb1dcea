//! `bench log`: appending and replaying the events of a real rotation, each store beside what it can do by itself.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    time::{Duration, Instant},
};

use cli::args::LogArgs;
use eventlog::{
    Append, JetStreamLog, JetStreamOptions, NewEvent, Outcome, SharedLog, SqliteLog, Stored, Subject,
    bus::BusOptions, event_id,
};
use execution::Fold;
use projector::Projector;
use runtime::{clock::SystemClock, metrics::Metrics, readiness::Readiness};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    BenchError, Report,
    machine::{Machine, peak_mib},
    rig::{PHASES, Place, Rig},
    say,
};
use crate::now_of;

/// Appends that are made durable together, as the executor does it.
const GROUP: usize = 256;
/// Records read at once.
const BATCH: usize = 4_096;
/// How long the views may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Log {
    machine: Machine,
    nodes: u32,
    /// Events of the rotation, which are appended, and their mean size.
    events: usize,
    bytes_per_event: f64,
    stores: Vec<Store>,
    replay: Replay,
    peak_mib: u64,
}

/// Appending to one store.
#[derive(Debug, Serialize)]
struct Store {
    name: &'static str,
    events_per_s: f64,
    /// The same bytes in groups as large, by the store's own means and nothing of ours.
    raw_events_per_s: f64,
    ratio: f64,
}

/// Reading the whole log, joins included, into a fold and into views.
#[derive(Debug, Serialize)]
struct Replay {
    events: u64,
    fold_s: f64,
    fold_events_per_s: f64,
    views_s: f64,
    /// Both, one after the other as at a start without views.
    events_per_s: f64,
}

pub(crate) async fn measure(args: &LogArgs) -> Result<Log, BenchError> {
    let place = Place::new(args.data_dir.clone())?;
    // Before anything that takes long: a server that is away is said at once.
    let stream = match &args.nats {
        Some(url) => Some(Stream::begin(url).await?),
        None => None,
    };
    let (records, start) = rotation(&place, args.nodes).await?;
    let rotation = &records[start..];
    let bytes: usize = rotation.iter().map(|record| record.data.len()).sum();
    say(&format!(
        "{} events of a rotation of {} nodes",
        rotation.len(),
        args.nodes
    ));
    let mut stores = vec![sqlite(&place.path, rotation).await?];
    if let Some(stream) = stream {
        stores.push(stream.measure(rotation).await?);
    }
    let replay = replay(&place.path, records.len() as u64).await?;
    Ok(Log {
        machine: Machine::this(),
        nodes: args.nodes,
        events: rotation.len(),
        bytes_per_event: bytes as f64 / rotation.len().max(1) as f64,
        stores,
        replay,
        peak_mib: peak_mib(),
    })
}

/// The log of a fleet that joined and went through one rotation; and where the rotation begins in it.
async fn rotation(place: &Place, nodes: u32) -> Result<(Vec<Stored>, usize), BenchError> {
    say("making the events: a fleet joins and its authority rotates");
    let rig = Rig::start(&place.path, nodes).await?;
    let mut fleet = rig.join(nodes).await?;
    let start = rig.core.fold.position().0;
    for phase in PHASES {
        rig.enter(phase).await?;
        fleet = rig.follow(fleet).await?;
        rig.reached(phase).await?;
    }
    let records = read(&rig.core.log).await?;
    rig.stop().await;
    Ok((records, usize::try_from(start).unwrap_or(usize::MAX)))
}

async fn read(log: &SharedLog) -> Result<Vec<Stored>, BenchError> {
    let mut records: Vec<Stored> = vec![];
    loop {
        let from = records.len() as u64 + 1;
        let batch = log.read(from, BATCH).await.map_err(failed)?;
        if batch.is_empty() {
            return Ok(records);
        }
        records.extend(batch);
    }
}

async fn sqlite(dir: &Path, records: &[Stored]) -> Result<Store, BenchError> {
    let log = SqliteLog::open(dir.join("append.sqlite")).await.map_err(failed)?;
    let took = append(&log, records).await?;
    log.close().await;
    let (path, own) = (dir.join("raw.sqlite"), records.to_vec());
    let began = Instant::now();
    tokio::task::spawn_blocking(move || eventlog::raw::append(&path, &own))
        .await
        .map_err(failed)?
        .map_err(failed)?;
    Ok(Store::new(
        "embedded (SQLite)",
        records.len(),
        took,
        began.elapsed(),
    ))
}

/// A stream of the benchmark's own on a NATS server.
struct Stream {
    bus: BusOptions,
    options: JetStreamOptions,
    log: SharedLog,
}

impl Stream {
    /// Made anew; one that an interrupted run left behind goes.
    async fn begin(url: &str) -> Result<Self, BenchError> {
        let bus = BusOptions {
            url: url.into(),
            name: "carousel-bench".into(),
            ..BusOptions::default()
        };
        let options = JetStreamOptions {
            cluster: "bench.carousel".into(),
            replicas: 1,
        };
        eventlog::raw::remove_stream(&bus, &options)
            .await
            .map_err(failed)?;
        let log = JetStreamLog::connect(&bus, &options).await.map_err(failed)?;
        Ok(Self { bus, options, log })
    }

    async fn measure(self, records: &[Stored]) -> Result<Store, BenchError> {
        let took = append(&self.log, records).await?;
        self.log.close().await;
        self.remove().await?;
        let raw = eventlog::raw::append_stream(&self.bus, &self.options, records).await;
        let raw = raw.map_err(failed)?;
        self.remove().await?;
        Ok(Store::new("JetStream", records.len(), took, raw))
    }

    async fn remove(&self) -> Result<(), BenchError> {
        let removed = eventlog::raw::remove_stream(&self.bus, &self.options).await;
        removed.map_err(failed)
    }
}

/// Appends them as they were appended the first time: each on the condition of its subject's last position, and as
/// many together as do not stand on each other.
async fn append(log: &SharedLog, records: &[Stored]) -> Result<Duration, BenchError> {
    let mut tails: HashMap<&Subject, u64> = HashMap::new();
    let mut groups = vec![];
    let (mut group, mut subjects) = (vec![], HashSet::new());
    for (position, record) in (1..).zip(records) {
        if group.len() == GROUP || !subjects.insert(&record.subject) {
            groups.push(std::mem::take(&mut group));
            subjects = HashSet::from([&record.subject]);
        }
        let expected = tails.insert(&record.subject, position).unwrap_or_default();
        let event = NewEvent {
            subject: record.subject.clone(),
            id: event_id(&record.data).unwrap_or_default(),
            data: record.data.clone(),
        };
        group.push(Append::one(event, Some(expected)));
    }
    groups.push(group);
    let began = Instant::now();
    for group in groups {
        for outcome in log.append_all(group).await {
            match outcome {
                Ok(Outcome::Stored { .. }) => {}
                other => return Err(BenchError::Raw(format!("an append failed: {other:?}"))),
            }
        }
    }
    Ok(began.elapsed())
}

/// A start from nothing but the log: the fold first, then the views.
async fn replay(dir: &Path, events: u64) -> Result<Replay, BenchError> {
    let file = dir.join("control-plane/log.sqlite");
    let log = SqliteLog::open_existing(file).await.map_err(failed)?;
    let stop = CancellationToken::new();
    let began = Instant::now();
    let fold = Fold::start(log.clone(), stop.clone()).await.map_err(failed)?;
    let fold_s = began.elapsed().as_secs_f64();
    let config = projector::Config {
        views_dir: dir.join("fresh-views"),
    };
    let now = now_of(SystemClock::shared());
    let part = Readiness::new().part("projector", "the views to hold the log's end");
    let projector = Projector::open(config, fold.clone(), now, Metrics::new("bench"), part).await?;
    let (queries, token) = (projector.queries(), stop.clone());
    let mut projecting = JoinSet::new();
    projecting.spawn(async move { projector.run(token).await });
    let asked = api::Queries::status(&queries, api::At::Newest, domain::Position(events));
    tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(failed)?
        .map_err(|e| BenchError::Stuck(e.to_string()))?;
    let both = began.elapsed().as_secs_f64();
    stop.cancel();
    while projecting.join_next().await.is_some() {}
    drop((queries, fold));
    log.close().await;
    Ok(Replay {
        events,
        fold_s,
        fold_events_per_s: events as f64 / fold_s,
        views_s: both - fold_s,
        events_per_s: events as f64 / both,
    })
}

fn failed(error: impl std::fmt::Display) -> BenchError {
    BenchError::Raw(error.to_string())
}

impl Store {
    fn new(name: &'static str, events: usize, took: Duration, raw: Duration) -> Self {
        let rate = |time: Duration| events as f64 / time.as_secs_f64();
        Self {
            name,
            events_per_s: rate(took),
            raw_events_per_s: rate(raw),
            ratio: rate(took) / rate(raw),
        }
    }
}

impl Report for Log {
    fn text(&self) -> String {
        let Machine { processor, cores } = &self.machine;
        let mut text = format!(
            "{} events of {:.0} bytes (a rotation of {} nodes) on {cores} cores ({processor})\n",
            self.events, self.bytes_per_event, self.nodes
        );
        for store in &self.stores {
            text.push_str(&format!(
                "append     {:.0} events/s, raw {:.0}, ratio {:.2}: {}\n",
                store.events_per_s, store.raw_events_per_s, store.ratio, store.name
            ));
        }
        let replay = &self.replay;
        text.push_str(&format!(
            "replay     {} events: fold {:.2} s ({:.0} events/s), views {:.2} s, both {:.0} events/s\n\
             memory     {} MiB at the most\n",
            replay.events,
            replay.fold_s,
            replay.fold_events_per_s,
            replay.views_s,
            replay.events_per_s,
            self.peak_mib
        ));
        text
    }
}
