//! `POST /v1/consumers/{name}/probe`: looks at an external consumer now, and attests for it if that proves it.

use api::shape::ConsumerProbeReport;
use domain::{AuthorityType, Code, ConsumerName, Order, access::Action, probe::Sight};

use super::{Asked, not_serving};
use crate::{
    body::{self, Wanted},
    look::{self, Looked},
    reply::{self, No, Reply},
};

pub(super) async fn probe(asked: &Asked) -> Reply {
    let name: ConsumerName = asked.parse_part()?;
    let (wanted, authority_type) = body::look(&asked.body, name.clone())?;
    asked.app.catch_up().await?;
    let key = (asked.caller.principal.clone(), wanted.id);
    let (is_known, was_asked) = asked.app.fold.read(|state| {
        let consumer = (authority_type, name.clone());
        (
            state.consumers.contains_key(&consumer),
            state.commands.contains_key(&key),
        )
    });
    // Whoever may not look, or at nothing, or again under the same id, is answered by the log: nobody is dialled for that.
    if !asked.caller.may(Action::Rotate) || !is_known || was_asked {
        let answered = asked.execute(asked.command(wanted)).await?;
        return match look::known(&asked.app, authority_type, &name) {
            Some((address, expects)) => {
                let looked = Looked {
                    address,
                    expects,
                    saw: None,
                    missing: None,
                };
                reply::json(&report(&name, authority_type, looked, Some(answered.position)))
            }
            None => Err(unprobed()),
        };
    }
    let looked = look::look(&asked.app, authority_type, &name)
        .await
        .ok_or_else(unprobed)?;
    let Some(order) = looked.order(authority_type, &name) else {
        // Held against a row that others may have left.
        asked.app.serving.still(&asked.term).map_err(not_serving)?;
        return reply::json(&report(&name, authority_type, looked, None));
    };
    let answered = asked.execute(asked.command(with(wanted, order))).await?;
    reply::json(&report(&name, authority_type, looked, Some(answered.position)))
}

fn with(wanted: Wanted, order: Order) -> Wanted {
    Wanted { order, ..wanted }
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
    position: Option<domain::Position>,
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
