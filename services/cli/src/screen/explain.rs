//! `carousel explain`: what each refusal and each finding of `check` means, and what to do; and a few topics. In the
//! binary, so that it can be read while the control plane is away.

use domain::Code;
use serde::Serialize;

use crate::text::wrap;

mod checks;
mod refusals;
mod topics;

/// One page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Page {
    /// The code, or the name of a check.
    pub name: &'static str,
    /// One sentence.
    pub meaning: &'static str,
    /// Why it is so, in a paragraph.
    pub why: &'static str,
    /// What to do; lines that begin with `carousel` are commands as they can be typed.
    pub todo: &'static [&'static str],
}

/// Every page: refusals first, then checks, then topics.
pub fn pages() -> impl Iterator<Item = Page> {
    let refusals = Code::ALL.iter().map(|code| {
        let (why, todo) = refusals::page(*code);
        Page {
            name: code.name(),
            meaning: code.meaning(),
            why,
            todo,
        }
    });
    let others = checks::PAGES.iter().chain(topics::PAGES);
    refusals.chain(others.map(|(name, meaning, why, todo)| Page {
        name,
        meaning,
        why,
        todo,
    }))
}

/// The page of this name.
pub fn find(name: &str) -> Option<Page> {
    pages().find(|page| page.name == name)
}

/// The page of a topic of `carousel help`.
pub fn topic(name: &str) -> Option<Page> {
    find(name).filter(|page| topics().any(|topic| topic == page.name))
}

/// The topics of `carousel help`.
pub fn topics() -> impl Iterator<Item = &'static str> {
    topics::PAGES.iter().map(|(name, ..)| *name)
}

/// One page as text.
pub fn render(page: &Page) -> String {
    let mut out = format!("{}: {}\n\n{}\n", page.name, page.meaning, wrap(page.why, 80, ""));
    if !page.todo.is_empty() {
        out.push_str(if topic(page.name).is_some() {
            "\n"
        } else {
            "\nWhat to do\n"
        });
        for line in page.todo {
            // A line with columns of its own stays as it is.
            let text = if line.contains("  ") {
                (*line).to_owned()
            } else {
                wrap(line, 90, "    ")
            };
            out.push_str(&format!("  {text}\n"));
        }
    }
    out
}

/// All names with their sentences.
pub fn index() -> String {
    let width = pages().map(|page| page.name.len()).max().unwrap_or(0);
    pages()
        .map(|page| format!("{:width$}  {}\n", page.name, page.meaning))
        .collect()
}

/// The names that are nearest to one that is not there.
pub fn nearest(name: &str) -> Vec<&'static str> {
    let parts: Vec<&str> = name.split(['_', '-']).filter(|part| part.len() > 2).collect();
    pages()
        .map(|page| page.name)
        .filter(|candidate| parts.iter().any(|part| candidate.contains(part)))
        .take(5)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Parser, error::ErrorKind};

    use super::*;
    use crate::args::Cli;

    #[test]
    fn every_refusal_and_every_check_has_one_page_that_says_something() {
        let mut seen = BTreeSet::new();
        for page in pages() {
            assert!(page.why.len() > 40, "{} says too little", page.name);
            assert!(!page.todo.is_empty(), "{} leaves its reader alone", page.name);
            // `signer_unavailable` and the like are both a refusal and a check; the refusal's page serves both.
            assert!(seen.insert(page.name), "{} stands twice", page.name);
        }
        assert!(Code::ALL.iter().all(|code| seen.contains(code.name())));
    }

    #[test]
    fn every_command_on_a_page_parses() {
        for page in pages() {
            for line in page.todo.iter().filter(|line| line.starts_with("carousel ")) {
                let command = line.split("   ").next().unwrap_or(line);
                let words = words(command);
                // `--manual --phase` lines use real values, so nothing needs to be filled in.
                let parsed = Cli::try_parse_from(&words).map_err(|error| error.kind());
                let fine = matches!(parsed, Ok(_) | Err(ErrorKind::DisplayVersion));
                assert!(fine, "{}: {command}", page.name);
            }
        }
    }

    #[test]
    fn every_command_in_the_operating_guide_parses() {
        let guide = include_str!("../../../../docs/operating.md");
        let lines: Vec<_> = guide
            .lines()
            .filter(|line| line.starts_with("carousel "))
            .collect();
        assert!(lines.len() > 20, "{}", lines.len());
        for line in lines {
            let command = line.split(" | ").next().unwrap_or(line);
            let words: Vec<_> = words(command)
                .into_iter()
                .filter(|word| !word.is_empty())
                .collect();
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{command}: {error}");
            }
        }
    }

    #[test]
    fn every_command_that_is_left_to_people_parses() {
        let steps = domain::AuthorityType::all().flat_map(|t| t.by_hand());
        let commands: Vec<_> = steps.map(|step| step.command).collect();
        assert!(commands.len() > 20, "{}", commands.len());
        for command in commands {
            // What it takes beside the type is for whoever types it to say.
            let parsed = Cli::try_parse_from(words(command.trim_end_matches(" ...")));
            match parsed.map_err(|error| error.kind()) {
                Ok(_) => assert!(!command.ends_with("..."), "{command} is whole"),
                Err(kind) => {
                    let is_begun = command.ends_with(" ...") && kind == ErrorKind::MissingRequiredArgument;
                    assert!(is_begun, "{command}: {kind}");
                }
            }
        }
    }

    /// Splits as a shell would, for double quotes only.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words
    }

    #[test]
    fn a_misspelt_name_leads_to_its_neighbours() {
        assert!(nearest("node_lagging").contains(&"nodes_lagging"));
        assert!(find("nodes_lagging").is_some() && find("nonsense").is_none());
    }
}
