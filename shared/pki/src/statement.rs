//! Statements: bytes signed with the key of a certificate, for a purpose that both sides name.
//!
//! A node that can no longer connect with its old certificate (expired, or its issuer retired) proves
//! with that certificate's key that it is still itself (`POST /v1/recover`, joining again).

use domain::SpkiPin;

use crate::key::{KeyPair, PublicKey};

/// Why a statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The key is of another kind.
    #[error("the statement's key is not ECDSA P-256")]
    WrongKey,
    /// Signed by another key, for another purpose, or changed.
    #[error("the statement is not signed with the key {key} for this purpose")]
    BadSignature {
        /// The key that should have signed.
        key: SpkiPin,
    },
}

/// Signs `bytes` for the purpose `context`, for example `carousel-recover-v1`. ASN.1 DER.
pub fn sign(key: &KeyPair, context: &str, bytes: &[u8]) -> Vec<u8> {
    key.sign_der(&framed(context, bytes))
}

/// Verifies a statement against a key (SubjectPublicKeyInfo, DER) that is known from elsewhere: from a
/// certificate in the log, never from the statement itself.
pub fn verify(spki_der: &[u8], context: &str, bytes: &[u8], signature: &[u8]) -> Result<(), StatementError> {
    let key = PublicKey::from_spki_der(spki_der).map_err(|_| StatementError::WrongKey)?;
    if key.verifies(&framed(context, bytes), signature) {
        Ok(())
    } else {
        Err(StatementError::BadSignature { key: key.pin() })
    }
}

/// 64 spaces, the purpose, a zero byte, the bytes: the frame of TLS 1.3's CertificateVerify (RFC 8446,
/// section 4.4.3), so that no signature of one purpose is ever one of another, or a TLS handshake's.
fn framed(context: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![b' '; 64];
    out.extend_from_slice(context.as_bytes());
    out.push(0);
    out.extend_from_slice(bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_holds_for_its_key_its_purpose_and_its_bytes_only() {
        let (key, other) = (KeyPair::generate(), KeyPair::generate());
        let signature = sign(&key, "carousel-recover-v1", b"request");
        assert_eq!(
            verify(key.spki_der(), "carousel-recover-v1", b"request", &signature),
            Ok(())
        );
        for (spki, context, bytes) in [
            (other.spki_der(), "carousel-recover-v1", &b"request"[..]),
            (key.spki_der(), "carousel-rejoin-v1", b"request"),
            (key.spki_der(), "carousel-recover-v1", b"requesT"),
        ] {
            assert!(verify(spki, context, bytes, &signature).is_err(), "{context}");
        }
        assert_eq!(verify(b"?", "x", b"", &signature), Err(StatementError::WrongKey));
    }
}
