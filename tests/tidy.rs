//! Rules that hold for the repository as a whole: who may import what, sizes, links, metrics, and what must not stand
//! in a file. They are tests and not review notes, because notes are forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use carousel_tests::source::{self, Source};
use runtime::metrics::{self, table::METRICS};

/// Our crates and what each may import of ours (docs: ARCHITECTURE.md). `carousel` and the tests wire everything.
const SHARED: [(&str, &[&str]); 8] = [
    ("domain", &[]),
    ("eventlog", &[]),
    ("runtime", &[]),
    ("pki", &["domain"]),
    ("mtls", &["domain", "pki"]),
    ("api", &["domain"]),
    ("execution", &["domain", "eventlog"]),
    ("views", &["domain", "eventlog"]),
];

/// What wires everything: the binary and the tests.
const WIRES: [&str; 3] = ["carousel", "carousel-tests", "carousel-fuzz"];

const SERVICES: [&str; 7] = [
    "agent",
    "carousel",
    "cli",
    "gateway",
    "orchestrator",
    "projector",
    "signer",
];

/// Crates of others that only some of ours may import, so that what they do has one home.
const RESERVED: [(&str, &[&str]); 14] = [
    ("async-nats", &["eventlog"]),
    ("rusqlite", &["eventlog"]),
    ("tracing-subscriber", &["runtime"]),
    ("tracing-opentelemetry", &["runtime"]),
    ("opentelemetry", &["runtime"]),
    ("opentelemetry_sdk", &["runtime"]),
    ("prometheus", &["runtime"]),
    ("rcgen", &["pki"]),
    ("x509-parser", &["pki"]),
    ("ssh-key", &["pki"]),
    ("cryptoki", &["signer"]),
    ("sled", &["views"]),
    ("axum", &["gateway", "runtime"]),
    ("clap", &["agent", "carousel", "cli"]),
];

/// The pure core depends on nothing that could do input, output, time or chance.
const DOMAIN_ALLOWS: [&str; 4] = ["schemars", "serde", "thiserror", "uuid"];

const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;

#[test]
fn crates_import_only_what_the_table_allows() {
    let ours: BTreeSet<&str> = SHARED.iter().map(|(name, _)| *name).chain(SERVICES).collect();
    let shared: Vec<&str> = SHARED.iter().map(|(name, _)| *name).collect();
    let mut wrong = Vec::new();
    for (name, manifest) in manifests() {
        let product = dependencies(&manifest, &["dependencies", "build-dependencies"]);
        let tests = dependencies(&manifest, &["dev-dependencies"]);
        let allowed: &[&str] = match SHARED.iter().find(|(shared, _)| *shared == name) {
            Some((_, allowed)) => allowed,
            None => &shared,
        };
        if !WIRES.contains(&&*name) {
            let stray = product
                .iter()
                .filter(|dep| ours.contains(&***dep) && !allowed.contains(&&***dep));
            wrong.extend(stray.map(|dep| format!("{name} imports {dep}")));
            // In its own tests a crate may use any shared crate, but a service never another one.
            let stray = tests.iter().filter(|dep| SERVICES.contains(&&***dep));
            wrong.extend(stray.map(|dep| format!("{name} imports {dep} in its tests")));
        }
        for (reserved, homes) in RESERVED {
            if product.contains(reserved) && !homes.contains(&&*name) && name != "carousel-tests" {
                wrong.push(format!("{name} imports {reserved}, which only {homes:?} may"));
            }
        }
        if name == "domain" {
            let stray = product.iter().filter(|dep| !DOMAIN_ALLOWS.contains(&&***dep));
            wrong.extend(stray.map(|dep| format!("domain imports {dep}: the core stays pure")));
        }
    }
    none(&wrong, "the import table (ARCHITECTURE.md) is broken");
}

#[test]
fn signatures_are_made_and_checked_only_in_pki() {
    let mut wrong = Vec::new();
    for file in product_code().filter(|file| !file.path.starts_with("shared/pki/")) {
        let uses = |line: &str| {
            line.contains("ring::signature") || (line.contains("use ring::{") && line.contains("signature"))
        };
        wrong.extend(lines_where(&file, uses));
    }
    none(&wrong, "ring's signing belongs to shared/pki");
}

#[test]
fn no_more_than_seventeen_crates_and_one_table_of_versions() {
    let manifests = manifests();
    assert!(
        manifests.len() <= 17,
        "crate number {} needs an ADR",
        manifests.len()
    );
    let mut wrong = Vec::new();
    for (name, manifest) in &manifests {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(kind).and_then(toml::Value::as_table) else {
                continue;
            };
            let loose = table.iter().filter(|(_, spec)| spec.get("workspace").is_none());
            wrong.extend(loose.map(|(dep, _)| format!("{name}: {dep} names its own version")));
        }
    }
    none(&wrong, "versions stand in the root Cargo.toml alone");
}

#[test]
fn features_for_tests_never_reach_the_product() {
    let for_tests = ["rule-switches", "conformance"];
    let mut wrong = Vec::new();
    for (name, manifest) in manifests()
        .into_iter()
        .filter(|(name, _)| name != "carousel-tests")
    {
        let Some(table) = manifest.get("dependencies").and_then(toml::Value::as_table) else {
            continue;
        };
        for (dep, spec) in table {
            let features = spec
                .get("features")
                .and_then(toml::Value::as_array)
                .into_iter()
                .flatten();
            let bad = features
                .filter_map(toml::Value::as_str)
                .filter(|feature| for_tests.contains(feature));
            wrong.extend(bad.map(|feature| format!("{name} turns on {feature} of {dep}")));
        }
    }
    none(
        &wrong,
        "what switches rules off or stands in for real parts belongs under dev-dependencies",
    );
}

#[test]
fn files_and_functions_are_short_enough_to_read() {
    let mut wrong = Vec::new();
    for file in source::files_with("rs") {
        let lines = file.text.lines().count();
        if lines > MAX_FILE_LINES {
            wrong.push(format!("{}: {lines} lines, at most {MAX_FILE_LINES}", file.path));
        }
        for function in source::functions(&file.text) {
            if function.length > MAX_FUNCTION_LINES {
                let source::Function { name, line, length } = function;
                wrong.push(format!(
                    "{}:{line}: fn {name} has {length} lines, at most {MAX_FUNCTION_LINES}",
                    file.path
                ));
            }
        }
    }
    none(&wrong, "split these");
}

#[test]
fn code_holds_no_stub_and_no_switched_off_test() {
    // Put together from parts, so that this file does not find itself.
    let forbidden = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["#[ig", "nore"].concat(),
        ["FIX", "ME"].concat(),
        ["XX", "X"].concat(),
    ];
    let mut wrong = Vec::new();
    for file in source::files_with("rs") {
        if file.path.ends_with("/mod.rs") {
            wrong.push(format!("{}: write foo.rs beside foo/ instead", file.path));
        }
        wrong.extend(lines_where(&file, |line| {
            forbidden.iter().any(|word| line.contains(word.as_str()))
        }));
    }
    none(&wrong, "finish or remove these");
}

#[test]
fn nothing_names_the_machine_it_was_written_on() {
    // In parts for the same reason.
    let mut forbidden: Vec<String> = [
        ["/ho", "me/"],
        ["/ro", "ot/"],
        ["/Us", "ers/"],
        ["/wo", "rk/"],
        ["py", "pi.org"],
        ["python", "hosted.org"],
        ["registry.npm", "js"],
        ["index.cra", "tes.io"],
        ["arti", "factory"],
    ]
    .iter()
    .map(|parts| parts.concat())
    .collect();
    forbidden.push(source::root().display().to_string());
    let mut wrong = Vec::new();
    for file in source::files() {
        wrong.extend(lines_where(&file, |line| {
            forbidden.iter().any(|word| names(line, word))
        }));
    }
    none(
        &wrong,
        "no absolute path and no registry's host belongs in a file",
    );
}

#[test]
fn links_in_documents_lead_somewhere() {
    let documents = source::files_with("md");
    let headings: BTreeMap<&str, BTreeSet<String>> = documents
        .iter()
        .map(|file| (&*file.path, anchors(&file.text)))
        .collect();
    let mut wrong = Vec::new();
    for file in &documents {
        let dir = Path::new(&file.path)
            .parent()
            .expect("a file lies in a directory");
        for link in links(&file.text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if path.is_empty() {
                file.path.clone()
            } else {
                normal(&dir.join(path))
            };
            if !source::root().join(&target).exists() {
                wrong.push(format!("{}: {link} does not exist", file.path));
            } else if !anchor.is_empty()
                && headings
                    .get(&*target)
                    .is_some_and(|found| !found.contains(anchor))
            {
                wrong.push(format!("{}: {link} has no such heading", file.path));
            }
        }
    }
    none(&wrong, "links lead nowhere");
}

#[test]
fn every_metric_is_documented_and_every_shown_metric_exists() {
    let path = source::root().join("docs/metrics.md");
    let page = fs::read_to_string(&path).expect("docs/metrics.md exists");
    let (begin, end) = ("<!-- table: begin -->\n", "<!-- table: end -->");
    let from = page.find(begin).expect("docs/metrics.md has its begin mark") + begin.len();
    let to = page.find(end).expect("docs/metrics.md has its end mark");
    let expected = format!("{}{}{}", &page[..from], metrics::markdown(), &page[to..]);
    if runtime::config::env("UPDATE").is_ok_and(|value| value.is_some()) {
        fs::write(&path, &expected).expect("docs/metrics.md is writable");
    } else {
        assert_eq!(
            page, expected,
            "docs/metrics.md differs from the table; run this test once with UPDATE=1"
        );
    }
    let mut wrong = Vec::new();
    for file in source::files() {
        let shows = file.path.starts_with("dashboards/") || file.path.contains("prometheus");
        let names = if shows {
            metric_names(&file.text)
        } else {
            used_metrics(&file)
        };
        wrong.extend(
            names
                .into_iter()
                .filter(|name| !is_metric(name))
                .map(|name| format!("{}: {name}", file.path)),
        );
    }
    none(
        &wrong,
        "these metrics are not in runtime::metrics::table::METRICS",
    );
}

#[test]
fn decision_records_are_numbered_without_a_gap() {
    let names = source::files_with("md")
        .into_iter()
        .filter_map(|file| Some(file.path.strip_prefix("docs/adr/")?.to_owned()));
    let mut numbers: Vec<usize> = names
        .map(|name| {
            name[..4]
                .parse()
                .unwrap_or_else(|_| panic!("{name}: begin with a number of four digits"))
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>(), "docs/adr");
}

/// `tests/defences/run` takes each of them out: its patch must still fit the code.
#[test]
fn every_defence_that_can_be_taken_out_still_stands() {
    let mut patches = source::files_with("patch");
    patches.retain(|patch| patch.path.starts_with("tests/defences/"));
    assert!(
        patches.len() > 20,
        "tests/defences holds {} patches",
        patches.len()
    );
    let wrong: Vec<String> = patches
        .into_iter()
        .filter(|patch| !stands(&patch.text))
        .map(|patch| patch.path)
        .collect();
    none(&wrong, "these patches fit nothing any more: make them anew");
}

/// Does each hunk of the patch, by the lines that it takes for granted, stand in its file once?
fn stands(patch: &str) -> bool {
    let Some((_, rest)) = patch.split_once("\n+++ b/") else {
        return false;
    };
    let Some((path, hunks)) = rest.split_once('\n') else {
        return false;
    };
    let text = fs::read_to_string(source::root().join(path)).unwrap_or_default();
    let mut hunks = hunks.split("@@ -").skip(1).peekable();
    hunks.peek().is_some()
        && hunks.all(|hunk| {
            let lines = hunk.lines().skip(1);
            let before = lines.filter_map(|line| line.strip_prefix([' ', '-']));
            let before: String = before.flat_map(|line| [line, "\n"]).collect();
            text.matches(&before).count() == 1
        })
}

/// Whether `line` has `word`; a path only where it begins one, not in the middle of an address.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !word.starts_with('/') || !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-'))
    })
}

fn none(wrong: &[String], what: &str) {
    assert!(wrong.is_empty(), "{what}:\n  {}\n", wrong.join("\n  "));
}

fn manifests() -> Vec<(String, toml::Value)> {
    let all = source::files()
        .into_iter()
        .filter(|file| file.path.ends_with("/Cargo.toml"));
    let parsed = all.map(|file| {
        let manifest: toml::Value =
            toml::from_str(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
        let name = manifest["package"]["name"]
            .as_str()
            .expect("a package has a name")
            .to_owned();
        (name, manifest)
    });
    parsed.collect()
}

fn dependencies(manifest: &toml::Value, kinds: &[&str]) -> BTreeSet<String> {
    let tables = kinds.iter().filter_map(|kind| manifest.get(kind)?.as_table());
    tables.flat_map(|table| table.keys().cloned()).collect()
}

fn product_code() -> impl Iterator<Item = Source> {
    let product = |file: &Source| file.path.starts_with("shared/") || file.path.starts_with("services/");
    source::files_with("rs").into_iter().filter(product)
}

fn lines_where(file: &Source, wrong: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = file.text.lines().enumerate().filter(|(_, line)| wrong(line));
    lines
        .map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim()))
        .collect()
}

/// The prose of a document: without fenced blocks and code in backticks, where brackets mean something else.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            kept.extend(line.split('`').step_by(2));
        }
        kept.push('\n');
    }
    kept
}

fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets
        .map(|(target, _)| target.split_whitespace().next().unwrap_or_default().to_owned())
        .collect()
}

/// The anchors of a document's headings, as the forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && line.starts_with('#') {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            found.insert(kept.collect::<String>().replace(' ', "-"));
        }
    }
    found
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.to_string_lossy().split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part.to_owned()),
        }
    }
    parts.join("/")
}

fn metric_names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("carousel_"))
        .map(str::to_owned)
        .collect()
}

/// Names given to the registry in code, in whichever line they stand after the call.
fn used_metrics(file: &Source) -> BTreeSet<String> {
    if !file.path.ends_with(".rs")
        || file.path.starts_with("tests/")
        || file.path == "shared/runtime/src/metrics.rs"
    {
        return BTreeSet::new();
    }
    let calls = [".counter(", ".gauge(", ".histogram("];
    let rests = calls.iter().flat_map(|call| file.text.split(call).skip(1));
    let names = rests.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
    names.map(str::to_owned).collect()
}

fn is_metric(name: &str) -> bool {
    let is_family = |suffix: &str| {
        name.strip_suffix(suffix)
            .is_some_and(|family| METRICS.iter().any(|metric| metric.name == family))
    };
    ["", "_bucket", "_sum", "_count"].into_iter().any(is_family)
}
