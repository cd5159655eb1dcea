//! `carousel certificates`: revocation.

use api::{
    command::{CommandAnswer, RevokeRequest, RevokeTarget},
    route,
};
use domain::Answer;

use super::plain_request;
use crate::{
    args::{CertificatesCommand, RevokeArgs},
    failure::{Exit, Failure},
    run::Context,
};

pub(super) async fn certificates(context: &Context, command: CertificatesCommand) -> Result<Exit, Failure> {
    match command {
        CertificatesCommand::Revoke(args) => revoke(context, args).await,
    }
}

async fn revoke(context: &Context, args: RevokeArgs) -> Result<Exit, Failure> {
    let needs = match (&args.node, &args.user) {
        (Some(_), _) => "\nThe node needs a new join token on its data directory: carousel tokens add",
        (_, Some(_)) => {
            "\nThe person needs a new identity: carousel users rm, then carousel users add. If that was the last \
             administrator: carousel recover, on the control-plane host"
        }
        _ if args.external.is_some() => "\nTokens cannot be called back: each ends by itself",
        _ => "",
    };
    let target = args
        .serial
        .map(RevokeTarget::Serial)
        .or(args.node.map(RevokeTarget::Node))
        .or(args.user.map(|user| RevokeTarget::User(user.to_string())))
        .or(args.external.map(|name| RevokeTarget::External(name.to_string())))
        .or(args.issued_by_token.map(RevokeTarget::IssuedByToken))
        .expect("the command line has asked for exactly one of them");
    let session = context.session().await?;
    let plain = plain_request(context, &session);
    let body = RevokeRequest {
        id: plain.id,
        reason: plain.reason,
        target,
    };
    context.sends();
    let answer: CommandAnswer = context.sort(session.post(route::CERTIFICATES_REVOKE, &body).await)?;
    let count = match answer.answer {
        Answer::Revoked { certificates } => certificates,
        _ => 0,
    };
    let text = format!(
        "{count} certificate{} no longer {}. Connections to the cluster are closed within seconds; an sshd, or another verifier \
         without an agent, refuses them once it was given the newest list.{needs}\n",
        if count == 1 { "" } else { "s" },
        if count == 1 { "counts" } else { "count" },
    );
    context.terminal.show(&answer, |_| text, Vec::new)?;
    Ok(Exit::Done)
}
