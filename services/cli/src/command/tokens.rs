//! `carousel tokens`: the secret is made here and shown here; the control plane only learns its digest.

use std::fmt::Write;

use api::{
    command::{TokenAnswer, TokenRequest},
    route,
    shape::command_id,
};
use domain::{
    SpkiPin, Timestamp, TokenHash, TokenId,
    access::{NamePattern, Uses},
};
use serde::Serialize;
use zeroize::Zeroizing;

use super::plain;
use crate::{
    args::{TokenAddArgs, TokensCommand},
    failure::{Exit, Failure},
    run::Context,
    text::{milliseconds, utc},
};

pub(super) async fn tokens(context: &Context, command: TokensCommand) -> Result<Exit, Failure> {
    match command {
        TokensCommand::Add(args) => add(context, &args).await,
        TokensCommand::Rm { id } => {
            let path = route::fill(route::TOKEN_REMOVE, &id.to_string());
            plain(context, &path, &format!("Token {id} is removed.")).await
        }
    }
}

/// The answer as scripts read it (contract).
#[derive(Serialize)]
struct Made<'a> {
    id: TokenId,
    token: &'a str,
    ca_pins: &'a [SpkiPin],
    bundle_pin: SpkiPin,
    expires: Timestamp,
}

async fn add(context: &Context, args: &TokenAddArgs) -> Result<Exit, Failure> {
    let names: Vec<&NamePattern> = args.name.iter().chain(&args.names).collect();
    let session = context.session().await?;
    let token = secret();
    let body = TokenRequest {
        id: command_id(session.now(), pki::random()),
        reason: context.global.reason.clone(),
        hash: TokenHash(pki::sha256(token.as_bytes())),
        names: names.iter().map(ToString::to_string).collect(),
        addresses: args.address.clone(),
        types: args.uses_types.iter().map(|t| (*t, Uses::usual(*t))).collect(),
        uses: args.uses,
        ttl_ms: milliseconds(args.ttl),
    };
    context.sends();
    let answer: TokenAnswer = context.sort(session.post(route::TOKENS, &body).await)?;
    let made = Made {
        id: answer.id,
        token: &token,
        ca_pins: &answer.ca_pins,
        bundle_pin: answer.bundle_pin,
        expires: answer.expires,
    };
    let hostname = match names.first() {
        Some(NamePattern::Exact(name)) => name.to_string(),
        _ => "\"$(hostname -f)\"".into(),
    };
    let line = join_line(&made, &session.server(), &hostname);
    context
        .terminal
        .show(&made, |_| line, || vec![answer.id.to_string()])?;
    if !context.terminal.is_machine() {
        context.terminal.progress(&format!(
            "Run that line on the node. The token {} is good for {} until {}.",
            answer.id,
            crate::text::count(args.uses, "join"),
            utc(answer.expires)
        ));
    }
    Ok(Exit::Done)
}

/// 32 random bytes, in digits that every shell leaves alone.
fn secret() -> Zeroizing<String> {
    let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(pki::random());
    let mut text = Zeroizing::new(String::with_capacity(64));
    for byte in bytes.iter() {
        write!(text, "{byte:02x}").expect("a string takes everything");
    }
    text
}

/// The line to paste. The token goes by the environment: a command line is for everybody to read.
fn join_line(made: &Made<'_>, server: &str, hostname: &str) -> String {
    let pins: String = made
        .ca_pins
        .iter()
        .map(|pin| format!(" --ca-pin {pin}"))
        .collect();
    format!(
        "CAROUSEL_TOKEN={} carousel-agent start --data-dir /var/lib/carousel-agent --server {server} \
         --hostname {hostname}{pins} --bundle-pin {}\n",
        made.token, made.bundle_pin
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::samples::{at, pin};

    #[test]
    fn the_line_to_paste_holds_every_pin_and_the_token_only_in_the_environment() {
        let made = Made {
            id: TokenId(uuid::Uuid::nil()),
            token: "abc",
            ca_pins: &[pin(1), pin(2)],
            bundle_pin: pin(3),
            expires: at("01:00:00"),
        };
        let line = join_line(&made, "https://cp:3025", "n1");
        assert!(
            line.starts_with("CAROUSEL_TOKEN=abc carousel-agent start "),
            "{line}"
        );
        assert_eq!(line.matches("--ca-pin sha256:").count(), 2);
        assert!(!line.contains("--token"), "{line}");
    }

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (one, two) = (secret(), secret());
        assert_eq!(one.len(), 64);
        assert_ne!(one, two);
    }
}
