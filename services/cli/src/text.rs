//! Words and tables: times, ages, counts, columns. Nothing here knows what a rotation is.

use std::time::Duration;

use domain::{SpkiPin, Timestamp};

pub use table::{Cell, Table};

mod table;

/// How a screen looks: decided once per command, so that times in one output use one clock reading.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The clock reading.
    pub now: Timestamp,
    /// May characters beyond ASCII be written?
    pub unicode: bool,
    /// With escape sequences for colour? The stream strips them where they do not belong.
    pub colour: bool,
    /// Columns of the terminal; none when it is not one, and nothing is cut.
    pub width: Option<usize>,
}

/// What a piece of text means; the colours stand nowhere else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Paint {
    /// As it is.
    #[default]
    Plain,
    /// Done, well.
    Good,
    /// Attention.
    Warn,
    /// Failed.
    Bad,
    /// Beside the point.
    Dim,
}

impl Look {
    /// A look without colour, for files and tests.
    pub fn plain(now: Timestamp) -> Self {
        Self {
            now,
            unicode: true,
            colour: false,
            width: None,
        }
    }

    /// The text in the colour of its meaning.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        use anstyle::{AnsiColor, Style};
        let style = match paint {
            Paint::Good => AnsiColor::Green.on_default(),
            Paint::Warn => AnsiColor::Yellow.on_default(),
            Paint::Bad => AnsiColor::Red.on_default(),
            Paint::Dim => Style::new().dimmed(),
            Paint::Plain => return text.into(),
        };
        if self.colour {
            format!("{style}{text}{style:#}")
        } else {
            text.into()
        }
    }

    /// `✓`, or `ok` where that cannot be written.
    pub fn done(&self) -> String {
        self.paint(Paint::Good, if self.unicode { "✓" } else { "ok" })
    }

    /// Attention.
    pub fn attention(&self) -> String {
        self.paint(Paint::Warn, "!")
    }

    /// `✗`.
    pub fn failed(&self) -> String {
        self.paint(Paint::Bad, if self.unicode { "✗" } else { "x" })
    }

    /// `…`, or three dots.
    pub fn ellipsis(&self) -> &'static str {
        if self.unicode { "…" } else { "..." }
    }

    /// A pin, short enough to recognise.
    pub fn pin(&self, pin: &SpkiPin) -> String {
        pin.short().replace('…', self.ellipsis())
    }

    /// A bar of `cells` cells, `part` of `whole` full.
    pub fn bar(&self, part: u32, whole: u32, cells: usize) -> String {
        let full = if whole == 0 {
            cells
        } else {
            usize::try_from(u64::from(part.min(whole)) * cells as u64 / u64::from(whole)).unwrap_or(cells)
        };
        let (on, off) = if self.unicode { ("█", "░") } else { ("#", ".") };
        format!("{}{}", on.repeat(full), off.repeat(cells - full))
    }

    /// How long ago: `38 s`.
    pub fn ago(&self, then: Timestamp) -> String {
        span(self.now.since_ms(then))
    }

    /// How long still: `11 h`; `over` once it is past.
    pub fn until(&self, then: Timestamp) -> String {
        if then <= self.now {
            "over".into()
        } else {
            span(then.since_ms(self.now))
        }
    }
}

/// `Sep 20 2026 01:44:36 UTC`.
pub fn utc(time: Timestamp) -> String {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let text = time.to_string();
    let month = text[5..7].parse::<usize>().unwrap_or(1);
    let day = text[8..10].trim_start_matches('0');
    format!(
        "{} {day} {} {} UTC",
        MONTHS[month.clamp(1, 12) - 1],
        &text[..4],
        &text[11..19]
    )
}

/// `2026-09-20 01:44:36.123`.
pub fn moment(time: Timestamp) -> String {
    time.to_string().replace('T', " ").trim_end_matches('Z').into()
}

/// `01:44:36`, of the day that it is.
pub fn clock(time: Timestamp) -> String {
    time.to_string()[11..19].into()
}

/// A span in one unit and a half: `38 s`, `15 min`, `2 h 11 min`, `9 d`.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, 1..4, _) if minutes % 60 != 0 => format!("{hours} h {} min", minutes % 60),
        (0..3, _, _) => format!("{hours} h"),
        _ => format!("{days} d"),
    }
}

/// A short span to a tenth of a second, a longer one like [`span`]: how long something took.
pub fn took(ms: u64) -> String {
    if ms < 10_000 {
        format!("{}.{} s", ms / 1_000, ms / 100 % 10)
    } else {
        span(ms)
    }
}

/// `1 node`, `2 nodes`.
pub fn count(n: impl Into<u64>, noun: &str) -> String {
    let n = n.into();
    format!("{} {noun}{}", thousands(n), if n == 1 { "" } else { "s" })
}

/// `61,204`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration as the API takes it; one that is too long for it is as long as can be.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads Go's notation of a duration as the API writes it, `48h0m0s`, into milliseconds.
pub fn go_duration_ms(text: &str) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let scale = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1_000.0,
            "ms" => 1.0,
            _ => return None,
        };
        let value: f64 = number.parse().ok()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a span of years at most"
        )]
        let ms = (value * scale).round() as u64;
        total = total.checked_add(ms)?;
        rest = tail;
    }
    Some(total)
}

/// Breaks a text into lines of at most `width` columns of text, each after the first behind `indent`.
pub fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut out = String::new();
    let mut column = 0;
    for word in text.split_whitespace() {
        let len = word.chars().count();
        if column > 0 && column + 1 + len > width {
            out.push('\n');
            out.push_str(indent);
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += len;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_spans_read_as_people_write_them() {
        let time: Timestamp = "2026-09-05T01:44:36.123Z".parse().unwrap();
        assert_eq!(utc(time), "Sep 5 2026 01:44:36 UTC");
        assert_eq!(moment(time), "2026-09-05 01:44:36.123");
        let minute = 60_000;
        for (ms, text) in [
            (999, "0 s"),
            (38_000, "38 s"),
            (15 * minute, "15 min"),
            (131 * minute, "2 h 11 min"),
            (180 * minute, "3 h"),
            (11 * 60 * minute, "11 h"),
            (47 * 60 * minute, "47 h"),
            (9 * 24 * 60 * minute, "9 d"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn what_took_moments_is_said_to_a_tenth() {
        assert_eq!(
            (took(1_149), took(10_000)),
            ("1.1 s".to_owned(), "10 s".to_owned())
        );
    }

    #[test]
    fn numbers_are_grouped_and_nouns_follow_them() {
        assert_eq!(thousands(61_204), "61,204");
        assert_eq!(thousands(999), "999");
        assert_eq!(
            (count(1_u32, "node"), count(1_611_u32, "event")),
            ("1 node".into(), "1,611 events".into())
        );
    }

    #[test]
    fn a_duration_of_the_api_reads_back() {
        for ms in [0, 500, 1_500, 90_000, 172_800_000, 3_600_250] {
            assert_eq!(go_duration_ms(&api::shape::go_duration(ms)), Some(ms));
        }
        assert_eq!(go_duration_ms("48 apples"), None);
    }

    #[test]
    fn a_bar_is_full_only_when_everything_is() {
        let look = Look::plain(Timestamp(0));
        assert_eq!(look.bar(11, 12, 4), "███░");
        assert_eq!(look.bar(0, 0, 4), "████");
    }

    #[test]
    fn long_text_is_broken_between_words() {
        assert_eq!(wrap("one two three", 7, "  "), "one two\n  three");
    }
}
