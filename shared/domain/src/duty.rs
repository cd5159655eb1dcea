//! What the signer owes: computed from the state, so that a signer that was away loses nothing.

use crate::{
    authority::{AuthorityKey, AuthorityType, KeyKind},
    event::{Event, Fact, RotationOutcome},
    id::{AuthorityId, AuthorizationId, CertDigest, Position, Principal, RotationId, Serial},
    phase::Phase,
    state::{BundleHead, ClusterState, DeniedCertificate, TypeState},
    time::{MINUTE_MS, Timestamp},
    trust::{AuthorityStatus, BUNDLE_LIFE_MS, Bundle, BundleAuthority, Denied},
};

/// How long after a bundle was signed a revocation list that it lacks is tried for, in milliseconds.
pub const LIST_AFTER_MS: u64 = MINUTE_MS;

/// Something that the signer owes. Every duty may be done twice and late: doing it again changes nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Duty {
    /// Make the new key of one kind for a rotation: `authority.key-generated`.
    GenerateKey {
        /// Which authority.
        authority_type: AuthorityType,
        /// Which kind.
        kind: KeyKind,
        /// For which rotation.
        rotation: RotationId,
        /// Its generation.
        generation: u32,
    },
    /// Sign exactly what was authorised: `certificate.issued`.
    Sign {
        /// The authorisation.
        authorization: AuthorizationId,
    },
    /// Sign the trust bundle of a type: `authority.bundle-signed`.
    SignBundle {
        /// Which type.
        authority_type: AuthorityType,
        /// The revision: the position that it describes.
        revision: Position,
    },
    /// Record that a key signs no more, and which one signs instead: `authority.activated`, `authority.retired`.
    RecordRetirement {
        /// Which type.
        authority_type: AuthorityType,
        /// The retired authority.
        authority: AuthorityId,
        /// Why.
        outcome: RotationOutcome,
        /// The authorities that sign instead, after a completed rotation.
        activated: Vec<(KeyKind, AuthorityId)>,
    },
    /// Destroy the private half of a retired key: `authority.destroyed`.
    Destroy {
        /// Which type.
        authority_type: AuthorityType,
        /// Which key.
        authority: AuthorityId,
    },
    /// Record that certificates no longer count: `certificate.revoked`.
    Revoke {
        /// Whose.
        holder: Principal,
        /// Which.
        certificates: Vec<CertDigest>,
    },
}

/// What the signer owes because of one event, given the state that holds it.
pub fn duty(state: &ClusterState, event: &Event) -> Vec<Duty> {
    match &event.fact {
        Fact::AuthorizationGranted(f) => sign(state, f.authorization).into_iter().collect(),
        Fact::RotationPhaseEntered(f) => of_type(state, f.authority_type),
        Fact::AuthorityKeyGenerated(f) => of_type(state, f.authority_type),
        Fact::AuthorityActivated(f) => of_type(state, f.authority_type),
        Fact::AuthorityRetired(f) => of_type(state, f.authority_type),
        Fact::NodeRemoved(f) => revocations(state, Some(&Principal::Node(f.node))),
        Fact::AccessUserRemoved(f) => revocations(state, Some(&Principal::User(f.user.clone()))),
        Fact::AccessCertificatesRevoked(_) => revocations(state, None),
        Fact::CertificateRevoked(_) => AuthorityType::all().flat_map(|t| bundle(state, t)).collect(),
        Fact::ClusterCreated(_)
        | Fact::ClusterClockAccepted(_)
        | Fact::RotationHeld(_)
        | Fact::RotationResumed(_)
        | Fact::RotationModeChanged(_)
        | Fact::RotationSettled(_)
        | Fact::NodeJoined(_)
        | Fact::NodeRejoined(_)
        | Fact::NodeRecovered(_)
        | Fact::NodeReported(_)
        | Fact::NodeExcluded(_)
        | Fact::NodeIncluded(_)
        | Fact::MemberStarted(_)
        | Fact::MemberReported(_)
        | Fact::MemberLost(_)
        | Fact::MemberStopped(_)
        | Fact::AccessTokenCreated(_)
        | Fact::AccessTokenUsed(_)
        | Fact::AccessTokenRemoved(_)
        | Fact::AccessUserAdded(_)
        | Fact::AccessRecovered(_)
        | Fact::AccessNamesReleased(_)
        | Fact::AccessCredentialPresented(_)
        | Fact::ConsumerAdded(_)
        | Fact::ConsumerAttested(_)
        | Fact::ConsumerWithdrawn(_)
        | Fact::CommandRefused(_)
        | Fact::CommandNoop(_)
        | Fact::AuthorizationVoided(_)
        | Fact::AuthorityDestroyed(_)
        | Fact::AuthorityBundleSigned(_)
        | Fact::CertificateIssued(_)
        | Fact::CertificateRefused(_) => vec![],
    }
}

/// Everything that the signer owes in this state: for its start, and for what only time makes due
/// (a bundle is signed anew at half its life).
pub fn owed(state: &ClusterState, now: Timestamp) -> Vec<Duty> {
    let mut duties: Vec<Duty> = state.types.keys().flat_map(|t| of_type(state, *t)).collect();
    duties.extend(state.types.iter().filter_map(|(t, of)| stale_bundle(*t, of, now)));
    duties.extend(revocations(state, None));
    duties.extend(state.pending.keys().filter_map(|id| sign(state, *id)));
    duties
}

/// What it owes for one type beside certificates: keys, their ends, and the bundle.
pub(crate) fn owed_of_type(state: &ClusterState, t: AuthorityType, now: Timestamp) -> Vec<Duty> {
    let mut duties = of_type(state, t);
    duties.extend(state.types.get(&t).and_then(|of| stale_bundle(t, of, now)));
    duties
}

/// The content of the bundle that is due for a type, made at `now`.
pub fn bundle_content(state: &ClusterState, authority_type: AuthorityType, now: Timestamp) -> Option<Bundle> {
    let of = state.types.get(&authority_type)?;
    let listed = |keys: &std::collections::BTreeMap<KeyKind, AuthorityKey>, status| {
        keys.values()
            .map(|k| BundleAuthority {
                id: k.id,
                kind: k.kind,
                status,
                generation: k.generation,
                certificate: k.certificate.clone(),
                public_key: k.public_key.clone(),
            })
            .collect::<Vec<_>>()
    };
    let mut authorities = listed(&of.active, AuthorityStatus::Active);
    authorities.extend(listed(&of.prepared, AuthorityStatus::Prepared));
    // A certificate of an authority that the bundle does not list is accepted by nobody: naming it would only make
    // the document grow, and one that is too large is read by nobody.
    let is_listed = |denied: &DeniedCertificate| authorities.iter().any(|a| a.id == denied.issuer);
    let denied = of.denied.iter();
    let denied = denied
        .filter(|(_, denied)| denied.not_after > now && is_listed(denied))
        .map(|(digest, denied)| Denied {
            serial: denied.serial,
            digest: *digest,
            not_after: denied.not_after,
        })
        .collect();
    Some(Bundle {
        cluster: state.cluster_name()?.clone(),
        authority_type,
        rotation: of.rotation_id(),
        phase: of.phase,
        revision: of.bundle_due,
        authorities,
        denied,
        expires: now.plus_ms(BUNDLE_LIFE_MS),
    })
}

/// What stands in an authority's revocation list: what it signed for TLS and somebody revoked, with when, until it expires.
pub fn revoked_by(
    state: &ClusterState,
    t: AuthorityType,
    authority: AuthorityId,
    now: Timestamp,
) -> Vec<(Serial, Timestamp)> {
    let denied = state.types.get(&t).into_iter().flat_map(|of| of.denied.values());
    denied
        .filter(|d| d.issuer == authority && d.kind == KeyKind::Tls && d.not_after > now)
        .map(|d| (d.serial, d.at))
        .collect()
}

fn of_type(state: &ClusterState, t: AuthorityType) -> Vec<Duty> {
    let Some(of) = state.types.get(&t) else {
        return vec![];
    };
    let mut duties = vec![];
    if let Some(rotation) = of.rotation.as_ref().filter(|_| of.phase != Phase::Rollback) {
        duties.extend(of.keys_missing().map(|kind| Duty::GenerateKey {
            authority_type: t,
            kind,
            rotation: rotation.id,
            generation: of.next_generation(),
        }));
    }
    duties.extend(bundle(state, t));
    for retired in of.retired.iter().filter(|r| !r.destroyed) {
        if let Some(outcome) = retired.outcome.filter(|_| !retired.recorded) {
            let activated = match outcome {
                RotationOutcome::Completed => of.active.values().map(|k| (k.kind, k.id)).collect(),
                RotationOutcome::RolledBack => vec![],
            };
            let authority = retired.key.id;
            duties.push(Duty::RecordRetirement {
                authority_type: t,
                authority,
                outcome,
                activated,
            });
        } else {
            duties.push(Duty::Destroy {
                authority_type: t,
                authority: retired.key.id,
            });
        }
    }
    duties
}

fn bundle(state: &ClusterState, t: AuthorityType) -> Option<Duty> {
    let of = state.types.get(&t)?;
    let due = of.bundle.as_ref().is_none_or(|b| b.revision < of.bundle_due);
    (due && state.cluster.is_some() && !of.active.is_empty()).then_some(Duty::SignBundle {
        authority_type: t,
        revision: of.bundle_due,
    })
}

/// A bundle that describes the row is signed anew at half its life, and before that where an authority had no revocation
/// list beside it.
fn stale_bundle(t: AuthorityType, of: &TypeState, now: Timestamp) -> Option<Duty> {
    let head = of.bundle.as_ref().filter(|b| b.revision >= of.bundle_due)?;
    let half = head.signed.plus_ms(BUNDLE_LIFE_MS / 2);
    let lacks_list = now >= head.signed.plus_ms(LIST_AFTER_MS) && lacks_list(of, head).is_some();
    (now >= half || lacks_list).then_some(Duty::SignBundle {
        authority_type: t,
        revision: of.bundle_due,
    })
}

/// A key that signs X.509 and has no list beside the newest bundle: it could not be reached.
fn lacks_list<'a>(of: &'a TypeState, head: &BundleHead) -> Option<&'a AuthorityKey> {
    let mut certified = of.living().filter(|key| key.kind == KeyKind::Tls);
    certified.find(|key| !head.lists.contains(&key.id))
}

/// Is a bundle that is owed ([`owed`]) owed for the sake of revocation lists alone? Then one without any more of them is of
/// no use.
pub fn is_owed_for_lists(state: &ClusterState, t: AuthorityType, now: Timestamp) -> bool {
    let Some((of, head)) = state.types.get(&t).and_then(|of| Some((of, of.bundle.as_ref()?))) else {
        return false;
    };
    head.revision >= of.bundle_due
        && now < head.signed.plus_ms(BUNDLE_LIFE_MS / 2)
        && lacks_list(of, head).is_some()
}

/// An authorisation is signed only while its authority is active or prepared; otherwise it is void.
fn sign(state: &ClusterState, authorization: AuthorizationId) -> Option<Duty> {
    let pending = state.pending.get(&authorization)?;
    is_live(state, pending.granted.authority_type, pending.granted.issuer)
        .then_some(Duty::Sign { authorization })
}

/// Is the authority active or prepared?
pub fn is_live(state: &ClusterState, t: AuthorityType, authority: AuthorityId) -> bool {
    let of = state.types.get(&t);
    of.is_some_and(|of| of.live(authority).is_some())
}

/// Authorisations whose authority signs no more, for the orchestrator to void.
pub fn void_authorizations(state: &ClusterState) -> Vec<AuthorizationId> {
    state
        .pending
        .iter()
        .filter(|(_, p)| !is_live(state, p.granted.authority_type, p.granted.issuer))
        .map(|(id, _)| *id)
        .collect()
}

/// Certificates that no longer count and whose revocation is not recorded yet, of everybody or of one holder.
pub(crate) fn revocations(state: &ClusterState, of: Option<&Principal>) -> Vec<Duty> {
    state
        .to_revoke
        .iter()
        .filter(|(holder, _)| of.is_none_or(|of| of == *holder))
        .map(|(holder, due)| Duty::Revoke {
            holder: holder.clone(),
            certificates: due.clone(),
        })
        .collect()
}
