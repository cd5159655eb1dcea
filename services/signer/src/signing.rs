//! Certificates: authorisations that wait, signed in batches and recorded before they leave.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use domain::{
    AuthorityId, AuthorityType, AuthorizationId, ClusterState, Fact, Position, Principal,
    authority::AuthorityKey,
    event::{AuthorizationGranted, CertificateRefused},
};
use eventlog::{Append, Outcome, append_certainly};
use execution::{Expected, Seen};
use pki::credential;
use tokio::task::JoinSet;

use crate::{
    recheck::{Objection, recheck},
    service::{DutyError, Progress, READ_BACK, Signer},
};

/// The most signatures between two appends: about a tenth of a second of work, so that the first nodes of a
/// large fleet do not wait for the last.
pub(crate) const BATCH: usize = 512;
/// How many signatures one blocking task makes.
const CHUNK: usize = 64;

/// One authorisation with the authority that is to sign it, or what speaks against it.
struct Job {
    granted: AuthorizationGranted,
    judged: Result<AuthorityKey, Objection>,
}

/// All jobs of one holder: their facts are one append on the holder's subject.
struct HolderJobs {
    seen: Seen,
    jobs: Vec<Job>,
}

impl Signer {
    /// Signs or refuses these authorisations, as far as they still wait.
    ///
    /// The condition of each append is the last position on the holder's subject at the moment when the
    /// authorisation was seen to wait: of two signers, or of a signer and its own past, one append is stored,
    /// and only the certificate in it ever leaves.
    pub(crate) async fn sign(&self, authorizations: &[AuthorizationId]) -> Result<Progress, DutyError> {
        if authorizations.is_empty() {
            return Ok(Progress::None);
        }
        let (closed, no_key) = self.closed(authorizations);
        let batch = self.judge(authorizations, &closed);
        let seen: BTreeMap<Principal, Seen> = batch.iter().map(|(h, of)| (h.clone(), of.seen)).collect();
        let jobs: Vec<Job> = batch.into_values().flat_map(|of| of.jobs).collect();
        let (facts, failed) = self.make(jobs).await?;
        let mut appends = vec![];
        for (holder, facts) in facts {
            let Some(seen) = seen.get(&holder) else { continue };
            let expected = Expected::At(*seen);
            appends.extend(self.writer.prepare(&self.cluster, &facts, self.now(), expected));
        }
        let progress = self.record(appends).await?;
        match failed.or(no_key) {
            Some(error) if progress == Progress::None => Err(error),
            _ => Ok(progress),
        }
    }

    /// The authorities whose keys cannot be opened now: what waits for them does not keep the others waiting.
    fn closed(&self, authorizations: &[AuthorizationId]) -> (BTreeSet<AuthorityId>, Option<DutyError>) {
        let keys: Vec<AuthorityKey> = self.fold.read(|state| {
            let pending = authorizations.iter().filter_map(|id| state.pending.get(id));
            let asked: BTreeSet<_> = pending
                .map(|p| (p.granted.authority_type, p.granted.issuer))
                .collect();
            let key = |(t, issuer)| signing_key(state, t, issuer).cloned();
            asked.into_iter().filter_map(key).collect()
        });
        let (mut closed, mut why) = (BTreeSet::new(), None);
        for key in keys {
            if let Err(error) = self.authorities.open(&key) {
                closed.insert(key.id);
                why = Some(error.into());
            }
        }
        (closed, why)
    }

    /// One look at the state: which of them still wait, on which condition, and what speaks against each.
    fn judge(
        &self,
        authorizations: &[AuthorizationId],
        closed: &BTreeSet<AuthorityId>,
    ) -> BTreeMap<Principal, HolderJobs> {
        let now = self.now();
        self.fold.read_with_tails(|state, tail| {
            let now = state.now(now);
            let mut batch: BTreeMap<Principal, HolderJobs> = BTreeMap::new();
            let mut room = BATCH;
            for pending in authorizations.iter().filter_map(|id| state.pending.get(id)) {
                let granted = &pending.granted;
                let key = signing_key(state, granted.authority_type, granted.issuer);
                let judged =
                    recheck(state, pending, now).and_then(|()| key.cloned().ok_or(Objection::Authority));
                if judged.as_ref().is_ok_and(|key| closed.contains(&key.id)) {
                    continue;
                }
                if room == 0 {
                    break;
                }
                room -= 1;
                let of_holder = batch.entry(granted.holder.clone()).or_insert_with(|| HolderJobs {
                    seen: Seen {
                        position: state.position,
                        time: now,
                        tail: tail(&self.certificate_subject(&granted.holder)),
                    },
                    jobs: vec![],
                });
                of_holder.jobs.push(Job {
                    granted: granted.clone(),
                    judged,
                });
            }
            batch
        })
    }

    /// The facts of each holder. Crash point: what is signed here and not yet recorded never left, and the
    /// authorisation is signed anew.
    async fn make(
        &self,
        jobs: Vec<Job>,
    ) -> Result<(BTreeMap<Principal, Vec<Fact>>, Option<DutyError>), DutyError> {
        let mut tasks = JoinSet::new();
        let mut jobs = jobs.into_iter().peekable();
        while jobs.peek().is_some() {
            let chunk: Vec<Job> = jobs.by_ref().take(CHUNK).collect();
            let (authorities, cluster) = (self.authorities.clone(), self.cluster.clone());
            tasks.spawn_blocking(move || {
                let sign = |job: Job| {
                    let Job { granted, judged } = job;
                    let outcome = match judged {
                        Err(objection) => Ok(refused(&granted, objection.name(), objection.to_string())),
                        Ok(key) => sign_one(&authorities, &cluster, &granted, &key),
                    };
                    (granted, outcome)
                };
                chunk.into_iter().map(sign).collect::<Vec<_>>()
            });
        }
        let (mut facts, mut failed) = (BTreeMap::<Principal, Vec<Fact>>::new(), None);
        while let Some(chunk) = tasks.join_next().await {
            for (granted, outcome) in chunk? {
                match outcome {
                    Ok((fact, refused_for)) => {
                        self.count(&granted, refused_for);
                        facts.entry(granted.holder).or_default().push(fact);
                    }
                    Err(error) => failed = Some(error),
                }
            }
        }
        Ok((facts, failed))
    }

    fn count(&self, granted: &AuthorizationGranted, refused_for: Option<&'static str>) {
        match refused_for {
            None => {
                let of = [granted.authority_type.name()];
                self.metrics
                    .counter("carousel_signer_certificates_total", &of)
                    .inc();
            }
            Some(reason) => {
                self.metrics
                    .counter("carousel_signer_refused_total", &[reason])
                    .inc();
                tracing::warn!(holder = %granted.holder, reason, "refused to sign an authorisation");
            }
        }
    }

    /// Appends all together (durability costs the same for one as for many) and reads them back.
    async fn record(&self, appends: Vec<Append>) -> Result<Progress, DutyError> {
        if appends.is_empty() {
            return Ok(Progress::None);
        }
        let (mut last, mut failed) = (0, None);
        let outcomes = self.fold.log().append_all(appends.clone()).await;
        for (append, outcome) in appends.into_iter().zip(outcomes) {
            let known = match outcome {
                Ok(Outcome::Unknown(_)) => append_certainly(&**self.fold.log(), append).await,
                known => known,
            };
            match known {
                Ok(Outcome::Stored { last: position, .. } | Outcome::Conflict { tail: position }) => {
                    last = last.max(position);
                }
                Ok(Outcome::Unknown(why)) => failed = Some(DutyError::Unknown(why)),
                Err(error) => failed = Some(error.into()),
            }
        }
        self.fold.wait_for(Position(last), READ_BACK).await?;
        failed.map_or(Ok(Progress::Some), Err)
    }
}

/// The key of an authority that is active or prepared.
fn signing_key(state: &ClusterState, t: AuthorityType, issuer: AuthorityId) -> Option<&AuthorityKey> {
    state.types.get(&t)?.live(issuer)
}

type Made = (Fact, Option<&'static str>);

fn sign_one(
    authorities: &Arc<crate::authorities::Authorities>,
    cluster: &domain::ClusterName,
    granted: &AuthorizationGranted,
    key: &AuthorityKey,
) -> Result<Made, DutyError> {
    let authority = authorities.open(key)?;
    match credential::make(
        granted,
        cluster,
        authority.certificate.as_ref(),
        &*authority.signer,
    ) {
        Ok(made) => Ok((made.fact(granted).into(), None)),
        Err(error) if error.is_transient() => Err(DutyError::Sign(error)),
        // The authorisation itself is at fault: it would never be signed, so it is answered.
        Err(error) => Ok(refused(granted, "certificate", crate::service::chain(&error))),
    }
}

fn refused(granted: &AuthorizationGranted, reason: &'static str, why: String) -> Made {
    let fact = CertificateRefused {
        authorization: granted.authorization,
        holder: granted.holder.clone(),
        why,
    };
    (fact.into(), Some(reason))
}
