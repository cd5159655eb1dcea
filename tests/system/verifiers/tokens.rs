//! PyJWT's caching reader of key sets, with its default caches: no token that should count is refused, and none accepted
//! that should not.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use carousel_tests::skip;

use super::{SHORT, enter, exported, python};
use crate::world::{Log, World};

/// One reader for the whole test: what it fetched stays in its cache for five minutes, whatever happens here.
const READER: &str = "
import json, sys, urllib.request
import jwt
discovery = json.load(urllib.request.urlopen(sys.argv[1] + '/.well-known/openid-configuration'))
assert discovery['issuer'] == sys.argv[1], discovery
client = jwt.PyJWKClient(discovery['jwks_uri'])
for line in sys.stdin:
    token = line.strip()
    try:
        key = client.get_signing_key_from_jwt(token)
        claims = jwt.decode(token, key.key, algorithms=discovery['id_token_signing_alg_values_supported'],
                            audience='https://api.acme.example', issuer=discovery['issuer'])
        print('good ' + claims['sub'], flush=True)
    except jwt.PyJWTError as error:
        print(type(error).__name__, flush=True)
";

const TYPES: [&str; 4] = ["jwt", "oidc_idp", "okta", "spiffe"];
const FORWARD: [&str; 4] = ["init", "update_clients", "update_servers", "standby"];
const BACK: [&str; 4] = ["init", "update_clients", "rollback", "standby"];

struct Reader {
    child: Child,
    asks: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Reader {
    fn start(world: &World, python: &str, authority_type: &str) -> Self {
        let trust = exported(world, "host", "pem", &format!("host-{authority_type}.pem"));
        let mut child = Command::new(python)
            .args(["-c", READER])
            .arg(format!("{}/v1/oidc/{authority_type}", world.url))
            .env("SSL_CERT_FILE", trust)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let (asks, says) = (child.stdin.take(), child.stdout.take());
        Self {
            child,
            asks: asks.expect("piped"),
            says: BufReader::new(says.expect("piped")),
        }
    }

    /// What it says of a token.
    fn read(&mut self, token: &str) -> String {
        writeln!(self.asks, "{token}").expect("it listens");
        let mut line = String::new();
        let _ = self.says.read_line(&mut line).expect("it speaks");
        line.trim().to_owned()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_caching_reader_of_key_sets_takes_every_token_that_counts_and_none_that_does_not() {
    let test = "verifiers-tokens";
    let Some(python) = python("jwt, cryptography") else {
        return skip(test, "Python with PyJWT is not installed");
    };
    let started = World::start_with(test, Log::Embedded, Some(SHORT));
    let world = started.expect("the embedded log is always there");
    // Each type rotates by itself, all at once.
    std::thread::scope(|scope| {
        for authority_type in TYPES {
            let world = &world;
            scope.spawn(move || goes_round(world, python, authority_type));
        }
    });
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// One rotation back and one to the end, with a token verified in every phase.
fn goes_round(world: &World, python: &str, authority_type: &str) {
    let mut reader = Reader::start(world, python, authority_type);
    let subject = match authority_type {
        "spiffe" => "good spiffe://acme.cluster/billing",
        _ => "good billing",
    };
    // The newest token of each key.
    let mut newest = BTreeMap::new();
    let mut kids = vec![kid(&issued(world, authority_type))];
    for phase in BACK.into_iter().chain(FORWARD) {
        let before = issued(world, authority_type);
        assert_eq!(reader.read(&before), subject, "{authority_type} before {phase}");
        let _ = newest.insert(kid(&before), before.clone());
        enter(world, authority_type, phase);
        // One that was handed out a moment ago counts on in the next phase, for whoever has looked and whoever looks now.
        let mut fresh = Reader::start(world, python, authority_type);
        for reader in [&mut reader, &mut fresh] {
            let read = reader.read(&before);
            let is_over = read == "ExpiredSignatureError" && has_ended(&before);
            assert!(
                read == subject || is_over,
                "{authority_type} in {phase}: {read} of one from before"
            );
        }
        let now = issued(world, authority_type);
        for reader in [&mut reader, &mut fresh] {
            assert_eq!(reader.read(&now), subject, "{authority_type} in {phase}");
        }
        if phase == "standby" {
            // Of the key that was retired none is left that counts: the reader of the beginning still has it in its cache.
            let retired: Vec<_> = newest.iter().filter(|(of, _)| **of != kid(&now)).collect();
            assert!(!retired.is_empty(), "{authority_type}: a key was retired");
            for (of, token) in retired {
                for reader in [&mut reader, &mut fresh] {
                    assert_ne!(
                        reader.read(token),
                        subject,
                        "{authority_type}: of the retired key {of}"
                    );
                }
            }
        }
        kids.push(kid(&now));
    }
    kids.dedup();
    // The old key, the one that was rolled back, the old one again, the new one.
    assert_eq!(kids.len(), 4, "{authority_type}: {kids:?}");
    assert_eq!(kids[0], kids[2]);
    let (signed, signature) = {
        let token = issued(world, authority_type);
        let (signed, signature) = token.rsplit_once('.').expect("a signature");
        (signed.to_owned(), signature.to_owned())
    };
    let (first, rest) = signature.split_at(1);
    let other = if first == "A" { "B" } else { "A" };
    let changed = format!("{signed}.{other}{rest}");
    assert_ne!(
        reader.read(&changed),
        subject,
        "a reader that takes everything proves nothing"
    );
}

fn issued(world: &World, authority_type: &str) -> String {
    let args = [
        "auth",
        "token",
        &format!("--type={authority_type}"),
        "--name=billing",
        "--audience=https://api.acme.example",
    ];
    world.carousel(&args).expect_code(0).trim().to_owned()
}

/// The key that a token names.
fn kid(token: &str) -> String {
    part(token, 0)["kid"].as_str().expect("a key").to_owned()
}

fn has_ended(token: &str) -> bool {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
    part(token, 1)["exp"].as_u64().expect("an end") <= now.as_secs()
}

/// Its header, or its claims.
fn part(token: &str, n: usize) -> serde_json::Value {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let text = token.split('.').nth(n).expect("three parts");
    let json = URL_SAFE_NO_PAD.decode(text).expect("base64url");
    serde_json::from_slice(&json).expect("JSON")
}
