//! Appending to the stream, and what the server's answers mean.

use std::error::Error;

use async_nats::{
    HeaderMap, Request, header,
    jetstream::{
        self, ErrorCode,
        context::{PublishError, PublishErrorKind},
        message::PublishMessage,
        response::Response,
    },
};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use serde::Deserialize;

use super::{ANSWER, Inner, with_sources};
use crate::{
    Append, AppendError, MAX_APPEND_BYTES, MAX_EVENT_BYTES, MAX_EVENTS, NewEvent, Outcome, ReadError, Subject,
};

/// From this many independent appends on they travel in one atomic batch: one sync of the disk instead of one
/// for each, which on a server that syncs always is six times as fast. Below, a batch costs more than it saves.
const BATCH_FROM: usize = 16;

/// Independent single appends in flight together.
const PIPELINE: usize = 256;

/// What the server answers to the last message of a batch.
#[derive(Debug, Deserialize)]
struct BatchAck {
    seq: u64,
    #[serde(default)]
    count: u64,
}

impl Inner {
    /// One append, by a single publish or an atomic batch.
    pub(super) async fn append(&self, append: Append) -> Result<Outcome, AppendError> {
        self.admit(&append)?;
        self.guard.check(&self.client, &self.stream).await?;
        match append.events.as_slice() {
            [event] => self.publish(event, append.expected).await,
            _ => {
                self.publish_batch(&append.subject, std::slice::from_ref(&append))
                    .await
            }
        }
    }

    /// Independent appends: together while they all succeed, one by one as soon as one of them does not.
    pub(super) async fn append_all(&self, appends: Vec<Append>) -> Vec<Result<Outcome, AppendError>> {
        if let Some(outcomes) = self.append_together(&appends).await {
            return outcomes;
        }
        // Appends that share a subject go one after the other, those that do not go at once.
        let mut outcomes: Vec<_> = appends.iter().map(|_| None).collect();
        let mut waiting: Vec<Numbered> = appends.into_iter().enumerate().collect();
        while !waiting.is_empty() {
            let (wave, rest) = first_of_each_subject(waiting);
            waiting = rest;
            let answers = stream::iter(wave)
                .map(|(index, append)| async move { (index, self.append(append).await) })
                .buffered(PIPELINE);
            for (index, outcome) in answers.collect::<Vec<_>>().await {
                outcomes[index] = Some(outcome);
            }
        }
        outcomes
            .into_iter()
            .map(|outcome| outcome.expect("each append was in one wave"))
            .collect()
    }

    /// The fast way: all in one batch. `None` means that nothing was stored and the slow way has to find out why.
    async fn append_together(&self, appends: &[Append]) -> Option<Vec<Result<Outcome, AppendError>>> {
        let events: usize = appends.iter().map(|append| append.events.len()).sum();
        let bytes: usize = appends
            .iter()
            .flat_map(|append| &append.events)
            .map(|event| event.data.len())
            .sum();
        let fits = events <= MAX_EVENTS && bytes <= MAX_APPEND_BYTES;
        if appends.len() < BATCH_FROM || !fits || !subjects_are_apart(appends) {
            return None;
        }
        if appends.iter().any(|append| self.admit(append).is_err()) {
            return None;
        }
        self.guard.check(&self.client, &self.stream).await.ok()?;
        match self.publish_batch(&appends[0].subject, appends).await {
            Ok(Outcome::Stored { mut first, .. }) => {
                let places = appends.iter().map(|append| {
                    let last = first + append.events.len() as u64 - 1;
                    let outcome = Outcome::Stored { first, last };
                    first = last + 1;
                    Ok(outcome)
                });
                Some(places.collect())
            }
            Ok(Outcome::Unknown(why)) => Some(vec![Ok(Outcome::Unknown(why)); appends.len()]),
            Ok(Outcome::Conflict { .. }) | Err(_) => None,
        }
    }

    /// What can be refused before anything is sent.
    fn admit(&self, append: &Append) -> Result<(), AppendError> {
        self.open().map_err(|_| AppendError::Closed)?;
        append.check()?;
        if let Some(foreign) = append
            .events
            .iter()
            .find(|event| !event.subject.as_str().starts_with(&self.prefix))
        {
            let detail = format!(
                "{} is not below {}, where this log keeps its events",
                foreign.subject, self.prefix
            );
            return Err(AppendError::Invalid { detail });
        }
        self.connected()
            .map_err(|detail| AppendError::Unreachable { detail })
    }

    async fn publish(&self, event: &NewEvent, expected: Option<u64>) -> Result<Outcome, AppendError> {
        let mut message = PublishMessage::build()
            .payload(event.data.clone())
            .expected_stream(&self.stream_name);
        message = match expected {
            Some(position) => message.expected_last_subject_sequence(position),
            // Without a condition only the id keeps a repeated message from being stored twice. With one it is
            // left out: replicated and single streams answer a repeated conditional message differently.
            None => message.message_id(event.id.to_string()),
        };
        let sent = self
            .context
            .send_publish(event.subject.to_string(), message)
            .await;
        let answer = match sent {
            Ok(answer) => answer.await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(ack) => Ok(Outcome::Stored {
                first: ack.sequence,
                last: ack.sequence,
            }),
            Err(error) => match answer_of(&error) {
                Some(answer) => self.explain(&answer, &event.subject, expected).await,
                None => unanswered(&error, event),
            },
        }
    }

    /// All events of all these appends as one atomic batch (ADR-50), with each append's own condition.
    ///
    /// The first message is a request, so that a server that takes no batch says so at once; the last one commits.
    /// A crash or a lost connection before it leaves nothing: the server forgets an open batch after ten seconds.
    async fn publish_batch(&self, subject: &Subject, appends: &[Append]) -> Result<Outcome, AppendError> {
        let expected = appends.first().and_then(|append| append.expected);
        let mut messages = batch(appends).into_iter().peekable();
        let mut first = true;
        while let Some((event, headers)) = messages.next() {
            let to = event.subject.to_string();
            if messages.peek().is_none() {
                let request = Request::new()
                    .headers(headers)
                    .payload(event.data.clone())
                    .timeout(Some(ANSWER));
                // From here on the answer may be lost although the batch is stored.
                return match self.client.send_request(to, request).await {
                    Ok(answer) => {
                        self.committed(&answer.payload, subject, expected, count(appends))
                            .await
                    }
                    Err(error) => Ok(Outcome::Unknown(with_sources(&error))),
                };
            }
            if first {
                first = false;
                let request = Request::new()
                    .headers(headers)
                    .payload(event.data.clone())
                    .timeout(Some(ANSWER));
                let answer = self.client.send_request(to, request).await.map_err(not_sent)?;
                if let Some(error) = refusal(&answer.payload) {
                    return self.explain(&error, subject, expected).await;
                }
            } else {
                self.client
                    .publish_with_headers(to, headers, event.data.clone())
                    .await
                    .map_err(not_sent)?;
            }
        }
        Err(AppendError::Invalid {
            detail: "a batch needs at least one event".into(),
        })
    }

    async fn committed(
        &self,
        payload: &[u8],
        subject: &Subject,
        expected: Option<u64>,
        count: u64,
    ) -> Result<Outcome, AppendError> {
        match serde_json::from_slice::<Response<BatchAck>>(payload) {
            Ok(Response::Ok(ack)) if ack.count == count => Ok(Outcome::Stored {
                first: ack.seq + 1 - count,
                last: ack.seq,
            }),
            Ok(Response::Ok(ack)) => Ok(Outcome::Unknown(format!(
                "the server committed {} of {count}",
                ack.count
            ))),
            Ok(Response::Err { error }) => self.explain(&error, subject, expected).await,
            Err(error) => Ok(Outcome::Unknown(format!("an answer that is none: {error}"))),
        }
    }

    /// What a server's refusal means. Only the error code counts: the client's own kinds lump them together.
    async fn explain(
        &self,
        answer: &jetstream::Error,
        subject: &Subject,
        expected: Option<u64>,
    ) -> Result<Outcome, AppendError> {
        let detail = answer.to_string();
        match answer.error_code() {
            // 10164 is also said while another write on this subject is in flight: the tail tells them apart.
            ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
                match (self.tail(subject).await, expected) {
                    (Ok(tail), expected) => {
                        let tail = tail.map_or(0, |record| record.position);
                        if expected == Some(tail) {
                            Err(AppendError::Busy { detail })
                        } else {
                            Ok(Outcome::Conflict { tail })
                        }
                    }
                    (Err(ReadError::Closed), _) => Err(AppendError::Closed),
                    (Err(error), _) => Err(AppendError::Unreachable {
                        detail: error.to_string(),
                    }),
                }
            }
            ErrorCode::STREAM_EXPECTED_LAST_SEQ_PER_SUBJECT_NOT_READY
            | ErrorCode::STREAM_TOO_MANY_REQUESTS
            | ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH
            | ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT => Err(AppendError::Busy { detail }),
            ErrorCode::INSUFFICIENT_RESOURCES
            | ErrorCode::STORAGE_RESOURCES_EXCEEDED
            | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED => Err(AppendError::Full { detail }),
            // One code for every failure to store; only its text tells a limit from a disk that fails.
            ErrorCode::STREAM_STORE_FAILED
                if ["maximum", "space", "resource"]
                    .iter()
                    .any(|word| detail.contains(word)) =>
            {
                Err(AppendError::Full { detail })
            }
            ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
                let limit = MAX_EVENT_BYTES;
                Err(AppendError::TooLarge {
                    subject: subject.clone(),
                    bytes: limit,
                    limit,
                })
            }
            ErrorCode::STREAM_SEALED | ErrorCode::ATOMIC_PUBLISH_DISABLED | ErrorCode::STREAM_NOT_MATCH => {
                Err(AppendError::ProtectionsChanged { detail })
            }
            // Among them: our own earlier message is still in process (10158), or is already in the log (10201).
            _ => Ok(Outcome::Unknown(detail)),
        }
    }
}

/// The messages of a batch. A condition stands on the first event of each append, nowhere else.
fn batch(appends: &[Append]) -> Vec<(&NewEvent, HeaderMap)> {
    let total = appends.iter().map(|append| append.events.len()).sum::<usize>();
    let batch_id = format!(
        "{}{:016x}",
        appends[0].events[0].id.simple(),
        rand::random::<u64>()
    );
    let mut messages = Vec::with_capacity(total);
    for append in appends {
        for (index, event) in append.events.iter().enumerate() {
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_BATCH_ID, batch_id.as_str());
            headers.insert(header::NATS_BATCH_SEQUENCE, (messages.len() + 1).to_string());
            match append.expected {
                Some(position) if index == 0 => {
                    headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, position.to_string());
                }
                Some(_) => {}
                None => headers.insert(header::NATS_MESSAGE_ID, event.id.to_string()),
            }
            if messages.len() + 1 == total {
                headers.insert(header::NATS_BATCH_COMMIT, header::NATS_BATCH_COMMIT_FINAL);
            }
            messages.push((event, headers));
        }
    }
    messages
}

fn count(appends: &[Append]) -> u64 {
    appends.iter().map(|append| append.events.len() as u64).sum()
}

/// An append and its place among those it came with.
type Numbered = (usize, Append);

/// Splits off, in order, those that are the first on each of their subjects.
fn first_of_each_subject(waiting: Vec<Numbered>) -> (Vec<Numbered>, Vec<Numbered>) {
    let mut seen = std::collections::HashSet::new();
    waiting.into_iter().partition(|(_, append)| {
        // All subjects are noted, also those of an append that has to wait: nobody overtakes it.
        let fresh: Vec<bool> = append
            .events
            .iter()
            .map(|event| seen.insert(event.subject.clone()))
            .collect();
        let own: std::collections::HashSet<_> = append.events.iter().map(|event| &event.subject).collect();
        fresh.iter().filter(|fresh| **fresh).count() == own.len()
    })
}

fn subjects_are_apart(appends: &[Append]) -> bool {
    let waiting = appends.iter().map(|append| (0, append.clone())).collect();
    first_of_each_subject(waiting).1.is_empty()
}

/// The server's own answer inside the client's error.
fn answer_of(error: &PublishError) -> Option<jetstream::Error> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(answer) = error.downcast_ref::<jetstream::Error>() {
            return Some(answer.clone());
        }
        source = error.source();
    }
    None
}

/// No answer from the server: what the client knows decides whether the message can have arrived.
fn unanswered(error: &PublishError, event: &NewEvent) -> Result<Outcome, AppendError> {
    match error.kind() {
        PublishErrorKind::StreamNotFound => {
            let detail = "no stream takes its subject; it is gone, or has no leader at this moment".into();
            Err(AppendError::Unreachable { detail })
        }
        PublishErrorKind::MaxAckPending => Err(AppendError::Busy {
            detail: error.to_string(),
        }),
        PublishErrorKind::MaxPayloadExceeded => Err(AppendError::TooLarge {
            subject: event.subject.clone(),
            bytes: event.data.len(),
            limit: MAX_EVENT_BYTES,
        }),
        _ => Ok(Outcome::Unknown(with_sources(error))),
    }
}

/// An error before the commit was sent: the batch is not stored.
fn not_sent(error: impl Error) -> AppendError {
    AppendError::Unreachable {
        detail: with_sources(&error),
    }
}

/// The refusal in an answer to a message inside a batch; an empty answer is a good one.
fn refusal(payload: &Bytes) -> Option<jetstream::Error> {
    if payload.is_empty() {
        return None;
    }
    match serde_json::from_slice::<Response<serde_json::Value>>(payload) {
        Ok(Response::Err { error }) => Some(error),
        Ok(Response::Ok(_)) | Err(_) => None,
    }
}
