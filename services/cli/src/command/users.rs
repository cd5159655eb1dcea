//! `carousel users`: the new operator's key is made here and goes nowhere but into the identity file.

use std::path::Path;

use api::{
    command::{UserCertificateAnswer, UserRequest},
    route,
    shape::command_id,
};
use domain::{UserName, access::RoleName};
use pki::{KeyPair, csr};
use runtime::harden::{self, OWNER_ONLY};

use super::{get, plain};
use crate::{
    args::UsersCommand,
    failure::{Exit, Failure},
    identity::{FORMAT, Identity},
    run::Context,
    text::utc,
};

pub(super) async fn users(context: &Context, command: UsersCommand) -> Result<Exit, Failure> {
    match command {
        UsersCommand::Add {
            name,
            roles,
            logins,
            out,
        } => add(context, name, roles, logins, &out).await,
        UsersCommand::Rm { name } => {
            let path = route::fill(route::USER_REMOVE, name.as_str());
            plain(
                context,
                &path,
                &format!("User {name} is removed; its certificates no longer count."),
            )
            .await
        }
        UsersCommand::Ls => {
            let session = context.session().await?;
            get::users(context, &session).await
        }
    }
}

async fn add(
    context: &Context,
    name: UserName,
    roles: Vec<RoleName>,
    logins: Vec<String>,
    out: &Path,
) -> Result<Exit, Failure> {
    let session = context.session().await?;
    // The place is taken before anybody is asked: a user without an identity file would be of no use.
    harden::atomic_create(out, b"", OWNER_ONLY)
        .map_err(|error| Failure::failed(format!("{} cannot be made: {error}", out.display())))?;
    let key = KeyPair::generate();
    let body = UserRequest {
        id: command_id(session.now(), pki::random()),
        reason: context.global.reason.clone(),
        name: name.to_string(),
        roles,
        logins,
        csr: csr::make_pem(&key),
    };
    context.sends();
    let answer: UserCertificateAnswer = match session.post(route::USERS, &body).await {
        Ok(answer) => answer,
        Err(error) => {
            // Ours to remove, since we made it above; nothing is in it.
            let _ = std::fs::remove_file(out);
            return context.sort(Err(error));
        }
    };
    let ours = session.identity().await;
    let identity = Identity {
        version: FORMAT,
        server: session.server(),
        cluster: ours.cluster,
        user: name.clone(),
        bundle_pin: answer.bundle_pin,
        certificate: answer.certificate,
        key: key.to_pem(),
        bundle: answer.bundle,
    };
    identity
        .save(out)
        .map_err(|error| Failure::failed(error.to_string()))?;
    let document = serde_json::json!({
        "user": name,
        "identity": out,
        "not_after": answer.not_after,
        "issuer": answer.issuer,
        "position": answer.position,
    });
    let text = format!(
        "User {name} is added. {} is the identity, valid until {}; it renews itself when used.\n",
        out.display(),
        utc(answer.not_after)
    );
    context
        .terminal
        .show(&document, |_| text, || vec![name.to_string()])?;
    Ok(Exit::Done)
}
