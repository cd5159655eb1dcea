//! The gateway as a member: its own trust and certificates, its reports, and the right to serve.
//!
//! The order of trust against certificates is a node's: widen, certify, prove by holding, narrow. What is
//! reported is what is installed. The gateway serves agents and operators only from when it read back a
//! report that it made holding the row at the log's end, and only while its heartbeats are read back [M].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use domain::{AuthorityType, BootId, Code, Order, Principal, SpkiPin, command::Answer, fact::FactsByType};
use execution::{ExecuteError, fresh_id};
use mtls::{EpochError, Now};
use pki::{CertificateError, csr};
use runtime::backoff::{Backoff, random_seed};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

pub use credentials::CredentialError;

use crate::{app::App, reply::No};
use credentials::{Orphan, Store, Stored};
use epoch::Parts;
use heartbeat::{Heart, Missed};
use wanted::{Slot, Wanted};

mod credentials;
mod epoch;
mod heartbeat;
mod report;
mod wanted;

/// How often renewals and the right to serve are looked at when nothing else happens.
const LOOK: Duration = Duration::from_secs(1);
/// How long sessions on the retiring issuer may take to be dialled anew: our own peers do that at once.
const DRAIN: Duration = Duration::from_secs(5);
/// How often the drain is looked at.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

/// What keeps the member from holding its row. It tries again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Files(#[from] CredentialError),
    #[error("a CA certificate in the log cannot be used: {0}")]
    Anchor(#[from] CertificateError),
    #[error("the TLS configuration cannot be built: {0}")]
    Epoch(#[from] EpochError),
    #[error("{0}")]
    Execute(#[from] ExecuteError),
    #[error("{}", .0.0)]
    Answer(No),
    #[error("{}", crate::reply::in_words(.0))]
    Behind(#[from] execution::Behind),
    #[error("the row keeps changing")]
    Restless,
    #[error("a heartbeat was not read back: {0}")]
    Heartbeat(#[from] Missed),
}

/// The member's loop and what it holds.
pub(crate) struct Member {
    app: Arc<App>,
    heart: Arc<Heart>,
    store: Store,
    held: Vec<Stored>,
    in_flight: Vec<(Slot, Orphan)>,
    installed: Option<Wanted>,
    parts: Parts,
    boot: BootId,
    seq: u64,
    reported: Option<FactsByType>,
    /// Until when sessions on the retiring issuer are waited for.
    draining: Option<(SpkiPin, Instant)>,
}

impl Member {
    /// Reads what is on disk.
    pub(crate) fn open(app: Arc<App>) -> Result<Self, CredentialError> {
        let store = Store::open(&app.config.dir)?;
        let (held, orphans) = store.load()?;
        // Their certificates, if there are any, are asked for anew: a key that was never proven is no loss.
        for orphan in &orphans {
            store.discard(orphan)?;
        }
        let boot = BootId(fresh_id(app.now()));
        Ok(Self {
            heart: Arc::new(Heart::new(app.clone())),
            app,
            store,
            held,
            in_flight: vec![],
            installed: None,
            parts: Parts::default(),
            boot,
            seq: 0,
            reported: None,
            draining: None,
        })
    }

    /// Puts what is on disk in force, so that public documents can be served at once.
    pub(crate) fn install_what_is_there(&mut self) -> Result<(), Trouble> {
        let wanted = self.wanted();
        self.install(&wanted, true)
    }

    /// Begins, keeps, and after every lapse begins again, until the shutdown. `ready` turns true at the
    /// first beginning.
    pub(crate) async fn run(mut self, ready: watch::Sender<bool>) {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5), random_seed());
        let (shutdown, heart) = (self.app.shutdown.clone(), self.heart.clone());
        let live = async {
            self.live(&shutdown, &ready, &mut backoff).await;
            self.stop().await;
        };
        tokio::select! {
            () = live => {}
            () = heart.beat_on() => {}
        }
        heart.stop().await;
    }

    async fn live(
        &mut self,
        shutdown: &CancellationToken,
        ready: &watch::Sender<bool>,
        backoff: &mut Backoff,
    ) {
        while !shutdown.is_cancelled() {
            let began = tokio::select! {
                () = shutdown.cancelled() => return,
                began = self.begin() => began,
            };
            match began {
                Ok(()) => {
                    backoff.reset();
                    ready.send_replace(true);
                    tracing::info!(member = %self.app.config.member, "the gateway serves");
                    let why = self.keep().await;
                    self.app.serving.end(&why);
                    if shutdown.is_cancelled() {
                        return;
                    }
                    self.app
                        .metrics
                        .counter("carousel_member_lease_lapses_total", &[])
                        .inc();
                    tracing::error!(%why, "the gateway stopped serving and begins again");
                }
                Err(trouble) => {
                    self.app
                        .serving
                        .end(&format!("it does not hold the current row yet: {trouble}"));
                    tracing::warn!(%trouble, "the gateway cannot begin to serve yet; it tries again");
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(backoff.next_pause()) => {}
                    }
                }
            }
        }
    }

    /// Reports a start and goes on until a report made while it held the row at the log's end was read back.
    async fn begin(&mut self) -> Result<(), Trouble> {
        self.app.fold.catch_up(crate::app::PATIENCE).await?;
        // A new boot each time: the start is then an event for certain, and stands on whatever was written
        // about this member meanwhile (`member.lost` is conditional on the same subject).
        self.boot = BootId(fresh_id(self.app.now()));
        self.seq = 0;
        let wanted = self.wanted();
        self.install(&wanted, true)?;
        let mut sent = self.app.serving.stamp();
        self.start().await?;
        for _ in 0..8 {
            self.converge().await?;
            let mut reported = None;
            if self.report_is_due() {
                reported = Some(self.app.serving.stamp());
                self.report().await?;
            }
            self.app.fold.catch_up(crate::app::PATIENCE).await?;
            // One that said nothing new was not written: then the one before it counts, with its own time.
            sent = reported.filter(|_| self.is_read_back()).unwrap_or(sent);
            if self.is_current() && !self.report_is_due() && self.is_recorded() {
                self.heart.beat().await?;
                self.app.serving.begin(sent);
                self.app.hub.wake();
                return Ok(());
            }
        }
        Err(Trouble::Restless)
    }

    /// Keeps the row, the reports and the heartbeat. Returns why it may not serve any more.
    async fn keep(&mut self) -> String {
        let mut changes = self.app.fold.changes();
        let mut look = tokio::time::interval(LOOK);
        loop {
            let looks_at_drain = self.draining.is_some();
            tokio::select! {
                () = self.app.shutdown.cancelled() => return "the gateway is stopping".into(),
                changed = changes.changed() => if changed.is_err() { return "the fold is gone".into() },
                _ = look.tick() => {}
                () = tokio::time::sleep(DRAIN_LOOK), if looks_at_drain => {}
            }
            if let Some(why) = self.app.fold.failed() {
                return format!("the state stopped following the log: {why}");
            }
            if !self.is_recorded() {
                return "the log counts this member as lost or replaced".into();
            }
            if let Err(why) = self.app.serving.check() {
                return why;
            }
            if let Err(trouble) = self.follow().await {
                if let Trouble::Execute(ExecuteError::Refused(refusal)) = &trouble
                    && matches!(refusal.code, Code::MemberUnknown)
                {
                    return refusal.text.clone();
                }
                tracing::warn!(%trouble, "the gateway does not hold the current row yet; it tries again");
            }
        }
    }

    async fn follow(&mut self) -> Result<(), Trouble> {
        self.look_at_drain();
        if !self.is_current() || self.renewal_is_due() {
            self.converge().await?;
        }
        if self.report_is_due() {
            self.report().await?;
        }
        Ok(())
    }

    /// Closes the difference between what is installed and what the log asks for.
    async fn converge(&mut self) -> Result<(), Trouble> {
        for _ in 0..8 {
            let wanted = self.wanted();
            self.install(&wanted, true)?;
            let mut stale = false;
            for slot in wanted.slots() {
                if !self.has(&wanted, slot) && !self.obtain(slot).await? {
                    stale = true;
                    break;
                }
            }
            // The row may have moved on while the signer worked: what was certified may not be asked for now.
            if stale || self.wanted() != wanted {
                continue;
            }
            self.install(&wanted, false)?;
            self.settle(&wanted)?;
            return Ok(());
        }
        Err(Trouble::Restless)
    }

    /// Obtains one certificate; false if the row has moved on meanwhile.
    async fn obtain(&mut self, slot: Slot) -> Result<bool, Trouble> {
        let at = match self.in_flight.iter().position(|(s, _)| *s == slot) {
            Some(at) => at,
            None => {
                // Durable before the request is sent. A crash from here on leaves a key that the next start
                // throws away, and at most a certificate that nobody can use.
                self.in_flight.push((slot, self.store.new_key()?));
                self.in_flight.len() - 1
            }
        };
        let key =
            csr::parse_and_verify(&csr::make(&self.in_flight[at].1.key)).expect("our own request verifies");
        let order = Order::RequestCertificate {
            authority_type: AuthorityType::Host,
            usage: slot.usage,
            issuer: Some(slot.issuer),
            key,
            form: domain::authority::KeyKind::Tls,
        };
        let answered = match self.execute(order).await {
            Ok(answered) => answered,
            Err(ExecuteError::Refused(refusal)) if refusal.code == Code::StaleView => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Answer::Authorized { authorization } = answered else {
            let no = No::new(
                Code::Internal,
                "a request for a certificate was answered with something else",
            );
            return Err(Trouble::Answer(no));
        };
        let me = Principal::Gateway(self.app.config.member);
        let issued = match self.app.certificate(&me, authorization).await {
            Ok(issued) => issued,
            Err(no) if no.code() == Code::StaleView => {
                self.discard(at)?;
                return Ok(false);
            }
            Err(no) => return Err(Trouble::Answer(no)),
        };
        let (_, orphan) = self.in_flight.remove(at);
        self.held.push(self.store.install(&orphan, &issued.text)?);
        Ok(true)
    }

    fn discard(&mut self, at: usize) -> Result<(), Trouble> {
        let (_, orphan) = self.in_flight.remove(at);
        Ok(self.store.discard(&orphan)?)
    }

    /// Puts an epoch in force and closes the sessions that it no longer accepts.
    fn install(&mut self, wanted: &Wanted, widened: bool) -> Result<(), Trouble> {
        let certificates: Vec<_> = self.held.iter().map(|s| s.credential.clone()).collect();
        let now = self.app.now();
        let parts = Parts::of(wanted, &certificates, &self.parts, widened, now)?;
        let clock = self.app.clock.clone();
        let epoch = parts.build(wanted, Now::new(move || clock.now_ms()))?;
        let closed = self.app.epochs.install(epoch, &self.app.sessions);
        if closed > 0 {
            tracing::info!(
                closed,
                "sessions were closed because their certificates no longer count"
            );
        }
        self.parts = parts;
        Ok(())
    }

    /// The row is held whole: says so, forgets what it no longer needs, and asks sessions on the retiring
    /// issuer to be dialled anew.
    fn settle(&mut self, wanted: &Wanted) -> Result<(), Trouble> {
        let (now, slots) = (self.app.now(), wanted.slots());
        self.held.retain(|s| {
            slots
                .iter()
                .any(|slot| wanted.fills(*slot, s.credential.certificate(), now))
        });
        self.store.keep_only(&self.held)?;
        let revision = |w: &Wanted| w.host().map(|row| row.revision);
        let row_changed = self.installed.as_ref().and_then(revision) != revision(wanted);
        if let Some(row) = wanted.host().filter(|_| row_changed) {
            self.draining = row.retiring.map(|issuer| (issuer, Instant::now() + DRAIN));
            if let Some(issuer) = row.retiring {
                self.app.sessions.ask_to_end(issuer);
            }
        }
        self.installed = Some(wanted.clone());
        let rows: BTreeMap<_, _> = wanted.rows.iter().map(|(t, row)| (*t, row.revision)).collect();
        if self
            .app
            .held
            .send_if_modified(|held| std::mem::replace(held, rows.clone()) != rows)
        {
            self.app.hub.wake();
        }
        self.look_at_drain();
        Ok(())
    }

    /// Have the sessions from before the switch ended? Counted once per row: a node that lags and dials
    /// again with an old certificate is the node's own missing fact, not the gateway's.
    fn look_at_drain(&mut self) {
        let Some((issuer, deadline)) = self.draining else {
            return;
        };
        let excluded = self
            .installed
            .as_ref()
            .and_then(Wanted::host)
            .map(|row| row.excluded_peers.clone());
        let standing = self
            .app
            .sessions
            .standing_on(issuer, &excluded.unwrap_or_default());
        // The door closes by itself what does not end in time.
        if standing.required == 0 || Instant::now() >= deadline {
            self.draining = None;
        }
    }

    fn wanted(&self) -> Wanted {
        let member = self.app.config.member;
        self.app.fold.read(|state| Wanted::of(state, member))
    }

    fn is_current(&self) -> bool {
        self.installed
            .as_ref()
            .is_some_and(|installed| *installed == self.wanted())
    }

    fn has(&self, wanted: &Wanted, slot: Slot) -> bool {
        let now = self.app.now();
        self.held
            .iter()
            .any(|s| wanted.fills(slot, s.credential.certificate(), now))
    }

    fn renewal_is_due(&self) -> bool {
        self.installed
            .as_ref()
            .is_some_and(|wanted| !wanted.slots().iter().all(|slot| self.has(wanted, *slot)))
    }

    async fn execute(&self, order: Order) -> Result<Answer, ExecuteError> {
        let principal = Principal::Gateway(self.app.config.member);
        let command = self.app.executor.own_command(principal, order);
        Ok(self.app.executor.execute(command).await?.answer)
    }
}
