//! Joins and recoveries: what strangers send.

use api::join::{RECOVER_CONTEXT, REJOIN_CONTEXT};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{Order, TokenHash};
use gateway::body;
use pki::{KeyPair, statement};
use serde_json::{Value, json};

use super::commands::{decided, refused};
use crate::{
    Form, edit,
    made::{SECRET, made},
};

pub(crate) fn run(input: &[u8]) {
    match Form::of(input) {
        // No input can hold a signature of a key that this process made.
        Form::Raw(raw) => {
            join(raw, false, None);
            recover(raw, None);
        }
        Form::Edits(which, mut u) => {
            let mut document = if which == 0 { joining() } else { recovering() };
            let _ = edit::json(&mut u, &mut document);
            // Whoever holds the old key can sign what it changed; a stranger signs too.
            let signed = match u.int_in_range(0..=3).unwrap_or(0) {
                0 | 1 => Some(made().request.clone()),
                2 => sign(&mut document, &made().node_key),
                _ => sign(&mut document, &made().bundle_key).and(None),
            };
            let is_secret = document.get("token").and_then(Value::as_str) == Some(SECRET)
                && document.to_string().matches(SECRET).count() == 1;
            let bytes = serde_json::to_vec(&document).expect("JSON is written");
            join(&bytes, is_secret, signed.as_deref());
            recover(&bytes, signed.as_deref());
        }
    }
}

fn joining() -> Value {
    let mut document = json!({"token": SECRET, "hostname": "n1.example.com", "csr": made().request,
        "rejoin": {"node": made().node, "certificate": certificate(), "signature": ""}});
    sign(&mut document, &made().node_key);
    document
}

fn recovering() -> Value {
    let mut document = json!({"certificate": certificate(), "csr": made().request, "signature": ""});
    sign(&mut document, &made().node_key);
    document
}

fn certificate() -> String {
    pki::pem::encode_certificates([&made().leaf[..]])
}

/// Signs the request that the document holds by now, wherever a signature belongs, and says what was signed.
fn sign(document: &mut Value, key: &KeyPair) -> Option<String> {
    let csr = document["csr"].as_str().unwrap_or_default().to_owned();
    let by = |context| Value::from(STANDARD.encode(statement::sign(key, context, csr.as_bytes())));
    if let Some(signature) = document.pointer_mut("/rejoin/signature") {
        *signature = by(REJOIN_CONTEXT);
    }
    if let Some(signature) = document.get_mut("signature") {
        *signature = by(RECOVER_CONTEXT);
    }
    Some(csr)
}

/// `is_secret`: the token stands in its place and nowhere else. `signed`: the request that the old key has signed.
fn join(body: &[u8], is_secret: bool, signed: Option<&str>) {
    match body::join(body) {
        Err(no) => {
            refused(&no);
            assert!(
                !is_secret || !format!("{no:?}").contains(SECRET),
                "a refusal shows the token"
            );
        }
        Ok(order) => {
            let Order::Join(join) = &order else {
                panic!("a join is a join")
            };
            if is_secret {
                assert_eq!(join.token, TokenHash(execution::sha256(SECRET.as_bytes())));
                assert!(!format!("{order:?}").contains(SECRET), "an order shows the token");
            }
            if join
                .rejoin
                .as_ref()
                .is_some_and(|rejoin| rejoin.proven_by.is_some())
            {
                let document: api::join::JoinRequest = serde_json::from_slice(body).expect("it was read");
                let proof = document
                    .rejoin
                    .and_then(|rejoin| rejoin.certificate)
                    .expect("it was proven");
                let certificate = pki::pem::certificates(&proof).expect("PEM").remove(0);
                let proven = pki::pin_of_certificate(&certificate).expect("a certificate");
                assert_eq!(proven, made().node_key.spki_pin(), "proven with another key");
                assert_eq!(signed, Some(&*document.csr), "proven without a signature");
            }
            decided(order);
        }
    }
}

fn recover(body: &[u8], signed: Option<&str>) {
    match body::recovery(body) {
        Err(no) => refused(&no),
        Ok(body::Recovery { certificate, key }) => {
            assert_eq!(
                certificate.spki,
                made().node_key.spki_pin(),
                "proven with another key"
            );
            let document: api::join::RecoverRequest = serde_json::from_slice(body).expect("it was read");
            assert_eq!(signed, Some(&*document.csr), "proven without a signature");
            let (node, proven_by) = (made().node, certificate.digest);
            decided(Order::Recover { node, proven_by, key });
        }
    }
}
