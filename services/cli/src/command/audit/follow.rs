//! `audit follow`: the same rows as they come; it survives a restart of the control plane.

use std::time::Duration;

use api::{audit::EventRecord, route};

use super::{filter::Wanted, list, record};
use crate::{
    args::{AuditFilter, Format},
    connect::{ConnectError, Session},
    failure::{Exit, Failure},
    run::Context,
    screen::audit as screen,
};

const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn follow(context: &Context, args: &AuditFilter) -> Result<Exit, Failure> {
    if args.reverse {
        return Err(Failure::usage(
            "what is followed comes as it happens: --reverse belongs to `audit ls`",
        ));
    }
    let session = context.session().await?;
    let wanted = super::filter(context, &session, args).await?;
    // What was, from the wanted time on, and then what comes: at one position, so that nothing is shown twice.
    let (begin, after) = list::bounds(context, &session, &wanted).await?;
    let was = if args.since.is_some() { begin } else { after };
    let (records, events) = list::read(context, &session, &wanted, was, after).await?;
    if matches!(context.terminal.format, Format::Text | Format::Wide) {
        context.terminal.data(&screen::head());
    }
    for (record, event) in records.iter().zip(&events) {
        print(context, record, event, &wanted.names);
    }
    let coming = come(context, &session, &wanted, after);
    match wanted.until {
        None => coming.await,
        // Nothing may come any more before the time is over, and the end comes all the same.
        Some(until) => {
            let left = Duration::from_millis(until.since_ms(context.now()));
            tokio::time::timeout(left, coming).await.unwrap_or(Ok(Exit::Done))
        }
    }
}

/// What comes after a position, until the wanted time is over.
async fn come(
    context: &Context,
    session: &Session,
    wanted: &Wanted,
    mut after: u64,
) -> Result<Exit, Failure> {
    let mut said_lost = false;
    loop {
        let path = format!("{}?after={after}", route::EVENTS_FOLLOW);
        match session.stream(&path).await {
            Ok(mut stream) => {
                said_lost = false;
                while let Ok(Some(message)) = stream.next().await {
                    let Ok(found) = message.json::<EventRecord>() else {
                        continue;
                    };
                    after = found.position.0;
                    let event = record::decode(&found)?;
                    if wanted.is_over(event.header.time) {
                        return Ok(Exit::Done);
                    }
                    if wanted.passes(&event, found.event.get()) {
                        print(context, &found, &event, &wanted.names);
                    }
                }
            }
            Err(ConnectError::Client(error)) if error.is_transient() => {
                if !std::mem::replace(&mut said_lost, true) {
                    let look = context.look();
                    context.terminal.progress(&format!(
                        "{} no answer; trying again, nothing is skipped",
                        look.attention()
                    ));
                }
            }
            Err(error) => return context.sort(Err(error)),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn print(
    context: &Context,
    found: &EventRecord,
    event: &domain::Event,
    names: &crate::screen::describe::Names,
) {
    match context.terminal.format {
        Format::Text | Format::Wide => {
            let look = context.look();
            for row in screen::rows([event], names, true) {
                context.terminal.data(&screen::line(&row, look));
            }
        }
        Format::Json => context.terminal.json_line(&record::with_position(found)),
        // A stream of documents.
        Format::Yaml => {
            context.terminal.data("---\n");
            let _ = context
                .terminal
                .show(&record::with_position(found), |_| String::new(), Vec::new);
        }
        Format::Name => context.terminal.data(&format!("{}\n", found.position)),
    }
}
