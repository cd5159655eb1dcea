//! Every session that stands: so that a change of trust reaches those too, and not new ones only.
//!
//! A connection outlives the certificates that it was made with. Whoever stops trusting an authority
//! must also close what stands on it, and a node must know that before it says it has reached a phase.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use domain::{NodeId, SpkiPin, Timestamp};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{epoch::TrustEpoch, error::TlsError, identity::PeerIdentity, now::Now};

/// The wall clock may jump; expiry is looked at no later than this after it is due.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// All sessions of a process; clones share them.
#[derive(Clone, Default)]
pub struct SessionRegistry {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    sessions: Mutex<Sessions>,
    next: AtomicU64,
    /// Changes whenever a session comes or goes, for those who wait for the last one.
    changed: watch::Sender<u64>,
}

/// The sessions, and the order in which their peers' certificates end.
#[derive(Default)]
struct Sessions {
    by_id: HashMap<u64, Arc<Entry>>,
    by_end: BTreeSet<(Timestamp, u64)>,
}

impl Sessions {
    fn insert(&mut self, id: u64, entry: Arc<Entry>) {
        self.by_end.extend(entry.end().map(|end| (end, id)));
        self.by_id.insert(id, entry);
    }

    fn remove(&mut self, id: u64) -> Option<Arc<Entry>> {
        let entry = self.by_id.remove(&id)?;
        if let Some(end) = entry.end() {
            self.by_end.remove(&(end, id));
        }
        Some(entry)
    }
}

struct Entry {
    peer: Option<PeerIdentity>,
    /// The issuer of what we presented in this session.
    own: Option<SpkiPin>,
    /// Did we trust that issuer ourselves when the session began? A person's tool does not.
    own_trusted: bool,
    drain: CancellationToken,
    close: CancellationToken,
}

impl Entry {
    /// When its peer's certificate ends.
    fn end(&self) -> Option<Timestamp> {
        self.peer.as_ref().map(|peer| peer.not_after)
    }

    /// Does the session stand on a certificate of this authority, on either side?
    fn stands_on(&self, issuer: SpkiPin) -> bool {
        self.own == Some(issuer) || self.peer.as_ref().is_some_and(|p| p.issuer == issuer)
    }

    /// Would the session come to be under this epoch?
    fn stands_under(&self, epoch: &TrustEpoch) -> Result<(), TlsError> {
        if let Some(peer) = &self.peer {
            epoch.still_accepts(peer)?;
        }
        match self.own {
            Some(issuer) if self.own_trusted && !epoch.trusts(issuer) => Err(TlsError::Changed),
            _ => Ok(()),
        }
    }
}

/// One session. Dropping it takes it off the registry: keep it as long as the connection.
pub struct Session {
    shared: Arc<Shared>,
    id: u64,
    entry: Arc<Entry>,
}

/// Sessions on one issuer, by what their peers are to a rotation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// With nodes and control-plane members that are not excluded.
    pub required: usize,
    /// With excluded nodes.
    pub excluded: usize,
    /// With people, external parties and anonymous callers.
    pub others: usize,
}

/// The issuers that sessions stand on, on either side.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Issuers {
    /// In sessions with nodes and members that are not excluded.
    pub required: BTreeSet<SpkiPin>,
    /// In sessions with excluded nodes.
    pub excluded: BTreeSet<SpkiPin>,
    /// In all other sessions.
    pub others: BTreeSet<SpkiPin>,
}

/// How a drain ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drained {
    /// Sessions that ended by themselves.
    pub ended: usize,
    /// Sessions that had to be closed.
    pub closed: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Required,
    Excluded,
    Other,
}

impl SessionRegistry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Enters a session that was made under this epoch; `own` is the issuer of what we presented.
    /// [`crate::accept`] and [`crate::connect`] do it by themselves.
    pub fn register(&self, peer: Option<PeerIdentity>, own: Option<SpkiPin>, epoch: &TrustEpoch) -> Session {
        let own_trusted = own.is_some_and(|issuer| epoch.trusts(issuer));
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let close = CancellationToken::new();
        let entry = Arc::new(Entry {
            peer,
            own,
            own_trusted,
            drain: close.child_token(),
            close,
        });
        self.lock().insert(id, entry.clone());
        self.shared.changed.send_modify(|n| *n += 1);
        Session {
            shared: self.shared.clone(),
            id,
            entry,
        }
    }

    /// How many sessions stand.
    pub fn len(&self) -> usize {
        self.lock().by_id.len()
    }

    /// Does none stand?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes every session that stands on what this epoch does not trust: the peer's certificate, or
    /// our own one of an authority that we trusted and no longer do. Returns how many. Call it after
    /// the epoch was stored ([`crate::Epochs::install`] does both in that order).
    pub fn close_untrusted(&self, epoch: &TrustEpoch) -> usize {
        self.close_where(|entry| entry.stands_under(epoch).is_err())
    }

    /// Closes every session; returns how many.
    pub fn close_all(&self) -> usize {
        self.close_where(|_| true)
    }

    /// Asks sessions on this issuer to end, waits, and closes what is left after the time.
    ///
    /// Holders see the request by [`Session::draining`]: HTTP servers shut down gracefully, our own
    /// streams are dialled anew at once.
    pub async fn drain(&self, issuer: SpkiPin, patience: Duration) -> Drained {
        let deadline = Instant::now() + patience;
        let mut changes = self.shared.changed.subscribe();
        let asked = self.ask_to_end(issuer);
        // Asked again at each change: a handshake under the epoch before may have come in meanwhile.
        while self.ask_to_end(issuer) > 0 {
            if timeout_at(deadline, changes.changed()).await.is_err() {
                break;
            }
        }
        let closed = self.close_where(|entry| entry.stands_on(issuer));
        Drained {
            ended: asked.saturating_sub(closed),
            closed,
        }
    }

    /// Asks sessions on this issuer to end and returns how many were asked, without waiting.
    pub fn ask_to_end(&self, issuer: SpkiPin) -> usize {
        let asked = self.select(|entry| entry.stands_on(issuer));
        asked.iter().for_each(|entry| entry.drain.cancel());
        asked.len()
    }

    /// Sessions on this issuer. "Zero or not" of `required` is what a node reports for `update_servers`.
    pub fn standing_on(&self, issuer: SpkiPin, excluded: &BTreeSet<NodeId>) -> Standing {
        let mut standing = Standing::default();
        for entry in self.select(|entry| entry.stands_on(issuer)) {
            match kind(&entry, excluded) {
                Kind::Required => standing.required += 1,
                Kind::Excluded => standing.excluded += 1,
                Kind::Other => standing.others += 1,
            }
        }
        standing
    }

    /// All issuers that sessions stand on.
    pub fn issuers(&self, excluded: &BTreeSet<NodeId>) -> Issuers {
        let mut issuers = Issuers::default();
        for entry in self.select(|_| true) {
            let of_kind = match kind(&entry, excluded) {
                Kind::Required => &mut issuers.required,
                Kind::Excluded => &mut issuers.excluded,
                Kind::Other => &mut issuers.others,
            };
            of_kind.extend(entry.own.into_iter().chain(entry.peer.as_ref().map(|p| p.issuer)));
        }
        issuers
    }

    /// Closes sessions whose peer's certificate has expired; returns how many.
    pub fn close_expired(&self, now: Timestamp) -> usize {
        let mut sessions = self.lock();
        let mut expired = Vec::new();
        while let Some((end, id)) = sessions.by_end.first().copied()
            && end <= now
        {
            sessions.by_end.pop_first();
            expired.extend(sessions.by_id.remove(&id));
        }
        drop(sessions);
        self.let_go(&expired)
    }

    /// Closes sessions as their peers' certificates expire, which TLS by itself never does. Runs until
    /// it is dropped: put it in the process's `JoinSet`.
    pub async fn watch_expiry(&self, now: Now) {
        let mut changes = self.shared.changed.subscribe();
        loop {
            let at = now.timestamp();
            self.close_expired(at);
            // Looked at with every session that comes or goes: the next end is known, not searched for.
            let next = self.lock().by_end.first().map(|(end, _)| *end);
            let until = next.map_or(LONGEST_SLEEP, |t| Duration::from_millis(t.since_ms(at)));
            tokio::select! {
                () = sleep(until.min(LONGEST_SLEEP).max(Duration::from_millis(1))) => {}
                _ = changes.changed() => {}
            }
        }
    }

    /// Marks matching sessions closed and forgets them, so that they count no more even if their
    /// holders are slow to notice.
    fn close_where(&self, matches: impl Fn(&Entry) -> bool) -> usize {
        let mut sessions = self.lock();
        let ids = sessions.by_id.iter().filter(|(_, entry)| matches(entry));
        let ids: Vec<u64> = ids.map(|(id, _)| *id).collect();
        let closed: Vec<_> = ids.into_iter().filter_map(|id| sessions.remove(id)).collect();
        drop(sessions);
        self.let_go(&closed)
    }

    /// Ends sessions that are off the registry, and tells those who wait.
    fn let_go(&self, closed: &[Arc<Entry>]) -> usize {
        // Outside the lock: cancelling wakes tasks, and wakers are foreign code.
        closed.iter().for_each(|entry| entry.close.cancel());
        if !closed.is_empty() {
            self.shared.changed.send_modify(|n| *n += 1);
        }
        closed.len()
    }

    fn select(&self, matches: impl Fn(&Entry) -> bool) -> Vec<Arc<Entry>> {
        self.lock()
            .by_id
            .values()
            .filter(|entry| matches(entry))
            .cloned()
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.shared.lock()
    }
}

impl Shared {
    /// What is held stays consistent: nothing between two changes of it can panic.
    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SessionRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionRegistry({} sessions)", self.len())
    }
}

fn kind(entry: &Entry, excluded: &BTreeSet<NodeId>) -> Kind {
    match &entry.peer {
        Some(peer) if peer.node().is_some_and(|node| excluded.contains(&node)) => Kind::Excluded,
        Some(peer) if peer.may_be_required() => Kind::Required,
        _ => Kind::Other,
    }
}

impl Session {
    /// The second look, after the session was registered.
    pub(crate) fn check(&self, epoch: &TrustEpoch) -> Result<(), TlsError> {
        self.entry.stands_under(epoch)
    }

    /// Asks its holder to end it soon.
    pub(crate) fn ask_to_end(&self) {
        self.entry.drain.cancel();
    }

    /// Who is at the other end, as it was when the session began.
    pub fn peer(&self) -> Option<&PeerIdentity> {
        self.entry.peer.as_ref()
    }

    /// Resolves when the session must end now: stop reading and writing, and drop the connection.
    pub async fn closed(&self) {
        self.entry.close.cancelled().await;
    }

    /// Must it end now?
    pub fn is_closed(&self) -> bool {
        self.entry.close.is_cancelled()
    }

    /// Resolves when the session should end soon, or must end now.
    pub async fn draining(&self) {
        self.entry.drain.cancelled().await;
    }

    /// For tasks that outlive a borrow: cancelled when the session must end.
    pub fn close_token(&self) -> CancellationToken {
        self.entry.close.clone()
    }

    /// For tasks that outlive a borrow: cancelled when the session should end.
    pub fn drain_token(&self) -> CancellationToken {
        self.entry.drain.clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Gone already if it was closed.
        if self.shared.lock().remove(self.id).is_some() {
            self.shared.changed.send_modify(|n| *n += 1);
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer().map_or("anonymous", |p| p.uri.as_str());
        write!(f, "Session({} with {peer})", self.id)
    }
}
