//! What is made of what the other side says, whatever it says.

use std::{collections::BTreeSet, net::SocketAddr};

use domain::{
    Position, Timestamp,
    authority::{AuthorityKey, KeyKind},
    probe::{Presented, Sight},
};
use pki::{
    KeyPair,
    authority::bare_key,
    jwt::{Jwks, jwk, thumbprint},
    ssh::{SshProfile, SshPublicKey, SshRole, issue},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::{Known, jwks, ssh};

const NOW: Timestamp = Timestamp(1_789_868_676_000);

fn known(kind: KeyKind, keys: &[&KeyPair]) -> Known {
    let own: Vec<AuthorityKey> = keys
        .iter()
        .map(|key| AuthorityKey {
            position: Position(1),
            ..bare_key(kind, *key, 1, None, NOW)
        })
        .collect();
    Known { own, others: vec![] }
}

/// A server that says this to whoever asks, and hangs up.
async fn saying(answer: Vec<u8>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut asked = [0; 4096];
            let _ = tcp.read(&mut asked).await;
            let _ = tcp.write_all(&answer).await;
        }
    });
    (at, tasks)
}

async fn read(status: &str, head: &str, body: &str, known: &Known) -> Result<Sight, String> {
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{head}\r\n{body}");
    let (at, _server) = saying(answer.into_bytes()).await;
    let address = format!("http://{at}/keys").parse().unwrap();
    jwks::look(at, &address, known).await
}

#[tokio::test]
async fn a_reader_answers_with_a_key_set_or_with_ids_and_keys_of_others_are_counted() {
    let (one, two) = (KeyPair::generate(), KeyPair::generate());
    let known = known(KeyKind::Jwt, &[&one, &two]);
    let set = Jwks {
        keys: vec![
            jwk(one.public()),
            jwk(two.public()),
            jwk(KeyPair::generate().public()),
        ],
    };
    let set = serde_json::to_string(&set).unwrap();
    let both: BTreeSet<_> = [one.public().pin(), two.public().pin()].into();
    let seen = read("200 OK", "", &set, &known).await.unwrap();
    let (holds, others) = (both, 1);
    assert_eq!(seen, Sight::Jwks { holds, others });
    let ids = serde_json::to_string(&[thumbprint(one.public()), "x".into(), "y".into()]).unwrap();
    let seen = read("200 OK", "", &ids, &known).await.unwrap();
    let (holds, others) = ([one.public().pin()].into(), 2);
    assert_eq!(seen, Sight::Jwks { holds, others });
}

#[tokio::test]
async fn what_is_no_key_set_or_leads_elsewhere_or_never_ends_is_an_error() {
    let key = KeyPair::generate();
    let known = known(KeyKind::Jwt, &[&key]);
    let ids = serde_json::to_string(&[thumbprint(key.public())]).unwrap();
    let elsewhere = "Location: http://169.254.169.254/\r\n";
    for (status, head, body) in [
        ("200 OK", "", "<html>"),
        ("200 OK", "", "{\"keys\": 7}"),
        ("200 OK", "", "null"),
        ("200 OK", "", &"[".repeat(10_000)),
        ("200 OK", "", &format!("[\"{}\"]", "a".repeat(70_000))),
        ("302 Found", elsewhere, &ids),
        ("500 Internal Server Error", "", &ids),
    ] {
        let seen = read(status, head, body, &known).await;
        assert!(seen.is_err(), "{status} {head:?}: {seen:?}");
    }
    let (at, _server) = saying(b"SSH-2.0-x\r\n".to_vec()).await;
    let address = format!("http://{at}/").parse().unwrap();
    assert!(jwks::look(at, &address, &known).await.is_err());
}

#[test]
fn host_certificates_of_ours_are_found_in_any_version_of_the_answer_and_nothing_else_is() {
    let (ours, theirs) = (KeyPair::generate(), KeyPair::generate());
    let known = known(KeyKind::Ssh, &[&ours]);
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    let key = SshPublicKey::parse(key).unwrap();
    let line = |role, by: &KeyPair| {
        let profile = SshProfile {
            role,
            key_id: "n1".into(),
            serial: 7,
            principals: vec!["n1".into()],
            valid_after: NOW,
            valid_before: Timestamp(NOW.0 + 60_000),
            critical_options: Default::default(),
            extensions: vec![],
        };
        issue(&profile, &key, by).unwrap().to_line()
    };
    let host = line(SshRole::Host, &ours);
    let presents = vec![Presented {
        issuer: ours.public().pin(),
        not_after: Timestamp(NOW.0 + 60_000),
    }];
    for answer in [
        host.clone(),
        format!("[127.0.0.1]:22 {host}\n[127.0.0.1]:22 {host}\n"),
        format!("@cert-authority h {host} a comment\n"),
    ] {
        let expected = Sight::Ssh {
            presents: presents.clone(),
        };
        assert_eq!(ssh::sight(&answer, &known), expected, "{answer}");
    }
    let broken = host.replace("AAAA", "AAAB");
    let others = [
        line(SshRole::Host, &theirs),
        line(SshRole::User, &ours),
        broken,
        "x-cert-v01@openssh.com".into(),
        "\u{0}\u{1b}[31m -cert-v01@openssh.com %%%".into(),
        key.to_line(),
        String::new(),
    ];
    for answer in others {
        assert_eq!(
            ssh::sight(&answer, &known),
            Sight::Ssh { presents: vec![] },
            "{answer}"
        );
    }
}
