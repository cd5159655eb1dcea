//! Authorisations and certificates.

use super::node::names_released;
use crate::{
    authority::{AuthorityType, KeyKind},
    command::Revocable,
    decide::{
        access::names,
        certificates::{is_others, revoke},
    },
    event::{
        AuthorizationGranted, CertificateIssued, CertificateRefused, CertificateRevoked, Header, Occasion,
    },
    id::{AuthorizationId, CertDigest, NodeId, Position, Principal},
    state::{AuthorizationOutcome, Certificate, ClusterState, DeniedCertificate, Pending, TypeState},
    time::{MINUTE_MS, Timestamp},
};

/// How long an older certificate of a node still counts after a later one was seen in use.
pub(super) const SUPERSEDED_AFTER_MS: u64 = 10 * MINUTE_MS;
/// Why an authorisation is void whose holder is gone.
pub(super) const GONE: &str = "the holder was removed";
/// How many certificates of others are forgotten when one is made.
const FORGOTTEN_AT_ONCE: usize = 8;
/// How many outcomes of authorisations are kept for those who wait for an answer.
const OUTCOMES_KEPT: usize = 4_096;

pub(super) fn authorized(state: &mut ClusterState, header: &Header, f: &AuthorizationGranted) {
    if let Some(why) = overtaken(state, header, f) {
        settle(state, f.authorization, AuthorizationOutcome::Voided(why.into()));
        return;
    }
    // What a token is sealed to is certified by nobody.
    if f.form.kind() != KeyKind::Jwt {
        state.keys.insert(f.spki, f.holder.clone());
    }
    if bears_names(f) {
        for name in &f.names {
            let bearers = state.names.entry(name.clone()).or_default();
            let until = bearers.entry(f.holder.clone()).or_insert(f.not_after);
            *until = (*until).max(f.not_after);
        }
    }
    if let Principal::Node(id) = &f.holder {
        let of = state.types.get(&f.authority_type);
        let is_prepared = of.is_some_and(|of| of.prepared.values().any(|k| k.id == f.issuer));
        if let (true, Some(rotation), Some(node)) = (
            is_prepared,
            of.and_then(|of| of.rotation_id()),
            state.nodes.get_mut(id),
        ) {
            node.touched.insert(f.authority_type, rotation);
        }
    }
    let none = TypeState::default();
    let of = state.types.get(&f.authority_type).unwrap_or(&none);
    let row = of.row(f.form.kind());
    let pending = Pending {
        granted: f.clone(),
        position: header.position,
        at: header.time,
        row,
    };
    state.pending_keys.insert(f.spki, f.authorization);
    state.pending.insert(f.authorization, pending);
}

/// Are its names taken for others? A node's, and those of a host without one; a database is known to its own clients alone.
fn bears_names(f: &AuthorizationGranted) -> bool {
    match &f.holder {
        Principal::Node(_) => true,
        Principal::External(_) => f.authority_type == AuthorityType::Host,
        Principal::Gateway(_) | Principal::User(_) | Principal::System(_) | Principal::Anonymous => false,
    }
}

/// It waits no more.
fn take(state: &mut ClusterState, authorization: AuthorizationId) -> Option<Pending> {
    let pending = state.pending.remove(&authorization)?;
    let spki = pending.granted.spki;
    if state.pending_keys.get(&spki) == Some(&authorization) {
        state.pending_keys.remove(&spki);
    }
    Some(pending)
}

/// Was the authorisation overtaken by an event on another subject, which its condition could not see? Then
/// it is void from the start: the order of the log decides, for everybody alike.
fn overtaken(state: &ClusterState, header: &Header, f: &AuthorizationGranted) -> Option<&'static str> {
    let shown = state.shown(header.credential.as_ref());
    if shown.is_some_and(|shown| shown.revoked) {
        return Some("the certificate that it was asked with was revoked");
    }
    let gone = match &f.holder {
        Principal::Node(id) => !state.nodes.contains_key(id),
        Principal::User(name) => !state.users.contains_key(name),
        Principal::Gateway(_) | Principal::External(_) | Principal::System(_) | Principal::Anonymous => false,
    };
    if gone {
        return Some(GONE);
    }
    let kind = f.form.kind();
    if kind != KeyKind::Jwt && is_others(state, &f.holder, f.spki, kind, state.time) {
        return Some("the key was certified for another holder");
    }
    if !bears_names(f) {
        return None;
    }
    let taken = f
        .names
        .iter()
        .filter_map(|name| state.names.get(name))
        .any(|bearers| {
            bearers
                .iter()
                .any(|(other, until)| *other != f.holder && *until > state.time)
        });
    // A living node keeps a name at its renewals; only whoever comes in must not take a gateway's.
    let comes_in = match f.occasion {
        Occasion::Join | Occasion::Recovery | Occasion::Signing => true,
        Occasion::Genesis | Occasion::Renewal | Occasion::Login => false,
    };
    let reserved = comes_in
        && (f.names.iter().any(|name| names::is_reserved(state, name))
            || f.addresses.iter().any(|a| names::address_is_reserved(state, *a)));
    if reserved {
        return Some("a control-plane service was given the name or address");
    }
    taken.then_some("another host was given the name")
}

pub(super) fn voided(state: &mut ClusterState, authorization: AuthorizationId, why: &str) {
    free_names(state, authorization);
    settle(state, authorization, AuthorizationOutcome::Voided(why.into()));
}

pub(super) fn refused(state: &mut ClusterState, f: &CertificateRefused) {
    free_names(state, f.authorization);
    settle(
        state,
        f.authorization,
        AuthorizationOutcome::Refused(f.why.clone()),
    );
}

/// No certificate comes of the authorisation: its names are borne only as long as another one of the node's certificates,
/// made or to be made, lives.
fn free_names(state: &mut ClusterState, authorization: AuthorizationId) {
    let Some(pending) = take(state, authorization) else {
        return;
    };
    if !bears_names(&pending.granted) {
        return;
    }
    let holder = &pending.granted.holder;
    let held = state.held.get(holder).into_iter().flatten();
    let made = held
        .filter_map(|d| state.certificates.get(d))
        .filter(|c| !c.revoked)
        .map(|c| c.not_after)
        .max();
    for name in &pending.granted.names {
        let to_be_made = state
            .pending
            .values()
            .filter(|p| p.granted.holder == *holder && p.granted.names.contains(name))
            .map(|p| p.granted.not_after)
            .max();
        let Some(bearers) = state.names.get_mut(name) else {
            continue;
        };
        match made.max(to_be_made) {
            Some(until) => {
                bearers.insert(holder.clone(), until);
            }
            None => {
                bearers.remove(holder);
            }
        }
        if bearers.is_empty() {
            state.names.remove(name);
        }
    }
}

pub(super) fn issued(state: &mut ClusterState, header: &Header, f: &CertificateIssued) {
    // Only the certificate recorded first for an authorisation exists: a second one never leaves the signer. One whose
    // authorisation was voided while it was being signed stands in the log for whoever reads it: it is denied.
    if take(state, f.authorization).is_none() {
        let outcome = state.settled_authorizations.get(&f.authorization);
        if matches!(outcome, Some(AuthorizationOutcome::Voided(_))) && f.kind != KeyKind::Jwt {
            let denied = DeniedCertificate {
                serial: f.serial,
                issuer: f.issuer,
                kind: f.kind,
                not_after: f.not_after,
                at: header.time,
            };
            list(state, f.authority_type, f.digest, denied, header.position);
        }
        return;
    }
    settle(state, f.authorization, AuthorizationOutcome::Issued(f.digest));
    state.certificates.insert(
        f.digest,
        Certificate {
            authorization: f.authorization,
            holder: f.holder.clone(),
            authority_type: f.authority_type,
            issuer: f.issuer,
            kind: f.kind,
            usage: f.usage,
            serial: f.serial,
            spki: f.spki,
            not_after: f.not_after,
            position: header.position,
            issued: header.time,
            presented: None,
            superseded_at: None,
            revoked: false,
        },
    );
    state.held.entry(f.holder.clone()).or_default().push(f.digest);
    match &f.holder {
        Principal::Node(_) | Principal::Gateway(_) => forget_expired(state, &f.holder),
        Principal::User(_) | Principal::External(_) | Principal::System(_) | Principal::Anonymous => {
            let until = kept_until(state, f.kind, f.not_after);
            state.to_forget.insert((until, f.digest));
        }
    }
    forget_others(state);
}

/// How long a certificate is remembered: for as long as it allows a recovery, which only one for TLS ever does.
fn kept_until(state: &ClusterState, kind: KeyKind, not_after: Timestamp) -> Timestamp {
    let keep_ms = match kind {
        KeyKind::Tls => state.settings().max_offline_ms,
        KeyKind::Ssh | KeyKind::Jwt => 0,
    };
    not_after.plus_ms(keep_ms)
}

/// Certificates past their time are forgotten when their holder gets a new one. The last one of a node is kept: whoever ever
/// had one does not ask for the first once more.
fn forget_expired(state: &mut ClusterState, holder: &Principal) {
    let held = state.held.get(holder).into_iter().flatten();
    let past = held.filter(|digest| {
        let certificate = state.certificates.get(digest);
        certificate.is_none_or(|c| kept_until(state, c.kind, c.not_after) < state.time)
    });
    for digest in past.copied().collect::<Vec<_>>() {
        forget(state, holder, &digest);
    }
}

/// Whoever is gone for good gets no new one that would let the old ones go.
pub(super) fn forget_in_time(state: &mut ClusterState, holder: &Principal) {
    let held = state.held.get(holder).into_iter().flatten();
    let certificates = held.filter_map(|digest| Some((*digest, state.certificates.get(digest)?)));
    let ends = certificates.map(|(digest, c)| (kept_until(state, c.kind, c.not_after), digest));
    let ends: Vec<_> = ends.collect();
    state.to_forget.extend(ends);
}

/// Other holders may never come back: a name for each job is used once. So a few of theirs are forgotten whenever anybody gets
/// a certificate, more than were made.
fn forget_others(state: &mut ClusterState) {
    for _ in 0..FORGOTTEN_AT_ONCE {
        let past = state.to_forget.first().filter(|(until, _)| *until < state.time);
        let Some((_, digest)) = past.copied() else { return };
        state.to_forget.pop_first();
        if let Some(holder) = state.certificates.get(&digest).map(|c| c.holder.clone()) {
            forget(state, &holder, &digest);
        }
    }
}

/// With its key, unless that is certified once more: from then on it is nobody's.
fn forget(state: &mut ClusterState, holder: &Principal, digest: &CertDigest) {
    let certificate = state.certificates.remove(digest);
    let Some(held) = state.held.get_mut(holder) else {
        return;
    };
    if let Some(at) = held.iter().position(|d| d == digest) {
        held.remove(at);
    }
    let is_its_own = |certificate: &Certificate| state.keys.get(&certificate.spki) == Some(holder);
    if let Some(spki) = certificate.filter(is_its_own).map(|c| c.spki) {
        let mut others = held.iter().filter_map(|d| state.certificates.get(d));
        let is_in_use = others.any(|other| other.spki == spki) || state.pending_keys.contains_key(&spki);
        if !is_in_use {
            state.keys.remove(&spki);
        }
    }
    if state.held.get(holder).is_some_and(Vec::is_empty) {
        state.held.remove(holder);
    }
}

fn settle(state: &mut ClusterState, authorization: AuthorizationId, outcome: AuthorizationOutcome) {
    take(state, authorization);
    if state
        .settled_authorizations
        .insert(authorization, outcome)
        .is_none()
    {
        state.settled_order.push_back(authorization);
    }
    let surplus = state.settled_order.len() > OUTCOMES_KEPT;
    if let Some(oldest) = surplus.then(|| state.settled_order.pop_front()).flatten() {
        state.settled_authorizations.remove(&oldest);
    }
}

/// A certificate was seen in use: earlier ones of the same node stop counting ten minutes later.
pub(super) fn presented(state: &mut ClusterState, header: &Header, digest: &CertDigest) {
    let Some(certificate) = state.certificates.get_mut(digest) else {
        return;
    };
    let first_time = certificate.presented.is_none();
    certificate.presented.get_or_insert(header.time);
    let certificate = certificate.clone();
    if let (true, Principal::Node(node)) = (first_time, &certificate.holder) {
        supersede_before(
            state,
            node,
            &certificate,
            header.time.plus_ms(SUPERSEDED_AFTER_MS),
        );
    }
}

/// Of the same type: a certificate that is presented to us says nothing of those that databases are shown.
fn supersede_before(state: &mut ClusterState, node: &NodeId, later: &Certificate, at: Timestamp) {
    let Some(held) = state.held.get(&Principal::Node(*node)) else {
        return;
    };
    for digest in held {
        if let Some(earlier) = state.certificates.get_mut(digest) {
            let is_before =
                earlier.authority_type == later.authority_type && earlier.position < later.position;
            // Client certificates only; one that bears the server role as well is superseded as a whole.
            if is_before && earlier.usage.client() && earlier.superseded_at.is_none() {
                earlier.superseded_at = Some(at);
            }
        }
    }
}

pub(super) fn revoked(state: &mut ClusterState, f: &CertificateRevoked) {
    if let Some(due) = state.to_revoke.get_mut(&f.holder) {
        due.retain(|d| !f.certificates.contains(d));
        if due.is_empty() {
            state.to_revoke.remove(&f.holder);
        }
    }
    deny(state, &f.certificates, state.position);
}

/// What somebody revoked by hand. Whoever has nothing left that counts bears no names any more.
pub(super) fn revoked_by_hand(state: &mut ClusterState, header: &Header, target: &Revocable) {
    let affected = revoke::affected(state, target);
    if let Revocable::Serial(_) = target {
        let meant = revoke::meant(state, target);
        deny(state, &meant, header.position);
        for digest in meant {
            let holder = state.certificates.get(&digest).map(|c| c.holder.clone());
            let due = holder.map(|holder| state.to_revoke.entry(holder).or_default());
            due.into_iter().for_each(|due| due.push(digest));
        }
    } else {
        for holder in &affected {
            revoke_all(
                state,
                holder,
                header.position,
                "its holder's certificates were revoked",
            );
        }
    }
    for holder in affected {
        let now = state.time;
        let held = state.held.get(&holder).into_iter().flatten();
        let mut left = held.filter_map(|digest| state.certificates.get(digest));
        let awaits = state.pending.values().any(|p| p.granted.holder == holder);
        if !awaits && !left.any(|c| !c.revoked && c.not_after > now) {
            names_released(state, &holder);
        }
    }
}

/// Everything that a holder has stops counting: on the deny list from here on, and owed its revocation.
pub(super) fn revoke_all(state: &mut ClusterState, holder: &Principal, position: Position, why: &str) {
    let digests = state.held.get(holder).cloned().unwrap_or_default();
    let counts = |d: &CertDigest| {
        let certificate = state.certificates.get(d);
        certificate.is_some_and(|c| revoke::counts(state, c))
    };
    let live: Vec<_> = digests.into_iter().filter(counts).collect();
    let pending: Vec<_> = state
        .pending
        .iter()
        .filter(|(_, p)| p.granted.holder == *holder)
        .map(|(id, _)| *id)
        .collect();
    for authorization in pending {
        voided(state, authorization, why);
    }
    deny(state, &live, position);
    if !live.is_empty() {
        state.to_revoke.entry(holder.clone()).or_default().extend(live);
    }
}

fn deny(state: &mut ClusterState, digests: &[CertDigest], position: Position) {
    for digest in digests {
        let Some(certificate) = state.certificates.get_mut(digest) else {
            continue;
        };
        if !std::mem::replace(&mut certificate.revoked, true) {
            let authority_type = certificate.authority_type;
            let denied = DeniedCertificate {
                serial: certificate.serial,
                issuer: certificate.issuer,
                kind: certificate.kind,
                not_after: certificate.not_after,
                at: state.time,
            };
            list(state, authority_type, *digest, denied, position);
        }
    }
}

/// Every verifier is to learn of it, by the next bundle.
fn list(
    state: &mut ClusterState,
    authority_type: AuthorityType,
    digest: CertDigest,
    denied: DeniedCertificate,
    position: Position,
) {
    let of = state.types.entry(authority_type).or_default();
    of.denied.insert(digest, denied);
    of.bundle_due = of.bundle_due.max(position);
}
