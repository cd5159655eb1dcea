//! Trust bundles.

use std::{collections::BTreeSet, sync::OnceLock};

use domain::{
    AuthorityType, Phase, Position,
    time::DAY_MS,
    trust::{AuthorityStatus, Bundle, BundleAuthority, Denied, SignedBundle},
};
use pki::{BundleError, KeyPair, bundle};

use crate::{
    Form, edit,
    made::{Made, NOW, made},
    speaks,
};

pub(crate) fn run(input: &[u8]) {
    match Form::of(input) {
        Form::Raw(raw) => {
            if let Ok(signed) = serde_json::from_slice(raw) {
                let _ = take(&signed);
            }
        }
        // The content is edited and signed: the bundle key's holder is trusted, and even so nothing may break.
        Form::Edits(which @ 0..2, mut u) => {
            let mut content = serde_json::to_value(good()).expect("a bundle is written");
            let _ = edit::json(&mut u, &mut content);
            let mut signed = bundle::sign(good(), signer(which), replacements(which));
            signed.document = content.to_string();
            let signature = signer(which).sign_der(signed.document.as_bytes());
            signed.signature = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature);
            let _ = take(&signed);
        }
        // The document is edited around its signature: what is taken is what was signed.
        Form::Edits(which, mut u) => {
            let which = which % 2;
            let signed = bundle::sign(good(), signer(which), replacements(which));
            let mut document = serde_json::to_value(&signed).expect("a bundle is written");
            let _ = edit::json(&mut u, &mut document);
            if let Ok(edited) = serde_json::from_value::<SignedBundle>(document)
                && let Ok(taken) = take(&edited)
            {
                assert_eq!(taken, *good(), "a changed bundle was taken");
                assert_eq!(edited.document, signed.document);
            }
        }
    }
}

/// The bundle key, or the one that replaced it.
fn signer(which: usize) -> &'static KeyPair {
    static SUCCESSOR: OnceLock<KeyPair> = OnceLock::new();
    if which == 0 {
        &made().bundle_key
    } else {
        SUCCESSOR.get_or_init(KeyPair::generate)
    }
}

fn replacements(which: usize) -> Vec<domain::trust::KeyReplacement> {
    if which == 0 {
        vec![]
    } else {
        vec![bundle::replace_key(signer(0), signer(1))]
    }
}

pub(super) fn good() -> &'static Bundle {
    static GOOD: OnceLock<Bundle> = OnceLock::new();
    GOOD.get_or_init(|| {
        let Made {
            host, next, cluster, ..
        } = made();
        let listed = |ca: &pki::CaCert, status, generation| BundleAuthority {
            id: ca.pin(),
            kind: domain::authority::KeyKind::Tls,
            public_key: String::new(),
            status,
            generation,
            certificate: ca.to_base64(),
        };
        Bundle {
            cluster: cluster.clone(),
            authority_type: AuthorityType::Host,
            rotation: None,
            phase: Phase::Init,
            revision: Position(7),
            authorities: vec![
                listed(&host.1, AuthorityStatus::Active, 1),
                listed(&next.1, AuthorityStatus::Prepared, 2),
            ],
            denied: vec![Denied {
                serial: domain::Serial([0x40; 16]),
                digest: domain::CertDigest([7; 32]),
                not_after: NOW.plus_ms(DAY_MS),
            }],
            expires: NOW.plus_ms(DAY_MS),
        }
    })
}

fn take(signed: &SignedBundle) -> Result<Bundle, BundleError> {
    let Made {
        cluster, bundle_key, ..
    } = made();
    let taken = bundle::verify(
        signed,
        &bundle_key.spki_pin(),
        NOW,
        Some(cluster),
        AuthorityType::Host,
    );
    match &taken {
        Err(error) => speaks(error),
        Ok(taken) => {
            assert!(
                [signer(0), signer(1)]
                    .iter()
                    .any(|key| key.spki_pin() == signed.key),
                "signed by a stranger"
            );
            assert!(signed.document.len() <= bundle::MAX_DOCUMENT_BYTES);
            assert!(signed.replacements.len() <= bundle::MAX_REPLACEMENTS);
            assert!(taken.expires > NOW && taken.cluster == *cluster);
            let anchors: BTreeSet<_> = bundle::authorities(taken).map(|ca| ca.pin()).collect();
            assert_eq!(anchors, taken.trusted(), "what is trusted is what is listed");
            let text = serde_json::to_string(taken).expect("a bundle is written");
            assert_eq!(serde_json::from_str::<Bundle>(&text).expect("and read"), *taken);
        }
    }
    taken
}
