use std::sync::LazyLock;

use proptest::prelude::*;
use rcgen::{CustomExtension, IsCa, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};

use super::*;

fn hostile(change: impl FnOnce(&mut CertificateParams)) -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate();
    let mut params = CertificateParams::default();
    change(&mut params);
    let request = params.serialize_request(&Signing::new(&key)).unwrap();
    (key, request.der().to_vec())
}

#[test]
fn our_own_request_gives_its_key_as_der_and_as_pem() {
    let key = KeyPair::generate();
    let expected = key.key_request();
    assert_eq!(parse_and_verify(&make(&key)).unwrap(), expected);
    assert_eq!(parse_and_verify(make_pem(&key).as_bytes()).unwrap(), expected);
    assert_eq!(
        parse_and_verify(format!("\n{}", make_pem(&key)).as_bytes()).unwrap(),
        expected
    );
}

#[test]
fn what_a_request_asks_for_beside_its_key_changes_nothing() {
    let (ca, ca_request) = hostile(|params| {
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    });
    let (names, names_request) = hostile(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![0xff; 40])];
    });
    for (key, request) in [(ca, ca_request), (names, names_request)] {
        let taken = parse_and_verify(&request).unwrap();
        assert_eq!(taken, key.key_request());
    }
}

#[test]
fn other_kinds_of_keys_are_refused_as_such() {
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P384_SHA384] {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let request = CertificateParams::default().serialize_request(&key).unwrap();
        assert_eq!(parse_and_verify(request.der()), Err(CsrError::WrongKey));
    }
}

#[test]
fn a_request_signed_with_another_key_is_refused() {
    // The frame of one request with the signature of another: a key that the requester does not hold.
    let (mine, theirs) = (make(&KeyPair::generate()), make(&KeyPair::generate()));
    let theirs_frame = frame(&theirs).unwrap();
    let signature = frame(&mine).unwrap().signature;
    let mut content = [theirs_frame.signed, &ECDSA_WITH_SHA256].concat();
    content.extend([BIT_STRING, signature.len() as u8 + 1, 0]);
    content.extend(signature);
    let mut forged = vec![SEQUENCE, 0x81, content.len() as u8];
    forged.extend(content);
    assert_eq!(parse_and_verify(&forged), Err(CsrError::BadSignature));
}

#[test]
fn garbage_empty_and_huge_input_is_refused() {
    for bad in [
        &b""[..],
        b"hello",
        b"-----BEGIN CERTIFICATE REQUEST-----",
        &[0x30; 300],
        b"-----BEGIN X-----",
    ] {
        assert_eq!(parse_and_verify(bad), Err(CsrError::Malformed), "{bad:02x?}");
    }
    let huge = vec![0x30; MAX_REQUEST_BYTES + 1];
    assert_eq!(
        parse_and_verify(&huge),
        Err(CsrError::TooLarge {
            bytes: MAX_REQUEST_BYTES + 1
        })
    );
    let mut longer = make(&KeyPair::generate());
    longer.push(0);
    assert_eq!(parse_and_verify(&longer), Err(CsrError::Malformed));
}

static REQUEST: LazyLock<(KeyPair, Vec<u8>)> = LazyLock::new(|| {
    let key = KeyPair::generate();
    let request = make(&key);
    (key, request)
});

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(parse_and_verify(&bytes).is_err());
    }

    #[test]
    fn a_mutated_request_is_refused_or_still_gives_the_same_key(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (key, request) = &*REQUEST;
        let mut bytes = request.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        match parse_and_verify(&bytes) {
            Ok(taken) => prop_assert_eq!(taken.spki, key.spki_pin()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
