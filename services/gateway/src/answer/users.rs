//! Operators: adding and removing them, and renewing one's own certificate.

use api::command::UserCertificateAnswer;
use domain::{Answer, AuthorityType, Code, Order, Principal, UserName, command::Answered};
use tokio::time::Instant;

use super::{Asked, commands::plain};
use crate::{
    app::PATIENCE,
    body,
    hub::Hub,
    reply::{self, No, Reply},
};

/// `POST /v1/users`.
pub(super) async fn add(asked: &Asked) -> Reply {
    let (wanted, user) = body::user(&asked.body)?;
    let holder = Principal::User(user);
    let answered = asked.execute(asked.command(wanted)).await?;
    certified(asked, &holder, answered).await
}

/// `POST /v1/users/{name}/remove`.
pub(super) async fn remove(asked: &Asked) -> Reply {
    let user: UserName = asked.parse_part()?;
    plain(asked, Order::RemoveUser { user }).await
}

/// `POST /v1/users/self/certificate`: by the issuer that the current row names.
pub(super) async fn renew(asked: &Asked) -> Reply {
    let holder = Principal::User(asked.caller.user()?.clone());
    let wanted = body::renewal(&asked.body)?;
    let answered = asked.execute(asked.command(wanted)).await?;
    certified(asked, &holder, answered).await
}

/// Waits for the certificate and adds what to trust: all that an identity file needs beside its key.
async fn certified(asked: &Asked, holder: &Principal, answered: Answered) -> Reply {
    let app = &asked.app;
    let Answer::Authorized { authorization } = answered.answer else {
        return Err(No::new(
            Code::Internal,
            "a request for a certificate was answered with something else",
        ));
    };
    let issued = app.certificate(holder, authorization).await?;
    let look = |s: &domain::ClusterState| {
        let bundle = s.types.get(&AuthorityType::Host)?.bundle.as_ref()?.position;
        Some((bundle, s.cluster.as_ref()?.bundle_key))
    };
    let Some((bundle, bundle_pin)) = app.wait_until(Instant::now() + PATIENCE, look).await else {
        let text = "the trust bundle is not signed yet: send the same request again";
        return Err(No::new(Code::SignerUnavailable, text).retry_after(1));
    };
    let bundle = Hub::bundle(app, AuthorityType::Host, bundle).await?;
    reply::json(&UserCertificateAnswer {
        certificate: issued.text,
        not_after: issued.not_after,
        issuer: issued.issuer,
        bundle: (*bundle).clone(),
        bundle_pin,
        position: issued.position,
    })
}
