//! Keys that never leave a PKCS#11 token (a hardware security module): made in it, used through it, destroyed in it.
//!
//! A key's label says what it is for; the private half is neither readable nor extractable. Whatever fails closes the
//! module, and the next use opens it again: a token that was away is used as soon as it is back.

use std::sync::Arc;

use cryptoki::{
    error::Error,
    mechanism::Mechanism,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use domain::{AuthorityId, AuthorityType, ClusterName, RotationId, SpkiPin, authority::KeyKind};
use pki::{CaSigner, PublicKey, SignError, random, sha256};
use uuid::Uuid;

use super::{KeyPurpose, TokenUri};
use library::Seat;
use token::Token;

pub use library::Library;
pub use secret::derived;
pub use token::HardwareError;

mod library;
mod secret;
mod token;

/// What a key of ours is called begins so.
const LABEL: &str = "carousel";
/// A key without a rotation was made by `init`.
const NO_ROTATION: Uuid = Uuid::nil();
/// `secp256r1` (RFC 5480, section 2.1.1.1), DER.
const P256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// A token as a store of keys.
pub struct HardwareStore {
    inner: Arc<Inner>,
}

struct Inner {
    token: Token,
    cluster: ClusterName,
    /// What the labels of this cluster's keys begin with: two clusters may bear one name, and share a token.
    prefix: String,
}

impl HardwareStore {
    /// A store in this token behind the library that it names, for the cluster with this bundle key. Nothing is opened
    /// yet.
    pub fn new(uri: TokenUri, library: Arc<Library>, cluster: ClusterName, bundle_key: &SpkiPin) -> Self {
        let digits: String = bundle_key.0[..4]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            inner: Arc::new(Inner {
                prefix: format!("{LABEL}/{cluster}/{digits}/"),
                token: Token::new(uri, library),
                cluster,
            }),
        }
    }

    /// Where it is.
    pub fn uri(&self) -> &TokenUri {
        &self.inner.token.uri
    }

    /// Makes a key in the token.
    ///
    /// # Errors
    /// [`HardwareError`]. A key that was made while the answer was lost is a stray one.
    pub fn make(&self, purpose: &KeyPurpose) -> Result<(AuthorityId, Arc<dyn CaSigner>), HardwareError> {
        let rotation = purpose.rotation.map_or(NO_ROTATION, |rotation| rotation.0);
        let id = [*rotation.as_bytes(), random::<16>()].concat();
        let label = self.inner.label(purpose).into_bytes();
        let public = vec![
            Attribute::Token(true),
            Attribute::Private(false),
            Attribute::KeyType(KeyType::EC),
            Attribute::EcParams(P256.into()),
            Attribute::Verify(true),
            Attribute::Id(id.clone()),
            Attribute::Label(label.clone()),
        ];
        let private = vec![
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Id(id.clone()),
            Attribute::Label(label),
        ];
        let point = self.inner.token.once(|seat| {
            let made = seat
                .session
                .generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private)?;
            point_of(&seat.session, made.0)
        })?;
        let public = self.inner.public_key(point.as_deref())?;
        let found = public.pin();
        Ok((found, self.inner.clone().signer(public, id)))
    }

    /// The key of an authority, if the token holds it.
    ///
    /// # Errors
    /// [`HardwareError`].
    pub fn signer(&self, wanted: &AuthorityId) -> Result<Option<Arc<dyn CaSigner>>, HardwareError> {
        let found = self.inner.look_twice(|| {
            let mut entries = self.inner.entries()?.into_iter();
            Ok(entries.find(|entry| entry.public.pin() == *wanted))
        })?;
        Ok(found.map(|entry| self.inner.clone().signer(entry.public, entry.id)))
    }

    /// The keys of this cluster in the token.
    ///
    /// # Errors
    /// [`HardwareError`].
    pub fn keys(&self) -> Result<Vec<(AuthorityId, KeyPurpose)>, HardwareError> {
        let entries = self.inner.entries()?.into_iter();
        Ok(entries.map(|entry| (entry.public.pin(), entry.purpose)).collect())
    }

    /// Destroys a key, the private half first; says whether it was there. One that is not is destroyed already.
    ///
    /// # Errors
    /// [`HardwareError`]: it is not known to be gone.
    pub fn destroy(&self, wanted: &AuthorityId) -> Result<bool, HardwareError> {
        let found = self.inner.look_twice(|| {
            let mut entries = self.inner.entries()?;
            entries.retain(|entry| entry.public.pin() == *wanted);
            Ok((!entries.is_empty()).then_some(entries))
        })?;
        let Some(entries) = found else {
            return Ok(false);
        };
        for entry in entries {
            self.inner.token.again(|seat| {
                for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
                    for object in find(&seat.session, class, &entry.id)? {
                        seat.session.destroy_object(object)?;
                    }
                }
                Ok(())
            })?;
            // Other sessions remember where it was.
            self.inner.token.library.end(None);
        }
        Ok(true)
    }
}

/// A key of ours in the token.
struct Entry {
    id: Vec<u8>,
    purpose: KeyPurpose,
    public: PublicKey,
}

impl Inner {
    fn signer(self: Arc<Self>, public: PublicKey, id: Vec<u8>) -> Arc<dyn CaSigner> {
        Arc::new(HardwareKey {
            store: self,
            public,
            id,
        })
    }

    fn public_key(&self, point: Option<&[u8]>) -> Result<PublicKey, HardwareError> {
        let point = point.ok_or_else(|| HardwareError::NoKey(self.token.uri.token.clone()))?;
        PublicKey::from_sec1(point).map_err(|error| HardwareError::Failed {
            token: self.token.uri.token.clone(),
            why: error.to_string(),
        })
    }

    /// Looks for something, and once more with the library opened anew before it is said not to be there: a token that went
    /// away, or came back, under an open library looks empty to it.
    fn look_twice<T>(
        &self,
        look: impl Fn() -> Result<Option<T>, HardwareError>,
    ) -> Result<Option<T>, HardwareError> {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        self.token.library.end(None);
        look()
    }

    fn entries(&self) -> Result<Vec<Entry>, HardwareError> {
        let found = self.token.again(|seat| {
            let ours = [
                Attribute::Class(ObjectClass::PUBLIC_KEY),
                Attribute::KeyType(KeyType::EC),
                Attribute::Token(true),
            ];
            let mut found = vec![];
            for object in seat.session.find_objects(&ours)? {
                let wanted = [AttributeType::Id, AttributeType::Label];
                let (mut id, mut label) = (vec![], vec![]);
                for attribute in seat.session.get_attributes(object, &wanted)? {
                    match attribute {
                        Attribute::Id(bytes) => id = bytes,
                        Attribute::Label(bytes) => label = bytes,
                        _ => {}
                    }
                }
                if let Some(purpose) = self.purpose(&label, &id) {
                    found.push((id, purpose, point_of(&seat.session, object)?));
                }
            }
            Ok(found)
        })?;
        let entry = |(id, purpose, point): (_, _, Option<Vec<u8>>)| {
            Ok(Entry {
                id,
                purpose,
                public: self.public_key(point.as_deref())?,
            })
        };
        found.into_iter().map(entry).collect()
    }

    /// `carousel/CLUSTER/BUNDLE-KEY/TYPE/KIND/GENERATION`: for whoever looks into the token, and for us after a start.
    fn label(&self, purpose: &KeyPurpose) -> String {
        let (authority_type, kind) = (purpose.authority_type, purpose.kind.as_str());
        format!("{}{authority_type}/{kind}/{}", self.prefix, purpose.generation)
    }

    /// What a key of ours is for, by its label and the first half of its id, which is the rotation.
    fn purpose(&self, label: &[u8], id: &[u8]) -> Option<KeyPurpose> {
        let mut parts = std::str::from_utf8(label)
            .ok()?
            .strip_prefix(&self.prefix)?
            .split('/');
        let authority_type: AuthorityType = parts.next()?.parse().ok()?;
        let kind = parts.next()?;
        let kinds = [KeyKind::Tls, KeyKind::Ssh, KeyKind::Jwt];
        let rotation = Uuid::from_slice(id.get(..16)?).ok()?;
        Some(KeyPurpose {
            cluster: self.cluster.clone(),
            authority_type,
            kind: kinds.into_iter().find(|known| known.as_str() == kind)?,
            generation: parts.next()?.parse().ok()?,
            rotation: (rotation != NO_ROTATION).then_some(RotationId(rotation)),
        })
    }
}

fn find(session: &Session, class: ObjectClass, id: &[u8]) -> Result<Vec<ObjectHandle>, Error> {
    session.find_objects(&[
        Attribute::Class(class),
        Attribute::Token(true),
        Attribute::Id(id.to_vec()),
    ])
}

/// The uncompressed point of a public key, without the OCTET STRING around it that most tokens give.
fn point_of(session: &Session, public: ObjectHandle) -> Result<Option<Vec<u8>>, Error> {
    let found = session.get_attributes(public, &[AttributeType::EcPoint])?;
    Ok(found.into_iter().find_map(|attribute| match attribute {
        Attribute::EcPoint(point) => Some(
            point
                .strip_prefix(&[0x04, 65])
                .map_or(point.clone(), <[u8]>::to_vec),
        ),
        _ => None,
    }))
}

/// A key in the token.
struct HardwareKey {
    store: Arc<Inner>,
    public: PublicKey,
    id: Vec<u8>,
}

impl CaSigner for HardwareKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign_raw(&self, message: &[u8]) -> Result<[u8; 64], SignError> {
        let digest = sha256(message);
        let sign = |seat: &mut Seat| {
            let known = seat.handles.get(&self.id).copied();
            let key = match known {
                Some(key) => Some(key),
                None => find(&seat.session, ObjectClass::PRIVATE_KEY, &self.id)?
                    .into_iter()
                    .next(),
            };
            let Some(key) = key else { return Ok(None) };
            seat.handles.insert(self.id.clone(), key);
            seat.session.sign(&Mechanism::Ecdsa, key, &digest).map(Some)
        };
        let signed = self.store.look_twice(|| self.store.token.again(sign));
        let refused = |error: HardwareError| SignError {
            storage: self.storage(),
            why: crate::service::chain(&error),
        };
        let signature = signed.map_err(refused)?;
        let signature =
            signature.ok_or_else(|| refused(HardwareError::NoKey(self.store.token.uri.token.clone())))?;
        let wrong = |why: String| {
            let token = self.store.token.uri.token.clone();
            refused(HardwareError::Failed { token, why })
        };
        let signature: [u8; 64] = signature
            .try_into()
            .map_err(|other: Vec<u8>| wrong(format!("a signature of {} bytes instead of 64", other.len())))?;
        if self.public.verifies_raw(message, &signature) {
            Ok(signature)
        } else {
            Err(wrong(
                "a signature that does not verify with the key's public half".into(),
            ))
        }
    }

    fn storage(&self) -> &'static str {
        "pkcs11"
    }
}
