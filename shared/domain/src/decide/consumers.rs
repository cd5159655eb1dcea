//! External consumers of exported authorities: registered, attesting before each forward gate, withdrawn.
//!
//! A consumer is a party that no agent keeps current: a database that was given a copy of a CA, a service
//! provider with metadata. The gate cannot see what it trusts, so somebody (or a probe) has to say it.

use crate::{
    authority::AuthorityType,
    command::{Command, Expectation, Order},
    decide::{Decided, Decision},
    event::{ConsumerAdded, ConsumerAttested, ConsumerWithdrawn},
    id::{ConsumerName, Principal},
    refusal::{Code, Refusal},
    state::{ClusterState, Consumer},
};

/// The longest owner or contact, in bytes.
const MAX_TEXT: usize = 200;

/// Decides what concerns external consumers.
///
/// # Errors
/// `consumer_exists`, `consumer_unknown`, `type_not_in_service`, `no_rotation`, `stale_view`.
pub fn decide(state: &ClusterState, command: &Command) -> Decided {
    match &command.order {
        Order::AddConsumer {
            authority_type,
            consumer,
            owner,
            contact,
        } => add(state, *authority_type, consumer, owner, contact),
        Order::AttestConsumer {
            authority_type,
            consumer,
            expects,
            probed,
        } => attest(state, command, *authority_type, consumer, expects, *probed),
        Order::WithdrawConsumer {
            authority_type,
            consumer,
        } => {
            // Also while a gate waits for it: a consumer that is gone can attest no more.
            find(state, *authority_type, consumer)?;
            let (authority_type, consumer) = (*authority_type, consumer.clone());
            Ok(Decision::done(vec![
                ConsumerWithdrawn {
                    authority_type,
                    consumer,
                }
                .into(),
            ]))
        }
        other => Err(Refusal::new(
            Code::Internal,
            format!("`{}` is no order about a consumer", other.name()),
        )),
    }
}

/// Registers a consumer. In the middle of a rotation too: from then on that rotation's gates wait for it.
fn add(
    state: &ClusterState,
    authority_type: AuthorityType,
    consumer: &ConsumerName,
    owner: &str,
    contact: &str,
) -> Decided {
    if !state.types.contains_key(&authority_type) {
        let text =
            format!("this cluster has no key of type `{authority_type}`, so nothing of it is exported");
        return Err(Refusal::new(Code::TypeNotInService, text));
    }
    if state.consumers.contains_key(&(authority_type, consumer.clone())) {
        let text = format!("a consumer {consumer} of `{authority_type}` is registered already");
        return Err(Refusal::new(Code::ConsumerExists, text));
    }
    // Somebody must answer for it: a gate may wait for this consumer, and a person must know whom to ask.
    if owner.trim().is_empty() || owner.len() > MAX_TEXT || contact.len() > MAX_TEXT {
        let text = format!("a consumer needs an owner; owner and contact have at most {MAX_TEXT} bytes each");
        return Err(Refusal::new(Code::BadRequest, text));
    }
    // They are shown on other people's terminals.
    if owner.chars().chain(contact.chars()).any(char::is_control) {
        let text = "a consumer's owner and contact are one line each, without control characters";
        return Err(Refusal::new(Code::BadRequest, text));
    }
    let (consumer, owner, contact) = (consumer.clone(), owner.to_owned(), contact.to_owned());
    Ok(Decision::done(vec![
        ConsumerAdded {
            authority_type,
            consumer,
            owner,
            contact,
        }
        .into(),
    ]))
}

/// An attestation holds for one rotation and phase: what the attester looked at must be what is.
fn attest(
    state: &ClusterState,
    command: &Command,
    authority_type: AuthorityType,
    consumer: &ConsumerName,
    expects: &Expectation,
    probed: bool,
) -> Decided {
    let known = find(state, authority_type, consumer)?;
    let of = state.types.get(&authority_type);
    let Some((rotation, phase)) = of.and_then(|of| Some((of.rotation_id()?, of.phase))) else {
        let text = format!("no rotation of `{authority_type}` is in progress: there is nothing to attest");
        return Err(Refusal::new(Code::NoRotation, text));
    };
    if (expects.rotation, expects.phase) != (Some(rotation), phase) {
        let text =
            format!("the rotation of `{authority_type}` is in {phase} now: look again, then attest for that");
        return Err(Refusal::new(Code::StaleView, text));
    }
    // Said before: recorded as a noop, so that the log shows who looked again.
    if known.attested == Some((rotation, phase)) {
        return Ok(Decision::noop(
            command,
            format!("{consumer} has attested for {phase} already"),
            None,
        ));
    }
    // Only the control plane probes; a person's word is a person's word.
    let probed = probed && matches!(command.principal, Principal::System(_));
    let consumer = consumer.clone();
    Ok(Decision::done(vec![
        ConsumerAttested {
            authority_type,
            consumer,
            rotation,
            phase,
            probed,
        }
        .into(),
    ]))
}

/// The consumer of this name and type; the same name may stand for another type too.
fn find<'a>(
    state: &'a ClusterState,
    authority_type: AuthorityType,
    consumer: &ConsumerName,
) -> Result<&'a Consumer, Refusal> {
    state
        .consumers
        .get(&(authority_type, consumer.clone()))
        .ok_or_else(|| {
            let text = format!(
                "there is no consumer {consumer} of `{authority_type}`: `carousel get consumers` lists them"
            );
            Refusal::new(Code::ConsumerUnknown, text)
        })
}
