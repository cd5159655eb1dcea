//! Trust bundles: signed only if this signer can answer for every authority in them and readers will take them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    AuthorityId, AuthorityType, Duty, Fact, Position, Serial, Timestamp,
    authority::{AuthorityKey, KeyKind},
    duty::{LIST_AFTER_MS, bundle_content, is_owed_for_lists, revoked_by},
    event::AuthorityBundleSigned,
    trust::{Bundle, SignedBundle},
};
use eventlog::{Append, MAX_EVENT_BYTES};
use execution::Expected;
use pki::{BundleError, bundle, crl};

use crate::{
    duties::is_owed,
    service::{DutyError, Progress, Signer, chain},
};

/// Why a bundle is not published. The previous one stays in force, and the duty stays owed.
#[derive(Debug, thiserror::Error)]
enum Unfit {
    /// Whoever can write the log has written an authority into it.
    #[error(
        "it would list the authority {0}, whose key this signer never made: somebody else wrote it into the log; look at `carousel audit ls --type authority` and roll the rotation back, with --force where it waits"
    )]
    Foreign(AuthorityId),
    /// The log would not store it.
    #[error(
        "it weighs {bytes} bytes and the log takes {MAX_EVENT_BYTES}: its deny list has {denied} entries; it becomes shorter as they expire, or at once when a rotation of the type ends"
    )]
    TooLarge { bytes: usize, denied: usize },
    /// Every reader would refuse it.
    #[error("nobody would accept it")]
    Unusable(#[source] BundleError),
}

/// The refusals that were told, so that each is said once and not at every look.
#[derive(Default)]
pub(crate) struct Told(Mutex<BTreeMap<AuthorityType, Position>>);

/// When a missing revocation list was last tried for, so that a key which stays away is not asked for at every look.
#[derive(Default)]
pub(crate) struct Tried(Mutex<BTreeMap<AuthorityType, Timestamp>>);

impl Tried {
    /// May it be tried now? Then it has been.
    fn may(&self, authority_type: AuthorityType, now: Timestamp) -> bool {
        let mut tried = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = tried
            .get(&authority_type)
            .is_none_or(|last| now >= last.plus_ms(LIST_AFTER_MS));
        if is_due {
            tried.insert(authority_type, now);
        }
        is_due
    }
}

impl Told {
    /// Is this the first refusal of the revision? None: it was signed.
    fn is_news(&self, authority_type: AuthorityType, refused: Option<Position>) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match refused {
            Some(revision) => told.insert(authority_type, revision) != Some(revision),
            None => told.remove(&authority_type).is_some(),
        }
    }
}

impl Signer {
    /// Signs and records the bundle of a type, if it is fit to be read; otherwise the last one stays.
    pub(crate) async fn sign_bundle(
        &self,
        duty: &Duty,
        authority_type: AuthorityType,
    ) -> Result<Progress, DutyError> {
        let subject = self.authority_subject(authority_type);
        // Content and condition come from one look at the state: what is signed is what it says now.
        let (content, seen) = self.writer.look(&subject, self.now(), |state, now| {
            let content = is_owed(state, duty, now).then(|| bundle_content(state, authority_type, now))??;
            let of = state.types.get(&authority_type)?;
            let keys = of.living().filter(|key| key.kind == KeyKind::Tls);
            let lists = keys.map(|key| (key.clone(), revoked_by(state, authority_type, key.id, now)));
            let before = of.bundle.as_ref().map(|head| head.lists.clone());
            let before = before.filter(|_| is_owed_for_lists(state, authority_type, now));
            Some((content, lists.collect::<Vec<_>>(), before))
        });
        let Some((content, lists, before)) = content else {
            return Ok(Progress::Some);
        };
        if before.is_some() && !self.tried.may(authority_type, self.now()) {
            return Ok(Progress::None);
        }
        let lists = self
            .revocation_lists(lists, content.expires, before.is_none())
            .await?;
        let is_more = |before: &BTreeSet<_>| {
            lists.len() > before.len() && before.iter().all(|id| lists.contains_key(id))
        };
        if before.as_ref().is_some_and(|before| !is_more(before)) {
            // Its key is still away, or another one is. What there is stays, and no reader is woken for nothing.
            return Ok(Progress::None);
        }
        let signed = bundle::sign(&content, &self.bundle_key, vec![]);
        let fact: Fact = AuthorityBundleSigned {
            authority_type,
            revision: content.revision,
            phase: content.phase,
            expires: content.expires,
            bundle: signed.clone(),
            revocation_lists: lists,
        }
        .into();
        let prepared = self.writer.prepare(
            &self.cluster,
            std::slice::from_ref(&fact),
            self.now(),
            Expected::At(seen),
        );
        if let Err(unfit) = self.judge_bundle(&content, &signed, prepared.as_ref()).await? {
            self.refuse_bundle(&content, &unfit);
            // Not an error: nothing else waits for it, and whoever has to mend it needs a control plane that runs.
            return Ok(Progress::None);
        }
        let is_refused = self
            .metrics
            .gauge("carousel_signer_bundle_refused", &[authority_type.name()]);
        is_refused.set(0);
        self.told.is_news(authority_type, None);
        self.append(&[fact], seen).await
    }

    /// The revocation list of each authority. One whose key cannot be reached now has none until it can: nothing of ours
    /// reads it, and whom to trust must not wait for a key in somebody's drawer.
    async fn revocation_lists(
        &self,
        lists: Vec<(AuthorityKey, Vec<(Serial, Timestamp)>)>,
        expires: Timestamp,
        is_news: bool,
    ) -> Result<BTreeMap<AuthorityId, String>, DutyError> {
        let authorities = self.authorities.clone();
        let signing = tokio::task::spawn_blocking(move || {
            let sign = |(key, revoked): (AuthorityKey, Vec<_>)| {
                let content = crl::Content::of_bundle(revoked, expires);
                let authority = authorities.open(&key).map_err(|error| chain(&error));
                let made = authority.and_then(|authority| match &authority.certificate {
                    Some(ca) => crl::make(&content, ca, &*authority.signer).map_err(|error| chain(&error)),
                    None => Err("it has no certificate".into()),
                });
                match made {
                    Ok(der) => Some((key.id, STANDARD.encode(der))),
                    // Said with the bundle, not at each attempt after it.
                    Err(_) if !is_news => None,
                    Err(why) => {
                        tracing::warn!(authority = %key.id.short(), %why, "no revocation list could be signed");
                        None
                    }
                }
            };
            lists.into_iter().filter_map(sign).collect()
        });
        Ok(signing.await?)
    }

    /// A document that readers refuse must not become the newest one: it would shadow the one that they have.
    async fn judge_bundle(
        &self,
        content: &Bundle,
        signed: &SignedBundle,
        append: Option<&Append>,
    ) -> Result<Result<(), Unfit>, DutyError> {
        if let Some(foreign) = self.foreign(content).await? {
            return Ok(Err(Unfit::Foreign(foreign)));
        }
        let events = append.iter().flat_map(|append| &append.events);
        let (bytes, denied) = (
            events.map(|event| event.data.len()).sum::<usize>(),
            content.denied.len(),
        );
        let gauge = self
            .metrics
            .gauge("carousel_signer_bundle_bytes", &[content.authority_type.name()]);
        gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        if bytes > MAX_EVENT_BYTES {
            return Ok(Err(Unfit::TooLarge { bytes, denied }));
        }
        if bytes > MAX_EVENT_BYTES / 2 {
            tracing::warn!(
                authority_type = %content.authority_type, bytes, denied, limit = MAX_EVENT_BYTES,
                "the deny list fills more than half of a trust bundle; beyond the limit nothing can be revoked or rotated"
            );
        }
        let pin = self.bundle_key.spki_pin();
        let read = bundle::verify_unexpired(signed, &pin, Some(&self.cluster), content.authority_type);
        Ok(read.map(drop).map_err(Unfit::Unusable))
    }

    /// The first authority of a bundle that this signer cannot answer for. It answers for keys in its store, and, if
    /// a file was lost, for those that `init` made or that an earlier bundle of its own lists: a lost key must not
    /// keep the cluster from rotating away from it.
    async fn foreign(&self, content: &Bundle) -> Result<Option<AuthorityId>, DutyError> {
        let authorities = self.authorities.clone();
        let stored = tokio::task::spawn_blocking(move || authorities.store().keys()).await??;
        let is_stored = |id: &AuthorityId| {
            let mut of_type = stored
                .iter()
                .filter(|(_, purpose)| purpose.authority_type == content.authority_type);
            of_type.any(|(stored, _)| stored == id)
        };
        let absent: Vec<_> = content
            .authorities
            .iter()
            .map(|listed| listed.id)
            .filter(|id| !is_stored(id) && !self.founders.contains(id))
            .collect();
        if absent.is_empty() {
            return Ok(None);
        }
        let vouched = self.vouched(content.authority_type).await?;
        Ok(absent.into_iter().find(|id| !vouched.contains(id)))
    }

    /// What the newest bundle in the log lists, if this signer's key signed it: the log alone proves nothing here.
    async fn vouched(&self, authority_type: AuthorityType) -> Result<BTreeSet<AuthorityId>, DutyError> {
        let earlier = self
            .fold
            .bundle(authority_type)
            .await
            .map_err(DutyError::Unreadable)?;
        let pin = self.bundle_key.spki_pin();
        let content = earlier.and_then(|signed| {
            bundle::verify_unexpired(&signed, &pin, Some(&self.cluster), authority_type).ok()
        });
        let authorities = content.into_iter().flat_map(|content| content.authorities);
        Ok(authorities.map(|listed| listed.id).collect())
    }

    fn refuse_bundle(&self, content: &Bundle, unfit: &Unfit) {
        let authority_type = content.authority_type;
        let is_refused = self
            .metrics
            .gauge("carousel_signer_bundle_refused", &[authority_type.name()]);
        is_refused.set(1);
        if self.told.is_news(authority_type, Some(content.revision)) {
            tracing::error!(
                %authority_type, revision = %content.revision, why = %chain(unfit),
                "refused to sign a trust bundle; the previous one stays in force"
            );
        }
    }
}

#[cfg(test)]
mod tests;
