//! Certificates for parties without an agent, before OpenSSL's strictest checks and a handshake of Python's ssl.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use carousel_tests::{run, skip};

use super::{SHORT, enter, exported, request};
use crate::world::{Log, World};

/// A type with what its leaves are for, as OpenSSL calls it, and the extended usages that they bear.
struct Row {
    authority_type: &'static str,
    purpose: Option<&'static str>,
    usages: &'static str,
}

const ROWS: [Row; 7] = [
    row("user", Some("sslclient"), "TLS Web Client Authentication"),
    row("db", Some("sslserver"), "TLS Web Server Authentication"),
    row("db_client", Some("sslclient"), "TLS Web Client Authentication"),
    row("saml_idp", None, ""),
    row(
        "spiffe",
        Some("sslserver"),
        "TLS Web Server Authentication, TLS Web Client Authentication",
    ),
    row("awsra", Some("sslclient"), "TLS Web Client Authentication"),
    row("windows", Some("sslclient"), "TLS Web Client Authentication"),
];

const fn row(authority_type: &'static str, purpose: Option<&'static str>, usages: &'static str) -> Row {
    Row {
        authority_type,
        purpose,
        usages,
    }
}

const FORWARD: [&str; 4] = ["init", "update_clients", "update_servers", "standby"];
const BACK: [&str; 4] = ["init", "update_clients", "rollback", "standby"];
const NAME: &str = "pg-1.acme.example";

#[test]
fn what_is_signed_for_parties_without_an_agent_verifies_strictly_in_every_phase() {
    let test = "verifiers-x509";
    // SPIFFE has a key for tokens too, which waits for its publication.
    let started = World::start_with(test, Log::Embedded, Some(SHORT));
    let world = started.expect("the embedded log is always there");
    let mut serials = BTreeSet::new();
    for row in &ROWS {
        let mut before: Option<PathBuf> = None;
        for phase in BACK.into_iter().chain(FORWARD) {
            enter(&world, row.authority_type, phase);
            // The party's verifiers take both generations from `init` on; its leaf is signed again in each phase.
            let trust = exported(&world, row.authority_type, "pem", "trust.pem");
            let leaf = signed(&world, row);
            strictly(&trust, &leaf, row);
            if let Some(before) = before.filter(|_| phase != "standby") {
                strictly(&trust, &before, row);
            }
            assert!(serials.insert(profile(&leaf, row)), "a serial number comes twice");
            before = Some(kept(&leaf));
        }
        authorities_are_strict(&world.dir.join("trust.pem"));
    }
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// A leaf by a request of OpenSSL; the key stays where it was made.
fn signed(world: &World, row: &Row) -> PathBuf {
    let (csr, out) = (request(world, "leaf"), world.dir.join("leaf.crt"));
    let of_type = format!("--type={}", row.authority_type);
    let (csr, out_is) = (
        format!("--csr={}", csr.display()),
        format!("--out={}", out.display()),
    );
    let dns = format!("--dns={NAME}");
    let mut args = vec!["auth", "sign", &of_type, "--name=pg-1", &csr, &out_is];
    if row.authority_type == "db" {
        args.push(&dns);
    }
    let _ = world.carousel(&args).expect_code(0);
    out
}

fn kept(leaf: &Path) -> PathBuf {
    let kept = leaf.with_extension("before");
    let _ = fs::copy(leaf, &kept).expect("a copy");
    kept
}

fn strictly(trust: &Path, leaf: &Path, row: &Row) {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["verify", "-x509_strict", "-check_ss_sig", "-CAfile"])
        .arg(trust);
    if let Some(purpose) = row.purpose {
        openssl.args(["-purpose", purpose]);
    }
    if row.authority_type == "db" {
        openssl.args(["-verify_hostname", NAME]);
    }
    let _ = run(openssl.arg(leaf)).expect_code(0);
}

/// RFC 5280, as OpenSSL prints it; the serial number.
fn profile(leaf: &Path, row: &Row) -> String {
    let text = shown(leaf);
    let value = |title: &str| {
        let mut lines = text.lines().skip_while(|line| !line.trim().starts_with(title));
        let _ = lines.next();
        lines.next().map(str::trim).unwrap_or_default().to_owned()
    };
    assert_eq!(value("X509v3 Key Usage: critical"), "Digital Signature");
    assert_eq!(value("X509v3 Basic Constraints: critical"), "CA:FALSE");
    assert_eq!(value("X509v3 Extended Key Usage"), row.usages, "{text}");
    for identifier in ["X509v3 Authority Key Identifier", "X509v3 Subject Key Identifier"] {
        assert_eq!(value(identifier).split(':').count(), 32, "{identifier}");
    }
    let uri = match row.authority_type {
        "spiffe" => "URI:spiffe://acme.cluster/pg-1",
        _ => "URI:carousel://acme.cluster/external/pg-1",
    };
    let names = value("X509v3 Subject Alternative Name");
    let mut names = names.split(", ");
    assert_eq!(names.next(), Some(uri));
    assert_eq!(names.next().is_some(), row.authority_type == "db");
    assert!(
        text.contains("CN = pg-1\n"),
        "of the request only the key is taken: {text}"
    );
    let serial = value("Serial Number");
    assert_eq!(serial.split(':').count(), 16, "{serial}");
    serial
}

fn authorities_are_strict(trust: &Path) {
    let pem = fs::read_to_string(trust).expect("an export");
    for (n, one) in pem.split_inclusive("-----END CERTIFICATE-----\n").enumerate() {
        let path = trust.with_extension(n.to_string());
        fs::write(&path, one).expect("a file");
        let text = shown(&path);
        for expected in [
            "X509v3 Basic Constraints: critical",
            "CA:TRUE, pathlen:0",
            "X509v3 Key Usage: critical",
            "Certificate Sign, CRL Sign",
            "X509v3 Subject Key Identifier",
        ] {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
    }
}

fn shown(certificate: &Path) -> String {
    let mut openssl = Command::new("openssl");
    run(openssl.args(["x509", "-noout", "-text", "-in"]).arg(certificate)).expect_code(0)
}

/// Both sides of a connection in one process; each verifies the other with the strictest flags that there are.
const HANDSHAKE: &str = "
import ssl, sys
server_leaf, server_key, client_leaf, client_key, servers, clients, name = sys.argv[1:]
def context(side, leaf, key, trust):
    context = ssl.SSLContext(side)
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(trust)
    context.load_cert_chain(leaf, key)
    return context
to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
server = context(ssl.PROTOCOL_TLS_SERVER, server_leaf, server_key, clients)
client = context(ssl.PROTOCOL_TLS_CLIENT, client_leaf, client_key, servers)
server = server.wrap_bio(to_server, to_client, server_side=True)
client = client.wrap_bio(to_client, to_server, server_hostname=name)
done = set()
while len(done) < 2:
    for side in (client, server):
        try:
            side.do_handshake()
            done.add(side)
        except ssl.SSLWantReadError:
            pass
client.write(b'hello')
assert server.read() == b'hello'
print(dict(pair for part in server.getpeercert()['subject'] for pair in part)['commonName'])
";

#[test]
fn a_database_and_its_client_verify_each_other_in_every_pair_of_phases() {
    let test = "verifiers-databases";
    if run(Command::new("python3").args(["-c", "import ssl"])).code != Some(0) {
        return skip(test, "Python is not installed");
    }
    let world = World::start(test, Log::Embedded).expect("the embedded log is always there");
    let [_, db, db_client, ..] = &ROWS;
    for phase in FORWARD {
        // The one type a phase ahead of the other, and then both in it.
        for row in [db, db_client] {
            enter(&world, row.authority_type, phase);
            let sides = [db, db_client].map(|row| {
                let leaf = signed(&world, row);
                let name = row.authority_type;
                let at = |suffix: &str| world.dir.join(&format!("{name}.{suffix}"));
                let _ = fs::rename(leaf, at("crt"))
                    .and_then(|()| fs::rename(world.dir.join("leaf.key"), at("key")));
                (
                    at("crt"),
                    at("key"),
                    exported(&world, name, "pem", &format!("{name}.pem")),
                )
            });
            let [(server, server_key, servers), (client, client_key, clients)] = &sides;
            let mut python = Command::new("python3");
            python.args(["-c", HANDSHAKE]);
            python
                .args([server, server_key, client, client_key, servers, clients])
                .arg(NAME);
            assert_eq!(run(&mut python).expect_code(0).trim(), "pg-1", "{phase}");
        }
    }
}
