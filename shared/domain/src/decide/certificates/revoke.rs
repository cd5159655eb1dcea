//! Revocation by a person: certificates stop counting before their end, and their holders stay what they are.

use std::collections::BTreeSet;

use crate::{
    command::{Answer, Revocable},
    decide::{Decided, Decision},
    event::AccessCertificatesRevoked,
    id::{CertDigest, NodeId, Principal, TokenId},
    refusal::{Code, Refusal},
    state::{Certificate, ClusterState},
};

/// Decides a revocation. Which certificates it means follows from the state that the fact is folded into: one that is
/// issued while it is decided is among them.
///
/// # Errors
/// `not_found` if nothing that counts is meant.
pub fn revoke(state: &ClusterState, target: &Revocable) -> Decided {
    let certificates = meant(state, target).len();
    if certificates == 0 && pending(state, target) == 0 {
        let text = format!(
            "nothing that still counts is meant by {target}: `carousel get certificates` lists what does"
        );
        return Err(Refusal::new(Code::NotFound, text));
    }
    let fact = AccessCertificatesRevoked {
        target: target.clone(),
    };
    let certificates = u32::try_from(certificates).unwrap_or(u32::MAX);
    Ok(Decision::new(vec![fact.into()], Answer::Revoked { certificates }))
}

/// The certificates that still count and are meant.
pub(crate) fn meant(state: &ClusterState, target: &Revocable) -> Vec<CertDigest> {
    let counts = |c: &Certificate| !c.revoked && c.not_after > state.time;
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
