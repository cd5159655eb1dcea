//! Certificates for parties without an agent, before OpenSSL's strictest checks and a handshake of Python's ssl.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use carousel_tests::{Finished, run, skip};

use super::{SHORT, enter, exported, request};
use crate::world::{Log, World};

/// A type with what its leaves are for, as OpenSSL calls it, the extended usages that they bear, and how long they live.
struct Row {
    authority_type: &'static str,
    purpose: Option<&'static str>,
    usages: &'static str,
    hours: u64,
    /// Do they bear a name that a client checks?
    named: bool,
}

const CLIENT: &str = "TLS Web Client Authentication";
const SERVER: &str = "TLS Web Server Authentication";
const BOTH: &str = "TLS Web Server Authentication, TLS Web Client Authentication";
const LOGON: &str = "TLS Web Client Authentication, Microsoft Smartcard Login";
const UPN: &str = "alice@corp.example.com";
const QUARTER: u64 = 90 * 24;

const ROWS: [Row; 8] = [
    row("host", Some("sslserver"), SERVER, QUARTER, true),
    row("user", Some("sslclient"), CLIENT, 12, false),
    row("db", Some("sslserver"), SERVER, QUARTER, true),
    row("db_client", Some("sslclient"), CLIENT, 1, false),
    row("saml_idp", None, "", QUARTER, false),
    row("spiffe", Some("sslserver"), BOTH, 1, false),
    row("awsra", Some("sslclient"), CLIENT, 1, false),
    row("windows", Some("sslclient"), LOGON, 1, false),
];

const fn row(
    authority_type: &'static str,
    purpose: Option<&'static str>,
    usages: &'static str,
    hours: u64,
    named: bool,
) -> Row {
    Row {
        authority_type,
        purpose,
        usages,
        hours,
        named,
    }
}

const FORWARD: [&str; 4] = ["init", "update_clients", "update_servers", "standby"];
const BACK: [&str; 5] = ["init", "update_clients", "update_servers", "rollback", "standby"];
const NAME: &str = "pg-1.acme.example";

#[test]
fn what_is_signed_for_parties_without_an_agent_verifies_strictly_in_every_phase() {
    let test = "verifiers-x509";
    // SPIFFE has a key for tokens too, which waits for its publication.
    let started = World::start_with(test, Log::Embedded, Some(SHORT));
    let world = started.expect("the embedded log is always there");
    let mut serials = BTreeSet::new();
    for row in &ROWS {
        // By the authority that is dropped in the end: the new one on the way back, the old one forward.
        for (phases, last_of_dropped) in [(&BACK[..], "update_servers"), (&FORWARD[..], "init")] {
            let mut before: Option<PathBuf> = None;
            for phase in phases {
                enter(&world, row.authority_type, phase);
                // The party's verifiers take both generations from `init` on; its leaf is signed again in each phase.
                let trust = exported(&world, row.authority_type, "pem", "trust.pem");
                authorities_are_strict(&trust, if *phase == "standby" { 1 } else { 2 });
                let leaf = signed(&world, row);
                let _ = strictly(&trust, &leaf, row).expect_code(0);
                if let Some(before) = before {
                    let _ = strictly(&trust, &before, row).expect_code(0);
                }
                assert!(serials.insert(profile(&leaf, row)), "a serial number comes twice");
                before = Some(kept(&leaf, phase));
            }
            let dropped = world.dir.join(&format!("leaf.{last_of_dropped}"));
            let refused = strictly(&world.dir.join("trust.pem"), &dropped, row);
            assert_ne!(
                refused.code,
                Some(0),
                "{}: its authority is gone",
                row.authority_type
            );
        }
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
    let (dns, upn) = (format!("--dns={NAME}"), format!("--upn={UPN}"));
    let mut args = vec!["auth", "sign", &of_type, "--name=pg-1", &csr, &out_is];
    if row.named {
        args.push(&dns);
    }
    if row.usages == LOGON {
        args.push(&upn);
    }
    let _ = world.carousel(&args).expect_code(0);
    out
}

fn kept(leaf: &Path, phase: &str) -> PathBuf {
    let kept = leaf.with_extension(phase);
    let _ = fs::copy(leaf, &kept).expect("a copy");
    kept
}

fn strictly(trust: &Path, leaf: &Path, row: &Row) -> Finished {
    let mut openssl = Command::new("openssl");
    openssl
        .args(["verify", "-x509_strict", "-check_ss_sig", "-CAfile"])
        .arg(trust);
    if let Some(purpose) = row.purpose {
        openssl.args(["-purpose", purpose]);
    }
    if row.named {
        openssl.args(["-verify_hostname", NAME]);
    }
    run(openssl.arg(leaf))
}

/// RFC 5280, as OpenSSL prints it; the serial number.
fn profile(leaf: &Path, row: &Row) -> String {
    let text = shown(leaf);
    let value = |title: &str| below(&text, title);
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
    let also = match (row.named, row.usages) {
        (true, _) => Some(format!("DNS:{NAME}")),
        (false, LOGON) => Some(format!("othername: UPN::{UPN}")),
        (false, _) => None,
    };
    assert_eq!(names.next().map(ToOwned::to_owned), also);
    assert!(
        text.contains("CN = pg-1\n"),
        "of the request only the key is taken: {text}"
    );
    let serial = value("Serial Number");
    assert_eq!(serial.split(':').count(), 16, "{serial}");
    lives(leaf, row.hours);
    serial
}

/// All that are exported: so many.
fn authorities_are_strict(trust: &Path, count: usize) {
    let pem = fs::read_to_string(trust).expect("an export");
    let all: Vec<&str> = pem.split_inclusive("-----END CERTIFICATE-----\n").collect();
    assert_eq!(all.len(), count, "{pem}");
    for one in all {
        let path = trust.with_extension("one");
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
        let serial = below(&text, "Serial Number");
        assert_eq!(serial.split(':').count(), 16, "{serial}");
        lives(&path, 3_653 * 24);
    }
}

/// It ends in so many hours, and a moment less for what has passed since it was made.
fn lives(certificate: &Path, hours: u64) {
    let ends_within = |seconds: u64| {
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-checkend", &seconds.to_string(), "-in"]);
        run(openssl.arg(certificate)).code == Some(1)
    };
    assert!(ends_within(hours * 3_600 + 1), "it lives longer than {hours} h");
    assert!(
        !ends_within(hours * 3_600 - 1_800),
        "it lives less than {hours} h"
    );
}

/// The line below a title in what OpenSSL prints.
fn below(text: &str, title: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line.trim().starts_with(title));
    let _ = lines.next();
    lines.next().map(str::trim).unwrap_or_default().to_owned()
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
    let [_, _, db, db_client, ..] = &ROWS;
    for row in [db, db_client] {
        let _ = side(&world, row);
    }
    // The one type a phase ahead of the other, and then both in it; first the database, then its client.
    for order in [[db, db_client], [db_client, db]] {
        for phase in BACK.into_iter().chain(FORWARD) {
            for row in order {
                enter(&world, row.authority_type, phase);
                let name = row.authority_type;
                let _ = exported(&world, name, "pem", &format!("{name}.pem"));
                // What it has from the phase before counts on, until it has something newer.
                they_shake_hands(&world, &format!("{name} in {phase}, as it was"));
                let _ = side(&world, row);
                they_shake_hands(&world, &format!("{name} in {phase}"));
            }
        }
    }
}

/// A leaf with its key, and whom its peers are to trust: NAME.crt, NAME.key and NAME.pem.
fn side(world: &World, row: &Row) -> PathBuf {
    let leaf = signed(world, row);
    let name = row.authority_type;
    let at = |suffix: &str| world.dir.join(&format!("{name}.{suffix}"));
    fs::rename(leaf, at("crt"))
        .and_then(|()| fs::rename(world.dir.join("leaf.key"), at("key")))
        .expect("the same directory");
    exported(world, name, "pem", &format!("{name}.pem"))
}

fn they_shake_hands(world: &World, when: &str) {
    let mut python = Command::new("python3");
    python.args(["-c", HANDSHAKE]);
    let files = [
        "db.crt",
        "db.key",
        "db_client.crt",
        "db_client.key",
        "db.pem",
        "db_client.pem",
    ];
    python.args(files.map(|file| world.dir.join(file))).arg(NAME);
    assert_eq!(run(&mut python).expect_code(0).trim(), "pg-1", "{when}");
}
