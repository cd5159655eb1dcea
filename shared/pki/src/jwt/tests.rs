use serde_json::{Value, json};

use super::*;
use crate::KeyPair;

/// RFC 7515, appendix A.3.
const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";
const SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const SIGNATURE: &str =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

fn key_of_the_rfc() -> PublicKey {
    let mut point = vec![4];
    point.extend(BASE64URL.decode(X).unwrap());
    point.extend(BASE64URL.decode(Y).unwrap());
    PublicKey::from_sec1(&point).unwrap()
}

fn set(keys: &[&KeyPair]) -> Jwks {
    Jwks {
        keys: keys.iter().map(|key| jwk(key.public())).collect(),
    }
}

fn token(key: &KeyPair, claims: &Value) -> String {
    sign(&unsigned(claims, "JWT", key.public()).unwrap(), key).unwrap()
}

#[test]
fn the_example_of_the_rfc_verifies_and_its_key_has_its_thumbprint() {
    let key = key_of_the_rfc();
    let raw: [u8; 64] = BASE64URL.decode(SIGNATURE).unwrap().try_into().unwrap();
    assert!(key.verifies(SIGNED.as_bytes(), &der::ecdsa_signature(&raw)));
    assert_eq!(thumbprint(&key), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
    assert_eq!((jwk(&key).x, jwk(&key).y), (X.into(), Y.into()));
}

#[test]
fn a_token_is_read_by_the_set_that_holds_its_key_and_by_no_other() {
    let (old, new) = (KeyPair::generate(), KeyPair::generate());
    let claims = json!({"iss": "https://acme.cluster", "sub": "job/7", "exp": 1_789_868_676});
    let signed = token(&new, &claims);
    assert_eq!(read::<Value>(&signed, &set(&[&old, &new])), Ok(claims));
    assert_eq!(read::<Value>(&signed, &set(&[&old])), Err(TokenError::UnknownKey));
    // A set that gives another key the name.
    let mut forged = set(&[&old]);
    forged.keys[0].kid = thumbprint(new.public());
    assert_eq!(read::<Value>(&signed, &forged), Err(TokenError::UnknownKey));
}

#[test]
fn what_a_token_says_about_its_own_verification_is_not_followed() {
    let key = KeyPair::generate();
    let keys = set(&[&key]);
    let kid = thumbprint(key.public());
    let with = |header: Value| {
        let unsigned = format!(
            "{}.{}",
            BASE64URL.encode(header.to_string()),
            BASE64URL.encode(json!({"sub": "x"}).to_string())
        );
        sign(&unsigned, &key).unwrap()
    };
    for (header, error) in [
        (json!({"alg": "none", "kid": kid}), TokenError::Algorithm),
        (json!({"alg": "HS256", "kid": kid}), TokenError::Algorithm),
        (
            json!({"alg": "ES256", "kid": kid, "crit": ["exp"]}),
            TokenError::Algorithm,
        ),
        (json!({"alg": "ES256"}), TokenError::UnknownKey),
        (
            json!({"alg": "ES256", "jwk": jwk(key.public())}),
            TokenError::UnknownKey,
        ),
        (json!(["ES256"]), TokenError::NoToken),
    ] {
        assert_eq!(read::<Value>(&with(header), &keys), Err(error));
    }
    assert!(read::<Value>(&with(json!({"alg": "ES256", "kid": kid})), &keys).is_ok());
}

#[test]
fn a_token_that_was_changed_is_not_believed() {
    let key = KeyPair::generate();
    let keys = set(&[&key]);
    let signed = token(&key, &json!({"sub": "job/7"}));
    for at in 0..signed.len() {
        let mut changed = signed.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(read::<Value>(&changed, &keys).is_err(), "the character at {at}");
    }
    for bad in [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        &format!("{signed}.x"),
        &"a".repeat(40_000),
    ] {
        assert!(read::<Value>(bad, &keys).is_err(), "{bad:.40}");
    }
}
