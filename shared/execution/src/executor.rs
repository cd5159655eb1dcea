//! Commands in, events out: decide on the fold, append on one condition, answer when durable and folded.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::{
    Answer, ClusterName, ClusterState, Code, Command, Fact, Given, Order, Position, Principal, Refusal,
    Timestamp,
    command::Answered,
    decide,
    decide::Decision,
    event::{CommandRef, CommandRefused},
};
use eventlog::{Append, Outcome, SharedLog, Subject, append_certainly};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{Fold, Now, codec, fresh_id, sha256};

mod refusals;
#[cfg(test)]
mod tests;

use refusals::{Refusals, Which};

/// Commands that wait to be decided. Enough for every node of a large fleet to report at once; beyond it
/// callers wait at the door instead of filling memory.
const WAITING: usize = 4_096;
/// Commands that are decided on one state and made durable together.
const BATCH: usize = 256;
/// How often a command is decided again when somebody else wrote first.
const ATTEMPTS: u32 = 16;
/// How long an answer waits for its own events to be folded.
const FOLD_WAIT: Duration = Duration::from_secs(10);
/// How often repeated refusals are written down.
const REFUSALS_EVERY: Duration = Duration::from_secs(5);

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

/// A handle for sending commands. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    commands: mpsc::Sender<Waiting>,
    now: Now,
    clock_suspect: Arc<AtomicBool>,
    /// Owns the deciding task; dropped with the last handle.
    _tasks: Arc<Mutex<JoinSet<()>>>,
}

struct Waiting {
    command: Command,
    traceparent: Option<String>,
    attempts: u32,
    /// Decided on a state that held everything durable when it was refused: the no is final.
    caught_up: bool,
    answer: oneshot::Sender<Result<Answered, ExecuteError>>,
}

impl Executor {
    /// Starts the deciding task of this process. It ends at `shutdown`, after the commands at hand.
    pub fn new(fold: Fold, now: Now, clock_suspect: Arc<AtomicBool>, shutdown: CancellationToken) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut tasks = JoinSet::new();
        let decider = Decider {
            log: fold.log().clone(),
            fold,
            now: now.clone(),
            clock_suspect: clock_suspect.clone(),
            refusals: Refusals::default(),
        };
        tasks.spawn(decider.run(receiver, shutdown));
        Self {
            commands: sender,
            now,
            clock_suspect,
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

    /// The clock of this process.
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// Says whether the clock is suspect: then no automatic step is taken.
    pub fn set_clock_suspect(&self, suspect: bool) {
        self.clock_suspect.store(suspect, Ordering::Relaxed);
    }
}

struct Decider {
    log: SharedLog,
    fold: Fold,
    now: Now,
    clock_suspect: Arc<AtomicBool>,
    refusals: Refusals,
}

/// A command that was decided and waits for its append.
struct Decided {
    waiting: Waiting,
    /// What is said once the append is durable: yes, or a no that is on record.
    result: Result<Answer, Refusal>,
}

impl Decider {
    async fn run(mut self, mut commands: mpsc::Receiver<Waiting>, shutdown: CancellationToken) {
        let mut again: Vec<Waiting> = vec![];
        let mut tick = tokio::time::interval(REFUSALS_EVERY);
        loop {
            let mut batch = std::mem::take(&mut again);
            if batch.is_empty() {
                tokio::select! {
                    biased;
                    count = commands.recv_many(&mut batch, BATCH) => if count == 0 { return self.write_refusals(Which::All).await },
                    _ = tick.tick() => self.write_refusals(Which::Due).await,
                    () = shutdown.cancelled() => {
                        // Commands at hand are answered; new ones are refused by the closed channel.
                        commands.close();
                        if commands.is_empty() { return self.write_refusals(Which::All).await; }
                    }
                }
            } else {
                while batch.len() < BATCH {
                    let Ok(more) = commands.try_recv() else { break };
                    batch.push(more);
                }
            }
            again = self.execute(batch).await;
        }
    }

    /// Decides a batch on one state and makes it durable together. Returns what has to be decided again.
    async fn execute(&mut self, batch: Vec<Waiting>) -> Vec<Waiting> {
        let (mut appends, mut decided, mut again, mut doubtful) = (vec![], vec![], vec![], vec![]);
        let mut taken: HashSet<Subject> = HashSet::new();
        for waiting in batch {
            match self.decide(&waiting, &taken) {
                Verdict::Append(append, result) => {
                    taken.insert(append.subject.clone());
                    appends.push(append);
                    decided.push(Decided { waiting, result });
                }
                // Another command of this batch stands on the same condition: decided after it.
                Verdict::Later => again.push(waiting),
                // The state may be behind the log: a no counts only after everything durable was read.
                Verdict::Doubtful => doubtful.push(Waiting {
                    caught_up: true,
                    ..waiting
                }),
                Verdict::Answer(result) => answer(waiting, result),
            }
        }
        self.append(appends, decided, &mut again).await;
        if !doubtful.is_empty() {
            if let Err(behind) = self.fold.catch_up(FOLD_WAIT).await {
                tracing::warn!(%behind, "a command is decided on a state that may be behind the log");
            }
            again.append(&mut doubtful);
        }
        again
    }

    /// Appends, answers what is durable, and hands back what met a conflict.
    async fn append(&self, appends: Vec<Append>, decided: Vec<Decided>, again: &mut Vec<Waiting>) {
        if appends.is_empty() {
            return;
        }
        // A crash from here on leaves either nothing or whole appends; a repeated command finds its first
        // answer in the fold by its id.
        let outcomes = self.log.append_all(appends.clone()).await;
        let mut read_up_to = Position(0);
        let mut done = vec![];
        for ((outcome, append), Decided { mut waiting, result }) in
            outcomes.into_iter().zip(appends).zip(decided)
        {
            let outcome = match outcome {
                Ok(Outcome::Unknown(_)) => append_certainly(&*self.log, append).await,
                Err(error) if error.is_transient() => append_certainly(&*self.log, append).await,
                certain => certain,
            };
            match outcome {
                Ok(Outcome::Stored { last, .. }) => {
                    read_up_to = read_up_to.max(Position(last));
                    let position = Position(last);
                    let result = result
                        .map(|answer| Answered { position, answer })
                        .map_err(Into::into);
                    done.push((waiting, result));
                }
                Ok(Outcome::Conflict { tail }) => {
                    read_up_to = read_up_to.max(Position(tail));
                    waiting.attempts += 1;
                    if waiting.attempts < ATTEMPTS {
                        again.push(waiting);
                    } else {
                        let text = "others keep writing first; nothing was changed: repeat the command";
                        answer(waiting, Err(ExecuteError::Unavailable(text.into())));
                    }
                }
                Ok(Outcome::Unknown(why)) => {
                    let text =
                        format!("the log gave no answer ({why}); repeat the same command, it counts once");
                    answer(waiting, Err(ExecuteError::Unavailable(text)));
                }
                Err(error) => answer(waiting, Err(ExecuteError::Unavailable(error.to_string()))),
            }
        }
        // Answers come once the own state holds them, so that a caller reads its own writes.
        let folded = self.fold.wait_for(read_up_to, FOLD_WAIT).await;
        for (waiting, result) in done {
            if let Err(behind) = &folded {
                tracing::warn!(%behind, "an answer is durable, but not folded yet");
            }
            answer(waiting, result);
        }
    }

    fn decide(&mut self, waiting: &Waiting, taken: &HashSet<Subject>) -> Verdict {
        let command = &waiting.command;
        let clock = (self.now)();
        let fold = self.fold.clone();
        let (refusals, suspect) = (&mut self.refusals, self.clock_suspect.load(Ordering::Relaxed));
        fold.read_with_tails(|state, tail| {
            let given = given(state.now(clock), suspect);
            match decide(state, command, &given) {
                Ok(Decision {
                    facts,
                    answer,
                    repeats,
                }) if facts.is_empty() => {
                    let position = repeats.unwrap_or(state.position);
                    Verdict::Answer(Ok(Answered { position, answer }))
                }
                Ok(Decision { facts, answer, .. }) => {
                    let Some(cluster) = cluster_of(state, command) else {
                        let refusal = Refusal::new(Code::NoCluster, "the log holds no cluster yet");
                        return Verdict::Answer(Err(refusal.into()));
                    };
                    let append = prepare(&cluster, &facts, waiting, (given.now, state.position), tail);
                    if taken.contains(&append.subject) {
                        return Verdict::Later;
                    }
                    Verdict::Append(append, Ok(answer))
                }
                Err(_) if !waiting.caught_up => Verdict::Doubtful,
                Err(refusal) => {
                    let fact = refusals.record(state, command, &refusal, given.now);
                    let Some((fact, cluster)) = fact.zip(state.cluster_name().cloned()) else {
                        return Verdict::Answer(Err(refusal.into()));
                    };
                    let at = (given.now, state.position);
                    let mut append = prepare(&cluster, &[fact], waiting, at, tail);
                    append.expected = None;
                    Verdict::Append(append, Err(refusal))
                }
            }
        })
    }

    /// Writes down refusals that were repeated within a minute, as one with a count. At an orderly end none is
    /// left behind; a kill loses the counts of the last minute, never the first refusal of its kind.
    async fn write_refusals(&mut self, which: Which) {
        let clock = (self.now)();
        let due = self
            .refusals
            .take(which, self.fold.read(|state| state.now(clock)));
        for (principal, fact) in due {
            let Some(cluster) = self.fold.read(|state| state.cluster_name().cloned()) else {
                return;
            };
            let (time, position) = self.fold.read(|state| (state.now(clock), state.position));
            let of = codec::Circumstances {
                time,
                actor: principal,
                credential: None,
                command: None,
                reason: None,
                decided_at: Some(position),
                traceparent: None,
                service: "orchestrator",
            };
            let event = codec::encode(&cluster, &Fact::from(fact), &of);
            if let Err(error) = append_certainly(&*self.log, Append::one(event, None)).await {
                tracing::warn!(%error, "repeated refusals could not be recorded");
            }
        }
    }
}

enum Verdict {
    Append(Append, Result<Answer, Refusal>),
    Later,
    Doubtful,
    Answer(Result<Answered, ExecuteError>),
}

fn answer(waiting: Waiting, result: Result<Answered, ExecuteError>) {
    // A caller that went away is no error: what is durable stays.
    let _ = waiting.answer.send(result);
}

fn given(now: Timestamp, clock_suspect: bool) -> Given {
    let fresh = std::array::from_fn(|_| fresh_id(now));
    let serials = std::array::from_fn(|_| rand::random());
    Given {
        now,
        fresh,
        serials,
        clock_suspect,
        sha256,
    }
}

/// The cluster that the events belong to; before the first event it is the one that is being created.
fn cluster_of(state: &ClusterState, command: &Command) -> Option<ClusterName> {
    match &command.order {
        Order::Genesis(genesis) => Some(genesis.cluster.clone()),
        _ => state.cluster_name().cloned(),
    }
}

fn prepare(
    cluster: &ClusterName,
    facts: &[Fact],
    waiting: &Waiting,
    (now, decided_at): (Timestamp, Position),
    tail: &dyn Fn(&Subject) -> u64,
) -> Append {
    let command = &waiting.command;
    let of = codec::Circumstances {
        time: now,
        actor: command.principal.clone(),
        credential: command.credential,
        command: command.order.is_command().then_some(CommandRef {
            id: command.id,
            digest: command.digest,
        }),
        reason: command.reason.clone(),
        decided_at: Some(decided_at),
        traceparent: waiting.traceparent.clone(),
        service: "orchestrator",
    };
    let events: Vec<_> = facts
        .iter()
        .map(|fact| codec::encode(cluster, fact, &of))
        .collect();
    let subject = events
        .first()
        .expect("a decision to append has facts")
        .subject
        .clone();
    let expected = Some(tail(&subject));
    Append {
        subject,
        expected,
        events,
    }
}

/// The event of one refusal.
fn refused(command: &Command, refusal: &Refusal, count: u32) -> CommandRefused {
    CommandRefused {
        principal: command.principal.clone(),
        command: command.order.name().into(),
        code: refusal.code,
        text: refusal.text.clone(),
        count,
        order: None,
    }
}
