//! Tokens on their way: sealed to the key of whoever asked (JWE, RFC 7516), so that a log may carry them and nobody can
//! use one that he reads there.
//!
//! One form alone: compact, ECDH-ES over P-256 (RFC 7518, section 4.6) and A256GCM (section 5.3). Whoever asks makes a key
//! for this one answer and keeps it in memory; what a header says is compared, never followed.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral},
    digest::{Context, SHA256},
    rand::SystemRandom,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::{PublicKey, random};

/// The longest sealed text that is opened: a token of 16 KiB with what it becomes in base64.
const LONGEST: usize = 32 * 1024;
const ALGORITHM: &str = "ECDH-ES";
const ENCRYPTION: &str = "A256GCM";

/// Why a sealed text is not opened, or none is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JweError {
    /// It is no compact JWE of the one form.
    #[error(
        "this is nothing that was sealed here: five parts in base64url, by ECDH-ES and A256GCM, are expected"
    )]
    Form,
    /// It was sealed to another key, or changed.
    #[error("it was sealed to another key, or changed on its way")]
    NotForThisKey,
    /// The key is no point of the curve.
    #[error("the key to seal to is not on the curve P-256")]
    Key,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    enc: String,
    epk: Point,
}

/// The sealer's half of the agreement (RFC 7518, section 4.6.1.1).
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    kty: String,
    crv: String,
    x: String,
    y: String,
}

/// A key for one answer. It is never written down, and opening uses it up.
pub struct Receiver {
    private: EphemeralPrivateKey,
    public: PublicKey,
}

impl Receiver {
    /// Makes a fresh key.
    ///
    /// # Panics
    /// If the operating system gives no random bytes: nothing here could go on safely.
    pub fn generate() -> Self {
        let (private, public) = ephemeral();
        Self { private, public }
    }

    /// What the answer is to be sealed to.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// What was sealed to this key.
    ///
    /// # Errors
    /// [`JweError`]; nothing of the text is in it.
    pub fn open(self, sealed: &str) -> Result<Zeroizing<String>, JweError> {
        let Sealed {
            protected,
            sender,
            nonce,
            text,
        } = read(sealed)?;
        let key = agreed(self.private, &sender).map_err(|_| JweError::Form)?;
        let mut sealed = Zeroizing::new(text);
        let opened = key.open_in_place(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(protected.as_bytes()),
            &mut sealed,
        );
        let opened = opened.map_err(|_| JweError::NotForThisKey)?;
        let text = std::str::from_utf8(opened).map_err(|_| JweError::Form)?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({}, private half not shown)", self.public.pin())
    }
}

/// The parts of a sealed text.
struct Sealed<'a> {
    protected: &'a str,
    sender: PublicKey,
    nonce: [u8; NONCE_LEN],
    /// With the tag behind it.
    text: Vec<u8>,
}

fn read(sealed: &str) -> Result<Sealed<'_>, JweError> {
    if sealed.len() > LONGEST {
        return Err(JweError::Form);
    }
    let parts: Vec<&str> = sealed.split('.').collect();
    // Both agree on the key itself, so that no key is carried: its part is empty.
    let [protected, "", nonce, text, tag] = parts[..] else {
        return Err(JweError::Form);
    };
    let bytes = |part: &str| BASE64URL.decode(part).map_err(|_| JweError::Form);
    let header: Header = serde_json::from_slice(&bytes(protected)?).map_err(|_| JweError::Form)?;
    if (header.alg.as_str(), header.enc.as_str()) != (ALGORITHM, ENCRYPTION) {
        return Err(JweError::Form);
    }
    Ok(Sealed {
        protected,
        sender: header.epk.read().ok_or(JweError::Form)?,
        nonce: bytes(nonce)?.try_into().map_err(|_| JweError::Form)?,
        text: [bytes(text)?, bytes(tag)?].concat(),
    })
}

/// Has it the one form that is sealed here? That is all that anybody else can see.
///
/// # Errors
/// [`JweError::Form`].
pub fn check_form(sealed: &str) -> Result<(), JweError> {
    read(sealed).map(drop)
}

/// Seals a text to the key of a [`Receiver`]: each time by a fresh key, so that the same text is never the same twice.
///
/// # Errors
/// [`JweError::Key`].
///
/// # Panics
/// If the operating system gives no random bytes.
pub fn seal(text: &str, to: &PublicKey) -> Result<String, JweError> {
    let (private, public) = ephemeral();
    let key = agreed(private, to)?;
    let header = Header {
        alg: ALGORITHM.into(),
        enc: ENCRYPTION.into(),
        epk: Point::of(&public),
    };
    let header = serde_json::to_vec(&header).expect("a header is plain data");
    let protected = BASE64URL.encode(header);
    let nonce: [u8; NONCE_LEN] = random();
    let mut sealed = Zeroizing::new(text.as_bytes().to_vec());
    let tag = key
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(protected.as_bytes()),
            &mut sealed,
        )
        .expect("a text is shorter than AES-GCM's limit");
    let part = |bytes: &[u8]| BASE64URL.encode(bytes);
    Ok(format!(
        "{protected}..{}.{}.{}",
        part(&nonce),
        part(&sealed),
        part(tag.as_ref())
    ))
}

fn ephemeral() -> (EphemeralPrivateKey, PublicKey) {
    let private = EphemeralPrivateKey::generate(&ECDH_P256, &SystemRandom::new())
        .expect("the operating system gives random bytes");
    let point = private
        .compute_public_key()
        .expect("a fresh key has a public half");
    let public = PublicKey::from_sec1(point.as_ref()).expect("ring writes uncompressed points");
    (private, public)
}

/// The key that both halves agree on. ring refuses points that are not on the curve.
fn agreed(own: EphemeralPrivateKey, other: &PublicKey) -> Result<LessSafeKey, JweError> {
    let other = UnparsedPublicKey::new(&ECDH_P256, other.point());
    agree_ephemeral(own, &other, |secret| {
        let key = derived(secret, ENCRYPTION, b"", b"", 256);
        let key = UnboundKey::new(&AES_256_GCM, &*key).expect("SHA-256 gives the 32 bytes of the key");
        LessSafeKey::new(key)
    })
    .map_err(|_| JweError::Key)
}

/// One round of the Concat KDF (RFC 7518, section 4.6.2; NIST SP 800-56A): enough for 256 bits.
fn derived(secret: &[u8], algorithm: &str, apu: &[u8], apv: &[u8], bits: u32) -> Zeroizing<[u8; 32]> {
    let mut hash = Context::new(&SHA256);
    hash.update(&1_u32.to_be_bytes());
    hash.update(secret);
    for text in [algorithm.as_bytes(), apu, apv] {
        let length = u32::try_from(text.len()).expect("names are short");
        hash.update(&length.to_be_bytes());
        hash.update(text);
    }
    hash.update(&bits.to_be_bytes());
    let digest = hash.finish();
    Zeroizing::new(digest.as_ref().try_into().expect("SHA-256 gives 32 bytes"))
}

impl Point {
    fn of(key: &PublicKey) -> Self {
        let (x, y) = key.point()[1..].split_at(32);
        Self {
            kty: "EC".into(),
            crv: "P-256".into(),
            x: BASE64URL.encode(x),
            y: BASE64URL.encode(y),
        }
    }

    fn read(&self) -> Option<PublicKey> {
        if (self.kty.as_str(), self.crv.as_str()) != ("EC", "P-256") {
            return None;
        }
        let coordinates = [BASE64URL.decode(&self.x).ok()?, BASE64URL.decode(&self.y).ok()?];
        PublicKey::from_sec1(&[&[4][..], &coordinates.concat()].concat()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 7518, appendix C: the agreed secret, and the key for A128GCM between Alice and Bob.
    #[test]
    fn the_key_is_derived_as_in_the_rfc_s_example() {
        let secret = [
            158, 86, 217, 29, 129, 113, 53, 211, 114, 131, 66, 131, 191, 132, 38, 156, 251, 49, 110, 163,
            218, 128, 106, 72, 246, 218, 167, 121, 140, 254, 144, 196,
        ];
        let key = derived(&secret, "A128GCM", b"Alice", b"Bob", 128);
        assert_eq!(BASE64URL.encode(&key[..16]), "VqqN6vgjbSBcIijNcacQGg");
    }

    #[test]
    fn only_the_key_that_it_was_sealed_to_opens_it() {
        let (one, two) = (Receiver::generate(), Receiver::generate());
        let sealed = seal("eyJ.e30.c2ln", one.public()).unwrap();
        assert_ne!(sealed, seal("eyJ.e30.c2ln", one.public()).unwrap());
        assert!(!sealed.contains("e30") && sealed.matches('.').count() == 4);
        assert_eq!(two.open(&sealed), Err(JweError::NotForThisKey));
        let shown = format!("{one:?}");
        assert!(shown.contains("not shown") && shown.len() < 140, "{shown}");
        assert_eq!(*one.open(&sealed).unwrap(), "eyJ.e30.c2ln");
    }

    #[test]
    fn a_key_off_the_curve_and_another_form_are_refused() {
        let mut point = [7; 65];
        point[0] = 4;
        let off = PublicKey::from_sec1(&point).unwrap();
        assert_eq!(seal("x", &off), Err(JweError::Key));
        let header = |text: &str| BASE64URL.encode(text);
        let epk = r#"{"kty":"EC","crv":"P-256","x":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc","y":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc"}"#;
        for other in [
            r#"{"alg":"none"}"#.to_owned(),
            format!(r#"{{"alg":"dir","enc":"A256GCM","epk":{epk}}}"#),
            format!(r#"{{"alg":"ECDH-ES","enc":"A256GCM","zip":"DEF","epk":{epk}}}"#),
            format!(r#"{{"alg":"ECDH-ES","enc":"A256GCM","epk":{epk}}}"#),
        ] {
            let sealed = format!("{}..AAAAAAAAAAAAAAAA.AA.AAAAAAAAAAAAAAAAAAAAAA", header(&other));
            assert_eq!(Receiver::generate().open(&sealed), Err(JweError::Form), "{other}");
        }
        assert_eq!(Receiver::generate().open(""), Err(JweError::Form));
    }

    proptest! {
        #[test]
        fn whatever_was_changed_is_not_opened(at in 0_usize..10_000, to in "[A-Za-z0-9._-]") {
            let receiver = Receiver::generate();
            let sealed = seal("a token", receiver.public()).unwrap();
            let at = at % sealed.len();
            let mut changed = sealed.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != sealed);
            // The last digit of a part has bits that mean nothing; the reader takes none but zero there.
            prop_assert!(receiver.open(&changed).is_err());
        }

        #[test]
        fn anything_at_all_is_read_without_panic(text in ".{0,300}") {
            let _ = Receiver::generate().open(&text);
        }
    }
}
