//! The same questions as documents, for where the projector is another process.

use std::sync::Arc;

use domain::Position;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Answering, At, Audit, Queries, QueryError};
use crate::{
    audit::{AuditView, DiffDoc, EventAudit, VerifyReport},
    shape::{AuthorityDoc, CertificateDoc, ConsumerDoc, NodeDoc, RotationDoc, Status, TokenDoc, UserDoc},
};

/// A question as it travels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "kebab-case")]
#[allow(
    missing_docs,
    reason = "the variants are the functions of `Queries` and `Audit`, and say nothing new"
)]
pub enum Query {
    Status { at: At, at_least: Position },
    Nodes { at: At, at_least: Position },
    Authorities { at: At, at_least: Position },
    Rotations { at_least: Position },
    Tokens { at_least: Position },
    Certificates { at: At, at_least: Position },
    Users { at_least: Position },
    Consumers { at_least: Position },
    Replay { at: At, view: AuditView },
    Diff { before: At, after: At },
    Event { position: Position },
    Verify,
}

impl Query {
    /// Reads the log again, which takes as long as the log is.
    pub fn reads_the_log(&self) -> bool {
        match self {
            Self::Replay { .. } | Self::Diff { .. } | Self::Event { .. } | Self::Verify => true,
            Self::Status { at, .. }
            | Self::Nodes { at, .. }
            | Self::Authorities { at, .. }
            | Self::Certificates { at, .. } => *at != At::Newest,
            Self::Rotations { .. } | Self::Tokens { .. } | Self::Users { .. } | Self::Consumers { .. } => {
                false
            }
        }
    }

    /// The answer as it travels: the document, or why there is none.
    pub async fn answer(&self, queries: &dyn Queries, audit: &dyn Audit) -> Vec<u8> {
        match *self {
            Self::Status { at, at_least } => packed(queries.status(at, at_least).await),
            Self::Nodes { at, at_least } => packed(queries.nodes(at, at_least).await),
            Self::Authorities { at, at_least } => packed(queries.authorities(at, at_least).await),
            Self::Rotations { at_least } => packed(queries.rotations(at_least).await),
            Self::Tokens { at_least } => packed(queries.tokens(at_least).await),
            Self::Certificates { at, at_least } => packed(queries.certificates(at, at_least).await),
            Self::Users { at_least } => packed(queries.users(at_least).await),
            Self::Consumers { at_least } => packed(queries.consumers(at_least).await),
            Self::Replay { at, view } => packed(audit.replay(at, view).await),
            Self::Diff { before, after } => packed(audit.diff(before, after).await),
            Self::Event { position } => packed(audit.event(position).await),
            Self::Verify => packed(audit.verify().await),
        }
    }
}

fn packed<T: Serialize>(answer: Result<T, QueryError>) -> Vec<u8> {
    serde_json::to_vec(&answer).expect("documents have string keys only")
}

/// Carries a question away and brings the answer of [`Query::answer`], or says why none came.
pub type Carry = Arc<dyn Fn(Query) -> BoxFuture<'static, Result<Vec<u8>, QueryError>> + Send + Sync>;

/// Asks elsewhere.
#[derive(Clone)]
pub struct Asked(Carry);

impl Asked {
    /// Asks by this.
    pub fn by(carry: Carry) -> Self {
        Self(carry)
    }

    fn ask<T: DeserializeOwned + Send + 'static>(&self, query: Query) -> Answering<'static, T> {
        let answer = (self.0)(query);
        Box::pin(async move {
            let answer = answer.await?;
            serde_json::from_slice::<Result<T, QueryError>>(&answer).unwrap_or_else(|error| {
                let what = domain::plain(error);
                Err(QueryError::Unavailable(format!(
                    "the projector's answer cannot be read ({what}); are both of one version?"
                )))
            })
        })
    }
}

impl Queries for Asked {
    fn status(&self, at: At, at_least: Position) -> Answering<'_, Status> {
        self.ask(Query::Status { at, at_least })
    }
    fn nodes(&self, at: At, at_least: Position) -> Answering<'_, Vec<NodeDoc>> {
        self.ask(Query::Nodes { at, at_least })
    }
    fn authorities(&self, at: At, at_least: Position) -> Answering<'_, Vec<AuthorityDoc>> {
        self.ask(Query::Authorities { at, at_least })
    }
    fn rotations(&self, at_least: Position) -> Answering<'_, Vec<RotationDoc>> {
        self.ask(Query::Rotations { at_least })
    }
    fn tokens(&self, at_least: Position) -> Answering<'_, Vec<TokenDoc>> {
        self.ask(Query::Tokens { at_least })
    }
    fn certificates(&self, at: At, at_least: Position) -> Answering<'_, Vec<CertificateDoc>> {
        self.ask(Query::Certificates { at, at_least })
    }
    fn users(&self, at_least: Position) -> Answering<'_, Vec<UserDoc>> {
        self.ask(Query::Users { at_least })
    }
    fn consumers(&self, at_least: Position) -> Answering<'_, Vec<ConsumerDoc>> {
        self.ask(Query::Consumers { at_least })
    }
}

impl Audit for Asked {
    fn replay(&self, at: At, view: AuditView) -> Answering<'_, serde_json::Value> {
        self.ask(Query::Replay { at, view })
    }
    fn diff(&self, before: At, after: At) -> Answering<'_, DiffDoc> {
        self.ask(Query::Diff { before, after })
    }
    fn event(&self, position: Position) -> Answering<'_, EventAudit> {
        self.ask(Query::Event { position })
    }
    fn verify(&self) -> Answering<'_, VerifyReport> {
        self.ask(Query::Verify)
    }
}
