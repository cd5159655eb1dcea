//! What the signer and the orchestrator do by themselves.

use super::*;

impl World {
    /// What nobody needs to wait for: retirements are recorded, keys destroyed, the end is settled.
    pub fn tidy(&mut self) {
        while self.tidies_keys() || self.tidies_rotations() {}
    }

    fn tidies_keys(&mut self) -> bool {
        let duties = owed(&self.log, self.now).into_iter();
        let facts: Option<Vec<Fact>> = duties.filter_map(facts_of).next();
        let Some(facts) = facts else { return false };
        for fact in &facts {
            if let Fact::AuthorityDestroyed(destroyed) = fact {
                self.keys.remove(&destroyed.authority);
            }
        }
        self.append(Principal::System(SystemActor::Signer), facts);
        true
    }

    fn tidies_rotations(&mut self) -> bool {
        let void = void_authorizations(&self.log).first().map(|authorization| {
            let why = "its authority signs no more".into();
            Order::VoidAuthorization {
                authorization: *authorization,
                why,
            }
        });
        let settle = schedule::to_settle(&self.log)
            .first()
            .map(|(t, rotation)| Order::Settle {
                authority_type: *t,
                rotation: *rotation,
            });
        let mut orders = void.into_iter().chain(settle);
        let by = Principal::System(SystemActor::Clock);
        orders.any(|order| self.order(by.clone(), order).is_ok())
    }

    /// The signer begins to make the key of a rotation; it may take until the rotation is over.
    pub fn key_to_make(&self) -> Making {
        let duty = owed(&self.log, self.now).into_iter().find_map(|duty| match duty {
            Duty::GenerateKey {
                rotation, generation, ..
            } => Some((rotation, generation)),
            _ => None,
        });
        let (rotation, generation) = duty?;
        let key = self.key_of_generation("authority", generation, Some(rotation));
        Some(AuthorityKeyGenerated {
            authority_type: HOST,
            key,
        })
    }

    pub fn key_of_generation(
        &self,
        name: &str,
        generation: u32,
        rotation: Option<domain::RotationId>,
    ) -> AuthorityKey {
        AuthorityKey {
            id: pin(name, u64::from(generation)),
            kind: KeyKind::Tls,
            public_key: String::new(),
            generation,
            certificate: String::new(),
            algorithm: String::new(),
            storage: String::new(),
            not_after: FAR,
            rotation,
            position: Position(0),
        }
    }

    pub fn record_key(&mut self) {
        if let Some(made) = self.making.take() {
            self.keys.insert(made.key.id);
            self.append(Principal::System(SystemActor::Signer), vec![made.into()]);
        }
    }

    pub fn owes_bundle(&self) -> bool {
        let of = &self.log.types[&HOST];
        of.bundle.as_ref().is_none_or(|b| b.revision < of.bundle_due)
    }

    pub fn sign_bundle(&mut self, authority_type: AuthorityType) {
        let Some(bundle) = bundle_content(&self.log, authority_type, self.now) else {
            return;
        };
        let lists = bundle.authorities.iter().map(|a| (a.id, String::new()));
        let signed = AuthorityBundleSigned {
            revocation_lists: lists.collect(),
            authority_type,
            revision: bundle.revision,
            phase: bundle.phase,
            expires: bundle.expires,
            bundle: SignedBundle {
                document: String::new(),
                signature: String::new(),
                key: pin("bundle", 0),
                public_key: String::new(),
                replacements: vec![],
            },
        };
        self.bundles.insert(authority_type, bundle);
        self.append(Principal::System(SystemActor::Signer), vec![signed.into()]);
    }

    /// Signs what was authorised, if the signer still owes it.
    pub fn sign(&mut self, authorization: domain::AuthorizationId) {
        let is_owed = owed(&self.log, self.now).contains(&Duty::Sign { authorization });
        let Some(pending) = self.log.pending.get(&authorization).filter(|_| is_owed) else {
            return;
        };
        // A destroyed key signs nothing.
        if !self.keys.contains(&pending.granted.issuer) {
            return;
        }
        let issued = issue(&pending.granted);
        self.append(Principal::System(SystemActor::Signer), vec![issued.into()]);
    }

    /// Signer and gateway do what they owe.
    pub fn attend(&mut self) {
        for _ in 0..4 {
            if self.making.is_none() {
                self.making = self.key_to_make();
            }
            self.record_key();
            if self.gateway_may_hold() {
                self.gateway_holds();
            }
            self.gateway_reports();
            self.gateway_begins();
            if self.owes_bundle() {
                self.sign_bundle(HOST);
            }
            let pending: Vec<_> = self.log.pending.keys().copied().collect();
            for authorization in pending {
                self.sign(authorization);
            }
        }
    }
}

/// What the signer writes for a duty that takes no time.
fn facts_of(duty: Duty) -> Option<Vec<Fact>> {
    match duty {
        Duty::RecordRetirement {
            authority_type,
            authority,
            outcome,
            activated,
        } => {
            let activated = activated.into_iter().map(|(kind, authority)| {
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
            Some(activated.chain([retired.into()]).collect())
        }
        Duty::Destroy {
            authority_type,
            authority,
        } => {
            let destroyed = AuthorityDestroyed {
                authority_type,
                authority,
                stores: vec!["model".into()],
            };
            Some(vec![destroyed.into()])
        }
        Duty::Revoke { holder, certificates } => {
            let revoked = CertificateRevoked {
                holder,
                certificates,
                why: "removed".into(),
            };
            Some(vec![revoked.into()])
        }
        Duty::GenerateKey { .. } | Duty::Sign { .. } | Duty::SignBundle { .. } => None,
    }
}
