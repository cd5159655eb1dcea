//! `carousel login`: short-lived certificates of a person, for TLS and for SSH, by the identity that they have.

use std::path::{Path, PathBuf};

use api::{
    command::{RenewRequest, SignAnswer, SshRequest, UserCertificateAnswer},
    route,
};
use domain::{AuthorityType, trust::Bundle};
use pki::{KeyPair, bundle, csr, ssh};
use runtime::harden::{self, OWNER_ONLY};
use serde_json::json;

use super::{
    export, plain_request,
    sign::{public_key, signed_by, write},
};
use crate::{
    args::LoginArgs,
    connect::Session,
    failure::{Exit, Failure},
    run::Context,
    text::utc,
};

pub(super) async fn login(context: &Context, args: &LoginArgs) -> Result<Exit, Failure> {
    match &args.ssh_key {
        Some(key) => certify(context, key).await,
        None => whole(context, args.out.as_deref()).await,
    }
}

/// A key that the person has already, in an agent or in a token: its certificate alone.
async fn certify(context: &Context, key: &Path) -> Result<Exit, Failure> {
    let (out, line) = (beside(key)?, public_key(key)?);
    let session = context.session().await?;
    let answer = ssh_certificate(context, &session, line).await?;
    write(&out, format!("{}\n", answer.credential).as_bytes())?;
    let text = format!(
        "{} is written, good until {}.\n",
        out.display(),
        utc(answer.not_after)
    );
    context
        .terminal
        .show(&answer, |_| text, || vec![out.display().to_string()])?;
    context.terminal.note(&signed_by(&answer));
    Ok(Exit::Done)
}

/// `id_ed25519.pub` is certified in `id_ed25519-cert.pub`, where ssh looks for it.
fn beside(key: &Path) -> Result<PathBuf, Failure> {
    let name = key.file_name().and_then(|name| name.to_str());
    let stem = name.and_then(|name| name.strip_suffix(".pub"));
    let stem = stem
        .ok_or_else(|| Failure::usage("--ssh-key wants the public half, a file whose name ends in .pub"))?;
    Ok(key.with_file_name(format!("{stem}-cert.pub")))
}

/// Fresh keys with a certificate each, and whom to trust.
async fn whole(context: &Context, out: Option<&Path>) -> Result<Exit, Failure> {
    let session = context.session().await?;
    let dir = match out {
        Some(dir) => dir.to_owned(),
        None => session.path().with_extension("login"),
    };
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", dir.display()));
    harden::create_private_dir(&dir).map_err(failed)?;
    let (tls, ssh_key) = (KeyPair::generate(), KeyPair::generate());
    let csr = csr::make_pem(&tls);
    let make = || RenewRequest {
        id: plain_request(context, &session).id,
        reason: context.global.reason.clone(),
        csr: csr.clone(),
    };
    context.sends();
    let leaf: UserCertificateAnswer =
        context.sort(session.post_for_signature(route::USER_RENEW, make).await)?;
    let line = ssh::public_line(ssh_key.public(), "");
    let certified = ssh_certificate(context, &session, line.trim().to_owned()).await?;
    let hosts: Bundle = export::verified(context, &session, AuthorityType::Host).await?;
    // A key is there before its certificate: whatever is found together fits together, or is refused by whoever reads it.
    let secret = |name: &str, text: &str| {
        harden::atomic_write(&dir.join(name), text.as_bytes(), OWNER_ONLY).map_err(failed)
    };
    secret("user.key", &tls.to_pem())?;
    secret("user.crt", &leaf.certificate)?;
    secret("ssh_key", &ssh_key.to_pem())?;
    secret("ssh_key.pub", &format!("{line}\n"))?;
    secret("ssh_key-cert.pub", &format!("{}\n", certified.credential))?;
    secret("known_hosts", &ssh::trust_text(&hosts, "*"))?;
    let ders: Vec<_> = bundle::authorities(&hosts).collect();
    secret(
        "trust.pem",
        &pki::pem::encode_certificates(ders.iter().map(|ca| &ca.der()[..])),
    )?;
    let profile = ssh::SshCertificate::parse(&certified.credential).map(|read| read.profile());
    let accounts = profile.map(|profile| profile.principals).unwrap_or_default();
    let document = json!({
        "dir": dir,
        "accounts": accounts,
        "tls": { "not_after": leaf.not_after, "issuer": leaf.issuer },
        "ssh": { "not_after": certified.not_after, "issuer": certified.issuer, "serial": certified.serial },
    });
    let (shown, account) = (dir.display(), accounts.first().map_or("", String::as_str));
    let text = format!(
        "Logged in until {} as {}, for the accounts: {}.\n\n\
         \x20 ssh -i {shown}/ssh_key -o UserKnownHostsFile={shown}/known_hosts {account}@HOST\n\
         \x20 curl --cert {shown}/user.crt --key {shown}/user.key --cacert {shown}/trust.pem https://NODE\n",
        utc(certified.not_after.min(leaf.not_after)),
        session.identity().await.user,
        accounts.join(", "),
    );
    context
        .terminal
        .show(&document, |_| text, || vec![dir.display().to_string()])?;
    context.terminal.note(&signed_by(&certified));
    Ok(Exit::Done)
}

async fn ssh_certificate(
    context: &Context,
    session: &Session,
    ssh_key: String,
) -> Result<SignAnswer, Failure> {
    let make = || SshRequest {
        id: plain_request(context, session).id,
        reason: context.global.reason.clone(),
        ssh_key: ssh_key.clone(),
    };
    context.sends();
    context.sort(session.post_for_signature(route::USER_SSH, make).await)
}
