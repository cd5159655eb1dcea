//! `carousel consumers`: parties that trust an exported authority and have no agent.

use api::{
    command::{
        AttestRequest, CommandAnswer, ConsumerProbeRequest, ConsumerRequest, PlainRequest, WithdrawRequest,
    },
    route,
    shape::{ConsumerDoc, ConsumerProbeReport, Status},
};
use domain::{Answer, Phase, command::Expectation};
use serde::Serialize;

use super::{get, plain_request, required_type, rotate::expectation};
use crate::{
    args::{ConsumerAddArgs, ConsumerArgs, ConsumersCommand},
    connect::Session,
    failure::{Exit, Failure},
    run::Context,
    screen::lists,
};

pub(super) async fn consumers(context: &Context, command: ConsumersCommand) -> Result<Exit, Failure> {
    match command {
        ConsumersCommand::Add(args) => add(context, &args).await,
        ConsumersCommand::Attest { consumer, phase } => attest(context, &consumer, phase).await,
        ConsumersCommand::Probe(consumer) => probe(context, &consumer).await,
        ConsumersCommand::Withdraw(consumer) => withdraw(context, &consumer).await,
        ConsumersCommand::Ls { authority_type } => {
            let session = context.session().await?;
            let keep = |d: &ConsumerDoc| authority_type.is_none_or(|t| t == d.authority_type);
            get::list(context, &session, route::CONSUMERS, keep, lists::consumers, |d| {
                d.name.clone()
            })
            .await
        }
    }
}

async fn add(context: &Context, args: &ConsumerAddArgs) -> Result<Exit, Failure> {
    let authority_type = required_type(args.consumer.authority_type)?;
    let session = context.session().await?;
    let PlainRequest { id, reason } = plain_request(context, &session);
    let name = &args.consumer.name;
    let body = ConsumerRequest {
        id,
        reason,
        name: name.to_string(),
        authority_type,
        owner: args.owner.clone(),
        contact: args.contact.clone(),
        probe: args.probe.clone(),
    };
    let until = match &args.probe {
        Some(at) => format!("a look at {at} shows that it has followed, or somebody has attested for it"),
        None => "it has attested".to_owned(),
    };
    let done = format!(
        "Consumer {name} of {authority_type} is registered: from now on each forward step of its rotations waits until {until}."
    );
    send(context, &session, route::CONSUMERS, &body, &done).await
}

/// For the rotation and phase that are now: what somebody looked at an hour ago may be over.
async fn attest(context: &Context, consumer: &ConsumerArgs, phase: Option<Phase>) -> Result<Exit, Failure> {
    let authority_type = required_type(consumer.authority_type)?;
    let session = context.session().await?;
    let status: Status = context.get(&session, route::STATUS).await?;
    let now = expectation(&status, authority_type);
    let now =
        now.ok_or_else(|| Failure::failed(format!("the status does not speak of type {authority_type}")))?;
    // With another phase than it is in, the control plane says so: it is the one who knows.
    let expects = Expectation {
        phase: phase.unwrap_or(now.phase),
        ..now
    };
    let attested = expects.phase;
    let PlainRequest { id, reason } = plain_request(context, &session);
    let body = AttestRequest {
        id,
        reason,
        authority_type,
        expects,
    };
    let path = route::fill(route::CONSUMER_ATTEST, consumer.name.as_str());
    let done = format!(
        "{} has attested for {} of {authority_type}.",
        consumer.name, attested
    );
    send(context, &session, &path, &body, &done).await
}

/// What is seen is a document, whether it proves anything or not.
async fn probe(context: &Context, consumer: &ConsumerArgs) -> Result<Exit, Failure> {
    let authority_type = required_type(consumer.authority_type)?;
    let session = context.session().await?;
    let PlainRequest { id, reason } = plain_request(context, &session);
    let body = ConsumerProbeRequest {
        id,
        reason,
        authority_type,
    };
    let path = route::fill(route::CONSUMER_PROBE, consumer.name.as_str());
    context.sends();
    let report: ConsumerProbeReport = context.sort(session.post(&path, &body).await)?;
    let name = || vec![report.name.clone()];
    context
        .terminal
        .show(&report, |look| lists::consumer_probe(&report, look), name)?;
    Ok(if report.ok { Exit::Done } else { Exit::Failed })
}

async fn withdraw(context: &Context, consumer: &ConsumerArgs) -> Result<Exit, Failure> {
    let authority_type = required_type(consumer.authority_type)?;
    let session = context.session().await?;
    let PlainRequest { id, reason } = plain_request(context, &session);
    let body = WithdrawRequest {
        id,
        reason,
        authority_type,
    };
    let path = route::fill(route::CONSUMER_WITHDRAW, consumer.name.as_str());
    let done = format!(
        "Consumer {} of {authority_type} is withdrawn: no step waits for it any more.",
        consumer.name
    );
    send(context, &session, &path, &body, &done).await
}

async fn send(
    context: &Context,
    session: &Session,
    path: &str,
    body: &impl Serialize,
    done: &str,
) -> Result<Exit, Failure> {
    context.sends();
    let answer: CommandAnswer = context.sort(session.post(path, body).await)?;
    let text = match &answer.answer {
        Answer::Noop { text } => format!("Nothing to do: {text}.\n"),
        _ => format!("{done}\n"),
    };
    context.terminal.show(&answer, |_| text, Vec::new)?;
    Ok(Exit::Done)
}
