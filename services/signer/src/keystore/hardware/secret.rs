//! A secret that a key in a token makes: the key-encryption key of sealed files.
//!
//! The token holds a key for HMAC with SHA-256 that is neither readable nor extractable. What it says of a fixed text is a
//! secret of 32 bytes, the same each time and never without the token.

use std::sync::Arc;

use cryptoki::{
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectClass},
};
use zeroize::Zeroizing;

use super::{HardwareError, Library, token::Token};
use crate::keystore::TokenUri;

/// What the key is called where the URI names no `object`.
const LABEL: &str = "carousel-kek";
/// What the secret is made of: another use of the key is another text.
const CONTEXT: &[u8] = b"carousel key-encryption key v1";
/// As long as what HMAC with SHA-256 gives (RFC 2104, section 3).
const KEY_BYTES: u64 = 32;

/// The secret of the key that the URI names. Where there is none it is made if `makes` says so.
///
/// The library is closed again: it is opened by one at a time in a process.
///
/// # Errors
/// [`HardwareError`].
pub fn derived(uri: &TokenUri, makes: bool) -> Result<Zeroizing<Vec<u8>>, HardwareError> {
    let token = Token::new(uri.clone(), Arc::new(Library::new(&uri.module)));
    let label = uri.object.as_deref().unwrap_or(LABEL).as_bytes().to_vec();
    let secret = token.once(|seat| {
        let wanted = [
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::Token(true),
            Attribute::Label(label.clone()),
        ];
        let key = match (&seat.session.find_objects(&wanted)?[..], makes) {
            ([key], _) => *key,
            // Which of them sealed the keys nobody knows.
            ([_, _, ..], _) => return Ok(Found::Several),
            ([], false) => return Ok(Found::None),
            ([], true) => seat.session.generate_key(
                &Mechanism::GenericSecretKeyGen,
                &[
                    Attribute::Class(ObjectClass::SECRET_KEY),
                    Attribute::KeyType(KeyType::GENERIC_SECRET),
                    Attribute::ValueLen(KEY_BYTES.into()),
                    Attribute::Token(true),
                    Attribute::Private(true),
                    Attribute::Sensitive(true),
                    Attribute::Extractable(false),
                    Attribute::Sign(true),
                    Attribute::Label(label.clone()),
                ],
            )?,
        };
        let secret = seat.session.sign(&Mechanism::Sha256Hmac, key, CONTEXT)?;
        Ok(Found::Secret(Zeroizing::new(secret)))
    });
    token.library.end(None);
    match secret? {
        Found::Secret(secret) => Ok(secret),
        Found::None => Err(HardwareError::NoKey(uri.token.clone())),
        Found::Several => Err(HardwareError::Failed {
            token: uri.token.clone(),
            why: "it holds several keys of this name; leave the one that sealed the keys".into(),
        }),
    }
}

/// What the token held under the name.
enum Found {
    None,
    Several,
    Secret(Zeroizing<Vec<u8>>),
}
