//! Reading beside the writer: connections of its own, so that no reader waits for a commit.

use std::{
    collections::{HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::watch;

use super::schema::{self, SqliteOpenError};
use crate::{ReadError, Stored, Subject, follow::Source};

/// Idle connections that are kept; more readers at once open their own and close it afterwards.
const IDLE_CONNECTIONS: usize = 4;

/// How often somebody who reads another process's log looks whether it has grown.
const POLL: Duration = Duration::from_millis(200);

/// How many bytes one read hands out at most, whatever the number of records.
const READ_BYTES: usize = 16 * 1024 * 1024;

/// The newest records are kept in memory for those who follow, as many and as large together as this.
const RECENT: usize = 8_192;
const RECENT_BYTES: usize = 8 * 1024 * 1024;

/// Reads what is committed. Clones of it may outlive the log: they keep no lock and no writer.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    /// The last committed position, sent by the writer; absent beside another process's writer.
    last: Option<watch::Receiver<u64>>,
    /// Last committed position by subject; empty beside another process's writer.
    tails: RwLock<HashMap<Subject, u64>>,
    /// The newest committed records, without a gap; empty beside another process's writer.
    recent: RwLock<Recent>,
    closed: AtomicBool,
}

/// Records that have just been committed.
#[derive(Debug, Default)]
struct Recent {
    records: VecDeque<Stored>,
    bytes: usize,
}

impl Reader {
    /// A reader in the writer's process; the sender is the writer's, which thereby wakes followers.
    pub(super) fn beside_writer(
        path: &Path,
        tails: HashMap<Subject, u64>,
        last: u64,
    ) -> Result<(Self, watch::Sender<u64>), SqliteOpenError> {
        let (publish, last) = watch::channel(last);
        let idle = Mutex::new(vec![schema::open_reader(path)?]);
        let tails = RwLock::new(tails);
        let reader = Self {
            path: path.into(),
            idle,
            last: Some(last),
            tails,
            recent: RwLock::default(),
            closed: AtomicBool::new(false),
        };
        Ok((reader, publish))
    }

    /// A reader of a log that nobody writes, or another process.
    pub(super) fn read_only(path: &Path) -> Result<Self, SqliteOpenError> {
        let idle = Mutex::new(vec![schema::open_reader(path)?]);
        let (tails, closed) = (RwLock::default(), AtomicBool::new(false));
        Ok(Self {
            path: path.into(),
            idle,
            last: None,
            tails,
            recent: RwLock::default(),
            closed,
        })
    }

    /// The subject's last committed position, 0 for none.
    pub(super) fn tail_position(&self, subject: &Subject) -> u64 {
        self.tails
            .read()
            .expect("no code panics while it holds the tails")
            .get(subject)
            .copied()
            .unwrap_or(0)
    }

    /// Called by the writer after a commit, before it answers: who has an answer reads his own write.
    pub(super) fn advance(&self, committed: HashMap<Subject, u64>, records: Vec<Stored>) {
        self.tails
            .write()
            .expect("no code panics while it holds the tails")
            .extend(committed);
        self.recent
            .write()
            .expect("no code panics while it holds the newest records")
            .take_in(records);
    }

    /// Records from position `from` on, as they lie in the file.
    pub(super) async fn read_stored(
        self: &Arc<Self>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        self.blocking(move |connection| read(connection, from.max(1), limit))
            .await?
    }

    /// The same from memory, where it begins there.
    fn read_recent(&self, from: u64, limit: usize) -> Option<Vec<Stored>> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let recent = self.recent.read().expect("no code panics while it holds them");
        recent.from(from, limit)
    }

    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.idle
            .lock()
            .expect("no code panics while it holds the connections")
            .clear();
    }

    /// The last record on a subject.
    pub(super) fn tail<'a>(
        self: &'a Arc<Self>,
        subject: &'a Subject,
    ) -> BoxFuture<'a, Result<Option<Stored>, ReadError>> {
        async move {
            if self.last.is_none() {
                // Without a writer there are no tails in memory; a scan is what a rare reader can afford.
                let text = subject.as_str().to_owned();
                return self
                    .blocking(move |connection| last_by_scan(connection, &text))
                    .await?;
            }
            let position = self.tail_position(subject);
            if position == 0 {
                return if self.closed.load(Ordering::Acquire) {
                    Err(ReadError::Closed)
                } else {
                    Ok(None)
                };
            }
            let records = self.read_from(position, 1).await?;
            Ok(records.into_iter().next())
        }
        .boxed()
    }

    /// Runs a query on a thread that may wait for the disk.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection) -> T + Send + 'static,
    ) -> Result<T, ReadError> {
        let reader = self.clone();
        let run = move || {
            let connection = reader.take()?;
            let result = query(&connection);
            reader.give_back(connection);
            Ok(result)
        };
        tokio::task::spawn_blocking(run)
            .await
            .map_err(|source| ReadError::Failed {
                detail: "the reading thread ended".into(),
                source: Some(Arc::new(source)),
            })?
    }

    fn take(&self) -> Result<Connection, ReadError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(ReadError::Closed);
        }
        let idle = self
            .idle
            .lock()
            .expect("no code panics while it holds the connections")
            .pop();
        match idle {
            Some(connection) => Ok(connection),
            None => schema::open_reader(&self.path).map_err(|source| ReadError::Failed {
                detail: format!("another connection to {}", self.path.display()),
                source: Some(Arc::new(source)),
            }),
        }
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self
            .idle
            .lock()
            .expect("no code panics while it holds the connections");
        if idle.len() < IDLE_CONNECTIONS && !self.closed.load(Ordering::Acquire) {
            idle.push(connection);
        }
    }
}

impl Recent {
    fn take_in(&mut self, records: Vec<Stored>) {
        self.bytes += records.iter().map(|record| record.data.len()).sum::<usize>();
        self.records.extend(records);
        while self.records.len() > RECENT || self.bytes > RECENT_BYTES {
            let Some(oldest) = self.records.pop_front() else {
                return;
            };
            self.bytes -= oldest.data.len();
        }
    }

    fn from(&self, from: u64, limit: usize) -> Option<Vec<Stored>> {
        let first = self.records.front()?.position;
        let skipped = usize::try_from(from.checked_sub(first)?).ok()?;
        // One behind the last is the end; further on the file may know more.
        (skipped <= self.records.len())
            .then(|| self.records.iter().skip(skipped).take(limit).cloned().collect())
    }
}

/// For those who follow. Whoever reads the log to check it reads the file.
impl Source for Arc<Reader> {
    fn read_from(&self, from: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Stored>, ReadError>> {
        async move {
            match self.read_recent(from, limit) {
                Some(records) => Ok(records),
                None => self.read_stored(from, limit).await,
            }
        }
        .boxed()
    }

    fn last(&self) -> BoxFuture<'_, Result<u64, ReadError>> {
        async move {
            match &self.last {
                Some(_) if self.closed.load(Ordering::Acquire) => Err(ReadError::Closed),
                Some(last) => Ok(*last.borrow()),
                None => self.blocking(last_stored).await?,
            }
        }
        .boxed()
    }

    fn wait_past(&self, position: u64) -> BoxFuture<'_, Result<(), ReadError>> {
        let last = self.last.clone();
        async move {
            match last {
                // The sender lives in the writing thread: an error means that the log was closed.
                Some(mut last) => last
                    .wait_for(|last| *last > position)
                    .await
                    .map(|_| ())
                    .map_err(|_| ReadError::Closed),
                None => {
                    tokio::time::sleep(POLL).await;
                    Ok(())
                }
            }
        }
        .boxed()
    }
}

fn read(connection: &Connection, from: u64, limit: usize) -> Result<Vec<Stored>, ReadError> {
    let sql = "SELECT seq, subject, data FROM events WHERE seq >= ?1 ORDER BY seq LIMIT ?2";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut rows = statement.query((from, limit)).map_err(failed)?;
    let (mut records, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().map_err(failed)? {
        let record = record(row)?;
        let expected = from + records.len() as u64;
        if record.position != expected {
            return Err(ReadError::Gap {
                expected,
                found: Some(record.position),
            });
        }
        bytes += record.data.len();
        records.push(record);
        if bytes >= READ_BYTES {
            break;
        }
    }
    Ok(records)
}

fn record(row: &rusqlite::Row<'_>) -> Result<Stored, ReadError> {
    let position: u64 = row.get(0).map_err(failed)?;
    let text: String = row.get(1).map_err(failed)?;
    let data: Vec<u8> = row.get(2).map_err(failed)?;
    let subject = Subject::parse(text).map_err(|error| ReadError::Damaged {
        detail: format!("position {position}: {error}"),
    })?;
    Ok(Stored {
        position,
        subject,
        data: Bytes::from(data),
    })
}

fn last_stored(connection: &Connection) -> Result<u64, ReadError> {
    connection
        .query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0))
        .map_err(failed)
}

fn last_by_scan(connection: &Connection, subject: &str) -> Result<Option<Stored>, ReadError> {
    let sql = "SELECT seq, subject, data FROM events WHERE subject = ?1 ORDER BY seq DESC LIMIT 1";
    connection
        .query_row(sql, [subject], |row| Ok(record(row)))
        .optional()
        .map_err(failed)?
        .transpose()
}

fn failed(source: rusqlite::Error) -> ReadError {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            ReadError::Damaged {
                detail: source.to_string(),
            }
        }
        _ => ReadError::Failed {
            detail: "a query on the log's file".into(),
            source: Some(Arc::new(source)),
        },
    }
}
