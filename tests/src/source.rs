//! The repository as text, for the tests that hold its rules.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the repository.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its path from the root, with `/`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// The root of the repository.
///
/// # Panics
/// Never in a checkout: this crate lies one level below the root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the root")
        .to_owned()
}

/// All text files below the root, sorted, without build output and the history.
///
/// # Panics
/// When the checkout cannot be read.
#[must_use]
pub fn files() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), "", &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// All files with this extension.
#[must_use]
pub fn files_with(extension: &str) -> Vec<Source> {
    let wanted = |file: &Source| {
        Path::new(&file.path)
            .extension()
            .is_some_and(|found| found == extension)
    };
    files().into_iter().filter(wanted).collect()
}

/// One function of a Rust file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of its `fn`, from 1.
    pub line: usize,
    /// Its lines, signature and braces included.
    pub length: usize,
}

/// The functions of a Rust text as rustfmt writes it: a function ends at the first closing brace in its own column.
#[must_use]
pub fn functions(text: &str) -> Vec<Function> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let end = if line.ends_with('}') || line.ends_with(';') {
            Some(index)
        } else {
            (index + 1..lines.len()).find(|at| closes(lines[*at], indent))
        };
        if let Some(end) = end {
            found.push(Function {
                name,
                line: index + 1,
                length: end - index + 1,
            });
        }
    }
    found
}

/// Whether a line ends what began at this indentation: a body, or a signature without one.
fn closes(line: &str, indent: usize) -> bool {
    let rest = line.trim_start();
    line.len() - rest.len() == indent && (rest == "}" || (rest.starts_with(')') && rest.ends_with(';')))
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        match word {
            "fn" => {
                let name: String = words
                    .next()?
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect();
                return (!name.is_empty()).then_some(name);
            }
            "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\"" => {}
            word if word.starts_with("pub(") => {}
            _ => return None,
        }
    }
    None
}

fn collect(dir: &Path, prefix: &str, found: &mut Vec<Source>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for entry in entries {
        let entry = entry.expect("a readable directory");
        let name = entry
            .file_name()
            .into_string()
            .expect("names in the repository are UTF-8");
        let kind = entry.file_type().expect("a readable entry");
        let path = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}/{name}")
        };
        if kind.is_dir() {
            // What git does not track: its own directory, and build output.
            if name != ".git" && name != "target" {
                collect(&entry.path(), &path, found);
            }
        } else if kind.is_file() {
            // What is not UTF-8 (pictures) has no lines to look at.
            if let Ok(text) = fs::read_to_string(entry.path()) {
                found.push(Source { path, text });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_with_their_length() {
        let text = "impl A {\n    pub(crate) const fn one(&self) -> u8 {\n        1\n    }\n\n    fn two(\n        a: u8,\n    ) -> u8 {\n        if a > 1 {\n            a\n        } else {\n            0\n        }\n    }\n}\n\ntrait T {\n    fn none(&self);\n}\n\nasync fn short() {}\n// fn comment() {\n";
        let found: Vec<_> = functions(text)
            .into_iter()
            .map(|f| (f.name, f.line, f.length))
            .collect();
        let expected = [("one", 2, 3), ("two", 6, 9), ("none", 18, 1), ("short", 21, 1)];
        assert_eq!(
            found,
            expected.map(|(name, line, length)| (name.to_owned(), line, length))
        );
    }
}
