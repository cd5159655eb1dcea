//! What is asked of the control plane while keys are read: each question is a task, each answer an event.

use std::sync::Arc;

use api::{
    command::{CommandAnswer, RotateRequest},
    plan::Plan,
    route,
    shape::{Status, WatchLine, command_id},
};
use domain::{AuthorityType, Phase, decide::rotation::DEFAULT_GRACE_PERIOD_MS};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    task::{AbortHandle, JoinSet},
};

use super::machine::{Order, Step};
use crate::{
    command::{rotate, wait},
    connect::{ConnectError, Session},
};

/// An answer.
pub(super) enum Event {
    /// Status and plan.
    Looked(Result<(Status, Plan), ConnectError>),
    /// The plan of a step, and the status that was read before it.
    Planned(Step, Result<(Status, Plan), ConnectError>),
    /// A line of the watch.
    Watched(WatchLine),
    /// The watch cannot go on.
    Unwatched(ConnectError),
    /// What became of the command.
    Answered(AuthorityType, Result<CommandAnswer, ConnectError>),
}

/// The questions that are open; dropped, nobody waits for their answers.
pub(super) struct Tasks {
    session: Arc<Session>,
    open: JoinSet<()>,
    watch: Option<(AuthorityType, AbortHandle)>,
    sender: UnboundedSender<Event>,
    events: UnboundedReceiver<Event>,
}

impl Tasks {
    pub(super) fn new(session: Arc<Session>) -> Self {
        let (sender, events) = unbounded_channel();
        Self {
            session,
            open: JoinSet::new(),
            watch: None,
            sender,
            events,
        }
    }

    /// The next answer. Cancel-safe.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => return event,
                // Its answer is in the channel.
                Some(_) = self.open.join_next() => {}
            }
        }
    }

    /// Asks how the authority stands, and watches it from now on.
    pub(super) fn look(&mut self, authority: AuthorityType) {
        if self
            .watch
            .as_ref()
            .is_none_or(|(watched, _)| *watched != authority)
        {
            let (session, sender) = (self.session.clone(), self.sender.clone());
            let task = self
                .open
                .spawn(async move { watch(&session, authority, &sender).await });
            if let Some((_, before)) = self.watch.replace((authority, task)) {
                before.abort();
            }
        }
        let (session, sender) = (self.session.clone(), self.sender.clone());
        self.open.spawn(async move {
            // A long conversation uses the identity as many commands would: a rotation may ask for another issuer.
            let current = session.keep_current().await;
            let answer = match current {
                Ok(_) => plan(&session, authority, None).await,
                Err(error) => Err(error),
            };
            let _ = sender.send(Event::Looked(answer));
        });
    }

    /// Asks for the plan of a step.
    pub(super) fn plan(&mut self, authority: AuthorityType, step: Step) {
        let (session, sender) = (self.session.clone(), self.sender.clone());
        self.open.spawn(async move {
            let answer = plan(&session, authority, step.until()).await;
            let _ = sender.send(Event::Planned(step, answer));
        });
    }

    /// Sends the command.
    pub(super) fn send(&mut self, order: Order) {
        let (session, sender) = (self.session.clone(), self.sender.clone());
        self.open.spawn(async move {
            let authority = order.authority;
            let body = request(order, &session);
            let answer = session.post(route::ROTATE, &body).await;
            let _ = sender.send(Event::Answered(authority, answer));
        });
    }
}

/// The same body as without a guide.
fn request(order: Order, session: &Session) -> RotateRequest {
    let automatic = order.step.automatic;
    RotateRequest {
        id: command_id(session.now(), pki::random()),
        reason: order.reason,
        authority_type: order.authority,
        phase: order.step.until(),
        manual: !automatic,
        grace_period_ms: automatic.then_some(DEFAULT_GRACE_PERIOD_MS),
        on_lagging: None,
        force: false,
        expects: Some(order.expects),
    }
}

/// The status first: a command that expects what it says is refused if the plan is of a later state.
async fn plan(
    session: &Session,
    authority: AuthorityType,
    until: Option<Phase>,
) -> Result<(Status, Plan), ConnectError> {
    let status = session.get(route::STATUS).await?;
    Ok((status, session.get(&rotate::plan_path(authority, until)).await?))
}

/// Follows the authority; opens the stream anew when it ends, for a change of trust closes connections.
async fn watch(session: &Session, authority: AuthorityType, sender: &UnboundedSender<Event>) {
    loop {
        let mut stream = match wait::open(session, authority).await {
            Ok(stream) => stream,
            Err(error) => {
                let _ = sender.send(Event::Unwatched(error));
                return;
            }
        };
        while let Ok(Some(event)) = stream.next().await {
            let Ok(line) = event.json::<WatchLine>() else {
                continue;
            };
            if sender.send(Event::Watched(line)).is_err() {
                return;
            }
        }
        tokio::time::sleep(wait::PAUSE).await;
    }
}
