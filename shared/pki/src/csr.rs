//! Certificate signing requests (RFC 2986): ours are made empty, others' are read for their key alone.

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::command::KeyRequest;
use rcgen::{CertificateParams, DistinguishedName};

use crate::{
    adapter::Signing,
    der::{BIT_STRING, CONTEXT_0, INTEGER, Reader, SEQUENCE},
    key::{KeyPair, PublicKey},
    pem,
};

/// The most that a request may weigh, in bytes, as DER or as PEM.
pub const MAX_REQUEST_BYTES: usize = 4 * 1024;
/// AlgorithmIdentifier `ecdsa-with-SHA256` (RFC 5758), whole.
const ECDSA_WITH_SHA256: [u8; 12] = [
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];
const LABELS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// Why a request is refused. None of these is worth a retry with the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Larger than any honest request.
    #[error("the certificate request has {bytes} bytes; at most {MAX_REQUEST_BYTES} are read")]
    TooLarge {
        /// How many it has.
        bytes: usize,
    },
    /// Not a request at all.
    #[error("not a PKCS#10 certificate request in DER or PEM")]
    Malformed,
    /// Another kind of key.
    #[error("the certificate request's key is not an uncompressed ECDSA P-256 key; make a P-256 key")]
    WrongKey,
    /// Another kind of signature.
    #[error("the certificate request is not signed with ecdsa-with-SHA256")]
    WrongAlgorithm,
    /// The requester does not hold the key, or the request was changed on its way.
    #[error("the certificate request's signature does not verify with the key inside it")]
    BadSignature,
}

/// A request for this key, DER. It names nothing: names come from the grant in the log.
pub fn make(key: &KeyPair) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params
        .serialize_request(&Signing::new(key))
        .expect("a request without names or extensions can be written");
    request.der().to_vec()
}

/// The same as PEM.
pub fn make_pem(key: &KeyPair) -> String {
    pem::encode(LABELS[0], &make(key))
}

/// Takes the public key from a request in DER or PEM, after its signature verified.
///
/// Subject, attributes and requested extensions (`CA:TRUE`, foreign names, unknown ones) are not even
/// parsed: they could only be ignored or be wrong.
pub fn parse_and_verify(bytes: &[u8]) -> Result<KeyRequest, CsrError> {
    if bytes.len() > MAX_REQUEST_BYTES {
        return Err(CsrError::TooLarge { bytes: bytes.len() });
    }
    let decoded;
    let der = match std::str::from_utf8(bytes) {
        Ok(text) if text.trim_start().starts_with("-----BEGIN ") => {
            decoded = LABELS
                .iter()
                .find_map(|label| pem::decode(text, label))
                .ok_or(CsrError::Malformed)?;
            &decoded[..]
        }
        _ => bytes,
    };
    let request = frame(der).ok_or(CsrError::Malformed)?;
    let key = PublicKey::from_spki_der(request.spki).map_err(|_| CsrError::WrongKey)?;
    if request.algorithm != ECDSA_WITH_SHA256 {
        return Err(CsrError::WrongAlgorithm);
    }
    if !key.verifies(request.signed, request.signature) {
        return Err(CsrError::BadSignature);
    }
    Ok(KeyRequest {
        spki: key.pin(),
        public_key: STANDARD.encode(key.spki_der()),
    })
}

struct Frame<'a> {
    signed: &'a [u8],
    spki: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

/// `SEQUENCE { SEQUENCE { version, subject, spki, [0] attributes }, algorithm, BIT STRING }`.
fn frame(der: &[u8]) -> Option<Frame<'_>> {
    let mut outer = Reader::new(der);
    let request = outer.element(SEQUENCE)?;
    if !outer.at_end() {
        return None;
    }
    let mut parts = Reader::new(request.content);
    let info = parts.element(SEQUENCE)?;
    let algorithm = parts.element(SEQUENCE)?.whole;
    // The first byte of a BIT STRING counts unused bits; a signature has none.
    let signature = parts.element(BIT_STRING)?.content.strip_prefix(&[0])?;
    let mut fields = Reader::new(info.content);
    let version = fields.element(INTEGER)?.content;
    let _subject = fields.element(SEQUENCE)?;
    let spki = fields.element(SEQUENCE)?.whole;
    let _attributes = fields.element(CONTEXT_0)?;
    let complete = parts.at_end() && fields.at_end() && version == [0];
    complete.then_some(Frame {
        signed: info.whole,
        spki,
        algorithm,
        signature,
    })
}

#[cfg(test)]
mod tests;
