//! Points in time: milliseconds since 1970 in UTC, written as RFC 3339.

use std::{fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::id::{InvalidId, text_serde};

/// A second, in the unit of [`Timestamp`] and of every `*_ms` field.
pub const SECOND_MS: u64 = 1_000;
/// A minute in milliseconds.
pub const MINUTE_MS: u64 = 60 * SECOND_MS;
/// An hour in milliseconds.
pub const HOUR_MS: u64 = 60 * MINUTE_MS;
/// A day in milliseconds.
pub const DAY_MS: u64 = 24 * HOUR_MS;

/// Milliseconds since 1970-01-01T00:00:00Z. Text form: RFC 3339 with milliseconds, `2026-09-20T01:44:36.000Z`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// This moment plus a span; saturates instead of overflowing.
    pub fn plus_ms(self, span_ms: u64) -> Self {
        Self(self.0.saturating_add(i64::try_from(span_ms).unwrap_or(i64::MAX)))
    }

    /// This moment minus a span; saturates instead of overflowing.
    pub fn minus_ms(self, span_ms: u64) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span_ms).unwrap_or(i64::MAX)))
    }

    /// Milliseconds from `earlier` to here; 0 if `earlier` is later.
    pub fn since_ms(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar.
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.)
fn days_of_date(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_of_date`]: (year, month, day).
fn date_of_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (
        yoe + era * 400 + i64::from(month <= 2),
        month,
        doy - (153 * mp + 2) / 5 + 1,
    )
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Clamped to the years that RFC 3339 can write, 0000 to 9999.
        let ms = self.0.clamp(-62_167_219_200_000, 253_402_300_799_999);
        let (days, rest) = (ms.div_euclid(DAY_MS as i64), ms.rem_euclid(DAY_MS as i64));
        let (y, m, d) = date_of_days(days);
        let (h, min, s, milli) = (
            rest / 3_600_000,
            rest / 60_000 % 60,
            rest / 1_000 % 60,
            rest % 1_000,
        );
        write!(f, "{y:04}-{m:02}-{d:02}T{h:02}:{min:02}:{s:02}.{milli:03}Z")
    }
}
impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Timestamp {
    type Err = InvalidId;
    /// Reads RFC 3339 in UTC (`Z`), with or without a fraction of up to 9 digits (cut to milliseconds).
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        parse(s)
            .map(Self)
            .ok_or_else(|| InvalidId::new(s, "an RFC 3339 time in UTC, such as 2026-09-20T01:44:36Z"))
    }
}

fn parse(s: &str) -> Option<i64> {
    let s = s.strip_suffix(['Z', 'z'])?;
    let (date, clock) = s.split_once(['T', 't', ' '])?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let number = |t: &str, len: usize| -> Option<i64> {
        (t.len() == len && t.bytes().all(|b| b.is_ascii_digit()))
            .then(|| t.parse().ok())
            .flatten()
    };
    let mut ymd = date.split('-');
    let (y, m, d) = (
        number(ymd.next()?, 4)?,
        number(ymd.next()?, 2)?,
        number(ymd.next()?, 2)?,
    );
    let mut hms = clock.split(':');
    let (h, min, sec) = (
        number(hms.next()?, 2)?,
        number(hms.next()?, 2)?,
        number(hms.next()?, 2)?,
    );
    if ymd.next().is_some() || hms.next().is_some() || h > 23 || min > 59 || sec > 60 {
        return None;
    }
    let days = days_of_date(y, m, d);
    if date_of_days(days) != (y, m, d) {
        return None; // 31 June and the like
    }
    if fraction.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let milli: i64 = format!("{fraction:0<3}")[..3].parse().ok()?;
    Some((days * 86_400 + h * 3_600 + min * 60 + sec) * 1_000 + milli)
}

text_serde! { Timestamp: "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$"; }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_as_it_was_written() {
        for ms in [
            0,
            1,
            -1,
            951_782_399_999,
            951_782_400_000,
            1_789_868_676_123,
            253_402_300_799_999,
        ] {
            assert_eq!(Timestamp(ms).to_string().parse(), Ok(Timestamp(ms)));
        }
        assert_eq!(
            Timestamp(1_789_868_676_000).to_string(),
            "2026-09-20T01:44:36.000Z"
        );
    }

    #[test]
    fn a_date_that_does_not_exist_is_refused() {
        for bad in [
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01",
            "x",
            "2026-01-01T00:00:00.Z",
        ] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
    }
}
