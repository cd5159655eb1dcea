//! Messages of others in ours: one plain line, whatever they quote.

use std::fmt::Display;

/// The most characters of a message that are passed on.
const MOST: usize = 300;

/// A message that may quote what a stranger sent, for a log or a terminal: control characters are written as escapes,
/// and it is cut, so that hostile input can neither forge a line nor flood.
pub fn plain(message: impl Display) -> String {
    let message = message.to_string();
    let escaped = message.chars().map(|c| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    });
    escaped.take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_sent_forges_no_line_and_floods_nothing() {
        assert_eq!(plain("found `a\n\u{1b}[31m`"), "found `a\\n\\u{1b}[31m`");
        assert_eq!(plain("é".repeat(9_000)), "é".repeat(300));
    }
}
