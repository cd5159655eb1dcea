//! What is revoked is refused by software that nobody here wrote, and its connections to us end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use carousel_tests::{PATIENCE, Proc, deadline, run};

use super::{exported, request};
use crate::{
    wire::Wire,
    world::{Log, World, text},
};

/// The deny list reaches everybody, and connections of the revoked end, in so long.
const WITHIN: Duration = Duration::from_secs(10);

#[test]
fn openssl_and_openssh_refuse_what_was_revoked_and_nothing_else() {
    let world = World::start("verifiers-revoked", Log::Embedded).expect("the embedded log is always there");
    let leaves = ["pg-1", "pg-2"].map(|name| database(&world, name));
    let trust = exported(&world, "db", "pem", "db.pem");
    let verified = |leaf: &Path| {
        // The list is there before anything is on it: whoever asks for one gets one.
        let list = exported(&world, "db", "crl", "db.crl");
        let mut openssl = Command::new("openssl");
        openssl
            .args(["verify", "-x509_strict", "-crl_check", "-CAfile"])
            .arg(&trust)
            .arg("-CRLfile")
            .arg(list);
        run(openssl.arg(leaf))
    };
    for leaf in &leaves {
        let _ = verified(leaf).expect_code(0);
    }
    let serial = serial(&leaves[0]);
    let _ = world
        .carousel(&["certificates", "revoke", &serial, "--reason", "CHG-7"])
        .expect_code(0);
    let refused = deadline(PATIENCE, "the list names it", || {
        let answer = verified(&leaves[0]);
        (answer.code != Some(0)).then_some(answer)
    });
    assert!(
        refused.stderr.contains("certificate revoked"),
        "{}",
        refused.stderr
    );
    let _ = verified(&leaves[1]).expect_code(0);

    let keys = ["one", "two"].map(|name| deployment(&world, name));
    let revoke = [
        "certificates",
        "revoke",
        "--external",
        "one",
        "--reason",
        "laptop lost",
    ];
    let _ = world.carousel(&revoke).expect_code(0);
    deadline(PATIENCE, "sshd's list names it", || {
        let list = krl(&world);
        let asked = keys.each_ref().map(|certificate| {
            let mut keygen = Command::new("ssh-keygen");
            run(keygen.args(["-Q", "-f"]).arg(&list).arg(certificate)).code
        });
        (asked == [Some(1), Some(0)]).then_some(())
    });
    let again = world.carousel(&revoke);
    assert_eq!(again.code, Some(3), "nothing is left to revoke: {}", again.stderr);
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// Whoever installs by hand has two authorities before him while a rotation is on: pins, DER and lists are of the same two,
/// as OpenSSL reads them.
#[test]
fn both_generations_are_exported_alike_and_each_has_a_list_of_its_own_that_anybody_may_fetch() {
    let world =
        World::start("verifiers-generations", Log::Embedded).expect("the embedded log is always there");
    world.enter_and_wait("db", "init");
    let pem = fs::read_to_string(exported(&world, "db", "pem", "both.pem")).expect("just written");
    let cas: Vec<PathBuf> = pem
        .split_inclusive("-----END CERTIFICATE-----\n")
        .enumerate()
        .map(|(at, one)| world.dir.write(&format!("ca-{at}.pem"), one))
        .collect();
    let [old, new] = &cas[..] else { panic!("{pem}") };
    let shell = |script: &str, file: &Path| {
        let mut shell = Command::new("sh");
        run(shell.args(["-ec", script, "sh"]).arg(file)).expect_code(0)
    };
    let digest_of_key =
        "openssl x509 -in \"$1\" -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum";
    let pin = |ca: &Path| {
        let sum = shell(digest_of_key, ca);
        format!("sha256:{}", sum.split(' ').next().expect("a sum"))
    };
    let pins = fs::read_to_string(exported(&world, "db", "pin", "pins")).expect("just written");
    assert_eq!(pins, format!("{}\n{}\n", pin(old), pin(new)));
    let mut der = vec![];
    for ca in [old, new] {
        let path = ca.with_extension("der");
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-outform", "DER", "-in"]).arg(ca);
        let _ = run(openssl.arg("-out").arg(&path)).expect_code(0);
        der.extend(fs::read(path).expect("just written"));
    }
    assert_eq!(fs::read(to_file(&world, "db", "der")).expect("just written"), der);
    for (ca, other) in [(old, new), (new, old)] {
        let list = world.dir.join("one.crl");
        let fetched = Wire::of(&world).bytes(&format!("/v1/crl/{}", pin(ca)));
        fs::write(&list, fetched).expect("it is written");
        let verified = |ca: &Path| {
            let mut openssl = Command::new("openssl");
            openssl
                .args(["crl", "-noout", "-inform", "DER", "-in"])
                .arg(&list);
            run(openssl.arg("-CAfile").arg(ca)).stderr
        };
        assert!(verified(ca).contains("verify OK"), "{}", verified(ca));
        assert!(!verified(other).contains("verify OK"), "{}", verified(other));
    }
}

#[test]
fn whoever_was_revoked_is_thrown_out_and_comes_back_only_with_something_new() {
    let mut world =
        World::start("verifiers-thrown-out", Log::Embedded).expect("the embedded log is always there");
    let eve = world.dir.join("eve.identity").display().to_string();
    let _ = world
        .carousel(&["users", "add", "eve", "--roles", "auditor", "--out", &eve])
        .expect_code(0);
    let mut follows = Proc::start(
        "eve",
        &mut world.command(&["--identity", &eve, "audit", "follow"]),
    );
    let _ = follows.wait_for_line("WHAT", PATIENCE);
    let _ = world
        .carousel(&["certificates", "revoke", "--user", "eve", "--reason", "has left"])
        .expect_code(0);
    let ended = follows.wait(WITHIN);
    assert_eq!(ended.code(), Some(4), "{}", follows.transcript());
    let refused = world.carousel(&["--identity", &eve, "status"]);
    assert_eq!(refused.code, Some(4), "{}", refused.stderr);
    for said in [follows.stderr(), refused.stderr] {
        assert!(said.contains("revoked"), "she is told why: {said}");
    }

    let (token, pins, bundle) = world.token(&["--names", "*.fleet.example", "--uses", "2"]);
    for name in ["a.fleet.example", "b.fleet.example"] {
        world.join_with(name, &token, &pins, &bundle);
        world.until_reached(name);
    }
    world.join("other");
    world.until_reached("other");
    let before = world.node("a.fleet.example").expect("it joined")["metadata"]["name"].clone();
    let tokens = world.json(&["get", "tokens"]);
    let mut tokens = tokens.as_array().expect("tokens").iter();
    let used_twice = tokens.find(|token| token["uses"] == 2).expect("it is listed");
    let id = text(&used_twice["id"]);
    let revoke = [
        "certificates",
        "revoke",
        "--issued-by-token",
        &id,
        "--reason",
        "token leaked",
    ];
    let _ = world.carousel(&revoke).expect_code(0);
    for name in ["a.fleet.example", "b.fleet.example"] {
        let mut agent = world.agent(name).proc.take().expect("it ran");
        let ended = agent.wait(PATIENCE);
        assert_eq!(ended.code(), Some(3), "{}", agent.transcript());
    }
    // Whoever came in by another token has noticed nothing.
    assert!(world.agent("other").proc.as_mut().expect("it runs").is_running());
    assert_eq!(
        world.node("other").expect("it is there")["status"]["online"],
        true
    );
    // A new token on the same directory, and it is the same node.
    let (token, pins, bundle) = world.token(&["--name", "a.fleet.example"]);
    let mut agent = world.agent_for("a.fleet.example", &token, &pins, &bundle);
    agent.start();
    deadline(PATIENCE, "it is the same node again", || {
        let node = world.node("a.fleet.example")?;
        (node["metadata"]["name"] == before && node["status"]["online"] == true).then_some(())
    });
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

fn database(world: &World, name: &str) -> PathBuf {
    let csr = request(world, name);
    let out = world.dir.join(&format!("{name}.crt"));
    let args = [
        "auth".to_owned(),
        "sign".into(),
        "--type=db".into(),
        format!("--name={name}"),
        format!("--dns={name}.acme.example"),
        format!("--csr={}", csr.display()),
        format!("--out={}", out.display()),
    ];
    let _ = world
        .carousel(&args.iter().map(String::as_str).collect::<Vec<_>>())
        .expect_code(0);
    out
}

fn deployment(world: &World, name: &str) -> PathBuf {
    let key = world.dir.join(name);
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    let _ = run(&mut keygen).expect_code(0);
    let out = world.dir.join(&format!("{name}-cert.pub"));
    let args = [
        "auth".to_owned(),
        "sign".into(),
        "--type=openssh".into(),
        format!("--name={name}"),
        "--principal=deploy".into(),
        format!("--ssh-key={}.pub", key.display()),
        format!("--out={}", out.display()),
    ];
    let _ = world
        .carousel(&args.iter().map(String::as_str).collect::<Vec<_>>())
        .expect_code(0);
    out
}

fn serial(leaf: &Path) -> String {
    let mut openssl = Command::new("openssl");
    let shown = run(openssl.args(["x509", "-noout", "-serial", "-in"]).arg(leaf)).expect_code(0);
    shown.trim().trim_start_matches("serial=").to_ascii_lowercase()
}

fn krl(world: &World) -> PathBuf {
    to_file(world, "openssh", "krl")
}

/// What is no text, as a person redirects it into a file.
fn to_file(world: &World, authority_type: &str, form: &str) -> PathBuf {
    let path = world.dir.join(form);
    let file = fs::File::create(&path).expect("a file");
    let (of_type, form) = (format!("--type={authority_type}"), format!("--as={form}"));
    let mut export = world.command(&["auth", "export", &of_type, &form]);
    let status = export.stdout(file).status().expect("it starts");
    assert!(status.success());
    path
}
