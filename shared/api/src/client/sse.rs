//! Server-sent events (WHATWG HTML, section 9.2), read as they come.

use std::{collections::VecDeque, pin::Pin, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{body::Incoming, client::conn::http1};
use serde::de::DeserializeOwned;

use super::{Client, ClientError, Sent};

/// The most that one event may weigh: a desired state with bundles whose deny lists are long.
const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;

/// What drives the bytes of a connection.
pub(super) type Connection = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerEvent {
    /// Its name; `message` if it has none.
    pub name: String,
    /// Its data, lines joined by line feeds.
    pub data: String,
    /// Its id, to go on from after a lost connection.
    pub id: Option<String>,
}

/// An open event stream; dropping it closes the connection.
pub struct EventStream {
    client: Client,
    /// Kept because hyper ends a connection whose sender is gone.
    _sender: http1::SendRequest<Sent>,
    connection: Option<Connection>,
    body: Incoming,
    idle: Duration,
    parser: EventReader,
    ready: VecDeque<ServerEvent>,
}

impl ServerEvent {
    /// The data as a document.
    ///
    /// # Errors
    /// When it is not one of that shape.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.data)
    }
}

impl EventStream {
    pub(super) fn new(
        client: Client,
        sender: http1::SendRequest<Sent>,
        connection: Connection,
        body: Incoming,
        idle: Duration,
    ) -> Self {
        Self {
            client,
            _sender: sender,
            connection: Some(connection),
            body,
            idle,
            parser: EventReader::default(),
            ready: VecDeque::new(),
        }
    }

    /// The next event; `None` when the server closed the stream in order. Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError`], also when nothing came for the idle time.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Ok(frame) = tokio::time::timeout(self.idle, self.frame()).await else {
                return Err(self
                    .client
                    .unreachable(format!("nothing came for {} s", self.idle.as_secs())));
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.client.failed(&error)),
                Some(Ok(data)) => self.parser.feed(&data, &mut self.ready),
            }
            if self.parser.is_flooded() {
                return Err(self.client.protocol("an event is too large"));
            }
        }
    }

    /// How long to wait before dialling anew when this stream is lost, if the server said so.
    pub fn retry(&self) -> Option<Duration> {
        self.parser.retry
    }

    /// The next bytes of the body, with the connection driven beside it.
    async fn frame(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        loop {
            let frame = match &mut self.connection {
                None => self.body.frame().await,
                Some(connection) => tokio::select! {
                    biased;
                    frame = self.body.frame() => frame,
                    _ = connection => {
                        // What arrived before the end is still in the body.
                        self.connection = None;
                        continue;
                    }
                },
            };
            match frame? {
                Ok(frame) => match frame.into_data() {
                    Ok(data) => return Some(Ok(data)),
                    Err(_trailers) => {}
                },
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// Splits bytes into lines and lines into events, however the bytes are cut.
#[derive(Debug, Default)]
pub struct EventReader {
    line: Vec<u8>,
    event: ServerEvent,
    has_data: bool,
    after_cr: bool,
    retry: Option<Duration>,
}

impl EventReader {
    /// Takes in what has come, and adds the events that it completes.
    pub fn feed(&mut self, bytes: &[u8], ready: &mut VecDeque<ServerEvent>) {
        for &byte in bytes {
            // A line ends with CR, LF or CRLF.
            match byte {
                b'\n' if self.after_cr => self.after_cr = false,
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    ready.extend(self.end_line(&String::from_utf8_lossy(&line)));
                }
                _ => {
                    self.after_cr = false;
                    self.line.push(byte);
                }
            }
        }
    }

    /// Is an event larger than any that is sent? Then nothing more should be taken in.
    pub fn is_flooded(&self) -> bool {
        self.line.len() + self.event.data.len() > MAX_EVENT_BYTES
    }

    fn end_line(&mut self, line: &str) -> Option<ServerEvent> {
        if line.is_empty() {
            let mut event = std::mem::take(&mut self.event);
            if event.name.is_empty() {
                event.name = "message".into();
            }
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.into(),
            "id" => self.event.id = Some(value.into()),
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
                self.has_data = true;
            }
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
            // A comment (the heartbeat), or something of a later version.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(chunks: &[&str]) -> Vec<ServerEvent> {
        let (mut parser, mut ready) = (EventReader::default(), VecDeque::new());
        for chunk in chunks {
            parser.feed(chunk.as_bytes(), &mut ready);
        }
        ready.into()
    }

    fn event(name: &str, data: &str, id: Option<&str>) -> ServerEvent {
        ServerEvent {
            name: name.into(),
            data: data.into(),
            id: id.map(Into::into),
        }
    }

    #[test]
    fn an_event_is_read_however_the_bytes_are_cut() {
        let text = ": beat\n\nevent: desired\nid: 7\ndata: {\"a\":\ndata: 1}\n\ndata:x\r\n\r\n";
        let whole = parse(&[text]);
        assert_eq!(
            whole,
            [
                event("desired", "{\"a\":\n1}", Some("7")),
                event("message", "x", None)
            ]
        );
        let single: Vec<String> = text.chars().map(String::from).collect();
        let single: Vec<&str> = single.iter().map(String::as_str).collect();
        assert_eq!(parse(&single), whole);
    }

    #[test]
    fn comments_and_other_fields_make_no_event_and_an_unfinished_one_is_not_handed_out() {
        assert_eq!(parse(&[": a\n\n", "retry: 5\n\n", "data: cut off\n"]), []);
    }

    #[test]
    fn the_server_says_how_long_to_wait_when_the_stream_is_lost() {
        let (mut parser, mut ready) = (EventReader::default(), VecDeque::new());
        parser.feed(
            b"retry: 4000\nevent: desired\ndata: 1\n\nretry: soon\n",
            &mut ready,
        );
        assert_eq!(parser.retry, Some(Duration::from_secs(4)));
        assert_eq!(ready, [event("desired", "1", None)]);
    }
}
