//! `POST /v1/consumers/{name}/probe`: looks at an external consumer now, and attests for it if that proves it.

use api::{command::ConsumerProbeRequest, shape::ConsumerProbeReport};
use domain::{
    AuthorityType, Code, CommandId, ConsumerName, Fact, Order, Position, access::Action,
    command::Expectation, probe::Sight,
};

use super::{Asked, not_serving};
use crate::{
    body::{self, Wanted},
    look::{self, Looked},
    reply::{self, No, Reply},
};

pub(super) async fn probe(asked: &Asked) -> Reply {
    let name: ConsumerName = asked.parse_part()?;
    let ConsumerProbeRequest {
        id,
        reason,
        authority_type,
    } = body::look(&asked.body)?;
    asked.app.catch_up().await?;
    let order = if is_answered_unseen(asked, authority_type, &name, id) {
        look::attestation(authority_type, &name, Expectation::default(), None)
    } else {
        let looked = look::look(&asked.app, authority_type, &name)
            .await
            .ok_or_else(unprobed)?;
        let Some(order) = looked.order(authority_type, &name) else {
            // Held against a row that others may have left.
            asked.app.serving.still(&asked.term).map_err(not_serving)?;
            return reply::json(&report(&name, authority_type, looked, None));
        };
        order
    };
    let wanted = Wanted { id, reason, order };
    let answered = asked.execute(asked.command(wanted)).await?;
    let looked = recorded(asked, authority_type, &name, answered.position).await?;
    reply::json(&report(&name, authority_type, looked, Some(answered.position)))
}

/// Whoever may not look, or at nothing, or again under the same id, is answered by the log: nobody is dialled for that.
fn is_answered_unseen(asked: &Asked, t: AuthorityType, name: &ConsumerName, id: CommandId) -> bool {
    let (command, consumer) = ((asked.caller.principal.clone(), id), (t, name.clone()));
    let is_new = asked
        .app
        .fold
        .read(|s| s.consumers.contains_key(&consumer) && !s.commands.contains_key(&command));
    !is_new || !asked.caller.may(Action::Rotate)
}

/// The look that the log has under this id, and has answered: this one, or the first.
async fn recorded(asked: &Asked, t: AuthorityType, name: &ConsumerName, at: Position) -> Result<Looked, No> {
    let (address, _) = look::known(&asked.app, t, name).ok_or_else(unprobed)?;
    let no_look = || No::new(Code::Internal, format!("position {at} holds no attestation"));
    let (expects, saw) = match asked.app.event(at).await? {
        Fact::ConsumerAttested(f) => {
            let (rotation, phase) = (Some(f.rotation), f.phase);
            (Expectation { rotation, phase }, f.saw)
        }
        // It had attested before.
        Fact::CommandNoop(f) => match f.order.map(|order| *order) {
            Some(Order::AttestConsumer { expects, saw, .. }) => (expects, saw),
            _ => return Err(no_look()),
        },
        _ => return Err(no_look()),
    };
    Ok(Looked {
        address,
        expects,
        saw,
        missing: None,
    })
}

fn unprobed() -> No {
    let text =
        "the consumer is registered without a probe: attest for it when its owner says that it is ready";
    No::new(Code::BadRequest, text)
}

fn report(
    name: &ConsumerName,
    authority_type: AuthorityType,
    looked: Looked,
    position: Option<Position>,
) -> ConsumerProbeReport {
    ConsumerProbeReport {
        name: name.to_string(),
        authority_type,
        probe: looked.address,
        phase: looked.expects.phase,
        ok: looked.missing.is_none(),
        saw: looked.saw.as_ref().map(Sight::in_words),
        missing: looked.missing,
        position,
    }
}
