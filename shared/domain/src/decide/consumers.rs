//! External consumers of exported authorities: registered, attesting before each forward gate, withdrawn.
//!
//! A consumer is a party that no agent keeps current: a database that was given a copy of a CA, a service
//! provider with metadata. The gate cannot see what it trusts, so somebody (or a probe) has to say it.

use crate::{
    authority::AuthorityType,
    command::{Command, Expectation, Given, Order},
    decide::{Decided, Decision},
    event::{ConsumerAdded, ConsumerAttested, ConsumerWithdrawn},
    id::{ConsumerName, Principal, RotationId},
    phase::Phase,
    probe::{self, ProbeAddress, Sight},
    refusal::{Code, Refusal},
    state::{ClusterState, Consumer},
};

/// The longest owner or contact, in bytes.
const MAX_TEXT: usize = 200;

/// Decides what concerns external consumers.
///
/// # Errors
/// `consumer_exists`, `consumer_unknown`, `type_not_in_service`, `bad_request`, `no_rotation`, `stale_view`.
pub fn decide(state: &ClusterState, command: &Command, given: &Given) -> Decided {
    match &command.order {
        Order::AddConsumer {
            authority_type,
            consumer,
            owner,
            contact,
            probe,
        } => {
            check(state, *authority_type, consumer, owner, contact, probe.as_ref())?;
            Ok(Decision::done(vec![
                ConsumerAdded {
                    authority_type: *authority_type,
                    consumer: consumer.clone(),
                    owner: owner.clone(),
                    contact: contact.clone(),
                    probe: probe.clone(),
                }
                .into(),
            ]))
        }
        Order::AttestConsumer {
            authority_type,
            consumer,
            expects,
            probed,
            saw,
        } => attest(
            state,
            command,
            given,
            (*authority_type, consumer),
            expects,
            (*probed, saw),
        ),
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

/// May it be registered? In the middle of a rotation too: from then on that rotation's gates wait for it.
fn check(
    state: &ClusterState,
    authority_type: AuthorityType,
    consumer: &ConsumerName,
    owner: &str,
    contact: &str,
    probe: Option<&ProbeAddress>,
) -> Result<(), Refusal> {
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
    match probe {
        Some(probe) if !probe.fits(authority_type) => {
            let text = format!(
                "nothing of `{authority_type}` can be seen at {probe}: tls:// is for types with TLS keys, ssh:// for `host`, \
                 http:// for types with keys of tokens"
            );
            Err(Refusal::new(Code::BadRequest, text))
        }
        _ => Ok(()),
    }
}

/// An attestation holds for one rotation and phase.
fn attest(
    state: &ClusterState,
    command: &Command,
    given: &Given,
    (authority_type, consumer): (AuthorityType, &ConsumerName),
    expects: &Expectation,
    (probed, saw): (bool, &Option<Sight>),
) -> Decided {
    let known = find(state, authority_type, consumer)?;
    let (rotation, phase) = current(state, authority_type, expects)?;
    // Said before: recorded as a noop, so that the log shows who looked again.
    if known.attested == Some((rotation, phase)) {
        let text = format!("{consumer} has attested for {phase} already");
        return Ok(Decision::noop(command, text, None));
    }
    judge(
        state,
        command,
        given,
        authority_type,
        known,
        (probed, saw.as_ref()),
    )?;
    let (consumer, saw) = (consumer.clone(), saw.clone());
    Ok(Decision::done(vec![
        ConsumerAttested {
            authority_type,
            consumer,
            rotation,
            phase,
            probed,
            saw,
        }
        .into(),
    ]))
}

/// The rotation and phase that an attestation is for: what the attester looked at must be what is.
fn current(
    state: &ClusterState,
    authority_type: AuthorityType,
    expects: &Expectation,
) -> Result<(RotationId, Phase), Refusal> {
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
    Ok((rotation, phase))
}

/// A person's word is a person's word; a probe is judged by what it saw. A part of the control plane has no word of its own
/// here.
fn judge(
    state: &ClusterState,
    command: &Command,
    given: &Given,
    authority_type: AuthorityType,
    consumer: &Consumer,
    (probed, saw): (bool, Option<&Sight>),
) -> Result<(), Refusal> {
    let saw = match (probed, saw) {
        (false, None) if matches!(command.principal, Principal::User(_)) => return Ok(()),
        (true, Some(saw)) => saw,
        _ => {
            let text = "a probe says what it saw; without that, only a person attests";
            return Err(Refusal::new(Code::BadRequest, text));
        }
    };
    let Some(address) = &consumer.probe else {
        let text = "the consumer is registered without a probe: its owner says when it is ready";
        return Err(Refusal::new(Code::BadRequest, text));
    };
    probe::proves(state, authority_type, address, saw, given.now).map_err(|missing| {
        let text = format!("what the probe saw does not prove what the rotation waits for: {missing}");
        Refusal::new(Code::StaleView, text)
    })
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
