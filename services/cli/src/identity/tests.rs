use std::os::unix::fs::PermissionsExt;

use domain::{
    Position,
    authority::KeyKind,
    phase::Phase,
    trust::{AuthorityStatus, BundleAuthority},
};
use pki::{Blueprint, authority};

use super::*;

const DAY: u64 = 24 * 60 * 60 * 1000;

fn cluster() -> ClusterName {
    "acme.cluster".parse().unwrap()
}

/// A bundle of this revision with one authority, signed by `by`.
fn signed(by: &KeyPair, revision: u64, expires: Timestamp) -> SignedBundle {
    let key = KeyPair::generate();
    let ca = authority::make(
        &Blueprint {
            cluster: &cluster(),
            authority_type: AuthorityType::Host,
            generation: 1,
            serial: domain::Serial::of_random([1; 16]),
            now: Timestamp(0),
        },
        &key,
    )
    .unwrap();
    let content = Bundle {
        cluster: cluster(),
        authority_type: AuthorityType::Host,
        rotation: None,
        phase: Phase::Standby,
        revision: Position(revision),
        authorities: vec![BundleAuthority {
            id: ca.pin(),
            kind: KeyKind::Tls,
            public_key: String::new(),
            status: AuthorityStatus::Active,
            generation: 1,
            certificate: ca.to_base64(),
        }],
        denied: Vec::new(),
        expires,
    };
    bundle::sign(&content, by, Vec::new())
}

fn identity(bundle_key: &KeyPair) -> Identity {
    Identity {
        version: FORMAT,
        server: "https://127.0.0.1:3025".into(),
        cluster: cluster(),
        user: "alice".parse().unwrap(),
        bundle_pin: bundle_key.spki_pin(),
        certificate: String::new(),
        key: Zeroizing::new("very-secret".into()),
        bundle: signed(bundle_key, 5, Timestamp(0).plus_ms(DAY)),
    }
}

#[test]
fn an_identity_reads_back_is_owner_only_and_shows_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.identity");
    let written = identity(&KeyPair::generate());
    written.save(&path).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let read = Identity::load(&path).unwrap();
    assert_eq!(
        (read.user, read.bundle),
        (written.user.clone(), written.bundle.clone())
    );
    assert!(!format!("{written:?}").contains("secret"));
}

#[test]
fn an_identity_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.identity");
    identity(&KeyPair::generate()).save(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let text = Identity::load(&path).unwrap_err().to_string();
    assert!(text.contains("chmod 600"), "{text}");
}

#[test]
fn a_broken_or_newer_file_is_refused_without_quoting_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.identity");
    for (text, expected) in [
        (r#"{"version":1,"key":"hush"}"#, "is not an identity file"),
        ("hush", "is not an identity file"),
        (r#"{"version":99,"more":"hush"}"#, "newer version"),
    ] {
        harden::atomic_write(&path, text.as_bytes(), OWNER_ONLY).unwrap();
        let error = Identity::load(&path).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("hush"), "{error}");
    }
}

#[test]
fn only_a_newer_bundle_by_the_pinned_key_that_is_in_force_is_installed() {
    let (ours, theirs) = (KeyPair::generate(), KeyPair::generate());
    let mut identity = identity(&ours);
    let (now, later) = (Timestamp(0).plus_ms(2 * DAY), Timestamp(0).plus_ms(3 * DAY));
    assert!(identity.install(signed(&theirs, 9, later), now).is_err());
    assert!(identity.install(signed(&ours, 9, now), now).is_err(), "expired");
    assert!(!identity.install(signed(&ours, 4, later), now).unwrap(), "older");
    assert_eq!(identity.trust().unwrap().revision, Position(5));
    assert!(identity.install(signed(&ours, 9, later), now).unwrap());
    assert_eq!(identity.trust().unwrap().revision, Position(9));
}

#[tokio::test]
async fn two_changes_at_once_do_not_undo_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.identity");
    identity(&KeyPair::generate()).save(&path).unwrap();
    let changes = (0..8).map(|n| {
        let path = path.clone();
        async move {
            update(&path, |identity| {
                identity.server.push_str(&n.to_string());
                true
            })
            .await
        }
    });
    for result in futures::future::join_all(changes).await {
        result.unwrap();
    }
    let server = Identity::load(&path).unwrap().server;
    assert_eq!(server.len(), "https://127.0.0.1:3025".len() + 8, "{server}");
}
