//! Commands of operators on nodes, tokens and external consumers, and on the clock.

use api::command::{CommandAnswer, TokenAnswer, node_called};
use domain::{Answer, AuthorityType, Code, NodeId, Order, TokenId};

use super::Asked;
use crate::{
    body::{self, Wanted},
    reply::{self, No, Reply},
};

pub(super) async fn exclude(asked: &Asked) -> Reply {
    let node = node(asked).await?;
    plain(asked, Order::ExcludeNode { node }).await
}

pub(super) async fn include(asked: &Asked) -> Reply {
    let node = node(asked).await?;
    plain(asked, Order::IncludeNode { node }).await
}

pub(super) async fn remove_node(asked: &Asked) -> Reply {
    let node = node(asked).await?;
    plain(asked, Order::RemoveNode { node }).await
}

pub(super) async fn remove_token(asked: &Asked) -> Reply {
    let token: TokenId = asked.parse_part()?;
    plain(asked, Order::RemoveToken { token }).await
}

/// `POST /v1/clock/accept`: how far the clock is behind the log stands in the event.
pub(super) async fn accept_clock(asked: &Asked) -> Reply {
    let now = asked.app.now();
    let behind_ms = asked.app.fold.read(|s| s.time.since_ms(now));
    plain(asked, Order::AcceptClock { behind_ms }).await
}

/// `POST /v1/consumers`.
pub(super) async fn add_consumer(asked: &Asked) -> Reply {
    done(asked, body::consumer(&asked.body)?).await
}

/// `POST /v1/consumers/{name}/attest`: a person's word. Only the control plane itself says that it has probed.
pub(super) async fn attest_consumer(asked: &Asked) -> Reply {
    done(asked, body::attestation(&asked.body, asked.parse_part()?)?).await
}

/// `POST /v1/consumers/{name}/withdraw`.
pub(super) async fn withdraw_consumer(asked: &Asked) -> Reply {
    done(asked, body::withdrawal(&asked.body, asked.parse_part()?)?).await
}

/// A command that needs no more than an id and a reason.
pub(super) async fn plain(asked: &Asked, order: Order) -> Reply {
    done(asked, body::plain(&asked.body, order)?).await
}

async fn done(asked: &Asked, wanted: Wanted) -> Reply {
    let answered = asked.execute(asked.command(wanted)).await?;
    reply::json(&CommandAnswer {
        position: answered.position,
        answer: answered.answer,
        warning: None,
        locked_out: None,
    })
}

/// `POST /v1/tokens`: answers with all that a join line needs beside the secret, which never came here.
pub(super) async fn add_token(asked: &Asked) -> Reply {
    let wanted = body::token(&asked.body)?;
    let answered = asked.execute(asked.command(wanted)).await?;
    let Answer::Token { token, expires } = answered.answer else {
        return Err(No::new(
            Code::Internal,
            "a token was answered with something else",
        ));
    };
    let (ca_pins, bundle_pin) = asked.app.fold.read(|s| {
        let pins = s
            .types
            .get(&AuthorityType::Host)
            .map(|of| of.trusted().into_iter().collect());
        (pins.unwrap_or_default(), s.cluster.as_ref().map(|c| c.bundle_key))
    });
    let bundle_pin = bundle_pin.ok_or_else(|| No::new(Code::NoCluster, "the log holds no cluster yet"))?;
    reply::json(&TokenAnswer {
        id: token,
        expires,
        ca_pins,
        bundle_pin,
        position: answered.position,
    })
}

/// The node that a path names, by its id or its host name. Looked up at the log's end, so that a node that
/// joined a moment ago is found.
pub(super) async fn node(asked: &Asked) -> Result<NodeId, No> {
    asked.app.catch_up().await?;
    let find = |s: &domain::ClusterState| {
        let find = |name: &str| s.find_node(name).map(|node| node.id);
        node_called(&find, &asked.part)
    };
    Ok(asked.app.fold.read(find)?)
}
