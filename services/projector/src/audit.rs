//! The audit: what the log says by itself. It reads the log from its beginning and believes nothing else.
//!
//! All of it works on a live log and on a copy of its file alike.

use std::path::PathBuf;

use api::{
    At, Audit, QueryError,
    audit::{AuditView, DiffDoc, EventAudit, VerifyReport},
    queries::Answering,
};
use domain::{ClusterState, Position};
use eventlog::SharedLog;
use futures::FutureExt;
use serde_json::Value;

use crate::shape;

pub use diff::diff;
pub use replay::{ReplayError, replay};
pub use verify::verify;

mod diff;
mod replay;
mod verify;

/// The audit of one log.
#[derive(Clone)]
pub struct LogAudit {
    log: SharedLog,
    checkpoints: Option<PathBuf>,
}

impl LogAudit {
    /// An audit of this log, held against the signer's file of checkpoints where it is at hand.
    pub fn new(log: SharedLog, checkpoints: Option<PathBuf>) -> Self {
        Self { log, checkpoints }
    }
}

impl Audit for LogAudit {
    fn replay(&self, at: At, view: AuditView) -> Answering<'_, Value> {
        async move { Ok(view_of(&replay(&*self.log, at).await?, view)) }.boxed()
    }

    fn diff(&self, before: At, after: At) -> Answering<'_, DiffDoc> {
        async move {
            let (before, after) = (
                replay(&*self.log, before).await?,
                replay(&*self.log, after).await?,
            );
            Ok(diff(&before, &after))
        }
        .boxed()
    }

    fn event(&self, position: Position) -> Answering<'_, EventAudit> {
        async move {
            verify::event(&*self.log, position)
                .await
                .map_err(QueryError::from)
        }
        .boxed()
    }

    fn verify(&self) -> Answering<'_, VerifyReport> {
        async move {
            verify(&*self.log, self.checkpoints.as_deref())
                .await
                .map_err(QueryError::from)
        }
        .boxed()
    }
}

/// A view of a state, in the shape of the live answer.
pub fn view_of(state: &ClusterState, view: AuditView) -> Value {
    let value = match view {
        AuditView::Status => serde_json::to_value(shape::status(state)),
        AuditView::Nodes => serde_json::to_value(shape::nodes(state)),
        AuditView::Authorities => serde_json::to_value(shape::authorities(state)),
        AuditView::Certificates => serde_json::to_value(shape::certificates(state)),
    };
    value.expect("shapes have string keys")
}
