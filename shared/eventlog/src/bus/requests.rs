//! Requests and their answers over NATS, by its protocol for services: whoever answers is found, asked for its version and
//! counted by tools of others (`nats micro ls`).
//!
//! A question that gets no answer may have been heard all the same: [`AskError::Unknown`] says so, and whoever asks repeats
//! it under the same id.

use std::{collections::HashMap, time::Duration};

use async_nats::{
    Client, HeaderMap, StatusCode, Subscriber,
    service::{self, NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, Service, ServiceExt, endpoint::Endpoint},
};
use bytes::Bytes;
use futures::StreamExt;
use tokio::task::JoinSet;

use super::{BusOptions, ConnectError, connect};

/// Whoever asks says by it that an answer may come in parts: others' tools take one message.
const TAKES_PARTS: &str = "Carousel-Takes-Parts";
/// Which part of how many, `2/7`; absent where there is one.
const PART: &str = "Carousel-Part";
/// What one message holds: half of what a server takes when nothing else is said.
const PART_BYTES: usize = 512 * 1024;
/// The most that an answer may have: half of what a server keeps for a slow reader.
const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// A connection on which is asked and answered. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus {
    client: Client,
}

/// What is offered to whoever asks.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The service's name: letters, digits, `-` and `_`.
    pub name: String,
    /// For people.
    pub description: String,
    /// Its version (SemVer).
    pub version: String,
    /// What else is told of it, such as the cluster.
    pub metadata: HashMap<String, String>,
    /// The subjects that it answers on.
    pub subject: String,
    /// Of several with one group each question goes to one.
    pub group: String,
}

/// Why nothing can be offered.
#[derive(Debug, thiserror::Error)]
#[error("the subject {subject} cannot be answered on: {detail}")]
pub struct OfferError {
    /// Which.
    pub subject: String,
    /// What NATS says.
    pub detail: String,
}

/// An answer: a document, or a no with its code and one line of text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// The document.
    pub body: Vec<u8>,
    /// The code and the text of a no.
    pub no: Option<(u16, String)>,
}

/// Why there is no answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AskError {
    /// It was heard by nobody: nothing was done.
    #[error("nobody answers on {subject}")]
    Nobody {
        /// Where it was sent.
        subject: String,
    },
    /// It may have been heard.
    #[error("no answer came from {subject}: {detail}")]
    Unknown {
        /// Where it was sent.
        subject: String,
        /// What is known.
        detail: String,
    },
}

impl Bus {
    /// Connects once, and fails if nobody answers.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(options: &BusOptions) -> Result<Self, ConnectError> {
        let client = connect(options).await?;
        Ok(Self { client })
    }

    /// Asks one question and waits for its answer. `headers` are pairs of a name and a value of one line.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(
        &self,
        subject: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<Answer, AskError> {
        let unknown = |detail: String| AskError::Unknown {
            subject: subject.to_owned(),
            detail,
        };
        let mut map = HeaderMap::new();
        map.insert(TAKES_PARTS, "1");
        for (name, value) in headers {
            map.insert(*name, line(value).as_str());
        }
        // A subscription of its own, because an answer may have parts.
        let inbox = self.client.new_inbox();
        let asking = async {
            let mut parts = self
                .client
                .subscribe(inbox.clone())
                .await
                .map_err(|e| unknown(e.to_string()))?;
            let sent = self.client.publish_with_reply_and_headers(
                subject.to_owned(),
                inbox.clone(),
                map,
                body.into(),
            );
            sent.await.map_err(|e| unknown(e.to_string()))?;
            gather(&mut parts, subject).await
        };
        match tokio::time::timeout(patience, asking).await {
            Ok(answered) => answered,
            Err(_) => Err(unknown(format!("none within {} s", patience.as_secs()))),
        }
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// [`OfferError`].
    pub async fn offer(&self, offer: Offer) -> Result<Desk, OfferError> {
        let subject = offer.subject.clone();
        let failed = |error: async_nats::Error| OfferError {
            subject: subject.clone(),
            detail: error.to_string(),
        };
        let builder = self.client.service_builder();
        let service = builder
            .description(&offer.description)
            .metadata(offer.metadata)
            .queue_group(&offer.group)
            .start(&offer.name, &offer.version)
            .await
            .map_err(failed)?;
        let endpoint = service.endpoint(&offer.subject).await.map_err(failed)?;
        Ok(Desk { service, endpoint })
    }
}

/// Where questions arrive.
pub struct Desk {
    service: Service,
    endpoint: Endpoint,
}

impl Desk {
    /// Answers until `stop`, so many questions at a time (more wait on the bus), and then those at hand.
    pub async fn serve<Answering: Future<Output = ()> + Send + 'static>(
        mut self,
        at_a_time: usize,
        stop: impl Future<Output = ()>,
        answer: impl Fn(Question) -> Answering,
    ) {
        tokio::pin!(stop);
        let mut answering = JoinSet::new();
        loop {
            let is_full = answering.len() >= at_a_time;
            let question = tokio::select! {
                () = &mut stop => break,
                Some(_) = answering.join_next(), if !answering.is_empty() => continue,
                question = self.endpoint.next(), if !is_full => question,
            };
            // None once the connection is closed.
            let Some(question) = question else { break };
            answering.spawn(answer(Question(question)));
        }
        // No more are taken. What fails here is a connection that is closed already.
        let _ = self.service.stop().await;
        while answering.join_next().await.is_some() {}
    }
}

/// A question that waits for its answer.
pub struct Question(service::Request);

impl Question {
    /// The subject that it was sent to.
    pub fn subject(&self) -> &str {
        self.0.message.subject.as_str()
    }

    /// What was sent.
    pub fn body(&self) -> &[u8] {
        &self.0.message.payload
    }

    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        Some(self.0.message.headers.as_ref()?.get(name)?.as_str())
    }

    /// Answers it, in parts where one message cannot hold it. An answer that cannot be sent is lost: whoever asked asks
    /// again.
    pub async fn answer(self, answer: Answer) {
        if let Err(error) = self.send(answer).await {
            tracing::debug!(%error, "an answer could not be sent");
        }
    }

    async fn send(self, answer: Answer) -> Result<(), async_nats::PublishError> {
        let takes_parts = self.header(TAKES_PARTS).is_some();
        let most = if takes_parts { MAX_ANSWER_BYTES } else { PART_BYTES };
        let Answer { body, no } = if answer.body.len() <= most {
            answer
        } else {
            let text = format!(
                "an answer of {} bytes is too large for the bus",
                answer.body.len()
            );
            Answer {
                body: vec![],
                no: Some((413, text)),
            }
        };
        let body = Bytes::from(body);
        let count = body.len().div_ceil(PART_BYTES).max(1);
        for number in 0..count {
            let mut headers = HeaderMap::new();
            if let Some((code, text)) = &no {
                headers.insert(NATS_SERVICE_ERROR_CODE, code.to_string().as_str());
                headers.insert(NATS_SERVICE_ERROR, line(text).as_str());
            }
            if count > 1 {
                headers.insert(PART, format!("{}/{count}", number + 1).as_str());
            }
            let from = number * PART_BYTES;
            let part = body.slice(from..body.len().min(from + PART_BYTES));
            self.0.respond_with_headers(Ok(part), headers).await?;
        }
        Ok(())
    }
}

/// One answer of all its parts, which arrive in order.
async fn gather(parts: &mut Subscriber, subject: &str) -> Result<Answer, AskError> {
    let unknown = |detail: &str| AskError::Unknown {
        subject: subject.to_owned(),
        detail: detail.to_owned(),
    };
    let mut body = Vec::new();
    for expected in 1.. {
        let message = parts
            .next()
            .await
            .ok_or_else(|| unknown("the connection was closed"))?;
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            let subject = subject.to_owned();
            return Err(AskError::Nobody { subject });
        }
        let header = |name: &str| Some(message.headers.as_ref()?.get(name)?.as_str().to_owned());
        let part = header(PART);
        let (number, count) = match part.as_deref().and_then(|text| text.split_once('/')) {
            Some((number, count)) => (number.parse().ok(), count.parse().ok()),
            None => (Some(1), Some(1)),
        };
        if number != Some(expected) {
            return Err(unknown("a part of the answer is missing"));
        }
        body.extend_from_slice(&message.payload);
        if count == number {
            let code = header(NATS_SERVICE_ERROR_CODE).and_then(|code| code.parse().ok());
            let no = code.map(|code| (code, header(NATS_SERVICE_ERROR).unwrap_or_default()));
            return Ok(Answer { body, no });
        }
    }
    Err(unknown("its parts never end"))
}

/// Headers are lines: what would end one is a space.
fn line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests;
