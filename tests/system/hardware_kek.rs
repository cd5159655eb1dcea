//! Keys in sealed files, sealed by what a token says: without it they are of no use to anybody.

use std::fs;

use carousel_tests::{PATIENCE, run};

use crate::{
    hardware::{Token, init},
    world::World,
};

#[test]
fn sealed_keys_are_opened_by_a_token_alone_and_one_that_is_gone_is_said_and_changes_nothing() {
    let test = "hardware-kek";
    let Some((mut world, token)) = Token::alone(test) else {
        return;
    };
    // Another cluster may have its own in the same token.
    let kek = token.uri.replace("keys?", "keys;object=acme%20kek?");
    // What is mistyped is found now, and leaves nothing behind.
    let wrong = kek.replace("our%20keys", "their%20keys");
    for (kek, code, words) in [
        (wrong.as_str(), 1, "\"their keys\" is not there"),
        ("pkcs11:nonsense", 2, "pkcs11:token="),
        ("pkcs11:token=x?pin-value=1", 2, "process lists"),
    ] {
        let refused = init(&world, "--kek", kek);
        assert_eq!(refused.code, Some(code), "{}", refused.stderr);
        assert!(refused.stderr.contains(words), "{}", refused.stderr);
    }
    let made = init(&world, "--kek", &kek);
    assert!(!made.stderr.contains("lies beside"), "{}", made.stderr);
    let _ = made.expect_code(0);
    assert_eq!(
        token.objects(),
        1,
        "the key of the token, and nothing of the cluster"
    );
    assert!(!world.data().join("keys/kek").exists());

    world.serve();
    world.join("n1");
    world.enter_and_wait("user", "init");

    let mut serve = world.serve.take().expect("it serves");
    serve.terminate();
    assert!(serve.wait(PATIENCE).success(), "{}", serve.transcript());
    token.goes();
    let before = names(&world);
    let refused = run(&mut world.serve_command());
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("\"our keys\" is not there"),
        "{}",
        refused.stderr
    );
    assert_eq!(names(&world), before);
    token.comes_back();

    // It goes on where it was; authorities move into the same token, beside the key that seals the others.
    let mut command = world.serve_command();
    world.serve_by(command.args(["--keys", &token.uri]));
    for phase in ["update_clients", "update_servers", "standby", "init"] {
        world.enter_and_wait("user", phase);
    }
    assert!(token.objects() > 1);
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// What lies in the directory of keys.
fn names(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.data().join("keys"))
        .expect("the keys")
        .flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with("sealed") || name.ends_with("json"))
        .collect();
    names.sort();
    names
}
