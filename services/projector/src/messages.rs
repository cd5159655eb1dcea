//! Queries as messages: of the projectors of a cluster one answers, as it would in one process.

use std::{collections::HashMap, sync::Arc, time::Duration};

use api::{
    Audit, Queries, QueryError, message,
    queries::{Asked, Query},
};
use domain::ClusterName;
use eventlog::bus::{Answer, AskError, Bus, Desk, Offer, OfferError, Question};
use tokio_util::sync::CancellationToken;

/// How long an answer from the views may take: longer than these may be waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one from the log may take.
const READS: Duration = Duration::from_secs(600);
/// Queries that are answered at a time; more wait on the bus. Each holds its answer in memory.
const AT_A_TIME: usize = 64;

/// Begins to take queries; of several projectors each query goes to one.
///
/// # Errors
/// [`OfferError`].
pub async fn open_queries(bus: &Bus, cluster: &ClusterName) -> Result<Desk, OfferError> {
    let offer = Offer {
        name: "carousel-queries".into(),
        description: "What is known of a Carousel cluster, for its gateways".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        metadata: HashMap::from([("cluster".into(), cluster.to_string())]),
        subject: message::query_subject(cluster),
        group: "projector".into(),
    };
    bus.offer(offer).await
}

/// Answers until shutdown.
pub async fn answer_queries(
    desk: Desk,
    queries: Arc<dyn Queries>,
    audit: Arc<dyn Audit>,
    shutdown: CancellationToken,
) {
    let answer = |question: Question| {
        let (queries, audit) = (queries.clone(), audit.clone());
        async move {
            let answer = match serde_json::from_slice::<Query>(question.body()) {
                Ok(query) => Answer {
                    body: query.answer(&*queries, &*audit).await,
                    no: None,
                },
                Err(error) => Answer {
                    body: vec![],
                    no: Some((400, format!("no such query: {}", domain::plain(error)))),
                },
            };
            question.answer(answer).await;
        }
    };
    desk.serve(AT_A_TIME, shutdown.cancelled_owned(), answer).await;
}

/// Asks whichever projector of the cluster answers.
pub fn ask_projectors(bus: Bus, cluster: &ClusterName) -> Asked {
    let subject = message::query_subject(cluster);
    Asked::by(Arc::new(move |query| {
        let (bus, subject) = (bus.clone(), subject.clone());
        Box::pin(async move { ask(&bus, &subject, query).await })
    }))
}

async fn ask(bus: &Bus, subject: &str, query: Query) -> Result<Vec<u8>, QueryError> {
    let unavailable = |why: String| Err(QueryError::Unavailable(why));
    let body = serde_json::to_vec(&query).expect("a query has string keys only");
    let patience = if query.reads_the_log() { READS } else { PATIENCE };
    match bus.ask(subject, &[], body, patience).await {
        Ok(Answer { body, no: None }) => Ok(body),
        Ok(Answer {
            no: Some((_, why)), ..
        }) => unavailable(format!(
            "the projector does not answer this: {}",
            domain::plain(why)
        )),
        Err(AskError::Nobody { .. }) => unavailable("no projector answers; is one running?".into()),
        Err(AskError::Unknown { detail, .. }) => unavailable(format!("no projector answered ({detail})")),
    }
}

#[cfg(test)]
mod tests;
