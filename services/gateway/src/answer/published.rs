//! Key sets for readers that know nothing of us: JWKS (RFC 7517) and the SPIFFE bundle.
//!
//! Nobody signs them: they are believed for the connection that they came over. So a gateway hands them out only while it
//! may serve; one that fell behind would show a set without the key that others sign with already.

use api::route::encode;
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    AuthorityId, AuthorityType, Code,
    authority::{AuthorityKey, KeyKind},
    time::SECOND_MS,
    trust::published,
};
use pki::{
    CaCert, PublicKey,
    jwt::{Jwk, Jwks, jwk},
};
use serde::Serialize;

use super::Asked;
use crate::{
    hub::Hub,
    reply::{self, No, Reply},
};

/// How long a reader may refuse to look again, whatever a document says (PyJWT: half a minute after it has looked).
const COOLDOWN_MS: u64 = 30 * SECOND_MS;

/// How long a reader may keep a revocation list, in seconds: what is revoked is to be known soon.
const CRL_AGE_S: u64 = 60;

/// `GET /v1/jwks/{type}`: every key that verifies tokens now. A prepared key is in it from `init` on, and signs only after
/// the publication time; a retired one stays for as long as a token of it may live.
pub(super) async fn jwks(asked: &Asked) -> Reply {
    let authority_type: AuthorityType = asked.parse_part()?;
    let keys = published_keys(asked, authority_type);
    if keys.is_empty() {
        return Err(nothing(authority_type, "keys that sign tokens"));
    }
    let keys = keys.iter().filter_map(public).map(|key| jwk(&key)).collect();
    reply::cached(&Jwks { keys }, max_age_s(asked))
}

/// What a reader of OpenID Connect needs to know of us: where the keys are. Nobody logs in here.
#[derive(Serialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: [&'static str; 1],
    claims_supported: [&'static str; 7],
}

/// `GET /v1/oidc/{type}/.well-known/openid-configuration`.
pub(super) async fn discovery(asked: &Asked) -> Reply {
    let authority_type: AuthorityType = asked.parse_part()?;
    if published_keys(asked, authority_type).is_empty() {
        return Err(nothing(authority_type, "keys that sign tokens"));
    }
    let path = api::route::fill(api::route::JWKS, authority_type.name());
    let discovery = Discovery {
        issuer: asked.app.issuer(authority_type),
        jwks_uri: format!("{}{path}", asked.app.public_url),
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: ["ES256"],
        claims_supported: ["iss", "sub", "aud", "iat", "nbf", "exp", "jti"],
    };
    reply::cached(&discovery, max_age_s(asked))
}

/// The trust domain's bundle (SPIFFE Trust Domain and Bundle, section 4).
#[derive(Serialize)]
struct SpiffeBundle {
    keys: Vec<SpiffeKey>,
    /// Rises with every change: the position of the log that the bundle describes.
    spiffe_sequence: u64,
    /// Seconds after which to look again.
    spiffe_refresh_hint: u64,
}

/// One key of it. The parameter `use` says which SVIDs it verifies.
#[derive(Serialize)]
struct SpiffeKey {
    kty: String,
    crv: String,
    x: String,
    y: String,
    #[serde(rename = "use")]
    usage: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    /// The authority's certificate, DER, base64.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    x5c: Vec<String>,
}

/// `GET /v1/spiffe/bundle`: the authorities of both generations. A retired key leaves it at `standby`, which the time
/// condition holds back until nothing of it lives.
pub(super) async fn spiffe(asked: &Asked) -> Reply {
    // Read from the certificates without the lock: anybody may ask, and as often as he likes.
    let row = asked.app.fold.read(|state| {
        let of = state.types.get(&AuthorityType::Spiffe)?;
        Some((of.living().cloned().collect::<Vec<_>>(), of.bundle_due.0))
    });
    let Some((keys, spiffe_sequence)) = row.filter(|(keys, _)| !keys.is_empty()) else {
        return Err(nothing(AuthorityType::Spiffe, "keys"));
    };
    let refresh_s = max_age_s(asked);
    let bundle = SpiffeBundle {
        keys: keys.iter().filter_map(spiffe_key).collect(),
        spiffe_sequence,
        spiffe_refresh_hint: refresh_s,
    };
    reply::cached(&bundle, refresh_s)
}

fn spiffe_key(key: &AuthorityKey) -> Option<SpiffeKey> {
    let (usage, x5c) = match key.kind {
        KeyKind::Tls => ("x509-svid", vec![key.certificate.clone()]),
        KeyKind::Jwt => ("jwt-svid", vec![]),
        KeyKind::Ssh => return None,
    };
    let Jwk {
        kty, crv, x, y, kid, ..
    } = jwk(&public(key)?);
    Some(SpiffeKey {
        kty,
        crv,
        x,
        y,
        usage,
        kid: x5c.is_empty().then_some(kid),
        x5c,
    })
}

/// `GET /v1/crl/{authority}`: of every authority for TLS that counts, also where nothing is on it.
pub(super) async fn crl(asked: &Asked) -> Reply {
    let authority: AuthorityId = asked.parse_part()?;
    let found = asked.app.fold.read(|state| {
        let mut types = state.types.iter();
        types.find_map(|(t, of)| {
            let key = of.live(authority).filter(|key| key.kind == KeyKind::Tls);
            key.and(of.bundle.as_ref()).map(|head| (*t, head.position))
        })
    });
    let Some((authority_type, position)) = found else {
        let text = "no authority for TLS that counts has this pin: `carousel get authorities` lists them";
        return Err(No::new(Code::NotFound, text));
    };
    let published = Hub::published(&asked.app, authority_type, position).await?;
    let list = published.lists.get(&authority);
    let der = list.and_then(|list| STANDARD.decode(list).ok()).ok_or_else(|| {
        let text =
            "the key of this authority could not be reached when the last list was due: ask again later";
        No::new(Code::SignerUnavailable, text).retry_after(60)
    })?;
    reply::document("application/pkix-crl", der, CRL_AGE_S)
}

fn published_keys(asked: &Asked, authority_type: AuthorityType) -> Vec<AuthorityKey> {
    let now = asked.app.now();
    let of_type = |state: &domain::ClusterState| published(state, authority_type, now).cloned().collect();
    asked.app.fold.read(of_type)
}

fn public(key: &AuthorityKey) -> Option<PublicKey> {
    match key.kind {
        KeyKind::Tls => CaCert::from_base64(&key.certificate)
            .ok()
            .map(|ca| ca.parsed().public_key.clone()),
        KeyKind::Ssh | KeyKind::Jwt => PublicKey::from_base64(&key.public_key).ok(),
    }
}

/// Shorter than the time before a new key signs: a reader that looked a moment before the key was there looks again before
/// it meets the key in a token.
fn max_age_s(asked: &Asked) -> u64 {
    let published_ms = asked.app.fold.read(|state| state.settings().jwks_max_age_ms);
    // Half of it at least: with the seconds of a demo there would be nothing left.
    published_ms.saturating_sub(COOLDOWN_MS).max(published_ms / 2) / 1_000
}

fn nothing(authority_type: AuthorityType, what: &str) -> No {
    let text = format!(
        "type {} has no {what} in this cluster",
        encode(authority_type.name())
    );
    No::new(Code::NotFound, text)
}
