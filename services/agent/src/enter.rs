//! Coming in, and coming back: the requests that carry no client certificate.
//!
//! The order of a first join is the whole point of it: the signed bundle is fetched from whoever answers
//! and believed only by its signature; of the authorities in it only those are kept that a pin names; a
//! new connection trusts only these and only a gateway; over that one, and no other, goes the token.

use std::time::Duration;

use api::{
    join::{JoinAnswer, JoinRequest, RECOVER_CONTEXT, REJOIN_CONTEXT, RecoverRequest, RejoinProof},
    route,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    AuthorityType, ClusterName, Code, CommandId, NodeId, SpkiPin, Timestamp, TokenHash, trust::Bundle,
};
use mtls::{Epochs, SessionRegistry};
use pki::BundleError;
use runtime::{backoff::Backoff, clock::SharedClock};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{Config, Server, Token},
    disk::{
        DataDir, FORMAT_VERSION, Identity,
        credential::Credential,
        requests::{Purpose, Request},
        trust::Told,
    },
    error::AgentError,
    gateway::{self, Trouble, Trust},
    leaf::{self, Wanted},
    tls,
};

/// A server that is reached but not trusted is looked at again for so long: it may be changing its own
/// certificate at this moment. Then the agent gives up (the contract allows 15 s).
const DISTRUST_PATIENCE: Duration = Duration::from_secs(6);

/// What a node is once it has joined.
pub(crate) struct Joined {
    pub(crate) identity: Identity,
    pub(crate) told: Told,
}

/// A fresh id, UUIDv7 (RFC 9562, section 5.7): the time by our own clock, and random bytes.
pub(crate) fn fresh_uuid(now: Timestamp) -> uuid::Uuid {
    let ms = u64::try_from(now.0).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(ms, &pki::random::<10>()).into_uuid()
}

/// Joins for the first time (or again on a directory whose files are lost), trying for as long as nobody
/// answers. Returns none if it was told to stop.
pub(crate) async fn join(
    config: &Config,
    disk: &DataDir,
    clock: &SharedClock,
    old: Option<(NodeId, Option<Credential>)>,
    shutdown: &CancellationToken,
) -> Result<Option<Joined>, AgentError> {
    let token = needed(config)?;
    disk.forget_told()?;
    let now = Timestamp(clock.now_ms());
    let mut request = request_for(disk, token, now)?;
    let (pace, seed) = (&config.pace, runtime::backoff::random_seed());
    let mut backoff = Backoff::new(pace.retry_min, pace.retry_max, seed);
    let mut distrusted_since = None;
    for server in config.servers.iter().cycle() {
        let attempt = attempt(config, token, server, &request, old.as_ref(), clock);
        let tried = tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            tried = attempt => tried,
        };
        match tried {
            Ok((bundle, answer)) => {
                return keep(config, disk, &mut request, &bundle, answer, clock).map(Some);
            }
            Err(Tried::Wait(why)) => tracing::warn!(%server, why, "no answer yet; trying again"),
            Err(Tried::Distrust(why)) => {
                let since = *distrusted_since.get_or_insert_with(|| clock.monotonic());
                if clock.monotonic().saturating_sub(since) >= DISTRUST_PATIENCE {
                    return Err(AgentError::Untrusted(why));
                }
                tracing::warn!(%server, why, "the server is not trusted; looking once more");
            }
            Err(Tried::End(error)) => {
                if matches!(error, AgentError::Refused { .. }) {
                    disk.forget_request(&request.spki)?;
                }
                return Err(error);
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff.next_pause()) => {}
        }
    }
    Err(AgentError::Usage(
        "no server is given; add --server https://HOST:PORT".into(),
    ))
}

/// What a first join needs on the command line; each missing part has its own sentence.
fn needed(config: &Config) -> Result<&Token, AgentError> {
    let usage = |text: &str| Err(AgentError::Usage(text.into()));
    if config.ca_pins.is_empty() {
        return usage(
            "this node has not joined yet and needs --ca-pin sha256:… (printed by `carousel tokens add`); there is no trust on first use",
        );
    }
    if config.bundle_pin.is_none() {
        return usage(
            "this node has not joined yet and needs --bundle-pin sha256:… (printed by `carousel tokens add`)",
        );
    }
    match &config.token {
        Some(token) => Ok(token),
        None => usage(
            "this node has not joined yet and needs a join token: give --token-file FILE (or - for stdin), or set CAROUSEL_TOKEN",
        ),
    }
}

/// The request of an earlier attempt with the same token, or a new one: the same token with another key
/// would be a second use. One that was answered counts too: a join that was cut short after its first
/// durable act is asked again, and the same token with the same key gives the first result.
fn request_for(disk: &DataDir, token: &Token, now: Timestamp) -> Result<Request, AgentError> {
    let purpose = Purpose::Join {
        token: TokenHash(pki::sha256(token.reveal().as_bytes())),
    };
    let kept = disk.requests()?.into_iter().find(|r| r.purpose == purpose);
    if let Some(request) = kept {
        return Ok(request);
    }
    let request = Request::new(purpose, CommandId(fresh_uuid(now)), now);
    // Crash point: a key that was never sent is found and used by the next start.
    disk.keep_request(&request)?;
    Ok(request)
}

enum Tried {
    /// Nobody answered, or not yet.
    Wait(String),
    /// Somebody answered whom the pins do not name.
    Distrust(String),
    /// There is no use in another attempt.
    End(AgentError),
}

impl From<Trouble> for Tried {
    fn from(trouble: Trouble) -> Self {
        match (trouble.is_final(), trouble) {
            (
                true,
                Trouble::No(code, text) | Trouble::Gone(code, text) | Trouble::Refused(Some(code), text),
            ) => Self::End(AgentError::Refused { code, text }),
            (_, Trouble::Untrusted(why)) => Self::Distrust(why),
            (_, Trouble::NoAnswer(why) | Trouble::Refused(None, why)) => Self::Wait(why),
            (_, Trouble::No(code, text) | Trouble::Gone(code, text) | Trouble::Refused(Some(code), text)) => {
                Self::Wait(format!("{code}: {text}"))
            }
        }
    }
}

async fn attempt(
    config: &Config,
    token: &Token,
    server: &Server,
    request: &Request,
    old: Option<&(NodeId, Option<Credential>)>,
    clock: &SharedClock,
) -> Result<(Bundle, JoinAnswer), Tried> {
    let pin = config
        .bundle_pin
        .as_ref()
        .expect("checked before the first attempt");
    let signed = gateway::fetch_bundle(server, AuthorityType::Host)
        .await
        // Nobody in particular says this, so that it decides nothing: a stranger's "no" would end the join.
        .map_err(|e| Tried::Wait(gateway::in_words(&e)))?;
    let now = Timestamp(clock.now_ms());
    let bundle =
        pki::bundle::verify(&signed, pin, now, None, AuthorityType::Host).map_err(|error| match error {
            BundleError::Expired { .. } => Tried::Distrust(error.to_string()),
            error => Tried::End(AgentError::Untrusted(error.to_string())),
        })?;
    let anchors = mtls::keep_pinned(&pki::bundle::anchors(&bundle), &config.ca_pins);
    if anchors.is_empty() {
        return Err(Tried::End(none_is_pinned(bundle.trusted())));
    }
    let epochs = tls::to_gateways(anchors, None, tls::now(clock))
        .map_err(|e| Tried::End(AgentError::Certificates(gateway::in_words(&e))))?;
    let rejoin = old.map(|(node, credential)| rejoin_proof(*node, credential.as_ref(), &request.csr));
    let answer = post_join(server, &epochs, &bundle.cluster, token, config, request, rejoin).await?;
    Ok((bundle, answer))
}

/// Of these authorities no pin names one: the token is shown to nobody.
pub(crate) fn none_is_pinned(found: impl IntoIterator<Item = SpkiPin>) -> AgentError {
    let found: Vec<_> = found.into_iter().map(|pin| pin.to_string()).collect();
    AgentError::Untrusted(format!(
        "none of its authorities has a given --ca-pin, which changes with every host rotation; by the document that \
         --bundle-pin vouches for they are now {}",
        found.join(" and ")
    ))
}

async fn post_join(
    server: &Server,
    epochs: &Epochs,
    cluster: &ClusterName,
    token: &Token,
    config: &Config,
    request: &Request,
    rejoin: Option<RejoinProof>,
) -> Result<JoinAnswer, Trouble> {
    let trust = Trust::Anonymous {
        epochs: epochs.clone(),
        cluster: cluster.clone(),
    };
    let body = JoinRequest {
        token: token.reveal().to_owned(),
        hostname: config.hostname.to_string(),
        csr: request.csr.clone(),
        rejoin,
    };
    let client = gateway::client(server, trust, &SessionRegistry::new());
    client.post(route::JOIN, &body).await.map_err(|e| Trouble::of(&e))
}

fn rejoin_proof(node: NodeId, credential: Option<&Credential>, csr: &str) -> RejoinProof {
    RejoinProof {
        node,
        certificate: credential.map(|c| pki::pem::encode("CERTIFICATE", &c.certificate)),
        signature: credential.map(|c| statement(c, REJOIN_CONTEXT, csr)),
    }
}

fn statement(credential: &Credential, context: &str, csr: &str) -> String {
    STANDARD.encode(pki::statement::sign(&credential.pair(), context, csr.as_bytes()))
}

/// Makes a join durable: the certificate with its key, what was told, and last of all who we are.
fn keep(
    config: &Config,
    disk: &DataDir,
    request: &mut Request,
    bundle: &Bundle,
    answer: JoinAnswer,
    clock: &SharedClock,
) -> Result<Joined, AgentError> {
    let identity = Identity {
        version: FORMAT_VERSION,
        node: answer.node,
        cluster: bundle.cluster.clone(),
        bundle_pin: config.bundle_pin.expect("checked before the first attempt"),
        hostname: config.hostname.clone(),
    };
    let unusable =
        |why: String| AgentError::Untrusted(format!("its answer to the join cannot be used: {why}"));
    if answer.cluster != identity.cluster {
        return Err(unusable(format!(
            "it is of the cluster {}, the bundle of {}",
            answer.cluster, identity.cluster
        )));
    }
    request
        .answer(&answer.certificate, answer.position)
        .map_err(unusable)?;
    let now = Timestamp(clock.now_ms());
    let told = Told::offered(None, &identity, &answer.desired, &answer.bundles, now)
        .map_err(|e| unusable(e.to_string()))?;
    let wanted = Wanted {
        cluster: &identity.cluster,
        node: identity.node,
        usage: answer.usage,
    };
    leaf::check(&answer.certificate, &told.host_authorities(), wanted).map_err(unusable)?;
    // Crash points: before the last line the next start joins again, with the same token and key, and gets
    // the same answer; after it, everything that the plan needs is there.
    disk.keep_request(request)?;
    disk.keep_told(&told, None)?;
    disk.unlink(crate::disk::generations::Link::Passed)?;
    disk.keep_identity(&identity)?;
    tracing::info!(node = %identity.node, cluster = %identity.cluster, "joined");
    Ok(Joined { identity, told })
}

/// How a way back ended.
pub(crate) enum WayBack {
    /// The control plane took the node back.
    Answer(Box<JoinAnswer>),
    /// Nothing was decided: again later.
    Later(Trouble),
    /// No old certificate will do; the words of the control plane.
    No(Trouble),
}

/// Everything that a way back needs, so that it can run beside the agent's loop.
pub(crate) struct Return {
    pub(crate) server: Server,
    /// Trusts the newest signed bundle's authorities, presents nothing.
    pub(crate) epochs: Epochs,
    pub(crate) cluster: ClusterName,
    pub(crate) node: NodeId,
    /// Old certificates with their keys, the newest first.
    pub(crate) proofs: Vec<Credential>,
}

/// Recovers: signs a new request with the key of an old certificate, one after the other.
pub(crate) async fn recover(way: Return, request: Request) -> WayBack {
    let trust = Trust::Anonymous {
        epochs: way.epochs,
        cluster: way.cluster,
    };
    let client = gateway::client(&way.server, trust, &SessionRegistry::new());
    let text = "no key of an earlier certificate is left";
    let mut last = Trouble::Refused(Some(Code::RecoveryRefused), text.into());
    for proof in &way.proofs {
        let body = RecoverRequest {
            certificate: pki::pem::encode("CERTIFICATE", &proof.certificate),
            csr: request.csr.clone(),
            signature: statement(proof, RECOVER_CONTEXT, &request.csr),
        };
        match client.post::<_, JoinAnswer>(route::RECOVER, &body).await {
            Ok(answer) => return WayBack::Answer(Box::new(answer)),
            Err(error) => match Trouble::of(&error) {
                trouble if trouble.is_final() => last = trouble,
                trouble => return WayBack::Later(trouble),
            },
        }
    }
    WayBack::No(last)
}

/// Joins again with a new token on the old data directory, proven by an old key where there is one.
pub(crate) async fn rejoin(way: Return, request: Request, token: Token, config: Config) -> WayBack {
    let rejoin = rejoin_proof(way.node, way.proofs.first(), &request.csr);
    let joined = post_join(
        &way.server,
        &way.epochs,
        &way.cluster,
        &token,
        &config,
        &request,
        Some(rejoin),
    )
    .await;
    match joined {
        Ok(answer) => WayBack::Answer(Box::new(answer)),
        Err(trouble) if trouble.is_final() => WayBack::No(trouble),
        Err(trouble) => WayBack::Later(trouble),
    }
}
