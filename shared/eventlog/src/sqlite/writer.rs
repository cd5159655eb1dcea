//! The one thread that writes: it takes what has gathered, commits it at once, and then answers.

use std::{collections::HashMap, fs::File, io, path::Path, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{mpsc, oneshot, watch};

use super::{SqliteOpenError, lease::Leases, reader::Reader, schema};
use crate::{Append, AppendError, Lease, LeaseError, Outcome, Stored, Subject};

/// The most appends in one commit; more would make the first of them wait for nothing.
const GROUP_APPENDS: usize = 256;

/// The most events in one commit, except that a single append is never divided.
const GROUP_EVENTS: usize = 4096;

const INSERT: &str = "INSERT INTO events (seq, subject, data) VALUES (?1, ?2, ?3)";

/// SQLite's extended code for "the wal-index could not grow": a full disk, said in other words.
const IOERR_SHMSIZE: i32 = 4874;

/// What the writing thread is asked to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Store these, each atomic by itself, and answer in the same order.
    Append { appends: Vec<Append>, answer: Answers },
    /// Write or renew a lease.
    PutLease {
        key: String,
        value: Bytes,
        ttl: Duration,
        answer: oneshot::Sender<Result<(), LeaseError>>,
    },
    /// List the leases.
    Leases {
        answer: oneshot::Sender<Result<Vec<Lease>, LeaseError>>,
    },
    /// Remove a lease.
    DropLease {
        key: String,
        answer: oneshot::Sender<Result<(), LeaseError>>,
    },
    /// End, and answer when the lock is free.
    Close { answer: oneshot::Sender<()> },
    /// Run SQL on the writing connection, to bring about what a disk does.
    #[cfg(test)]
    Sql {
        sql: String,
        answer: oneshot::Sender<()>,
    },
}

type Answers = oneshot::Sender<Vec<Result<Outcome, AppendError>>>;

/// What the thread begins with.
pub(super) struct Start {
    pub(super) connection: Connection,
    /// Held until the thread ends.
    pub(super) lock: File,
    pub(super) queue: mpsc::Receiver<Job>,
    pub(super) publish: watch::Sender<u64>,
    pub(super) reader: Arc<Reader>,
    pub(super) last: u64,
}

/// Starts the thread. It ends when it is closed or when nobody can send it anything any more.
pub(super) fn start(start: Start) -> io::Result<()> {
    let Start {
        connection,
        lock,
        mut queue,
        publish,
        reader,
        last,
    } = start;
    let leases = Leases::load(&connection).map_err(io::Error::other)?;
    let mut writer = Writer {
        connection,
        publish,
        reader,
        last,
        leases,
        failed: None,
    };
    thread::Builder::new().name("log-writer".into()).spawn(move || {
        let closing = writer.run(&mut queue);
        // Closing order: the queue, the file, the lock, then the answer, so that who has it may open the log again.
        refuse_the_rest(&mut queue);
        writer.reader.close();
        drop(writer);
        drop(lock);
        if let Some(answer) = closing {
            let _ = answer.send(());
        }
    })?;
    Ok(())
}

struct Writer {
    connection: Connection,
    publish: watch::Sender<u64>,
    reader: Arc<Reader>,
    /// The last committed position.
    last: u64,
    leases: Leases,
    /// Why nothing is written any more.
    failed: Option<AppendError>,
}

/// What a group would change, once it is committed.
struct Staged {
    last: u64,
    tails: HashMap<Subject, u64>,
    records: Vec<Stored>,
    outcomes: Vec<Vec<Result<Outcome, AppendError>>>,
}

/// Why a group was not committed.
enum Failure {
    /// Nothing of it is in the file.
    NotStored(AppendError),
    /// The commit itself failed: recovery may find it stored or not.
    Doubtful(String),
}

impl Writer {
    fn run(&mut self, queue: &mut mpsc::Receiver<Job>) -> Option<oneshot::Sender<()>> {
        let mut held_back = None;
        loop {
            let job = match held_back.take() {
                Some(job) => job,
                None => queue.blocking_recv()?,
            };
            // A caller that no longer waits for its answer is no error, so failed sends are ignored.
            match job {
                Job::Append { appends, answer } => {
                    let group;
                    (group, held_back) = gather(queue, appends, answer);
                    self.commit(group);
                }
                Job::PutLease {
                    key,
                    value,
                    ttl,
                    answer,
                } => {
                    let _ = answer.send(self.leases.put(&self.connection, key, &value, ttl));
                }
                Job::Leases { answer } => {
                    let _ = answer.send(self.leases.list(&self.connection));
                }
                Job::DropLease { key, answer } => {
                    let _ = answer.send(self.leases.remove(&self.connection, &key));
                }
                Job::Close { answer } => return Some(answer),
                #[cfg(test)]
                Job::Sql { sql, answer } => {
                    self.connection.execute_batch(&sql).expect("the test's SQL runs");
                    let _ = answer.send(());
                }
            }
        }
    }

    fn commit(&mut self, group: Vec<(Vec<Append>, Answers)>) {
        let (appends, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let counts: Vec<usize> = appends.iter().map(Vec::len).collect();
        let outcomes = match self.failed.clone() {
            Some(error) => counts
                .iter()
                .map(|count| vec![Err(error.clone()); *count])
                .collect(),
            None => match self.store(appends) {
                // A crash from here on loses only the answers: the events are durable, the callers look for them.
                Ok(staged) => {
                    self.last = staged.last;
                    self.reader.advance(staged.tails, staged.records);
                    self.publish.send_replace(staged.last);
                    staged.outcomes
                }
                Err(failure) => {
                    let answer = self.answer_to(failure);
                    counts.iter().map(|count| vec![answer.clone(); *count]).collect()
                }
            },
        };
        for (answer, outcomes) in answers.into_iter().zip(outcomes) {
            let _ = answer.send(outcomes);
        }
    }

    /// One transaction for the whole group. A crash inside leaves none of it: the WAL has no commit mark yet.
    fn store(&mut self, group: Vec<Vec<Append>>) -> Result<Staged, Failure> {
        let mut staged = Staged {
            last: self.last,
            tails: HashMap::new(),
            records: Vec::new(),
            outcomes: Vec::new(),
        };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|source| Failure::NotStored(not_stored(source)))?;
        {
            let mut insert = transaction
                .prepare_cached(INSERT)
                .map_err(|source| Failure::NotStored(not_stored(source)))?;
            for appends in group {
                let mut outcomes = Vec::with_capacity(appends.len());
                for append in appends {
                    let outcome = stage(&self.reader, &mut staged, &mut insert, append)
                        .map_err(|source| Failure::NotStored(not_stored(source)))?;
                    outcomes.push(Ok(outcome));
                }
                staged.outcomes.push(outcomes);
            }
        }
        if staged.last == self.last {
            // Nothing but conflicts: nothing to make durable. Dropping the transaction rolls it back.
            return Ok(staged);
        }
        match transaction.commit() {
            Ok(()) => Ok(staged),
            Err(source) => match source.sqlite_error_code() {
                Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy) => {
                    Err(Failure::NotStored(not_stored(source)))
                }
                _ => Err(Failure::Doubtful(source.to_string())),
            },
        }
    }

    /// What the callers hear, and whether this was the last thing that was written.
    fn answer_to(&mut self, failure: Failure) -> Result<Outcome, AppendError> {
        match failure {
            Failure::NotStored(error) => {
                if let AppendError::Failed { .. } = &error {
                    tracing::error!(%error, "the embedded log is out of use");
                    self.failed = Some(error.clone());
                }
                Err(error)
            }
            // After a failed commit the file may hold more than this process has seen. A later open reads what
            // is there; going on would mean deciding on a state that recovery may contradict.
            Failure::Doubtful(detail) => {
                tracing::error!(detail, "a commit to the embedded log failed; it is out of use");
                self.failed = Some(AppendError::Failed {
                    detail: detail.clone(),
                    source: None,
                });
                Ok(Outcome::Unknown(detail))
            }
        }
    }
}

/// Answers what came after the closing: nothing of it was stored.
fn refuse_the_rest(queue: &mut mpsc::Receiver<Job>) {
    queue.close();
    while let Ok(job) = queue.try_recv() {
        match job {
            Job::Append { appends, answer } => {
                let _ = answer.send(vec![Err(AppendError::Closed); appends.len()]);
            }
            // Without an answer these say by themselves that the log is closed.
            Job::PutLease { .. } | Job::Leases { .. } | Job::DropLease { .. } | Job::Close { .. } => {}
            #[cfg(test)]
            Job::Sql { .. } => {}
        }
    }
}

/// Takes what else is waiting, so that it shares one commit; a job of another kind is held back, in order.
fn gather(
    queue: &mut mpsc::Receiver<Job>,
    appends: Vec<Append>,
    answer: Answers,
) -> (Vec<(Vec<Append>, Answers)>, Option<Job>) {
    let weigh = |appends: &[Append]| appends.iter().map(|append| append.events.len()).sum::<usize>();
    let (mut count, mut events) = (appends.len(), weigh(&appends));
    let mut group = vec![(appends, answer)];
    while count < GROUP_APPENDS && events < GROUP_EVENTS {
        match queue.try_recv() {
            Ok(Job::Append { appends, answer }) => {
                count += appends.len();
                events += weigh(&appends);
                group.push((appends, answer));
            }
            Ok(other) => return (group, Some(other)),
            Err(_) => break,
        }
    }
    (group, None)
}

/// Checks one append against what is committed and what is staged before it, and inserts its events.
fn stage(
    reader: &Reader,
    staged: &mut Staged,
    insert: &mut rusqlite::CachedStatement<'_>,
    append: Append,
) -> rusqlite::Result<Outcome> {
    let committed = || reader.tail_position(&append.subject);
    let tail = staged
        .tails
        .get(&append.subject)
        .copied()
        .unwrap_or_else(committed);
    if append.expected.is_some_and(|expected| expected != tail) {
        return Ok(Outcome::Conflict { tail });
    }
    let first = staged.last + 1;
    for event in append.events {
        let position = staged.last + 1;
        insert.execute((position, event.subject.as_str(), &event.data[..]))?;
        staged.last = position;
        staged.tails.insert(event.subject.clone(), position);
        staged.records.push(Stored {
            position,
            subject: event.subject,
            data: event.data,
        });
    }
    Ok(Outcome::Stored {
        first,
        last: staged.last,
    })
}

/// The writer's own statement and group, and nothing else: what SQLite can do with these settings.
pub(crate) fn append_raw(path: &Path, records: &[Stored]) -> Result<(), SqliteOpenError> {
    let failed = |source| schema::classify(path, source);
    schema::create(path)?;
    let mut connection = schema::open_writer(path)?;
    let mut position = 0_u64;
    for group in records.chunks(GROUP_APPENDS) {
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        {
            let mut insert = transaction.prepare_cached(INSERT).map_err(failed)?;
            for record in group {
                position += 1;
                let row = (position, record.subject.as_str(), &record.data[..]);
                insert.execute(row).map_err(failed)?;
            }
        }
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}

/// An error before the commit mark: the transaction is rolled back and nothing is stored.
fn not_stored(source: rusqlite::Error) -> AppendError {
    let detail = source.to_string();
    match source.sqlite_error() {
        Some(error) if error.code == ErrorCode::DiskFull || error.extended_code == IOERR_SHMSIZE => {
            AppendError::Full { detail }
        }
        Some(error) if matches!(error.code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            AppendError::Busy { detail }
        }
        // The insert trigger speaks: the next position is taken, so somebody else has written here.
        Some(error) if error.code == ErrorCode::ConstraintViolation => AppendError::Failed {
            detail: "something outside of this process has written to its file".into(),
            source: Some(Arc::new(source)),
        },
        _ => AppendError::Failed {
            detail,
            source: Some(Arc::new(source)),
        },
    }
}
