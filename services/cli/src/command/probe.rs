//! `carousel probe`.

use api::{
    route,
    shape::{NodeDoc, ProbeReport},
};
use futures::{StreamExt, TryStreamExt, stream};

use super::plain_request;
use crate::{
    args::ProbeArgs,
    connect::{ConnectError, Session},
    failure::{Exit, Failure},
    run::Context,
    screen::lists,
};

/// How many nodes are dialled at once.
const AT_ONCE: usize = 8;

pub(super) async fn probe(context: &Context, args: &ProbeArgs) -> Result<Exit, Failure> {
    let session = context.session().await?;
    let names: Vec<String> = match &args.node {
        Some(node) => vec![node.clone()],
        None => {
            let nodes: Vec<NodeDoc> = context.get(&session, route::NODES).await?;
            nodes
                .into_iter()
                .map(|node| node.metadata.name.to_string())
                .collect()
        }
    };
    let reports = context.sort(dial_all(context, &session, names).await)?;
    let text = |look: &crate::text::Look| lists::probes(&reports, look);
    let names = || reports.iter().map(|report| report.name.clone()).collect();
    match (&args.node, reports.first()) {
        // One node, one document.
        (Some(_), Some(report)) => context.terminal.show(report, text, names)?,
        _ => context.terminal.show(&reports, text, names)?,
    }
    let all_well = reports.iter().all(|report| report.ok);
    Ok(if all_well { Exit::Done } else { Exit::Failed })
}

/// Has these nodes dialled, a few at once; the reports stand in the order of the names.
pub(super) async fn dial_all(
    context: &Context,
    session: &Session,
    names: Vec<String>,
) -> Result<Vec<ProbeReport>, ConnectError> {
    stream::iter(names)
        .map(|name| dial(context, session, name))
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

async fn dial(context: &Context, session: &Session, node: String) -> Result<ProbeReport, ConnectError> {
    session
        .post(
            &route::fill(route::PROBE, &node),
            &plain_request(context, session),
        )
        .await
}
