//! Stored events, decoded and as scripts get them.

use api::audit::EventRecord;
use domain::Event;
use eventlog::{Stored, Subject};

use crate::failure::Failure;

/// The record as the domain knows it.
pub(super) fn decode(record: &EventRecord) -> Result<Event, Failure> {
    let subject =
        Subject::parse(record.subject.as_str()).map_err(|error| Failure::failed(error.to_string()))?;
    let stored = Stored {
        position: record.position.0,
        subject,
        data: record.event.get().as_bytes().to_vec().into(),
    };
    execution::codec::decode(&stored).map_err(|error| Failure::failed(error.to_string()))
}

/// The stored event with its position as one more attribute in front; the rest is the stored bytes.
pub(super) fn with_position(record: &EventRecord) -> Box<serde_json::value::RawValue> {
    let event = record.event.get().trim_start();
    let rest = event.strip_prefix('{').unwrap_or(event);
    let comma = if rest.trim_start().starts_with('}') {
        ""
    } else {
        ","
    };
    let text = format!("{{\"position\":{}{comma}{rest}", record.position);
    serde_json::value::RawValue::from_string(text).unwrap_or_else(|_| record.event.clone())
}

#[cfg(test)]
mod tests {
    use domain::Position;

    use super::*;

    #[test]
    fn the_position_is_added_and_the_stored_bytes_are_not_touched() {
        let record = |text: &str| EventRecord {
            position: Position(7),
            subject: "s".into(),
            event: serde_json::value::RawValue::from_string(text.into()).unwrap(),
        };
        let text = r#"{ "type" : "x",  "data":{"b":1, "a":2}}"#;
        assert_eq!(
            with_position(&record(text)).get(),
            r#"{"position":7, "type" : "x",  "data":{"b":1, "a":2}}"#
        );
        assert_eq!(with_position(&record("{}")).get(), r#"{"position":7}"#);
    }
}
