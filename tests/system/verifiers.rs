//! Verifiers that nobody here wrote, through rotations and back: OpenSSH, OpenSSL, Python's ssl, PyJWT.
//!
//! Each is set up as a person sets it up who has no agent there: with `auth export`, `auth sign`, `auth token` and `login`.

use std::{path::PathBuf, process::Command};

use carousel_tests::{deadline, run};

use crate::world::World;

mod kept;
mod openssh;
mod revoked;
mod tokens;
mod x509;

/// Times of key sets that a test can wait for: a second until a new key signs, ten until nothing of an old one lives.
const SHORT: &str = "jwks_max_age_ms = 1000\njwt_ttl_ms = 10000\n";

/// What a verifier is given of a type, in a file.
fn exported(world: &World, authority_type: &str, form: &str, file: &str) -> PathBuf {
    let (of_type, form) = (format!("--type={authority_type}"), format!("--as={form}"));
    let text = world
        .carousel(&["auth", "export", &of_type, &form])
        .expect_code(0);
    put(world, file, &text)
}

/// Replaced as a whole: whoever reads it meanwhile reads the one before.
fn put(world: &World, file: &str, text: &str) -> PathBuf {
    let fresh = world.dir.write(&format!("{file}.fresh"), text);
    let path = world.dir.join(file);
    std::fs::rename(fresh, &path).expect("the same directory");
    path
}

/// A request by OpenSSL, NAME.csr beside NAME.key. The name in it is one that nobody may have: it is not to be taken over.
fn request(world: &World, name: &str) -> PathBuf {
    let csr = world.dir.join(&format!("{name}.csr"));
    let new_key = [
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
    ];
    let mut openssl = Command::new("openssl");
    openssl
        .args(new_key)
        .args(["-nodes", "-subj", "/CN=root", "-keyout"])
        .arg(world.dir.join(&format!("{name}.key")))
        .arg("-out")
        .arg(&csr);
    let _ = run(&mut openssl).expect_code(0);
    csr
}

/// One step, once its gate is open: keys of tokens wait for their publication, and ends for what was handed out.
fn enter(world: &World, authority_type: &str, phase: &str) {
    deadline(
        carousel_tests::PATIENCE,
        &format!("{phase} of {authority_type}"),
        || {
            let entered = world.enter(authority_type, phase);
            let waits = ["publication_time", "time_condition"];
            let is_early = entered.code == Some(3) && waits.iter().any(|code| entered.stderr.contains(code));
            assert!(entered.code == Some(0) || is_early, "{}", entered.stderr);
            (!is_early).then_some(())
        },
    );
    world.enter_and_wait(authority_type, phase);
}

/// A Python that has these modules; Debian's own has what its packages brought, another one on PATH may not.
fn python(modules: &str) -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let mut import = Command::new(python);
        import.args(["-c", &format!("import {modules}")]);
        import.output().is_ok_and(|output| output.status.success())
    })
}
