//! The deciding task: batches of commands on one state, one append for each, and nobody overtakes himself.

use std::{
    collections::HashSet,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use domain::{
    Answer, ClusterName, ClusterState, Code, Command, Fact, Given, Order, Position, Principal, Refusal,
    Timestamp, command::Answered, decide, decide::Decision, event::CommandRef,
};
use eventlog::{Append, AppendError, Outcome, SharedLog, Subject, append_after_doubt, append_certainly};
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    ExecuteError, Trouble, Waiting,
    refusals::{Refusals, Which},
};
use crate::{Fold, Now, codec, fresh_id, sha256};

/// Commands that are decided on one state and made durable together.
const BATCH: usize = 256;
/// Commands that wait for another one's append before new ones are held back.
const CROWD: usize = 8_192;
/// How often a command is decided again when somebody else wrote first.
const ATTEMPTS: u32 = 16;
/// How long an answer waits for its own events to be folded.
const FOLD_WAIT: Duration = Duration::from_secs(10);
/// Lost answers that are cleared up at once. Each may take as long as the log stays away; one after the other
/// they would hold up everybody else.
const DOUBTS: usize = 64;
/// How often repeated refusals are written down.
const REFUSALS_EVERY: Duration = Duration::from_secs(5);

pub(super) struct Decider {
    log: SharedLog,
    fold: Fold,
    now: Now,
    clock_suspect: Arc<AtomicBool>,
    trouble: Trouble,
    refusals: Refusals,
}

/// A command that was decided and waits for its append.
struct Decided {
    waiting: Waiting,
    place: usize,
    append: Append,
    /// The state that it was decided on: its events can only lie behind this position.
    on: Position,
    /// What is said once the append is durable: yes, or a no that is on record.
    result: Result<Answer, Refusal>,
}

/// A command and its place in the order of arrival.
type Placed = (usize, Waiting);

impl Decider {
    pub(super) fn new(fold: Fold, now: Now, clock_suspect: Arc<AtomicBool>, trouble: Trouble) -> Self {
        Self {
            log: fold.log().clone(),
            fold,
            now,
            clock_suspect,
            trouble,
            refusals: Refusals::default(),
        }
    }

    /// Ends at `shutdown`, after the commands at hand.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Waiting>, shutdown: CancellationToken) {
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
                // Whoever waits for his turn at a crowded subject takes nobody else's place.
                let room = BATCH.min(CROWD.saturating_sub(batch.len()));
                for _ in 0..room.max(1) {
                    let Ok(more) = commands.try_recv() else { break };
                    batch.push(more);
                }
            }
            again = self.execute(batch).await;
        }
    }

    /// Decides a batch on one state and makes it durable together. Returns what has to be decided again, in the
    /// order in which it came: two reports of one node that change places look like those of a clone.
    async fn execute(&mut self, batch: Vec<Waiting>) -> Vec<Waiting> {
        let (mut decided, mut again, mut doubtful) = (vec![], vec![], vec![]);
        let mut taken: HashSet<Subject> = HashSet::new();
        let mut in_doubt: HashSet<Principal> = HashSet::new();
        for (place, waiting) in batch.into_iter().enumerate() {
            // It was not decided, so it never was. A fleet that joins at once asks anew when an answer took too long, and
            // requests that nobody waits for any more would keep out those that somebody waits for.
            if waiting.command.principal == Principal::Anonymous && waiting.answer.is_closed() {
                continue;
            }
            // What the same caller sent before is not decided yet: nothing of his overtakes it.
            if in_doubt.contains(&waiting.command.principal) {
                doubtful.push((place, waiting));
                continue;
            }
            // It waits for somebody before it anyway: a crowd at one subject is not decided again for each of it.
            if waiting
                .stood_on
                .as_ref()
                .is_some_and(|subject| taken.contains(subject))
            {
                again.push((place, waiting));
                continue;
            }
            match self.decide(&waiting, &taken) {
                Verdict::Append { append, on, result } => {
                    taken.insert(append.subject.clone());
                    decided.push(Decided {
                        waiting,
                        place,
                        append,
                        on,
                        result,
                    });
                }
                // Another command of this batch stands on the same condition: decided after it.
                Verdict::Later(subject) => {
                    let stood_on = Some(subject);
                    again.push((place, Waiting { stood_on, ..waiting }));
                }
                // The state may be behind the log: a no counts only after everything durable was read.
                Verdict::Doubtful => {
                    // Those whom nobody knows yet have no order among themselves.
                    if waiting.command.principal != Principal::Anonymous {
                        in_doubt.insert(waiting.command.principal.clone());
                    }
                    doubtful.push((place, waiting));
                }
                Verdict::Answer(result) => answer(waiting, result),
            }
        }
        again.extend(self.append(decided).await);
        again.extend(self.resolve(doubtful).await);
        again.sort_by_key(|(place, _)| *place);
        again.into_iter().map(|(_, waiting)| waiting).collect()
    }

    /// Reads to the log's end, after which a no is final. While that cannot be done there is no answer: a refusal
    /// on an old state would send away for good who has just been let in.
    async fn resolve(&self, doubtful: Vec<Placed>) -> Vec<Placed> {
        if doubtful.is_empty() {
            return doubtful;
        }
        let read = self.fold.catch_up(FOLD_WAIT).await;
        if let Err(behind) = &read {
            tracing::warn!(%behind, commands = doubtful.len(), "the log's end cannot be read: nothing is refused");
        }
        let mut final_now = vec![];
        for (place, waiting) in doubtful {
            if read.is_ok() {
                let caught_up = true;
                final_now.push((place, Waiting { caught_up, ..waiting }));
            } else {
                let text = "the log cannot be read to its end at this moment, so that nothing can be refused; \
                            repeat the same command, it counts once";
                answer(waiting, Err(ExecuteError::Unavailable(text.into())));
            }
        }
        final_now
    }

    /// Appends, answers what is durable, and hands back what met a conflict.
    async fn append(&self, decided: Vec<Decided>) -> Vec<Placed> {
        let mut again = vec![];
        if decided.is_empty() {
            return again;
        }
        // A crash from here on leaves either nothing or whole appends; a repeated command finds its first
        // answer in the fold by its id.
        let appends = decided.iter().map(|of| of.append.clone()).collect();
        let outcomes = self.log.append_all(appends).await;
        let certain = stream::iter(outcomes.into_iter().zip(decided))
            .map(|(outcome, of)| clear_up(self.log.clone(), outcome, of))
            .buffered(DOUBTS);
        let certain: Vec<_> = certain.collect().await;
        let mut read_up_to = Position(0);
        let mut done = vec![];
        for (outcome, of) in certain {
            let Decided {
                mut waiting,
                place,
                result,
                ..
            } = of;
            match outcome {
                Ok(Outcome::Stored { last, .. }) => {
                    self.note(None);
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
                        again.push((place, waiting));
                    } else {
                        let text = "others keep writing first; nothing was changed: repeat the command";
                        answer(waiting, Err(ExecuteError::Unavailable(text.into())));
                    }
                }
                Ok(Outcome::Unknown(why)) => {
                    self.note(Some(format!("it gave no answer ({why})")));
                    let text =
                        format!("the log gave no answer ({why}); repeat the same command, it counts once");
                    answer(waiting, Err(ExecuteError::Unavailable(text)));
                }
                Err(error) => {
                    self.note(Some(error.to_string()));
                    answer(waiting, Err(ExecuteError::Unavailable(error.to_string())));
                }
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
        again
    }

    /// Remembers how the last append went, for whoever asks what is wrong.
    fn note(&self, failed: Option<String>) {
        let failed = failed.map(|why| ((self.now)(), why));
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }

    fn decide(&mut self, waiting: &Waiting, taken: &HashSet<Subject>) -> Verdict {
        let command = &waiting.command;
        let clock = (self.now)();
        let fold = self.fold.clone();
        let (refusals, suspect) = (&mut self.refusals, self.clock_suspect.load(Ordering::Relaxed));
        fold.read_with_tails(|state, tail| {
            let given = given(state.now(clock), suspect);
            let decision = match decide(state, command, &given) {
                // Who may ask is looked at every time, before the first answer is given again.
                Err(refusal) if refusal.code == Code::NotPermitted => Err(refusal),
                decision => refusals.first_no(command).map_or(decision, Err),
            };
            match decision {
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
                    let cause = command.order.is_command().then_some(CommandRef {
                        id: command.id,
                        digest: command.digest,
                    });
                    let subject = facts.first().map(|fact| codec::subject_of(&cluster, fact));
                    if let Some(subject) = subject.filter(|subject| taken.contains(subject)) {
                        return Verdict::Later(subject);
                    }
                    let append = prepare(
                        &cluster,
                        &facts,
                        waiting,
                        cause,
                        (given.now, state.position),
                        tail,
                    );
                    Verdict::Append {
                        append,
                        on: state.position,
                        result: Ok(answer),
                    }
                }
                Err(_) if !waiting.caught_up => Verdict::Doubtful,
                Err(refusal) => {
                    let to_write = refusals.record(state, command, &refusal, given.now);
                    let Some((to_write, cluster)) = to_write.zip(state.cluster_name().cloned()) else {
                        return Verdict::Answer(Err(refusal.into()));
                    };
                    let facts = [to_write.fact.into()];
                    let at = (given.now, state.position);
                    let mut append = prepare(&cluster, &facts, waiting, to_write.command, at, tail);
                    append.expected = None;
                    Verdict::Append {
                        append,
                        on: state.position,
                        result: Err(refusal),
                    }
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
    Append {
        append: Append,
        on: Position,
        result: Result<Answer, Refusal>,
    },
    Later(Subject),
    Doubtful,
    Answer(Result<Answered, ExecuteError>),
}

/// Learns what became of an append whose answer was lost, and sends again what was not sent at all.
async fn clear_up(
    log: SharedLog,
    outcome: Result<Outcome, AppendError>,
    of: Decided,
) -> (Result<Outcome, AppendError>, Decided) {
    let outcome = match outcome {
        Ok(Outcome::Unknown(why)) => append_after_doubt(&*log, of.append.clone(), of.on.0, why).await,
        Err(error) if error.is_transient() => append_certainly(&*log, of.append.clone()).await,
        certain => certain,
    };
    (outcome, of)
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
    cause: Option<CommandRef>,
    (now, decided_at): (Timestamp, Position),
    tail: &dyn Fn(&Subject) -> u64,
) -> Append {
    let command = &waiting.command;
    let of = codec::Circumstances {
        time: now,
        actor: command.principal.clone(),
        credential: command.credential.clone(),
        command: cause,
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
