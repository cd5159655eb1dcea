//! Authorities whose keys are in a PKCS#11 token: SoftHSM, spoken to through the same library interface as a real one.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Command};

use carousel_tests::{Finished, PATIENCE, deadline, run, skip};
use serde_json::Value;

use crate::world::{Log, World, authority};

const PIN: &str = "271828";
const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
];

/// A token of this test's own.
pub(crate) struct Token {
    store: PathBuf,
    pub(crate) uri: String,
    pin: PathBuf,
}

impl Token {
    /// Made in the world's directory, with what the control plane needs to find it in its environment.
    pub(crate) fn make(world: &mut World) -> Option<Self> {
        let module = MODULES.into_iter().find(|path| PathBuf::from(path).exists())?;
        let store = world.dir.join("tokens");
        fs::create_dir(&store).expect("a directory for the token");
        let config = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\n",
            store.display()
        );
        let config = world.dir.write("softhsm2.conf", &config);
        let pin = world.dir.write("pin", &format!("{PIN}\n"));
        fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).expect("the PIN's mode");
        world
            .env
            .push(("SOFTHSM2_CONF".into(), config.display().to_string()));
        let mut command = Command::new("softhsm2-util");
        command.args([
            "--init-token",
            "--free",
            "--label",
            "our keys",
            "--so-pin",
            "314159",
            "--pin",
            PIN,
        ]);
        let _ = run(command.env("SOFTHSM2_CONF", &config)).expect_code(0);
        Some(Self {
            uri: format!(
                "pkcs11:token=our%20keys?module-path={module}&pin-source=file:{}",
                pin.display()
            ),
            store,
            pin,
        })
    }

    /// Where there is no cluster yet; none where SoftHSM is missing, which is said.
    pub(crate) fn alone(test: &str) -> Option<(World, Self)> {
        let mut world = World::empty(test, Log::Embedded).expect("the embedded log is always there");
        let token = Self::make(&mut world);
        if token.is_none() {
            skip(test, "SoftHSM (softhsm2) is not installed");
        }
        Some((world, token?))
    }

    /// The keys in it, public and private halves: everything but the description of the token itself.
    pub(crate) fn objects(&self) -> usize {
        let tokens = fs::read_dir(&self.store).expect("the store").flatten();
        let files = tokens.flat_map(|token| fs::read_dir(token.path()).expect("a token").flatten());
        files
            .filter(|file| file.path().extension().is_some_and(|e| e == "object"))
            .count()
            - 1
    }

    pub(crate) fn goes(&self) {
        let away = self.store.with_extension("away");
        fs::rename(&self.store, away).expect("the token is taken away");
        fs::create_dir(&self.store).expect("a store without a token");
    }

    /// The whole store is gone, and what had it open sees no error: it looks empty.
    pub(crate) fn vanishes(&self) {
        fs::rename(&self.store, self.store.with_extension("away")).expect("the store is taken away");
    }

    pub(crate) fn comes_back(&self) {
        if self.store.exists() {
            fs::remove_dir(&self.store).expect("nobody made another token");
        }
        let away = self.store.with_extension("away");
        fs::rename(away, &self.store).expect("the token is put back");
    }
}

/// `init` with one option, in an environment that knows the token.
pub(crate) fn init(world: &World, option: &str, value: &str) -> Finished {
    let mut init = world.init_command(None);
    run(init.envs(world.env.iter().cloned()).args([option, value]))
}

/// Where the keys of a type are, by their part in the rotation.
fn storage(world: &World, name: &str, status: &str) -> Option<String> {
    let found = authority(&world.json(&["status"]), name);
    let keys = found["keys"].as_array()?.clone();
    let key = keys
        .into_iter()
        .find(|key| key["protocol"] == "tls" && key["status"] == status)?;
    key["storage"].as_str().map(ToOwned::to_owned)
}

fn serve_again(world: &mut World, more: &[&str]) {
    if let Some(mut serve) = world.serve.take() {
        serve.terminate();
        assert!(serve.wait(PATIENCE).success(), "{}", serve.transcript());
    }
    let mut command = world.serve_command();
    world.serve_by(command.args(more));
}

fn rotate(world: &World, name: &str) {
    for phase in ["init", "update_clients", "update_servers", "standby"] {
        world.enter_and_wait(name, phase);
    }
}

#[test]
fn an_authority_moves_into_a_token_and_out_of_it_by_rotations_and_a_token_that_is_gone_is_waited_for() {
    let test = "hardware";
    let mut world = World::start(test, Log::Embedded).expect("the embedded log is always there");
    let Some(token) = Token::make(&mut world) else {
        return skip(test, "SoftHSM (softhsm2) is not installed");
    };
    world.join("n1");
    assert_eq!(storage(&world, "host", "active").as_deref(), Some("software"));

    serve_again(&mut world, &["--keys", &token.uri]);
    rotate(&world, "host");
    assert_eq!(storage(&world, "host", "active").as_deref(), Some("pkcs11"));
    assert_eq!(
        storage(&world, "user", "active").as_deref(),
        Some("software"),
        "it did not rotate"
    );
    assert_eq!(token.objects(), 4, "two keys with two halves each: X.509 and SSH");

    // It is remembered; and what goes back leaves nothing in the token.
    serve_again(&mut world, &[]);
    world.enter_and_wait("user", "init");
    assert_eq!(storage(&world, "user", "prepared").as_deref(), Some("pkcs11"));
    assert_eq!(token.objects(), 8);
    world.enter_and_wait("user", "rollback");
    world.enter_and_wait("user", "standby");
    deadline(PATIENCE, "the key that was made for nothing is destroyed", || {
        (token.objects() == 4).then_some(())
    });

    // Gone in the middle of a rotation: what it has to sign waits, is not refused, and says why.
    world.enter_and_wait("host", "init");
    world.serve.take().expect("it serves").kill9();
    token.goes();
    world.serve();
    let entered = world.enter("host", "update_clients");
    assert_eq!(entered.code, Some(0), "{}", entered.stderr);
    let serve = world.serve.as_mut().expect("it serves");
    serve.wait_for_line("\"our keys\" is not there", PATIENCE);
    assert_eq!(world.host()["nodes"]["lagging"], 1);
    token.comes_back();
    world.until_all_reached();
    for phase in ["update_servers", "standby"] {
        world.enter_and_wait("host", phase);
    }

    serve_again(&mut world, &["--keys", "files"]);
    rotate(&world, "host");
    assert_eq!(storage(&world, "host", "active").as_deref(), Some("software"));
    deadline(PATIENCE, "the token holds no key any more", || {
        (token.objects() == 0).then_some(())
    });
    let destroyed: Vec<Value> = world
        .json(&["audit", "ls", "--all"])
        .as_array()
        .expect("events")
        .iter()
        .filter(|event| event["type"] == "carousel.authority.destroyed.v1")
        .map(|event| event["data"]["stores"].clone())
        .collect();
    assert!(
        destroyed
            .iter()
            .any(|stores| *stores == serde_json::json!(["files", "pkcs11:our keys"])),
        "{destroyed:?}"
    );
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// How many events of a type are about the holder.
fn events(world: &World, event_type: &str, holder: &str) -> usize {
    let all = world.json(&["audit", "ls", "--all"]);
    let events = all.as_array().expect("events").iter();
    events
        .filter(|event| event["type"] == event_type && event["data"]["holder"] == holder)
        .count()
}

#[test]
fn a_token_that_is_lost_under_a_running_signer_is_waited_for_and_nothing_is_half_done() {
    let test = "hardware-lost";
    let Some((mut world, token)) = Token::alone(test) else {
        return;
    };
    let _ = init(&world, "--keys", &token.uri).expect_code(0);
    world.serve();
    let sign = ["auth", "token", "--type=jwt", "--name=billing", "--audience=api"];
    // From here on the signer holds the token open, with the place of the key in it.
    let _ = world.carousel(&sign).expect_code(0);
    let keys = token.objects();

    token.goes();
    let refused = world.carousel(&sign);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("signer_unavailable"),
        "{}",
        refused.stderr
    );
    let serve = world.serve.as_mut().expect("it serves");
    serve.wait_for_line("\"our keys\" is not there", PATIENCE);
    let entered = world.enter("saml_idp", "init");
    assert_eq!(entered.code, Some(0), "{}", entered.stderr);
    // It waits, and nothing else: neither is it refused, nor is a key made elsewhere.
    let of_billing = |event_type: &str| events(&world, event_type, "external/billing");
    assert_eq!(of_billing("carousel.authorization.granted.v1"), 2);
    assert_eq!(of_billing("carousel.certificate.issued.v1"), 1);
    assert_eq!(of_billing("carousel.certificate.refused.v1"), 0);
    assert_eq!(storage(&world, "saml_idp", "prepared"), None);

    token.comes_back();
    deadline(PATIENCE, "what waited is signed and made", || {
        let is_signed = of_billing("carousel.certificate.issued.v1") == 2;
        let made_in = storage(&world, "saml_idp", "prepared");
        (is_signed && made_in.as_deref() == Some("pkcs11")).then_some(())
    });
    assert_eq!(token.objects(), keys + 2, "one key with two halves");
    let _ = world.carousel(&sign).expect_code(0);
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// A library that has its token open tells of no key and of no error either, once the token is gone: nothing is signed by that,
/// and above all no key is called destroyed that is still in it.
#[test]
fn a_token_that_looks_empty_is_not_believed_and_its_keys_are_found_again() {
    let test = "hardware-vanished";
    let Some((mut world, token)) = Token::alone(test) else {
        return;
    };
    let _ = init(&world, "--keys", &token.uri).expect_code(0);
    world.serve();
    // A session is open now, in which the new key was made and has signed nothing; nor does anything else need the token.
    for phase in ["init", "update_clients", "update_servers"] {
        world.enter_and_wait("openssh", phase);
    }
    let (keys, pub_key) = (token.objects(), ssh_key(&world));
    let sign = [
        "auth",
        "sign",
        "--type=openssh",
        "--name=ci",
        "--principal=ci",
        &pub_key,
    ];

    token.vanishes();
    let entered = world.enter("openssh", "standby");
    assert_eq!(entered.code, Some(0), "{}", entered.stderr);
    let serve = world.serve.as_mut().expect("it serves");
    serve.wait_for_line("a duty of the signer waits", PATIENCE);
    let destroyed = || {
        let events = world.json(&["audit", "ls", "--all", "--type", "authority.destroyed"]);
        events.as_array().expect("events").len()
    };
    assert_eq!(destroyed(), 0, "it is still in the token");
    let refused = world.carousel(&sign);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);

    token.comes_back();
    deadline(PATIENCE, "what waited is destroyed", || {
        (destroyed() == 1 && token.objects() == keys - 2).then_some(())
    });
    deadline(PATIENCE, "what waited is signed", || {
        (world.carousel(&sign).code == Some(0)).then_some(())
    });
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// The option for a key of OpenSSH's own making.
fn ssh_key(world: &World) -> String {
    let key = world.dir.join("ci");
    let mut keygen = Command::new("ssh-keygen");
    keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key);
    let _ = run(&mut keygen).expect_code(0);
    format!("--ssh-key={}.pub", key.display())
}

#[test]
fn a_token_that_is_not_there_or_refuses_its_pin_is_said_at_once_and_nothing_is_changed() {
    let test = "hardware-wrong";
    let mut world = World::start(test, Log::Embedded).expect("the embedded log is always there");
    let Some(token) = Token::make(&mut world) else {
        return skip(test, "SoftHSM (softhsm2) is not installed");
    };
    let mut serve = world.serve.take().expect("it serves");
    serve.terminate();
    assert!(serve.wait(PATIENCE).success());
    let refused = |world: &World, uri: &str, code: i32, words: &str| {
        let ended = run(world.serve_command().args(["--keys", uri]));
        let error = ended.stderr;
        assert_eq!(ended.code, Some(code), "{error}");
        assert!(error.contains(words), "{error}");
        assert!(!error.contains(PIN), "{error}");
    };
    refused(
        &world,
        &token.uri.replace("our%20keys", "their%20keys"),
        1,
        "\"their keys\" is not there",
    );
    refused(
        &world,
        &token.uri.replace("libsofthsm2", "libnothing"),
        1,
        "cannot be used",
    );
    refused(
        &world,
        &token.uri.replace("pin-source=file:", "pin-value="),
        2,
        "process lists",
    );
    fs::set_permissions(&token.pin, fs::Permissions::from_mode(0o644)).expect("the PIN's mode");
    refused(&world, &token.uri, 1, "chmod 600");
    fs::set_permissions(&token.pin, fs::Permissions::from_mode(0o600)).expect("the PIN's mode");
    fs::write(&token.pin, "161803\n").expect("another PIN");
    refused(&world, &token.uri, 1, "refused its PIN");
    world.serve();
    world.enter_and_wait("user", "init");
    assert_eq!(storage(&world, "user", "prepared").as_deref(), Some("software"));
}

#[test]
fn a_cluster_whose_keys_were_all_made_in_a_token_signs_x509_ssh_and_tokens_there() {
    let test = "hardware-init";
    let Some((mut world, token)) = Token::alone(test) else {
        return;
    };
    // A mistyped name is found now, and leaves nothing behind.
    let wrong = token.uri.replace("our%20keys", "their%20keys");
    let refused = init(&world, "--keys", &wrong);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("their keys"), "{}", refused.stderr);
    let _ = init(&world, "--keys", &token.uri).expect_code(0);
    world.serve();
    let listed = world.json(&["get", "authorities"]);
    let listed = listed.as_array().expect("authorities").iter();
    let keys: Vec<&Value> = listed
        .flat_map(|of| of["keys"].as_array().expect("keys"))
        .collect();
    assert!(keys.iter().all(|key| key["storage"] == "pkcs11"), "{keys:?}");
    assert_eq!(token.objects(), 2 * keys.len(), "two halves each");

    let at = |file: &str| world.dir.join(file).display().to_string();
    let _ = run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &at("key")]))
        .expect_code(0);
    let ssh = [
        "auth",
        "sign",
        "--type=openssh",
        "--name=deploy",
        "--principal=deploy",
        &format!("--ssh-key={}", at("key.pub")),
        &format!("--out={}", at("key-cert.pub")),
    ];
    let _ = world.carousel(&ssh).expect_code(0);
    let shown = run(Command::new("ssh-keygen").args(["-L", "-f", &at("key-cert.pub")])).expect_code(0);
    assert!(shown.contains("Signing CA: ECDSA"), "{shown}");
    let token_args = ["auth", "token", "--type=jwt", "--name=billing", "--audience=api"];
    assert_eq!(world.carousel(&token_args).expect_code(0).matches('.').count(), 2);
    // X.509: the node's certificate, and the revocation lists beside the bundles.
    world.join("n1");
    let list = world
        .carousel(&["auth", "export", "--type=db", "--as=crl"])
        .expect_code(0);
    assert!(list.starts_with("-----BEGIN X509 CRL-----"), "{list}");
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}
