//! Our keys in the shapes that ssh-key asks for, and its signatures in ours.

use signature::{Error, Signer};
use ssh_key::{
    Algorithm, Certificate, EcdsaCurve, Signature,
    public::{EcdsaPublicKey, KeyData},
};

use crate::{adapter::Signing, der, key::PublicKey};

/// What authorities sign with.
const ALGORITHM: Algorithm = Algorithm::Ecdsa {
    curve: EcdsaCurve::NistP256,
};

impl From<&Signing<'_>> for KeyData {
    fn from(of: &Signing<'_>) -> Self {
        key_data(of.public_key())
    }
}

impl Signer<Signature> for Signing<'_> {
    fn try_sign(&self, message: &[u8]) -> Result<Signature, Error> {
        let raw = self.raw(message).ok_or_else(Error::new)?;
        let mut data = Vec::with_capacity(74);
        raw.chunks_exact(32).for_each(|half| mpint(half, &mut data));
        Signature::new(ALGORITHM, data).map_err(|_| Error::new())
    }
}

/// An authority's key in OpenSSH's form.
pub(super) fn key_data(key: &PublicKey) -> KeyData {
    EcdsaPublicKey::from_sec1_bytes(key.point())
        .map(KeyData::Ecdsa)
        .expect("an uncompressed P-256 point is what it reads")
}

/// The bytes of a certificate that are signed: all but the signature at its end.
pub(super) fn signed_bytes(certificate: &Certificate) -> Option<Vec<u8>> {
    let mut bytes = certificate.to_bytes().ok()?;
    let signature = certificate.signature();
    // A string of two strings: the algorithm and the data.
    let length = 4 + 4 + signature.algorithm().as_str().len() + 4 + signature.as_bytes().len();
    bytes.truncate(bytes.len().checked_sub(length)?);
    Some(bytes)
}

/// An ECDSA P-256 signature as DER; `None` for any other.
pub(super) fn der_of(signature: &Signature) -> Option<Vec<u8>> {
    if signature.algorithm() != ALGORITHM {
        return None;
    }
    let (r, rest) = take_mpint(signature.as_bytes())?;
    let (s, rest) = take_mpint(rest)?;
    let mut raw = [0; 64];
    raw[..32].copy_from_slice(&r);
    raw[32..].copy_from_slice(&s);
    rest.is_empty().then(|| der::ecdsa_signature(&raw))
}

/// RFC 4251, section 5: a positive number without leading zeros, but for one before a leading one bit.
fn mpint(number: &[u8], out: &mut Vec<u8>) {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let number = &number[first..];
    let pad = number.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = number.len() as u32 + u32::from(pad);
    out.extend_from_slice(&length.to_be_bytes());
    if pad {
        out.push(0);
    }
    out.extend_from_slice(number);
}

fn take_mpint(bytes: &[u8]) -> Option<([u8; 32], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (number, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    let number = number.strip_prefix(&[0]).unwrap_or(number);
    let mut half = [0; 32];
    half[32_usize.checked_sub(number.len())?..].copy_from_slice(number);
    Some((half, rest))
}
