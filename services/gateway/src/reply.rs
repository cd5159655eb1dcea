//! Answers: documents, problems and event streams, and the reading of bodies.

use std::{convert::Infallible, time::Duration};

use api::{MAX_BODY_BYTES, Problem, QueryError, VERSION_HEADER};
use bytes::Bytes;
use domain::{Code, Refusal};
use execution::{Behind, ExecuteError};
use futures::{Stream, StreamExt};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use serde::Serialize;

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, Infallible>;
/// An answer, or the problem that is answered instead.
pub(crate) type Reply = Result<Response<Body>, No>;

/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// "No" as a problem document. Boxed, because the way of a `yes` should not carry its weight.
#[derive(Debug)]
pub struct No(pub(crate) Box<Problem>);

impl No {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(code, detail)))
    }

    pub(crate) fn bad_request(detail: impl ToString) -> Self {
        Self::new(Code::BadRequest, detail.to_string())
    }

    /// Too often; the time after which it is not too often any more is rounded up, so that it is believed.
    pub(crate) fn limited(text: &str, wait: Duration) -> Self {
        let seconds = u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX);
        Self::new(Code::RateLimited, text).retry_after(seconds.max(1))
    }

    /// The document that says it.
    pub fn problem(&self) -> &Problem {
        &self.0
    }

    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    pub(crate) fn retry_after(self, seconds: u64) -> Self {
        Self(Box::new(self.0.retry_after(seconds)))
    }
}

impl From<Box<Problem>> for No {
    fn from(problem: Box<Problem>) -> Self {
        Self(problem)
    }
}

impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        Self(Box::new(Problem::of_refusal(&refusal)))
    }
}

impl From<ExecuteError> for No {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Refused(refusal) => refusal.into(),
            ExecuteError::Unavailable(why) => Self::new(Code::LogUnavailable, why).retry_after(1),
        }
    }
}

impl From<Behind> for No {
    fn from(behind: Behind) -> Self {
        let code = if is_unknown(&behind) {
            Code::LogUnavailable
        } else {
            Code::ViewsLagging
        };
        Self::new(code, in_words(&behind)).retry_after(1)
    }
}

/// What keeps the state from the log's end, for people.
pub(crate) fn in_words(behind: &Behind) -> String {
    if is_unknown(behind) {
        return format!(
            "the event log does not say where it ends (the last position known here is {}); nothing was done: repeat this when the log is back",
            behind.at
        );
    }
    behind.to_string()
}

/// Nobody knows how far: the log itself did not answer.
fn is_unknown(behind: &Behind) -> bool {
    behind.wanted.0 == u64::MAX
}

impl From<QueryError> for No {
    fn from(error: QueryError) -> Self {
        let code = match &error {
            QueryError::Lagging(_) => Code::ViewsLagging,
            QueryError::NotFound(_) => Code::NotFound,
            QueryError::Unavailable(_) => Code::LogUnavailable,
        };
        let no = Self::new(code, error.to_string());
        match error {
            // Both pass by themselves; what is not there stays away.
            QueryError::Lagging(_) | QueryError::Unavailable(_) => no.retry_after(1),
            QueryError::NotFound(_) => no,
        }
    }
}

/// A document.
pub(crate) fn json<T: Serialize>(document: &T) -> Reply {
    let bytes = serde_json::to_vec(document).map_err(|e| No::new(Code::Internal, e.to_string()))?;
    Ok(respond(StatusCode::OK, "application/json", Bytes::from(bytes)))
}

/// A public document that caches may keep for so many seconds.
pub(crate) fn cached<T: Serialize>(document: &T, max_age_s: u64) -> Reply {
    let mut response = json(document)?;
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, cache_for(max_age_s)?);
    Ok(response)
}

/// The same of another kind than JSON.
pub(crate) fn document(media_type: &'static str, bytes: Vec<u8>, max_age_s: u64) -> Reply {
    let mut response = respond(StatusCode::OK, media_type, bytes.into());
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, cache_for(max_age_s)?);
    Ok(response)
}

fn cache_for(max_age_s: u64) -> Result<HeaderValue, No> {
    let value = HeaderValue::try_from(format!("public, max-age={max_age_s}"));
    value.map_err(|e| No::new(Code::Internal, e.to_string()))
}

/// Done, and nothing to say.
pub(crate) fn done() -> Reply {
    let mut response = respond(StatusCode::NO_CONTENT, "application/json", Bytes::new());
    response.headers_mut().remove(header::CONTENT_TYPE);
    Ok(response)
}

/// A problem document (RFC 9457).
pub(crate) fn problem(no: &No) -> Response<Body> {
    let status = StatusCode::from_u16(no.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let bytes = serde_json::to_vec(&no.0).expect("a problem is plain data");
    let mut response = respond(status, api::problem::MEDIA_TYPE, bytes.into());
    if let Some(seconds) = no.0.retry_after_s {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// An event stream. Each item is one event as bytes, made by [`event`] or [`comment`].
pub(crate) fn stream(events: impl Stream<Item = Bytes> + Send + 'static) -> Reply {
    let body = StreamBody::new(events.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes))));
    let mut response = Response::new(body.boxed_unsync());
    dress(&mut response, "text/event-stream");
    Ok(response)
}

/// One server-sent event. Data is JSON without line breaks, or is split into lines.
pub(crate) fn event(name: &str, id: Option<u64>, data: &str) -> Bytes {
    let mut text = format!("event: {name}\n");
    if let Some(id) = id {
        text.push_str(&format!("id: {id}\n"));
    }
    for line in data.split(['\n', '\r']) {
        text.push_str("data: ");
        text.push_str(line);
        text.push('\n');
    }
    text.push('\n');
    text.into()
}

/// How long a reader waits before it dials anew when its stream is lost (WHATWG HTML, section 9.2.6). Stands before an
/// event and belongs to it.
pub(crate) fn retry(after: Duration) -> Bytes {
    format!("retry: {}\n", after.as_millis()).into()
}

/// A comment: the heartbeat.
pub(crate) fn comment() -> Bytes {
    Bytes::from_static(b": .\n\n")
}

/// Reads a body of at most 16 KiB.
pub(crate) async fn read(request: Request<Incoming>) -> Result<Bytes, No> {
    let collecting = Limited::new(request.into_body(), MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, collecting).await {
        Err(_) => Err(No::bad_request("the body did not arrive within 10 s")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(No::new(
            Code::TooLarge,
            format!("the body has more than {MAX_BODY_BYTES} bytes"),
        )),
        Ok(Err(error)) => Err(No::bad_request(format!("the body cannot be read: {error}"))),
    }
}

fn respond(status: StatusCode, media_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).boxed_unsync());
    *response.status_mut() = status;
    dress(&mut response, media_type);
    response
}

fn dress(response: &mut Response<Body>, media_type: &'static str) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        VERSION_HEADER,
        HeaderValue::from_static(env!("CARGO_PKG_VERSION")),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_with_line_breaks_stays_one_event() {
        let bytes = event("event", Some(7), "{\"a\":\n1}");
        assert_eq!(bytes, "event: event\nid: 7\ndata: {\"a\":\ndata: 1}\n\n");
    }

    #[test]
    fn what_passes_by_itself_says_when_to_ask_again() {
        let after = |error: QueryError| No::from(error).0.retry_after_s;
        assert_eq!(after(QueryError::Lagging("3 behind".into())), Some(1));
        assert_eq!(after(QueryError::Unavailable("no".into())), Some(1));
        assert_eq!(after(QueryError::NotFound("no".into())), None);
    }

    #[test]
    fn a_problem_has_its_status_its_media_type_and_says_when_to_ask_again() {
        let response = problem(&No::new(Code::NotServing, "not yet").retry_after(2));
        assert_eq!(response.status(), 503);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }
}
