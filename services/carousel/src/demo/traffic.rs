//! The traffic of the demo: fresh mTLS connections between random pairs, all the time, and what became of them.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use api::shape::Whoami;
use cli::{connect::Session, failure::in_words};
use domain::{ClusterName, NodeId, SpkiPin, Timestamp};
use mtls::{Epochs, Expect, SessionRegistry, probe};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::screen::grouped;

/// Connections that are being made at once. A few suffice to keep two cores busy; more would only queue.
const WORKERS: usize = 4;
/// Failures that are kept with their circumstances; all are counted.
const FAILURES_KEPT: usize = 100;
/// How many seconds of load the picture shows.
pub(super) const LOAD_SECONDS: usize = 20;

/// A node as its peers dial it.
#[derive(Clone)]
pub(super) struct Peer {
    /// `n01`.
    pub name: String,
    /// Its id: the dialler insists on it.
    pub node: NodeId,
    /// Where it listens.
    pub addr: String,
    /// What it trusts and presents, as its agent has it at the moment of a connection.
    pub epochs: Epochs,
    /// Its agent's sessions: a rotation drains these too.
    pub sessions: SessionRegistry,
}

/// One failed connection.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub at: Timestamp,
    pub from: String,
    pub to: String,
    pub phase: &'static str,
    pub reason: String,
    pub presented: Option<SpkiPin>,
}

/// How many were tried, and how many of them failed.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Tally {
    pub total: u64,
    pub failed: u64,
}

/// What has been counted so far.
#[derive(Clone, Default)]
pub(super) struct Counts {
    pub handshakes: Tally,
    /// Credentials that were signed by hand and shown to a node; none in most rotations.
    pub credentials: Tally,
    pub failures: Vec<Failure>,
    /// Handshakes and credentials in each of the last seconds, oldest first.
    pub load: VecDeque<u32>,
    /// Certificates seen on the wire in the last second: of the old and of the new authority.
    pub old_ca: u64,
    pub new_ca: u64,
    /// Times of the last handshakes, for percentiles.
    pub(super) recent: VecDeque<Duration>,
}

impl Counts {
    /// Of either.
    pub(super) fn failed(&self) -> u64 {
        self.handshakes.failed + self.credentials.failed
    }

    /// `61,204 handshakes`, or `61,204 handshakes and 230 credentials`.
    pub(super) fn in_words(&self) -> String {
        let handshakes = format!("{} handshakes", grouped(self.handshakes.total));
        match self.credentials.total {
            0 => handshakes,
            credentials => format!("{handshakes} and {} credentials", grouped(credentials)),
        }
    }

    /// The given percentile of recent handshakes in milliseconds.
    pub(super) fn percentile_ms(&self, percent: usize) -> f64 {
        let mut sorted: Vec<_> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(0.0, |d| d.as_secs_f64() * 1_000.0)
    }

    /// Handshakes and credentials per second, over the last whole seconds.
    pub(super) fn rate(&self) -> u32 {
        let last: Vec<_> = self.load.iter().rev().skip(1).take(3).collect();
        if last.is_empty() {
            0
        } else {
            last.iter().copied().sum::<u32>() / last.len() as u32
        }
    }
}

/// The running traffic.
pub(super) struct Traffic {
    counts: Arc<Mutex<Live>>,
    phase: Arc<Mutex<&'static str>>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

struct Live {
    counts: Counts,
    began: Instant,
    second: u64,
    window: (Instant, u64, u64),
    old: Option<SpkiPin>,
    shown: Wire,
}

/// Whose certificates the picture counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wire {
    /// Those of nodes, both sides of each connection.
    Nodes,
    /// Those of the operator who looks in at the gateway.
    Operators,
    /// Those that are signed by hand for an application.
    Credentials,
}

/// Where what became of a connection, or of a credential that was shown, is noted.
#[derive(Clone)]
pub(super) struct Note {
    counts: Arc<Mutex<Live>>,
    phase: Arc<Mutex<&'static str>>,
}

impl Note {
    /// It was taken, with certificates of these authorities.
    pub(super) fn succeeded(&self, took: Duration, issuers: &[SpkiPin], wire: Wire) {
        let mut live = self.counts.lock().expect("no panic while held");
        live.succeeded(took, issuers, wire);
    }

    /// It was not.
    pub(super) fn failed(&self, failure: Failure, wire: Wire) {
        self.counts
            .lock()
            .expect("no panic while held")
            .failed(failure, wire);
    }

    /// The phase that is on.
    pub(super) fn phase(&self) -> &'static str {
        *self.phase.lock().expect("no panic while held")
    }
}

impl Traffic {
    /// Starts connections between random pairs of `peers`. The operator of `identity` looks in at the gateway as well.
    pub(super) fn start(
        cluster: ClusterName,
        peers: Vec<Peer>,
        identity: PathBuf,
        seed: u64,
        now: execution::Now,
    ) -> Self {
        let live = Live {
            counts: Counts {
                load: VecDeque::from([0]),
                ..Counts::default()
            },
            began: Instant::now(),
            second: 0,
            window: (Instant::now(), 0, 0),
            old: None,
            shown: Wire::Nodes,
        };
        let mut traffic = Self {
            counts: Arc::new(Mutex::new(live)),
            phase: Arc::new(Mutex::new("standby")),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
        };
        let peers = Arc::new(peers);
        for worker in 0..WORKERS {
            let rng = StdRng::seed_from_u64(seed.wrapping_add(worker as u64));
            let load = Load {
                cluster: cluster.clone(),
                peers: peers.clone(),
                note: traffic.note(),
                now: now.clone(),
            };
            traffic.tasks.spawn(load.run(rng, traffic.stop.clone()));
        }
        let operator = Operator {
            identity,
            note: traffic.note(),
            now,
        };
        traffic.tasks.spawn(operator.run(traffic.stop.clone()));
        traffic
    }

    /// Where others note what they see.
    pub(super) fn note(&self) -> Note {
        Note {
            counts: self.counts.clone(),
            phase: self.phase.clone(),
        }
    }

    /// From here on this is the authority that is being replaced.
    pub(super) fn replace(&self, old: Option<SpkiPin>, shown: Wire) {
        let mut live = self.counts.lock().expect("no panic while held");
        live.old = old;
        live.shown = shown;
        live.window = (Instant::now(), 0, 0);
    }

    /// The phase that failures are noted under.
    pub(super) fn set_phase(&self, phase: &'static str) {
        *self.phase.lock().expect("no panic while held") = phase;
    }

    /// What has been counted.
    pub(super) fn counts(&self) -> Counts {
        self.counts.lock().expect("no panic while held").counts.clone()
    }

    /// Ends it, after the connections at hand.
    pub(super) async fn stop(mut self) -> Counts {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        self.counts()
    }
}

struct Load {
    cluster: ClusterName,
    peers: Arc<Vec<Peer>>,
    note: Note,
    now: execution::Now,
}

impl Load {
    async fn run(self, mut rng: StdRng, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let from = rng.random_range(0..self.peers.len());
            let to = (from + rng.random_range(1..self.peers.len())) % self.peers.len();
            self.connect(&self.peers[from], &self.peers[to]).await;
        }
    }

    /// One fresh connection with bytes exchanged: with TLS 1.3 only those prove that both sides agreed.
    async fn connect(&self, from: &Peer, to: &Peer) {
        let epoch = from.epochs.load();
        let presented = epoch.client().map(|c| c.issuer());
        let expect = Expect::Node {
            cluster: self.cluster.clone(),
            node: to.node,
        };
        let began = Instant::now();
        let result = probe(&to.addr, &from.epochs, &from.sessions, &expect).await;
        let took = began.elapsed();
        match result {
            Ok(result) => {
                let seen: Vec<_> = presented.into_iter().chain([result.identity.issuer]).collect();
                self.note.succeeded(took, &seen, Wire::Nodes);
            }
            Err(error) => {
                let failure = Failure {
                    at: (self.now)(),
                    from: from.name.clone(),
                    to: to.name.clone(),
                    phase: self.note.phase(),
                    reason: in_words(&error),
                    presented,
                };
                self.note.failed(failure, Wire::Nodes);
            }
        }
    }
}

/// Somebody who looks in every now and then, with a fresh connection each time.
struct Operator {
    identity: PathBuf,
    note: Note,
    now: execution::Now,
}

impl Operator {
    async fn run(self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            self.look_in().await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(Duration::from_millis(25)) => {}
            }
        }
    }

    async fn look_in(&self) {
        let (clock, began) = (self.now.clone(), Instant::now());
        let answer = match Session::open(&self.identity, None, mtls::Now::new(move || clock().0)) {
            Ok(session) => session.get::<Whoami>(api::route::WHOAMI).await,
            Err(error) => Err(error),
        };
        let took = began.elapsed();
        match answer {
            Ok(me) => self.note.succeeded(took, &[me.issuer], Wire::Operators),
            Err(error) => {
                let failure = Failure {
                    at: (self.now)(),
                    from: "operator".into(),
                    to: "gateway".into(),
                    phase: self.note.phase(),
                    reason: in_words(&error),
                    presented: None,
                };
                self.note.failed(failure, Wire::Operators);
            }
        }
    }
}

impl Live {
    fn succeeded(&mut self, took: Duration, issuers: &[SpkiPin], wire: Wire) {
        self.count(wire);
        // The times are shown as those of handshakes; a credential is made by several.
        if wire != Wire::Credentials {
            if self.counts.recent.len() >= 2_000 {
                self.counts.recent.pop_front();
            }
            self.counts.recent.push_back(took);
        }
        let (since, mut old, mut new) = self.window;
        for issuer in issuers.iter().filter(|_| wire == self.shown) {
            if Some(*issuer) == self.old {
                old += 1
            } else {
                new += 1
            }
        }
        self.window = (since, old, new);
        // The window is short, so that the picture turns with the wire and not behind it.
        if since.elapsed() >= Duration::from_millis(500) {
            (self.counts.old_ca, self.counts.new_ca) = (old, new);
            self.window = (Instant::now(), 0, 0);
        }
    }

    fn failed(&mut self, failure: Failure, wire: Wire) {
        self.count(wire).failed += 1;
        if self.counts.failures.len() < FAILURES_KEPT {
            self.counts.failures.push(failure);
        }
    }

    /// One more, and the tally it belongs to.
    fn count(&mut self, wire: Wire) -> &mut Tally {
        let second = self.began.elapsed().as_secs();
        while self.second < second {
            self.second += 1;
            self.counts.load.push_back(0);
            if self.counts.load.len() > LOAD_SECONDS {
                self.counts.load.pop_front();
            }
        }
        if let Some(current) = self.counts.load.back_mut() {
            *current += 1;
        }
        let tally = match wire {
            Wire::Nodes | Wire::Operators => &mut self.counts.handshakes,
            Wire::Credentials => &mut self.counts.credentials,
        };
        tally.total += 1;
        tally
    }
}
