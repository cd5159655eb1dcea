//! The public routes: trust documents, joining, recovering.

use std::{net::IpAddr, sync::Arc};

use api::{join::JoinAnswer, route::encode};
use domain::{Answer, AuthorityType, Code, NodeId, Order, Position, Principal, command::Answered};
use runtime::ratelimit::{KeyedLimit, source_of};
use tokio::time::Instant;

use super::Asked;
use crate::{
    app::{App, Issued, PATIENCE},
    body, handout,
    hub::Hub,
    reply::{self, No, Reply},
    strangers::Alert,
};

/// `GET /v1/trust/{type}`: the newest signed bundle. Served by every gateway at all times, also one that
/// may serve nothing else: the document is believed for its signature, not for who hands it out.
pub(super) async fn trust(asked: &Asked) -> Reply {
    let authority_type: AuthorityType = asked.parse_part()?;
    let look = || {
        let head = |s: &domain::ClusterState| Some(s.types.get(&authority_type)?.bundle.as_ref()?.position);
        asked.app.fold.read(head)
    };
    let Some(position) = look() else {
        let text = format!(
            "there is no signed bundle of type {} yet",
            encode(authority_type.name())
        );
        return Err(No::new(Code::NotFound, text).retry_after(1));
    };
    reply::json(&*Hub::bundle(&asked.app, authority_type, position).await?)
}

/// `POST /v1/join`.
pub(super) async fn join(asked: &Asked) -> Reply {
    limit(asked, &asked.app.joins)?;
    joined(asked, body::join(&asked.body)?).await
}

/// `POST /v1/recover`: a request signed with the key of a certificate that the log knows.
pub(super) async fn recover(asked: &Asked) -> Reply {
    // Counted apart: guesses at tokens must not keep out nodes that come back.
    limit(asked, &asked.app.recoveries)?;
    let body::Recovery { certificate, key } = body::recovery(&asked.body)?;
    let cluster = asked.app.cluster()?;
    let Some(Principal::Node(node)) = certificate.principal(&cluster) else {
        let text = "the certificate is not one of a node of this cluster";
        return Err(No::new(Code::RecoveryRefused, text));
    };
    let proven_by = certificate.digest;
    // A certificate issued a moment ago elsewhere may not be folded yet.
    if asked.app.fold.read(|s| !s.certificates.contains_key(&proven_by)) {
        asked.app.catch_up_together().await?;
    }
    let result = joined(asked, Order::Recover { node, proven_by, key }).await;
    if let Err(no) = &result
        && no.code() == Code::CertificateSuperseded
    {
        let uri = certificate.uri.as_deref().unwrap_or_default();
        let now = asked.app.clock.monotonic();
        asked
            .app
            .strangers
            .alert(Alert::Superseded, uri, asked.connection.from, &no.0.detail, now);
    }
    result
}

/// Executes when it is its turn, waits for the certificate, and answers with the row at or after the event [M].
async fn joined(asked: &Asked, order: Order) -> Reply {
    let app = &asked.app;
    let _at_work = asked.connection.stand.at_work();
    let Some(_turn) = app.precedence.join().await else {
        let text = "too many nodes join at this moment: ask again with the same request";
        return Err(No::new(Code::RateLimited, text).retry_after(1));
    };
    let (answered, node, issued) = certified(asked, order).await?;
    let at_least = joined_at(app, node).max(answered.position);
    let update = handout::with_bundles(app, handout::whole(app, node, at_least).await?).await?;
    app.presences.saw(node, app.now());
    reply::json(&JoinAnswer {
        node,
        cluster: app.cluster()?,
        position: issued.position,
        certificate: issued.text,
        usage: issued.usage,
        bundles: update.bundles,
        desired: update.desired,
    })
}

/// Executes until the certificate is there. An authorisation may be voided before it is signed, because its
/// authority went meanwhile: then the same token and key get another one. The joiner has no view that could be
/// stale, and would take that for a refusal.
async fn certified(asked: &Asked, order: Order) -> Result<(Answered, NodeId, Issued), No> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answered = asked.execute_own(Principal::Anonymous, order.clone()).await?;
        let Answer::Joined { node, authorization } = answered.answer else {
            return Err(No::new(Code::Internal, "a join was answered with something else"));
        };
        // What the signer refused is authorised anew when the joiner asks again, and not in a loop here.
        let refused = Code::SignerUnavailable;
        let (app, holder) = (&asked.app, Principal::Node(node));
        match app
            .certificate_by(&holder, authorization, deadline, refused)
            .await
        {
            Ok(issued) => return Ok((answered, node, issued)),
            Err(no) if no.code() != Code::StaleView => return Err(no),
            Err(_) if Instant::now() < deadline => {}
            Err(_) => {
                let text =
                    "the rows change faster than certificates are signed: ask again with the same request";
                return Err(No::new(Code::SignerUnavailable, text).retry_after(1));
            }
        }
    }
}

fn joined_at(app: &Arc<App>, node: NodeId) -> Position {
    app.fold
        .read(|s| s.nodes.get(&node).map(|n| n.joined).unwrap_or_default())
}

fn limit(asked: &Asked, of_source: &KeyedLimit<IpAddr>) -> Result<(), No> {
    let now = asked.app.clock.monotonic();
    of_source
        .try_take(source_of(asked.connection.from), now)
        .map_err(|wait| {
            let text = "too many of these from this address; renewals are not counted";
            No::limited(text, wait)
        })
}
