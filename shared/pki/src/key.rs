//! Keys: ECDSA P-256 on ring, and the seam behind which a hardware key fits.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{SpkiPin, command::KeyRequest};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
        KeyPair as _, UnparsedPublicKey,
    },
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::Zeroizing;

use crate::{der, pem};

/// Everything of a P-256 SubjectPublicKeyInfo (RFC 5480) before the uncompressed point.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The length of such a SubjectPublicKeyInfo.
const SPKI_LEN: usize = 91;
/// The length of an uncompressed point: 04, X, Y.
const POINT_LEN: usize = 65;

/// Why bytes are not a private key that this product uses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text has no private key in it.
    #[error("no PKCS#8 private key found; expected a PEM block `PRIVATE KEY`")]
    NoKey,
    /// There is a key, but not the kind that is used here.
    #[error("the private key is not an ECDSA P-256 key in PKCS#8 that holds its public half")]
    NotP256,
    /// A public key of another algorithm or form.
    #[error("the public key is not an uncompressed ECDSA P-256 key")]
    PublicNotP256,
}

/// Why a signature could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key store {storage} did not sign: {why}")]
pub struct SignError {
    /// `software` or `pkcs11`.
    pub storage: &'static str,
    /// What it said, without secrets.
    pub why: String,
}

/// A key that can sign as an authority. Software now; a PKCS#11 session gives the same three things.
pub trait CaSigner: Send + Sync {
    /// The public key.
    fn public_key(&self) -> &PublicKey;
    /// ECDSA over the SHA-256 of `message`, as r||s: the form that hardware and JWT use.
    ///
    /// The signature verifies with [`Self::public_key`]. A key in this process holds its two halves against each other
    /// when it is read; one that is elsewhere looks at each answer ([`PublicKey::verifies_raw`]), because neither its
    /// store nor the way to it is ours.
    fn sign_raw(&self, message: &[u8]) -> Result<[u8; 64], SignError>;
    /// Where the private half is kept, for `status`: `software` or `pkcs11`.
    fn storage(&self) -> &'static str;
}

/// A P-256 public key: its SubjectPublicKeyInfo is always the same 26 bytes and a point.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    spki: [u8; SPKI_LEN],
}

impl PublicKey {
    /// Reads a DER SubjectPublicKeyInfo; anything but an uncompressed P-256 key is refused.
    ///
    /// Whether the point is on the curve is found when a signature is verified, which always happens
    /// before a key is certified.
    pub fn from_spki_der(bytes: &[u8]) -> Result<Self, KeyError> {
        let spki: [u8; SPKI_LEN] = bytes.try_into().map_err(|_| KeyError::PublicNotP256)?;
        let fits = spki.starts_with(&SPKI_PREFIX) && spki[SPKI_PREFIX.len()] == 4;
        if fits {
            Ok(Self { spki })
        } else {
            Err(KeyError::PublicNotP256)
        }
    }

    /// Reads the base64 form that events carry.
    pub fn from_base64(text: &str) -> Result<Self, KeyError> {
        Self::from_spki_der(&STANDARD.decode(text).map_err(|_| KeyError::PublicNotP256)?)
    }

    /// Reads an uncompressed point (SEC 1, section 2.3.3).
    pub fn from_sec1(point: &[u8]) -> Result<Self, KeyError> {
        let point: &[u8; POINT_LEN] = point.try_into().map_err(|_| KeyError::PublicNotP256)?;
        if point[0] == 4 {
            Ok(Self::from_point(point))
        } else {
            Err(KeyError::PublicNotP256)
        }
    }

    fn from_point(point: &[u8; POINT_LEN]) -> Self {
        let mut spki = [0; SPKI_LEN];
        spki[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
        spki[SPKI_PREFIX.len()..].copy_from_slice(point);
        Self { spki }
    }

    /// The SubjectPublicKeyInfo, DER.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The same in base64, as events carry it.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.spki)
    }

    /// SHA-256 of the SubjectPublicKeyInfo: the key's name.
    pub fn pin(&self) -> SpkiPin {
        SpkiPin(sha256(&self.spki))
    }

    /// The uncompressed point (SEC 1, section 2.3.3).
    pub fn point(&self) -> &[u8] {
        &self.spki[SPKI_PREFIX.len()..]
    }

    /// Is this an ECDSA/SHA-256 signature (ASN.1 DER) of `message` by this key?
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.point())
            .verify(message, signature)
            .is_ok()
    }

    /// The same of a signature as r||s.
    #[must_use]
    pub fn verifies_raw(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.point())
            .verify(message, signature)
            .is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.pin())
    }
}

/// A P-256 key pair in software. Its encoding is wiped when it is dropped (ring's own copy is not:
/// ring offers no way, so core dumps are switched off as well).
pub struct KeyPair {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl KeyPair {
    /// Makes a fresh key.
    ///
    /// # Panics
    /// If the operating system gives no random bytes: nothing here could go on safely.
    pub fn generate() -> Self {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .expect("the operating system gives random bytes");
        Self::from_pkcs8_der(document.as_ref()).expect("ring reads the keys that it makes")
    }

    /// Reads PKCS#8 (RFC 5208), DER.
    pub fn from_pkcs8_der(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new())
            .map_err(|_| KeyError::NotP256)?;
        let point = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| KeyError::NotP256)?;
        let public = PublicKey::from_point(point);
        Ok(Self {
            pkcs8: Zeroizing::new(pkcs8.to_vec()),
            pair,
            public,
        })
    }

    /// Reads the first `PRIVATE KEY` block of a PEM text.
    pub fn from_pkcs8_pem(text: &str) -> Result<Self, KeyError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(|_| KeyError::NoKey)?;
        Self::from_pkcs8_der(key.secret_pkcs8_der())
    }

    /// The private key as PEM, for a 0600 file.
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(pem::encode("PRIVATE KEY", &self.pkcs8))
    }

    /// The private key as PKCS#8, DER.
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        self.pkcs8.clone()
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The public half's SubjectPublicKeyInfo, DER.
    pub fn spki_der(&self) -> &[u8] {
        self.public.spki_der()
    }

    /// SHA-256 of the SubjectPublicKeyInfo.
    pub fn spki_pin(&self) -> SpkiPin {
        self.public.pin()
    }

    /// The public half as a request that needs no signature to be believed: for keys that this very
    /// process made (genesis, the control plane's own certificates).
    pub fn key_request(&self) -> KeyRequest {
        KeyRequest {
            spki: self.spki_pin(),
            public_key: self.public.to_base64(),
        }
    }

    /// ECDSA over the SHA-256 of `message`, ASN.1 DER.
    pub fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        der::ecdsa_signature(&self.raw_signature(message))
    }

    fn raw_signature(&self, message: &[u8]) -> [u8; 64] {
        let signature = self
            .pair
            .sign(&SystemRandom::new(), message)
            .expect("the operating system gives random bytes for the nonce");
        signature
            .as_ref()
            .try_into()
            .expect("a fixed P-256 signature is 64 bytes long")
    }
}

impl CaSigner for KeyPair {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign_raw(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        Ok(self.raw_signature(message))
    }

    fn storage(&self) -> &'static str {
        "software"
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPair({}, private half not shown)", self.spki_pin())
    }
}

/// SHA-256 (FIPS 180-4).
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes)
        .as_ref()
        .try_into()
        .expect("SHA-256 gives 32 bytes")
}

/// Fresh random bytes of the operating system: serials, nonces, tokens.
///
/// # Panics
/// If the operating system gives none.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_pem_and_der_and_shows_nothing_private() {
        let key = KeyPair::generate();
        let again = KeyPair::from_pkcs8_pem(&key.to_pem()).unwrap();
        assert_eq!(again.spki_pin(), key.spki_pin());
        assert_eq!(
            KeyPair::from_pkcs8_der(&key.to_pkcs8_der()).unwrap().spki_der(),
            key.spki_der()
        );
        let shown = format!("{key:?}");
        assert!(shown.contains("not shown") && shown.len() < 130, "{shown}");
    }

    #[test]
    fn what_is_not_a_p256_key_is_refused_in_words() {
        assert_eq!(KeyPair::from_pkcs8_pem("hello").unwrap_err(), KeyError::NoKey);
        assert_eq!(
            KeyPair::from_pkcs8_der(&[0x30, 0]).unwrap_err(),
            KeyError::NotP256
        );
        let mut spki = KeyPair::generate().spki_der().to_vec();
        spki[26] = 3; // a compressed point
        assert_eq!(
            PublicKey::from_spki_der(&spki).unwrap_err(),
            KeyError::PublicNotP256
        );
        assert_eq!(PublicKey::from_base64("!").unwrap_err(), KeyError::PublicNotP256);
    }

    #[test]
    fn a_signature_verifies_and_a_changed_one_does_not() {
        let key = KeyPair::generate();
        // Many, because the DER form of r and s depends on their leading bits.
        for n in 0..64_u8 {
            let signature = key.sign_der(&[n]);
            assert!(key.public().verifies(&[n], &signature));
            assert!(!key.public().verifies(&[n, 0], &signature));
            let raw = key.raw_signature(&[n]);
            assert!(key.public().verifies_raw(&[n], &raw));
            assert!(!key.public().verifies_raw(&[n, 0], &raw));
        }
        assert!(!KeyPair::generate().public().verifies(b"x", &key.sign_der(b"x")));
    }
}
