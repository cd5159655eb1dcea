//! What all parts of the gateway share, and the waits that several of them need.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use api::{Audit, Queries};
use domain::{
    AuthorityType, AuthorizationId, CertDigest, ClusterName, ClusterState, Code, Position, Principal,
    Refusal, Serial, SpkiPin, Timestamp, authority::KeyKind, desired::may_hand_out, event::LeafUse,
    state::AuthorizationOutcome,
};
use execution::{Behind, Executor, Fold, codec};
use mtls::{Epochs, SessionRegistry};
use runtime::{clock::SharedClock, metrics::Metrics, ratelimit::KeyedLimit};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    firsts::Firsts,
    hub::{Hub, to_pem},
    limits::NodeLimits,
    precedence::Precedence,
    presence::{Presences, others::Others},
    reply::No,
    serving::Serving,
    strangers::Strangers,
};

/// How long an answer may wait for something that others do: a signature, a bundle, a gate.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long a read may wait for the state to hold what was durable when it arrived.
pub(crate) const READ_PATIENCE: Duration = Duration::from_secs(5);

/// What the gateway shares.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) fold: Fold,
    pub(crate) executor: Executor,
    pub(crate) queries: Arc<dyn Queries>,
    pub(crate) audit: Arc<dyn Audit>,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Metrics,
    pub(crate) serving: Serving,
    pub(crate) presences: Presences,
    pub(crate) others: Option<Others>,
    pub(crate) firsts: Firsts,
    pub(crate) hub: Hub,
    pub(crate) epochs: Epochs,
    pub(crate) sessions: SessionRegistry,
    /// The row of each type that the gateway's own trust and certificates satisfy.
    pub(crate) held: watch::Sender<BTreeMap<AuthorityType, Position>>,
    pub(crate) joins: KeyedLimit<IpAddr>,
    pub(crate) recoveries: KeyedLimit<IpAddr>,
    pub(crate) readings: Readings,
    pub(crate) precedence: Precedence,
    pub(crate) nodes: NodeLimits,
    pub(crate) strangers: Strangers,
    pub(crate) shutdown: CancellationToken,
    /// Where readers of tokens find this control plane.
    pub(crate) public_url: String,
}

/// Readings to the log's end that strangers ask for: one at a time, and all who wait meanwhile share the next.
#[derive(Default)]
pub(crate) struct Readings {
    begun: AtomicU64,
    last: Mutex<Reading>,
}

/// Which reading was the last, and how it ended.
#[derive(Default)]
struct Reading {
    number: u64,
    failed: Option<Behind>,
}

/// A certificate as the log has it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Issued {
    /// As its holder takes it: PEM, one line of OpenSSH, or a sealed token.
    pub(crate) text: String,
    pub(crate) serial: Serial,
    pub(crate) authority_type: AuthorityType,
    pub(crate) digest: CertDigest,
    pub(crate) issuer: SpkiPin,
    pub(crate) usage: LeafUse,
    pub(crate) not_after: Timestamp,
    pub(crate) position: Position,
}

impl App {
    /// The wall clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.executor.now()
    }

    /// What the tokens of a type name as their issuer (OpenID Connect Discovery 1.0, section 3).
    pub(crate) fn issuer(&self, authority_type: AuthorityType) -> String {
        format!("{}/v1/oidc/{authority_type}", self.public_url)
    }

    /// Who is there, at whichever gateway.
    pub(crate) async fn presences_everywhere(&self) -> Presences {
        match &self.others {
            Some(others) => others.with(&self.presences, &self.fold).await,
            None => self.presences.clone(),
        }
    }

    /// The cluster's name. The gateway starts only on a log that holds a cluster.
    pub(crate) fn cluster(&self) -> Result<ClusterName, No> {
        let name = self.fold.read(|state| state.cluster_name().cloned());
        name.ok_or_else(|| No::new(Code::NoCluster, "the log holds no cluster yet"))
    }

    /// Does the gateway's own epoch satisfy the current row of every type that binds it? Only then is a
    /// desired state handed out [M].
    pub(crate) fn holds_rows(&self, state: &ClusterState) -> bool {
        may_hand_out(state, &self.held.borrow())
    }

    /// Folds up to what was durable now, so that the caller reads its own writes.
    pub(crate) async fn catch_up(&self) -> Result<Position, No> {
        Ok(self.fold.catch_up(READ_PATIENCE).await?)
    }

    /// The same for callers of whom nothing is known: however many ask, the log is read by one at a time.
    pub(crate) async fn catch_up_together(&self) -> Result<(), Behind> {
        let arrived = self.readings.begun.load(Ordering::SeqCst);
        let mut last = self.readings.last.lock().await;
        // A reading that began after we arrived holds whatever was durable then.
        if last.number <= arrived {
            let number = self.readings.begun.fetch_add(1, Ordering::SeqCst) + 1;
            let failed = self.fold.catch_up(READ_PATIENCE).await.err();
            // Written down only when it is done: its caller may go away in between.
            *last = Reading { number, failed };
        }
        last.failed.clone().map_or(Ok(()), Err)
    }

    /// Waits until `look` finds something in the state, woken by every change of it, of the gateway's own
    /// rows and of nothing else.
    pub(crate) async fn wait_until<T>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(&ClusterState) -> Option<T>,
    ) -> Option<T> {
        let (mut changes, mut held) = (self.fold.changes(), self.held.subscribe());
        loop {
            changes.borrow_and_update();
            held.borrow_and_update();
            if let Some(found) = self.fold.read(&mut look) {
                return Some(found);
            }
            let woken = async {
                tokio::select! {
                    changed = changes.changed() => changed.is_ok(),
                    changed = held.changed() => changed.is_ok(),
                    () = self.shutdown.cancelled() => false,
                }
            };
            if !timeout_at(deadline, woken).await.unwrap_or(false) {
                return self.fold.read(&mut look);
            }
        }
    }

    /// Waits for the certificate of an authorisation, which is of that holder.
    ///
    /// # Errors
    /// `signer_unavailable` after 10 s (asking again with the same key gives the same certificate); `stale_view` if
    /// the authorisation was voided, or refused by the signer, mostly because the row moved on before it was written.
    /// Under its id the same answer would be given for ever: whoever asks again does so with another one.
    pub(crate) async fn certificate(
        &self,
        holder: &Principal,
        authorization: AuthorizationId,
    ) -> Result<Issued, No> {
        let deadline = Instant::now() + PATIENCE;
        self.certificate_by(holder, authorization, deadline, Code::StaleView)
            .await
    }

    /// The same until a moment; `refused` is the code for what the signer refused.
    ///
    /// # Errors
    /// As [`App::certificate`].
    pub(crate) async fn certificate_by(
        &self,
        holder: &Principal,
        authorization: AuthorizationId,
        deadline: Instant,
        refused: Code,
    ) -> Result<Issued, No> {
        enum Found {
            At(Position),
            No(Refusal),
        }
        let find = |state: &ClusterState| match state.settled_authorizations.get(&authorization)? {
            AuthorizationOutcome::Issued(digest) => Some(match state.certificates.get(digest) {
                Some(certificate) => Found::At(certificate.position),
                // Made when its life was over, by a signer that was away, or forgotten since.
                None => Found::No(Refusal::new(Code::StaleView, "its life is over: ask again")),
            }),
            AuthorizationOutcome::Refused(why) => {
                let text = format!("the signer refused: {why}");
                Some(Found::No(Refusal::new(refused, text)))
            }
            AuthorizationOutcome::Voided(why) => {
                let text =
                    format!("the authorisation was voided ({why}): ask again with the newest desired state");
                Some(Found::No(Refusal::new(Code::StaleView, text)))
            }
        };
        // Outcomes are remembered for a while only; a certificate that still counts is found among its holder's.
        let older = |state: &ClusterState| {
            let held = state.held.get(holder).into_iter().flatten();
            let found = held
                .filter_map(|digest| state.certificates.get(digest))
                .find(|c| c.authorization == authorization);
            found.map(|c| Found::At(c.position))
        };
        let known = self.fold.read(|state| {
            let waits = state.pending.contains_key(&authorization);
            find(state).or_else(|| if waits { None } else { older(state) })
        });
        let found = match known {
            Some(found) => Some(found),
            None => self.settled(authorization, deadline, find).await,
        };
        match found {
            Some(Found::At(position)) => self.issued_at(position).await,
            Some(Found::No(refusal)) => Err(refusal.into()),
            None => {
                let text =
                    "the certificate is authorised but not signed yet: ask again with the same request";
                Err(No::new(Code::SignerUnavailable, text).retry_after(1))
            }
        }
    }

    /// Waits until an authorisation is settled, woken by its own event alone: a fleet waits for thousands at once.
    async fn settled<T>(
        &self,
        authorization: AuthorizationId,
        deadline: Instant,
        mut look: impl FnMut(&ClusterState) -> Option<T>,
    ) -> Option<T> {
        loop {
            let settlement = self.fold.settlement(authorization);
            if let Some(found) = self.fold.read(&mut look) {
                return Some(found);
            }
            let woken = async {
                tokio::select! {
                    event = settlement.event() => event.is_some(),
                    () = self.shutdown.cancelled() => false,
                }
            };
            if !timeout_at(deadline, woken).await.unwrap_or(false) {
                return self.fold.read(&mut look);
            }
        }
    }

    /// Reads a certificate from its event.
    pub(crate) async fn issued_at(&self, position: Position) -> Result<Issued, No> {
        let domain::Fact::CertificateIssued(fact) = self.event(position).await? else {
            return Err(No::new(
                Code::Internal,
                format!("position {position} holds no certificate"),
            ));
        };
        let text = match fact.kind {
            KeyKind::Tls => to_pem(&fact.certificate).ok_or_else(|| {
                let text = format!("the certificate at position {position} is damaged");
                No::new(Code::Internal, text)
            })?,
            KeyKind::Ssh | KeyKind::Jwt => fact.certificate,
        };
        Ok(Issued {
            text,
            serial: fact.serial,
            authority_type: fact.authority_type,
            digest: fact.digest,
            issuer: fact.issuer,
            usage: fact.usage,
            not_after: fact.not_after,
            position,
        })
    }

    /// Reads one fact of the log.
    pub(crate) async fn event(&self, position: Position) -> Result<domain::Fact, No> {
        let unavailable = |text: String| No::new(Code::LogUnavailable, text).retry_after(1);
        let records = self
            .fold
            .log()
            .read(position.0, 1)
            .await
            .map_err(|e| unavailable(e.to_string()))?;
        let record = records
            .first()
            .ok_or_else(|| unavailable(format!("position {position} cannot be read")))?;
        let event = codec::decode(record).map_err(|e| unavailable(e.to_string()))?;
        Ok(event.fact)
    }
}

#[cfg(test)]
mod tests {
    use futures::future::{join, join_all};

    use crate::testing::World;

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn however_many_strangers_ask_the_log_is_read_to_its_end_by_one_at_a_time() {
        let w = World::new().await;
        let app = w.open(w.config("127.0.0.1:0")).await.unwrap().app;
        let readings = || app.readings.begun.load(Ordering::SeqCst);
        // One is under way while they come.
        let under_way = app.readings.last.lock().await;
        let coming = join_all((0..50).map(|_| app.catch_up_together()));
        let (outcomes, ()) = join(coming, async { drop(under_way) }).await;
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(readings(), 1, "they share the one that began after they came");
        app.catch_up_together().await.unwrap();
        assert_eq!(readings(), 2, "whoever comes later is not answered from before");
    }
}
