//! `audit follow`: the same rows as they come; it survives a restart of the control plane.

use std::time::Duration;

use api::{audit::EventRecord, route, shape::Whoami};

use super::record;
use crate::{
    args::{AuditFilter, Format},
    connect::ConnectError,
    failure::{Exit, Failure},
    run::Context,
    screen::audit as screen,
};

const PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn follow(context: &Context, args: &AuditFilter) -> Result<Exit, Failure> {
    let session = context.session().await?;
    let wanted = super::filter(context, &session, args).await?;
    let me: Whoami = context.get(&session, route::WHOAMI).await?;
    let mut after = me.position.0;
    if args.since.is_some() {
        super::ls(context, args).await?;
    } else if context.terminal.format == Format::Text {
        context.terminal.data(&screen::head());
    }
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
                    if wanted.passes(&event, found.event.get()) {
                        print(context, &found, &event, &wanted.names);
                    }
                }
            }
            Err(ConnectError::Client(error)) if error.is_transient() => {
                if !std::mem::replace(&mut said_lost, true) {
                    let look = context.look();
                    context.terminal.note(&format!(
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
    if matches!(context.terminal.format, Format::Text | Format::Wide) {
        let look = context.look();
        for row in screen::rows([event], names, true) {
            context.terminal.data(&screen::line(&row, look));
        }
    } else {
        context.terminal.json_line(&record::with_position(found));
    }
}
