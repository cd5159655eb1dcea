//! The agents' processes, from outside: started, counted, and waited for.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    task::JoinSet,
};

use super::{
    agents::{Count, Crew},
    spread::Spread,
};
use crate::bench::BenchError;

/// The most agents of one process.
const MOST: u32 = 10_000;
/// Open files of a process that are not agents' connections.
const OTHER_FILES: u64 = 256;

/// Agents in processes of their own; they end with it.
pub(crate) struct Crowd {
    pub(crate) count: u32,
    crews: Vec<(Child, ChildStdin)>,
    counts: watch::Sender<Vec<Count>>,
    readers: JoinSet<()>,
}

impl Crowd {
    /// Starts the crew's agents, in as many processes as their open files need.
    pub(crate) async fn start(crew: &Crew) -> Result<Self, BenchError> {
        let mut crowd = Self {
            count: crew.count,
            crews: vec![],
            counts: watch::Sender::default(),
            readers: JoinSet::new(),
        };
        for (first, count) in shares(crew.count, most()) {
            let part = Crew {
                first: crew.first + first,
                count,
                server: crew.server.clone(),
                token: crew.token.clone(),
                ca_pins: crew.ca_pins.clone(),
                bundle_pin: crew.bundle_pin,
            };
            crowd.add(&part).await.map_err(BenchError::Process)?;
        }
        Ok(crowd)
    }

    async fn add(&mut self, crew: &Crew) -> std::io::Result<()> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bench", "agents"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().expect("it is piped");
        let stdout = child.stdout.take().expect("it is piped");
        // By a pipe and not by the command line, which is for everybody to read: the token is among it.
        let mut line = serde_json::to_vec(crew).expect("a crew is plain data");
        line.push(b'\n');
        stdin.write_all(&line).await?;
        let place = self.crews.len();
        self.counts.send_modify(|counts| counts.push(Count::default()));
        self.readers.spawn(read(stdout, place, self.counts.clone()));
        self.crews.push((child, stdin));
        Ok(())
    }

    /// How far they are, all together.
    pub(crate) fn now(&self) -> Count {
        total(&self.counts.borrow())
    }

    /// Waits until so many have come so far, and says when half, nearly all and all of them had, counted from `began`.
    pub(crate) async fn come(
        &self,
        what: &str,
        far: impl Fn(&Count) -> u32,
        began: Instant,
        patience: Duration,
    ) -> Result<Spread, BenchError> {
        let (mut counts, mut times) = (self.counts.subscribe(), vec![]);
        let all = self.count as usize;
        let watching = async {
            loop {
                let count = total(&counts.borrow_and_update());
                if let Some(why) = count.why {
                    return Err(BenchError::Stuck(format!("an agent has ended: {why}")));
                }
                times.resize(times.len().max(far(&count) as usize), began.elapsed());
                if times.len() >= all {
                    return Ok(());
                }
                counts.changed().await.expect("the sender is ours");
            }
        };
        match tokio::time::timeout(patience, watching).await {
            Ok(done) => done?,
            Err(_) => {
                let count = self.now();
                let text = format!("not all agents {what} within {} s: {count:?}", patience.as_secs());
                return Err(BenchError::Stuck(text));
            }
        }
        Ok(Spread::of(times))
    }

    /// Waits until nobody holds a stream.
    pub(crate) async fn lost(&self) {
        let mut counts = self.counts.subscribe();
        let _ = counts.wait_for(|counts| total(counts).connected == 0).await;
    }

    /// Ends them all.
    pub(crate) async fn end(mut self) {
        for (child, stdin) in &mut self.crews {
            let _ = stdin.shutdown().await;
            let _ = child.kill().await;
        }
    }
}

async fn read(stdout: ChildStdout, place: usize, counts: watch::Sender<Vec<Count>>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(count) = serde_json::from_str(&line) {
            counts.send_modify(|counts| counts[place] = count);
        }
    }
}

fn total(counts: &[Count]) -> Count {
    counts.iter().fold(Count::default(), |all, count| all.and(count))
}

/// As many as there are open files for: a stream, and a request beside it.
fn most() -> u32 {
    let files = runtime::harden::open_files().saturating_sub(OTHER_FILES);
    u32::try_from(files / 2).unwrap_or(MOST).clamp(1, MOST)
}

/// The first and the number of each process's agents.
fn shares(count: u32, most: u32) -> impl Iterator<Item = (u32, u32)> {
    let firsts = (0..count).step_by(most as usize);
    firsts.map(move |first| (first, most.min(count - first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_agent_is_in_one_process_and_no_process_has_too_many() {
        assert_eq!(shares(25, 10).collect::<Vec<_>>(), [(0, 10), (10, 10), (20, 5)]);
        assert_eq!(shares(10, 10).collect::<Vec<_>>(), [(0, 10)]);
    }
}
