//! The fold: one event into the state. Total: every event that was ever stored folds, whatever the state.
//!
//! Crash points do not exist here: the fold is a function of the log alone. Each family has a file below.

use crate::{
    command::{Answer, Answered, Mode},
    decide::{ID_AGE_MS, rotation::answer_of},
    event::{CommandRefused, Event, Fact, Header},
    id::Principal,
    standing,
    state::{ClusterState, Done, RefusalKind},
    time::MINUTE_MS,
};

mod access;
mod authority;
mod certificate;
mod member;
mod node;
mod rotation;

/// Folds one event into the state.
pub fn evolve(mut state: ClusterState, event: &Event) -> ClusterState {
    apply(&mut state, event);
    state
}

/// The same in place.
pub fn apply(state: &mut ClusterState, event: &Event) {
    let Event { header, fact } = event;
    remember_command(state, header, fact);
    let moved = standing::before(state, fact);
    state.position = header.position;
    state.time = state.time.max(header.time);
    match fact {
        Fact::ClusterCreated(f) => access::cluster_created(state, header, f),
        Fact::ClusterClockAccepted(_) => {}
        Fact::RotationPhaseEntered(f) => rotation::phase_entered(state, header, f),
        Fact::RotationHeld(f) => rotation::held(state, f.authority_type, Some(header.time)),
        Fact::RotationResumed(f) => rotation::held(state, f.authority_type, None),
        Fact::RotationModeChanged(f) => rotation::mode_changed(state, f),
        Fact::RotationSettled(f) => rotation::settled(state, f),
        Fact::NodeJoined(f) => node::joined(state, header, f),
        Fact::NodeRejoined(f) => node::rejoined(state, header, f),
        Fact::NodeRecovered(_) => {}
        Fact::NodeReported(f) => node::reported(state, header, f),
        Fact::NodeExcluded(f) => node::excluded(state, &f.node, &f.rotations),
        Fact::NodeIncluded(f) => node::included(state, &f.node, &f.rotations),
        Fact::NodeRemoved(f) => node::removed(state, header, &f.node),
        Fact::MemberStarted(f) => member::started(state, header, f),
        Fact::MemberReported(f) => member::reported(state, header, f),
        Fact::MemberLost(f) => member::ended(state, header, &f.member, &f.boot),
        Fact::MemberStopped(f) => member::ended(state, header, &f.member, &f.boot),
        Fact::AccessTokenCreated(f) => access::token_created(state, header, f),
        Fact::AccessTokenUsed(f) => access::token_used(state, f),
        Fact::AccessTokenRemoved(f) => access::token_removed(state, &f.token),
        Fact::AccessUserAdded(f) => access::user_added(state, f),
        Fact::AccessUserRemoved(f) => access::user_removed(state, header, &f.user),
        Fact::AccessRecovered(f) => access::recovered(state, f),
        Fact::AccessNamesReleased(f) => node::names_released(state, &Principal::Node(f.node)),
        Fact::AccessCertificatesRevoked(f) => certificate::revoked_by_hand(state, header, &f.target),
        Fact::AccessCredentialPresented(f) => certificate::presented(state, header, &f.certificate),
        Fact::ConsumerAdded(f) => access::consumer_added(state, f),
        Fact::ConsumerAttested(f) => access::consumer_attested(state, f),
        Fact::ConsumerWithdrawn(f) => {
            state.consumers.remove(&(f.authority_type, f.consumer.clone()));
        }
        Fact::CommandRefused(f) => remember_refusal(state, header, f),
        Fact::CommandNoop(_) => {}
        Fact::AuthorizationGranted(f) => certificate::authorized(state, header, f),
        Fact::AuthorizationVoided(f) => certificate::voided(state, f.authorization, &f.why),
        Fact::AuthorityKeyGenerated(f) => authority::key_generated(state, header, f),
        // A first key is active when it is made, a later one from the end of its rotation: this is the record of it.
        Fact::AuthorityActivated(_) => {}
        Fact::AuthorityRetired(f) => authority::retired(state, f),
        Fact::AuthorityDestroyed(f) => authority::destroyed(state, f),
        Fact::AuthorityBundleSigned(f) => authority::bundle_signed(state, header, f),
        Fact::CertificateIssued(f) => certificate::issued(state, header, f),
        Fact::CertificateRefused(f) => certificate::refused(state, f),
        Fact::CertificateRevoked(f) => certificate::revoked(state, f),
    }
    standing::after(state, moved);
}

/// Keeps the first answer of each command for as long as its id may come again.
fn remember_command(state: &mut ClusterState, header: &Header, fact: &Fact) {
    let Some(command) = &header.command else { return };
    if header.actor == Principal::Anonymous {
        return;
    }
    let key = (header.actor.clone(), command.id);
    let answer = match fact {
        Fact::CommandRefused(CommandRefused { code, text, .. }) => Err((*code, text.clone())),
        fact => {
            // One command's facts stand next to each other: the answer is the last telling one, the
            // position that of the last fact.
            let before = state
                .commands
                .get(&key)
                .and_then(|d| d.answer.as_ref().ok())
                .map(|a| a.answer.clone());
            let answer = telling(state, fact).or(before).unwrap_or(Answer::Done);
            Ok(Answered {
                position: header.position,
                answer,
            })
        }
    };
    if state
        .commands
        .insert(
            key,
            Done {
                digest: command.digest,
                answer,
            },
        )
        .is_none()
    {
        state
            .command_order
            .push_back((header.time, header.actor.clone(), command.id));
    }
    forget_old_commands(state);
}

/// What a refusal is recognised by when it comes again.
pub fn refusal_kind(f: &CommandRefused) -> RefusalKind {
    (
        f.principal.clone(),
        f.command.clone(),
        f.target.clone(),
        f.code,
        f.text.clone(),
    )
}

/// Keeps when something was last refused. Not every refusal names its command: the id of one that had another
/// answer before belongs to that answer.
fn remember_refusal(state: &mut ClusterState, header: &Header, f: &CommandRefused) {
    state.refusals.insert(refusal_kind(f), header.time);
    let time = state.time;
    if state.refusals.len() > 1_024 {
        state.refusals.retain(|_, at| time.since_ms(*at) <= MINUTE_MS);
    }
}

fn forget_old_commands(state: &mut ClusterState) {
    let keep = ID_AGE_MS + 10 * MINUTE_MS;
    while let Some((at, principal, id)) = state.command_order.front().cloned() {
        if state.time.since_ms(at) <= keep {
            break;
        }
        state.command_order.pop_front();
        state.commands.remove(&(principal, id));
    }
}

/// The answer that a fact alone tells, if it tells one.
fn telling(state: &ClusterState, fact: &Fact) -> Option<Answer> {
    match fact {
        Fact::RotationPhaseEntered(f) => {
            let before = state
                .types
                .get(&f.authority_type)
                .and_then(|t| t.rotation.as_ref())
                .map(|r| r.mode);
            Some(answer_of(
                f,
                before == Some(Mode::Automatic) && f.mode == Mode::Manual,
            ))
        }
        Fact::AccessTokenCreated(f) => Some(Answer::Token {
            token: f.token,
            expires: f.expires,
        }),
        Fact::AuthorizationGranted(f) => Some(Answer::Authorized {
            authorization: f.authorization,
        }),
        Fact::CommandNoop(f) => Some(Answer::Noop { text: f.text.clone() }),
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
        | Fact::NodeRemoved(_)
        | Fact::MemberStarted(_)
        | Fact::MemberReported(_)
        | Fact::MemberLost(_)
        | Fact::MemberStopped(_)
        | Fact::AccessTokenUsed(_)
        | Fact::AccessTokenRemoved(_)
        | Fact::AccessUserAdded(_)
        | Fact::AccessUserRemoved(_)
        | Fact::AccessRecovered(_)
        | Fact::AccessNamesReleased(_)
        | Fact::AccessCertificatesRevoked(_)
        | Fact::AccessCredentialPresented(_)
        | Fact::ConsumerAdded(_)
        | Fact::ConsumerAttested(_)
        | Fact::ConsumerWithdrawn(_)
        | Fact::CommandRefused(_)
        | Fact::AuthorizationVoided(_)
        | Fact::AuthorityKeyGenerated(_)
        | Fact::AuthorityActivated(_)
        | Fact::AuthorityRetired(_)
        | Fact::AuthorityDestroyed(_)
        | Fact::AuthorityBundleSigned(_)
        | Fact::CertificateIssued(_)
        | Fact::CertificateRefused(_)
        | Fact::CertificateRevoked(_) => None,
    }
}
