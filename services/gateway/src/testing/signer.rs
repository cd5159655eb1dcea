//! A signer with keys in memory: it signs whatever is owed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use domain::{
    AuthorityType, AuthorizationId, ClusterName, ClusterState, Duty, Fact, MemberId, Phase, Position,
    Principal, Serial, SpkiPin, Timestamp,
    authority::{AuthorityKey, KeyKind},
    command::{Genesis, Settings},
    duty::{bundle_content, owed},
    event::{
        AuthorityActivated, AuthorityBundleSigned, AuthorityDestroyed, AuthorityKeyGenerated,
        AuthorityRetired, AuthorizationGranted, CertificateIssued, CertificateRevoked, LeafUse, Occasion,
    },
};
use execution::{Expected, FactWriter, Fold};
use pki::{Blueprint, CaCert, KeyPair, authority, bundle, issue};
use tokio::sync::watch;

use super::SOON;

/// What the signer is late with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Late {
    Nothing,
    /// Certificates of nodes.
    Nodes,
    /// Certificates of parties without an agent.
    Parties,
    /// Trust bundles.
    Bundles,
}

/// Signs whatever is owed, with keys in memory.
pub(crate) struct SmallSigner {
    /// A test's switch.
    pub(crate) late: watch::Sender<Late>,
    keys: Mutex<BTreeMap<SpkiPin, (KeyPair, CaCert)>>,
    bundle_key: KeyPair,
}

impl SmallSigner {
    pub(super) fn new() -> Self {
        Self {
            late: watch::Sender::new(Late::Nothing),
            keys: Mutex::default(),
            bundle_key: KeyPair::generate(),
        }
    }

    /// An authority's key and certificate.
    pub(crate) fn make(
        &self,
        cluster: &ClusterName,
        authority_type: AuthorityType,
        generation: u32,
        now: Timestamp,
    ) -> AuthorityKey {
        let key = KeyPair::generate();
        let serial = Serial::of_random(pki::random());
        let ca = authority::make(
            &Blueprint {
                cluster,
                authority_type,
                generation,
                serial,
                now,
            },
            &key,
        )
        .unwrap();
        let public = ca.authority_key(generation, "memory", None, Position(0));
        self.keys.lock().unwrap().insert(public.id, (key, ca));
        public
    }

    /// Signs outside the log, as a thief with the authority's key would.
    pub(crate) fn issue(&self, granted: &AuthorizationGranted, cluster: &ClusterName) -> pki::IssuedLeaf {
        let keys = self.keys.lock().unwrap();
        let (key, ca) = &keys[&granted.issuer];
        issue(granted, cluster, ca, key).unwrap()
    }

    pub(super) async fn run(self: Arc<Self>, fold: Fold, now: execution::Now) {
        let writer = FactWriter::signer(fold.clone());
        let mut changes = fold.changes();
        let mut late = self.late.subscribe();
        loop {
            late.borrow_and_update();
            let (duties, cluster) = fold.read(|s| (owed(s, s.now(now())), s.cluster_name().cloned()));
            for duty in duties {
                if fold.read(|s| self.is_late_with(s, &duty)) {
                    continue;
                }
                let cluster = cluster.as_ref().expect("the genesis came first");
                let facts = fold.read(|s| self.facts(s, &duty, cluster, now()));
                if !facts.is_empty() {
                    let outcome = writer
                        .append(cluster, &facts, now(), Expected::AsFolded)
                        .await
                        .unwrap();
                    if let eventlog::Outcome::Stored { last, .. } = outcome {
                        fold.wait_for(Position(last), SOON).await.unwrap();
                    }
                }
            }
            let changed = tokio::select! {
                changed = changes.changed() => changed.is_ok(),
                changed = late.changed() => changed.is_ok(),
            };
            if !changed {
                return;
            }
        }
    }

    fn facts(&self, s: &ClusterState, duty: &Duty, cluster: &ClusterName, now: Timestamp) -> Vec<Fact> {
        match duty.clone() {
            Duty::GenerateKey {
                authority_type,
                rotation,
                generation,
                ..
            } => {
                let mut key = self.make(cluster, authority_type, generation, now);
                key.rotation = Some(rotation);
                vec![AuthorityKeyGenerated { authority_type, key }.into()]
            }
            Duty::Sign { authorization } => s.pending.get(&authorization).map_or(vec![], |pending| {
                let leaf = self.issue(&pending.granted, cluster);
                vec![issued(&pending.granted, &leaf).into()]
            }),
            Duty::SignBundle { authority_type, .. } => vec![self.bundle(s, authority_type, now)],
            Duty::RecordRetirement {
                authority_type,
                authority,
                outcome,
                activated,
            } => {
                let active = |(kind, authority)| {
                    AuthorityActivated {
                        authority_type,
                        kind,
                        authority,
                    }
                    .into()
                };
                let retired = AuthorityRetired {
                    authority_type,
                    authority,
                    outcome,
                };
                activated
                    .into_iter()
                    .map(active)
                    .chain([retired.into()])
                    .collect()
            }
            Duty::Destroy {
                authority_type,
                authority,
            } => {
                let stores = vec!["memory".into()];
                vec![
                    AuthorityDestroyed {
                        authority_type,
                        authority,
                        stores,
                    }
                    .into(),
                ]
            }
            Duty::Revoke { holder, certificates } => {
                let why = "removed".into();
                vec![
                    CertificateRevoked {
                        holder,
                        certificates,
                        why,
                    }
                    .into(),
                ]
            }
        }
    }

    fn is_late_with(&self, s: &ClusterState, duty: &Duty) -> bool {
        let holder = |id| s.pending.get(id).map(|p| &p.granted.holder);
        match (*self.late.borrow(), duty) {
            (Late::Nodes, Duty::Sign { authorization }) => {
                matches!(holder(authorization), Some(Principal::Node(_)))
            }
            (Late::Parties, Duty::Sign { authorization }) => {
                matches!(holder(authorization), Some(Principal::External(_)))
            }
            (Late::Bundles, Duty::SignBundle { .. }) => true,
            _ => false,
        }
    }

    fn bundle(&self, s: &ClusterState, authority_type: AuthorityType, now: Timestamp) -> Fact {
        let content = bundle_content(s, authority_type, s.now(now)).unwrap();
        let (revision, phase, expires) = (content.revision, content.phase, content.expires);
        let bundle = bundle::sign(&content, &self.bundle_key, vec![]);
        AuthorityBundleSigned {
            revocation_lists: Default::default(),
            authority_type,
            revision,
            phase,
            expires,
            bundle,
        }
        .into()
    }
}

pub(crate) fn issued(granted: &AuthorizationGranted, leaf: &pki::IssuedLeaf) -> CertificateIssued {
    granted.issued(leaf.digest, leaf.to_base64())
}

/// Exactly what a certificate would say.
pub(crate) fn granted(
    cluster: &ClusterName,
    holder: Principal,
    issuer: (AuthorityType, SpkiPin),
    usage: LeafUse,
    key: &KeyPair,
    now: Timestamp,
) -> AuthorizationGranted {
    AuthorizationGranted {
        authorization: AuthorizationId(execution::fresh_id(now)),
        uri: holder.uri(cluster),
        common_name: "test".into(),
        holder,
        authority_type: issuer.0,
        issuer: issuer.1,
        usage,
        occasion: Occasion::Genesis,
        spki: key.spki_pin(),
        public_key: key.public().to_base64(),
        names: vec![],
        addresses: vec![],
        serial: Serial::of_random(pki::random()),
        not_before: now.minus_ms(60_000),
        not_after: now.plus_ms(3_600_000),
        rotation: None,
        phase: Phase::Standby,
        form: domain::event::Form::Tls,
    }
}

pub(super) type Credentials = (KeyPair, Vec<u8>);

pub(super) fn genesis(
    signer: &SmallSigner,
    cluster: &ClusterName,
    member: MemberId,
    now: Timestamp,
) -> (Genesis, Credentials, Credentials) {
    let keys: Vec<_> = [AuthorityType::Host, AuthorityType::User]
        .into_iter()
        .map(|authority_type| {
            let key = signer.make(cluster, authority_type, 1, now);
            let activated = AuthorityActivated {
                authority_type,
                kind: KeyKind::Tls,
                authority: key.id,
            };
            (AuthorityKeyGenerated { authority_type, key }, activated)
        })
        .collect();
    let issuer = |at: usize| (keys[at].0.authority_type, keys[at].0.key.id);
    let mut certificates = vec![];
    let mut leaf = |holder: Principal, issuer, usage| {
        let key = KeyPair::generate();
        let granted = granted(cluster, holder, issuer, usage, &key, now);
        let leaf = signer.issue(&granted, cluster);
        certificates.push((granted.clone(), issued(&granted, &leaf)));
        (key, leaf.der.to_vec())
    };
    let admin = leaf(
        Principal::User("admin".parse().unwrap()),
        issuer(1),
        LeafUse::Client,
    );
    let gateway = leaf(Principal::Gateway(member), issuer(0), LeafUse::Both);
    let genesis = Genesis {
        cluster: cluster.clone(),
        settings: Settings {
            allow_loopback: true,
            ..Settings::default()
        },
        bundle_key: signer.bundle_key.spki_pin(),
        bundle_public_key: signer.bundle_key.public().to_base64(),
        keys,
        admin: "admin".parse().unwrap(),
        gateway: member,
        certificates,
    };
    (genesis, admin, gateway)
}
