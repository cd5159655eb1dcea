//! Credentials beside those that agents and operators renew: for parties without an agent, tokens, a person's SSH
//! certificate; and their revocation.

use api::command::{CommandAnswer, SignAnswer};
use domain::{Answer, AuthorityType, Code, Order, Phase, Principal, command::Answered};

use super::Asked;
use crate::{
    app::Issued,
    body,
    reply::{self, No, Reply},
};

/// `POST /v1/sign`.
pub(super) async fn sign(asked: &Asked) -> Reply {
    let (wanted, holder) = body::sign::certificate(&asked.body)?;
    let answered = asked.execute(asked.command(wanted)).await?;
    signed(asked, &holder, answered).await
}

/// `POST /v1/sign/token`: the issuer is what this control plane is known by, whoever asks.
pub(super) async fn token(asked: &Asked) -> Reply {
    let issuer = |t: AuthorityType| asked.app.issuer(t);
    let (wanted, holder) = body::sign::token(&asked.body, issuer)?;
    let answered = asked.execute(asked.command(wanted)).await?;
    signed(asked, &holder, answered).await
}

/// `POST /v1/users/self/ssh`.
pub(super) async fn ssh(asked: &Asked) -> Reply {
    let holder = Principal::User(asked.caller.user()?.clone());
    let wanted = body::sign::ssh(&asked.body)?;
    let answered = asked.execute(asked.command(wanted)).await?;
    signed(asked, &holder, answered).await
}

/// `POST /v1/certificates/revoke`.
pub(super) async fn revoke(asked: &Asked) -> Reply {
    let (id, reason, target) = body::sign::revocation(&asked.body)?;
    // At the log's end, so that a node that joined a moment ago is found.
    asked.app.catch_up().await?;
    let find = |s: &domain::ClusterState| target.resolve(&|name| s.find_node(name).map(|node| node.id));
    let target = asked.app.fold.read(find)?;
    let order = Order::RevokeCertificates { target };
    let answered = asked
        .execute(asked.command(body::Wanted { id, reason, order }))
        .await?;
    reply::json(&CommandAnswer {
        position: answered.position,
        answer: answered.answer,
        warning: None,
        locked_out: None,
    })
}

/// Waits for the signer, and says which generation it was.
async fn signed(asked: &Asked, holder: &Principal, answered: Answered) -> Reply {
    let Answer::Authorized { authorization } = answered.answer else {
        return Err(No::new(
            Code::Internal,
            "a request for a certificate was answered with something else",
        ));
    };
    let issued = asked.app.certificate(holder, authorization).await?;
    reply::json(&answer(asked, issued))
}

fn answer(asked: &Asked, issued: Issued) -> SignAnswer {
    // The row may have moved on since; then the generation is among the retired ones.
    let found = asked.app.fold.read(|state| {
        let of = state.types.get(&issued.authority_type)?;
        let key = of.known(issued.issuer)?;
        let stays = of.live(key.id).is_some() && !of.retiring_of_each_kind().contains(&key.id);
        Some((key.generation, !stays, of.phase, key.certificate.clone()))
    });
    // One that nobody knows any more is not one to rely on.
    let (generation, retiring, phase, ca) = found.unwrap_or((0, true, Phase::default(), String::new()));
    SignAnswer {
        credential: issued.text,
        serial: issued.serial,
        not_after: issued.not_after,
        authority_type: issued.authority_type,
        issuer: issued.issuer,
        generation,
        retiring,
        phase,
        ca: if ca.is_empty() {
            ca
        } else {
            crate::hub::to_pem(&ca).unwrap_or_default()
        },
        position: issued.position,
    }
}
