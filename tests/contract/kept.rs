//! Files that are made from code and kept in the repository, so that a change of the outside shows in a review.

use std::{collections::BTreeSet, fs, path::PathBuf};

use carousel_tests::source;
use serde_json::Value;

/// Was the test asked to write what it otherwise compares?
pub(crate) fn updating() -> bool {
    runtime::config::env("UPDATE").is_ok_and(|value| value.is_some())
}

pub(crate) fn path(relative: &str) -> PathBuf {
    source::root().join(relative)
}

/// The kept text; empty if there is none.
pub(crate) fn text(relative: &str) -> String {
    fs::read_to_string(path(relative)).unwrap_or_default()
}

/// Compares a kept file with what is made now, or writes it. The answer is what is wrong.
pub(crate) fn compare(relative: &str, made: &str) -> Option<String> {
    if updating() {
        fs::write(path(relative), made).unwrap_or_else(|error| panic!("{relative}: {error}"));
        return None;
    }
    if !path(relative).exists() {
        return Some(format!("{relative} is missing"));
    }
    (text(relative) != made).then(|| format!("{relative} differs from what is made now"))
}

/// Compares the part of a page between its table marks, or writes it.
pub(crate) fn compare_table(relative: &str, name: &str, table: &str) -> Option<String> {
    let (begin, end) = (
        format!("<!-- {name}: begin -->\n"),
        format!("<!-- {name}: end -->"),
    );
    let page = text(relative);
    let from = page
        .find(&begin)
        .unwrap_or_else(|| panic!("{relative} has its mark {begin}"))
        + begin.len();
    let to = page
        .find(&end)
        .unwrap_or_else(|| panic!("{relative} has its mark {end}"));
    compare(relative, &format!("{}{table}{}", &page[..from], &page[to..]))
}

/// The names of the files in a directory.
pub(crate) fn files_in(relative: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"));
    let name = |entry: fs::DirEntry| entry.file_name().into_string().expect("names are UTF-8");
    entries.map(|entry| name(entry.expect("readable"))).collect()
}

/// JSON as it is kept: indented and with sorted keys, whatever order a build's serde_json keeps them in.
pub(crate) fn pretty(value: &Value) -> String {
    let text = serde_json::to_string_pretty(&sorted(value)).expect("JSON can be written");
    format!("{text}\n")
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            entries
                .into_iter()
                .map(|(key, value)| (key.clone(), sorted(value)))
                .collect()
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// Fails with everything that is wrong, not with the first of it.
pub(crate) fn none(wrong: impl IntoIterator<Item = String>, advice: &str) {
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{advice}:\n  {}\n", wrong.join("\n  "));
}
