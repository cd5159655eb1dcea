//! Bad input on the control plane's host: directories, files, logs, ports and brokers.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{Read, Seek, SeekFrom, Write},
    net::TcpListener,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use carousel_tests::{Finished, NatsServer, PATIENCE, Proc, TestDir, eventually, run};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::{
    proof::{Refused, copy_dir, serve, stop},
    world::{Log, World, carousel},
};

#[test]
fn identities_that_cannot_be_used_are_named() {
    let mut world = World::start("identities", Log::Embedded).expect("the embedded log is always there");
    let good = fs::read_to_string(world.data().join("admin.identity")).expect("serve wrote it");
    let file = |name: &str, text: &str, mode: u32| {
        let path = world.dir.write(name, text);
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("our own file");
        path
    };
    let cases = [
        (
            file("open.identity", &good, 0o644),
            1,
            "can be read by others (mode 0644); run: chmod 600",
        ),
        (
            file("cut.identity", &good[..good.len() / 2], 0o600),
            1,
            "is not an identity file of Carousel",
        ),
        (
            file("other.identity", "hello", 0o600),
            1,
            "is not an identity file of Carousel",
        ),
        (world.dir.join("absent.identity"), 1, "cannot be read"),
    ];
    for (path, code, words) in cases {
        let path = path.display().to_string();
        let said = status_as(&world, &path).expect_stderr(code);
        assert!(
            said.contains(words) && said.contains(&path),
            "{words:?} is not in: {said}"
        );
        assert!(!said.contains("PRIVATE"), "{said}");
    }
    // Nobody there, and somebody there who is another cluster's.
    let other = World::start("identities-other", Log::Embedded).expect("the embedded log is always there");
    let foreign = world.carousel(&["--server", &other.url, "status"]);
    let said = Refused(foreign).expect_stderr(4);
    assert!(!said.is_empty(), "it says why");
    stop(&mut world);
    let said = Refused(world.carousel(&["status"])).expect_stderr(4);
    assert!(
        said.contains("unreachable:") && said.contains("carousel serve"),
        "{said}"
    );
    recovers_without_and_with_a_control_plane(&mut world, &good);
}

/// `recover` works on a stopped directory and beside a running control plane, each time as an event.
fn recovers_without_and_with_a_control_plane(world: &mut World, before: &str) {
    let data = world.data().display().to_string();
    let identity = world.data().join("admin.identity");
    // One that others can read keeps it from serving; one that was moved away does not.
    fs::set_permissions(&identity, Permissions::from_mode(0o644)).expect("our own file");
    let said = serve(&world.data()).expect_stderr(1);
    assert!(said.contains("can be read by others"), "{said}");
    fs::remove_file(&identity).expect("the lost identity");
    world.serve();
    let proc = world.serve.as_mut().expect("it runs");
    let said = proc.wait_for_line("carousel recover --data-dir", PATIENCE);
    assert!(said.contains("admin.identity"), "{said}");
    stop(world);
    let recover = || {
        run(&mut carousel(&[
            "recover",
            "--data-dir",
            &data,
            "--reason",
            "it was lost",
        ]))
    };
    let _ = recover().expect_code(0);
    world.serve();
    let _ = world.carousel(&["status"]).expect_code(0);
    let _ = recover().expect_code(0);
    let _ = world.carousel(&["status"]).expect_code(0);
    let mode = fs::metadata(&identity)
        .expect("it was written")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_ne!(fs::read_to_string(&identity).expect("it was written"), before);
    let events = world.json(&["audit", "ls", "--all", "--type", "access.recovered"]);
    assert_eq!(events.as_array().expect("events").len(), 2, "{events}");
    assert!(events.to_string().contains("it was lost"), "{events}");
}

#[test]
fn a_data_directory_that_does_not_fit_is_refused_and_left_alone() {
    let mut world = World::start("directory", Log::Embedded).expect("the embedded log is always there");
    let data = world.data();
    // While it serves: a second one, and another cluster in its place.
    let said = serve(&data).expect_stderr(1);
    assert!(said.contains("is in use by another carousel process"), "{said}");
    let said = Refused(init(&data)).expect_stderr(1);
    assert!(said.contains("holds the cluster acme.cluster already"), "{said}");
    stop(&mut world);
    let said = serve(&world.dir.join("nothing")).expect_stderr(1);
    assert!(said.contains("carousel init --data-dir"), "{said}");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = port.local_addr().expect("a port").to_string();
    let said = Refused(run(&mut serve_on(&data, &taken))).expect_stderr(1);
    assert!(said.contains(&taken), "the port is named: {said}");
    let copies = [
        ("a newer version", newer as fn(&Path), "newer version"),
        ("a truncated database", truncated, "is damaged"),
        ("an overwritten page", scribbled, "is damaged"),
        (
            "a database that is gone",
            gone,
            "the log of this cluster is gone: it had been begun, and there is no file",
        ),
        (
            "an emptied database",
            emptied,
            "the log of this cluster is gone: it had been begun, and what is there now is empty",
        ),
        ("keys that are gone", keyless, "keys"),
        ("a readable key-encryption key", open_kek, "can be read by others"),
    ];
    for (what, damage, words) in copies {
        let copy = world.dir.join(&what.replace(' ', "-"));
        copy_dir(&data, &copy);
        damage(&copy);
        let said = serve(&copy).expect_stderr(1);
        assert!(said.contains(words), "{what}: {said}");
    }
    // An empty log in its place would be in the way of the copy to restore.
    let gone = world.dir.join("a-database-that-is-gone");
    assert!(!gone.join("log.sqlite").exists(), "nothing was written");
    // Another cluster of the same name.
    let other = world.dir.join("other");
    let _ = init(&other).expect_code(0);
    fs::copy(data.join("log.sqlite"), other.join("log.sqlite")).expect("a copy");
    let said = serve(&other).expect_stderr(1);
    assert!(
        said.contains("another one of the same name") && said.contains("nothing was written"),
        "{said}"
    );
    // The original is as it was.
    world.serve();
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

fn newer(data: &Path) {
    let path = data.join("cluster.json");
    let text = fs::read_to_string(&path).expect("it is there");
    let text = text.replace("\"format\": 1", "\"format\": 99");
    fs::write(&path, text).expect("our own file");
}

fn truncated(data: &Path) {
    let file = OpenOptions::new()
        .write(true)
        .open(data.join("log.sqlite"))
        .expect("it is there");
    let length = file.metadata().expect("a file").len();
    file.set_len(length / 2).expect("our own file");
}

fn scribbled(data: &Path) {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(data.join("log.sqlite"))
        .expect("it is there");
    let mut page = [0; 512];
    file.seek(SeekFrom::Start(8192))
        .and_then(|_| file.read_exact(&mut page))
        .expect("a third page");
    page.iter_mut().for_each(|byte| *byte ^= 0x55);
    file.seek(SeekFrom::Start(8192))
        .and_then(|_| file.write_all(&page))
        .expect("our own file");
}

fn gone(data: &Path) {
    fs::remove_file(data.join("log.sqlite")).expect("it is there");
}

/// A log of this version that holds nothing.
fn emptied(data: &Path) {
    gone(data);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let log = eventlog::SqliteLog::open(data.join("log.sqlite"))
            .await
            .expect("a new log");
        log.close().await;
    });
}

fn keyless(data: &Path) {
    fs::remove_dir_all(data.join("keys")).expect("they are there");
}

fn open_kek(data: &Path) {
    fs::set_permissions(data.join("keys/kek"), Permissions::from_mode(0o644)).expect("our own file");
}

#[test]
fn a_cluster_that_was_never_started_is_not_recovered() {
    let dir = TestDir::new("never-started");
    let data = dir.join("cp");
    let _ = init(&data).expect_code(0);
    let said = Refused(run(&mut recover(&data))).expect_stderr(1);
    assert!(said.contains("carousel serve --data-dir"), "{said}");
    assert!(!data.join("log.sqlite").exists(), "no log was made");
}

#[test]
fn whoever_handles_keys_of_authorities_leaves_no_core() {
    let dir = TestDir::new("cores");
    let (settings, data) = (dir.join("settings"), dir.join("cp"));
    // A pipe holds `init` where it reads its settings, so that it can be looked at.
    mknodat(CWD, &settings, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe can be made");
    let mut command = carousel(&["init", "--cluster", "acme.cluster", "--data-dir"]);
    command.arg(&data).arg("--settings").arg(&settings);
    let mut init = Proc::start("init", &mut command);
    let limits = {
        // Opened once the other side is there.
        let _writer = OpenOptions::new().write(true).open(&settings).expect("a pipe");
        fs::read_to_string(format!("/proc/{}/limits", init.pid())).unwrap_or_default()
    };
    let cores = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = cores.unwrap_or_default().split_whitespace().collect();
    if cfg!(target_os = "linux") {
        assert_eq!(words[4..6], ["0", "0"], "{limits}");
    }
    // The settings are read twice.
    eventually("init ends", || {
        drop(
            OpenOptions::new()
                .write(true)
                .custom_flags(nonblocking())
                .open(&settings),
        );
        !init.is_running()
    });
    assert!(data.join("cluster.json").exists(), "{}", init.transcript());
}

/// Opens a pipe only if somebody reads it.
fn nonblocking() -> i32 {
    rustix::fs::OFlags::NONBLOCK.bits().cast_signed()
}

#[test]
fn the_credentials_of_a_broker_are_given_again_where_they_are_needed() {
    let dir = TestDir::new("credentials");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let settings = "authorization { user: carousel, password: s3cret }";
    let Some(broker) = runtime.block_on(NatsServer::start_with(dir.join("nats"), settings)) else {
        return;
    };
    let data = dir.join("cp");
    let log = broker.url().replace("nats://", "nats://carousel:s3cret@");
    let _ = init(&data).expect_code(0);
    let mut serving = Proc::start("serve", serve_on(&data, "127.0.0.1:0").args(["--log", &log]));
    serving.wait_for_line("ready https://", PATIENCE);
    serving.terminate();
    assert!(serving.wait(PATIENCE).success(), "{}", serving.transcript());
    let kept = fs::read_to_string(data.join("cluster.json")).expect("it is there");
    assert!(!kept.contains("s3cret"), "{kept}");
    let verify = || {
        let mut command = carousel(&["audit", "verify", "--data-dir"]);
        command.arg(&data);
        command
    };
    // Neither is remembered, so neither works without; with it, both do.
    for mut command in [recover(&data), verify()] {
        let said = Refused(run(&mut command)).expect_stderr(1);
        assert!(!said.contains("s3cret"), "{said}");
        let _ = run(command.args(["--log", &log])).expect_code(0);
    }
    let other = Refused(run(verify().args(["--log", "embedded"]))).expect_stderr(1);
    assert!(other.contains("this cluster keeps its log in nats://"), "{other}");
}

fn recover(data: &Path) -> std::process::Command {
    let mut command = carousel(&["recover", "--data-dir"]);
    command.arg(data);
    command
}

#[test]
fn a_broker_that_is_absent_or_goes_away_is_said_and_nothing_is_lost() {
    let Some(mut world) = World::start("broker", Log::JetStream) else {
        return;
    };
    let position = world.json(&["status"])["position"].as_u64().expect("a position");
    world.stop_broker();
    let mut command = world.command(&["auth", "rotate", "--manual", "--type=host", "--reason", "now"]);
    let failed = run(&mut command);
    assert!(matches!(failed.code, Some(1 | 3 | 4)), "{}", failed.stderr);
    assert!(
        !failed.stderr.contains("panicked") && !failed.stderr.is_empty(),
        "{}",
        failed.stderr
    );
    world.start_broker();
    // It finds its way back by itself, the same process, and the command was done once or not at all.
    eventually("the control plane answers again", || {
        world.carousel(&["status"]).code == Some(0)
    });
    let _ = world.enter("host", "init").expect_code(0);
    let entered = world.json(&["audit", "ls", "--all", "--type", "rotation.phase-entered"]);
    assert_eq!(entered.as_array().expect("events").len(), 1, "{entered}");
    assert!(world.json(&["status"])["position"].as_u64() > Some(position));
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
    // Without its broker it does not start, and the directory remembers which log is its own.
    stop(&mut world);
    world.stop_broker();
    let mut starting = Proc::start("serve", &mut world.serve_command());
    let status = starting.wait(PATIENCE);
    let said = Finished {
        code: status.code(),
        stdout: starting.stdout(),
        stderr: starting.stderr(),
    };
    let said = Refused(said).expect_stderr(1);
    assert!(said.contains("nats://127.0.0.1"), "{said}");
    let other = Refused(run(
        serve_on(&world.data(), "127.0.0.1:0").args(["--log", "embedded"])
    ));
    let said = other.expect_stderr(1);
    assert!(said.contains("this cluster keeps its log in nats://"), "{said}");
    a_lost_stream_is_not_made_anew(&mut world);
    world.start_broker();
    world.serve();
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

/// Neither serving nor verifying puts an empty stream where the copy has to be restored.
fn a_lost_stream_is_not_made_anew(world: &mut World) {
    let (store, aside) = (world.dir.join("nats").join("jetstream"), world.dir.join("aside"));
    fs::rename(&store, &aside).expect("our own directory");
    world.start_broker();
    let said = Refused(run(&mut world.serve_command())).expect_stderr(1);
    assert!(
        said.contains("the log of this cluster is gone") && said.contains("there is no stream"),
        "{said}"
    );
    let data = world.data().display().to_string();
    let verify = || run(&mut carousel(&["audit", "verify", "--data-dir", &data]));
    for _ in 0..2 {
        let said = Refused(verify()).expect_stderr(1);
        assert!(said.contains("there is no stream"), "{said}");
    }
    world.stop_broker();
    fs::remove_dir_all(&store).expect("the broker made it");
    fs::rename(&aside, &store).expect("our own directory");
}

fn init(data: &Path) -> Finished {
    run(&mut carousel(&[
        "init",
        "--data-dir",
        &data.display().to_string(),
        "--cluster",
        "acme.cluster",
    ]))
}

fn serve_on(data: &Path, listen: &str) -> std::process::Command {
    let data = data.display().to_string();
    carousel(&[
        "serve",
        "--data-dir",
        &data,
        "--listen",
        listen,
        "--admin-listen",
        "127.0.0.1:0",
    ])
}

fn status_as(world: &World, identity: &str) -> Refused {
    Refused(world.carousel(&["--identity", identity, "status"]))
}
