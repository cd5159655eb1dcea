//! What happened in a run, line by line: enough to judge it again without running it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Instant,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Entry {
    /// The run as it was asked for.
    Began {
        log: String,
        seed: u64,
        seconds: u64,
        nodes: usize,
        /// The faults that the run must have seen, each from its beginning to its end.
        faults: Vec<String>,
    },
    /// Something is broken from here on, or whole again.
    Fault {
        kind: String,
        target: String,
        state: String,
        note: String,
    },
    /// An operator's command and what became of it; several lines with one id are the same command repeated.
    Command {
        command: String,
        id: Option<String>,
        code: i32,
        answer: Value,
        said: String,
    },
    /// Connections between nodes since the last such line.
    Handshakes { good: u64, unavailable: u64 },
    /// One side did not trust the other. `excused` says what was being done to either of them.
    Distrust {
        from: String,
        to: String,
        why: String,
        excused: Vec<String>,
    },
    /// What a node claims of itself, and whether the gate believed it.
    Claim {
        claim: String,
        is_true: bool,
        answer: String,
        believed: bool,
    },
    /// The most memory that a process has held.
    Memory { process: String, peak_kib: u64 },
    /// A flood of requests that nobody may make, and how the log grew under it.
    Flood {
        joins: u64,
        requests: u64,
        answers: BTreeMap<String, u64>,
        from: u64,
        to: u64,
        seconds: f64,
    },
    /// A process that ended by itself, which no fault makes the control plane do.
    Died { process: String, said: String },
    /// A start that had to fail, or might.
    Start {
        on: String,
        must_fail: bool,
        ready: bool,
        /// Does the log that it served from hold, as `audit verify` sees it?
        holds: Option<bool>,
        said: String,
    },
    /// How it stood once everything was whole again.
    Ended {
        verify_code: i32,
        /// The lists that views made anew answer otherwise.
        differing: Vec<String>,
        seconds: f64,
    },
}

/// A line with its time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Line {
    pub(crate) at_ms: u64,
    #[serde(flatten)]
    pub(crate) entry: Entry,
}

/// The record while it is written: each line is on the disk before the next thing happens.
pub(crate) struct Recorder {
    dir: PathBuf,
    began: Instant,
    lines: Mutex<(File, Vec<Line>)>,
}

impl Recorder {
    /// A record in a directory of its own; an earlier one there is replaced.
    pub(crate) fn new(dir: PathBuf) -> Self {
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).expect("a place for the record");
        let file = File::create(dir.join("record.jsonl")).expect("a place for the record");
        Self {
            dir,
            began: Instant::now(),
            lines: Mutex::new((file, vec![])),
        }
    }

    pub(crate) fn note(&self, entry: Entry) {
        let line = Line {
            at_ms: u64::try_from(self.began.elapsed().as_millis()).expect("a run ends some day"),
            entry,
        };
        let mut text = serde_json::to_string(&line).expect("plain data");
        text.push('\n');
        let mut lines = self.lines.lock().expect("no panic while held");
        lines
            .0
            .write_all(text.as_bytes())
            .expect("the record can be written");
        lines.1.push(line);
    }

    /// Keeps the events of the log beside it, and gives all lines.
    pub(crate) fn finish(&self, events: &Value) -> Vec<Line> {
        fs::write(self.dir.join("events.json"), events.to_string()).expect("the record can be written");
        self.lines.lock().expect("no panic while held").1.clone()
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// A record that was kept: its lines and the events of the log.
pub(crate) fn kept(dir: &Path) -> (Vec<Line>, Vec<Value>) {
    let text = fs::read_to_string(dir.join("record.jsonl")).expect("a record");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of a record"));
    let events = fs::read_to_string(dir.join("events.json")).expect("the events of a record");
    (
        lines.collect(),
        serde_json::from_str(&events).expect("an array of events"),
    )
}
