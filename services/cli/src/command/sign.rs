//! `carousel auth sign` and `carousel auth token`: credentials for parties without an agent.

use std::{io::Read, path::Path};

use api::{
    command::{SignAnswer, SignRequest, SignTokenRequest},
    route,
};
use pki::{csr, jwe::Receiver, ssh};
use serde_json::json;

use super::{plain_request, required_type};
use crate::{
    args::{SignArgs, TokenArgs},
    failure::{Exit, Failure},
    run::Context,
    text::{milliseconds, utc},
};

/// Certificate requests and SSH keys are shorter by far.
const MAX_INPUT: u64 = 64 * 1024;

pub(super) async fn sign(context: &Context, args: &SignArgs) -> Result<Exit, Failure> {
    let authority_type = required_type(args.authority_type)?;
    // What cannot be used is said before anybody is asked; above all, a private key goes nowhere.
    let csr = args.csr.as_deref().map(request).transpose()?;
    let ssh_key = args.ssh_key.as_deref().map(public_key).transpose()?;
    let session = context.session().await?;
    let make = || SignRequest {
        id: plain_request(context, &session).id,
        reason: context.global.reason.clone(),
        authority_type,
        name: args.name.to_string(),
        csr: csr.clone(),
        ssh_key: ssh_key.clone(),
        upn: args.upn.clone(),
        names: args.dns.iter().map(ToString::to_string).collect(),
        addresses: args.address.clone(),
        principals: args.principal.clone(),
        critical_options: args.option.iter().cloned().collect(),
        extensions: args.extension.clone(),
        ttl_ms: args.ttl.map(milliseconds),
    };
    context.sends();
    let answer: SignAnswer = context.sort(session.post_for_signature(route::SIGN, make).await)?;
    let mut text = answer.credential.clone();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    if let Some(out) = &args.out {
        write(out, text.as_bytes())?;
        text = format!("{} is written.\n", out.display());
    }
    context
        .terminal
        .show(&answer, |_| text, || vec![answer.serial.to_string()])?;
    context.terminal.note(&signed_by(&answer));
    Ok(Exit::Done)
}

pub(super) async fn token(context: &Context, args: &TokenArgs) -> Result<Exit, Failure> {
    let authority_type = required_type(args.authority_type)?;
    let session = context.session().await?;
    // The token is sealed to a key that lives as long as this command: neither the log nor the wire has it open.
    let receiver = Receiver::generate();
    let make = || SignTokenRequest {
        id: plain_request(context, &session).id,
        reason: context.global.reason.clone(),
        authority_type,
        name: args.name.to_string(),
        audience: args.audience.clone(),
        ttl_ms: args.ttl.map(milliseconds),
        public_key: receiver.public().to_base64(),
    };
    context.sends();
    let answer: SignAnswer = context.sort(session.post_for_signature(route::SIGN_TOKEN, make).await)?;
    let token = receiver
        .open(&answer.credential)
        .map_err(|error| Failure::failed(format!("the token that came cannot be opened: {error}")))?;
    let document = json!({
        "token": *token,
        "serial": answer.serial,
        "not_after": answer.not_after,
        "type": answer.authority_type,
        "issuer": answer.issuer,
        "generation": answer.generation,
        "retiring": answer.retiring,
        "phase": answer.phase,
        "position": answer.position,
    });
    context.terminal.show(
        &document,
        |_| format!("{}\n", *token),
        || vec![answer.serial.to_string()],
    )?;
    context.terminal.note(&signed_by(&answer));
    Ok(Exit::Done)
}

/// Which generation signed, and when that ends.
pub(super) fn signed_by(answer: &SignAnswer) -> String {
    let title = answer.authority_type.row().title;
    let until = utc(answer.not_after);
    let signed = format!(
        "Signed by the {title}, generation {} ({}); good until {until}, serial {}.",
        answer.generation,
        answer.issuer.short(),
        answer.serial
    );
    if answer.retiring {
        format!(
            "{signed}\n! A rotation is in {} and retires this generation: it ends only after this has expired or was \
             signed again by the new one.",
            answer.phase
        )
    } else {
        signed
    }
}

/// A certificate request whose signature verifies: anything else stays here.
fn request(path: &Path) -> Result<String, Failure> {
    let text = read(path)?;
    if text.contains("PRIVATE KEY") {
        return Err(Failure::failed(format!(
            "{}: this is a private key, and was sent nowhere; give a request that was made with it: openssl req -new -key FILE",
            path.display()
        )));
    }
    csr::parse_and_verify(text.as_bytes())
        .map(|_| text)
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// An SSH public key, one line without a comment: anything else stays here.
pub(super) fn public_key(path: &Path) -> Result<String, Failure> {
    ssh::SshPublicKey::parse(&read(path)?)
        .map(|key| key.to_line())
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
}

/// A small text file, or stdin.
fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut text = String::new();
    let length = if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(MAX_INPUT + 1)
            .read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(MAX_INPUT + 1).read_to_string(&mut text)
    };
    match length {
        Ok(length) if length as u64 > MAX_INPUT => Err(Failure::failed(format!(
            "{}: this is too long to be a key",
            path.display()
        ))),
        Ok(_) => Ok(text),
        Err(error) => Err(failed(error)),
    }
}

/// Public material: for everybody to read.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    runtime::harden::atomic_write(path, bytes, 0o644)
        .map_err(|error| Failure::failed(format!("{} cannot be written: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn a_private_key_is_named_as_one_and_goes_nowhere() {
        let key = pki::KeyPair::generate();
        let private = file(&key.to_pem());
        for refused in [
            request(private.path()).map(drop),
            public_key(private.path()).map(drop),
        ] {
            let said = refused.unwrap_err().page;
            assert!(said.contains("private key"), "{said}");
            assert!(
                !said.contains(key.to_pem().lines().nth(1).unwrap()),
                "nothing of it is shown"
            );
        }
        let made = file(&csr::make_pem(&key));
        assert!(request(made.path()).is_ok());
        assert!(request(file("nonsense").path()).is_err());
        let line = ssh::public_line(key.public(), "a comment");
        assert!(!public_key(file(&line).path()).unwrap().contains("comment"));
    }
}
