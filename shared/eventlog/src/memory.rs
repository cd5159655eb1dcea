//! A log in memory: for tests and the simulation, with the faults of a network on demand.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{
    future::{BoxFuture, FutureExt},
    stream::BoxStream,
};
use tokio::sync::watch;

use crate::{
    Append, AppendError, EventLog, Lease, LeaseError, Outcome, ReadError, Stored, Subject,
    follow::{self, Source},
    model::check_lease,
};

/// Why nothing answers after [`MemoryLog::set_reachable`].
const AWAY: &str = "injected: the store is away";

/// What happens to the next append; faults are taken in the order in which they were injected.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It is stored, and the answer is lost.
    LostAnswer,
    /// It is stored, the answer is lost, and others write behind it.
    LostAnswerThen(Vec<Append>),
    /// It never arrives, and its sender does not know.
    LostRequest,
    /// It is refused, and nothing is stored.
    Refuse(AppendError),
}

/// A log that lives as long as its last clone; a clone is the same log, as a restarted process would find it.
#[derive(Debug, Clone)]
pub struct MemoryLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inner: Mutex<Inner>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Sparse only after [`MemoryLog::lose`].
    records: BTreeMap<u64, Stored>,
    last: u64,
    tails: HashMap<Subject, u64>,
    faults: VecDeque<Fault>,
    leases: BTreeMap<String, (Lease, Instant)>,
    revision: u64,
    closed: bool,
    unreachable: bool,
}

impl MemoryLog {
    /// An empty log.
    pub fn new() -> Self {
        let shared = Shared {
            inner: Mutex::default(),
            last: watch::Sender::new(0),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Lets something happen to an append to come.
    pub fn inject(&self, fault: Fault) {
        self.shared.lock().faults.push_back(fault);
    }

    /// Takes the store out of reach, or brings it back, as a broker that goes away and returns. A follower
    /// that waits for more does not notice.
    pub fn set_reachable(&self, is_reachable: bool) {
        self.shared.lock().unreachable = !is_reachable;
    }

    /// Removes a record, as a damaged disk would: readers must notice the hole.
    pub fn lose(&self, position: u64) {
        self.shared.lock().records.remove(&position);
    }

    /// Opens it again after [`EventLog::close`], with everything that was durable.
    pub fn reopen(&self) -> Self {
        let (records, last, tails) = {
            let inner = self.shared.lock();
            (inner.records.clone(), inner.last, inner.tails.clone())
        };
        let inner = Inner {
            records,
            last,
            tails,
            ..Inner::default()
        };
        let shared = Shared {
            inner: Mutex::new(inner),
            last: watch::Sender::new(last),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    fn append_now(&self, append: Append) -> Result<Outcome, AppendError> {
        append.check()?;
        let mut inner = self.shared.lock();
        if inner.closed {
            return Err(AppendError::Closed);
        }
        if inner.unreachable {
            return Err(AppendError::Unreachable { detail: AWAY.into() });
        }
        let outcome = match inner.faults.pop_front() {
            None => inner.store(append),
            Some(Fault::LostAnswer) => {
                inner.store(append);
                Outcome::Unknown("injected: the answer was lost".into())
            }
            Some(Fault::LostAnswerThen(others)) => {
                inner.store(append);
                for other in others {
                    inner.store(other);
                }
                Outcome::Unknown("injected: the answer was lost, others wrote behind it".into())
            }
            Some(Fault::LostRequest) => Outcome::Unknown("injected: the request was lost".into()),
            Some(Fault::Refuse(error)) => return Err(error),
        };
        self.shared.last.send_replace(inner.last);
        Ok(outcome)
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner
            .lock()
            .expect("no code panics while it holds the log's lock")
    }
}

impl Inner {
    /// The condition is checked and the events are stored under one lock: there is nothing in between.
    fn store(&mut self, append: Append) -> Outcome {
        let tail = self.tails.get(&append.subject).copied().unwrap_or(0);
        if append.expected.is_some_and(|expected| expected != tail) {
            return Outcome::Conflict { tail };
        }
        let first = self.last + 1;
        for event in append.events {
            self.last += 1;
            self.tails.insert(event.subject.clone(), self.last);
            let record = Stored {
                position: self.last,
                subject: event.subject,
                data: event.data,
            };
            self.records.insert(self.last, record);
        }
        Outcome::Stored {
            first,
            last: self.last,
        }
    }

    fn reachable(&self) -> Result<(), ReadError> {
        if self.closed {
            return Err(ReadError::Closed);
        }
        if self.unreachable {
            return Err(ReadError::Unreachable { detail: AWAY.into() });
        }
        Ok(())
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Stored>, ReadError> {
        let mut records: Vec<Stored> = Vec::new();
        for expected in from.max(1)..=self.last {
            if records.len() == limit {
                break;
            }
            match self.records.get(&expected) {
                Some(record) => records.push(record.clone()),
                None => {
                    let found = self
                        .records
                        .range(expected..)
                        .next()
                        .map(|(position, _)| *position);
                    return Err(ReadError::Gap { expected, found });
                }
            }
        }
        Ok(records)
    }
}

impl Source for Shared {
    fn read_from(&self, from: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Stored>, ReadError>> {
        let inner = self.lock();
        let result = inner.reachable().and_then(|()| inner.read(from, limit));
        async move { result }.boxed()
    }

    fn last(&self) -> BoxFuture<'_, Result<u64, ReadError>> {
        let inner = self.lock();
        let result = inner.reachable().map(|()| inner.last);
        async move { result }.boxed()
    }

    fn wait_past(&self, position: u64) -> BoxFuture<'_, Result<(), ReadError>> {
        let mut last = self.last.subscribe();
        async move {
            // Closing is announced as the highest position there is, so that it wakes every follower.
            last.wait_for(|last| *last > position)
                .await
                .map(|_| ())
                .map_err(|_| ReadError::Closed)
        }
        .boxed()
    }
}

impl EventLog for MemoryLog {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Outcome, AppendError>> {
        async move { self.append_now(append) }.boxed()
    }

    fn append_all(&self, appends: Vec<Append>) -> BoxFuture<'_, Vec<Result<Outcome, AppendError>>> {
        async move {
            appends
                .into_iter()
                .map(|append| self.append_now(append))
                .collect()
        }
        .boxed()
    }

    fn read(&self, from: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Stored>, ReadError>> {
        async move { self.shared.read_from(from, limit).await }.boxed()
    }

    fn follow(&self, after: u64) -> BoxStream<'static, Result<Stored, ReadError>> {
        follow::follow(self.shared.clone(), after)
    }

    fn tail<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<Option<Stored>, ReadError>> {
        async move {
            let inner = self.shared.lock();
            inner.reachable()?;
            let Some(&position) = inner.tails.get(subject) else {
                return Ok(None);
            };
            match inner.records.get(&position) {
                Some(record) => Ok(Some(record.clone())),
                None => Err(ReadError::Gap {
                    expected: position,
                    found: None,
                }),
            }
        }
        .boxed()
    }

    fn last_position(&self) -> BoxFuture<'_, Result<u64, ReadError>> {
        async move { self.shared.last().await }.boxed()
    }

    fn name(&self) -> String {
        "log in memory".into()
    }

    fn warnings(&self) -> Vec<String> {
        vec!["the log is kept in memory only: it ends with this process".into()]
    }

    fn put_lease(&self, key: &str, value: Bytes, ttl: Duration) -> BoxFuture<'_, Result<(), LeaseError>> {
        let key = key.to_owned();
        async move {
            check_lease(&key, ttl)?;
            let mut inner = self.shared.lock();
            if inner.closed {
                return Err(LeaseError::Closed);
            }
            inner.revision += 1;
            let lease = Lease {
                key: key.clone(),
                value,
                revision: inner.revision,
            };
            inner.leases.insert(key, (lease, Instant::now() + ttl));
            Ok(())
        }
        .boxed()
    }

    fn leases(&self) -> BoxFuture<'_, Result<Vec<Lease>, LeaseError>> {
        async move {
            let mut inner = self.shared.lock();
            if inner.closed {
                return Err(LeaseError::Closed);
            }
            let now = Instant::now();
            inner.leases.retain(|_, (_, until)| *until > now);
            Ok(inner.leases.values().map(|(lease, _)| lease.clone()).collect())
        }
        .boxed()
    }

    fn drop_lease(&self, key: &str) -> BoxFuture<'_, Result<(), LeaseError>> {
        let key = key.to_owned();
        async move {
            let mut inner = self.shared.lock();
            if inner.closed {
                return Err(LeaseError::Closed);
            }
            inner.leases.remove(&key);
            Ok(())
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.shared.lock().closed = true;
            self.shared.last.send_replace(u64::MAX);
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::conformance::{self, MemoryStore, event};

    conformance::suite!(MemoryStore::start());

    #[tokio::test]
    async fn a_hole_stops_readers_and_followers() {
        let log = MemoryLog::new();
        for n in 0..3 {
            log.append(Append::one(event("t.a", n), None)).await.unwrap();
        }
        let mut follower = log.follow(0);
        log.lose(2);
        assert!(matches!(
            log.read(1, 10).await,
            Err(ReadError::Gap {
                expected: 2,
                found: Some(3)
            })
        ));
        assert!(matches!(
            follower.next().await,
            Some(Err(ReadError::Gap { expected: 2, .. }))
        ));
        assert!(
            follower.next().await.is_none(),
            "nothing may be handed out behind a hole"
        );
    }
}
