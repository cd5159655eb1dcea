//! `audit ls`.

use api::{audit::EventRecord, route, shape::Whoami};
use domain::{Event, Timestamp};

use super::{filter::Wanted, page, record};
use crate::{
    args::{AuditFilter, Format},
    connect::Session,
    failure::{Exit, Failure},
    run::Context,
    screen::audit as screen,
};

/// Events of one request.
pub(super) const PAGE: usize = 1_000;

pub(crate) async fn ls(context: &Context, args: &AuditFilter) -> Result<Exit, Failure> {
    let session = context.session().await?;
    let wanted = super::filter(context, &session, args).await?;
    let (after, end) = bounds(context, &session, &wanted).await?;
    let (mut records, events) = read(context, &session, &wanted, after, end).await?;
    if !matches!(context.terminal.format, Format::Text | Format::Wide) {
        if args.reverse {
            records.reverse();
        }
        let documents: Vec<_> = records.iter().map(record::with_position).collect();
        let names = || records.iter().map(|record| record.position.to_string()).collect();
        context.terminal.show(&documents, |_| String::new(), names)?;
        return Ok(Exit::Done);
    }
    let mut rows = screen::rows(&events, &wanted.names, wanted.is_all());
    if args.reverse {
        rows.reverse();
    }
    context.terminal.data(&screen::table(&rows, context.look()));
    Ok(Exit::Done)
}

/// The events after the first position, up to the second, that are wanted.
pub(super) async fn read(
    context: &Context,
    session: &Session,
    wanted: &Wanted,
    mut after: u64,
    end: u64,
) -> Result<(Vec<EventRecord>, Vec<Event>), Failure> {
    let (mut records, mut events) = (Vec::new(), Vec::new());
    while after < end {
        let found = page(context, session, after, PAGE).await?;
        let Some(last) = found.last() else { break };
        after = last.position.0;
        for record in found.into_iter().filter(|record| record.position.0 <= end) {
            let event = record::decode(&record)?;
            if wanted.passes(&event, record.event.get()) {
                records.push(record);
                events.push(event);
            }
        }
    }
    Ok((records, events))
}

/// The positions between which the wanted times lie: after the first, up to the second. Found by bisection, because
/// events carry times that never go back and a log may be long.
pub(super) async fn bounds(
    context: &Context,
    session: &Session,
    wanted: &Wanted,
) -> Result<(u64, u64), Failure> {
    let me: Whoami = context.get(session, route::WHOAMI).await?;
    let end = me.position.0;
    let after = match wanted.since {
        Some(since) => first_where(context, session, end, |time| time >= since).await?,
        None => 0,
    };
    let last = match wanted.until {
        Some(until) => first_where(context, session, end, |time| time > until).await?,
        None => end,
    };
    Ok((after, last))
}

/// How many events stand before the first whose time is so.
async fn first_where(
    context: &Context,
    session: &Session,
    end: u64,
    is_so: impl Fn(Timestamp) -> bool,
) -> Result<u64, Failure> {
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = page(context, session, middle, 1).await?;
        let Some(record) = found.first() else { break };
        if is_so(time_of(record)?) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    Ok(low)
}

fn time_of(record: &EventRecord) -> Result<Timestamp, Failure> {
    record::decode(record).map(|event| event.header.time)
}
