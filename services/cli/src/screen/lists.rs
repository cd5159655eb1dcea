//! The lists of `get` beside the nodes.

use std::collections::BTreeMap;

use api::shape::{
    AuthorityDoc, CertificateDoc, ConsumerDoc, ConsumerProbeReport, ProbeReport, RotationDoc, TokenDoc,
    UserDoc,
};
use domain::{AuthorityType, Timestamp, access::Uses, event::RotationOutcome};

use crate::text::{Cell, Look, Paint, Table};

/// `get authorities`: one row per key.
pub fn authorities(list: &[AuthorityDoc], look: &Look) -> String {
    let mut table = Table::new([
        "TYPE",
        "PHASE",
        "GENERATION",
        "STATUS",
        "PROTOCOL",
        "STORAGE",
        "EXPIRES",
        "PIN",
    ]);
    for authority in list {
        if authority.keys.is_empty() {
            let state = if authority.in_service {
                "no key"
            } else {
                "not in service"
            };
            table.row(
                [
                    authority.authority_type.name(),
                    authority.phase.name(),
                    "-",
                    state,
                ]
                .map(Cell::from),
            );
        }
        for key in &authority.keys {
            let gone = if key.destroyed { ", destroyed" } else { "" };
            table.row([
                authority.authority_type.name().into(),
                authority.phase.name().into(),
                key.key.generation.to_string().into(),
                format!("{}{gone}", key.key.status).into(),
                key.key.protocol.as_str().into(),
                key.key.storage.as_str().into(),
                key.key.expires.map_or("-".into(), day).into(),
                key.key.pin.to_string().into(),
            ]);
        }
    }
    table.render(look)
}

/// `get rotations`, newest first.
pub fn rotations(list: &[RotationDoc], look: &Look) -> String {
    let mut table = Table::new(["TYPE", "STATE", "MODE", "STARTED", "TOOK", "BY", "ID"]);
    for rotation in list {
        let (paint, state) = match rotation.outcome {
            Some(RotationOutcome::Completed) => (Paint::Good, "completed"),
            Some(RotationOutcome::RolledBack) => (Paint::Warn, "rolled back"),
            None => (Paint::Plain, rotation.phase.name()),
        };
        let end = rotation.ended.unwrap_or(look.now);
        table.row([
            rotation.authority_type.name().into(),
            Cell::painted(paint, state),
            mode(rotation.mode).into(),
            moment(rotation.started).into(),
            crate::text::took(end.since_ms(rotation.started)).into(),
            rotation
                .phases
                .first()
                .map_or("-".into(), |p| p.by.to_string())
                .into(),
            rotation.id.to_string().into(),
        ]);
    }
    table.render(look)
}

/// `get tokens`.
pub fn tokens(list: &[TokenDoc], look: &Look) -> String {
    let mut table = Table::new(["ID", "NAMES", "TYPES", "USED", "EXPIRES", "BY"]);
    for token in list {
        let expires = if token.expired {
            Cell::painted(Paint::Dim, "expired")
        } else {
            look.until(token.expires).into()
        };
        table.row([
            token.id.to_string().into(),
            token.names.join(",").into(),
            types(&token.types).into(),
            format!("{}/{}", token.used, token.uses).into(),
            expires,
            token.made_by.to_string().into(),
        ]);
    }
    table.render(look)
}

/// `get certificates`, newest first.
pub fn certificates(list: &[CertificateDoc], wide: bool, look: &Look) -> String {
    let mut heads = vec![
        "NAME", "HOLDER", "TYPE", "USE", "STATE", "EXPIRES", "ISSUER", "POS",
    ];
    if wide {
        heads.extend(["SERIAL", "DIGEST"]);
    }
    let mut table = Table::new(heads);
    for certificate in list {
        let mut row: Vec<Cell> = vec![
            certificate.name.as_str().into(),
            holder_kind(&certificate.holder.to_string()).into(),
            certificate.authority_type.name().into(),
            usage(certificate).into(),
            certificate_state(certificate, look),
            look.until(certificate.not_after).into(),
            look.pin(&certificate.issuer).into(),
            certificate.position.to_string().into(),
        ];
        if wide {
            row.extend([
                certificate.serial.to_string().into(),
                certificate.digest.to_string().into(),
            ]);
        }
        table.row(row);
    }
    table.render(look)
}

fn certificate_state(certificate: &CertificateDoc, look: &Look) -> Cell {
    let superseded = certificate.superseded_at.is_some_and(|t| t <= look.now);
    match (certificate.revoked, certificate.not_after <= look.now, superseded) {
        (true, _, _) => Cell::painted(Paint::Bad, "revoked"),
        (_, true, _) => Cell::painted(Paint::Dim, "expired"),
        (_, _, true) => Cell::painted(Paint::Dim, "superseded"),
        _ if certificate.presented.is_some() => Cell::painted(Paint::Good, "in use"),
        // A gateway's own are served, never presented to a gateway: there is nobody who could have seen them.
        _ if matches!(
            certificate.holder,
            domain::Principal::Gateway(_) | domain::Principal::External(_)
        ) =>
        {
            "valid".into()
        }
        _ if certificate.kind != domain::authority::KeyKind::Tls => "valid".into(),
        _ => "not yet seen".into(),
    }
}

/// `users ls`.
pub fn users(list: &[UserDoc], look: &Look) -> String {
    let mut table = Table::new(["NAME", "ROLES", "LOGINS", "CERTIFICATE"]);
    for user in list {
        let roles: Vec<_> = user.roles.iter().map(|role| role_name(*role)).collect();
        table.row([
            user.name.as_str().into(),
            roles.join(",").into(),
            user.logins.join(",").into(),
            user.not_after.map_or("-".into(), |t| look.until(t)).into(),
        ]);
    }
    table.render(look)
}

/// `get consumers`.
pub fn consumers(list: &[ConsumerDoc], look: &Look) -> String {
    let mut table = Table::new(["NAME", "TYPE", "OWNER", "CONTACT", "PROBE", "ATTESTED", "STATE"]);
    for consumer in list {
        let state = if consumer.waited_for {
            Cell::painted(Paint::Warn, "waited for")
        } else {
            Cell::painted(Paint::Good, "ok")
        };
        table.row([
            consumer.name.as_str().into(),
            consumer.authority_type.name().into(),
            consumer.owner.as_str().into(),
            consumer.contact.as_str().into(),
            consumer
                .probe
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string)
                .into(),
            attested(consumer).into(),
            state,
        ]);
    }
    table.render(look)
}

/// For which phase, and whether somebody said so or it was seen.
fn attested(consumer: &ConsumerDoc) -> String {
    match consumer.attested {
        Some((_, phase)) if consumer.probed => format!("{phase} (probed)"),
        Some((_, phase)) => phase.to_string(),
        None => "-".to_owned(),
    }
}

/// `consumers probe`: what was seen of one.
pub fn consumer_probe(report: &ConsumerProbeReport, look: &Look) -> String {
    let mut table = Table::new(["NAME", "TYPE", "PROBE", "PHASE", "RESULT"]);
    let result = match &report.missing {
        None => Cell::painted(Paint::Good, "ok"),
        Some(missing) => Cell::painted(Paint::Bad, missing.as_str()),
    };
    table.row([
        report.name.as_str().into(),
        report.authority_type.name().into(),
        report.probe.to_string().into(),
        report.phase.name().into(),
        result,
    ]);
    let mut text = table.render(look);
    if let Some(saw) = &report.saw {
        text.push_str(&format!("It shows {saw}.\n"));
    }
    if report.position.is_some() {
        text.push_str(&format!("{} has attested for {}.\n", report.name, report.phase));
    }
    text
}

/// `probe`: what each node serves.
pub fn probes(list: &[ProbeReport], look: &Look) -> String {
    let mut table = Table::new(["NAME", "ADDR", "RESULT", "GENERATION", "EXPIRES", "TOOK"]);
    for probe in list {
        let result = match (&probe.error, probe.ok) {
            (_, true) => Cell::painted(Paint::Good, "ok"),
            (Some(error), false) => Cell::painted(Paint::Bad, error.as_str()),
            (None, false) => Cell::painted(Paint::Bad, "failed"),
        };
        let dash = || "-".to_owned();
        table.row([
            probe.name.as_str().into(),
            if probe.addr.is_empty() {
                dash()
            } else {
                probe.addr.clone()
            }
            .into(),
            result,
            probe.generation.map_or_else(dash, |g| g.to_string()).into(),
            probe.not_after.map_or_else(dash, |t| look.until(t)).into(),
            probe.millis.map_or_else(dash, |ms| format!("{ms} ms")).into(),
        ]);
    }
    table.render(look)
}

fn types(types: &BTreeMap<AuthorityType, Uses>) -> String {
    types.keys().map(|t| t.name()).collect::<Vec<_>>().join(",")
}

fn holder_kind(holder: &str) -> &str {
    holder.split_once('/').map_or(holder, |(kind, _)| kind)
}

fn usage(certificate: &CertificateDoc) -> &'static str {
    use domain::{
        authority::KeyKind::{Jwt, Ssh, Tls},
        event::LeafUse::{Both, Client, Server, Signing},
    };
    match (certificate.kind, certificate.usage) {
        (Jwt, _) => "token",
        (Ssh, Server) => "ssh host",
        (Ssh, _) => "ssh user",
        (Tls, Client) => "client",
        (Tls, Server) => "server",
        (Tls, Both) => "both",
        (Tls, Signing) => "signing",
    }
}

fn mode(mode: domain::command::Mode) -> &'static str {
    use domain::command::Mode::{Automatic, Manual};
    match mode {
        Manual => "manual",
        Automatic => "automatic",
    }
}

pub(super) fn role_name(role: domain::access::RoleName) -> &'static str {
    use domain::access::RoleName::{Admin, Auditor, Operator};
    match role {
        Auditor => "auditor",
        Operator => "operator",
        Admin => "admin",
    }
}

fn day(time: Timestamp) -> String {
    time.to_string()[..10].into()
}

fn moment(time: Timestamp) -> String {
    crate::text::moment(time)[..19].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::screen::samples::{at, look, node_id, pin};

    #[test]
    fn a_probe_that_failed_says_why_in_its_row() {
        let probe = |name: &str, ok, error: Option<&str>| ProbeReport {
            node: node_id(1),
            name: name.into(),
            addr: "127.0.0.1:1".into(),
            ok,
            generation: ok.then_some(4),
            issuer: ok.then(|| pin(1)),
            not_after: ok.then(|| at("13:00:00")),
            millis: ok.then_some(3),
            error: error.map(Into::into),
        };
        let text = probes(
            &[probe("api-1", true, None), probe("db-07", false, Some("refused"))],
            &look(),
        );
        let expected = "\
NAME   ADDR         RESULT   GENERATION  EXPIRES  TOOK
api-1  127.0.0.1:1  ok       4           11 h     3 ms
db-07  127.0.0.1:1  refused  -           -        -
";
        assert_eq!(text, expected);
    }

    #[test]
    fn users_show_their_roles_as_they_are_given() {
        let user = UserDoc {
            name: "alice".into(),
            roles: [
                domain::access::RoleName::Admin,
                domain::access::RoleName::Operator,
            ]
            .into(),
            logins: vec!["alice".into(), "deploy".into()],
            not_after: Some(at("13:00:00")),
        };
        assert_eq!(
            users(&[user], &look()),
            "NAME   ROLES           LOGINS        CERTIFICATE\nalice  operator,admin  alice,deploy  11 h\n"
        );
    }
}
