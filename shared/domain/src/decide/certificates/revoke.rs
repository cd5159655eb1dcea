//! Revocation by a person: certificates stop counting before their end, and their holders stay what they are.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    authority::{AuthorityType, KeyKind},
    command::{Answer, Command, Revocable},
    decide::{Decided, Decision, needs_reason},
    event::AccessCertificatesRevoked,
    id::{CertDigest, NodeId, Principal, TokenId},
    refusal::{Code, Refusal},
    state::{Certificate, ClusterState},
};

/// How many revoked certificates of one type a person may have its bundle list. A bundle is one event of at most 512 KiB, an
/// entry takes some 230 bytes of it with its place in the revocation list, and the rest is for nodes and people that are
/// removed: a bundle that cannot be signed revokes nobody, and keeps its type from rotating.
pub const MAX_REVOKED: usize = 1_500;

/// Decides a revocation. Which certificates it means follows from the state that the fact is folded into: one that is
/// issued while it is decided is among them.
///
/// # Errors
/// `not_found` if nothing that counts is meant, or only tokens; `too_large` if the deny list would outgrow its bundle;
/// `reason_required`.
pub fn revoke(state: &ClusterState, command: &Command, target: &Revocable) -> Decided {
    let meant = meant(state, target);
    let of_meant = || meant.iter().filter_map(|digest| state.certificates.get(digest));
    let certificates = of_meant().filter(|c| c.kind != KeyKind::Jwt).count();
    if certificates == 0 && pending(state, target) == 0 {
        let text = match of_meant().map(|token| token.not_after).max() {
            Some(end) => format!(
                "{target} means tokens alone, and whoever verifies a token asks nobody: the last of them counts until {end}, \
                 and to end all of its type sooner, rotate the type"
            ),
            None => format!(
                "nothing that still counts is meant by {target}: `carousel get certificates` lists what does"
            ),
        };
        return Err(Refusal::new(Code::NotFound, text));
    }
    fits_bundles(state, of_meant())?;
    let text = format!("revoking {target} locks somebody out: say why with --reason");
    needs_reason(command, text)?;
    let fact = AccessCertificatesRevoked {
        target: target.clone(),
    };
    let certificates = u32::try_from(certificates).unwrap_or(u32::MAX);
    Ok(Decision::new(vec![fact.into()], Answer::Revoked { certificates }))
}

/// Is there room for them on the deny list of each type?
fn fits_bundles<'a>(
    state: &ClusterState,
    meant: impl Iterator<Item = &'a Certificate>,
) -> Result<(), Refusal> {
    let mut more = BTreeMap::<AuthorityType, usize>::new();
    for certificate in meant.filter(|c| c.not_after > state.time) {
        *more.entry(certificate.authority_type).or_default() += 1;
    }
    for (authority_type, more) in more {
        let of = state.types.get(&authority_type);
        let denied = of.into_iter().flat_map(|of| of.denied.values());
        let listed = denied.filter(|denied| denied.not_after > state.time).count();
        if listed + more > MAX_REVOKED {
            let text = format!(
                "this would revoke {more} certificates of `{authority_type}` at once, {listed} are revoked already, and its trust \
                 bundle has room for {MAX_REVOKED}: rotate `{authority_type}`, whose end revokes all that the old authority \
                 signed, or revoke in parts, the worst first; the list becomes shorter as they expire"
            );
            return Err(Refusal::new(Code::TooLarge, text));
        }
    }
    Ok(())
}

/// Does it still open anything? That of a node that was away also beyond its end: for a recovery.
pub(crate) fn counts(state: &ClusterState, certificate: &Certificate) -> bool {
    let recovers = matches!(certificate.holder, Principal::Node(_))
        && certificate.authority_type == AuthorityType::Host
        && certificate.kind == KeyKind::Tls;
    let longer_ms = if recovers {
        state.settings().max_offline_ms
    } else {
        0
    };
    !certificate.revoked && certificate.not_after.plus_ms(longer_ms) > state.time
}

/// The certificates that still count and are meant.
pub(crate) fn meant(state: &ClusterState, target: &Revocable) -> Vec<CertDigest> {
    let counts = |c: &Certificate| counts(state, c);
    if let Revocable::Serial(serial) = target {
        let all = state.certificates.iter();
        return all
            .filter(|(_, c)| c.serial == *serial && counts(c))
            .map(|(digest, _)| *digest)
            .collect();
    }
    let held = holders(state, target);
    let held = held.iter().filter_map(|holder| state.held.get(holder)).flatten();
    held.filter(|digest| state.certificates.get(digest).is_some_and(counts))
        .copied()
        .collect()
}

fn pending(state: &ClusterState, target: &Revocable) -> usize {
    let holders = holders(state, target);
    let mut waiting = state.pending.values();
    usize::from(waiting.any(|p| holders.contains(&p.granted.holder)))
}

/// Who has something that is meant.
pub fn affected(state: &ClusterState, target: &Revocable) -> BTreeSet<Principal> {
    if let Revocable::Serial(serial) = target {
        let all = state.certificates.values().filter(|c| c.serial == *serial);
        return all.map(|c| c.holder.clone()).collect();
    }
    holders(state, target)
}

/// Whose certificates are meant; nobody's where a single one is.
fn holders(state: &ClusterState, target: &Revocable) -> BTreeSet<Principal> {
    match target {
        Revocable::Serial(_) => BTreeSet::new(),
        Revocable::Node(node) => [Principal::Node(*node)].into(),
        Revocable::User(user) => [Principal::User(user.clone())].into(),
        Revocable::External(name) => [Principal::External(name.to_string())].into(),
        Revocable::IssuedByToken(token) => joined_with(state, *token).map(Principal::Node).collect(),
    }
}

/// The nodes that came in with a token, also one that is gone from the list.
fn joined_with(state: &ClusterState, token: TokenId) -> impl Iterator<Item = NodeId> {
    let used = state
        .tokens
        .get(&token)
        .into_iter()
        .flat_map(|t| t.used.values().copied());
    let last = state.nodes.values().filter(move |node| node.token == token);
    used.chain(last.map(|node| node.id))
}
