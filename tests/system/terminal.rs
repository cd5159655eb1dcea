//! A session at a terminal, kept as text: what was typed and what was answered.
//!
//! Whatever differs from run to run (times, pins, ages) is made the same; everything else is compared to the letter, so
//! that a change of what people read shows in a review. `UPDATE=1` writes the kept sessions anew.

use std::{env, fs, process::Command};

use carousel_tests::{bin, run, source};

use crate::world::World;

/// The length of a time as status prints it: `Sep 20 2026 01:44:36`.
const TIME: usize = 20;

/// A session of an administrator.
pub(crate) struct Terminal<'world> {
    world: &'world World,
    text: String,
}

impl<'world> Terminal<'world> {
    pub(crate) fn new(world: &'world World) -> Self {
        Self {
            world,
            text: String::new(),
        }
    }

    /// Types a line for the shell, which must end with this exit code. What it says on stderr is kept only when it is
    /// refused: otherwise that is progress, which depends on how fast the machine is.
    pub(crate) fn types(&mut self, line: &str, code: i32) {
        let bin = bin("carousel");
        let dir = bin.parent().expect("a binary lies in a directory");
        let mut path = dir.as_os_str().to_owned();
        path.push(":");
        path.push(env::var_os("PATH").unwrap_or_default());
        let mut shell = Command::new("sh");
        shell
            .args(["-c", line])
            .env("PATH", path)
            .env("NO_COLOR", "1")
            .env_remove("CAROUSEL_SERVER")
            .env("CAROUSEL_IDENTITY", self.world.data().join("admin.identity"));
        let finished = run(&mut shell);
        let said = if code == 0 { "" } else { finished.stderr.as_str() }.to_owned();
        let stdout = finished.expect_code(code);
        let exit = if code == 0 {
            String::new()
        } else {
            format!("[exit {code}]\n")
        };
        self.text
            .push_str(&format!("$ {line}\n{}{}{exit}\n", same(&stdout), same(&said)));
    }

    /// Compares the session with the kept one.
    pub(crate) fn kept_as(self, name: &str) {
        kept(name, &self.text);
    }
}

/// Compares a text with the one that is kept under this name.
pub(crate) fn kept(name: &str, text: &str) {
    let path = source::root().join("tests/scenarios").join(name);
    if runtime::config::env("UPDATE").is_ok_and(|value| value.is_some()) {
        fs::write(&path, text).expect("tests/scenarios is writable");
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        kept, text,
        "tests/scenarios/{name} (left) is not what is said now; run the test with UPDATE=1 if now is right"
    );
}

/// The text with everything that differs from run to run made the same.
pub(crate) fn same(text: &str) -> String {
    let lines = text.lines().map(|line| ages(&pins(&times(line))) + "\n");
    lines.collect()
}

fn times(line: &str) -> String {
    let mut parts: Vec<String> = line.split(" UTC").map(str::to_owned).collect();
    let last = parts.len() - 1;
    for part in &mut parts[..last] {
        let from = part.len().saturating_sub(TIME);
        if part.is_char_boundary(from) {
            part.replace_range(from.., "<time>");
        }
    }
    parts.join(" UTC")
}

fn pins(line: &str) -> String {
    let mut parts = line.split("sha256:");
    let mut made = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        made.push_str("sha256:<pin>");
        made.push_str(part.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    made
}

fn ages(line: &str) -> String {
    match line.split_once("seen ") {
        Some((before, age)) if age.ends_with(" ago") || age.contains(" ago)") => {
            let after = age.split_once(" ago").map_or("", |(_, after)| after);
            format!("{before}seen <age> ago{after}")
        }
        _ => line.to_owned(),
    }
}

#[test]
fn a_kept_session_has_nothing_that_differs_from_run_to_run() {
    let pin = "ab".repeat(32);
    let said = format!(
        "Host CA  initialized (started: Sep 20 2026 01:44:36 UTC, ending: Sep 22 2026 01:44:36 UTC), nodes 1/3\n\
         CA pin   sha256:{pin}\n  n3  has no new CA  not connected, seen 12 s ago\n"
    );
    assert_eq!(
        same(&said),
        "Host CA  initialized (started: <time> UTC, ending: <time> UTC), nodes 1/3\n\
         CA pin   sha256:<pin>\n  n3  has no new CA  not connected, seen <age> ago\n"
    );
}
