//! Trust bundles: signed documents that say whom to trust, verified before they are parsed.
//!
//! Trust is installed from nothing else. Whoever holds an old CA key can build a chain that a lagging
//! node still accepts, but not a bundle: the bundle key is another key, pinned when the node joined.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    AuthorityType, ClusterName, SpkiPin, Timestamp,
    authority::KeyKind,
    phase::Generation,
    trust::{AuthorityStatus, Bundle, BundleAuthority, KeyReplacement, SignedBundle},
};
use rustls_pki_types::CertificateDer;

use crate::{
    authority::CaCert,
    inspect::CertificateError,
    key::{KeyPair, PublicKey},
};

/// The most that a document may weigh, in bytes: a deny list of a few thousand entries.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
/// The most replacements of the bundle key that are followed.
pub const MAX_REPLACEMENTS: usize = 64;

/// Why a bundle is not installed. What is installed already stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Larger than any honest bundle.
    #[error("the trust bundle is too large: {bytes} bytes and {replacements} key replacements")]
    TooLarge {
        /// Bytes of the document.
        bytes: usize,
        /// Replacement documents.
        replacements: usize,
    },
    /// Not signed by the pinned key or a successor that it vouched for.
    #[error(
        "the trust bundle is signed by {signed_by}, not by the pinned bundle key {pinned} or a successor of it; compare the pin with the cluster's `bundle_pin`"
    )]
    WrongKey {
        /// The key that it says signed it.
        signed_by: SpkiPin,
        /// The key that was expected.
        pinned: SpkiPin,
    },
    /// A key that is not P-256, or not the one that its pin names.
    #[error("a key in the trust bundle is malformed or does not have the pin that it is given")]
    MalformedKey,
    /// A replacement document that one of its two keys did not sign.
    #[error("the replacement of the bundle key {old} is not signed by both keys")]
    BadReplacement {
        /// The key that it replaces.
        old: SpkiPin,
    },
    /// Changed, or signed by another key.
    #[error("the trust bundle's signature does not verify; it was changed on its way")]
    BadSignature,
    /// Signed, but not a document that this version reads.
    #[error("the trust bundle is signed but cannot be read; is this program older than the control plane?")]
    Malformed,
    /// Another cluster's.
    #[error("the trust bundle belongs to the cluster {found}, not to {expected}")]
    OtherCluster {
        /// Whose it is.
        found: ClusterName,
        /// Whose was wanted.
        expected: ClusterName,
    },
    /// Of another authority type.
    #[error("the trust bundle is of type {found}, asked for was {expected}")]
    OtherType {
        /// What it is.
        found: AuthorityType,
        /// What was wanted.
        expected: AuthorityType,
    },
    /// Too old to be installed.
    #[error("the trust bundle expired {expired}; is the control plane's signer down, or this clock wrong?")]
    Expired {
        /// When.
        expired: Timestamp,
    },
    /// It lists an authority whose certificate is broken.
    #[error("the trust bundle's certificate of {authority} cannot be used")]
    Authority {
        /// Which authority.
        authority: SpkiPin,
        /// What is wrong with its certificate.
        #[source]
        source: CertificateError,
    },
    /// It lists an authority under a pin that is not its certificate's, or twice.
    #[error("the trust bundle lists {authority} with another key, or twice")]
    WrongAuthority {
        /// Which authority.
        authority: SpkiPin,
    },
    /// Nobody would be trusted.
    #[error("the trust bundle names no active authority")]
    NoActive,
}

/// Signs a bundle. `replacements` are all documents by which the bundle key was replaced, oldest first.
pub fn sign(bundle: &Bundle, key: &KeyPair, replacements: Vec<KeyReplacement>) -> SignedBundle {
    let document = serde_json::to_string(bundle).expect("a bundle has string keys only and can be written");
    let signature = STANDARD.encode(key.sign_der(document.as_bytes()));
    let (pin, public_key) = (key.spki_pin(), key.public().to_base64());
    SignedBundle {
        document,
        signature,
        key: pin,
        public_key,
        replacements,
    }
}

/// Makes the document that replaces the bundle key `old` by `new`: signed by both, so that neither a
/// thief of the old key alone nor a stranger can make one that nodes follow.
pub fn replace_key(old: &KeyPair, new: &KeyPair) -> KeyReplacement {
    let message = [old.spki_der(), new.spki_der()].concat();
    KeyReplacement {
        old_key: old.public().to_base64(),
        new_key: new.public().to_base64(),
        by_old: STANDARD.encode(old.sign_der(&message)),
        by_new: STANDARD.encode(new.sign_der(&message)),
    }
}

/// Verifies a bundle by the pinned bundle key, following replacements, and returns its content.
///
/// Signature first, then content: an unsigned document is never parsed. The caller still has to ignore
/// a revision lower than the one it installed.
pub fn verify(
    signed: &SignedBundle,
    pinned: &SpkiPin,
    now: Timestamp,
    cluster: Option<&ClusterName>,
    expected_type: AuthorityType,
) -> Result<Bundle, BundleError> {
    let bundle = verify_unexpired(signed, pinned, cluster, expected_type)?;
    if bundle.expires <= now {
        return Err(BundleError::Expired {
            expired: bundle.expires,
        });
    }
    Ok(bundle)
}

/// The same without the expiry: for a bundle that was installed already (an installed one stays) and
/// for the audit.
pub fn verify_unexpired(
    signed: &SignedBundle,
    pinned: &SpkiPin,
    cluster: Option<&ClusterName>,
    expected_type: AuthorityType,
) -> Result<Bundle, BundleError> {
    let (bytes, replacements) = (signed.document.len(), signed.replacements.len());
    if bytes > MAX_DOCUMENT_BYTES || replacements > MAX_REPLACEMENTS {
        return Err(BundleError::TooLarge { bytes, replacements });
    }
    let key = public_key(&signed.public_key)?;
    if key.pin() != signed.key {
        return Err(BundleError::MalformedKey);
    }
    if successor_of(*pinned, &signed.replacements)? != key.pin() {
        return Err(BundleError::WrongKey {
            signed_by: signed.key,
            pinned: *pinned,
        });
    }
    let signature = STANDARD
        .decode(&signed.signature)
        .map_err(|_| BundleError::BadSignature)?;
    if !key.verifies(signed.document.as_bytes(), &signature) {
        return Err(BundleError::BadSignature);
    }
    let bundle: Bundle = serde_json::from_str(&signed.document).map_err(|_| BundleError::Malformed)?;
    content(&bundle, cluster, expected_type)?;
    Ok(bundle)
}

/// The key that the pinned one became. Documents before the pinned key's time are passed over: a node
/// that joined after a replacement pins the newer key.
fn successor_of(pinned: SpkiPin, replacements: &[KeyReplacement]) -> Result<SpkiPin, BundleError> {
    let mut current = pinned;
    for replacement in replacements {
        let (old, new) = (
            public_key(&replacement.old_key)?,
            public_key(&replacement.new_key)?,
        );
        if old.pin() != current {
            continue;
        }
        let message = [old.spki_der(), new.spki_der()].concat();
        let by = |key: &PublicKey, signature: &str| {
            STANDARD
                .decode(signature)
                .is_ok_and(|s| key.verifies(&message, &s))
        };
        if !by(&old, &replacement.by_old) || !by(&new, &replacement.by_new) {
            return Err(BundleError::BadReplacement { old: old.pin() });
        }
        current = new.pin();
    }
    Ok(current)
}

fn public_key(base64: &str) -> Result<PublicKey, BundleError> {
    PublicKey::from_base64(base64).map_err(|_| BundleError::MalformedKey)
}

fn content(
    bundle: &Bundle,
    cluster: Option<&ClusterName>,
    expected_type: AuthorityType,
) -> Result<(), BundleError> {
    if let Some(expected) = cluster.filter(|c| **c != bundle.cluster) {
        let found = bundle.cluster.clone();
        return Err(BundleError::OtherCluster {
            found,
            expected: expected.clone(),
        });
    }
    if bundle.authority_type != expected_type {
        return Err(BundleError::OtherType {
            found: bundle.authority_type,
            expected: expected_type,
        });
    }
    let mut seen = BTreeSet::new();
    for listed in &bundle.authorities {
        let authority = listed.id;
        let pin = match listed.kind {
            KeyKind::Tls => CaCert::from_base64(&listed.certificate)
                .map(|ca| ca.pin())
                .map_err(|source| BundleError::Authority { authority, source })?,
            KeyKind::Ssh | KeyKind::Jwt => PublicKey::from_base64(&listed.public_key)
                .map(|key| key.pin())
                .map_err(|_| BundleError::WrongAuthority { authority })?,
        };
        if pin != authority || !seen.insert(authority) {
            return Err(BundleError::WrongAuthority { authority });
        }
    }
    let has_certificates = expected_type.row().keys.contains(&KeyKind::Tls);
    if has_certificates && bundle.authority(Generation::Active).is_none() {
        return Err(BundleError::NoActive);
    }
    Ok(())
}

/// The CA certificates that a verified bundle says to trust: active and prepared, in its order.
pub fn anchors(bundle: &Bundle) -> Vec<CertificateDer<'static>> {
    authorities(bundle).map(|ca| ca.der().clone()).collect()
}

/// The same, checked and with their pins.
pub fn authorities(bundle: &Bundle) -> impl Iterator<Item = CaCert> {
    bundle
        .authorities
        .iter()
        .filter(|a| a.kind == KeyKind::Tls && a.status != AuthorityStatus::Retired)
        .filter_map(|a| CaCert::from_base64(&a.certificate).ok())
}

/// The public keys of a kind without certificates that a verified bundle says to trust, in its order.
pub fn public_keys(bundle: &Bundle, kind: KeyKind) -> impl Iterator<Item = (&BundleAuthority, PublicKey)> {
    let of_kind = bundle.authorities.iter().filter(move |a| a.kind == kind);
    of_kind.filter_map(|a| Some((a, PublicKey::from_base64(&a.public_key).ok()?)))
}

#[cfg(test)]
mod tests;
