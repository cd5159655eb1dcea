//! Tokens (RFC 7519) signed by ES256 (RFC 7518, section 3.4), and the key sets that their readers fetch (RFC 7517).
//!
//! Only compact JWS, only ES256, only keys that a header names by their thumbprint (RFC 7638): whatever a token says
//! about how to verify it is compared, never followed.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use domain::{authority::KeyKind, trust::Bundle};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    bundle::public_keys,
    der,
    key::{CaSigner, PublicKey, SignError, sha256},
};

/// The longest token that is read.
const LONGEST: usize = 16 * 1024;

/// A public key as readers of a key set take it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Jwk {
    /// `EC`.
    pub kty: String,
    /// `P-256`.
    pub crv: String,
    /// The point's first coordinate, base64url.
    pub x: String,
    /// Its second.
    pub y: String,
    /// The key's thumbprint.
    pub kid: String,
    /// `ES256`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub usage: String,
}

/// A key set.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Jwks {
    /// Its keys.
    pub keys: Vec<Jwk>,
}

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no compact JWS.
    #[error("this is no token: three parts in base64url, with dots between them, are expected")]
    NoToken,
    /// Another algorithm, or a critical extension.
    #[error("the token is not signed by ES256, or asks for what is not understood here")]
    Algorithm,
    /// Nobody here signs with this key.
    #[error("the token names a key that is not in the key set")]
    UnknownKey,
    /// It was changed, or signed by another key.
    #[error("the token's signature does not hold")]
    Signature,
    /// Its claims are not what they should be.
    #[error("the token's claims cannot be read")]
    Claims,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    typ: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crit: Option<Vec<String>>,
}

/// The key's name in tokens and key sets (RFC 7638): SHA-256 of its members in their order, base64url.
pub fn thumbprint(key: &PublicKey) -> String {
    let (x, y) = coordinates(key);
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    BASE64URL.encode(sha256(members.as_bytes()))
}

/// The key as it stands in a key set.
pub fn jwk(key: &PublicKey) -> Jwk {
    let (x, y) = coordinates(key);
    Jwk {
        kty: "EC".into(),
        crv: "P-256".into(),
        x,
        y,
        kid: thumbprint(key),
        alg: "ES256".into(),
        usage: "sig".into(),
    }
}

fn coordinates(key: &PublicKey) -> (String, String) {
    let (x, y) = key.point()[1..].split_at(32);
    (BASE64URL.encode(x), BASE64URL.encode(y))
}

/// What verifiers of tokens are given of a bundle.
pub fn keys_of(bundle: &Bundle) -> Jwks {
    let keys = public_keys(bundle, KeyKind::Jwt);
    Jwks {
        keys: keys.map(|(_, key)| jwk(&key)).collect(),
    }
}

/// What is signed: header and claims, ready for [`sign`].
///
/// # Errors
/// [`TokenError::Claims`] if they cannot be written as JSON.
pub fn unsigned(claims: &impl Serialize, typ: &str, key: &PublicKey) -> Result<String, TokenError> {
    let header = Header {
        alg: "ES256".into(),
        kid: thumbprint(key),
        typ: Some(typ.to_owned()),
        crit: None,
    };
    let part = |json: serde_json::Result<Vec<u8>>| {
        json.map(|json| BASE64URL.encode(json))
            .map_err(|_| TokenError::Claims)
    };
    Ok(format!(
        "{}.{}",
        part(serde_json::to_vec(&header))?,
        part(serde_json::to_vec(claims))?
    ))
}

/// The token: what was made by [`unsigned`] for this very key, and its signature.
///
/// # Errors
/// If the key store refuses.
pub fn sign(unsigned: &str, ca: &dyn CaSigner) -> Result<String, SignError> {
    let signature = ca.sign_raw(unsigned.as_bytes())?;
    Ok(format!("{unsigned}.{}", BASE64URL.encode(signature)))
}

/// The claims of a token that a key of the set has signed. Times, issuer and audience are for the caller to look at.
///
/// # Errors
/// [`TokenError`]; nothing of the token is in it.
pub fn read<T: DeserializeOwned>(token: &str, keys: &Jwks) -> Result<T, TokenError> {
    let mut parts = token.rsplitn(2, '.');
    let (signature, signed) = (parts.next(), parts.next());
    let (Some(signature), Some(signed)) = (signature, signed) else {
        return Err(TokenError::NoToken);
    };
    let (header, claims) = signed.split_once('.').ok_or(TokenError::NoToken)?;
    if token.len() > LONGEST || claims.contains('.') {
        return Err(TokenError::NoToken);
    }
    let bytes = |part: &str| BASE64URL.decode(part).map_err(|_| TokenError::NoToken);
    let header = bytes(header)?;
    // A list would be read as a header too.
    let header = header
        .starts_with(b"{")
        .then(|| serde_json::from_slice::<Header>(&header));
    let header = header.and_then(Result::ok).ok_or(TokenError::NoToken)?;
    if header.alg != "ES256" || header.crit.is_some() {
        return Err(TokenError::Algorithm);
    }
    let key = keys
        .keys
        .iter()
        .find(|key| key.kid == header.kid)
        .ok_or(TokenError::UnknownKey)?;
    let key = public_key(key).ok_or(TokenError::UnknownKey)?;
    let raw: [u8; 64] = bytes(signature)?.try_into().map_err(|_| TokenError::Signature)?;
    if !key.verifies(signed.as_bytes(), &der::ecdsa_signature(&raw)) {
        return Err(TokenError::Signature);
    }
    serde_json::from_slice(&bytes(claims)?).map_err(|_| TokenError::Claims)
}

/// The key of a set's entry, if it is one that we would have made.
pub fn public_key(key: &Jwk) -> Option<PublicKey> {
    let mut point = vec![4];
    point.extend(BASE64URL.decode(&key.x).ok()?);
    point.extend(BASE64URL.decode(&key.y).ok()?);
    let read = PublicKey::from_sec1(&point).ok()?;
    (*key == jwk(&read)).then_some(read)
}

#[cfg(test)]
mod tests;
