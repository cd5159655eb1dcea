//! Duties about authorities: keys, retirement, destruction, revocation.

use domain::{
    AuthorityId, AuthorityType, CertDigest, ClusterState, Duty, Fact, Position, Principal, RotationId,
    Timestamp,
    authority::KeyKind,
    event::{
        AuthorityActivated, AuthorityDestroyed, AuthorityKeyGenerated, AuthorityRetired, CertificateRevoked,
        RotationOutcome,
    },
    owed,
    phase::Phase,
};
use eventlog::{Outcome, Subject, event_prefix};
use execution::{Expected, Seen};

use crate::{
    founding::public_half,
    keystore::KeyPurpose,
    service::{DutyError, Progress, READ_BACK, Signer},
};

impl Signer {
    /// Does one duty that is no signature, if it is still owed.
    pub(crate) async fn perform(&self, duty: &Duty) -> Result<Progress, DutyError> {
        match duty {
            Duty::GenerateKey {
                authority_type,
                kind,
                rotation,
                generation,
            } => {
                self.generate_key(duty, *authority_type, *kind, *rotation, *generation)
                    .await
            }
            Duty::SignBundle { authority_type, .. } => self.sign_bundle(duty, *authority_type).await,
            Duty::RecordRetirement {
                authority_type,
                authority,
                outcome,
                activated,
            } => {
                self.record_retirement(duty, *authority_type, *authority, *outcome, activated)
                    .await
            }
            Duty::Destroy {
                authority_type,
                authority,
            } => self.destroy(duty, *authority_type, *authority).await,
            Duty::Revoke { holder, certificates } => self.revoke(duty, holder, certificates).await,
            // Signatures are made in batches, see `signing`.
            Duty::Sign { .. } => Ok(Progress::None),
        }
    }

    /// The key is durable in the store before the log names it.
    async fn generate_key(
        &self,
        duty: &Duty,
        authority_type: AuthorityType,
        kind: KeyKind,
        rotation: RotationId,
        generation: u32,
    ) -> Result<Progress, DutyError> {
        let Some(seen) = self.still_owed(duty, &self.authority_subject(authority_type)) else {
            return Ok(Progress::Some);
        };
        let cluster = self.cluster.clone();
        let purpose = KeyPurpose {
            cluster,
            authority_type,
            kind,
            generation,
            rotation: Some(rotation),
        };
        let (authorities, now) = (self.authorities.clone(), self.now());
        let key = tokio::task::spawn_blocking(move || {
            let store = authorities.store();
            // Crash point: made, but in no event. It is taken up again rather than destroyed, because an append
            // whose answer was lost may still be stored: then the log names exactly this key.
            let orphan = store.keys()?.into_iter().find(|(_, found)| *found == purpose);
            let signer = match orphan {
                Some((id, _)) => store.signer(&id)?,
                None => store.make(&purpose)?.1,
            };
            Ok::<_, DutyError>(public_half(&purpose, &*signer, now)?.0)
        })
        .await??;
        let id = key.id;
        let fact = AuthorityKeyGenerated { authority_type, key };
        let done = self.append(&[fact.into()], seen).await?;
        tracing::info!(%authority_type, generation, key = %id.short(), "made the new key of a rotation");
        Ok(done)
    }

    /// The end of a rotation is a phase event; this says in the authority's own family what it did to the keys.
    async fn record_retirement(
        &self,
        duty: &Duty,
        authority_type: AuthorityType,
        authority: AuthorityId,
        outcome: RotationOutcome,
        activated: &[(KeyKind, AuthorityId)],
    ) -> Result<Progress, DutyError> {
        let Some(seen) = self.still_owed(duty, &self.authority_subject(authority_type)) else {
            return Ok(Progress::Some);
        };
        let mut facts: Vec<Fact> = activated
            .iter()
            .map(|(kind, id)| {
                AuthorityActivated {
                    authority_type,
                    kind: *kind,
                    authority: *id,
                }
                .into()
            })
            .collect();
        facts.push(
            AuthorityRetired {
                authority_type,
                authority,
                outcome,
            }
            .into(),
        );
        self.append(&facts, seen).await
    }

    async fn destroy(
        &self,
        duty: &Duty,
        authority_type: AuthorityType,
        authority: AuthorityId,
    ) -> Result<Progress, DutyError> {
        let Some(seen) = self.still_owed(duty, &self.authority_subject(authority_type)) else {
            return Ok(Progress::Some);
        };
        let authorities = self.authorities.clone();
        let stores = tokio::task::spawn_blocking(move || {
            authorities.forget(&authority);
            authorities.store().destroy(&authority)
        })
        .await??;
        // Crash point: destroyed, but not recorded. The duty stands, and destroying again is fine.
        let fact = AuthorityDestroyed {
            authority_type,
            authority,
            stores,
        };
        let done = self.append(&[fact.into()], seen).await?;
        tracing::info!(%authority_type, key = %authority.short(), "destroyed the key of a retired authority");
        Ok(done)
    }

    async fn revoke(
        &self,
        duty: &Duty,
        holder: &Principal,
        certificates: &[CertDigest],
    ) -> Result<Progress, DutyError> {
        let Some(seen) = self.still_owed(duty, &self.certificate_subject(holder)) else {
            return Ok(Progress::Some);
        };
        let is_gone = self.fold.read(|state| match holder {
            Principal::Node(node) => !state.nodes.contains_key(node),
            Principal::User(name) => !state.users.contains_key(name),
            Principal::Gateway(_) | Principal::External(_) | Principal::System(_) | Principal::Anonymous => {
                false
            }
        });
        let why = if is_gone {
            "its holder was removed"
        } else {
            "somebody revoked it"
        };
        let fact = CertificateRevoked {
            holder: holder.clone(),
            certificates: certificates.to_vec(),
            why: why.into(),
        };
        self.append(&[fact.into()], seen).await
    }

    /// Destroys private keys that nobody will ever ask for: made for a rotation that ended before the log named
    /// them, or destroyed once and brought back with an old copy of the directory.
    ///
    /// Should the log name such a key after all (an append whose answer was lost), it is late, and its destruction
    /// is owed like that of any other retired key.
    pub(crate) async fn sweep(&self) -> Result<(), DutyError> {
        let authorities = self.authorities.clone();
        let stored = tokio::task::spawn_blocking(move || authorities.store().keys()).await??;
        let stray: Vec<AuthorityId> = self.fold.read(|state| {
            let is_stray = |(id, purpose): &(AuthorityId, KeyPurpose)| {
                let of = state.types.get(&purpose.authority_type);
                // Over, or rolling back: then the log would not take it as prepared any more.
                let waits =
                    of.is_some_and(|of| of.rotation_id() == purpose.rotation && of.phase != Phase::Rollback);
                let is_over = purpose.rotation.is_some() && !waits;
                let was_destroyed =
                    of.is_some_and(|of| of.retired.iter().any(|r| r.key.id == *id && r.destroyed));
                was_destroyed || (is_over && !state.keys.contains_key(id))
            };
            stored.into_iter().filter(is_stray).map(|(id, _)| id).collect()
        });
        for id in stray {
            let authorities = self.authorities.clone();
            tokio::task::spawn_blocking(move || authorities.store().destroy(&id)).await??;
            tracing::warn!(key = %id.short(), "destroyed a key that is in no use and never will be");
        }
        Ok(())
    }

    /// If the duty is still owed, what the append stands on: whoever writes on the subject after this moment, and
    /// may have done the duty or made it void, makes it conflict.
    fn still_owed(&self, duty: &Duty, subject: &Subject) -> Option<Seen> {
        let (owed, seen) = self
            .writer
            .look(subject, self.now(), |state, now| is_owed(state, duty, now));
        owed.then_some(seen)
    }

    pub(crate) async fn append(&self, facts: &[Fact], seen: Seen) -> Result<Progress, DutyError> {
        let outcome = self
            .writer
            .append(&self.cluster, facts, self.now(), Expected::At(seen))
            .await?;
        match outcome {
            Outcome::Stored { last, .. } => {
                self.fold.wait_for(Position(last), READ_BACK).await?;
                Ok(Progress::Some)
            }
            // Somebody else's fact came in between: look again once it is folded.
            Outcome::Conflict { tail } => {
                self.fold.wait_for(Position(tail), READ_BACK).await?;
                Ok(Progress::Some)
            }
            Outcome::Unknown(why) => Err(DutyError::Unknown(why)),
        }
    }

    pub(crate) fn authority_subject(&self, authority_type: AuthorityType) -> Subject {
        self.subject("authority", authority_type.name())
    }

    pub(crate) fn certificate_subject(&self, holder: &Principal) -> Subject {
        self.subject("certificate", &holder.holder_token())
    }

    fn subject(&self, family: &str, holder: &str) -> Subject {
        let text = format!("{}{family}.{holder}", event_prefix(self.cluster.as_str()));
        Subject::parse(text).expect("families and holders are tokens by construction")
    }
}

/// Is the duty owed in this state? Asked again right before it is done: somebody may have done it, or made it void.
pub(crate) fn is_owed(state: &ClusterState, duty: &Duty, now: Timestamp) -> bool {
    owed(state, now).contains(duty)
}
