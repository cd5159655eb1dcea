//! The dashboards: only metrics and labels that exist, and everything that an operator watches.

use std::collections::BTreeSet;

use runtime::metrics::table::{METRICS, Metric};
use serde_json::Value;

use crate::kept;

/// What must be on it: rotations, gate, held, certificates issued, refusals, log position, members.
const SHOWN: [&str; 8] = [
    "carousel_rotation_phase",
    "carousel_rotation_nodes",
    "carousel_rotation_held",
    "carousel_signer_certificates_total",
    "carousel_commands_total",
    "carousel_signer_refused_total",
    "carousel_log_position",
    "carousel_members",
];

/// Labels that Prometheus adds, and the bucket of a histogram.
const GIVEN: [&str; 3] = ["instance", "job", "le"];

#[test]
fn the_dashboard_shows_what_an_operator_watches() {
    let all: String = expressions(&dashboard())
        .into_iter()
        .map(|(_, expression)| expression)
        .collect();
    for name in SHOWN {
        assert!(all.contains(name), "{name} is not shown");
    }
}

#[test]
fn every_expression_uses_metrics_with_the_labels_they_have() {
    let mut wrong = Vec::new();
    for (title, expression) in expressions(&dashboard()) {
        let metrics = metrics_in(&expression);
        if metrics.is_empty() {
            wrong.push(format!("{title}: no metric of ours in {expression}"));
        }
        let known: BTreeSet<&str> = metrics
            .iter()
            .flat_map(|metric| metric.labels.iter().copied())
            .chain(GIVEN)
            .collect();
        for label in labels_in(&expression) {
            if !known.contains(&*label) {
                wrong.push(format!("{title}: no metric in {expression} has a label {label}"));
            }
        }
    }
    kept::none(
        wrong,
        "correct the dashboard, or docs/metrics.md's table in the code",
    );
}

/// Grafana draws a panel over another without complaint.
#[test]
fn every_panel_has_a_title_an_explanation_an_id_and_a_place_of_its_own() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("a list of panels");
    let (mut ids, mut cells) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        let title = panel["title"].as_str().unwrap_or_default();
        assert!(!title.is_empty(), "{panel}");
        assert!(
            ids.insert(panel["id"].as_u64().expect("an id")),
            "{title}: its id is used twice"
        );
        let side = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
        assert!(side("x") + side("w") <= 24, "{title} is wider than the page");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(cells.insert((x, y)), "{title} lies over another panel");
            }
        }
        if panel["type"] != "row" {
            let explanation = panel["description"].as_str().unwrap_or_default();
            assert!(explanation.ends_with('.'), "{title}: {explanation:?}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

fn dashboard() -> Value {
    serde_json::from_str(&kept::text("dashboards/carousel.json")).expect("a dashboard in JSON")
}

/// Every expression with the title of its panel.
fn expressions(dashboard: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("a list of panels") {
        let title = panel["title"].as_str().unwrap_or_default();
        let targets = panel["targets"].as_array().into_iter().flatten();
        found.extend(targets.map(|target| {
            let expression = target["expr"].as_str().expect("a target has an expression");
            (title.to_owned(), expression.to_owned())
        }));
    }
    assert!(!found.is_empty(), "the dashboard shows nothing");
    found
}

fn metrics_in(expression: &str) -> Vec<&'static Metric> {
    let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let base = |word: &str| {
        let family = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find_map(|suffix| word.strip_suffix(suffix));
        METRICS
            .iter()
            .find(|metric| metric.name == word || family == Some(metric.name))
    };
    words.filter_map(base).collect()
}

/// The labels in selectors (`{a="b"}`) and groupings (`by (a, b)`).
fn labels_in(expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let inside = |open: char, close: char, text: &str| -> Vec<String> {
        text.split(open)
            .skip(1)
            .filter_map(|rest| Some(rest.split(close).next()?.to_owned()))
            .collect()
    };
    for selector in inside('{', '}', expression) {
        let conditions = selector.split(',').map(|condition| {
            condition
                .trim()
                .split(['=', '!', '~'])
                .next()
                .unwrap_or_default()
                .to_owned()
        });
        found.extend(conditions);
    }
    for grouped in expression.split(" by ").skip(1) {
        let names = inside('(', ')', grouped).into_iter().next().unwrap_or_default();
        found.extend(names.split(',').map(|name| name.trim().to_owned()));
    }
    found
}
