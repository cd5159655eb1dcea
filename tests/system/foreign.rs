//! What authorities sign beside X.509, read by software that nobody here wrote: OpenSSH's own tools.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use carousel_tests::{TestDir, run};
use domain::Timestamp;
use pki::{
    KeyPair,
    ssh::{self, Revoked, SshProfile, SshPublicKey, SshRole},
};

/// 2026-09-20T01:44:36Z.
const NOW: Timestamp = Timestamp(1_789_868_676_000);

fn keygen(args: &[&str]) -> Command {
    let mut command = Command::new("ssh-keygen");
    command.args(args).env("TZ", "UTC");
    command
}

/// A fresh key of this kind, made by OpenSSH.
fn key(dir: &Path, kind: &str, bits: &str) -> SshPublicKey {
    let path = dir.join(format!("{kind}-{bits}"));
    let path = path.display().to_string();
    let _ = run(&mut keygen(&[
        "-q", "-N", "", "-t", kind, "-b", bits, "-f", &path,
    ]))
    .expect_code(0);
    let line = fs::read_to_string(format!("{path}.pub")).expect("the public half");
    SshPublicKey::parse(&line).expect("a key that OpenSSH has just made")
}

fn profile(role: SshRole, serial: u64) -> SshProfile {
    let is_user = role == SshRole::User;
    SshProfile {
        role,
        key_id: "user/alice".into(),
        serial,
        principals: vec!["alice".into(), "deploy".into()],
        valid_after: NOW,
        valid_before: Timestamp(NOW.0 + 3_600_000),
        critical_options: is_user
            .then(|| ("source-address".to_owned(), "10.0.0.0/8".to_owned()))
            .into_iter()
            .collect::<BTreeMap<_, _>>(),
        extensions: if is_user {
            vec!["permit-pty".into()]
        } else {
            vec![]
        },
    }
}

#[test]
fn openssh_reads_from_a_certificate_exactly_what_was_granted() {
    let dir = TestDir::new("foreign-ssh");
    let ca = KeyPair::generate();
    for (kind, bits) in [
        ("ed25519", "256"),
        ("ecdsa", "256"),
        ("ecdsa", "521"),
        ("rsa", "3072"),
    ] {
        let key = key(dir.path(), kind, bits);
        for role in [SshRole::User, SshRole::Host] {
            let made = ssh::issue(&profile(role, 7), &key, &ca).expect("a certificate");
            let path = dir.write("shown-cert.pub", &format!("{}\n", made.to_line()));
            let shown = run(&mut keygen(&["-L", "-f", &path.display().to_string()])).expect_code(0);
            let expected: &[&str] = match role {
                SshRole::User => &["user certificate", "source-address 10.0.0.0/8", "permit-pty"],
                SshRole::Host => &[
                    "host certificate",
                    "Critical Options: (none)",
                    "Extensions: (none)",
                ],
            };
            for line in expected.iter().chain(&[
                "Key ID: \"user/alice\"",
                "Serial: 7",
                "Valid: from 2026-09-20T01:44:36 to 2026-09-20T02:44:36",
                "alice\n",
                "deploy\n",
                &format!("Signing CA: ECDSA {}", made.signed_by()),
            ]) {
                assert!(shown.contains(line), "{line:?} is missing in {shown}");
            }
        }
    }
}

#[test]
fn openssh_finds_the_revoked_certificates_in_our_list_and_no_others() {
    let dir = TestDir::new("foreign-krl");
    let (ca, other) = (KeyPair::generate(), KeyPair::generate());
    let key = key(dir.path(), "ed25519", "256");
    let revoked = [&ca, &other].map(|ca| Revoked {
        authority: ca.public(),
        serials: vec![u64::MAX, 7, 1 << 40],
    });
    let list = dir.join("krl");
    fs::write(&list, ssh::krl(3, NOW, "acme.cluster", &revoked)).expect("the list");
    let list = list.display().to_string();
    for (signer, serial, is_revoked) in [
        (&ca, 7, true),
        (&ca, 1 << 40, true),
        (&ca, u64::MAX, true),
        (&other, 7, true),
        (&ca, 8, false),
        (&KeyPair::generate(), 7, false),
    ] {
        let made = ssh::issue(&profile(SshRole::User, serial), &key, signer).expect("a certificate");
        let path = dir.write("asked-cert.pub", &format!("{}\n", made.to_line()));
        let answer = run(&mut keygen(&["-Q", "-f", &list, &path.display().to_string()]));
        assert_eq!(
            answer.code,
            Some(i32::from(is_revoked)),
            "{serial}: {}",
            answer.stdout
        );
        assert_eq!(answer.stdout.contains("REVOKED"), is_revoked, "{}", answer.stdout);
    }
}
