//! Pages whose tables are made from the code: a list that is kept by hand is wrong within a month.

use std::{collections::BTreeSet, fmt::Write as _};

use domain::{Code, Fact, Principal, event::Writer};

use crate::{
    kept,
    samples::{self, Sample},
};

const ADVICE: &str = "run `UPDATE=1 cargo test -p carousel-tests --test contract documents` once";

/// How the two programs end (contract.md section 2).
const EXITS: [(u8, &str); 7] = [
    (0, "Done"),
    (1, "Failed"),
    (2, "Usage"),
    (3, "Refused"),
    (4, "Unreachable"),
    (5, "NotYet"),
    (130, "Interrupted"),
];

#[test]
fn the_list_of_refusals_is_that_of_the_code() {
    let mut table = String::from("| code | HTTP | meaning |\n|---|---|---|\n");
    let mut codes = Code::ALL.to_vec();
    codes.sort_by_key(|code| code.name());
    for code in codes {
        writeln!(
            table,
            "| `{}` | {} | {} |",
            code.name(),
            code.http_status(),
            code.meaning()
        )
        .expect("a string takes everything");
    }
    kept::none(
        kept::compare_table("docs/refusals.md", "refusals", &table),
        ADVICE,
    );
}

#[test]
fn the_list_of_events_is_that_of_the_code() {
    let mut table =
        String::from("| type | what it says | written by | stands on `evt.` |\n|---|---|---|---|\n");
    let samples = samples::all();
    for (type_name, meaning) in Fact::TYPES.iter().zip(Fact::MEANINGS) {
        let sample = samples
            .iter()
            .find(|sample| sample.name == *type_name)
            .expect("every type has a sample");
        let short = type_name.trim_start_matches("carousel.").trim_end_matches(".v1");
        let writer = match sample.fact.writer() {
            Writer::Orchestrator => "orchestrator",
            Writer::Signer => "signer",
        };
        let schema = crate::schemas::file_of(type_name);
        let holder = holder_in_words(sample);
        let family = sample.fact.family();
        writeln!(
            table,
            "| [`{short}`](../schemas/events/{schema}) | {meaning} | {writer} | `{family}.{holder}` |"
        )
        .expect("a string takes everything");
    }
    kept::none(kept::compare_table("docs/events.md", "events", &table), ADVICE);
}

#[test]
fn every_refusal_has_a_stable_name_a_status_and_one_line_of_meaning() {
    let mut names = BTreeSet::new();
    for code in Code::ALL {
        let name = code.name();
        assert!(names.insert(name), "{name} is there twice");
        let plain = name.split('_').all(|word| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        });
        assert!(plain, "{name} is not in snake case");
        assert_eq!(name.parse::<Code>(), Ok(*code));
        assert!(
            (400..600).contains(&code.http_status()),
            "{name}: {}",
            code.http_status()
        );
        let meaning = code.meaning();
        let one_line = !meaning.is_empty() && !meaning.contains(['\n', '|']) && !meaning.ends_with('.');
        assert!(
            one_line && meaning.len() <= 120,
            "{name}: {meaning:?} is no short line"
        );
        let said = serde_json::to_value(code).expect("a code is a text");
        assert_eq!(said, name, "the name in JSON is the name everywhere");
    }
}

#[test]
fn every_exit_code_is_documented_and_is_the_programs_own() {
    let page = kept::text("docs/refusals.md");
    let program = kept::text("services/cli/src/failure.rs");
    let declared = program
        .split("pub enum Exit {")
        .nth(1)
        .and_then(|rest| rest.split("\n}").next())
        .expect("the CLI has an enum Exit");
    let mut found = BTreeSet::new();
    for line in declared.lines().filter(|line| line.contains(" = ")) {
        let (name, number) = line
            .trim()
            .trim_end_matches(',')
            .split_once(" = ")
            .expect("filtered");
        found.insert((number.parse::<u8>().expect("a number"), name.to_owned()));
    }
    let wanted: BTreeSet<(u8, String)> = EXITS
        .iter()
        .map(|(number, name)| (*number, (*name).to_owned()))
        .collect();
    assert_eq!(found, wanted, "exit codes are a promise to scripts");
    for (number, name) in EXITS {
        assert!(
            page.contains(&format!("\n| {number} |")),
            "docs/refusals.md does not list exit code {number} ({name})"
        );
    }
}

/// The last token of the subject, as a reader of the list understands it.
fn holder_in_words(sample: &Sample) -> String {
    let (fact, holder) = (&sample.fact, sample.fact.holder());
    let of_anybody = matches!(fact.family(), "authorization" | "certificate" | "command")
        || matches!(fact, Fact::AccessCredentialPresented(_));
    let as_principal = |kind: &str| {
        format!("{kind}/{holder}")
            .parse::<Principal>()
            .is_ok_and(|p| p.holder_token() == holder)
    };
    if of_anybody {
        "<holder>".into()
    } else if holder == "cluster" {
        holder
    } else if holder.parse::<domain::AuthorityType>().is_ok() {
        "<type>".into()
    } else if as_principal("node") && fact.family() == "node" {
        "<node>".into()
    } else {
        assert_eq!(fact.family(), "member", "{holder}");
        "<member>".into()
    }
}
