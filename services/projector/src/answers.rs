//! Answers from the views: each waits until they hold the position that the asker names.

use std::{future::Future, sync::Arc, time::Duration};

use api::{
    At, Queries, QueryError,
    queries::Answering,
    shape::{AuthorityDoc, CertificateDoc, ConsumerDoc, NodeDoc, RotationDoc, Status, TokenDoc, UserDoc},
};
use domain::{ClusterState, Position};
use execution::{Fold, Now};
use futures::FutureExt;
use runtime::metrics::Metrics;
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};
use views::{ViewError, ViewStore};

use crate::{audit, documents::key, service::Reach, shape};

/// How long an answer may wait for the views.
const WAIT: Duration = Duration::from_secs(5);

/// The projector's side of [`Queries`]. Cheap to clone.
#[derive(Clone)]
pub struct Answers {
    store: ViewStore,
    reach: watch::Receiver<Reach>,
    doubt: Arc<Notify>,
    wanted: watch::Sender<Position>,
    fold: Fold,
    now: Now,
    metrics: Metrics,
}

impl Answers {
    pub(crate) fn new(
        store: ViewStore,
        reach: watch::Receiver<Reach>,
        doubt: Arc<Notify>,
        wanted: watch::Sender<Position>,
        fold: Fold,
        now: Now,
        metrics: Metrics,
    ) -> Self {
        Self {
            store,
            reach,
            doubt,
            wanted,
            fold,
            now,
            metrics,
        }
    }

    /// A document of the views, or of the state as it was.
    async fn ask<T: DeserializeOwned + Send + 'static>(
        &self,
        at: At,
        at_least: Position,
        view: &'static str,
        newest: impl FnOnce(&ViewStore) -> Result<T, ViewError> + Send + 'static,
        then: impl FnOnce(&ClusterState) -> T + Send,
    ) -> Result<T, QueryError> {
        let answer = async {
            match at {
                At::Newest => self.newest(at_least, newest).await,
                At::Position(_) | At::Time(_) => {
                    let state = audit::replay(&**self.fold.log(), at).await?;
                    Ok(then(&state))
                }
            }
        };
        self.timed(view, answer).await
    }

    async fn newest<T: Send + 'static>(
        &self,
        at_least: Position,
        read: impl FnOnce(&ViewStore) -> Result<T, ViewError> + Send + 'static,
    ) -> Result<T, QueryError> {
        let mut reach = self.reach.clone();
        if reach.borrow().position < at_least {
            // Not further than the state: a position that nobody has written keeps nobody busy.
            let asked = at_least.min(self.fold.position());
            self.wanted.send_if_modified(|wanted| {
                let is_further = asked > *wanted;
                *wanted = asked.max(*wanted);
                is_further
            });
        }
        let waited = timeout(WAIT, reach.wait_for(|reach| reach.position >= at_least)).await;
        let epoch = match waited.map(|found| found.map(|reach| reach.epoch)) {
            Ok(Ok(epoch)) => epoch,
            Ok(Err(_)) => {
                let text = "the views have stopped; see the log of the process";
                return Err(QueryError::Unavailable(text.into()));
            }
            Err(_) => {
                let at = self.reach.borrow().position;
                let text = format!("the views are at position {at}, the log at {at_least}; try again");
                return Err(QueryError::Lagging(text));
            }
        };
        let store = self.store.clone();
        let read = tokio::task::spawn_blocking(move || read(&store)).await;
        let read = read.map_err(|panicked| QueryError::Unavailable(panicked.to_string()))?;
        let anew = || QueryError::Lagging("the views are made anew from the log; try again".into());
        if self.reach.borrow().epoch != epoch {
            return Err(anew());
        }
        read.map_err(|error| {
            if matches!(error, ViewError::Away(_)) {
                return anew();
            }
            // Views that cannot be read are made anew; who asks again gets the answer.
            tracing::error!(%error, "a view cannot be read");
            self.doubt.notify_one();
            anew()
        })
    }

    async fn timed<T>(
        &self,
        view: &'static str,
        answer: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, QueryError> {
        let began = Instant::now();
        let answer = answer.await;
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(QueryError::Lagging(_)) => "lagging",
            Err(QueryError::NotFound(_)) => "not_found",
            Err(QueryError::Unavailable(_)) => "unavailable",
        };
        self.metrics
            .histogram("carousel_query_seconds", &[view, outcome])
            .observe(began.elapsed().as_secs_f64());
        answer
    }
}

impl Queries for Answers {
    fn status(&self, at: At, at_least: Position) -> Answering<'_, Status> {
        let newest =
            |store: &ViewStore| Ok(store.get(key::STATUS)?.unwrap_or_else(|| shape::status(&none())));
        self.ask(at, at_least, "status", newest, shape::status).boxed()
    }

    fn nodes(&self, at: At, at_least: Position) -> Answering<'_, Vec<NodeDoc>> {
        let newest = |store: &ViewStore| {
            let mut docs: Vec<NodeDoc> = store.scan(key::NODES)?;
            docs.sort_by(|a, b| {
                (&a.spec.hostname, a.metadata.name).cmp(&(&b.spec.hostname, b.metadata.name))
            });
            Ok(docs)
        };
        self.ask(at, at_least, "nodes", newest, shape::nodes).boxed()
    }

    fn authorities(&self, at: At, at_least: Position) -> Answering<'_, Vec<AuthorityDoc>> {
        let newest = |store: &ViewStore| {
            Ok(store
                .get(key::AUTHORITIES)?
                .unwrap_or_else(|| shape::authorities(&none())))
        };
        self.ask(at, at_least, "authorities", newest, shape::authorities)
            .boxed()
    }

    fn rotations(&self, at_least: Position) -> Answering<'_, Vec<RotationDoc>> {
        let newest = |store: &ViewStore| {
            let mut docs: Vec<RotationDoc> = store.scan(key::ROTATIONS)?;
            docs.sort_by_key(|doc| std::cmp::Reverse(doc.phases.first().map(|phase| phase.position)));
            Ok(docs)
        };
        self.timed("rotations", self.newest(at_least, newest)).boxed()
    }

    fn tokens(&self, at_least: Position) -> Answering<'_, Vec<TokenDoc>> {
        let now = (self.now)();
        let newest = move |store: &ViewStore| {
            let mut docs: Vec<TokenDoc> = store.get(key::TOKENS)?.unwrap_or_default();
            // A token ends without an event.
            docs.iter_mut().for_each(|doc| doc.expired = doc.expires <= now);
            Ok(docs)
        };
        self.timed("tokens", self.newest(at_least, newest)).boxed()
    }

    fn certificates(&self, at: At, at_least: Position) -> Answering<'_, Vec<CertificateDoc>> {
        let newest = |store: &ViewStore| {
            let mut docs: Vec<CertificateDoc> = store.scan(key::CERTIFICATES)?;
            docs.sort_by_key(|doc| std::cmp::Reverse(doc.position));
            Ok(docs)
        };
        self.ask(at, at_least, "certificates", newest, shape::certificates)
            .boxed()
    }

    fn users(&self, at_least: Position) -> Answering<'_, Vec<UserDoc>> {
        let newest = |store: &ViewStore| Ok(store.get(key::USERS)?.unwrap_or_default());
        self.timed("users", self.newest(at_least, newest)).boxed()
    }

    fn consumers(&self, at_least: Position) -> Answering<'_, Vec<ConsumerDoc>> {
        let newest = |store: &ViewStore| Ok(store.get(key::CONSUMERS)?.unwrap_or_default());
        self.timed("consumers", self.newest(at_least, newest)).boxed()
    }
}

/// The state before the first event.
fn none() -> ClusterState {
    ClusterState::default()
}
