use std::{fs, path::Path, process::Command};

use domain::{
    AuthorityType, Serial,
    event::{Form, LeafUse},
    time::DAY_MS,
};

use super::*;
use crate::{
    Certificate, KeyPair,
    lint::lint,
    pem,
    testing::{CLUSTER, NOW, authority, granted, leaf},
};

fn cluster() -> ClusterName {
    CLUSTER.parse().unwrap()
}

#[test]
fn a_leaf_says_exactly_what_was_authorised() {
    let (key, ca) = authority(AuthorityType::Host, 1);
    let mut wanted = granted(&ca);
    for usage in [LeafUse::Both, LeafUse::Client, LeafUse::Server] {
        wanted.usage = usage;
        let read = Certificate::parse(&leaf(&wanted, &ca, &key).der).unwrap();
        assert_eq!(read.serial, Some(wanted.serial));
        assert_eq!(read.issuer, Some(ca.pin()));
        assert_eq!(read.issuer_dn, ca.parsed().subject_dn);
        assert_eq!(read.subject_key_id.as_deref(), Some(&wanted.spki.0[..]));
        assert_eq!(read.principal(&cluster()), Some(wanted.holder.clone()));
        assert_eq!(read.names, ["web-1", "web-1.acme.cluster"]);
        assert_eq!(read.addresses, wanted.addresses);
        assert_eq!(
            (read.not_before, read.not_after),
            (wanted.not_before, wanted.not_after)
        );
        assert_eq!(read.usage(), Some(usage));
        assert!(!read.is_ca);
    }
}

#[test]
fn an_authorisation_for_another_authority_or_key_is_not_signed() {
    let (key, ca) = authority(AuthorityType::Host, 1);
    let (other_key, other) = authority(AuthorityType::Host, 2);
    let wanted = granted(&ca);
    assert!(matches!(
        issue(&wanted, &cluster(), &other, &other_key),
        Err(IssueError::OtherAuthority { .. })
    ));
    assert!(matches!(
        issue(&wanted, &cluster(), &ca, &other_key),
        Err(IssueError::OtherKey)
    ));
    let mut swapped = wanted.clone();
    swapped.public_key = KeyPair::generate().public().to_base64();
    assert!(matches!(
        issue(&swapped, &cluster(), &ca, &key),
        Err(IssueError::Authorization(_))
    ));
    let mut own = wanted;
    (own.spki, own.public_key) = (ca.pin(), key.public().to_base64());
    assert!(matches!(
        issue(&own, &cluster(), &ca, &key),
        Err(IssueError::Authorization(_))
    ));
}

#[test]
fn an_authorisation_with_impossible_times_or_serial_is_not_signed() {
    let (key, ca) = authority(AuthorityType::Host, 1);
    let wanted = granted(&ca);
    let mut backwards = wanted.clone();
    backwards.not_after = backwards.not_before;
    assert!(matches!(
        issue(&backwards, &cluster(), &ca, &key),
        Err(IssueError::Authorization(_))
    ));
    let mut eternal = wanted.clone();
    eternal.not_after = NOW.plus_ms(4_000 * DAY_MS);
    assert!(matches!(
        issue(&eternal, &cluster(), &ca, &key),
        Err(IssueError::OutlivesAuthority { .. })
    ));
    let mut negative = wanted;
    negative.serial = Serial([0xff; 16]);
    assert!(matches!(
        issue(&negative, &cluster(), &ca, &key),
        Err(IssueError::Authorization(_))
    ));
}

/// Changes one field of the authorisation after signing; the lint must see each.
#[test]
fn the_lint_finds_every_difference() {
    let (key, ca) = authority(AuthorityType::Host, 1);
    let wanted = granted(&ca);
    let issued = leaf(&wanted, &ca, &key);
    type Change = fn(&mut AuthorizationGranted);
    let changes: [(&str, Change); 10] = [
        ("serial", |g| g.serial = Serial::of_random([9; 16])),
        ("usage", |g| g.usage = LeafUse::Client),
        ("uri", |g| g.uri.push('x')),
        ("name", |g| g.names.truncate(1)),
        ("order", |g| g.names.reverse()),
        ("address", |g| g.addresses.clear()),
        ("key", |g| g.spki.0[0] ^= 1),
        ("begin", |g| g.not_before.0 += 1_000),
        ("end", |g| g.not_after.0 += 1_000),
        ("subject", |g| g.common_name = "web-2".into()),
    ];
    assert_eq!(lint(&issued.der, &wanted, &cluster(), &ca), Ok(()));
    for (what, change) in changes {
        let mut other = wanted.clone();
        change(&mut other);
        assert!(lint(&issued.der, &other, &cluster(), &ca).is_err(), "{what}");
    }
    let (_, two) = authority(AuthorityType::Host, 2);
    assert!(lint(&issued.der, &wanted, &cluster(), &two).is_err());
    assert!(lint(&issued.der, &wanted, &"other.cluster".parse().unwrap(), &ca).is_err());
    let mut cut = issued.der.clone();
    cut.pop();
    assert!(lint(&cut, &wanted, &cluster(), &ca).is_err());
}

#[test]
fn the_lint_refuses_a_ca_and_an_extension_that_is_not_in_the_profile() {
    let (key, ca) = authority(AuthorityType::Host, 1);
    let wanted = granted(&ca);
    type Change = fn(&mut CertificateParams);
    let changes: [Change; 5] = [
        |p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0)),
        |p| p.is_ca = IsCa::NoCa,
        |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
        |p| p.extended_key_usages.push(ExtendedKeyUsagePurpose::CodeSigning),
        |p| {
            p.custom_extensions.push(rcgen::CustomExtension::from_oid_content(
                &[1, 2, 3, 4],
                vec![5, 0],
            ))
        },
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut params = params(&wanted, &cluster(), &ca).unwrap();
        change(&mut params);
        let (subject, signing) = (subject_key(&wanted).unwrap(), Signing::new(&key));
        let issuer = Issuer::from_ca_cert_der(ca.der(), &signing).unwrap();
        let made = params.signed_by(&Subject(&subject), &issuer).unwrap();
        assert!(lint(made.der(), &wanted, &cluster(), &ca).is_err(), "change {at}");
    }
}

#[test]
fn a_key_store_that_refuses_is_an_error_worth_another_attempt() {
    struct Locked(KeyPair);
    impl CaSigner for Locked {
        fn public_key(&self) -> &PublicKey {
            self.0.public()
        }
        fn sign_raw(&self, _: &[u8]) -> Result<[u8; 64], SignError> {
            Err(SignError {
                storage: "pkcs11",
                why: "the token is locked".into(),
            })
        }
        fn storage(&self) -> &'static str {
            "pkcs11"
        }
    }
    let (key, ca) = authority(AuthorityType::Host, 1);
    let error = issue(&granted(&ca), &cluster(), &ca, &Locked(key)).unwrap_err();
    assert!(
        error.is_transient() && matches!(&error, IssueError::Sign(s) if s.why.contains("locked")),
        "{error:?}"
    );
}

/// A second opinion in the strictest mode of the most used library, where it is installed.
#[test]
fn openssl_accepts_the_leaf_under_x509_strict() {
    let (key, ca) = authority(AuthorityType::Host, 1);
    let issued = leaf(&granted(&ca), &ca, &key);
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, der: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, pem::encode("CERTIFICATE", der)).unwrap();
        path
    };
    let (anchor, end) = (write("ca.pem", ca.der()), write("leaf.pem", &issued.der));
    for purpose in ["sslserver", "sslclient"] {
        let Some(output) = openssl_verify(&anchor, &end, purpose) else {
            skip("no openssl in PATH");
            return;
        };
        assert!(
            output.status.success(),
            "{purpose}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[expect(
    clippy::print_stderr,
    reason = "a skipped test says so where the runner collects it"
)]
fn skip(why: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "with CI=true nothing is skipped: {why}"
    );
    eprintln!(
        "SKIPPED: {}: {why}",
        std::thread::current().name().unwrap_or("a test")
    );
}

fn openssl_verify(anchor: &Path, leaf: &Path, purpose: &str) -> Option<std::process::Output> {
    Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-check_ss_sig",
            "-purpose",
            purpose,
            "-attime",
        ])
        .arg((NOW.0 / 1000).to_string())
        .arg("-CAfile")
        .arg(anchor)
        .arg(leaf)
        .output()
        .ok()
}

#[test]
fn a_certificate_for_windows_names_its_user_and_says_that_it_is_for_a_log_in() {
    let (key, ca) = authority(AuthorityType::Windows, 1);
    let cluster = CLUSTER.parse().unwrap();
    let granted = |form| AuthorizationGranted {
        authority_type: AuthorityType::Windows,
        usage: LeafUse::Client,
        names: vec![],
        addresses: vec![],
        form,
        ..granted(&ca)
    };
    let upn = |upn: &str| Form::Logon { upn: upn.into() };
    let alice = granted(upn("alice@corp.example.com"));
    let made = leaf(&alice, &ca, &key).der;
    assert_eq!(lint(&made, &alice, &cluster, &ca), Ok(()));
    // Exactly that: no other user, none at all, and nobody where none was authorised.
    let but = |form| AuthorizationGranted {
        form,
        ..alice.clone()
    };
    for form in [
        upn("alice@corp.example.org"),
        upn("lice@corp.example.com"),
        Form::Tls,
    ] {
        assert!(lint(&made, &but(form), &cluster, &ca).is_err());
    }
    let plain = leaf(&but(Form::Tls), &ca, &key).der;
    assert!(lint(&plain, &alice, &cluster, &ca).is_err());
    let longest = granted(upn(&format!("{}@corp.example.com", "a".repeat(103))));
    assert_eq!(longest.form.check(), Ok(()));
    assert_eq!(
        lint(&leaf(&longest, &ca, &key).der, &longest, &cluster, &ca),
        Ok(())
    );
}
