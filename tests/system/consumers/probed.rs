//! Consumers that are looked at instead of asked: other people's servers, which follow a rotation in their own time, or lie.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use carousel_tests::{Finished, PATIENCE, Proc, TestDir, deadline, run, skip};
use domain::{
    SpkiPin, Timestamp,
    time::{DAY_MS, MINUTE_MS},
};
use pki::ssh::{SshProfile, SshPublicKey, SshRole};
use serde_json::Value;
use signer::{FileStore, KeyStore};

use super::{consumers, refused};
use crate::{
    forged::now,
    proof::copy_dir,
    world::{Log, World, authority, text},
};

/// A test of key sets need not wait for minutes until a new key may sign.
const SHORT: &str = "jwks_max_age_ms = 1000\njwt_ttl_ms = 3000\n";

fn add(world: &World, name: &str, of: &str, at: &str) {
    let args = ["add", name, of, "--owner", "its team", "--probe", at];
    let said = consumers(world, &args).expect_code(0);
    assert!(said.contains(at), "{said}");
}

fn probe(world: &World, name: &str, of: &str) -> Finished {
    consumers(world, &["probe", name, of])
}

/// Nothing is proven, and what is missing is said.
fn unproven(world: &World, name: &str, of: &str, missing: &str) {
    let finished = probe(world, name, of);
    assert_eq!(finished.code, Some(1), "{} {}", finished.stdout, finished.stderr);
    assert!(
        finished.stdout.contains(missing),
        "{missing}: {}",
        finished.stdout
    );
}

/// The next step, which nobody helps: the control plane sees by itself that the consumer has followed.
fn goes_on(world: &World, of: &str, phase: &str) {
    deadline(PATIENCE, &format!("{phase} of {of} opens by itself"), || {
        let entered = world.enter(of, phase);
        let waits = ["consumers_lagging", "publication_time"].map(|code| entered.stderr.contains(code));
        assert!(
            entered.code == Some(0) || waits.contains(&true),
            "{}",
            entered.stderr
        );
        (entered.code == Some(0)).then_some(())
    });
    world.enter_and_wait(of, phase);
}

/// The id of the type's key of this kind and status.
fn key_id(world: &World, of: &str, protocol: &str, status: &str) -> String {
    let document = authority(&world.json(&["status"]), of);
    let keys = document["keys"].as_array().expect("keys").iter();
    let mut found = keys.filter(|key| key["protocol"] == protocol && key["status"] == status);
    text(&found.next().expect("a key of this kind and status")["pin"])
}

/// Every attestation on record: was it a probe's, and on whose word?
fn attestations(world: &World) -> Vec<(bool, String)> {
    let events = world.json(&["audit", "ls", "--all"]);
    let events = events.as_array().expect("events").iter();
    let attested = events.filter(|event| event["type"] == "carousel.consumer.attested.v1");
    attested
        .map(|event| {
            assert_eq!(event["data"]["probed"] == true, event["data"]["saw"].is_object());
            (event["data"]["probed"] == true, text(&event["authtype"]))
        })
        .collect()
}

/// A free port of the loopback, which a server of others is to listen on again and again.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn exists(program: &str, asked: &str) -> bool {
    Command::new(program).arg(asked).output().is_ok()
}

/// A database that asks its clients for certificates, by OpenSSL.
struct Database {
    port: u16,
    dir: PathBuf,
    proc: Option<Proc>,
}

impl Database {
    fn new(world: &World) -> Self {
        let dir = world.dir.join("database");
        fs::create_dir_all(&dir).expect("a directory");
        let (key, own) = (dir.join("own.key"), dir.join("own.crt"));
        let mut make = Command::new("openssl");
        make.args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=pg",
        ]);
        let _ = run(make.arg("-keyout").arg(key).arg("-out").arg(own)).expect_code(0);
        Self {
            port: free_port(),
            dir,
            proc: None,
        }
    }

    /// Takes over what the authority exports now, as its owner would, and starts again.
    fn install(&mut self, world: &World, of: &str) {
        self.stop();
        let pem = world.carousel(&["auth", "export", of, "--as=pem"]).expect_code(0);
        fs::write(self.dir.join("clients.pem"), pem).expect("a file");
        self.start();
    }

    /// With what it has, which may be of another time.
    fn start(&mut self) {
        let mut command = Command::new("openssl");
        command
            .args(["s_server", "-tls1_3", "-www", "-Verify", "1", "-accept"])
            .arg(format!("127.0.0.1:{}", self.port))
            .arg("-CAfile")
            .arg(self.dir.join("clients.pem"))
            .arg("-key")
            .arg(self.dir.join("own.key"))
            .arg("-cert")
            .arg(self.dir.join("own.crt"));
        let mut proc = Proc::start("s_server", &mut command);
        let _ = proc.wait_for_line("ACCEPT", PATIENCE);
        self.proc = Some(proc);
    }

    fn stop(&mut self) {
        if let Some(mut proc) = self.proc.take() {
            proc.kill9();
        }
    }
}

#[test]
fn a_server_that_verifies_clients_is_waited_for_until_it_names_both_authorities() {
    let test = "probed-tls";
    if !exists("openssl", "version") {
        return skip(test, "OpenSSL is not installed");
    }
    let world = World::start(test, Log::Embedded).expect("the embedded log is always there");
    let of = "--type=db_client";
    let mut database = Database::new(&world);
    let at = format!("tls://127.0.0.1:{}", database.port);
    add(&world, "pg", of, &at);
    unproven(&world, "pg", of, "cannot be reached");
    database.install(&world, of);
    // Before a rotation nothing is recorded: it is seen whether the probe works.
    let _ = probe(&world, "pg", of).expect_code(0);
    assert!(attestations(&world).is_empty());

    world.enter_and_wait("db_client", "init");
    let new = key_id(&world, "db_client", "tls", "prepared");
    refused(
        &world.enter("db_client", "update_clients"),
        "consumers_lagging",
        "pg",
    );
    unproven(&world, "pg", of, &format!("does not trust {new}"));
    let plan = world.carousel(&["auth", "rotate", of, "--plan"]).expect_code(0);
    assert!(plan.contains(&at), "{plan}");
    database.install(&world, of);
    for phase in ["update_clients", "update_servers"] {
        goes_on(&world, "db_client", phase);
    }
    // A person may still say it, also where there is a probe.
    database.stop();
    let _ = consumers(&world, &["attest", "pg", of]).expect_code(0);
    world.enter_and_wait("db_client", "standby");
    let words = attestations(&world);
    let by_probe = words
        .iter()
        .filter(|(probed, by)| *probed && by == "gateway")
        .count();
    assert!(by_probe >= 2, "the gateway saw it in each phase: {words:?}");
    let shown = world.carousel(&["audit", "ls"]).expect_code(0);
    assert!(shown.contains("by a probe, which saw clients of"), "{shown}");
    // The server was not told that the rotation is over.
    database.start();
    unproven(&world, "pg", of, "still trusts");
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// sshd with one host key.
struct Bastion {
    port: u16,
    dir: TestDir,
    _proc: Proc,
}

impl Bastion {
    /// None without sshd.
    fn start(world: &World) -> Option<Self> {
        let sshd = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].map(Path::new);
        let sshd = sshd.into_iter().find(|path| path.exists())?;
        // Where it is root it insists on this directory, which its package makes at each start of the machine.
        let _ = fs::create_dir_all("/run/sshd");
        let dir = TestDir::new("bastion");
        let (port, key) = (free_port(), dir.join("host_key"));
        let mut make = Command::new("ssh-keygen");
        let _ = run(make.args(["-q", "-N", "", "-t", "ed25519", "-f"]).arg(&key)).expect_code(0);
        let (key, certificate) = (key.display(), dir.join("host_key-cert.pub"));
        let certificate = certificate.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nHostCertificate {certificate}\nPidFile none\n"
        );
        let config = dir.write("config", &config);
        certify(world, &dir, "active");
        let mut command = Command::new(sshd);
        let mut proc = Proc::start("sshd", command.args(["-D", "-e", "-f"]).arg(config));
        let _ = proc.wait_for_line("Server listening", PATIENCE);
        Some(Self {
            port,
            dir,
            _proc: proc,
        })
    }
}

/// Its host key certified by the cluster's authority of this status, in the way of whoever has its key.
fn certify(world: &World, dir: &TestDir, status: &str) {
    let loot = TestDir::new("bastion-keys");
    copy_dir(&world.data().join("keys"), loot.path());
    let store = FileStore::open(loot.path()).expect("the copy opens");
    let pin: SpkiPin = key_id(world, "host", "ssh", status).parse().expect("a pin");
    let signer = store.signer(&pin).expect("the key of SSH certificates");
    let line = fs::read_to_string(dir.join("host_key.pub")).expect("the public half");
    let profile = SshProfile {
        role: SshRole::Host,
        key_id: "bastion".into(),
        serial: 7,
        principals: vec!["bastion.example".into()],
        valid_after: now().minus_ms(5 * MINUTE_MS),
        valid_before: Timestamp(now().0 / 1_000 * 1_000).plus_ms(DAY_MS),
        critical_options: Default::default(),
        extensions: vec![],
    };
    let key = SshPublicKey::parse(&line).expect("a key that OpenSSH has just made");
    let certificate = pki::ssh::issue(&profile, &key, &*signer).expect("a certificate");
    let _ = dir.write("host_key-cert.pub", &format!("{}\n", certificate.to_line()));
}

#[test]
fn sshd_is_waited_for_until_its_host_certificate_is_the_new_authoritys() {
    let test = "probed-ssh";
    let world = World::start(test, Log::Embedded).expect("the embedded log is always there");
    let Some(bastion) = Bastion::start(&world) else {
        return skip(test, "sshd is not installed (openssh-server)");
    };
    let of = "--type=host";
    add(
        &world,
        "bastion",
        of,
        &format!("ssh://127.0.0.1:{}", bastion.port),
    );
    let _ = probe(&world, "bastion", of).expect_code(0);
    world.enter_and_wait("host", "init");
    // Until servers change there is nothing for it to do, and that is seen.
    for phase in ["update_clients", "update_servers"] {
        goes_on(&world, "host", phase);
    }
    refused(&world.enter("host", "standby"), "consumers_lagging", "bastion");
    let [old, new] = ["active", "prepared"].map(|status| key_id(&world, "host", "ssh", status));
    unproven(
        &world,
        "bastion",
        of,
        &format!("issued by {old}, and the row names {new}"),
    );
    certify(&world, &bastion.dir, "prepared");
    goes_on(&world, "host", "standby");
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// What a reader of tokens answers.
#[derive(Clone)]
enum Says {
    /// These key ids.
    Holds(Vec<String>),
    /// Whatever this is.
    Raw(&'static str),
    /// Nothing, and it does not hang up.
    Nothing,
}

/// A reader of tokens that says over HTTP which keys it holds.
struct Reader {
    at: String,
    says: Arc<Mutex<Says>>,
}

impl Reader {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let says = Arc::new(Mutex::new(Says::Nothing));
        let shared = says.clone();
        // It ends with the test's process.
        let _ = thread::spawn(move || {
            let mut held = vec![];
            for stream in listener.incoming().flatten() {
                let says = shared.lock().unwrap_or_else(PoisonError::into_inner).clone();
                held.extend(answer(stream, &says));
            }
        });
        Self { at, says }
    }

    fn says(&self, says: Says) {
        *self.says.lock().unwrap_or_else(PoisonError::into_inner) = says;
    }
}

/// Answers one request; gives back a connection that is not to be closed.
fn answer(mut stream: TcpStream, says: &Says) -> Option<TcpStream> {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = stream.read(&mut [0; 4096]);
    let text = match says {
        Says::Nothing => return Some(stream),
        Says::Raw(text) => (*text).to_owned(),
        Says::Holds(kids) => {
            let body = serde_json::to_string(kids).expect("JSON");
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        }
    };
    let _ = stream.write_all(text.as_bytes());
    None
}

/// The ids in the key set.
fn kids(world: &World) -> Vec<String> {
    let set = world
        .carousel(&["auth", "export", "--type=jwt", "--as=jwks"])
        .expect_code(0);
    let set: Value = serde_json::from_str(&set).expect("a key set");
    let keys = set["keys"].as_array().expect("keys").iter();
    keys.map(|key| text(&key["kid"])).collect()
}

#[test]
fn a_reader_of_tokens_is_waited_for_until_it_holds_both_keys_whatever_else_it_says() {
    let started = World::start_with("probed-jwks", Log::Embedded, Some(SHORT));
    let world = started.expect("the embedded log is always there");
    let (of, reader) = ("--type=jwt", Reader::start());
    add(&world, "reader", of, &reader.at);
    let old = kids(&world);
    reader.says(Says::Holds(old.clone()));
    let _ = probe(&world, "reader", of).expect_code(0);
    world.enter_and_wait("jwt", "init");
    let new = key_id(&world, "jwt", "jwt", "prepared");
    unproven(&world, "reader", of, &format!("does not trust {new}"));
    for (says, missing) in [
        (Says::Nothing, "within 10 s"),
        (Says::Raw("SSH-2.0-OpenSSH_9.2\r\n"), "cannot reach"),
        (
            Says::Raw("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 2\r\n\r\n[]"),
            "302",
        ),
        (
            Says::Raw("HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n{\"keys\": ["),
            "reader",
        ),
        (
            Says::Raw("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnull"),
            "neither a key set",
        ),
        (Says::Holds(vec!["made up".into()]), "does not trust"),
    ] {
        reader.says(says);
        unproven(&world, "reader", of, missing);
    }
    refused(
        &world.enter("jwt", "update_clients"),
        "consumers_lagging",
        "reader",
    );
    assert!(attestations(&world).is_empty(), "nothing of that was a proof");
    let both = kids(&world);
    assert!(both.len() == 2 && both.contains(&old[0]), "{both:?}");
    reader.says(Says::Holds(both));
    for phase in ["update_clients", "update_servers", "standby"] {
        goes_on(&world, "jwt", phase);
    }
    assert!(attestations(&world).iter().all(|(probed, _)| *probed));
    let listed = consumers(&world, &["ls"]).expect_code(0);
    assert!(
        listed.contains(&reader.at) && listed.contains("update_servers (probed)"),
        "{listed}"
    );
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}
