//! Private keys at rest: AES-256-GCM under a data key of their own, which the key-encryption key wraps.
//!
//! The label (whose key it is) is authenticated with the ciphertext: a file that was moved to another
//! cluster, type or generation does not open. The wrapped data key lies inside the blob, so whoever has a
//! copy of it and the key-encryption key has the private key: destroying one means destroying every copy.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{AuthorityType, ClusterName, SpkiPin, authority::KeyKind};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hmac,
};
use zeroize::Zeroizing;

use crate::key::random;

/// Blob: magic with version, KEK id, nonce, wrapped data key and its tag, nonce, ciphertext and its tag.
const MAGIC: [u8; 8] = *b"CRSLKEY1";
const KEK_ID_LEN: usize = 8;
const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
const KEY_LEN: usize = 32;
const WRAPPED_LEN: usize = NONCE_LEN + KEY_LEN + TAG_LEN;
const HEAD_LEN: usize = MAGIC.len() + KEK_ID_LEN + WRAPPED_LEN;

/// Why a sealed key did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key-encryption key has the wrong form.
    #[error("a key-encryption key is 32 bytes: raw, as 64 hexadecimal digits, or in base64")]
    MalformedKek,
    /// The file is not a sealed key.
    #[error("not a sealed key of a version that this program reads")]
    Malformed,
    /// Sealed under another key-encryption key.
    #[error("sealed under another key-encryption key; give the one that `init` used (`--kek`)")]
    WrongKek,
    /// Changed, cut off, or sealed for another label.
    #[error("the sealed key of {label} was changed or belongs to another key; restore it from a backup")]
    Tampered {
        /// What it was opened as.
        label: String,
    },
}

/// The key-encryption key: 32 bytes from a file, the environment or a hardware module.
pub struct Kek {
    key: Zeroizing<[u8; KEY_LEN]>,
}

impl Kek {
    /// Takes the 32 bytes.
    pub fn from_bytes(key: [u8; KEY_LEN]) -> Self {
        Self {
            key: Zeroizing::new(key),
        }
    }

    /// Makes a fresh one.
    pub fn generate() -> Self {
        Self::from_bytes(random())
    }

    /// Reads 32 raw bytes, or their text in hexadecimal or base64 with or without a line end.
    pub fn parse(content: &[u8]) -> Result<Self, SealError> {
        if let Ok(raw) = content.try_into() {
            return Ok(Self::from_bytes(raw));
        }
        let text = std::str::from_utf8(content)
            .map_err(|_| SealError::MalformedKek)?
            .trim();
        let bytes = Zeroizing::new(match text.len() {
            64 => hex(text).ok_or(SealError::MalformedKek)?,
            _ => STANDARD.decode(text).map_err(|_| SealError::MalformedKek)?,
        });
        bytes
            .as_slice()
            .try_into()
            .map(Self::from_bytes)
            .map_err(|_| SealError::MalformedKek)
    }

    /// The text for a 0600 file.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.key.as_slice()))
    }

    /// Tells a wrong key from a damaged file; says nothing about the key.
    fn id(&self) -> [u8; KEK_ID_LEN] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.key.as_slice());
        let tag = hmac::sign(&key, b"carousel key-encryption key id");
        tag.as_ref()[..KEK_ID_LEN]
            .try_into()
            .expect("an HMAC-SHA-256 has 32 bytes")
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kek(not shown)")
    }
}

/// Whose private key it is; authenticated with the ciphertext.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Label {
    /// A generation of an authority.
    Authority {
        /// The cluster.
        cluster: ClusterName,
        /// The authority type.
        authority_type: AuthorityType,
        /// What it signs with.
        kind: KeyKind,
        /// Its generation.
        generation: u32,
        /// The pin of its public half.
        spki: SpkiPin,
    },
    /// The key that signs trust bundles.
    BundleKey {
        /// The cluster.
        cluster: ClusterName,
        /// The pin of its public half.
        spki: SpkiPin,
    },
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority {
                cluster,
                authority_type,
                kind,
                generation,
                spki,
            } => {
                write!(
                    f,
                    "authority {cluster} {authority_type} {} {generation} {spki}",
                    kind.as_str()
                )
            }
            Self::BundleKey { cluster, spki } => write!(f, "bundle key {cluster} {spki}"),
        }
    }
}

/// Seals a private key (PKCS#8, DER). Each call makes a data key of its own, so no nonce ever repeats
/// under one key.
pub fn seal(kek: &Kek, label: &Label, private_key: &[u8]) -> Vec<u8> {
    let aad = label.to_string();
    let data_key: Zeroizing<[u8; KEY_LEN]> = Zeroizing::new(random());
    let mut blob = Vec::with_capacity(HEAD_LEN + NONCE_LEN + private_key.len() + TAG_LEN);
    blob.extend_from_slice(&MAGIC);
    blob.extend_from_slice(&kek.id());
    encrypt(&kek.key, &aad, data_key.as_slice(), &mut blob);
    encrypt(&data_key, &aad, private_key, &mut blob);
    blob
}

/// Opens what [`seal`] made, with the same key-encryption key and the same label.
pub fn unseal(kek: &Kek, label: &Label, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let rest = blob.strip_prefix(&MAGIC).ok_or(SealError::Malformed)?;
    let (kek_id, rest) = rest.split_at_checked(KEK_ID_LEN).ok_or(SealError::Malformed)?;
    let (wrapped, sealed) = rest.split_at_checked(WRAPPED_LEN).ok_or(SealError::Malformed)?;
    if kek_id != kek.id() {
        return Err(SealError::WrongKek);
    }
    let aad = label.to_string();
    let tampered = || SealError::Tampered { label: aad.clone() };
    let data_key = decrypt(&kek.key, &aad, wrapped).ok_or_else(tampered)?;
    let data_key: Zeroizing<[u8; KEY_LEN]> =
        Zeroizing::new(data_key.as_slice().try_into().map_err(|_| tampered())?);
    decrypt(&data_key, &aad, sealed).ok_or_else(tampered)
}

fn cipher(key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("an AES-256 key has 32 bytes"))
}

/// Appends nonce, ciphertext and tag.
fn encrypt(key: &[u8; KEY_LEN], aad: &str, plain: &[u8], out: &mut Vec<u8>) {
    let nonce: [u8; NONCE_LEN] = random();
    let mut buffer = Zeroizing::new(plain.to_vec());
    let tag = cipher(key)
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(aad),
            buffer.as_mut_slice(),
        )
        .expect("a private key is shorter than AES-GCM's limit of 64 GiB");
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&buffer);
    out.extend_from_slice(tag.as_ref());
}

fn decrypt(key: &[u8; KEY_LEN], aad: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
    let mut buffer = Zeroizing::new(body.to_vec());
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let plain_len = cipher(key)
        .open_in_place(nonce, Aad::from(aad), buffer.as_mut_slice())
        .ok()?
        .len();
    buffer.truncate(plain_len);
    Some(buffer)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KeyPair, testing::CLUSTER};

    fn label(generation: u32) -> Label {
        Label::Authority {
            cluster: CLUSTER.parse().unwrap(),
            authority_type: AuthorityType::Host,
            kind: KeyKind::Tls,
            generation,
            spki: SpkiPin([7; 32]),
        }
    }

    #[test]
    fn a_sealed_key_opens_with_its_kek_and_label_and_differs_each_time() {
        let (kek, key) = (Kek::generate(), KeyPair::generate());
        let blob = seal(&kek, &label(1), &key.to_pkcs8_der());
        let opened = unseal(&kek, &label(1), &blob).unwrap();
        assert_eq!(
            KeyPair::from_pkcs8_der(&opened).unwrap().spki_pin(),
            key.spki_pin()
        );
        assert_ne!(blob, seal(&kek, &label(1), &key.to_pkcs8_der()));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let kek = Kek::generate();
        let blob = seal(&kek, &label(1), b"a private key");
        for at in 0..blob.len() {
            let mut changed = blob.clone();
            changed[at] ^= 0x40;
            assert!(unseal(&kek, &label(1), &changed).is_err(), "byte {at}");
            assert!(unseal(&kek, &label(1), &blob[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn another_kek_and_another_label_are_told_apart() {
        let kek = Kek::generate();
        let blob = seal(&kek, &label(1), b"a private key");
        assert_eq!(
            unseal(&Kek::generate(), &label(1), &blob).unwrap_err(),
            SealError::WrongKek
        );
        assert!(matches!(
            unseal(&kek, &label(2), &blob),
            Err(SealError::Tampered { .. })
        ));
        let bundle = Label::BundleKey {
            cluster: CLUSTER.parse().unwrap(),
            spki: SpkiPin([7; 32]),
        };
        assert!(matches!(
            unseal(&kek, &bundle, &blob),
            Err(SealError::Tampered { .. })
        ));
        assert_eq!(
            unseal(&kek, &label(1), b"hello").unwrap_err(),
            SealError::Malformed
        );
    }

    #[test]
    fn a_kek_reads_from_raw_bytes_hexadecimal_and_base64_and_never_shows() {
        let kek = Kek::from_bytes([0xab; 32]);
        let blob = seal(&kek, &label(1), b"k");
        for content in [
            vec![0xab; 32],
            "ab".repeat(32).into_bytes(),
            format!("{}\n", *kek.to_base64()).into_bytes(),
        ] {
            assert!(unseal(&Kek::parse(&content).unwrap(), &label(1), &blob).is_ok());
        }
        assert_eq!(Kek::parse(b"short").unwrap_err(), SealError::MalformedKek);
        assert_eq!(format!("{kek:?}"), "Kek(not shown)");
    }
}
