//! From a signal to an orderly end.
//!
//! The first SIGTERM or SIGINT cancels a token that every task watches; the second ends the process at once with 130,
//! because a person who asks twice does not want to wait for a drain that hangs.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a drain may take before what is left is aborted.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// The exit code of a process that was interrupted.
pub const EXIT_INTERRUPTED: i32 = 130;

/// The signals that end a process, installed but not yet watched.
///
/// Installing is a step of its own so that it can come before everything else: a signal between the start and the
/// first task must not kill the process half-way through its first write.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers. From here on the default action (die at once) is gone.
    ///
    /// # Errors
    /// When the operating system refuses a handler; there is no safe way to go on then.
    pub fn install() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Cancels `token` at the first signal and exits with 130 at the second. Runs for ever: spawn it into a `JoinSet`
    /// that is aborted at the end.
    pub async fn watch(mut self, token: CancellationToken) {
        let name = self.next().await;
        tracing::info!(
            signal = name,
            "stopping; a second signal ends the process at once"
        );
        token.cancel();
        let name = self.next().await;
        tracing::warn!(signal = name, "second signal, not waiting for the drain");
        // What recovery finds: the log is durable at every acknowledged append, files change by rename. Nothing that
        // this exit interrupts was promised to anyone.
        std::process::exit(EXIT_INTERRUPTED);
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// SIGHUP: the operator asks that the configuration be read again.
#[derive(Debug)]
pub struct Hangups(Signal);

impl Hangups {
    /// Installs the handler, so that SIGHUP no longer ends the process.
    ///
    /// # Errors
    /// When the operating system refuses the handler.
    pub fn install() -> io::Result<Self> {
        signal(SignalKind::hangup()).map(Self)
    }

    /// Waits for the next SIGHUP. Several that come together are one.
    pub async fn next(&mut self) {
        self.0.recv().await;
    }
}

/// Waits until every task in `tasks` has ended, at most `within`, then aborts the rest and returns how many those were.
///
/// A task that panicked is logged: a panic is a bug and must not pass as an orderly end.
pub async fn drain<T: 'static>(tasks: &mut JoinSet<T>, within: Duration) -> usize {
    let deadline = Instant::now() + within;
    loop {
        match tokio::time::timeout_at(deadline, tasks.join_next()).await {
            Ok(Some(Err(error))) if error.is_panic() => tracing::error!(%error, "a task panicked"),
            Ok(Some(_)) => {}
            Ok(None) => return 0,
            Err(_) => break,
        }
    }
    let left = tasks.len();
    tracing::warn!(tasks = left, after = ?within, "some tasks did not end in time and were aborted");
    tasks.shutdown().await;
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_tasks_that_end_and_aborts_those_that_do_not() {
        let token = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let stop = token.clone();
        tasks.spawn(async move { stop.cancelled().await });
        tasks.spawn(std::future::pending::<()>());
        token.cancel();
        assert_eq!(drain(&mut tasks, Duration::from_millis(50)).await, 1);
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn drain_of_finished_tasks_does_not_use_up_its_time() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        assert_eq!(drain(&mut tasks, Duration::from_secs(3600)).await, 0);
    }

    #[tokio::test]
    async fn the_first_signal_cancels_the_token() {
        let signals = Signals::install().expect("signal handlers can be installed");
        let token = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(signals.watch(token.clone()));
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
            .expect("a process may signal itself");
        token.cancelled().await;
        tasks.shutdown().await;
    }
}
