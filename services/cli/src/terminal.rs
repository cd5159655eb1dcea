//! Where output goes: data on stdout, everything else on stderr, in the format that was asked for.

use std::io::{self, IsTerminal, Write};

use domain::Timestamp;
use serde::Serialize;

use crate::{args::Format, failure::Failure, text::Look};

/// The streams and the format of one command.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// The format.
    pub format: Format,
    /// Without progress on stderr.
    pub quiet: bool,
    look: Look,
    animates: bool,
}

impl Terminal {
    /// The process's own streams.
    pub fn new(format: Format, now: Timestamp) -> Self {
        let width = io::stdout()
            .is_terminal()
            .then(crossterm::terminal::size)
            .and_then(Result::ok)
            .map(|(columns, _)| usize::from(columns));
        let look = Look {
            now,
            unicode: is_unicode(),
            colour: true,
            width: width.filter(|_| format != Format::Wide),
        };
        Self {
            format,
            quiet: false,
            look,
            animates: animates(),
        }
    }

    /// How screens look here.
    pub fn look(&self) -> &Look {
        &self.look
    }

    /// The same with another clock reading, for what follows and waits.
    pub fn look_at(&self, now: Timestamp) -> Look {
        Look { now, ..self.look }
    }

    /// May stderr be redrawn?
    pub fn redraws(&self) -> bool {
        self.animates && !self.is_machine()
    }

    /// How wide the terminal behind stderr is, where there is one.
    pub fn columns(&self) -> Option<usize> {
        let size = self.animates.then(crossterm::terminal::size)?;
        size.ok().map(|(columns, _)| usize::from(columns))
    }

    /// Is the output for a program?
    pub fn is_machine(&self) -> bool {
        match self.format {
            Format::Json | Format::Yaml => true,
            Format::Text | Format::Wide | Format::Name => false,
        }
    }

    /// One answer, in whatever format was asked for.
    ///
    /// # Errors
    /// When the document cannot be written as YAML.
    pub fn show<T: Serialize>(
        &self,
        document: &T,
        text: impl FnOnce(&Look) -> String,
        names: impl FnOnce() -> Vec<String>,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Text | Format::Wide => self.data(&text(&self.look)),
            Format::Json => {
                let mut json =
                    serde_json::to_string_pretty(document).map_err(|e| Failure::failed(e.to_string()))?;
                json.push('\n');
                self.data(&json);
            }
            Format::Yaml => {
                let value = serde_json::to_value(document).map_err(|e| Failure::failed(e.to_string()))?;
                let yaml = serde_saphyr::to_string(&value).map_err(|e| Failure::failed(e.to_string()))?;
                self.data(&yaml);
            }
            Format::Name => {
                let names: String = names().into_iter().map(|name| name + "\n").collect();
                self.data(&names);
            }
        }
        Ok(())
    }

    /// One line of JSON, for what follows and waits.
    pub fn json_line<T: Serialize>(&self, document: &T) {
        if let Ok(mut line) = serde_json::to_string(document) {
            line.push('\n');
            self.data(&line);
        }
    }

    /// Writes to stdout. A reader that went away (`| head`) is no failure of ours.
    pub fn data(&self, text: &str) {
        let mut out = anstream::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Writes to stderr, with a line feed if the text has none.
    pub fn note(&self, text: &str) {
        let mut out = anstream::stderr().lock();
        let end = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let _ = write!(out, "{text}{end}").and_then(|()| out.flush());
    }

    /// The same for what is no error and no warning: progress, counts, what to do with an answer.
    pub fn progress(&self, text: &str) {
        if !self.quiet {
            self.note(text);
        }
    }

    /// Says what went wrong: the page on stderr, the problem on stdout where a program reads. There the page is cut
    /// to its first line, the rest is in the problem.
    pub fn fail(&self, failure: &Failure) {
        match (&failure.problem, self.is_machine()) {
            (Some(problem), true) => {
                self.note(failure.page.lines().next().unwrap_or_default());
                let _ = self.show(problem, |_| String::new(), Vec::new);
            }
            _ => self.note(&failure.page),
        }
    }
}

/// May what is shown on stderr be drawn again in its place? Otherwise lines are written, one below the other.
///
/// Where there is no colour there is no movement of the cursor either: the stream strips both, and what was meant to
/// be drawn over would stand below itself without end.
pub fn animates() -> bool {
    may_animate(io::stderr().is_terminal(), |name| {
        runtime::config::env(name).ok().flatten()
    })
}

fn may_animate(is_terminal: bool, env: impl Fn(&str) -> Option<String>) -> bool {
    let colourless = env("NO_COLOR").is_some() || env("CLICOLOR").is_some_and(|value| value == "0");
    let is_dumb = env("TERM").is_none_or(|term| term == "dumb");
    is_terminal && !colourless && !is_dumb
}

/// Does the locale say UTF-8? Without one the terminal is taken for the plainest there is.
fn is_unicode() -> bool {
    ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| runtime::config::env(name).ok().flatten())
        .is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_that_may_have_colour_is_drawn_on_again() {
        let with = |is_terminal, variables: &[(&str, &str)]| {
            may_animate(is_terminal, |name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let term = ("TERM", "xterm-256color");
        assert!(with(true, &[term]));
        assert!(!with(false, &[term]), "a pipe");
        assert!(!with(true, &[term, ("NO_COLOR", "1")]));
        assert!(!with(true, &[term, ("CLICOLOR", "0")]));
        assert!(!with(true, &[("TERM", "dumb")]));
        assert!(!with(true, &[]), "a terminal that nobody knows");
    }
}
