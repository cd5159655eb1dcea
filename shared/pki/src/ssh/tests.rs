use base64::{Engine, engine::general_purpose::STANDARD};
use domain::AuthorityType;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use ssh_key::{PublicKey as Line, public::Ed25519PublicKey};

use super::*;
use crate::{
    KeyPair,
    testing::{self, NOW},
};

/// As in `id_ed25519.pub`.
fn line() -> String {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let key = Ed25519PublicKey::try_from(pair.public_key().as_ref()).unwrap();
    Line::new(KeyData::Ed25519(key), "alice@laptop")
        .to_openssh()
        .unwrap()
}

fn of_user() -> SshProfile {
    SshProfile {
        role: SshRole::User,
        key_id: "user/alice".into(),
        serial: u64::MAX - 1,
        principals: vec!["alice".into(), "deploy".into()],
        valid_after: NOW,
        valid_before: Timestamp(NOW.0 + 3_600_500),
        critical_options: BTreeMap::from([("source-address".into(), "10.0.0.0/8".into())]),
        extensions: vec!["permit-agent-forwarding".into(), "permit-pty".into()],
    }
}

fn of_host() -> SshProfile {
    SshProfile {
        role: SshRole::Host,
        principals: vec!["web-1.acme.cluster".into()],
        critical_options: BTreeMap::new(),
        extensions: vec![],
        ..of_user()
    }
}

fn alice() -> SshPublicKey {
    SshPublicKey::parse(&line()).unwrap()
}

#[test]
fn a_certificate_says_what_was_granted_and_is_read_again() {
    let (ca, _) = testing::authority(AuthorityType::User, 1);
    for profile in [of_user(), of_host()] {
        let made = issue(&profile, &alice(), &ca).unwrap();
        let read = SshCertificate::parse(&format!("{} a comment", made.to_line())).unwrap();
        assert_eq!(read.to_line().split(' ').nth(1), made.to_line().split(' ').nth(1));
        let whole_seconds = SshProfile {
            valid_after: NOW,
            valid_before: Timestamp(NOW.0 + 3_600_000),
            ..profile
        };
        assert_eq!(read.profile(), whole_seconds);
        assert_eq!(read.key(), alice());
        read.verify(ca.public()).unwrap();
    }
}

#[test]
fn a_certificate_of_another_authority_or_with_another_content_does_not_verify() {
    let (ca, _) = testing::authority(AuthorityType::User, 1);
    let made = issue(&of_user(), &alice(), &ca).unwrap();
    let other = KeyPair::generate();
    assert_eq!(made.verify(other.public()), Err(SshCertificateError::NotSigned));
    let bytes = made.0.to_bytes().unwrap();
    let mut changed = 0;
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        let line = format!("ssh-ed25519-cert-v01@openssh.com {}", STANDARD.encode(bytes));
        if let Ok(read) = SshCertificate::parse(&line) {
            changed += 1;
            assert!(read.verify(ca.public()).is_err(), "the byte at {at}");
        }
    }
    assert!(changed > 100, "most changes can be read: {changed}");
}

/// Many, because the form of a signature depends on its leading bits.
#[test]
fn every_signature_verifies() {
    let (ca, _) = testing::authority(AuthorityType::Host, 1);
    for serial in 0..300 {
        let profile = SshProfile { serial, ..of_host() };
        issue(&profile, &alice(), &ca)
            .unwrap()
            .verify(ca.public())
            .unwrap();
    }
}

#[test]
fn what_openssh_would_misread_or_that_grants_too_much_is_refused() {
    let (ca, _) = testing::authority(AuthorityType::User, 1);
    let with = |change: fn(&mut SshProfile)| {
        let mut profile = of_user();
        change(&mut profile);
        profile
    };
    for (bad, words) in [
        (with(|p| p.principals.clear()), "every account"),
        (with(|p| p.principals = vec!["a,b".into()]), "no principal"),
        (with(|p| p.principals = vec!["*".into()]), "no principal"),
        (with(|p| p.principals = vec!["a b".into()]), "no principal"),
        (with(|p| p.principals = vec![String::new()]), "no principal"),
        (with(|p| p.principals = vec!["a".into(); 257]), "256 principals"),
        (with(|p| p.key_id = "two words".into()), "key id"),
        (with(|p| p.key_id = "x".repeat(256)), "key id"),
        (with(|p| p.valid_before = p.valid_after), "over before"),
        (with(|p| p.valid_after = Timestamp(-1)), "over before"),
        (
            with(|p| p.extensions = vec!["permit-everything".into()]),
            "no extension",
        ),
        (
            with(|p| p.critical_options = BTreeMap::from([("force-commands".into(), "x".into())])),
            "no critical option",
        ),
        (
            with(|p| p.critical_options = BTreeMap::from([("force-command".into(), "a\nb".into())])),
            "control characters",
        ),
        (with(|p| p.extensions = vec!["permit-pty".into(); 2]), "extension"),
        (with(|p| p.role = SshRole::Host), "host's certificate"),
    ] {
        let error = issue(&bad, &alice(), &ca).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.is_transient());
    }
}

struct Away(PublicKey);

impl CaSigner for Away {
    fn public_key(&self) -> &PublicKey {
        &self.0
    }
    fn sign_raw(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
        Err(SignError {
            storage: "pkcs11",
            why: "the token was removed".into(),
        })
    }
    fn storage(&self) -> &'static str {
        "pkcs11"
    }
}

#[test]
fn a_key_store_that_refuses_says_why_and_is_asked_again() {
    let away = Away(KeyPair::generate().public().clone());
    let error = issue(&of_user(), &alice(), &away).unwrap_err();
    assert!(error.is_transient());
    assert!(matches!(error, SshIssueError::Sign(SignError { why, .. }) if why == "the token was removed"));
}

#[test]
fn only_whole_strong_public_keys_are_read() {
    let (key, line) = (alice(), line());
    assert_eq!(key.to_line(), line.rsplit_once(' ').unwrap().0);
    assert_eq!(
        SshPublicKey::parse(&format!("  {line}\n")).unwrap().pin(),
        key.pin()
    );
    let (ca, _) = testing::authority(AuthorityType::User, 1);
    let certificate = issue(&of_user(), &key, &ca).unwrap().to_line();
    for (text, error) in [
        ("", SshKeyError::NoKey),
        ("ssh-ed25519", SshKeyError::NoKey),
        ("ssh-ed25519 AAAA", SshKeyError::NoKey),
        (&format!("restrict,pty {line}"), SshKeyError::NoKey),
        (&format!("{line}\n{line}"), SshKeyError::NoKey),
        (
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaA==",
            SshKeyError::Private,
        ),
        (&certificate, SshKeyError::Certificate),
        (&"x".repeat(20_000), SshKeyError::NoKey),
    ] {
        assert_eq!(SshPublicKey::parse(text), Err(error), "{text:.40}");
    }
}

/// One key must not be certified for two holders, whatever form it is given in.
#[test]
fn a_p256_key_has_the_name_that_it_has_in_x509_and_an_authority_is_recognised() {
    let key = KeyPair::generate();
    let line = public_line(key.public(), "a comment");
    let read = SshPublicKey::parse(&line).unwrap();
    assert_eq!(read.pin(), key.spki_pin());
    assert!(read.is(key.public()) && !alice().is(key.public()));
    assert!(
        known_hosts_line("*.acme", key.public(), "c")
            .starts_with("@cert-authority *.acme ecdsa-sha2-nistp256 AAAA")
    );
}

#[test]
fn a_revocation_list_holds_the_serials_of_each_authority() {
    let (one, other) = (KeyPair::generate(), KeyPair::generate());
    let revoked = [
        Revoked {
            authority: one.public(),
            serials: vec![7, 3],
        },
        Revoked {
            authority: other.public(),
            serials: vec![],
        },
    ];
    let list = krl(9, NOW, "acme.cluster", &revoked);
    assert_eq!(&list[..8], b"SSHKRL\n\0");
    assert_eq!(
        &list[list.len() - 16..],
        [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 7]
    );
    // A header, and a section of certificates with one list of serials: the empty one is left out.
    assert_eq!(
        list.len(),
        8 + 4 + 8 + 8 + 8 + 4 + 4 + 12 + 1 + 4 + (4 + 104) + 4 + 1 + 4 + 16
    );
}

#[test]
fn a_certificate_is_what_was_authorised_however_long_and_in_whatever_order_it_was_asked_for() {
    let (key, ca) = testing::authority(AuthorityType::Openssh, 1);
    let granted = AuthorizationGranted {
        authority_type: AuthorityType::Openssh,
        usage: domain::event::LeafUse::Client,
        serial: domain::id::Serial::of_random_ssh(random()),
        public_key: alice().to_line(),
        spki: alice().pin(),
        form: Form::Ssh {
            principals: (0..256).map(|n| format!("{n:0>60}")).collect(),
            critical_options: BTreeMap::new(),
            extensions: vec!["permit-pty".into(), "permit-agent-forwarding".into()],
        },
        ..testing::granted(&ca)
    };
    let profile = SshProfile::of(&granted).unwrap();
    let made = issue(&profile, &alice(), &key).unwrap();
    let read = SshCertificate::parse(&made.to_line()).unwrap();
    assert_eq!(Some(read.profile().extensions), Some(profile.extensions));
    assert_eq!(read.profile().principals.len(), 256);
}
