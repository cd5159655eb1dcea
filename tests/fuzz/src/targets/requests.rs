//! Certificate requests.

use base64::{Engine, engine::general_purpose::STANDARD};
use domain::command::KeyRequest;
use pki::{CsrError, KeyPair, csr};

use crate::{
    Form, edit,
    made::{Made, made},
    speaks,
};

pub(crate) fn run(input: &[u8]) {
    match Form::of(input) {
        Form::Raw(raw) => drop(read(raw)),
        Form::Edits(which, mut u) => {
            let Made {
                node_key, bundle_key, ..
            } = made();
            let good = csr::make(node_key);
            let Ok(edited) = edit::der(&mut u, &good) else {
                return;
            };
            match which {
                // As it is, in DER and in PEM, which say the same.
                0 => {
                    let pem = pki::pem::encode("CERTIFICATE REQUEST", &edited);
                    let of_der = read(&edited);
                    // Lines and marks weigh too, so only what is short enough in both forms can be compared.
                    if pem.len() <= csr::MAX_REQUEST_BYTES {
                        assert_eq!(of_der, read(pem.as_bytes()));
                    }
                }
                1 => {
                    let mut pem = csr::make_pem(node_key).into_bytes();
                    let _ = edit::bytes(&mut u, &mut pem);
                    drop(read(&pem));
                }
                // Edited and signed: the key's holder may write what it likes around the key, and names no other.
                2 => signed(node_key, &csr::make(bundle_key), &mut u),
                _ => signed(node_key, &good, &mut u),
            }
        }
    }
}

fn signed(key: &KeyPair, good: &[u8], u: &mut arbitrary::Unstructured<'_>) {
    let (info, algorithm) = edit::parts(good);
    let Ok(info) = edit::der(u, &info) else { return };
    let request = edit::resigned(&info, &algorithm, &key.sign_der(&info));
    if let Ok(read) = read(&request) {
        assert_eq!(
            read,
            key.key_request(),
            "the key that signed is the key that is certified"
        );
    }
}

/// A request that is taken has a P-256 key, and signs with it what it says.
fn read(bytes: &[u8]) -> Result<KeyRequest, CsrError> {
    let read = csr::parse_and_verify(bytes);
    match &read {
        Ok(request) => {
            assert!(bytes.len() <= csr::MAX_REQUEST_BYTES);
            let spki = STANDARD.decode(&request.public_key).expect("a key in base64");
            assert_eq!(request.spki.0, pki::sha256(&spki));
            let key = pki::PublicKey::from_base64(&request.public_key).expect("a P-256 key");
            assert_eq!(key.spki_der(), spki);
        }
        Err(error) => speaks(error),
    }
    read
}
