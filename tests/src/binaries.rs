//! The product's binaries as a user gets them.

use std::env::current_exe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The path of a binary of ours (`carousel`, `carousel-agent`), built if need be.
///
/// They are built by a cargo call of their own and not as part of the tests: features that only tests turn on (such as
/// the switches of single rules) must not be in them. Set `CAROUSEL_BIN_DIR` to test binaries built elsewhere.
///
/// # Panics
/// When they cannot be built.
#[must_use]
pub fn bin(name: &str) -> PathBuf {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    let path = DIR.get_or_init(build).join(name);
    assert!(
        path.exists(),
        "{} is not there; the packages carousel and agent should have built it",
        path.display()
    );
    path
}

fn build() -> PathBuf {
    if let Ok(Some(dir)) = runtime::config::env("CAROUSEL_BIN_DIR") {
        return PathBuf::from(dir);
    }
    // A test binary lies in target/PROFILE/deps; the product's lie in target/PROFILE.
    let own = current_exe().expect("a running test has a path");
    let profile_dir = own
        .parent()
        .and_then(Path::parent)
        .expect("target/PROFILE/deps/NAME");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "carousel", "-p", "agent"]);
    if profile_dir.ends_with("release") {
        command.arg("--release");
    }
    command.current_dir(crate::source::root());
    let built = command.status().expect("cargo can be started");
    assert!(built.success(), "the binaries under test do not build");
    profile_dir.to_owned()
}
