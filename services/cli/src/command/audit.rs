//! `carousel audit`: the log as people read it.

use api::{
    audit::{DiffDoc, EventRecord, VerifyReport},
    route,
    shape::{AuthorityDoc, CertificateDoc, NodeDoc, Status},
};
use domain::Fact;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::status;
use crate::{
    args::AuditFilter,
    connect::Session,
    failure::{Exit, Failure},
    run::{Context, verified},
    screen::{audit as screen, describe::Names, lists, nodes},
};

pub(super) use follow::follow;
pub(super) use list::ls;
pub(super) use show::show;

mod filter;
mod follow;
mod list;
mod record;
mod show;

pub(super) async fn replay(context: &Context, as_of: &str, view: &str) -> Result<Exit, Failure> {
    let at = context.moment(as_of)?;
    let session = context.session().await?;
    let path = format!("{}?as_of={}&view={view}", route::AUDIT_REPLAY, route::encode(&at));
    let value: Value = context.sort(session.get_slow(&path).await)?;
    match view {
        "nodes" => {
            let docs: Vec<NodeDoc> = shaped(&value)?;
            let then = status_then(context, &session, &at).await?;
            let shows = nodes::Shows {
                wide: context.is_wide(),
                presence: false,
            };
            let text =
                |look: &crate::text::Look| nodes::table(&docs, nodes::subject(&then), &then, shows, look);
            context.terminal.show(&value, text, || {
                docs.iter().map(|d| d.spec.hostname.clone()).collect()
            })?;
        }
        "authorities" => {
            status_then(context, &session, &at).await?;
            let docs: Vec<AuthorityDoc> = shaped(&value)?;
            let names = || docs.iter().map(|d| d.authority_type.to_string()).collect();
            context
                .terminal
                .show(&value, |look| lists::authorities(&docs, look), names)?;
        }
        "certificates" => {
            status_then(context, &session, &at).await?;
            let docs: Vec<CertificateDoc> = shaped(&value)?;
            let text = |look: &crate::text::Look| lists::certificates(&docs, context.is_wide(), look);
            context.terminal.show(&value, text, || {
                docs.iter().map(|d| d.digest.to_string()).collect()
            })?;
        }
        _ => return status::show(context, &shaped(&value)?, true),
    }
    Ok(Exit::Done)
}

/// The status of that moment; says beside the table of which moment it is.
async fn status_then(context: &Context, session: &Session, at: &str) -> Result<Status, Failure> {
    let path = format!("{}?as_of={}&view=status", route::AUDIT_REPLAY, route::encode(at));
    let value: Value = context.sort(session.get_slow(&path).await)?;
    let then: Status = shaped(&value)?;
    if !context.terminal.is_machine() {
        context.terminal.progress(&screen::as_of(&then, context.look()));
    }
    Ok(then)
}

fn shaped<T: DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    serde_json::from_value(value.clone())
        .map_err(|error| Failure::failed(format!("the control plane answered in another shape: {error}")))
}

pub(super) async fn diff(context: &Context, a: &str, b: &str) -> Result<Exit, Failure> {
    let (a, b) = (context.moment(a)?, context.moment(b)?);
    let session = context.session().await?;
    let path = format!(
        "{}?a={}&b={}",
        route::AUDIT_DIFF,
        route::encode(&a),
        route::encode(&b)
    );
    let diff: DiffDoc = context.sort(session.get_slow(&path).await)?;
    let names = || diff.changes.iter().map(|change| change.path.clone()).collect();
    context
        .terminal
        .show(&diff, |look| screen::diff(&diff, look), names)?;
    Ok(Exit::Done)
}

pub(super) async fn verify(context: &Context) -> Result<Exit, Failure> {
    let session = context.session().await?;
    let report: VerifyReport = context.sort(session.get_slow(route::AUDIT_VERIFY).await)?;
    verified(&context.terminal, &report)
}

/// The names by which people know the nodes. Without them the log can still be read, by ids.
async fn names(session: &Session) -> Names {
    let nodes: Vec<NodeDoc> = session.get(route::NODES).await.unwrap_or_default();
    nodes
        .into_iter()
        .map(|node| (node.metadata.name, node.spec.hostname))
        .collect()
}

/// A page of the log.
async fn page(
    context: &Context,
    session: &Session,
    after: u64,
    limit: usize,
) -> Result<Vec<EventRecord>, Failure> {
    let path = format!("{}?after={after}&limit={limit}", route::EVENTS);
    context.sort(session.get(&path).await)
}

/// The filter of `ls` and `follow`, made ready.
async fn filter(context: &Context, session: &Session, args: &AuditFilter) -> Result<filter::Wanted, Failure> {
    let names = names(session).await;
    let node = match &args.node {
        Some(wanted) => Some(node(context, session, wanted, &names).await?),
        None => None,
    };
    filter::Wanted::new(context, args, names, node)
}

/// The node that is asked for. One that is not there any more may have been: the log is read for it.
async fn node(
    context: &Context,
    session: &Session,
    wanted: &str,
    names: &Names,
) -> Result<filter::Node, Failure> {
    if let Some(node) = filter::Node::find(wanted, names) {
        return Ok(node);
    }
    let mut after = 0;
    let mut joined = Vec::new();
    loop {
        let found = page(context, session, after, list::PAGE).await?;
        let Some(last) = found.last() else { break };
        after = last.position.0;
        for record in &found {
            let event = record::decode(record)?;
            if matches!(event.fact, Fact::NodeJoined(_) | Fact::NodeRejoined(_)) {
                joined.push(event);
            }
        }
    }
    filter::Node::joined(wanted, &joined)
        .ok_or_else(|| Failure::usage(format!("no node {wanted:?} is there or has ever joined")))
}
