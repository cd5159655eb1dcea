//! What the signer wrote, against what it owed: nothing else may be signed, made, retired, destroyed or revoked.

use super::Difference;
use crate::{
    authority::AuthorityType,
    duty::{self, Duty},
    event::{AuthorityKeyGenerated, Event, Fact},
    id::{Principal, SystemActor},
    state::ClusterState,
};

/// How many of these facts belong to the duty that the first one does.
///
/// # Errors
/// [`Difference`] if it was not owed in this state, or not by the signer.
pub(super) fn signed(state: &ClusterState, first: &Event, events: &[Event]) -> Result<usize, Difference> {
    let header = &first.header;
    if header.actor != Principal::System(SystemActor::Signer) {
        return Err(Difference::NotTheSigner(header.actor.clone()));
    }
    if header.command.is_some() {
        return Err(Difference::Command(first.fact.type_name()));
    }
    let not_owed = || Difference::NotOwed(first.fact.type_name());
    let owes = |t: AuthorityType, duty: &Duty| duty::owed_of_type(state, t, header.time).contains(duty);
    let (is_owed, covered) = match &first.fact {
        Fact::AuthorityKeyGenerated(f) => {
            let duty = generate(f).ok_or_else(not_owed)?;
            (owes(f.authority_type, &duty), 1)
        }
        Fact::AuthorityActivated(_) | Fact::AuthorityRetired(_) => {
            let (t, duty, covered) =
                retirement(events).ok_or(Difference::Incomplete(first.fact.type_name()))?;
            (owes(t, &duty), covered)
        }
        Fact::AuthorityDestroyed(f) => {
            let duty = Duty::Destroy {
                authority_type: f.authority_type,
                authority: f.authority,
            };
            (owes(f.authority_type, &duty), 1)
        }
        Fact::AuthorityBundleSigned(f) => {
            let duty = Duty::SignBundle {
                authority_type: f.authority_type,
                revision: f.revision,
            };
            (owes(f.authority_type, &duty), 1)
        }
        Fact::CertificateIssued(_) | Fact::CertificateRefused(_) => {
            let answers = answers(first, events);
            let all_asked = answers.iter().all(|event| is_asked(state, &event.fact));
            (all_asked, answers.len())
        }
        Fact::CertificateRevoked(f) => {
            let duty = Duty::Revoke {
                holder: f.holder.clone(),
                certificates: f.certificates.clone(),
            };
            (duty::revocations(state, Some(&f.holder)).contains(&duty), 1)
        }
        _ => (false, 1),
    };
    is_owed.then_some(covered).ok_or_else(not_owed)
}

/// The duty of a new key; none for a key of no rotation, which only a genesis makes.
fn generate(f: &AuthorityKeyGenerated) -> Option<Duty> {
    Some(Duty::GenerateKey {
        authority_type: f.authority_type,
        kind: f.key.kind,
        rotation: f.key.rotation?,
        generation: f.key.generation,
    })
}

/// The authorities that sign from now on, then the one that does no more: one duty, one append.
fn retirement(events: &[Event]) -> Option<(AuthorityType, Duty, usize)> {
    let mut activated = vec![];
    for (n, event) in events.iter().enumerate() {
        match &event.fact {
            Fact::AuthorityActivated(f) => activated.push((f.kind, f.authority)),
            Fact::AuthorityRetired(f) => {
                let duty = Duty::RecordRetirement {
                    authority_type: f.authority_type,
                    authority: f.authority,
                    outcome: f.outcome,
                    activated,
                };
                return Some((f.authority_type, duty, n + 1));
            }
            _ => return None,
        }
    }
    None
}

/// The answers to authorisations of one holder that were appended together.
fn answers<'e>(first: &Event, events: &'e [Event]) -> &'e [Event] {
    let holder = first.fact.holder();
    let end = events.iter().position(|event| {
        let is_answer = matches!(
            event.fact,
            Fact::CertificateIssued(_) | Fact::CertificateRefused(_)
        );
        !is_answer || !super::is_of_one(first, event) || event.fact.holder() != holder
    });
    &events[..end.unwrap_or(events.len())]
}

/// Did the authorisation wait for this answer? It is signed only while its authority may sign.
fn is_asked(state: &ClusterState, fact: &Fact) -> bool {
    let (authorization, is_signed) = match fact {
        Fact::CertificateIssued(f) => (f.authorization, true),
        Fact::CertificateRefused(f) => (f.authorization, false),
        _ => return false,
    };
    state.pending.get(&authorization).is_some_and(|pending| {
        !is_signed || duty::is_live(state, pending.granted.authority_type, pending.granted.issuer)
    })
}
