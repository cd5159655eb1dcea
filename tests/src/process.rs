//! Processes under test: every line kept, no wait without a deadline, none left behind.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A running process. It is killed when this is dropped, so a failed test leaves nothing behind.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    said: Arc<Said>,
    readers: Vec<JoinHandle<()>>,
}

/// What a process has said so far, both streams in the order of arrival.
#[derive(Debug, Default)]
struct Said {
    lines: Mutex<Vec<Line>>,
    more: Condvar,
}

#[derive(Debug, Clone)]
struct Line {
    stdout: bool,
    text: String,
}

impl Proc {
    /// Starts `command` under a name for messages. Its standard input is empty.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, command: &mut Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let said = Arc::new(Said::default());
        let stdout = child.stdout.take().expect("piped above");
        let stderr = child.stderr.take().expect("piped above");
        let readers = vec![read(stdout, true, &said), read(stderr, false, &said)];
        Self {
            name: name.to_owned(),
            child,
            said,
            readers,
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line, on either stream, that contains `needle`; gives the first such line, however old.
    ///
    /// # Panics
    /// When it does not come within `within`, or the process ends without it; shows all output.
    pub fn wait_for_line(&mut self, needle: &str, within: Duration) -> String {
        self.wait_for(needle, within, 0, |line| {
            line.contains(needle).then(|| line.to_owned())
        })
    }

    /// Waits for a line that `pick` takes, looking only at lines from the `skip`-th on (see [`Proc::lines_so_far`]).
    ///
    /// # Panics
    /// As [`Proc::wait_for_line`].
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        within: Duration,
        skip: usize,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> T {
        let end = Instant::now() + within;
        let mut seen = skip;
        loop {
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            if ended {
                // The pipes are closed or about to be: whatever was said is in the lines after this.
                self.join_readers();
            }
            let new: Vec<Line> = self.said.lock().iter().skip(seen).cloned().collect();
            if let Some(found) = new.iter().find_map(|line| pick(&line.text)) {
                return found;
            }
            seen += new.len();
            assert!(
                !ended,
                "{} ended without saying {what:?}\n{}",
                self.name,
                self.transcript()
            );
            assert!(
                Instant::now() < end,
                "{} did not say {what:?} in {within:?}\n{}",
                self.name,
                self.transcript()
            );
            self.said.wait_for_more(seen);
        }
    }

    /// How many lines it has said: a mark for [`Proc::wait_for`].
    #[must_use]
    pub fn lines_so_far(&self) -> usize {
        self.said.lock().len()
    }

    /// Everything it has said on stdout.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.said.text(true)
    }

    /// Everything it has said on stderr.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.said.text(false)
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Asks it to read its configuration again (SIGHUP).
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Freezes it (SIGSTOP): it keeps its sockets and says nothing more. Returns once it stands still.
    ///
    /// # Panics
    /// When it has ended.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        // The signal is only pending at first; where the kernel shows the state, wait until all threads have stopped.
        let stat = format!("/proc/{}/stat", self.pid());
        if cfg!(target_os = "linux") {
            crate::eventually(&format!("{} stands still", self.name), || {
                let text =
                    std::fs::read_to_string(&stat).expect("a child that was not waited for is in /proc");
                text.rsplit(") ")
                    .next()
                    .is_some_and(|state| state.starts_with('T'))
            });
        }
    }

    /// Lets it go on after [`Proc::stop`].
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it without a chance to tidy up (SIGKILL) and waits until it is gone.
    ///
    /// # Panics
    /// When the operating system loses track of it.
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("a child of ours can be waited for");
        self.join_readers();
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within `within`; shows all output.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let end = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours can be waited for") {
                self.join_readers();
                return status;
            }
            assert!(
                Instant::now() < end,
                "{} did not end in {within:?}\n{}",
                self.name,
                self.transcript()
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Both streams, for messages.
    #[must_use]
    pub fn transcript(&self) -> String {
        let mut text = format!("--- {} said:\n", self.name);
        for line in self.said.lock().iter() {
            let stream = if line.stdout { "out" } else { "err" };
            writeln!(text, "{stream}| {}", line.text).expect("a string takes everything");
        }
        text
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a child has a process id");
        // It may have ended by itself; until it is waited for, its id is not given to anyone else.
        let _ = kill_process(pid, signal);
    }

    fn join_readers(&mut self) {
        // A grandchild may still hold the pipes open; what it says later is of no interest to a wait that is over.
        let end = Instant::now() + Duration::from_secs(2);
        while self.readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        self.readers.retain(|reader| !reader.is_finished());
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill9();
        }
    }
}

impl Said {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a moment for more than `seen` lines; returns early when there are more.
    fn wait_for_more(&self, seen: usize) {
        let lines = self.lock();
        let pause = Duration::from_millis(50);
        drop(
            self.more
                .wait_timeout_while(lines, pause, |lines| lines.len() <= seen),
        );
    }

    fn text(&self, stdout: bool) -> String {
        let lines = self.lock();
        let chosen: Vec<_> = lines
            .iter()
            .filter(|line| line.stdout == stdout)
            .map(|line| &*line.text)
            .collect();
        if chosen.is_empty() {
            String::new()
        } else {
            chosen.join("\n") + "\n"
        }
    }
}

fn read(stream: impl Read + Send + 'static, stdout: bool, said: &Arc<Said>) -> JoinHandle<()> {
    let said = Arc::clone(said);
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(bytes) = line else { return };
            let text = String::from_utf8_lossy(&bytes).trim_end_matches('\r').to_owned();
            said.lock().push(Line { stdout, text });
            said.more.notify_all();
        }
    })
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// What it said on stdout.
    pub stdout: String,
    /// What it said on stderr.
    pub stderr: String,
}

impl Finished {
    /// Checks the exit code and gives stdout.
    ///
    /// # Panics
    /// When the code is another; shows both streams.
    #[must_use]
    pub fn expect_code(self, code: i32) -> String {
        assert_eq!(
            self.code,
            Some(code),
            "exit code\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Checks that it succeeded and parses its stdout as JSON.
    ///
    /// # Panics
    /// When it failed or said something else than JSON.
    #[must_use]
    pub fn json(self) -> serde_json::Value {
        let stdout = self.expect_code(0);
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("not JSON: {error}\n{stdout}"))
    }
}

/// Runs `command` to its end with the usual patience.
///
/// # Panics
/// When it does not start or does not end.
#[must_use]
pub fn run(command: &mut Command) -> Finished {
    run_within(crate::PATIENCE, command)
}

/// Runs `command` to its end, at most `within`.
///
/// # Panics
/// When it does not start or does not end.
#[must_use]
pub fn run_within(within: Duration, command: &mut Command) -> Finished {
    let name = format!("{command:?}");
    let mut process = Proc::start(&name, command);
    let status = process.wait(within);
    Finished {
        code: status.code(),
        stdout: process.stdout(),
        stderr: process.stderr(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_of_both_streams_are_found_also_after_the_end() {
        let mut process = Proc::start("both", &mut shell("echo one; echo two >&2; echo three"));
        assert_eq!(process.wait_for_line("three", SOON), "three");
        assert_eq!(process.wait_for_line("two", SOON), "two");
        assert!(process.wait(SOON).success());
        assert_eq!(
            (process.stdout().as_str(), process.stderr().as_str()),
            ("one\nthree\n", "two\n")
        );
    }

    #[test]
    #[should_panic(expected = "ended without saying")]
    fn a_process_that_ends_without_the_line_fails_at_once() {
        Proc::start("short", &mut shell("echo other")).wait_for_line("expected", Duration::from_secs(3600));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let process = Proc::start("sleeper", &mut shell("exec sleep 600"));
        let pid = Pid::from_raw(i32::try_from(process.pid()).expect("small")).expect("not zero");
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn a_frozen_process_says_nothing_until_it_goes_on() {
        let mut process = Proc::start("ticker", &mut shell("while :; do echo tick; sleep 0.01; done"));
        process.wait_for_line("tick", SOON);
        process.stop();
        // What was said before the freeze may still be in the pipe; the reader has it once two looks agree.
        let silent = crate::deadline(SOON, "silence", || {
            let before = process.lines_so_far();
            thread::sleep(Duration::from_millis(100));
            (process.lines_so_far() == before).then_some(before)
        });
        process.resume();
        process.wait_for("a tick after the freeze", SOON, silent, |line| {
            (line == "tick").then_some(())
        });
        process.kill9();
        assert!(!process.is_running());
    }

    #[test]
    fn exit_codes_and_output_are_kept() {
        let finished = run(&mut shell("echo data; echo why >&2; exit 3"));
        assert_eq!(finished.stderr, "why\n");
        assert_eq!(finished.expect_code(3), "data\n");
        assert_eq!(run(&mut shell("echo '{\"a\":1}'")).json()["a"], 1);
    }
}
