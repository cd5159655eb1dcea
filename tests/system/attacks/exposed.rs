//! What lies about: secrets where nobody should find them, files that others can read, and what a crash leaves.
//!
//! Everything runs as carelessly as it can be run: with a umask that forbids nothing, with cores of any size, with
//! every line of the log.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Command,
};

use carousel_tests::{Finished, PATIENCE, Proc, run};
use pki::KeyPair;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{admin, command};
use crate::{
    proof::{Refused, serve, stop},
    wire::Wire,
    world::{Log, World, given_up},
};
use hoard::Hoard;

mod hoard;

const NODES: [&str; 2] = ["n1", "n2"];
/// The file of a person's identity.
const USER: &str = "ursula.identity";

#[test]
fn secrets_are_found_where_they_belong_and_nowhere_else() {
    let mut world = World::empty("exposed", Log::Embedded).expect("the embedded log is always there");
    let mut said = vec![run(&mut careless(&world, &world.init_command(None)))];
    let mut serve = careless(&world, &world.serve_command());
    world.serve_by(&mut serve);
    let mut hoard = Hoard::default();
    for name in NODES {
        let (token, pins, bundle) = world.token(&["--name", name]);
        hoard.token(&token, &world.dir.join(&format!("token-{name}")));
        let start = world.arrive(name, &token, &pins, &bundle).command();
        let mut start = careless(&world, &start);
        world.agent(name).start_by(&mut start);
        world.until_reached(name);
    }
    let ursula = world.dir.join(USER).display().to_string();
    let add = world.command(&["users", "add", "ursula", "--roles", "auditor", "--out", &ursula]);
    said.push(run(&mut careless(&world, &add)));
    hoard.keys_of(&world);
    blunders(&world, &mut hoard, &mut said);
    for phase in ["init", "update_clients", "update_servers", "standby"] {
        world.enter_and_wait("host", phase);
    }
    hoard.keys_of(&world);
    everything_that_is_shown(&world, &mut said);

    in_no_list_of_processes(&world, &hoard);
    nothing_is_open_to_others(world.dir.path());
    let mut follow = careless(&world, &world.command(&["audit", "follow"]));
    let mut tool = Proc::start("tool", &mut follow);
    tool.wait_for_line("TIME", PATIENCE);
    no_core_is_left(&mut world, tool);
    for (name, process) in processes(&world) {
        said.push(Finished {
            code: None,
            stdout: process.stdout(),
            stderr: process.stderr(),
        });
        assert!(process.stderr().contains("TRACE"), "{name} says everything");
    }
    for finished in &said {
        hoard.is_not_in(
            "what was said",
            (finished.stdout.clone() + &finished.stderr).as_bytes(),
        );
    }
    hoard.is_in_no_file_but_its_own(world.dir.path());
    files_that_others_can_read_are_refused(&mut world);
}

/// The same command from a shell of somebody who does not care.
fn careless(world: &World, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "umask 000; ulimit -c unlimited 2>/dev/null; exec \"$0\" \"$@\"",
    ]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let place = world.dir.join("cores");
    fs::create_dir_all(&place).expect("our own directory");
    shell.env("CAROUSEL_LOG", "trace").current_dir(place);
    shell
}

/// Secrets in the wrong place of a request: the answer quotes none of them.
fn blunders(world: &World, hoard: &mut Hoard, said: &mut Vec<Finished>) {
    let mistyped = hex(&pki::random::<32>());
    hoard.token(&mistyped, &world.dir.join("nowhere"));
    let pasted = KeyPair::generate();
    hoard.key("a key in a request's place", &pasted, &world.dir.join("nowhere"));
    let key = pasted.to_pem().to_string();
    let csr = pki::csr::make_pem(&KeyPair::generate());
    let (stranger, admin) = (Wire::of(world).anonymous(), admin(world));
    for (wire, path, body) in [
        (
            &stranger,
            "/v1/join",
            json!({"token": mistyped, "hostname": "n3", "csr": csr}),
        ),
        (
            &stranger,
            "/v1/join",
            json!({"token": {"is": mistyped}, "hostname": "n3", "csr": csr}),
        ),
        (
            &stranger,
            "/v1/join",
            json!({"token": "x", "hostname": "n3", "csr": key}),
        ),
        (
            &stranger,
            "/v1/recover",
            json!({"certificate": key, "csr": csr, "signature": mistyped}),
        ),
        (
            &admin,
            "/v1/users",
            command(json!({"name": "nemo", "roles": ["admin"], "csr": key})),
        ),
    ] {
        let refused = wire.clone().post(path, &body).expect_err("it makes no sense");
        hoard.is_not_in(path, format!("{refused:?}").as_bytes());
    }
    // On a command line it would be for everybody to read, so that it is refused there; and not quoted.
    let mut command = Command::new(carousel_tests::bin("carousel-agent"));
    command.args([
        "start",
        "--server",
        &world.url,
        "--hostname",
        "n3",
        "--token",
        &mistyped,
    ]);
    command.arg("--data-dir").arg(world.dir.join("n3"));
    let refused = run(&mut command);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    said.push(refused);
}

/// What an operator can be shown, with every line of the tool's own log.
fn everything_that_is_shown(world: &World, said: &mut Vec<Finished>) {
    for args in [
        &["status"][..],
        &["get", "nodes"],
        &["get", "authorities"],
        &["get", "rotations"],
        &["get", "tokens"],
        &["get", "certificates"],
        &["users", "ls"],
        &["audit", "ls", "--all"],
        &["audit", "replay", "--as-of", "40", "--view", "certificates"],
    ] {
        let mut command = world.command(args);
        let shown = run(command.arg("--format=json").env("CAROUSEL_LOG", "trace"));
        assert_eq!(shown.code, Some(0), "{args:?}: {}", shown.stderr);
        said.push(shown);
    }
}

fn processes(world: &World) -> Vec<(&str, &Proc)> {
    let agents = world
        .agents
        .iter()
        .filter_map(|agent| Some((&*agent.name, agent.proc.as_ref()?)));
    world
        .serve
        .iter()
        .map(|serve| ("serve", serve))
        .chain(agents)
        .collect()
}

/// Arguments are for every user to read, the environment for the same user's programs.
fn in_no_list_of_processes(world: &World, hoard: &Hoard) {
    for (name, process) in processes(world) {
        for list in ["cmdline", "environ"] {
            let path = format!("/proc/{}/{list}", process.pid());
            // Elsewhere than on Linux there is no such file.
            if let Ok(bytes) = fs::read(&path) {
                hoard.is_not_in(&format!("{list} of {name}"), &bytes);
            }
        }
    }
}

/// Every file and directory that was made, while everything runs.
fn nothing_is_open_to_others(root: &Path) {
    let made = ["cp", "node-n1", "node-n2", USER];
    let open: Vec<_> = made
        .iter()
        .flat_map(|part| files_below(&root.join(part)))
        .map(|path| (fs::symlink_metadata(&path).expect("it is there"), path))
        .filter(|(found, _)| !found.is_symlink() && found.permissions().mode() & 0o077 != 0)
        .map(|(found, path)| format!("{:04o} {}", found.permissions().mode() & 0o7777, path.display()))
        .collect();
    assert!(open.is_empty(), "open to others:\n{}", open.join("\n"));
}

/// A directory, and everything in it.
pub(super) fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    if fs::symlink_metadata(root).is_ok_and(|found| found.is_dir()) {
        let entries = fs::read_dir(root).expect("a directory of ours");
        found.extend(entries.flat_map(|entry| files_below(&entry.expect("readable").path())));
    }
    found
}

/// Processes that hold keys or tokens end by the signals that leave a core.
fn no_core_is_left(world: &mut World, mut tool: Proc) {
    dies_without_a_core(&mut tool, Signal::TRAP);
    for (name, signal) in NODES.iter().zip([Signal::ABORT, Signal::TRAP]) {
        let agent = world.agent(name);
        dies_without_a_core(agent.proc.as_mut().expect("it runs"), signal);
    }
    dies_without_a_core(world.serve.as_mut().expect("it runs"), Signal::ABORT);
    let left = files_below(&world.dir.join("cores"));
    assert_eq!(left.len(), 1, "nothing was left there: {left:?}");
}

fn dies_without_a_core(process: &mut Proc, signal: Signal) {
    // By its limit where the system shows it, also where cores are not to be had at all.
    let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid())).unwrap_or_default();
    if let Some(cores) = limits.lines().find(|line| line.starts_with("Max core file size")) {
        let words: Vec<_> = cores.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{}", process.transcript());
    }
    let pid = Pid::from_raw(i32::try_from(process.pid()).expect("a process id"));
    kill_process(pid.expect("a process id"), signal).expect("it runs");
    let ended = process.wait(PATIENCE);
    assert!(ended.signal().is_some() && !ended.core_dumped(), "{ended:?}");
}

/// Each secret file in turn is readable by others: whoever needs it says which, and what to do.
fn files_that_others_can_read_are_refused(world: &mut World) {
    let data = world.data();
    world.serve();
    stop(world);
    let secret = |path: &PathBuf| {
        let (name, dir) = (
            path.file_name().unwrap_or_default(),
            path.parent().unwrap_or(path),
        );
        let is_key = path.extension().is_some_and(|e| e == "key" || e == "sealed");
        is_key && (dir.ends_with("gateway") || dir.ends_with("keys"))
            || name == "kek"
            || name == "admin.identity"
    };
    let secrets: Vec<_> = files_below(&data).into_iter().filter(secret).collect();
    assert!(secrets.len() > 5, "{secrets:?}");
    for path in secrets {
        exposed(&path, || serve(&data));
    }
    let agent = world.agent("n1");
    let (dir, start) = (agent.dir.clone(), agent.command());
    let start = || Refused(run_again(&start));
    for file in ["current/client.key", "current/server.key"] {
        exposed(&dir.join(file), start);
    }
    let token = world.dir.write("token-n4", "any");
    let (pins, bundle) = (
        vec![format!("sha256:{}", "ab".repeat(32))],
        format!("sha256:{}", "ab".repeat(32)),
    );
    exposed(&token, || {
        let dir = world.dir.join("n4");
        let pins: (&[String], &str) = (&pins, &bundle);
        Refused(given_up(world.run_line(&dir, &world.url, ("n4", &token), pins)))
    });
}

/// What is said while a file is readable by others.
fn exposed(path: &Path, start: impl Fn() -> Refused) {
    let mode = |mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own file");
    mode(0o644);
    let said = start().expect_stderr(1);
    mode(0o600);
    let place = path.canonicalize().expect("it is there");
    let name = place.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(
        said.contains("can be read by others (mode 0644); run: chmod 600") && said.contains(&name),
        "{said}"
    );
}

fn run_again(command: &Command) -> Finished {
    let mut again = Command::new(command.get_program());
    again.args(command.get_args());
    run(&mut again)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
