//! The signer of these tests: it does what is owed, at once and in one place.

use std::{sync::Arc, time::Duration};

use domain::{
    AuthorityType, ClusterState, Duty, Fact, Position, RotationId, Serial,
    duty::bundle_content,
    event::{
        AuthorityActivated, AuthorityBundleSigned, AuthorityDestroyed, AuthorityKeyGenerated,
        AuthorityRetired, AuthorizationGranted, CertificateIssued, CertificateRevoked,
    },
    owed,
};
use execution::{Expected, FactWriter};
use pki::{Blueprint, CaCert, KeyPair, authority, bundle, issue, random};

use super::{CLUSTER, World};

impl World {
    pub(super) fn authority(
        &self,
        t: AuthorityType,
        generation: u32,
        rotation: Option<RotationId>,
    ) -> AuthorityKeyGenerated {
        let key = Arc::new(KeyPair::generate());
        let blueprint = Blueprint {
            cluster: &CLUSTER.parse().unwrap(),
            authority_type: t,
            generation,
            serial: Serial::of_random(random()),
            now: (self.now)(),
        };
        let made = authority::make(&blueprint, &*key).unwrap();
        self.keys.lock().unwrap().insert(made.pin(), key);
        AuthorityKeyGenerated {
            authority_type: t,
            key: made.authority_key(generation, "software", rotation, Position(0)),
        }
    }

    pub(crate) fn issued(&self, granted: &AuthorizationGranted, issuer: &CaCert) -> CertificateIssued {
        let key = self.keys.lock().unwrap()[&granted.issuer].clone();
        let leaf = issue(granted, &CLUSTER.parse().unwrap(), issuer, &*key).unwrap();
        granted.issued(leaf.digest, leaf.to_base64())
    }

    /// What the signer does, until nothing is owed.
    pub(crate) async fn sign(&self) {
        loop {
            let duties = self.fold.read(|state| owed(state, state.now((self.now)())));
            if duties.is_empty() {
                return;
            }
            for duty in duties {
                let facts = self.fold.read(|state| self.done(state, &duty));
                self.write(&facts).await;
            }
        }
    }

    pub(crate) async fn write(&self, facts: &[Fact]) {
        let writer = FactWriter::signer(self.fold.clone());
        writer
            .append(&CLUSTER.parse().unwrap(), facts, (self.now)(), Expected::AsFolded)
            .await
            .unwrap();
        self.fold.catch_up(Duration::from_secs(20)).await.unwrap();
    }

    /// Signs a bundle with another content than the one that is due.
    pub(crate) async fn write_bundle(
        &self,
        authority_type: AuthorityType,
        revise: impl FnOnce(&mut domain::trust::Bundle),
    ) {
        let mut content = self
            .fold
            .read(|state| bundle_content(state, authority_type, state.time))
            .unwrap();
        revise(&mut content);
        self.write(&[self.signed(authority_type, &content)]).await;
    }

    fn done(&self, state: &ClusterState, duty: &Duty) -> Vec<Fact> {
        match duty.clone() {
            Duty::GenerateKey {
                authority_type,
                rotation,
                generation,
                ..
            } => {
                vec![self.authority(authority_type, generation, Some(rotation)).into()]
            }
            Duty::Sign { authorization } => {
                let granted = &state.pending[&authorization].granted;
                let of = &state.types[&granted.authority_type];
                let issuer = of.live(granted.issuer).unwrap();
                vec![
                    self.issued(granted, &CaCert::from_base64(&issuer.certificate).unwrap())
                        .into(),
                ]
            }
            Duty::SignBundle { authority_type, .. } => vec![self.bundle(state, authority_type)],
            Duty::RecordRetirement {
                authority_type,
                authority,
                outcome,
                activated,
            } => {
                let activated = activated.into_iter().map(|(kind, authority)| -> Fact {
                    AuthorityActivated {
                        authority_type,
                        kind,
                        authority,
                    }
                    .into()
                });
                let retired = AuthorityRetired {
                    authority_type,
                    authority,
                    outcome,
                };
                activated.chain([retired.into()]).collect()
            }
            Duty::Destroy {
                authority_type,
                authority,
            } => {
                vec![
                    AuthorityDestroyed {
                        authority_type,
                        authority,
                        stores: vec!["files".into()],
                    }
                    .into(),
                ]
            }
            Duty::Revoke { holder, certificates } => {
                vec![
                    CertificateRevoked {
                        holder,
                        certificates,
                        why: "removed".into(),
                    }
                    .into(),
                ]
            }
        }
    }

    fn bundle(&self, state: &ClusterState, authority_type: AuthorityType) -> Fact {
        self.signed(
            authority_type,
            &bundle_content(state, authority_type, state.time).unwrap(),
        )
    }

    fn signed(&self, authority_type: AuthorityType, content: &domain::trust::Bundle) -> Fact {
        AuthorityBundleSigned {
            revocation_lists: Default::default(),
            authority_type,
            revision: content.revision,
            phase: content.phase,
            expires: content.expires,
            bundle: bundle::sign(content, &self.bundle_key, vec![]),
        }
        .into()
    }
}
