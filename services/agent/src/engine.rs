//! The agent's loop: builds what the plan needs to know, takes its steps, and asks again.
//!
//! One task owns everything that is decided here. What takes time elsewhere (the stream, requests, a way
//! back) runs beside it and comes in as news, through bounded channels. Nothing is remembered that is not
//! on disk, except what a new start must find out anew: proofs, reports, and whether a gateway was heard.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use domain::{
    AuthorityType, BootId, Position, SpkiPin, Timestamp,
    fact::Failure,
    reconcile::{Generation, Have, Proof, Step, presentable, reconcile},
};
use mtls::SessionRegistry;
use runtime::clock::SharedClock;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Shared,
    attempt::Attempt,
    config::Config,
    disk::{
        DataDir, DiskError, Identity,
        beside::Beside,
        credential::Credential,
        generations::{Link, Stored},
        requests::Request,
        trust::Told,
    },
    enter::Joined,
    error::AgentError,
    link::{self, Dial, News},
    tls,
};

mod facts;
mod mend;
mod news;
mod proof;
mod publish;
mod sshd;
mod steps;

/// News between two rounds of the plan: a desired state and a few certificates. When it is full the link
/// waits, and what it then reads is newer.
const NEWS_BOUND: usize = 16;
/// Rounds of the plan before the loop listens to the world again: a rotation's longest way has six.
const MAX_ROUNDS: usize = 16;

/// The agent at work, after it has joined.
pub(crate) struct Engine {
    config: Config,
    clock: SharedClock,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
    disk: DataDir,
    identity: Identity,
    /// What gateways and bundles have told; on disk as well.
    told: Told,
    /// What they told last, verified, which the disk has refused so far: nothing of it counts yet. With it, whether
    /// it names every row.
    pending: Option<(Told, bool)>,
    installed: Stored,
    passed: Option<Stored>,
    /// Where no generation was whole at the start: what could be read of them, to prove who this is.
    salvaged: Vec<Credential>,
    requests: Vec<Request>,
    sshd: sshd::Sshd,
    /// Whether hooks and handshake agree with what is installed.
    proof: Proof,
    /// Is what is installed the last one that passed, put back after a failure?
    restored: bool,
    /// What the reload hooks have seen.
    hooked: Option<Generation>,
    /// What they have seen beside certificates.
    hooked_beside: BTreeMap<AuthorityType, Beside>,
    failure: Option<Failure>,
    /// Types that the configuration uses and the grant does not give.
    ungranted: BTreeSet<AuthorityType>,
    /// No new installation before this, after a failure.
    install: Attempt,
    /// What the disk has refused is written again, and what the proof could not find out is tried again, after this.
    again: Attempt,
    serving: bool,
    listen: Option<std::net::SocketAddr>,
    synced: bool,
    started: Duration,
    /// A gateway refused this node, or showed an issuer that is not trusted, and none has taken it since: it
    /// does not serve what it has, however silent it gets afterwards.
    turned_away: bool,
    draining: Option<(SpkiPin, Instant)>,
    report: facts::Reporter,
    boot: BootId,
    renew_permille: u16,
    refused: BTreeSet<SpkiPin>,
    /// Sessions with gateways, apart from those with other nodes: they are ours to end at once.
    gateways: SessionRegistry,
    dial: watch::Sender<Option<Dial>>,
    dials: u64,
    news: mpsc::Receiver<News>,
    tasks: JoinSet<Done>,
    /// Pauses between attempts, per request.
    asking: BTreeMap<SpkiPin, Attempt>,
    /// No new key before this, after a request was refused.
    request: Attempt,
    mending: mend::Mending,
    server: usize,
    connected: bool,
    trouble: Option<String>,
    saved: Option<(crate::status::AgentStatus, Duration)>,
}

/// What a task beside the loop has come to.
pub(crate) enum Done {
    /// The link or a listener ended, which they do only with the agent.
    Ended,
    /// Sessions on a retiring issuer have ended.
    Drained(SpkiPin),
    /// Sessions on an issuer that is trusted no more were closed.
    Closed,
    /// A certificate was asked for.
    Asked {
        dial: u64,
        spki: SpkiPin,
        result: Result<api::node::CertificateAnswer, crate::gateway::Trouble>,
    },
    /// A certificate for sshd was asked for.
    SshdAsked {
        dial: u64,
        id: domain::CommandId,
        result: Result<api::node::CertificateAnswer, crate::gateway::Trouble>,
    },
    /// Facts were reported.
    Reported {
        dial: u64,
        what: Box<facts::Reportable>,
        result: Result<(), crate::gateway::Trouble>,
    },
    /// A bundle was fetched.
    Bundle(Result<domain::trust::SignedBundle, crate::gateway::Trouble>),
    /// A way back was tried with this key.
    Returned {
        spki: SpkiPin,
        rejoining: bool,
        way: crate::enter::WayBack,
    },
}

impl Engine {
    /// Reads what is on disk and begins: an agent that has just joined, or one that is started again.
    pub(crate) fn new(
        config: Config,
        clock: SharedClock,
        shared: Arc<Shared>,
        disk: DataDir,
        joined: Joined,
        is_fresh: bool,
        shutdown: CancellationToken,
    ) -> Result<Self, AgentError> {
        let passed = passed(&disk);
        let installed = installed(&disk, passed.as_ref())?;
        let is_lost = installed.number == 0 && !is_fresh;
        let salvaged = if is_lost { disk.salvage() } else { vec![] };
        let requests = disk.requests()?;
        let pace = config.pace.clone();
        let seed = runtime::backoff::random_seed();
        let mut tasks = JoinSet::new();
        let (news, dial) = hold_link(&mut tasks, &config, seed);
        let mut engine = Self {
            started: clock.monotonic(),
            turned_away: false,
            install: Attempt::after_failures(&pace),
            again: Attempt::after_failures(&pace),
            request: Attempt::new(&pace),
            sshd: sshd::Sshd::new(&pace),
            report: facts::Reporter::new(&pace),
            mending: mend::Mending::new(&pace),
            renew_permille: 450 + (seed % 101) as u16,
            boot: BootId(crate::enter::fresh_uuid(Timestamp(clock.now_ms()))),
            gateways: SessionRegistry::new(),
            refused: BTreeSet::new(),
            asking: BTreeMap::new(),
            told: joined.told,
            pending: None,
            identity: joined.identity,
            // The answer to a join is the row that a gateway named, just now.
            synced: is_fresh,
            restored: false,
            hooked: None,
            hooked_beside: BTreeMap::new(),
            failure: None,
            ungranted: BTreeSet::new(),
            serving: false,
            listen: None,
            draining: None,
            server: 0,
            dials: 0,
            connected: false,
            trouble: None,
            saved: None,
            config,
            clock,
            shared,
            shutdown,
            disk,
            installed,
            passed,
            salvaged,
            requests,
            // What was tried in a process that ended is tried anew; only what has passed need not be.
            proof: Proof::Due,
            dial,
            news,
            tasks,
        };
        engine.resume_rejoin()?;
        engine.compare_uses();
        engine.apply_epoch()?;
        Ok(engine)
    }

    /// Works until it is told to stop, or cannot go on.
    pub(crate) async fn run(mut self) -> Result<(), AgentError> {
        let ended = self.work().await;
        self.tasks.shutdown().await;
        self.shared.sessions.close_all();
        self.publish(Some(&ended));
        ended
    }

    async fn work(&mut self) -> Result<(), AgentError> {
        let (sessions, now) = (self.shared.sessions.clone(), tls::now(&self.clock));
        self.tasks.spawn(async move {
            sessions.watch_expiry(now).await;
            Done::Ended
        });
        let mut tick = tokio::time::interval(self.config.pace.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (shutdown, shared) = (self.shutdown.clone(), self.shared.clone());
        while !shutdown.is_cancelled() {
            self.converge().await?;
            self.publish(None);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                Some(news) = self.news.recv() => self.hear(news)?,
                Some(done) = self.tasks.join_next() => {
                    self.finish(done.expect("a task of the agent does not panic and is not aborted"))?;
                }
                () = shared.reload.notified() => self.reload(),
                _ = tick.tick() => {}
            }
        }
        Ok(())
    }

    /// Takes the plan's steps until none is left that can be taken now.
    async fn converge(&mut self) -> Result<(), AgentError> {
        self.adopt_pending()?;
        self.read_sshd_key();
        for _ in 0..MAX_ROUNDS {
            let mut steps = reconcile(&self.have(), &self.told.desired);
            self.sshd.is_settled(&steps);
            if self.report_waits(&steps) {
                steps.retain(|step| *step != Step::Report);
            }
            let mut is_changed = false;
            for step in steps {
                is_changed = self.take(step).await?;
                if is_changed {
                    break;
                }
            }
            self.redial()?;
            if !is_changed || self.shutdown.is_cancelled() {
                break;
            }
        }
        self.ask_again();
        self.ask_for_sshd_again();
        self.report_failure();
        self.mend()
    }

    /// What the plan needs to know.
    fn have(&self) -> Have {
        let row = self.told.desired.authorities.get(&AuthorityType::Host);
        let excluded = row.map(|row| row.excluded_peers.clone()).unwrap_or_default();
        let (ours, theirs) = (
            self.gateways.issuers(&excluded),
            self.shared.sessions.issuers(&excluded),
        );
        let holding: BTreeSet<_> = [ours.required, ours.others, theirs.required, theirs.others]
            .into_iter()
            .flatten()
            .collect();
        let with_excluded: BTreeSet<_> = ours.excluded.into_iter().chain(theirs.excluded).collect();
        Have {
            now: self.now(),
            installed: self.installed.material.generation.clone(),
            proof: self.proof,
            last_passed: self.passed.as_ref().map(|p| p.material.generation.clone()),
            received: self.received(),
            in_flight: self.requests.iter().filter_map(Request::in_flight).collect(),
            sshd: self.sshd_in_plan(),
            serving: self.serving,
            synced: self.synced,
            since_start_ms: if self.turned_away {
                0
            } else {
                self.since_start_ms()
            },
            only_excluded_on: with_excluded.difference(&holding).copied().collect(),
            sessions_on: holding.union(&with_excluded).copied().collect(),
            draining: self.draining.map(|(issuer, _)| issuer),
            reported: self.report.reported(),
            renew_permille: self.renew_permille,
        }
    }

    fn since_start_ms(&self) -> u64 {
        let since = self.clock.monotonic().saturating_sub(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    /// Certificates that came and are not installed.
    fn received(&self) -> Vec<domain::reconcile::Leaf> {
        let is_installed = |spki| leaves(&self.installed.material.generation).any(|l| l.spki == spki);
        let received = self.requests.iter().filter_map(|r| r.received.as_ref());
        received
            .map(|c| &c.leaf)
            .filter(|leaf| !is_installed(leaf.spki))
            .cloned()
            .collect()
    }

    /// Gives the link what to dial with, if that has changed: the certificate of the last generation that
    /// passed, and the authorities of the newest signed bundle.
    fn redial(&mut self) -> Result<(), AgentError> {
        let anchors: Vec<_> = self.host_anchors();
        let trusted: BTreeSet<_> = anchors.iter().map(pki::CaCert::pin).collect();
        let chosen = loop {
            let have = self.have();
            let Some(leaf) = presentable(&have, &self.refused).cloned() else {
                break None;
            };
            if trusted.contains(&leaf.issuer) {
                break Some(leaf.spki);
            }
            // Its authority is retired: no gateway takes it any more, so it is not even tried.
            self.refused.insert(leaf.spki);
        };
        let before = self
            .dial
            .borrow()
            .as_ref()
            .map(|d| (d.number, d.presents, d.epochs.load().trusted(AuthorityType::Host)));
        let Some(spki) = chosen else {
            if before.is_some() {
                self.dial.send_replace(None);
                self.connected = false;
            }
            return Ok(());
        };
        if before
            .as_ref()
            .is_some_and(|(_, presents, trusts)| *presents == spki && *trusts == trusted)
        {
            return Ok(());
        }
        let credential = self.credential(&spki).cloned();
        let epochs = tls::to_gateways(anchors, credential.as_ref(), tls::now(&self.clock))
            .map_err(|e| AgentError::Certificates(crate::gateway::in_words(&e)))?;
        let dial = Dial {
            number: self.next_dial(),
            presents: spki,
            epochs,
            cluster: self.identity.cluster.clone(),
            registry: self.gateways.clone(),
        };
        self.dial.send_replace(Some(dial));
        Ok(())
    }

    fn next_dial(&mut self) -> u64 {
        self.dials += 1;
        self.dials
    }

    /// The authorities of the newest signed bundle of `host`.
    fn host_anchors(&self) -> Vec<pki::CaCert> {
        self.told.host_authorities()
    }

    /// A certificate with its key, wherever it is kept.
    fn credential(&self, spki: &SpkiPin) -> Option<&Credential> {
        let materials = [Some(&self.installed), self.passed.as_ref()]
            .into_iter()
            .flatten()
            .map(|s| &s.material);
        let kept = materials.flat_map(|m| m.client.iter().chain(&m.server));
        let received = self.requests.iter().filter_map(|r| r.received.as_ref());
        kept.chain(received)
            .chain(&self.salvaged)
            .find(|c| c.leaf.spki == *spki)
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }
}

/// Both leaves of a generation, where it has them.
fn leaves(generation: &Generation) -> impl Iterator<Item = &domain::reconcile::Leaf> {
    generation.client.iter().chain(&generation.server)
}

/// Holds the connection to a gateway beside everything else: what comes by it, and how to dial it anew.
fn hold_link(
    tasks: &mut JoinSet<Done>,
    config: &Config,
    seed: u64,
) -> (mpsc::Receiver<News>, watch::Sender<Option<Dial>>) {
    let (sender, news) = mpsc::channel(NEWS_BOUND);
    let (dial, dialled) = watch::channel(None);
    let held = link::hold(config.servers.clone(), dialled, sender, config.pace.clone(), seed);
    tasks.spawn(async move {
        held.await;
        Done::Ended
    });
    (news, dial)
}

/// The last generation that passed. One that is damaged is none: there is then nothing to go back to.
fn passed(disk: &DataDir) -> Option<Stored> {
    disk.generation(Link::Passed).unwrap_or_else(|error| {
        tracing::warn!(%error, "the last proven generation cannot be used");
        None
    })
}

/// The live generation; where it is damaged, the last one that passed takes its place, and where that is as well, an
/// empty one: the way back leads from there to new certificates.
fn installed(disk: &DataDir, passed: Option<&Stored>) -> Result<Stored, DiskError> {
    let nothing = || Stored {
        number: 0,
        material: Default::default(),
    };
    match (disk.generation(Link::Current), passed) {
        (Ok(Some(stored)), _) => Ok(stored),
        (Ok(None), None) => Ok(nothing()),
        (Err(error @ DiskError::Damaged { .. }), None) => {
            tracing::error!(%error, "no generation is whole; looking for the way back");
            Ok(nothing())
        }
        (Ok(None) | Err(DiskError::Damaged { .. }), Some(passed)) => {
            tracing::warn!(
                generation = passed.number,
                "the live generation is damaged; the last proven one is restored"
            );
            disk.point(Link::Current, passed.number)?;
            Ok(passed.clone())
        }
        (Err(error), _) => Err(error),
    }
}

/// The revision of `host` in a generation, for people.
fn host_revision(generation: &Generation) -> Option<Position> {
    generation.revisions.get(&AuthorityType::Host).copied()
}
