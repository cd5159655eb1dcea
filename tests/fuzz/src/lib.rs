//! Fuzz targets: everything that the product reads from others, as plain functions of bytes.
//!
//! Each calls the functions that the product calls and holds more against them than that nothing panics:
//! [`TARGETS`] says what. An input whose first byte is a small number edits a good document that this process made
//! ([`Form`]), so that the code behind a signature is reached; every other input is taken as it is.
//!
//! `tests/fuzz/run` runs them under libFuzzer; an ordinary test repeats the corpus.

pub mod edit;
pub mod made;

mod targets {
    pub(crate) mod bundles;
    pub(crate) mod certificates;
    pub(crate) mod commands;
    pub(crate) mod configuration;
    pub(crate) mod entry;
    pub(crate) mod events;
    pub(crate) mod homes;
    pub(crate) mod requests;
    pub(crate) mod routes;
    pub(crate) mod updates;
}

use arbitrary::Unstructured;

use targets::{
    bundles, certificates, commands, configuration, entry, events, homes, requests, routes, updates,
};

/// One target.
pub struct Target {
    /// What it is called on the command line and in the corpus.
    pub name: &'static str,
    /// What it holds, in a sentence.
    pub holds: &'static str,
    /// Tries one input; panics where the product does not keep its word.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "events",
        holds: "a record decodes to an event that encodes and decodes to itself and folds into any state, or to one line",
        run: events::run,
    },
    Target {
        name: "commands",
        holds: "a body becomes a command or one line; a command is refused with a code, or gives facts that can be stored",
        run: commands::run,
    },
    Target {
        name: "requests",
        holds: "a certificate request gives its own key and nothing else, in DER and PEM alike",
        run: requests::run,
    },
    Target {
        name: "entry",
        holds: "a join or recovery counts only with a good request and proof, and its token is shown nowhere",
        run: entry::run,
    },
    Target {
        name: "bundles",
        holds: "a bundle that is taken was signed by the pinned key or its successor, and lists what it says",
        run: bundles::run,
    },
    Target {
        name: "certificates",
        holds: "a peer that is accepted has a certificate of a trusted authority, in time, with one name of ours",
        run: certificates::run,
    },
    Target {
        name: "configuration",
        holds: "settings and identity files are read within their limits, or refused without a value being shown",
        run: configuration::run,
    },
    Target {
        name: "homes",
        holds: "the control plane's files are read within their limits and written the same, and no password is shown",
        run: homes::run,
    },
    Target {
        name: "routes",
        holds: "a request has one route and one meaning, the same as our own clients write it, or is refused in a line",
        run: routes::run,
    },
    Target {
        name: "updates",
        holds: "a stream gives the same events however it is cut; a row is followed only as a bundle of the pinned key signed it",
        run: updates::run,
    },
];

/// The target with this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// How an input is meant.
pub enum Form<'a> {
    /// As it stands.
    Raw(&'a [u8]),
    /// Edits of the good document of this number.
    Edits(usize, Unstructured<'a>),
}

impl<'a> Form<'a> {
    /// No document that the product reads begins with one of the first 16 control characters.
    pub fn of(input: &'a [u8]) -> Self {
        match input {
            [which @ 0..16, edits @ ..] => Self::Edits(usize::from(*which), Unstructured::new(edits)),
            raw => Self::Raw(raw),
        }
    }
}

/// Holds an error to what a person and a log can bear: it says something, in one line of bounded length, and no
/// control character reaches a terminal. Causes are looked at too.
///
/// # Panics
/// If it does not.
pub fn speaks(error: &dyn std::error::Error) {
    line(&error.to_string());
    if let Some(cause) = error.source() {
        speaks(cause);
    }
}

/// The same of a text.
///
/// # Panics
/// If it is not one line.
pub fn line(text: &str) {
    assert!(!text.is_empty(), "an error says nothing");
    assert!(
        text.len() <= 2_000,
        "an error of {} bytes: {text:.300}",
        text.len()
    );
    assert!(
        !text.chars().any(char::is_control),
        "not one plain line: {text:?}"
    );
}

#[cfg(test)]
mod tests;
