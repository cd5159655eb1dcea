//! What every log does, whatever it is kept in.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};

use crate::{Append, AppendError, Lease, LeaseError, Outcome, ReadError, Stored, Subject};

/// A log shared by all parts of a process.
pub type SharedLog = Arc<dyn EventLog>;

/// An append-only sequence of events with one total order, from position 1 without gaps.
///
/// Every method may be called from many tasks at once. A future that is dropped half way says nothing about
/// its effect: an append may still be stored, exactly as if its answer had been lost.
pub trait EventLog: Send + Sync {
    /// Stores all events of the append, or none of them, and answers once they are durable.
    ///
    /// [`Outcome::Unknown`] is a normal answer of a network: see [`append_certainly`](crate::append_certainly).
    fn append(&self, append: Append) -> BoxFuture<'_, Result<Outcome, AppendError>>;

    /// Stores independent appends together, because durability costs the same for one as for many.
    ///
    /// Each is atomic by itself and has its own answer, in the order given; they take effect in that order
    /// where they share a subject.
    fn append_all(&self, appends: Vec<Append>) -> BoxFuture<'_, Vec<Result<Outcome, AppendError>>>;

    /// Reads at most `limit` records from position `from` on, up to what was durable when it was called.
    ///
    /// Only an empty answer means the end of the log; a hole in the positions is [`ReadError::Gap`].
    fn read(&self, from: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Stored>, ReadError>>;

    /// Everything after position `after`, in order, and then whatever is appended later.
    ///
    /// It outlives lost connections without repeating or skipping a record. After an error it ends: what
    /// follows a hole is not handed out, so that nobody builds a state on it.
    fn follow(&self, after: u64) -> BoxStream<'static, Result<Stored, ReadError>>;

    /// The last record on this literal subject, read where appends are decided, so never stale.
    fn tail<'a>(&'a self, subject: &'a Subject) -> BoxFuture<'a, Result<Option<Stored>, ReadError>>;

    /// The position of the last record, 0 while the log is empty; never stale.
    fn last_position(&self) -> BoxFuture<'_, Result<u64, ReadError>>;

    /// What a person would call this log; without credentials.
    fn name(&self) -> String;

    /// What an operator should know about this store's durability; empty when there is nothing to say.
    fn warnings(&self) -> Vec<String>;

    /// Writes or renews a liveness record that vanishes by itself `ttl` after its last renewal.
    ///
    /// A lease is not an event: it lies beside the log, may be overwritten and lost, and proves nothing later.
    /// Keys consist of letters, digits, `-`, `_` and `.`; the ttl is between one second and an hour.
    fn put_lease(&self, key: &str, value: Bytes, ttl: Duration) -> BoxFuture<'_, Result<(), LeaseError>>;

    /// All leases that have not vanished yet, sorted by key.
    fn leases(&self) -> BoxFuture<'_, Result<Vec<Lease>, LeaseError>>;

    /// Removes a lease; removing one that is not there is no error.
    fn drop_lease(&self, key: &str) -> BoxFuture<'_, Result<(), LeaseError>>;

    /// Finishes what was accepted, then refuses everything with `Closed` and lets go of the store.
    fn close(&self) -> BoxFuture<'_, ()>;
}
