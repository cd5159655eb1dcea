//! Certificates against their authorisations, keys and bundles against what they say.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    AuthorityId, AuthorizationId, ClusterName, ClusterState, Event, Fact, Position, Serial, SpkiPin,
    Timestamp,
    authority::{AuthorityKey, KeyKind},
    duty::{bundle_content, revoked_by},
    event::{AuthorityBundleSigned, AuthorityKeyGenerated, AuthorizationGranted, CertificateIssued},
    state::AuthorizationOutcome,
    trust::{BUNDLE_LIFE_MS, Bundle},
};
use pki::{CaCert, PublicKey, bundle, credential, crl};
use tokio::task::JoinSet;

use super::{Check, count};

/// Signatures are checked beside the reading, by at most so many threads.
const THREADS: usize = 2;

/// How long the signer may take between the look at its clock and the event.
const SIGNING_MS: u64 = 60_000;

/// Everything that was signed.
pub(super) struct Issuance {
    issuance: Check,
    bundles: Check,
    keys: u64,
    /// Authorised and not signed yet. What is voided stays: a race may still sign it, and then it counts nothing.
    granted: BTreeMap<AuthorizationId, AuthorizationGranted>,
    jobs: Vec<Job>,
    tasks: JoinSet<Vec<Judged>>,
}

/// What was found about a signature.
type Judged = (Position, What, Result<(), String>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Certificate,
    Key,
    Bundle,
}

/// A signature to check, with everything that it is checked against.
enum Job {
    Certificate {
        at: Position,
        cluster: ClusterName,
        issued: Box<CertificateIssued>,
        granted: Box<AuthorizationGranted>,
        issuer: Box<AuthorityKey>,
    },
    Key {
        at: Position,
        generated: Box<AuthorityKeyGenerated>,
    },
    Bundle {
        at: Position,
        cluster: ClusterName,
        pin: SpkiPin,
        signed: Box<AuthorityBundleSigned>,
        content: Option<Box<Bundle>>,
        /// What each authority's revocation list has to name, where that is known.
        revoked: BTreeMap<AuthorityId, Vec<(Serial, Timestamp)>>,
    },
}

impl Default for Issuance {
    fn default() -> Self {
        Self {
            issuance: Check::new("issuance"),
            bundles: Check::new("bundles"),
            keys: 0,
            granted: BTreeMap::new(),
            jobs: vec![],
            tasks: JoinSet::new(),
        }
    }
}

impl Issuance {
    /// Takes in an event; `state` is the fold of everything before it.
    pub(super) fn before(&mut self, state: &ClusterState, event: &Event) {
        let at = event.header.position;
        match &event.fact {
            Fact::AuthorizationGranted(f) => {
                self.granted.insert(f.authorization, f.clone());
            }
            Fact::CertificateIssued(f) => match self.job_of(state, at, f) {
                Ok(job) => self.jobs.push(job),
                Err(why) => self.issuance.take(at, Err(why)),
            },
            Fact::AuthorityKeyGenerated(f) => self.jobs.push(Job::Key {
                at,
                generated: Box::new(f.clone()),
            }),
            Fact::AuthorityBundleSigned(f) if event.header.decided_at.is_none() => {
                self.bundle(state, event, f)
            }
            _ => {}
        }
    }

    /// Takes in an event in the state that it was decided on: there a bundle says what that state says.
    pub(super) fn decided_on(&mut self, state: &ClusterState, event: &Event) {
        if let Fact::AuthorityBundleSigned(f) = &event.fact {
            self.bundle(state, event, f);
        }
    }

    fn bundle(&mut self, state: &ClusterState, event: &Event, f: &AuthorityBundleSigned) {
        let at = event.header.position;
        let content = content_of(state, event, f);
        match (&state.cluster, content) {
            (Some(of), Ok(content)) => {
                let signed_at = f.expires.minus_ms(BUNDLE_LIFE_MS);
                let of_list = |id: &AuthorityId| (*id, revoked_by(state, f.authority_type, *id, signed_at));
                let revoked = content
                    .iter()
                    .flat_map(|_| f.revocation_lists.keys().map(of_list));
                self.jobs.push(Job::Bundle {
                    at,
                    cluster: of.name.clone(),
                    pin: of.bundle_key,
                    signed: Box::new(f.clone()),
                    revoked: revoked.collect(),
                    content: content.map(Box::new),
                });
            }
            (Some(_), Err(why)) => self.bundles.take(at, Err(why)),
            (None, _) => self
                .bundles
                .take(at, Err("signed before there was a cluster".into())),
        }
    }

    fn job_of(&mut self, state: &ClusterState, at: Position, f: &CertificateIssued) -> Result<Job, String> {
        let granted = self
            .granted
            .remove(&f.authorization)
            .ok_or("issued without an authorisation before it, or for one that was signed already")?;
        if !state.pending.contains_key(&f.authorization)
            && !matches!(
                state.settled_authorizations.get(&f.authorization),
                Some(AuthorizationOutcome::Voided(_))
            )
        {
            return Err("issued for an authorisation that was refused or answered already".into());
        }
        let of = state
            .types
            .get(&f.authority_type)
            .ok_or("issued by an authority that has no key")?;
        let issuer = of
            .known(f.issuer)
            .ok_or("issued by a key that is not in the log")?;
        let cluster = state
            .cluster_name()
            .ok_or("issued before the cluster was created")?
            .clone();
        Ok(Job::Certificate {
            at,
            cluster,
            issued: Box::new(f.clone()),
            granted: Box::new(granted),
            issuer: Box::new(issuer.clone()),
        })
    }

    /// Hands what was gathered to the checking threads, and waits while they are busy.
    pub(super) async fn check_batch(&mut self) {
        while self.tasks.len() >= THREADS {
            self.collect().await;
        }
        let jobs = std::mem::take(&mut self.jobs);
        if !jobs.is_empty() {
            self.tasks
                .spawn_blocking(move || jobs.into_iter().map(Job::check).collect());
        }
    }

    async fn collect(&mut self) {
        let Some(done) = self.tasks.join_next().await else {
            return;
        };
        for (at, what, outcome) in done.expect("checking a signature does not panic") {
            match what {
                What::Certificate => self.issuance.take(at, outcome),
                What::Key => {
                    self.keys += 1;
                    if let Err(why) = outcome {
                        self.issuance.fail(Some(at), why);
                    }
                }
                What::Bundle => self.bundles.take(at, outcome),
            }
        }
    }

    pub(super) async fn finish(mut self) -> (Check, Check) {
        self.check_batch().await;
        while !self.tasks.is_empty() {
            self.collect().await;
        }
        self.issuance.text = format!(
            "{}, each authorised before it was issued; {}",
            count(self.issuance.checked, "certificate"),
            count(self.keys, "key")
        );
        self.bundles.text = format!(
            "{}, each signed by the bundle key",
            count(self.bundles.checked, "trust bundle")
        );
        (self.issuance, self.bundles)
    }
}

/// What a bundle of this revision had to say. None where the row may have moved on while it was signed, which the
/// state that it was decided on does not.
fn content_of(
    state: &ClusterState,
    event: &Event,
    f: &AuthorityBundleSigned,
) -> Result<Option<Bundle>, String> {
    let signed_at = f.expires.minus_ms(BUNDLE_LIFE_MS);
    let off_ms = signed_at.since_ms(event.header.time) + event.header.time.since_ms(signed_at);
    if off_ms > SIGNING_MS {
        return Err(format!("signed to live until {}, not for 24 h", f.expires));
    }
    let due = state.types.get(&f.authority_type).map(|of| of.bundle_due);
    match due {
        Some(due) if due == f.revision => Ok(bundle_content(state, f.authority_type, signed_at)),
        Some(due) if f.revision < due && event.header.decided_at.is_none() => Ok(None),
        _ => Err(format!(
            "the revision {} was not the one to be signed",
            f.revision
        )),
    }
}

impl Job {
    fn check(self) -> Judged {
        match self {
            Self::Certificate {
                at,
                cluster,
                issued,
                granted,
                issuer,
            } => (
                at,
                What::Certificate,
                credential::check(&issued, &granted, &cluster, &issuer),
            ),
            Self::Key { at, generated } => (at, What::Key, key(&generated.key)),
            Self::Bundle {
                at,
                cluster,
                pin,
                signed,
                content,
                revoked,
            } => (
                at,
                What::Bundle,
                check_bundle(&cluster, &pin, &signed, content.as_deref())
                    .and_then(|read| check_lists(&signed, &read, &revoked)),
            ),
        }
    }
}

/// A key is what its CA certificate says, or, without one, what its public half says.
fn key(key: &AuthorityKey) -> Result<(), String> {
    if key.kind != KeyKind::Tls {
        let public =
            PublicKey::from_base64(&key.public_key).map_err(|error| format!("the new key: {error}"))?;
        return if public.pin() == key.id && key.certificate.is_empty() {
            Ok(())
        } else {
            Err(
                "the new key is recorded with another pin than its public half has, or with a certificate"
                    .into(),
            )
        };
    }
    let ca = CaCert::from_base64(&key.certificate).map_err(|error| format!("the new key: {error}"))?;
    if ca.pin() == key.id && ca.parsed().not_after == key.not_after {
        Ok(())
    } else {
        Err("the new key is recorded with another pin or life than its certificate has".into())
    }
}

fn check_bundle(
    cluster: &ClusterName,
    pin: &SpkiPin,
    signed: &AuthorityBundleSigned,
    content: Option<&Bundle>,
) -> Result<Bundle, String> {
    let read = bundle::verify_unexpired(&signed.bundle, pin, Some(cluster), signed.authority_type)
        .map_err(|error| error.to_string())?;
    if (read.revision, read.phase, read.expires) != (signed.revision, signed.phase, signed.expires) {
        return Err("the bundle says another revision, phase or end than its event".into());
    }
    match content {
        Some(content) if *content != read => {
            Err("the bundle says something else than the log at its revision".into())
        }
        _ => Ok(read),
    }
}

/// Each list is its authority's own, and names what was revoked at its revision.
fn check_lists(
    signed: &AuthorityBundleSigned,
    read: &Bundle,
    revoked: &BTreeMap<AuthorityId, Vec<(Serial, Timestamp)>>,
) -> Result<(), String> {
    for (id, list) in &signed.revocation_lists {
        let wrong = |what: String| format!("the revocation list of {} {what}", id.short());
        let authority = read.authorities.iter().find(|a| a.id == *id);
        let ca = authority.and_then(|authority| CaCert::from_base64(&authority.certificate).ok());
        let ca = ca.ok_or_else(|| wrong("is of no authority in the bundle".into()))?;
        let der = STANDARD.decode(list).map_err(|_| wrong("is not base64".into()))?;
        // Where the row may have moved on while it was signed, only whose it is can be checked.
        if let Some(revoked) = revoked.get(id) {
            let content = crl::Content::of_bundle(revoked.clone(), signed.expires);
            crl::check(&der, &content, &ca).map_err(wrong)?;
        }
    }
    Ok(())
}
