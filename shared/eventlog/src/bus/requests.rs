//! Requests and their answers over NATS, by its protocol for services: whoever answers is found, asked for its version and
//! counted by tools of others (`nats micro ls`).
//!
//! A question that gets no answer may have been heard all the same: [`AskError::Unknown`] says so, and whoever asks repeats
//! it under the same id.

use std::{collections::HashMap, time::Duration};

use async_nats::{
    Client, HeaderMap, RequestErrorKind,
    service::{self, NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, Service, ServiceExt, endpoint::Endpoint},
};
use futures::StreamExt;

use super::{BusOptions, ConnectError, connect};

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
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, line(value).as_str());
        }
        let request = async_nats::Request::new()
            .payload(body.into())
            .headers(map)
            .timeout(Some(patience));
        let message = match self.client.send_request(subject.to_owned(), request).await {
            Ok(message) => message,
            Err(error) if error.kind() == RequestErrorKind::NoResponders => {
                let subject = subject.to_owned();
                return Err(AskError::Nobody { subject });
            }
            Err(error) => {
                return Err(AskError::Unknown {
                    subject: subject.to_owned(),
                    detail: error.to_string(),
                });
            }
        };
        let header = |name: &str| Some(message.headers.as_ref()?.get(name)?.as_str().to_owned());
        let code = header(NATS_SERVICE_ERROR_CODE).and_then(|code| code.parse().ok());
        Ok(Answer {
            no: code.map(|code| (code, header(NATS_SERVICE_ERROR).unwrap_or_default())),
            body: message.payload.to_vec(),
        })
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
    /// The next question; none once the connection is closed.
    pub async fn next(&mut self) -> Option<Question> {
        self.endpoint.next().await.map(Question)
    }

    /// Takes no more questions. Those that were taken can still be answered.
    pub async fn close(self) {
        // What fails here is a connection that is closed already.
        let _ = self.service.stop().await;
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

    /// Answers it. An answer that cannot be sent is lost: whoever asked asks again.
    pub async fn answer(self, answer: Answer) {
        let mut headers = HeaderMap::new();
        if let Some((code, text)) = &answer.no {
            headers.insert(NATS_SERVICE_ERROR_CODE, code.to_string().as_str());
            headers.insert(NATS_SERVICE_ERROR, line(text).as_str());
        }
        if let Err(error) = self.0.respond_with_headers(Ok(answer.body.into()), headers).await {
            tracing::debug!(%error, "an answer could not be sent");
        }
    }
}

/// Headers are lines: what would end one is a space.
fn line(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}
