//! One event as it is written down: CloudEvents 1.0, structured JSON.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};
use uuid::Uuid;

/// The CloudEvents attributes of one event around its data.
///
/// Decoding borrows from the record and leaves the data unparsed, so that a reader pays only for what it looks
/// at. Extension attributes that are not known here are tolerated and stay in the stored bytes, which are
/// never rewritten: an envelope is made once, by the writer, and from then on only read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope<'a> {
    /// Always `1.0`.
    #[serde(borrow)]
    pub specversion: Cow<'a, str>,
    /// UUIDv7, unique in the log; by it a lost answer is cleared up.
    pub id: Uuid,
    /// Who wrote it, as a URI reference.
    #[serde(borrow)]
    pub source: Cow<'a, str>,
    /// `carousel.<family>.<fact>.v<n>`.
    #[serde(borrow)]
    pub r#type: Cow<'a, str>,
    /// The log's subject.
    #[serde(borrow)]
    pub subject: Cow<'a, str>,
    /// RFC 3339, UTC, milliseconds: [`format_time`].
    #[serde(borrow)]
    pub time: Cow<'a, str>,
    /// Always `application/json`.
    #[serde(borrow)]
    pub datacontenttype: Cow<'a, str>,
    /// What belongs together: the rotation, or the command.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub correlationid: Option<Cow<'a, str>>,
    /// The command or event that this one follows from.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub causationid: Option<Cow<'a, str>>,
    /// W3C trace context of the writer.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub traceparent: Option<Cow<'a, str>>,
    /// What kind of principal caused it.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub authtype: Option<Cow<'a, str>>,
    /// Which principal caused it.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub authid: Option<Cow<'a, str>>,
    /// Digest of the client certificate that the principal presented.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub authcert: Option<Cow<'a, str>>,
    /// The subject that a message of the principal came on, where no certificate was presented.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub authsubject: Option<Cow<'a, str>>,
    /// Digest of the command's body, for idempotency.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub commanddigest: Option<Cow<'a, str>>,
    /// Why, in the operator's words.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub reason: Option<Cow<'a, str>>,
    /// The position of the state that it was decided on, in decimal digits, so that it can be decided again.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub decidedat: Option<Cow<'a, str>>,
    /// Reserved for the caller's signature.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub proof: Option<Cow<'a, str>>,
    /// Reserved for the writer's signature.
    #[serde(
        borrow,
        default,
        deserialize_with = "text",
        skip_serializing_if = "Option::is_none"
    )]
    pub writersig: Option<Cow<'a, str>>,
    /// The event itself, as it stands in the record.
    #[serde(borrow)]
    pub data: &'a RawValue,
}

/// Why stored bytes are no event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not the JSON of an envelope.
    #[error("not a CloudEvents envelope: line {line}, column {column}")]
    Json {
        /// The line where it ceases to be one. What stands there may be anything, and is not quoted.
        line: usize,
        /// The column.
        column: usize,
    },
    /// Another version of CloudEvents.
    #[error("CloudEvents version {0:?} is not 1.0")]
    SpecVersion(String),
    /// Data that is not JSON.
    #[error("data of type {0:?} is not application/json")]
    ContentType(String),
}

impl<'a> Envelope<'a> {
    /// An envelope with the required attributes; the optional ones are set on the result.
    pub fn new(
        id: Uuid,
        source: impl Into<Cow<'a, str>>,
        r#type: impl Into<Cow<'a, str>>,
        subject: impl Into<Cow<'a, str>>,
        time_ms: i64,
        data: &'a RawValue,
    ) -> Self {
        Self {
            specversion: "1.0".into(),
            id,
            source: source.into(),
            r#type: r#type.into(),
            subject: subject.into(),
            time: format_time(time_ms).into(),
            datacontenttype: "application/json".into(),
            correlationid: None,
            causationid: None,
            traceparent: None,
            authtype: None,
            authid: None,
            authcert: None,
            authsubject: None,
            commanddigest: None,
            reason: None,
            decidedat: None,
            proof: None,
            writersig: None,
            data,
        }
    }

    /// Reads a record's envelope without copying it.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let envelope: Self = serde_json::from_slice(bytes).map_err(|error| DecodeError::Json {
            line: error.line(),
            column: error.column(),
        })?;
        let cut = |text: &str| text.chars().take(80).collect();
        if envelope.specversion != "1.0" {
            return Err(DecodeError::SpecVersion(cut(&envelope.specversion)));
        }
        if envelope.datacontenttype != "application/json" {
            return Err(DecodeError::ContentType(cut(&envelope.datacontenttype)));
        }
        Ok(envelope)
    }

    /// The bytes to append.
    pub fn encode(&self) -> Bytes {
        serde_json::to_vec(self)
            .expect("an envelope of strings and raw JSON always serialises")
            .into()
    }

    /// The event's time in milliseconds since 1970, if it is one.
    pub fn time_ms(&self) -> Option<i64> {
        parse_time(&self.time)
    }
}

/// Milliseconds since 1970 as RFC 3339 in UTC with exactly three decimals, so that text sorts like time.
pub fn format_time(time_ms: i64) -> String {
    let nanos = i128::from(time_ms) * 1_000_000;
    let time = OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let shape = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    time.format(&shape)
        .expect("the shape asks only for what a UTC time has")
}

/// The years 0000 to 9999, which RFC 3339 can write.
const YEARS_MS: std::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// RFC 3339 in any offset as milliseconds since 1970.
pub fn parse_time(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let time_ms = i64::try_from(time.unix_timestamp_nanos().div_euclid(1_000_000)).ok()?;
    // At the ends of the calendar an offset leads out of the years that can be written in UTC.
    YEARS_MS.contains(&time_ms).then_some(time_ms)
}

/// Only the id of a stored event; everything else in it may be broken.
pub fn event_id(bytes: &[u8]) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Id {
        id: Uuid,
    }
    serde_json::from_slice::<Id>(bytes).ok().map(|event| event.id)
}

/// Borrows an optional text where it needs no unescaping: serde's own `borrow` does so only for plain ones.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    #[derive(Deserialize)]
    struct Text<'t>(#[serde(borrow)] Cow<'t, str>);
    Ok(Option::<Text<'de>>::deserialize(deserializer)?.map(|text| text.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: &str = r#"{"specversion":"1.0","id":"0197c9b4-0000-7000-8000-000000000001","source":"/orchestrator",
        "type":"carousel.rotation.phase-entered.v1","subject":"carousel.v1.a.evt.rotation.host",
        "time":"2026-09-20T01:44:36.000Z","datacontenttype":"application/json","authid":"alice",
        "reason":"a \"quoted\" reason","futureextension":7,"data":{ "to" : "init" }}"#;

    #[test]
    fn decoding_borrows_and_leaves_the_data_as_it_stands() {
        let envelope = Envelope::decode(STORED.as_bytes()).unwrap();
        assert!(matches!(envelope.r#type, Cow::Borrowed(_)));
        assert!(matches!(envelope.authid, Some(Cow::Borrowed("alice"))));
        assert_eq!(envelope.reason.as_deref(), Some("a \"quoted\" reason"));
        assert_eq!(envelope.data.get(), r#"{ "to" : "init" }"#);
        assert_eq!(envelope.time_ms(), Some(1_789_868_676_000));
    }

    #[test]
    fn what_is_encoded_decodes_alike_and_absent_attributes_stay_absent() {
        let data = RawValue::from_string(r#"{"n":1}"#.into()).unwrap();
        let mut envelope = Envelope::new(Uuid::nil(), "/signer", "carousel.x.y.v1", "s.t", 1, &data);
        envelope.causationid = Some("c".into());
        let bytes = envelope.encode();
        assert!(!String::from_utf8_lossy(&bytes).contains("traceparent"));
        let back = Envelope::decode(&bytes).unwrap();
        assert_eq!(back.encode(), bytes);
        assert_eq!(event_id(&bytes), Some(Uuid::nil()));
    }

    #[test]
    fn garbage_truncation_and_foreign_versions_are_errors() {
        assert!(matches!(
            Envelope::decode(b"\xff\x00"),
            Err(DecodeError::Json { .. })
        ));
        for cut in 0..STORED.len() {
            assert!(
                Envelope::decode(&STORED.as_bytes()[..cut]).is_err(),
                "cut at {cut}"
            );
        }
        let other = STORED.replace(r#""specversion":"1.0""#, r#""specversion":"0.3""#);
        assert!(matches!(
            Envelope::decode(other.as_bytes()),
            Err(DecodeError::SpecVersion(_))
        ));
        let other = STORED.replace("application/json", "application/cbor");
        assert!(matches!(
            Envelope::decode(other.as_bytes()),
            Err(DecodeError::ContentType(_))
        ));
    }

    #[test]
    fn times_have_three_decimals_and_any_offset_is_read() {
        assert_eq!(format_time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_time(1_789_868_676_007), "2026-09-20T01:44:36.007Z");
        assert_eq!(
            parse_time("2026-09-20T03:44:36.007+02:00"),
            Some(1_789_868_676_007)
        );
        assert_eq!(parse_time("yesterday"), None);
        // In UTC the year 10000, and the year before 0000.
        assert_eq!(parse_time("9999-12-31T23:59:59-23:59"), None);
        assert_eq!(parse_time("0000-01-01T00:00:00+23:59"), None);
    }
}
