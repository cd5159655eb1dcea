//! Certificates: who gets one, from which authority, with exactly which content.
//!
//! Nothing is signed that is not authorised here first. Everything in a certificate comes from the
//! log; of a request only its key is used.

use std::net::IpAddr;

use uuid::Uuid;

use crate::{
    access::Uses,
    authority::{AuthorityType, KeyKind},
    command::{Answer, Given, KeyRequest},
    decide::{Decided, Decision},
    event::{AuthorizationGranted, AuthorizationVoided, Form, LeafUse, Occasion},
    id::{AuthorityId, AuthorizationId, Hostname, NodeId, Position, Principal, Serial, SpkiPin, UserName},
    identity,
    refusal::{Code, Refusal},
    state::{AuthorizationOutcome, Certificate, ClusterState, TypeState},
    time::{MINUTE_MS, SECOND_MS, Timestamp},
};

pub use request::{Wanted, request};
pub use revoke::{affected, revoke};
pub use sign::sign;

mod request;
pub mod revoke;
mod sign;

/// How far back a certificate's life begins, in milliseconds: the clocks of its readers may be behind ours.
pub const NOT_BEFORE_BACK_MS: u64 = 5 * MINUTE_MS;
/// The same of a token: its readers ask for its age too.
pub const TOKEN_BACK_MS: u64 = 10 * SECOND_MS;

/// What a certificate is to be, beside its key: all of it from the log.
#[derive(Clone, PartialEq, Debug)]
pub struct Leaf {
    /// Whose it will be.
    pub holder: Principal,
    /// The type it will chain to.
    pub authority_type: AuthorityType,
    /// The authority that is to sign it.
    pub issuer: AuthorityId,
    /// What it may be used for.
    pub usage: LeafUse,
    /// Why it is made.
    pub occasion: Occasion,
    /// For people.
    pub common_name: String,
    /// The DNS names it will bear.
    pub names: Vec<Hostname>,
    /// The addresses it will bear.
    pub addresses: Vec<IpAddr>,
    /// For TLS, for SSH, or a token.
    pub form: Form,
    /// Its life in milliseconds, cut at the end of its authority's.
    pub ttl_ms: u64,
}

impl Leaf {
    /// A person's: client only, by the issuer that the row names for clients.
    ///
    /// # Errors
    /// `type_not_in_service` while the cluster has no key of type `user`.
    pub fn of_user(state: &ClusterState, user: &UserName, occasion: Occasion) -> Result<Self, Refusal> {
        let authority_type = AuthorityType::User;
        let issuer = type_state(state, authority_type)?
            .client_issuer()
            .ok_or_else(|| not_in_service(authority_type, KeyKind::Tls))?;
        Ok(Self {
            holder: Principal::User(user.clone()),
            authority_type,
            issuer,
            usage: LeafUse::Client,
            occasion,
            common_name: user.to_string(),
            names: vec![],
            addresses: vec![],
            form: Form::Tls,
            ttl_ms: state.settings().user_ttl_ms,
        })
    }

    /// A node's first `host` certificate after a join or a recovery; its host name comes first in `names`.
    ///
    /// # Errors
    /// `type_not_in_service` while the cluster has no key of type `host`.
    pub fn first_of_node(
        state: &ClusterState,
        node: NodeId,
        names: Vec<Hostname>,
        addresses: Vec<IpAddr>,
        uses: Uses,
        occasion: Occasion,
    ) -> Result<Self, Refusal> {
        let authority_type = AuthorityType::Host;
        let usage = first_usage(state, uses);
        let issuer = type_state(state, authority_type)?
            .row(KeyKind::Tls)
            .issuer(usage)
            .ok_or_else(|| not_in_service(authority_type, KeyKind::Tls))?;
        Ok(Self {
            holder: Principal::Node(node),
            authority_type,
            issuer,
            usage,
            occasion,
            common_name: names
                .first()
                .map(ToString::to_string)
                .unwrap_or_else(|| node.to_string()),
            names,
            addresses,
            form: Form::Tls,
            ttl_ms: state.settings().node_ttl_ms,
        })
    }
}

/// What a key was authorised for before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Earlier {
    /// The authorisation.
    pub authorization: AuthorizationId,
    /// Where the log says so: the authorisation, or the certificate once it is issued.
    pub position: Position,
    /// The type.
    pub authority_type: AuthorityType,
    /// The authority.
    pub issuer: AuthorityId,
    /// The usage.
    pub usage: LeafUse,
    /// The end of the certificate's life.
    pub not_after: Timestamp,
}

impl Earlier {
    /// The first result again.
    pub fn repeated(self, answer: Answer) -> Decision {
        Decision {
            facts: vec![],
            answer,
            repeats: Some(self.position),
        }
    }
}

/// Records that an authorisation may not be signed any more; nothing if it is settled already.
///
/// # Errors
/// `not_found` if the log knows no such authorisation, or it is signed.
pub fn void(state: &ClusterState, authorization: AuthorizationId, why: &str) -> Decided {
    if let Some(pending) = state.pending.get(&authorization) {
        let holder = pending.granted.holder.clone();
        return Ok(Decision::done(vec![
            AuthorizationVoided {
                authorization,
                holder,
                why: why.to_owned(),
            }
            .into(),
        ]));
    }
    match state.settled_authorizations.get(&authorization) {
        // Found void, or refused, before: whoever repeats the duty after a crash finds it done.
        Some(AuthorizationOutcome::Voided(_) | AuthorizationOutcome::Refused(_)) => {
            Ok(Decision::done(vec![]))
        }
        Some(AuthorizationOutcome::Issued(_)) => Err(Refusal::new(
            Code::NotFound,
            format!("the authorisation {authorization} is signed already"),
        )),
        None => Err(Refusal::new(
            Code::NotFound,
            format!("no authorisation {authorization} waits to be signed"),
        )),
    }
}

/// The one place where an authorisation is made: exactly what will stand in the certificate.
///
/// The caller has checked the key and the names. `id` and the first serial are fresh.
///
/// # Errors
/// `type_not_in_service`, or `key_missing` if the issuer may not sign (any more).
pub fn authorize(
    state: &ClusterState,
    leaf: Leaf,
    key: &KeyRequest,
    id: Uuid,
    given: &Given,
) -> Result<AuthorizationGranted, Refusal> {
    let of = type_state(state, leaf.authority_type)?;
    let kind = leaf.form.kind();
    let authority = of.live(leaf.issuer).filter(|key| key.kind == kind);
    let Some(authority) = authority.filter(|a| a.not_after > given.now) else {
        let text = format!(
            "the {} {} signs nothing now",
            leaf.authority_type.row().title,
            leaf.issuer.short()
        );
        return Err(Refusal::new(Code::KeyMissing, text));
    };
    let cluster = state
        .cluster_name()
        .ok_or_else(|| Refusal::new(Code::NoCluster, "the log holds no cluster yet"))?;
    let back_ms = match kind {
        KeyKind::Tls | KeyKind::Ssh => NOT_BEFORE_BACK_MS,
        KeyKind::Jwt => TOKEN_BACK_MS,
    };
    let serial = given.serials[0];
    Ok(AuthorizationGranted {
        authorization: AuthorizationId(id),
        uri: identity::uri_of(cluster, leaf.authority_type, &leaf.holder),
        holder: leaf.holder,
        authority_type: leaf.authority_type,
        issuer: leaf.issuer,
        usage: leaf.usage,
        occasion: leaf.occasion,
        spki: key.spki,
        public_key: key.public_key.clone(),
        common_name: leaf.common_name,
        names: leaf.names,
        addresses: leaf.addresses,
        serial: match kind {
            KeyKind::Ssh => Serial::of_random_ssh(serial),
            KeyKind::Tls | KeyKind::Jwt => Serial::of_random(serial),
        },
        not_before: given.now.minus_ms(back_ms),
        not_after: given.now.plus_ms(leaf.ttl_ms).min(authority.not_after),
        rotation: of.rotation_id(),
        phase: of.phase,
        form: leaf.form,
    })
}

/// What the key was authorised for before, for TLS, if the holder is the same and it still counts: it waits for the signer, or
/// it is issued. A voided or refused authorisation leaves the key free to ask again.
pub fn earlier(state: &ClusterState, holder: &Principal, spki: SpkiPin) -> Option<Earlier> {
    uses_of(state, holder, spki)
        .find(|(kind, _)| *kind == KeyKind::Tls)
        .map(|(_, earlier)| earlier)
}

/// All that a key of this holder was authorised for and that still counts, with its kind.
fn uses_of(
    state: &ClusterState,
    holder: &Principal,
    spki: SpkiPin,
) -> impl Iterator<Item = (KeyKind, Earlier)> {
    // Most keys are new: the searches below are for the few that are not.
    let is_known = state.keys.get(&spki) == Some(holder);
    let held = is_known.then(|| state.held.get(holder)).flatten();
    let issued = held.into_iter().flatten().rev();
    let issued = issued
        .filter_map(|d| state.certificates.get(d))
        .filter(move |c| c.spki == spki);
    let issued = issued.map(|c| {
        let earlier = Earlier {
            authorization: c.authorization,
            position: c.position,
            authority_type: c.authority_type,
            issuer: c.issuer,
            usage: c.usage,
            not_after: c.not_after,
        };
        (c.kind, earlier)
    });
    let pending = is_known.then(|| state.pending_keys.get(&spki)).flatten();
    let pending = pending.and_then(|id| state.pending.get(id));
    let pending = pending.filter(|p| p.granted.holder == *holder).map(|p| {
        let earlier = Earlier {
            authorization: p.granted.authorization,
            position: p.position,
            authority_type: p.granted.authority_type,
            issuer: p.granted.issuer,
            usage: p.granted.usage,
            not_after: p.granted.not_after,
        };
        (p.granted.form.kind(), earlier)
    });
    issued.chain(pending)
}

/// Refuses a key that is certified already, is an authority's, or is the bundle key.
///
/// A new key pair for each certificate: a leaf with an authority's key would be a second authority, and one
/// with another holder's key would let both speak for each other.
///
/// # Errors
/// `key_reused`.
pub fn check_key(state: &ClusterState, holder: &Principal, key: &KeyRequest) -> Result<(), Refusal> {
    if is_bundle_key(state, key) || is_others(state, holder, key.spki, KeyKind::Tls, state.time) {
        return Err(anothers());
    }
    match uses_of(state, holder, key.spki).next() {
        Some(_) => Err(reused("make a new key pair for each certificate")),
        None => Ok(()),
    }
}

/// The same, but the holder's own key may be certified again: a host's SSH key is what its users know it by, and what a
/// party without an agent does with its key is its own affair.
///
/// # Errors
/// `key_reused`.
pub fn check_holder_of_key(
    state: &ClusterState,
    holder: &Principal,
    key: &KeyRequest,
    kind: KeyKind,
    now: Timestamp,
) -> Result<(), Refusal> {
    if is_bundle_key(state, key) || is_others(state, holder, key.spki, kind, now) {
        return Err(anothers());
    }
    Ok(())
}

fn is_bundle_key(state: &ClusterState, key: &KeyRequest) -> bool {
    state.cluster.as_ref().is_some_and(|c| c.bundle_key == key.spki)
}

/// Is the key an authority's, or was it certified for somebody else, who may still speak for it?
///
/// Of TLS whoever had it first has it until his last certificate of it is forgotten: an old one is a way back. An SSH key
/// is another's only for as long as his certificate of it lives: the same sshd may come under another name, or get an
/// agent, and keep its key.
pub fn is_others(
    state: &ClusterState,
    holder: &Principal,
    spki: SpkiPin,
    kind: KeyKind,
    now: Timestamp,
) -> bool {
    let Some(first) = state.keys.get(&spki).filter(|first| *first != holder) else {
        return false;
    };
    let held = state.held.get(first).into_iter().flatten();
    let mut certificates = held.filter_map(|digest| state.certificates.get(digest));
    let speaks =
        |c: &Certificate| c.spki == spki && (c.kind != KeyKind::Ssh || (!c.revoked && c.not_after > now));
    kind != KeyKind::Ssh
        || matches!(first, Principal::System(_))
        || state.pending_keys.contains_key(&spki)
        || certificates.any(speaks)
}

fn anothers() -> Refusal {
    reused("it is another holder's, or an authority's; make a new key pair")
}

fn reused(what_to_do: &str) -> Refusal {
    let text = format!("the key of this request is in use already: {what_to_do}");
    Refusal::new(Code::KeyReused, text)
}

/// The usage of a node's first certificate: both roles in one leaf where the row names one issuer for both,
/// else the client role, with which it asks for the other.
pub fn node_first_usage(state: &ClusterState) -> LeafUse {
    first_usage(state, Uses::ALL)
}

fn first_usage(state: &ClusterState, uses: Uses) -> LeafUse {
    let one_issuer = state
        .types
        .get(&AuthorityType::Host)
        .is_some_and(|of| of.row(KeyKind::Tls).issuer(LeafUse::Both).is_some());
    if uses.server && one_issuer {
        LeafUse::Both
    } else {
        LeafUse::Client
    }
}

fn type_state(state: &ClusterState, authority_type: AuthorityType) -> Result<&TypeState, Refusal> {
    state
        .types
        .get(&authority_type)
        .ok_or_else(|| not_in_service(authority_type, KeyKind::Tls))
}

fn not_in_service(authority_type: AuthorityType, kind: KeyKind) -> Refusal {
    let kind = match kind {
        KeyKind::Tls => "TLS",
        KeyKind::Ssh => "SSH",
        KeyKind::Jwt => "JWT",
    };
    Refusal::new(
        Code::TypeNotInService,
        format!("this cluster has no {kind} key of type `{authority_type}`"),
    )
}
