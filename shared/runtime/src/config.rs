//! Configuration files and environment variables, read in one place.
//!
//! A configuration error is read by somebody who wants the service back: it names the file, the line and, for an
//! unknown key, the keys there are. It never quotes the file, whose values may be secret.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Files above this size are no configuration; reading them would only cost memory.
const MAX_CONFIG_BYTES: u64 = 1024 * 1024;

/// Why a configuration could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file is not there.
    #[error("configuration {} does not exist; check the path given to --config", .0.display())]
    Missing(PathBuf),
    /// The file is there but cannot be read.
    #[error("configuration {} cannot be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file does not say what we can use.
    #[error("configuration {}, line {line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there, without the value.
        message: String,
    },
    /// An environment variable is set to bytes that are not UTF-8.
    #[error("environment variable {0} is not valid UTF-8; set it to plain text or unset it")]
    NotUnicode(String),
}

/// Reads a TOML file. Types should be `#[serde(deny_unknown_fields)]`: a misspelt key that is silently ignored is the
/// commonest way to run with a setting one does not have.
///
/// # Errors
/// [`ConfigError`], with the line.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse(&read(path)?, path)
}

/// Parses the text of a TOML configuration; `path` is for the message only.
///
/// # Errors
/// [`ConfigError::Invalid`], with the line.
pub fn parse<T: DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        ConfigError::Invalid {
            path: path.to_owned(),
            line,
            message: plain(&explain(error.message())),
        }
    })
}

/// The environment variable `name`; an empty one counts as unset, as shells make it hard to tell the two apart.
///
/// # Errors
/// [`ConfigError::NotUnicode`]; the value is not shown, it may be a secret.
pub fn env(name: &str) -> Result<Option<String>, ConfigError> {
    match std::env::var_os(name) {
        None => Ok(None),
        Some(value) if value.is_empty() => Ok(None),
        Some(value) => value
            .into_string()
            .map(Some)
            .map_err(|_| ConfigError::NotUnicode(name.to_owned())),
    }
}

/// Whether the environment says that this runs in continuous integration (`CI=true`).
#[must_use]
pub fn in_ci() -> bool {
    matches!(env("CI"), Ok(Some(value)) if value == "true" || value == "1")
}

/// The text of a configuration file of at most 1 MiB.
///
/// # Errors
/// [`ConfigError`].
pub fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(unreadable(io::Error::other("it is a directory"))),
        Ok(found) if found.len() > MAX_CONFIG_BYTES => {
            return Err(unreadable(io::Error::other("it is larger than 1 MiB")));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ConfigError::Missing(path.to_owned()));
        }
        Err(error) => return Err(unreadable(error)),
    }
    fs::read_to_string(path).map_err(unreadable)
}

/// One line of bounded length: a key may hold anything, and an error reaches logs and terminals.
pub(crate) fn plain(message: &str) -> String {
    let escaped = message.chars().map(|c| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    });
    escaped.take(600).collect()
}

/// serde's message in the words of somebody who edits a file, without the offending value.
fn explain(message: &str) -> String {
    let message = message.trim();
    if let Some(rest) = message.strip_prefix("unknown field ") {
        return explain_unknown(rest);
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        return format!("the key {rest} is missing; add it");
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let expected = rest
            .rsplit_once(", expected ")
            .map_or("something else", |(_, expected)| expected);
        return format!("value not allowed; expected {expected}");
    }
    // Our own readers of names and pins quote what they were given.
    if let Some((_, expected)) = message.rsplit_once("\" is not ") {
        return format!("value not allowed; expected {expected}");
    }
    for (prefix, words) in [
        ("invalid type: ", "wrong type of value"),
        ("invalid value: ", "value not allowed"),
    ] {
        if let Some(rest) = message.strip_prefix(prefix) {
            // "string \"hunter2\", expected u16": what was found may be a secret, what was expected is not.
            let expected = rest
                .rsplit_once(", expected ")
                .map_or("something else", |(_, expected)| expected);
            return format!("{words}; expected {expected}");
        }
    }
    message.lines().collect::<Vec<_>>().join("; ")
}

/// From "`lisen`, expected one of `listen`, `log`": names the nearest valid key first, then all of them.
fn explain_unknown(rest: &str) -> String {
    let mut names = rest.split('`').skip(1).step_by(2);
    let Some(unknown) = names.next() else {
        return format!("unknown key {rest}");
    };
    let valid: Vec<_> = names.collect();
    if valid.is_empty() {
        return format!("unknown key `{unknown}`; no keys are allowed here");
    }
    let nearest = valid.iter().map(|name| (distance(unknown, name), name)).min();
    let hint = match nearest {
        Some((edits, name)) if edits <= 2 => format!("; did you mean `{name}`?"),
        _ => ".".to_owned(),
    };
    format!("unknown key `{unknown}`{hint} Valid keys: {}", valid.join(", "))
}

/// Levenshtein's distance: small strings, so the plain table does.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Example {
        listen: String,
        #[serde(default)]
        workers: u16,
        #[serde(default)]
        labels: std::collections::BTreeMap<String, String>,
    }

    fn error(text: &str) -> String {
        parse::<Example>(text, Path::new("c.toml"))
            .expect_err("the text is invalid")
            .to_string()
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line_the_nearest_key_and_all_valid_keys() {
        assert_eq!(
            error("listen = 'a'\n\nworker = 2\n"),
            "configuration c.toml, line 3: unknown key `worker`; did you mean `workers`? Valid keys: listen, workers, labels"
        );
        assert_eq!(
            error("listen = 'a'\ncompletely_else = 2\n"),
            "configuration c.toml, line 2: unknown key `completely_else`. Valid keys: listen, workers, labels"
        );
    }

    #[test]
    fn a_value_is_never_quoted_in_an_error() {
        for text in [
            "listen = 'a'\nworkers = 'hunter2'\n",
            "listen = 'a'\nlabels = 'hunter2'\n",
        ] {
            let message = error(text);
            assert!(!message.contains("hunter2"), "{message}");
            assert!(
                message.contains("line 2: wrong type of value; expected "),
                "{message}"
            );
        }
    }

    #[test]
    fn a_key_neither_forges_a_line_nor_floods() {
        let message = error("\"a\\n\\u001b[31m\" = 1\n");
        assert!(message.contains("unknown key `a\\n\\u{1b}[31m`"), "{message}");
        assert!(error(&format!("{} = 1\n", "k".repeat(9_000))).len() < 1_000);
    }

    #[test]
    fn broken_toml_is_named_with_its_line() {
        let message = error("listen = 'a'\nworkers = \n");
        assert!(message.starts_with("configuration c.toml, line 2: "), "{message}");
    }

    #[test]
    fn a_missing_key_is_named() {
        assert!(error("workers = 3\n").ends_with("the key `listen` is missing; add it"));
    }

    #[test]
    fn a_missing_file_a_directory_and_a_huge_file_are_refused_in_words() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let missing = load::<Example>(&dir.path().join("nope.toml")).expect_err("missing");
        assert!(matches!(missing, ConfigError::Missing(_)), "{missing}");
        let directory = load::<Example>(dir.path()).expect_err("a directory");
        assert!(matches!(directory, ConfigError::Unreadable { .. }), "{directory}");
        let huge = dir.path().join("huge.toml");
        fs::write(&huge, vec![b'#'; 1024 * 1024 + 1]).expect("written");
        assert!(matches!(
            load::<Example>(&huge),
            Err(ConfigError::Unreadable { .. })
        ));
    }

    #[test]
    fn an_unset_variable_is_none() {
        assert_eq!(env("CAROUSEL_SURELY_NOT_SET").expect("readable"), None);
    }
}
