use domain::{Phase, Position, time::DAY_MS, trust::BundleAuthority};

use super::*;
use crate::testing::{CLUSTER, NOW, authority};

fn listed(ca: &CaCert, status: AuthorityStatus, generation: u32) -> BundleAuthority {
    BundleAuthority {
        id: ca.pin(),
        kind: KeyKind::Tls,
        public_key: String::new(),
        status,
        generation,
        certificate: ca.to_base64(),
    }
}

fn bundle() -> Bundle {
    let (_, one) = authority(AuthorityType::Host, 1);
    let (_, two) = authority(AuthorityType::Host, 2);
    Bundle {
        cluster: CLUSTER.parse().unwrap(),
        authority_type: AuthorityType::Host,
        rotation: None,
        phase: Phase::Init,
        revision: Position(41),
        authorities: vec![
            listed(&one, AuthorityStatus::Active, 1),
            listed(&two, AuthorityStatus::Prepared, 2),
        ],
        denied: Vec::new(),
        expires: NOW.plus_ms(DAY_MS),
    }
}

fn check(signed: &SignedBundle, pinned: SpkiPin) -> Result<Bundle, BundleError> {
    verify(
        signed,
        &pinned,
        NOW,
        Some(&CLUSTER.parse().unwrap()),
        AuthorityType::Host,
    )
}

#[test]
fn a_signed_bundle_verifies_by_its_pin_and_gives_its_anchors() {
    let key = KeyPair::generate();
    let bundle = bundle();
    let verified = check(&sign(&bundle, &key, Vec::new()), key.spki_pin()).unwrap();
    assert_eq!(verified, bundle);
    let pins: BTreeSet<_> = authorities(&verified).map(|ca| ca.pin()).collect();
    assert_eq!(pins, bundle.trusted());
    assert_eq!(anchors(&verified).len(), 2);
}

#[test]
fn a_changed_document_signature_or_key_is_refused() {
    let key = KeyPair::generate();
    let signed = sign(&bundle(), &key, Vec::new());
    let mut document = signed.clone();
    document.document = document.document.replace("\"revision\":41", "\"revision\":42");
    assert_eq!(check(&document, key.spki_pin()), Err(BundleError::BadSignature));
    let mut spaced = signed.clone();
    spaced.document.push(' ');
    assert_eq!(check(&spaced, key.spki_pin()), Err(BundleError::BadSignature));
    let mut signature = signed.clone();
    signature.signature = "AAAA".into();
    assert_eq!(check(&signature, key.spki_pin()), Err(BundleError::BadSignature));
    let thief = KeyPair::generate();
    assert!(matches!(
        check(&sign(&bundle(), &thief, Vec::new()), key.spki_pin()),
        Err(BundleError::WrongKey { .. })
    ));
    let mut mislabelled = sign(&bundle(), &thief, Vec::new());
    mislabelled.key = key.spki_pin();
    assert_eq!(
        check(&mislabelled, key.spki_pin()),
        Err(BundleError::MalformedKey)
    );
}

#[test]
fn an_expired_bundle_and_one_of_another_cluster_or_type_are_refused() {
    let key = KeyPair::generate();
    let signed = sign(&bundle(), &key, Vec::new());
    let late = verify(
        &signed,
        &key.spki_pin(),
        NOW.plus_ms(DAY_MS),
        None,
        AuthorityType::Host,
    );
    assert!(matches!(late, Err(BundleError::Expired { .. })));
    assert!(verify_unexpired(&signed, &key.spki_pin(), None, AuthorityType::Host).is_ok());
    let other = verify(
        &signed,
        &key.spki_pin(),
        NOW,
        Some(&"b.cluster".parse().unwrap()),
        AuthorityType::Host,
    );
    assert!(matches!(other, Err(BundleError::OtherCluster { .. })));
    let user = verify(&signed, &key.spki_pin(), NOW, None, AuthorityType::User);
    assert!(matches!(user, Err(BundleError::OtherType { .. })));
}

#[test]
fn a_bundle_that_lists_a_wrong_doubled_or_broken_authority_is_refused_although_it_is_signed() {
    let key = KeyPair::generate();
    type Change = fn(&mut Bundle);
    type Expected = fn(&BundleError) -> bool;
    let changes: [(Change, Expected); 4] = [
        (
            |b| b.authorities[0].id = SpkiPin([1; 32]),
            |e| matches!(e, BundleError::WrongAuthority { .. }),
        ),
        (
            |b| b.authorities[1] = b.authorities[0].clone(),
            |e| matches!(e, BundleError::WrongAuthority { .. }),
        ),
        (
            |b| b.authorities[0].certificate.truncate(40),
            |e| matches!(e, BundleError::Authority { .. }),
        ),
        (|b| drop(b.authorities.remove(0)), |e| *e == BundleError::NoActive),
    ];
    for (change, expected) in changes {
        let mut bundle = bundle();
        change(&mut bundle);
        let error = check(&sign(&bundle, &key, Vec::new()), key.spki_pin()).unwrap_err();
        assert!(expected(&error), "{error:?}");
    }
}

#[test]
fn replacements_lead_from_any_earlier_key_to_the_newest_and_only_with_both_signatures() {
    let keys = [KeyPair::generate(), KeyPair::generate(), KeyPair::generate()];
    let chain = vec![replace_key(&keys[0], &keys[1]), replace_key(&keys[1], &keys[2])];
    let signed = sign(&bundle(), &keys[2], chain.clone());
    for key in &keys {
        assert!(check(&signed, key.spki_pin()).is_ok(), "{key:?}");
    }
    // A thief of the oldest key leads nobody who has its successor pinned, nor anyone alone.
    let thief = KeyPair::generate();
    let mut forged = replace_key(&keys[0], &thief);
    forged.by_old = forged.by_new.clone();
    let stolen = sign(&bundle(), &thief, vec![forged]);
    assert!(matches!(
        check(&stolen, keys[0].spki_pin()),
        Err(BundleError::BadReplacement { .. })
    ));
    let stolen = sign(&bundle(), &thief, vec![replace_key(&keys[0], &thief)]);
    assert!(matches!(
        check(&stolen, keys[1].spki_pin()),
        Err(BundleError::WrongKey { .. })
    ));
    // The old key signs no more once it was replaced.
    assert!(matches!(
        check(&sign(&bundle(), &keys[0], chain), keys[0].spki_pin()),
        Err(BundleError::WrongKey { .. })
    ));
}
