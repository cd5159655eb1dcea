//! The public routes: trust documents, joining, recovering.

use std::{net::IpAddr, sync::Arc};

use api::{
    join::{JoinAnswer, JoinRequest, RECOVER_CONTEXT, REJOIN_CONTEXT, RecoverRequest, RejoinProof},
    route::encode,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    Answer, AuthorityType, Code, Hostname, NodeId, Order, Position, Principal, TokenHash,
    command::{Answered, Join, KeyRequest, Rejoin},
};
use pki::{Certificate, csr, pem, statement};
use runtime::ratelimit::{KeyedLimit, source_of};
use tokio::time::Instant;

use super::Asked;
use crate::{
    app::{App, Issued, PATIENCE},
    handout,
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
    let request: JoinRequest = reply::parse(&asked.body)?;
    let hostname: Hostname = request.hostname.parse().map_err(No::bad_request)?;
    let key = key_of(&request.csr)?;
    let rejoin = request
        .rejoin
        .as_ref()
        .map(|proof| rejoin(proof, &request.csr))
        .transpose()?;
    let token = TokenHash(execution::sha256(request.token.trim().as_bytes()));
    let order = Order::Join(Join {
        token,
        hostname,
        key,
        rejoin,
    });
    joined(asked, order).await
}

/// `POST /v1/recover`: a request signed with the key of a certificate that the log knows.
pub(super) async fn recover(asked: &Asked) -> Reply {
    // Counted apart: guesses at tokens must not keep out nodes that come back.
    limit(asked, &asked.app.recoveries)?;
    let request: RecoverRequest = reply::parse(&asked.body)?;
    let key = key_of(&request.csr)?;
    let refused = |text: &str| No::new(Code::RecoveryRefused, text);
    let certificate = certificate_of(&request.certificate)?;
    verify(&certificate, RECOVER_CONTEXT, &request.csr, &request.signature)?;
    let cluster = asked.app.cluster()?;
    let Some(Principal::Node(node)) = certificate.principal(&cluster) else {
        return Err(refused("the certificate is not one of a node of this cluster"));
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

/// Executes, waits for the certificate, and answers with the row at or after the event [M].
async fn joined(asked: &Asked, order: Order) -> Reply {
    let app = &asked.app;
    let (answered, node, issued) = certified(asked, order).await?;
    let at_least = joined_at(app, node).max(answered.position);
    let update = handout::with_bundles(app, handout::whole(app, node, at_least).await?).await?;
    app.presences.saw(node, app.now());
    reply::json(&JoinAnswer {
        node,
        cluster: app.cluster()?,
        position: issued.position,
        certificate: pem::encode_certificates([&issued.der[..]]),
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

fn rejoin(proof: &RejoinProof, csr: &str) -> Result<Rejoin, No> {
    let proven_by = match (&proof.certificate, &proof.signature) {
        (Some(certificate), Some(signature)) => {
            let certificate = certificate_of(certificate)?;
            verify(&certificate, REJOIN_CONTEXT, csr, signature)?;
            Some(certificate.digest)
        }
        (None, None) => None,
        _ => {
            return Err(No::bad_request(
                "a rejoin proves itself with a certificate and a signature, or with neither",
            ));
        }
    };
    Ok(Rejoin {
        node: proof.node,
        proven_by,
    })
}

/// The certificate binds the key, and its digest the certificate: whether the log knows that digest as the
/// node's is decided where the command is.
fn verify(certificate: &Certificate, context: &str, csr: &str, signature: &str) -> Result<(), No> {
    let bad = |text: String| No::new(Code::RecoveryRefused, text);
    let signature = STANDARD
        .decode(signature)
        .map_err(|_| bad("the signature is not base64".into()))?;
    let key = certificate.public_key.spki_der();
    statement::verify(key, context, csr.as_bytes(), &signature).map_err(|e| bad(e.to_string()))
}

fn certificate_of(text: &str) -> Result<Certificate, No> {
    let bad = |text: String| No::new(Code::RecoveryRefused, text);
    let first = pem::certificates(text).and_then(|all| all.into_iter().next());
    let der = first.ok_or_else(|| bad("no certificate in PEM".into()))?;
    Certificate::parse(&der).map_err(|e| bad(e.to_string()))
}

/// The key of a certificate request, its signature verified; nothing else is read from it.
pub(super) fn key_of(csr: &str) -> Result<KeyRequest, No> {
    csr::parse_and_verify(csr.as_bytes()).map_err(|e| No::new(Code::CsrInvalid, e.to_string()))
}
