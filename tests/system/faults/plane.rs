//! What is done to the control plane and its broker.

use std::{fs, path::Path, sync::atomic::Ordering, time::Duration};

use carousel_tests::{Dice, NatsServer, PATIENCE};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    disk::{self, FakeClock},
    fleet::{Fleet, lock},
    record::Entry,
};
use crate::{proof, wire::runtime, world::Log};

/// So long a start on what is not fit may take until it serves: it may also wait, and say for what.
const TRIAL: Duration = Duration::from_secs(4);

/// One thing that may happen.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Frozen,
    FullDisk,
    ReadOnlyDisk,
    ClockAhead,
    ClockBehind,
    /// Embedded: the log's file cut short at any byte, and an old one in its place, both tried on a copy.
    TruncatedLog,
    OldLog,
    /// JetStream: the whole directory of the control plane from a backup, against the log of today.
    OldDirectory,
    BrokerKilled,
    BrokerFrozen,
    BrokerDiskFull,
    BrokerStoreGone,
}

impl Fault {
    fn all(log: Log) -> Vec<Self> {
        let both = [
            Self::Killed,
            Self::Frozen,
            Self::FullDisk,
            Self::ReadOnlyDisk,
            Self::ClockAhead,
            Self::ClockBehind,
        ];
        let own: &[Self] = match log {
            Log::Embedded => &[Self::TruncatedLog, Self::OldLog],
            Log::JetStream => &[
                Self::OldDirectory,
                Self::BrokerKilled,
                Self::BrokerFrozen,
                Self::BrokerDiskFull,
                Self::BrokerStoreGone,
            ],
        };
        both.iter().chain(own).copied().collect()
    }
}

/// What each of them is called in the record.
pub(crate) fn names(log: Log) -> impl Iterator<Item = String> {
    Fault::all(log).into_iter().map(|fault| format!("{fault:?}"))
}

/// One after another until the time is over: each kind once before any comes again.
pub(crate) fn trouble(fleet: &Fleet, seed: u64) {
    let mut dice = Dice::new(seed);
    for round in 0.. {
        let mut faults = Fault::all(fleet.log);
        dice.shuffle(&mut faults);
        for fault in faults {
            fleet.pass(between(&mut dice, 200, 2_500));
            if fleet.is_over() {
                return;
            }
            let name = format!("{fault:?}");
            fleet.fault(&name, "control plane", "begins", "");
            inflict(fleet, &mut dice, fault);
            fleet.fault(&name, "control plane", "ends", "");
        }
        fleet.rounds.fetch_add(usize::from(round == 0), Ordering::Relaxed);
    }
}

fn inflict(fleet: &Fleet, dice: &mut Dice, fault: Fault) {
    let a_while = between(dice, 500, 4_000);
    match fault {
        Fault::Killed => {
            fleet.kill_serve();
            fleet.pass(between(dice, 0, 1_500));
            fleet.start_serve();
        }
        Fault::Frozen => frozen(fleet, a_while),
        Fault::FullDisk => {
            fleet.serve_disk.fill();
            fleet.pass(a_while);
            fleet.serve_disk.free();
        }
        Fault::ReadOnlyDisk => {
            fleet.kill_serve();
            fleet.serve_disk.read_only(true);
            attempt(fleet, "a read-only disk", true, &fleet.world.data(), None);
            fleet.serve_disk.read_only(false);
            fleet.start_serve();
        }
        Fault::ClockAhead => clock(fleet, dice.span(20, 280), a_while),
        Fault::ClockBehind => clock(fleet, -dice.span(20, 280), a_while),
        Fault::TruncatedLog => truncated(fleet, dice),
        Fault::OldLog => old_log(fleet),
        Fault::OldDirectory => old_directory(fleet, a_while),
        Fault::BrokerKilled | Fault::BrokerFrozen | Fault::BrokerDiskFull | Fault::BrokerStoreGone => {
            broker(fleet, fault, a_while);
        }
    }
}

pub(crate) fn between(dice: &mut Dice, from_ms: i64, to_ms: i64) -> Duration {
    Duration::from_millis(dice.span(from_ms, to_ms).unsigned_abs())
}

fn frozen(fleet: &Fleet, time: Duration) {
    let mut serve = lock(&fleet.serve);
    if let Some(serve) = serve.as_mut()
        && fleet.still_there(serve)
    {
        serve.stop();
        fleet.pass(time);
        serve.resume();
    }
}

fn clock(fleet: &Fleet, by_s: i64, time: Duration) {
    fleet.fault("clock", "control plane", "jumps", format!("{by_s:+} s"));
    fleet.serve_clock.jump_s(by_s);
    fleet.pass(time + FakeClock::NOTICED);
    fleet.serve_clock.jump_s(0);
}

/// Starts on a copy of the data, or on a disk that is not fit, and writes down what it said.
fn attempt(fleet: &Fleet, on: &str, must_fail: bool, data: &Path, listen: Option<&str>) {
    let (ready, said) = match fleet.try_serve(data, listen, TRIAL) {
        Ok(mut proc) => {
            proc.kill9();
            (true, proc.transcript())
        }
        Err(said) => (false, said),
    };
    let holds = ready.then(|| proof::verify(data).0 == 0);
    fleet.record.note(Entry::Start {
        on: on.into(),
        must_fail,
        ready,
        holds,
        said,
    });
}

/// The control plane is killed, and on copies of what it left the log's files are cut anywhere. Such a start ends with
/// a word, or (where only what was never acknowledged is missing) serves; the copy is thrown away.
fn truncated(fleet: &Fleet, dice: &mut Dice) {
    let (data, copy) = (fleet.world.data(), fleet.world.dir.join("cut"));
    fleet.kill_serve();
    for file in ["log.sqlite", "log.sqlite-wal"] {
        disk::copy(&data, &copy);
        let path = copy.join(file);
        let Ok(length) = fs::metadata(&path).map(|found| found.len()) else {
            continue;
        };
        let at = dice.roll() % length.max(1);
        let cut = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|open| open.set_len(at));
        cut.expect("a copy can be cut");
        attempt(
            fleet,
            &format!("{file} cut at {at} of {length}"),
            false,
            &copy,
            Some("127.0.0.1:0"),
        );
    }
    fleet.start_serve();
}

/// The log of the beginning beside the keys of today: the signer has seen more.
fn old_log(fleet: &Fleet) {
    let (data, copy) = (fleet.world.data(), fleet.world.dir.join("old"));
    fleet.kill_serve();
    disk::copy(&data, &copy);
    for file in ["log.sqlite", "log.sqlite-wal", "log.sqlite-shm"] {
        let _ = fs::remove_file(copy.join(file));
        let _ = fs::copy(fleet.backup.join(file), copy.join(file));
    }
    // What the signer has seen it notes at least once a minute of work.
    let must_fail = fleet.age() > Duration::from_secs(70);
    attempt(
        fleet,
        "the log of the beginning",
        must_fail,
        &copy,
        Some("127.0.0.1:0"),
    );
    fleet.start_serve();
}

/// Everything that the control plane has on its own disk, keys included, is that of the beginning; the log is not.
/// It may refuse to serve or do without what it lost, but the log must stay true. Then the true directory is found.
fn old_directory(fleet: &Fleet, time: Duration) {
    let (data, true_one) = (fleet.world.data(), fleet.world.dir.join("true"));
    fleet.kill_serve();
    disk::copy(&data, &true_one);
    disk::replace(&fleet.backup, &data);
    match fleet.try_serve(&data, None, TRIAL) {
        Ok(proc) => {
            *lock(&fleet.serve) = Some(proc);
            fleet.pass(time);
            fleet.kill_serve();
        }
        Err(said) => fleet.record.note(Entry::Start {
            on: "a directory of the beginning".into(),
            must_fail: false,
            ready: false,
            holds: None,
            said,
        }),
    }
    disk::replace(&true_one, &data);
    fleet.start_serve();
}

fn broker(fleet: &Fleet, fault: Fault, time: Duration) {
    let mut held = lock(&fleet.broker);
    let Some(broker) = held.as_mut() else {
        return;
    };
    match fault {
        Fault::BrokerKilled => {
            broker.kill();
            fleet.pass(time);
            start(broker);
        }
        Fault::BrokerFrozen => {
            signal(broker, Signal::STOP);
            fleet.pass(time);
            signal(broker, Signal::CONT);
        }
        Fault::BrokerDiskFull => {
            let disk = fleet.broker_disk.as_ref().expect("a broker has one");
            disk.fill();
            fleet.pass(time);
            disk.free();
            // A server that met a full disk gives its streams up until it is started again.
            start(broker);
        }
        Fault::BrokerStoreGone => {
            let (store, away) = (
                fleet.world.dir.join("nats/jetstream"),
                fleet.world.dir.join("nats/away"),
            );
            broker.kill();
            fs::rename(&store, &away).expect("a test directory is writable");
            start(broker);
            fleet.pass(time);
            broker.kill();
            fs::remove_dir_all(&store).expect("a test directory is writable");
            fs::rename(&away, &store).expect("a test directory is writable");
            start(broker);
        }
        Fault::Killed
        | Fault::Frozen
        | Fault::FullDisk
        | Fault::ReadOnlyDisk
        | Fault::ClockAhead
        | Fault::ClockBehind
        | Fault::TruncatedLog
        | Fault::OldLog
        | Fault::OldDirectory => unreachable!("not of the broker"),
    }
}

fn start(broker: &mut NatsServer) {
    runtime().block_on(async {
        tokio::time::timeout(PATIENCE, broker.restart())
            .await
            .expect("the broker starts");
    });
}

fn signal(broker: &NatsServer, signal: Signal) {
    let pid = broker
        .pid()
        .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let _ = kill_process(pid.expect("it runs"), signal);
}
