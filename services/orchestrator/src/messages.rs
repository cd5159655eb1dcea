//! Commands as messages: a service on the bus that takes what people and programs send, and answers like the door.
//!
//! Who sends is told by the subject, and proven by the bus, which lets a user publish below its own name alone (see
//! `deploy/nats`). From there on a message is a command like any other: the same roles, refusals, ids and records.

use std::{collections::HashMap, time::Duration};

use api::{
    Problem,
    command::CommandAnswer,
    message::{self, Known},
    problem::TimeConditionDoc,
};
use domain::{
    Answer, BodyDigest, ClusterName, ClusterState, Code, Command, Credential, MemberId, Order, Phase,
    Principal, Refusal, Timestamp, command::Answered, gate, own_parts,
};
use eventlog::bus::{self, Bus, Desk, Offer, OfferError, Question};
use execution::{ExecuteError, Executor, Fold, forward, sha256};
use runtime::metrics::Metrics;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long a phase command waits for the control plane's own parts, before and after its step.
const PATIENCE: Duration = Duration::from_secs(10);
/// Commands that are answered at a time; more wait on the bus. Each holds a small body and waits for the log.
const AT_A_TIME: usize = 1_024;

/// The service that answers commands on the bus.
#[derive(Clone)]
pub struct Messages {
    fold: Fold,
    executor: Executor,
    cluster: ClusterName,
    metrics: Metrics,
    shutdown: CancellationToken,
}

impl Messages {
    /// A service over this log; it ends at `shutdown`, after the commands at hand.
    pub fn new(
        fold: Fold,
        executor: Executor,
        cluster: ClusterName,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            fold,
            executor,
            cluster,
            metrics,
            shutdown,
        }
    }

    /// Begins to take commands: from when this returns, none is lost on the way.
    ///
    /// # Errors
    /// [`OfferError`].
    pub async fn open(&self, bus: &Bus) -> Result<Desk, OfferError> {
        let offer = Offer {
            name: "carousel".into(),
            description: "Commands of a Carousel cluster, as requests".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            metadata: HashMap::from([
                ("cluster".into(), self.cluster.to_string()),
                ("commands".into(), message::COMMANDS.join(",")),
            ]),
            subject: format!("{}*.*", message::command_prefix(&self.cluster)),
            group: "orchestrator".into(),
        };
        bus.offer(offer).await
    }

    /// Answers until shutdown.
    pub async fn run(self, desk: Desk) {
        let shutdown = self.shutdown.clone();
        let answer = |question| {
            let own = self.clone();
            async move { own.answer(question).await }
        };
        desk.serve(AT_A_TIME, shutdown.cancelled_owned(), answer).await;
    }

    async fn answer(&self, question: Question) {
        let traceparent = question.header(message::TRACE_HEADER).map(str::to_owned);
        if let Some(gateway) = message::gateway_of(&self.cluster, question.subject()) {
            let answered = self.forwarded(gateway, question.body(), traceparent).await;
            let reply = forward::reply(answered, self.executor.clock_suspect());
            return question.answer(reply).await;
        }
        let done = match self.read(&question).await {
            Ok(command) => self.execute(command, traceparent).await,
            Err(problem) => Err(problem),
        };
        let answer = match done {
            Ok(answer) => bus::Answer {
                body: serde_json::to_vec(&answer).expect("an answer has string keys only"),
                no: None,
            },
            Err(problem) => bus::Answer {
                no: Some((problem.status, format!("{}: {}", problem.code, problem.detail))),
                body: serde_json::to_vec(&problem).expect("a problem has string keys only"),
            },
        };
        question.answer(answer).await;
    }

    /// A command that a gateway was given at its door, in the name of whoever may come by one.
    async fn forwarded(
        &self,
        gateway: MemberId,
        body: &[u8],
        traceparent: Option<String>,
    ) -> Result<Answered, ExecuteError> {
        let no = |code, text| ExecuteError::Refused(Refusal::new(code, text));
        let command = forward::read(body).map_err(|why| no(Code::BadRequest, why))?;
        let has_a_door = match &command.principal {
            Principal::User(_) | Principal::Node(_) | Principal::Anonymous => true,
            Principal::Gateway(member) => *member == gateway,
            Principal::External(_) | Principal::System(_) => false,
        };
        if !has_a_door {
            let text = format!("the gateway {gateway} does not speak for {}", command.principal);
            return Err(no(Code::NotPermitted, text));
        }
        self.executor.execute_traced(command, traceparent).await
    }

    /// The command in a message, of whom the subject names.
    async fn read(&self, question: &Question) -> Result<Command, Box<Problem>> {
        let subject = question.subject();
        let Some((principal, name)) = message::sender_of(&self.cluster, subject) else {
            let text = "the subject names no sender: it is carousel.v1.<cluster>.cmd.user-<name>.<command>";
            return Err(Box::new(Problem::new(Code::BadRequest, text)));
        };
        // At the log's end, so that a node that joined a moment ago is found.
        self.fold.catch_up(PATIENCE).await.map_err(|behind| {
            let text = format!("the event log cannot be read to its end: {behind}");
            Box::new(Problem::new(Code::LogUnavailable, text).retry_after(1))
        })?;
        let now = self.executor.now();
        let wanted = self.fold.read(|state| {
            let known = Known {
                node: &|name| state.find_node(name).map(|node| node.id),
                behind_ms: state.time.since_ms(now),
            };
            message::read(name, question.body(), &known)
        })?;
        let whole = [subject.as_bytes(), b"\n", question.body()].concat();
        Ok(Command {
            id: wanted.id,
            principal,
            credential: Some(Credential::Subject(subject.to_owned())),
            digest: BodyDigest(sha256(&whole)),
            reason: wanted.reason,
            order: wanted.order,
        })
    }

    async fn execute(
        &self,
        command: Command,
        traceparent: Option<String>,
    ) -> Result<CommandAnswer, Box<Problem>> {
        let (name, deadline) = (command.order.name(), Instant::now() + PATIENCE);
        let mut locked_out = None;
        if let Order::Rotate(rotate) = &command.order {
            self.wait_for_own_parts(&command, deadline).await;
            // Asked before the step: afterwards nobody waits for them any more.
            let to = rotate.target.filter(|_| rotate.force);
            locked_out = to.and_then(|to| self.locked_out_by(rotate.authority_type, to));
        }
        let order = command.order.clone();
        let answered = self.executor.execute_traced(command, traceparent).await;
        let outcome = execution::outcome(&answered);
        self.metrics
            .counter("carousel_commands_total", &[name, outcome])
            .inc();
        let answered = answered.map_err(|error| match error {
            ExecuteError::Refused(refusal) => Box::new(Problem::of_refusal(&refusal)),
            ExecuteError::Unavailable(why) => {
                Box::new(Problem::new(Code::LogUnavailable, why).retry_after(1))
            }
        })?;
        let mut warning = None;
        let mut is_step = false;
        if let (
            Order::Rotate(rotate),
            Answer::Phase {
                phase, noop: false, ..
            },
        ) = (&order, &answered.answer)
        {
            is_step = true;
            warning = self
                .wait_until_followed(rotate.authority_type, *phase, deadline)
                .await;
        }
        Ok(CommandAnswer {
            position: answered.position,
            answer: answered.answer,
            warning,
            locked_out: locked_out.filter(|_| is_step),
        })
    }

    /// A command that finds only the control plane's own parts lagging waits for them.
    async fn wait_for_own_parts(&self, command: &Command, deadline: Instant) {
        let goes = |state: &ClusterState| !own_parts::hold_back(state, command, self.executor.now(), sha256);
        self.wait_until(deadline, goes).await;
    }

    /// Waits until they have followed a step; says what is missing if they have not.
    async fn wait_until_followed(
        &self,
        authority_type: domain::AuthorityType,
        phase: Phase,
        deadline: Instant,
    ) -> Option<String> {
        let follow = |state: &ClusterState| own_parts::have_followed(state, authority_type, phase);
        if self.wait_until(deadline, follow).await {
            return None;
        }
        let missing = self
            .fold
            .read(|state| own_parts::missing_in_words(state, authority_type));
        Some(own_parts::not_followed(&missing, PATIENCE.as_secs()))
    }

    fn locked_out_by(&self, authority_type: domain::AuthorityType, to: Phase) -> Option<TimeConditionDoc> {
        let now: Timestamp = self.executor.now();
        let condition = self.fold.read(|state| {
            let gate = gate::evaluate(state, authority_type, to, state.now(now));
            gate.time_condition
        });
        condition.as_ref().map(TimeConditionDoc::of)
    }

    /// Waits until the state is as it should be, woken by every change of it; false if it is not in time.
    async fn wait_until(&self, deadline: Instant, is: impl Fn(&ClusterState) -> bool) -> bool {
        let mut changes = self.fold.changes();
        loop {
            changes.borrow_and_update();
            if self.fold.read(&is) {
                return true;
            }
            let woken = async {
                tokio::select! {
                    changed = changes.changed() => changed.is_ok(),
                    () = self.shutdown.cancelled() => false,
                }
            };
            if !timeout_at(deadline, woken).await.unwrap_or(false) {
                return self.fold.read(&is);
            }
        }
    }
}

#[cfg(test)]
mod tests;
