//! Exit 4: unreachable, or one side does not trust the other.

use domain::Timestamp;

use crate::{
    connect::Untrusted,
    text::{Look, utc},
};

/// Nobody answers.
pub fn unreachable(authority: &str, detail: &str) -> String {
    // The connector names the address as well.
    let said = format!("{authority} cannot be reached: ");
    let detail = detail.strip_prefix(&said).unwrap_or(detail);
    if detail.starts_with("no answer") {
        // It was sent: only the log knows whether it was carried out.
        return format!(
            "unreachable: https://{authority}: {detail}\n\
             Whether it was carried out is not known: a log that does not answer keeps everybody waiting.\n\
             Next: carousel check --wait, then carousel audit ls shows it; repeat what is not there\n"
        );
    }
    format!(
        "unreachable: https://{authority}: {detail}\n\
         Nothing is known to have changed.\n\
         Next: is `carousel serve` running there? check --server and the identity file's `server`\n"
    )
}

/// The control plane was never started.
pub fn no_server(identity: &std::path::Path) -> String {
    format!(
        "unreachable: {} names no server yet\nNext: start the control plane (carousel serve), or give --server\n",
        identity.display()
    )
}

/// Somebody answers, but not this API.
pub fn not_our_api(detail: &str) -> String {
    format!(
        "not understood: {detail}\nNext: check --server; compare `carousel --version` with the control plane's\n"
    )
}

/// The mistake after a host rotation that an identity slept through, or another cluster, or somebody in between.
pub fn untrusted(found: &Untrusted, look: &Look) -> String {
    let presented = found
        .presented
        .as_ref()
        .map_or_else(|| "an authority without a name".into(), |pin| look.pin(pin));
    let trusted = match &found.trusted[..] {
        [] => "nobody".to_owned(),
        pins => pins
            .iter()
            .map(|pin| look.pin(pin))
            .collect::<Vec<_>>()
            .join(", "),
    };
    let why = match &found.bundle {
        Some(why) => format!(
            "The signed trust bundle of this server does not verify by your bundle pin: it may be\n\
             another cluster, or somebody between you and it. ({why})"
        ),
        None => {
            "The signed trust bundle of this server is not newer than yours and does not name that CA.".into()
        }
    };
    format!(
        "not trusted: {} presents a CA that this identity does not know\n  \
           it presents   {presented}\n  \
           you trust     {trusted}   ({})\n\
         {why} Nothing was sent.\n\
         Next: check --server; on the control-plane host: carousel recover --data-dir D\n",
        found.server,
        found.identity.display(),
    )
}

/// The control plane refuses our certificate in the handshake.
pub fn not_accepted(server: &str, why: &str, not_after: Option<Timestamp>, look: &Look) -> String {
    let life = match not_after {
        Some(end) if end <= look.now => {
            format!("This identity expired {} ({} ago).\n", utc(end), look.ago(end))
        }
        // That it would last longer is no comfort where expiry is not the reason.
        Some(_) | None => String::new(),
    };
    format!(
        "not trusted: {server} does not accept this identity: {why}\n{life}\
         Next: an administrator gives you a new one: carousel users rm NAME, then carousel users add NAME ...\n      \
         on the control-plane host: carousel recover --data-dir D\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::samples::{at, look, pin};

    #[test]
    fn an_unknown_authority_shows_both_sides_and_that_nothing_was_sent() {
        let page = untrusted(
            &Untrusted {
                server: "https://cp.acme:3025".into(),
                identity: "acme.identity".into(),
                presented: Some(pin(2)),
                trusted: vec![pin(1)],
                bundle: Some("signed by another key".into()),
                detail: String::new(),
            },
            &look(),
        );
        let expected = "\
not trusted: https://cp.acme:3025 presents a CA that this identity does not know
  it presents   sha256:0202…02
  you trust     sha256:0101…01   (acme.identity)
";
        assert!(page.starts_with(expected), "{page}");
        assert!(page.contains("Nothing was sent.\nNext: "), "{page}");
    }

    #[test]
    fn an_expired_identity_says_since_when() {
        let page = not_accepted("https://x:1", "it has expired", Some(at("01:00:00")), &look());
        assert!(
            page.contains("expired Sep 20 2026 01:00:00 UTC (1 h ago)"),
            "{page}"
        );
        let page = not_accepted(
            "https://x:1",
            "our certificate was revoked",
            Some(at("09:00:00")),
            &look(),
        );
        assert!(!page.contains("valid until"), "{page}");
    }
}
