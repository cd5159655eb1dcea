//! The embedded log: one SQLite file, one writing thread, readers beside it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{
    future::{BoxFuture, FutureExt},
    stream::BoxStream,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Append, AppendError, EventLog, Lease, LeaseError, Outcome, ReadError, SharedLog, Stored, Subject,
    follow::{self, Source},
    model::check_lease,
};

pub use self::schema::SqliteOpenError;
pub(crate) use self::writer::append_raw;
use self::{reader::Reader, writer::Job};

mod lease;
mod reader;
mod schema;
mod writer;

/// Appends wait here for the writing thread. A thousand are four groups: enough to keep the disk busy, and
/// callers beyond that wait instead of filling the memory.
const QUEUE: usize = 1024;

/// A log in one file (WAL, `synchronous=FULL`): an answer is given only after the disk has confirmed.
///
/// One process at a time may write it; a lock file beside it keeps a second one out. It may be opened
/// for reading by anybody who may read the file, also while it is written.
#[derive(Debug)]
pub struct SqliteLog {
    path: PathBuf,
    reader: Arc<Reader>,
    /// Absent when open for reading only.
    jobs: Option<mpsc::Sender<Job>>,
}

impl SqliteLog {
    /// Opens the log at `path` for writing, and makes it if it is not there.
    ///
    /// A file that was truncated, is no log, or is of a newer version is refused and left as it is.
    pub async fn open(path: impl AsRef<Path>) -> Result<SharedLog, SqliteOpenError> {
        Ok(Arc::new(Self::open_for_writing(path.as_ref(), true).await?))
    }

    /// Opens the log at `path` for writing where there must be one: a missing log is refused, and nothing is made.
    ///
    /// For a log that was begun before: an empty one in its place would be in the way of the copy to restore.
    pub async fn open_existing(path: impl AsRef<Path>) -> Result<SharedLog, SqliteOpenError> {
        Ok(Arc::new(Self::open_for_writing(path.as_ref(), false).await?))
    }

    /// Opens an existing log for reading only, without taking the writer's lock: for `audit verify`.
    pub async fn open_read_only(path: impl AsRef<Path>) -> Result<SharedLog, SqliteOpenError> {
        let path = path.as_ref().to_owned();
        let log = tokio::task::spawn_blocking(move || {
            schema::check_file(&path)?;
            let reader = Reader::read_only(&path)?;
            Ok::<_, SqliteOpenError>(Self {
                path,
                reader: Arc::new(reader),
                jobs: None,
            })
        });
        Ok(Arc::new(log.await.map_err(SqliteOpenError::panicked)??))
    }

    async fn open_for_writing(path: &Path, make: bool) -> Result<Self, SqliteOpenError> {
        let path = path.to_owned();
        let log = tokio::task::spawn_blocking(move || {
            if !make {
                // Before the lock, which is a file of its own beside the log.
                schema::check_file(&path)?;
            }
            let lock = schema::lock(&path)?;
            if !path.exists() {
                schema::create(&path)?;
            }
            let connection = schema::open_writer(&path)?;
            let (tails, last) = schema::scan(&path, &connection)?;
            let (jobs, queue) = mpsc::channel(QUEUE);
            let (reader, publish) = Reader::beside_writer(&path, tails, last)?;
            let reader = Arc::new(reader);
            writer::start(writer::Start {
                connection,
                lock,
                queue,
                publish,
                reader: reader.clone(),
                last,
            })
            .map_err(|source| SqliteOpenError::io(&path, source))?;
            Ok::<_, SqliteOpenError>(Self {
                path,
                reader,
                jobs: Some(jobs),
            })
        });
        log.await.map_err(SqliteOpenError::panicked)?
    }

    fn jobs(&self) -> Result<&mpsc::Sender<Job>, AppendError> {
        self.jobs
            .as_ref()
            .ok_or_else(|| AppendError::ReadOnly { name: self.name() })
    }

    fn lease_jobs(&self) -> Result<&mpsc::Sender<Job>, LeaseError> {
        self.jobs
            .as_ref()
            .ok_or_else(|| LeaseError::ReadOnly { name: self.name() })
    }

    async fn append_group(&self, appends: Vec<Append>) -> Vec<Result<Outcome, AppendError>> {
        let count = appends.len();
        let all = |error: AppendError| vec![Err(error); count];
        let jobs = match self.jobs() {
            Ok(jobs) => jobs,
            Err(error) => return all(error),
        };
        let (answer, outcome) = oneshot::channel();
        if jobs.send(Job::Append { appends, answer }).await.is_err() {
            return all(AppendError::Closed);
        }
        // The writing thread always answers; if it is gone, the group may be on the disk or not.
        outcome
            .await
            .unwrap_or_else(|_| vec![Ok(Outcome::Unknown("the log's writing thread ended".into())); count])
    }

    /// Sends a lease job and awaits its answer.
    async fn lease_job<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, LeaseError>>) -> Job,
    ) -> Result<T, LeaseError> {
        let (answer, outcome) = oneshot::channel();
        self.lease_jobs()?
            .send(job(answer))
            .await
            .map_err(|_| LeaseError::Closed)?;
        outcome.await.map_err(|_| LeaseError::Closed)?
    }
}

impl EventLog for SqliteLog {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Outcome, AppendError>> {
        async move {
            append.check()?;
            self.append_group(vec![append])
                .await
                .pop()
                .expect("a group of one has one answer")
        }
        .boxed()
    }

    fn append_all(&self, appends: Vec<Append>) -> BoxFuture<'_, Vec<Result<Outcome, AppendError>>> {
        async move {
            // What is malformed is answered here; the others keep their order and their places.
            let mut answers: Vec<_> = appends
                .iter()
                .map(|append| append.check().err().map(Err))
                .collect();
            let good: Vec<Append> = appends
                .into_iter()
                .zip(&answers)
                .filter_map(|(append, refused)| refused.is_none().then_some(append))
                .collect();
            let mut stored = self.append_group(good).await.into_iter();
            for answer in answers.iter_mut().filter(|answer| answer.is_none()) {
                *answer = stored.next();
            }
            answers
                .into_iter()
                .map(|answer| answer.expect("each append has one answer"))
                .collect()
        }
        .boxed()
    }

    fn read(&self, from: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Stored>, ReadError>> {
        Box::pin(self.reader.read_stored(from, limit))
    }

    fn follow(&self, after: u64) -> BoxStream<'static, Result<Stored, ReadError>> {
        follow::follow(Arc::new(self.reader.clone()), after)
    }

    fn tail<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<Option<Stored>, ReadError>> {
        self.reader.tail(subject)
    }

    fn last_position(&self) -> BoxFuture<'_, Result<u64, ReadError>> {
        self.reader.last()
    }

    fn name(&self) -> String {
        format!("embedded log {}", self.path.display())
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    fn put_lease(&self, key: &str, value: Bytes, ttl: Duration) -> BoxFuture<'_, Result<(), LeaseError>> {
        let key = key.to_owned();
        async move {
            check_lease(&key, ttl)?;
            self.lease_job(|answer| Job::PutLease {
                key,
                value,
                ttl,
                answer,
            })
            .await
        }
        .boxed()
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<Lease>, LeaseError>> {
        async move { self.lease_job(|answer| Job::Leases { answer }).await }.boxed()
    }

    fn drop_lease(&self, key: &str) -> BoxFuture<'_, Result<(), LeaseError>> {
        let key = key.to_owned();
        async move { self.lease_job(|answer| Job::DropLease { key, answer }).await }.boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            let (answer, closed) = oneshot::channel();
            if let Some(jobs) = &self.jobs
                && jobs.send(Job::Close { answer }).await.is_ok()
            {
                // No answer means that the thread has already ended, which is what was asked for.
                let _ = closed.await;
            }
            self.reader.close();
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
