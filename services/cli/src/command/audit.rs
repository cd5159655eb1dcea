//! `carousel audit`: the log as people read it.

use api::{
    audit::{DiffDoc, EventRecord, VerifyReport},
    route,
    shape::{AuthorityDoc, CertificateDoc, NodeDoc, Status},
};
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
            let status_path = format!("{}?as_of={}&view=status", route::AUDIT_REPLAY, route::encode(&at));
            let then: Value = context.sort(session.get_slow(&status_path).await)?;
            let then: Status = shaped(&then)?;
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
            let docs: Vec<AuthorityDoc> = shaped(&value)?;
            let names = || docs.iter().map(|d| d.authority_type.to_string()).collect();
            context
                .terminal
                .show(&value, |look| lists::authorities(&docs, look), names)?;
        }
        "certificates" => {
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
    filter::Wanted::new(context, args, names(session).await)
}
