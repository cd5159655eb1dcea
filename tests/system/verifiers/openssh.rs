//! A real sshd and a real ssh: logins all the time, while the authorities of hosts, people and deployments rotate.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use carousel_tests::{PATIENCE, Proc, deadline, run, skip};

use super::{enter, exported, put};
use crate::world::{Log, World};

const HOST: &str = "web-1.acme.example";

/// The machine with sshd on it, and those who log in there.
pub(super) struct Machine<'w> {
    world: &'w World,
    pub(super) sshd: Proc,
    port: u16,
    account: String,
    /// What sshd presents, and by what it is known to those who log in.
    pub(super) host: Host,
}

/// Where a host's certificate is and whom it lets in, what its clients trust, and the name that they know it by.
pub(super) struct Host {
    pub(super) certificate: PathBuf,
    pub(super) trusted_people: PathBuf,
    pub(super) revoked_people: Option<PathBuf>,
    pub(super) known_hosts: PathBuf,
    pub(super) revoked_hosts: Option<PathBuf>,
    pub(super) name: &'static str,
}

/// Who logs in: with a key, and the certificate beside it.
pub(super) struct Person {
    key: PathBuf,
    /// How often so far.
    logins: AtomicUsize,
}

#[test]
fn whoever_logs_in_over_ssh_is_let_in_through_every_rotation_and_never_asked_about_a_host_key() {
    let test = "verifiers-openssh";
    if sshd().is_none() {
        return skip(test, "sshd is not installed");
    }
    let world = World::start(test, Log::Embedded).expect("the embedded log is always there");
    let account = own_account();
    let alice = world.dir.join("alice.identity").display().to_string();
    let add = [
        "users", "add", "alice", "--roles", "auditor", "--out", &alice, "--logins", &account,
    ];
    let _ = world.carousel(&add).expect_code(0);
    let host = Host {
        certificate: world.dir.join("host_key-cert.pub"),
        trusted_people: world.dir.join("people"),
        revoked_people: None,
        known_hosts: world.dir.join("known_hosts"),
        revoked_hosts: None,
        name: HOST,
    };
    let mut machine = Machine::new(&world, account, host);
    machine.host_is_signed();
    machine.trusts_people();
    machine.trusts_hosts();
    machine.begin();
    let people = [machine.person("alice"), machine.person("deploy")];
    machine.alice_logs_in(&people[0], &alice);
    machine.deploy_is_signed(&people[1]);

    machine.what_was_granted_is_shown(&people);
    machine.alice_has_all_that_she_needs_in_one_place(&alice);

    let stop = AtomicBool::new(false);
    let failed: Mutex<Vec<String>> = Mutex::default();
    std::thread::scope(|scope| {
        for person in &people {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    match machine.login(person) {
                        Ok(()) => drop(person.logins.fetch_add(1, Ordering::SeqCst)),
                        Err(said) => failed.lock().expect("nobody panics with it").push(said),
                    }
                }
            });
        }
        let rotations = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let go = Rotations {
                machine: &machine,
                people: &people,
                alice: &alice,
            };
            go.host();
            go.user();
            go.openssh();
        }));
        stop.store(true, Ordering::SeqCst);
        rotations.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    machine.nobody_was_kept_out(failed);
    // Whoever has a certificate of none of ours is not let in: the checks of before could have failed.
    let stranger = machine.person("stranger");
    assert!(machine.login(&stranger).is_err());
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// Every phase of each authority, on to the end and back, with logins in each.
struct Rotations<'a> {
    machine: &'a Machine<'a>,
    people: &'a [Person; 2],
    alice: &'a str,
}

pub(super) const FORWARD: [&str; 4] = ["init", "update_clients", "update_servers", "standby"];
pub(super) const BACK: [&str; 5] = ["init", "update_clients", "update_servers", "rollback", "standby"];

impl Rotations<'_> {
    /// Clients trust both from `init` on; the host's certificate is signed again where servers change.
    fn host(&self) {
        for phase in BACK.into_iter().chain(FORWARD) {
            enter(self.machine.world, "host", phase);
            self.machine.trusts_hosts();
            if matches!(phase, "update_servers" | "rollback") {
                self.host_is_counted(usize::from(phase == "update_servers"));
                self.machine.host_is_signed();
                self.machine.sshd.hang_up();
                self.host_is_counted(0);
            }
            self.some_logins(phase);
        }
    }

    /// The plan says how many hosts there are that nobody but a person can give a new certificate.
    fn host_is_counted(&self, wanted: usize) {
        let plan = self
            .machine
            .world
            .carousel(&["auth", "rotate", "--type=host", "--plan"])
            .expect_code(0);
        let counted = plan
            .matches("1 OpenSSH host without an agent needs a new host certificate")
            .count();
        assert_eq!(counted, wanted, "{plan}");
    }

    /// sshd trusts both from `init` on; Alice logs in anew, as people do every day.
    fn user(&self) {
        for phase in BACK.into_iter().chain(FORWARD) {
            // Her certificate for TLS is used, and so replaced where the phase asks for it.
            if phase == "standby" {
                let _ = self
                    .machine
                    .world
                    .carousel(&["--identity", self.alice, "status"])
                    .expect_code(0);
            }
            enter(self.machine.world, "user", phase);
            self.machine.trusts_people();
            self.machine.alice_logs_in(&self.people[0], self.alice);
            self.some_logins(phase);
        }
    }

    fn openssh(&self) {
        for phase in BACK.into_iter().chain(FORWARD) {
            enter(self.machine.world, "openssh", phase);
            self.machine.trusts_people();
            self.machine.deploy_is_signed(&self.people[1]);
            self.some_logins(phase);
        }
    }

    fn some_logins(&self, phase: &str) {
        // Of each: the first that ends may have begun in the phase before.
        let so_far = || {
            self.people
                .each_ref()
                .map(|person| person.logins.load(Ordering::SeqCst))
        };
        let before = so_far();
        deadline(PATIENCE, &format!("logins in {phase}"), || {
            let mut grown = so_far().into_iter().zip(before);
            grown.all(|(now, before)| now >= before + 2).then_some(())
        });
    }
}

impl<'w> Machine<'w> {
    /// With a new host key, and nothing else yet.
    pub(super) fn new(world: &'w World, account: String, host: Host) -> Self {
        new_host_key(world);
        Self::with_key(world, account, host)
    }

    /// With the host key that is there.
    pub(super) fn with_key(world: &'w World, account: String, host: Host) -> Self {
        // sshd takes its place as root, and wants it empty.
        let _ = fs::create_dir_all("/run/sshd");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|taken| taken.local_addr())
            .expect("a free port")
            .port();
        Self {
            world,
            // Begun once what it reads is there.
            sshd: Proc::start("true", &mut Command::new("true")),
            port,
            account,
            host,
        }
    }

    /// Starts sshd, once what it reads is there.
    pub(super) fn begin(&mut self) {
        let at = |file: &str| self.world.dir.join(file).display().to_string();
        let config = format!(
            "ListenAddress 127.0.0.1:{}\nHostKey {}\nHostCertificate {}\nTrustedUserCAKeys {}\nPidFile {}\n\
             AuthorizedKeysFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n\
             StrictModes no\nPermitRootLogin prohibit-password\nMaxStartups 100\nLogLevel VERBOSE\n\
             RevokedKeys {}\n",
            self.port,
            at("host_key"),
            self.host.certificate.display(),
            self.host.trusted_people.display(),
            at("sshd.pid"),
            self.host
                .revoked_people
                .as_ref()
                .map_or("none".into(), |list| list.display().to_string()),
        );
        let config = self.world.dir.write("sshd_config", &config);
        let mut command = Command::new(sshd().expect("it was looked for"));
        command.args(["-D", "-e", "-f"]).arg(config);
        self.sshd = Proc::start("sshd", &mut command);
        self.sshd.wait_for("Server listening", PATIENCE, 0, |line| {
            line.contains("Server listening").then_some(())
        });
    }

    pub(super) fn person(&self, name: &str) -> Person {
        let key = self.world.dir.join(name);
        keygen(&key);
        Person {
            key,
            logins: AtomicUsize::new(0),
        }
    }

    fn host_is_signed(&self) {
        self.signed(&[
            "--type=host",
            "--name=web-1",
            &format!("--ssh-key={}", self.world.dir.join("host_key.pub").display()),
            &format!("--dns={HOST}"),
            &format!("--out={}", self.world.dir.join("host_key-cert.pub").display()),
        ]);
    }

    pub(super) fn deploy_is_signed(&self, person: &Person) {
        let key = person.key.display();
        self.signed(&[
            "--type=openssh",
            "--name=deploy",
            &format!("--ssh-key={key}.pub"),
            &format!("--principal={}", self.account),
            "--option=source-address=127.0.0.0/8",
            "--extension=permit-pty",
            "--extension=permit-agent-forwarding",
            &format!("--out={key}-cert.pub"),
        ]);
    }

    /// Keys, certificates and whom to trust: what `login` writes is of use as it is.
    fn alice_has_all_that_she_needs_in_one_place(&self, identity: &str) {
        let dir = self.world.dir.join("alice-at-work");
        let out = format!("--out={}", dir.display());
        let _ = self
            .world
            .carousel(&["--identity", identity, "login", &out])
            .expect_code(0);
        let let_in = self.login_with(&dir.join("ssh_key"), &dir.join("known_hosts"));
        assert_eq!(let_in, Ok(()));
        let trust = exported(self.world, "user", "pem", "user.pem");
        let mut openssl = Command::new("openssl");
        openssl
            .args(["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile"])
            .arg(trust);
        let _ = run(openssl.arg(dir.join("user.crt"))).expect_code(0);
        let hosts =
            fs::read_to_string(exported(self.world, "host", "pem", "host.pem")).expect("just written");
        let trusted = fs::read_to_string(dir.join("trust.pem")).expect("it is there");
        assert_eq!(trusted.trim(), hosts.trim());
    }

    /// As `ssh-keygen -L` prints it, to the last line: nothing more was granted than was asked for.
    fn what_was_granted_is_shown(&self, [alice, deploy]: &[Person; 2]) {
        let shown = |certificate: PathBuf| -> Vec<String> {
            let mut keygen = Command::new("ssh-keygen");
            let text = run(keygen.arg("-L").arg("-f").arg(certificate)).expect_code(0);
            text.lines().map(|line| line.trim().to_owned()).collect()
        };
        let of = |person: &Person| shown(PathBuf::from(format!("{}-cert.pub", person.key.display())));
        let account = self.account.as_str();
        let host = shown(self.world.dir.join("host_key-cert.pub"));
        assert_eq!(host[1], "Type: ssh-ed25519-cert-v01@openssh.com host certificate");
        assert_eq!(host[4], "Key ID: \"carousel://acme.cluster/external/web-1\"");
        assert_eq!(
            host[7..],
            [
                "Principals:",
                HOST,
                "Critical Options: (none)",
                "Extensions: (none)"
            ]
        );
        let people = [
            (
                of(alice),
                "user/alice",
                &[
                    "Critical Options: (none)",
                    "Extensions:",
                    "permit-port-forwarding",
                    "permit-pty",
                ][..],
            ),
            (
                of(deploy),
                "external/deploy",
                &[
                    "Critical Options:",
                    "source-address 127.0.0.0/8",
                    "Extensions:",
                    "permit-agent-forwarding",
                    "permit-pty",
                ],
            ),
        ];
        for (shown, who, granted) in people {
            assert_eq!(
                shown[1],
                "Type: ssh-ed25519-cert-v01@openssh.com user certificate"
            );
            assert_eq!(shown[4], format!("Key ID: \"carousel://acme.cluster/{who}\""));
            assert!(shown[6].starts_with("Valid: from "), "{shown:?}");
            assert_eq!(shown[7..9], ["Principals:", account]);
            assert_eq!(shown[9..], *granted);
        }
    }

    fn signed(&self, args: &[&str]) {
        let all: Vec<&str> = ["auth", "sign"].into_iter().chain(args.iter().copied()).collect();
        let _ = self.world.carousel(&all).expect_code(0);
    }

    fn alice_logs_in(&self, person: &Person, identity: &str) {
        let key = format!("--ssh-key={}.pub", person.key.display());
        let _ = self
            .world
            .carousel(&["--identity", identity, "login", &key])
            .expect_code(0);
    }

    /// `TrustedUserCAKeys`: both kinds of people, of all generations that count.
    pub(super) fn trusts_people(&self) {
        let lines = ["user", "openssh"].map(|of| {
            let file = exported(self.world, of, "ssh", &format!("people-{of}"));
            fs::read_to_string(file).expect("just written")
        });
        let _ = put(self.world, "people", &lines.concat());
    }

    fn trusts_hosts(&self) {
        let _ = exported(self.world, "host", "ssh", "known_hosts");
    }

    /// No login failed while authorities rotated.
    pub(super) fn nobody_was_kept_out(&self, failed: Mutex<Vec<String>>) {
        let failed = failed.into_inner().expect("nobody panicked with it");
        assert!(
            failed.is_empty(),
            "{} logins failed; the first: {}\n--- sshd\n{}",
            failed.len(),
            failed[0],
            self.sshd.stderr()
        );
    }

    /// One login that asks nothing: a host key that is not certified by a known authority is a failure.
    pub(super) fn login(&self, person: &Person) -> Result<(), String> {
        self.login_with(&person.key, &self.host.known_hosts)
    }

    fn login_with(&self, key: &Path, known_hosts: &Path) -> Result<(), String> {
        let option = |name: &str, value: &str| format!("-o{name}={value}");
        let revoked = self.host.revoked_hosts.as_ref();
        let ended = run(Command::new("ssh")
            .args(["-F", "none", "-p", &self.port.to_string(), "-i"])
            .arg(key)
            .args(revoked.map(|list| option("RevokedHostKeys", &list.display().to_string())))
            .args([
                option("UserKnownHostsFile", &known_hosts.display().to_string()),
                option("GlobalKnownHostsFile", "/dev/null"),
                option("StrictHostKeyChecking", "yes"),
                option("HostKeyAlias", self.host.name),
                option("UpdateHostKeys", "no"),
                option("IdentitiesOnly", "yes"),
                option("BatchMode", "yes"),
                // A server that reads its configuration again does not listen for a moment.
                option("ConnectionAttempts", "30"),
                option("LogLevel", "ERROR"),
            ])
            .arg(format!("{}@127.0.0.1", self.account))
            .arg("echo in"));
        if ended.code == Some(0) && ended.stdout.trim() == "in" {
            Ok(())
        } else {
            Err(format!("{:?}: {}", ended.code, ended.stderr))
        }
    }
}

/// Where Debian has it, or whoever built it himself.
pub(super) fn sshd() -> Option<&'static str> {
    ["/usr/sbin/sshd", "/usr/local/sbin/sshd"]
        .into_iter()
        .find(|path| fs::exists(path).unwrap_or(false))
}

/// Who runs the tests, and can log in to nobody else's account.
pub(super) fn own_account() -> String {
    let id = run(Command::new("id").arg("-un")).expect_code(0);
    id.trim().to_owned()
}

pub(super) fn new_host_key(world: &World) {
    keygen(&world.dir.join("host_key"));
}

fn keygen(key: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(key);
    let _ = run(&mut command).expect_code(0);
}
