//! `audit show`: one event in full, and what it led to.

use api::{audit::EventAudit, route};
use domain::{Event, Fact};

use super::{names, page, record};
use crate::{
    connect::Session,
    failure::{Exit, Failure},
    run::Context,
    screen::audit as screen,
    text::{count, span},
};

/// How far behind an event its effects are looked for.
const AHEAD: usize = 1_000;

pub(crate) async fn show(context: &Context, position: u64) -> Result<Exit, Failure> {
    let session = context.session().await?;
    let before = position
        .checked_sub(1)
        .ok_or_else(|| Failure::usage("positions count from 1"))?;
    let found = page(context, &session, before, AHEAD).await?;
    let Some((first, rest)) = found
        .split_first()
        .filter(|(first, _)| first.position.0 == position)
    else {
        return Err(Failure::failed(format!(
            "position {position} is after the end of the log"
        )));
    };
    let event = record::decode(first)?;
    let later: Vec<Event> = rest
        .iter()
        .map_while(|record| record::decode(record).ok())
        .collect();
    let trace: Option<String> = serde_json::from_str::<serde_json::Value>(first.event.get())
        .ok()
        .and_then(|value| value.get("traceparent").and_then(|t| t.as_str().map(Into::into)));
    let names = names(&session).await;
    let audit = match context.terminal.is_machine() {
        true => None,
        false => Some(decided_again(context, &session, position).await?),
    };
    let text = screen::show(
        &event,
        event.fact.type_name(),
        audit.as_ref(),
        trace.as_deref(),
        &led_to(&event, &later),
        &names,
    );
    let document = record::with_position(first);
    context.terminal.show(
        &document,
        |look| text.replace('…', look.ellipsis()),
        || vec![position.to_string()],
    )?;
    Ok(Exit::Done)
}

/// The event by itself: the control plane reads the log up to it for that.
async fn decided_again(context: &Context, session: &Session, position: u64) -> Result<EventAudit, Failure> {
    let path = route::fill(route::AUDIT_EVENT, &position.to_string());
    context.sort(session.get_slow(&path).await)
}

/// What followed a phase: certificates and reports until the next event of that rotation; of any other event, what
/// its command led to.
fn led_to(event: &Event, later: &[Event]) -> Vec<String> {
    let Fact::RotationPhaseEntered(entered) = &event.fact else {
        let same =
            |other: &&Event| event.header.command.is_some() && other.header.command == event.header.command;
        return later
            .iter()
            .filter(same)
            .map(|other| format!("{}  {}", other.header.position, other.fact.type_name()))
            .collect();
    };
    let of_next = |other: &&Event| !matches!(&other.fact, Fact::RotationPhaseEntered(f) if f.authority_type == entered.authority_type);
    let until: Vec<&Event> = later.iter().take_while(of_next).collect();
    let mut lines = Vec::new();
    for (is_kind, what) in KINDS {
        let of_kind: Vec<_> = until.iter().filter(|other| is_kind(&other.fact)).collect();
        if let (Some(first), Some(last)) = (of_kind.first(), of_kind.last()) {
            let (from, to) = (first.header.position, last.header.position);
            let later = span(last.header.time.since_ms(event.header.time));
            lines.push(if of_kind.len() == 1 {
                format!("{from}  {}, {later} later", count(1_u32, what))
            } else {
                let many = count(of_kind.len() as u64, what);
                format!("{from}-{to}  {many}, the last {later} later")
            });
        }
    }
    lines
}

type Kind = (fn(&Fact) -> bool, &'static str);

const KINDS: [Kind; 4] = [
    (|fact| matches!(fact, Fact::AuthorityKeyGenerated(_)), "new key"),
    (
        |fact| matches!(fact, Fact::AuthorizationGranted(_)),
        "authorised certificate",
    ),
    (
        |fact| matches!(fact, Fact::CertificateIssued(_)),
        "issued certificate",
    ),
    (|fact| matches!(fact, Fact::NodeReported(_)), "node report"),
];
