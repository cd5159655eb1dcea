//! From the log into the fold: first what it holds already, as fast as the machine can, then whatever comes.

use std::sync::{Arc, Weak};

use domain::{Event, Position};
use eventlog::{ReadError, Stored, Subject};
use futures::{StreamExt, stream::BoxStream};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::codec;

/// Records that go from thread to thread together: each hand-over costs what dozens of records cost.
const CHUNK: usize = 2_048;
/// Chunks that wait between two threads, so that each has something to do while another one waits for its turn.
const BETWEEN: usize = 3;
/// From this many on records are decoded on a thread of their own, beside what is folded and read meanwhile.
const LARGE: usize = 64;

/// What comes from the log.
type Record = Result<Stored, ReadError>;
pub(super) type Records = BoxStream<'static, Record>;

/// Folds what the log holds up to `end`: one thread reads, one decodes, one folds. Gives back the stream of what comes
/// behind.
pub(super) async fn catch_up(
    inner: &Arc<Inner>,
    mut records: Records,
    end: Position,
) -> Result<Records, String> {
    if end == Position(0) {
        return Ok(records);
    }
    let (read, mut chunks) = mpsc::channel::<Vec<Record>>(BETWEEN);
    let (decode, mut events) = mpsc::channel::<Decoded>(BETWEEN);
    // Each ends with the channel that it reads or writes: one that fails stops those before it.
    let decoding = spawn_blocking(move || {
        while let Some(chunk) = chunks.blocking_recv() {
            if decode.blocking_send(decoded(chunk)).is_err() {
                return;
            }
        }
    });
    let inner = inner.clone();
    let folding = spawn_blocking(move || {
        while let Some(chunk) = events.blocking_recv() {
            chunk.fold_into(&inner)?;
        }
        Ok::<_, String>(())
    });
    let mut ready = records.by_ref().ready_chunks(CHUNK);
    let mut read_all = Err("the log ended its stream".to_string());
    while let Some(chunk) = ready.next().await {
        // An error is the last thing that a log says; whoever decodes the chunk finds it.
        let is_last = chunk
            .last()
            .is_some_and(|last| last.as_ref().map_or(true, |last| last.position >= end.0));
        if read.send(chunk).await.is_err() || is_last {
            read_all = Ok(());
            break;
        }
    }
    drop(read);
    let ended = |error: JoinError| format!("a task of the fold ended unexpectedly: {error}");
    decoding.await.map_err(ended)?;
    folding.await.map_err(ended)??;
    read_all.map(|()| records)
}

/// Folds whatever comes, until nobody has a handle of the fold.
pub(super) fn follow(inner: &Arc<Inner>, records: Records, tasks: &mut JoinSet<()>) {
    let (read, chunks) = mpsc::channel(1);
    tasks.spawn(read_ahead(records, read));
    tasks.spawn(fold_all(Arc::downgrade(inner), chunks, inner.stop.clone()));
}

/// Reads and decodes what comes next while the chunk before it is folded. Ends when nobody folds any more.
async fn read_ahead(records: Records, read: mpsc::Sender<Decoded>) {
    let mut decoded = records.ready_chunks(CHUNK).map(decode).buffered(BETWEEN);
    loop {
        let chunk = tokio::select! {
            () = read.closed() => return,
            chunk = decoded.next() => chunk,
        };
        let is_over = chunk.is_none();
        let chunk = chunk.unwrap_or_else(|| Decoded::stopped("the log ended its stream".into()));
        if read.send(chunk).await.is_err() || is_over {
            return;
        }
    }
}

async fn fold_all(fold: Weak<Inner>, mut chunks: mpsc::Receiver<Decoded>, stop: CancellationToken) {
    loop {
        let chunk = tokio::select! {
            () = stop.cancelled() => return,
            chunk = chunks.recv() => chunk,
        };
        // The last handle is gone: nobody reads this state any more.
        let Some(inner) = fold.upgrade() else { return };
        let outcome = match chunk {
            Some(chunk) => chunk.fold_into(&inner),
            None => Err("the task that reads the log ended unexpectedly".into()),
        };
        if let Err(why) = outcome {
            tracing::error!(%why, "the fold stopped: nothing behind this position is used");
            inner.failed.send_replace(Some(why));
            return;
        }
    }
}

/// Records as events, up to the first that is none.
pub(super) struct Decoded {
    events: Vec<(Subject, Arc<Event>)>,
    stopped: Option<String>,
}

impl Decoded {
    fn stopped(why: String) -> Self {
        Self {
            events: vec![],
            stopped: Some(why),
        }
    }

    pub(super) fn fold_into(self, inner: &Inner) -> Result<(), String> {
        inner.fold(self.events)?;
        self.stopped.map_or(Ok(()), Err)
    }
}

/// Before the state is locked, so that its readers wait for no decoding.
async fn decode(chunk: Vec<Record>) -> Decoded {
    if chunk.len() < LARGE {
        return decoded(chunk);
    }
    let stopped =
        |error: JoinError| Decoded::stopped(format!("the decoding task ended unexpectedly: {error}"));
    spawn_blocking(|| decoded(chunk)).await.unwrap_or_else(stopped)
}

pub(super) fn decoded(chunk: Vec<Record>) -> Decoded {
    let mut events = Vec::with_capacity(chunk.len());
    for record in chunk {
        let event = record.map_err(|e| e.to_string()).and_then(|stored| {
            let event = codec::decode(&stored).map_err(|e| e.to_string())?;
            Ok((stored.subject, Arc::new(event)))
        });
        match event {
            Ok(event) => events.push(event),
            Err(why) => {
                return Decoded {
                    events,
                    stopped: Some(why),
                };
            }
        }
    }
    Decoded {
        events,
        stopped: None,
    }
}
