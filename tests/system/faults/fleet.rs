//! The fleet under fire: processes that may be killed, frozen or restarted by one thread while others use them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use carousel_tests::{NatsServer, PATIENCE, Proc, TestDir, deadline};
use serde_json::Value;

use super::{
    disk::{self, Disk, FakeClock},
    record::{Entry, Recorder},
};
use crate::world::{Agent, Log, World};

/// Nodes with a disk of their own.
const WITH_DISK: usize = 3;
/// Nodes with a clock of their own, after those.
const WITH_CLOCK: usize = 3;

/// A control plane and its nodes.
pub(crate) struct Fleet {
    pub(crate) log: Log,
    pub(crate) nodes: Vec<Node>,
    pub(crate) serve: Mutex<Option<Proc>>,
    pub(crate) broker: Mutex<Option<NatsServer>>,
    pub(crate) serve_clock: FakeClock,
    pub(crate) record: Recorder,
    pub(crate) over: AtomicBool,
    /// How many troubles have done each of their faults once.
    pub(crate) rounds: AtomicUsize,
    /// A backup of the control plane's directory from the beginning.
    pub(crate) backup: PathBuf,
    began: Instant,
    peaks: Mutex<BTreeMap<String, u64>>,
    // Before the directory that they are mounted in.
    pub(crate) serve_disk: Disk,
    pub(crate) broker_disk: Option<Disk>,
    pub(crate) world: World,
}

/// One node.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) agent: Mutex<Agent>,
    pub(crate) disk: Option<Disk>,
    pub(crate) clock: Option<FakeClock>,
    /// What is being done to it that a peer may rightly distrust it for.
    excuse: Mutex<Option<&'static str>>,
    /// Somebody is at it: one fault at a time for each node.
    pub(crate) busy: AtomicBool,
}

impl Fleet {
    /// A cluster whose nodes have all reached standby, or `None` where something that it needs is missing (said).
    pub(crate) fn start(log: Log, nodes: usize, record: Recorder) -> Option<Self> {
        let dir = TestDir::new("faults");
        let broker_disk = match log {
            Log::Embedded => None,
            Log::JetStream => Some(Disk::mount(&dir.join("nats"), 256)?),
        };
        let serve_disk = Disk::mount(&dir.join("cp"), 256)?;
        let serve_clock = FakeClock::new(dir.join("serve-clock"))?;
        let mut world = World::start_in(dir, log, None)?;
        // The first start was on the machine's clock.
        let mut first = world.serve.take().expect("it runs");
        first.terminate();
        first.wait(PATIENCE);
        let backup = world.dir.join("backup");
        disk::copy(&world.data(), &backup);
        world.env = serve_clock.env();
        let broker = (log == Log::JetStream).then(|| world.take_broker());
        let mut fleet = Self {
            log,
            nodes: vec![],
            serve: Mutex::new(None),
            broker: Mutex::new(broker),
            serve_clock,
            record,
            over: AtomicBool::new(false),
            rounds: AtomicUsize::new(0),
            backup,
            began: Instant::now(),
            peaks: Mutex::default(),
            serve_disk,
            broker_disk,
            world,
        };
        fleet.start_serve();
        fleet.join(nodes);
        Some(fleet)
    }

    fn join(&mut self, count: usize) {
        let uses = count.to_string();
        let (token, pins, bundle) = self.world.token(&["--names", "*.fleet.test", "--uses", &uses]);
        for number in 1..=count {
            let name = format!("n{number:02}.fleet.test");
            let mut agent = self.world.agent_for(&name, &token, &pins, &bundle);
            let disk = (number <= WITH_DISK).then(|| Disk::mount(&agent.dir, 4).expect("as before"));
            let own_clock = number > WITH_DISK && number <= WITH_DISK + WITH_CLOCK;
            let clock = own_clock
                .then(|| FakeClock::new(self.world.dir.join(&format!("clock-{name}"))).expect("as before"));
            agent.env.extend(clock.iter().flat_map(FakeClock::env));
            agent.start();
            self.nodes.push(Node {
                name,
                dir: agent.dir.clone(),
                agent: Mutex::new(agent),
                disk,
                clock,
                excuse: Mutex::new(None),
                busy: AtomicBool::new(false),
            });
        }
        for node in &self.nodes {
            deadline(PATIENCE * 2, &format!("{} serves", node.name), || node.listens());
        }
    }

    /// Is it time to end?
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// How long it has run.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Lets time pass: the length of a fault, not a wait for anything.
    pub(crate) fn pass(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && !self.is_over() {
            thread::sleep(Duration::from_millis(10).min(time));
        }
    }

    /// Says that something begins or ends.
    pub(crate) fn fault(&self, kind: &str, target: &str, state: &str, note: impl Into<String>) {
        self.record.note(Entry::Fault {
            kind: kind.into(),
            target: target.into(),
            state: state.into(),
            note: note.into(),
        });
    }

    /// Starts the control plane and waits until it serves, as often as it takes: a broker may be away.
    pub(crate) fn start_serve(&self) {
        let mut serve = lock(&self.serve);
        let end = Instant::now() + PATIENCE * 2;
        *serve = loop {
            match self.try_serve(&self.world.data(), None, PATIENCE) {
                Ok(proc) => break Some(proc),
                Err(said) => assert!(
                    Instant::now() < end,
                    "the control plane does not serve again\n{said}"
                ),
            }
        };
    }

    /// One start on a data directory. Where it does not serve `within` this time it is killed, or has ended: gives what
    /// it said.
    pub(crate) fn try_serve(
        &self,
        data: &Path,
        listen: Option<&str>,
        within: Duration,
    ) -> Result<Proc, String> {
        let mut command = match listen {
            None => self.world.serve_command(),
            Some(listen) => self.world.serve_command_for(data, listen),
        };
        let mut proc = Proc::start("serve", &mut command);
        let began = Instant::now();
        while !proc.stdout().contains("ready https://") {
            if !proc.is_running() || began.elapsed() > within {
                proc.kill9();
                self.hear("serve", &proc);
                return Err(proc.stderr());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(proc)
    }

    /// Kills the control plane.
    pub(crate) fn kill_serve(&self) {
        let taken = lock(&self.serve).take();
        if let Some(mut proc) = taken {
            self.still_there(&mut proc);
            self.look_at("serve", proc.pid());
            proc.kill9();
            self.hear("serve", &proc);
        }
    }

    /// Notes that the control plane has ended by itself, if it has.
    pub(crate) fn still_there(&self, serve: &mut Proc) -> bool {
        let runs = serve.is_running();
        if !runs {
            let said = serve.stderr();
            let last: Vec<&str> = said.lines().rev().take(20).collect();
            self.record.note(Entry::Died {
                process: "serve".into(),
                said: last.into_iter().rev().collect::<Vec<_>>().join("\n"),
            });
        }
        runs
    }

    /// Notes how much memory a process has held at most.
    pub(crate) fn look_at(&self, process: &str, pid: u32) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        let mut peaks = lock(&self.peaks);
        let most = peaks.entry(process.to_owned()).or_default();
        *most = kib.unwrap_or(0).max(*most);
    }

    /// A process that panicked is a violation, whatever else happened.
    pub(crate) fn hear(&self, who: &str, proc: &Proc) {
        let said = proc.transcript();
        assert!(!said.contains("panicked at"), "{who} panicked\n{said}");
    }

    /// Writes down how much memory was held.
    pub(crate) fn note_memory(&self) {
        for (process, peak_kib) in lock(&self.peaks).clone() {
            self.record.note(Entry::Memory { process, peak_kib });
        }
    }
}

impl Node {
    /// Where it listens and which node it is, while it serves.
    pub(crate) fn listens(&self) -> Option<(String, String)> {
        let status = self.says()?;
        let serves = status["stage"] == "serving" && status["proven"] == true;
        let (at, id) = (status["listen"].as_str()?, status["node"].as_str()?);
        serves.then(|| (at.to_owned(), id.to_owned()))
    }

    /// Does a gateway hear it, by its own word?
    pub(crate) fn is_heard(&self) -> bool {
        self.says()
            .is_some_and(|status| status["connected"] == true && status["synced"] == true)
    }

    /// What it wrote down of itself last.
    fn says(&self) -> Option<Value> {
        let text = fs::read_to_string(self.dir.join("status.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(crate) fn excuse(&self, why: Option<&'static str>) {
        *lock(&self.excuse) = why;
    }

    pub(crate) fn excused(&self) -> Option<&'static str> {
        *lock(&self.excuse)
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic while held")
}
