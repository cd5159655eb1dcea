//! Commands in, events out: decide on the fold, append on one condition, answer when durable and folded.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use domain::{Code, Command, Order, Principal, Refusal, Timestamp, command::Answered};
use eventlog::Subject;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{Fold, Now, forward::Forwarder, fresh_id, sha256};

mod decider;
mod forwarding;
mod refusals;
#[cfg(test)]
mod tests;

use decider::Decider;
use forwarding::Forwarding;

/// Commands that wait to be decided. Enough for every node of a large fleet to report at once; beyond it
/// callers wait at the door instead of filling memory.
const WAITING: usize = 4_096;

/// The answer is no, or nothing is known.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ExecuteError {
    /// The domain refused; nothing was changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The log could not be written or its answer was lost: repeating the same command is safe.
    #[error("{0}")]
    Unavailable(String),
}

/// What became of a command, as the metric of commands calls it: `accepted`, `noop`, or the code of the no.
pub fn outcome(answered: &Result<Answered, ExecuteError>) -> &'static str {
    match answered {
        Ok(answered) if answered.answer.is_noop() => "noop",
        Ok(_) => "accepted",
        Err(ExecuteError::Refused(refusal)) => refusal.code.name(),
        Err(ExecuteError::Unavailable(_)) => Code::LogUnavailable.name(),
    }
}

/// A handle for sending commands. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    commands: mpsc::Sender<Waiting>,
    now: Now,
    clock_suspect: Arc<AtomicBool>,
    trouble: Trouble,
    /// Owns the deciding task; dropped with the last handle.
    _tasks: Arc<Mutex<JoinSet<()>>>,
}

/// Why nothing could be appended the last time that it was tried, and when.
type Trouble = Arc<Mutex<Option<(Timestamp, String)>>>;

struct Waiting {
    command: Command,
    traceparent: Option<String>,
    attempts: u32,
    /// Decided on a state that held everything durable when it was refused: the no is final.
    caught_up: bool,
    /// The subject on which another command of an earlier batch stood before it.
    stood_on: Option<Subject>,
    answer: oneshot::Sender<Result<Answered, ExecuteError>>,
}

impl Executor {
    /// Starts the deciding task of this process. It ends at `shutdown`, after the commands at hand.
    pub fn new(fold: Fold, now: Now, clock_suspect: Arc<AtomicBool>, shutdown: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        let trouble = Trouble::default();
        let decider = Decider::new(fold, now.clone(), clock_suspect.clone(), trouble.clone());
        tasks.spawn(decider.run(receiver, shutdown));
        Self {
            commands: sender,
            now,
            clock_suspect,
            trouble,
            _tasks: Arc::new(Mutex::new(tasks)),
        }
    }

    /// An executor that sends what it is given to where it is decided, and answers when this process has folded what
    /// came of it. It ends at `shutdown`, after the commands at hand.
    pub fn forwarding(fold: Fold, now: Now, forwarder: Forwarder, shutdown: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let (clock_suspect, trouble) = (Arc::new(AtomicBool::new(false)), Trouble::default());
        let forwarding = Forwarding {
            fold,
            now: now.clone(),
            forwarder,
            clock_suspect: clock_suspect.clone(),
            trouble: trouble.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(forwarding.run(receiver, shutdown));
        Self {
            commands: sender,
            now,
            clock_suspect,
            trouble,
            _tasks: Arc::new(Mutex::new(tasks)),
        }
    }

    /// Executes a command: durable and folded in this process when it returns.
    ///
    /// # Errors
    /// [`ExecuteError::Refused`] is the domain's no. After [`ExecuteError::Unavailable`] the same command
    /// may be sent again: its id makes sure that it counts once.
    pub async fn execute(&self, command: Command) -> Result<Answered, ExecuteError> {
        self.execute_traced(command, None).await
    }

    /// The same within a trace (W3C `traceparent`), which is kept with the events.
    ///
    /// # Errors
    /// As [`Executor::execute`].
    pub async fn execute_traced(
        &self,
        command: Command,
        traceparent: Option<String>,
    ) -> Result<Answered, ExecuteError> {
        let closed =
            || ExecuteError::Unavailable("the control plane is shutting down; repeat the command".into());
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            command,
            traceparent,
            attempts: 0,
            caught_up: false,
            stood_on: None,
            answer,
        };
        self.commands.send(waiting).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }

    /// A fresh command id of the current time.
    pub fn command_id(&self) -> domain::CommandId {
        domain::CommandId(fresh_id((self.now)()))
    }

    /// A command of the control plane itself: fresh id, no credential.
    pub fn own_command(&self, principal: Principal, order: Order) -> Command {
        let id = self.command_id();
        let digest = domain::BodyDigest(sha256(id.0.as_bytes()));
        Command {
            id,
            principal,
            credential: None,
            digest,
            reason: None,
            order,
        }
    }

    /// When an append last failed and why, for as long as none after it was stored.
    pub fn trouble(&self) -> Option<(Timestamp, String)> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The clock of this process.
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Is the clock suspect, so that no automatic step is taken? Where commands are sent elsewhere: as it was there when
    /// the last one was answered.
    pub fn clock_suspect(&self) -> bool {
        self.clock_suspect.load(Ordering::Relaxed)
    }

    /// Says whether the clock is suspect: then no automatic step is taken.
    pub fn set_clock_suspect(&self, suspect: bool) {
        self.clock_suspect.store(suspect, Ordering::Relaxed);
    }
}
