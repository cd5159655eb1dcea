//! Metrics, all of them in one table.
//!
//! A name that is not in [`table::METRICS`] cannot be used: so every metric has a kind, its labels and a sentence of
//! help, `docs/metrics.md` is held against the table by a test, and a dashboard cannot show what does not exist. No
//! label grows with the fleet or with time: nodes, positions and ids belong in the log, not here.

pub mod table;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

pub use prometheus::{Histogram, IntCounter, IntGauge};

use self::table::{Kind, METRICS, Metric};

/// The metrics of one process; cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    /// Each family is registered at its first use, so that a process shows only what it does.
    families: Mutex<BTreeMap<&'static str, Family>>,
}

#[derive(Debug, Clone)]
enum Family {
    Counter(IntCounterVec),
    Gauge(IntGaugeVec),
    Histogram(HistogramVec),
}

impl Metrics {
    /// An empty set, but for `carousel_build_info`.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let inner = Inner {
            registry: Registry::new(),
            families: Mutex::new(BTreeMap::new()),
        };
        let metrics = Self {
            inner: Arc::new(inner),
        };
        metrics.gauge("carousel_build_info", &[version]).set(1);
        metrics
    }

    /// The counter `name` with these label values, in the order of the table. Keep the handle where it is hot.
    ///
    /// # Panics
    /// When the table has no counter of that name with that many labels: a bug in the caller.
    #[must_use]
    pub fn counter(&self, name: &str, labels: &[&str]) -> IntCounter {
        match self.family(name, Kind::Counter, labels.len()) {
            Family::Counter(counters) => counters.with_label_values(labels),
            Family::Gauge(_) | Family::Histogram(_) => unreachable!("the kind was checked against the table"),
        }
    }

    /// The gauge `name` with these label values.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    #[must_use]
    pub fn gauge(&self, name: &str, labels: &[&str]) -> IntGauge {
        match self.family(name, Kind::Gauge, labels.len()) {
            Family::Gauge(gauges) => gauges.with_label_values(labels),
            Family::Counter(_) | Family::Histogram(_) => {
                unreachable!("the kind was checked against the table")
            }
        }
    }

    /// The gauge `name` with these label values is shown no more: what it was about is gone. Set again, it is back.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    pub fn forget_gauge(&self, name: &str, labels: &[&str]) {
        if let Family::Gauge(gauges) = self.family(name, Kind::Gauge, labels.len()) {
            // One that was never set is as good as forgotten.
            let _ = gauges.remove_label_values(labels);
        }
    }

    /// The histogram `name` (seconds) with these label values.
    ///
    /// # Panics
    /// As [`Metrics::counter`].
    #[must_use]
    pub fn histogram(&self, name: &str, labels: &[&str]) -> Histogram {
        match self.family(name, Kind::Histogram, labels.len()) {
            Family::Histogram(histograms) => histograms.with_label_values(labels),
            Family::Counter(_) | Family::Gauge(_) => unreachable!("the kind was checked against the table"),
        }
    }

    /// Everything in Prometheus' text format.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = Vec::new();
        let encoded = TextEncoder::new().encode(&self.inner.registry.gather(), &mut text);
        encoded.expect("writing to memory does not fail, and families come from the checked table");
        String::from_utf8(text).expect("names and labels are UTF-8")
    }

    fn family(&self, name: &str, kind: Kind, labels: usize) -> Family {
        let metric = METRICS.iter().find(|metric| metric.name == name);
        let metric =
            metric.unwrap_or_else(|| panic!("metric {name} is not in runtime::metrics::table::METRICS"));
        assert_eq!(
            metric.kind, kind,
            "metric {name} is used as another kind than the table says"
        );
        assert_eq!(
            metric.labels.len(),
            labels,
            "metric {name} has the labels {:?}",
            metric.labels
        );
        // A poisoned lock means a panic elsewhere; the map is whole at every moment.
        let mut families = self.inner.families.lock().unwrap_or_else(PoisonError::into_inner);
        families
            .entry(metric.name)
            .or_insert_with(|| self.register(metric))
            .clone()
    }

    fn register(&self, metric: &Metric) -> Family {
        let opts = Opts::new(metric.name, metric.help);
        let valid = "the table's names, labels and help are valid: a test makes each of them";
        match metric.kind {
            Kind::Counter => {
                let counters = IntCounterVec::new(opts, metric.labels).expect(valid);
                self.keep(Box::new(counters.clone()));
                Family::Counter(counters)
            }
            Kind::Gauge => {
                let gauges = IntGaugeVec::new(opts, metric.labels).expect(valid);
                self.keep(Box::new(gauges.clone()));
                Family::Gauge(gauges)
            }
            Kind::Histogram => {
                let opts = HistogramOpts::from(opts).buckets(table::SECONDS.to_vec());
                let histograms = HistogramVec::new(opts, metric.labels).expect(valid);
                self.keep(Box::new(histograms.clone()));
                Family::Histogram(histograms)
            }
        }
    }

    fn keep(&self, collector: Box<dyn Collector>) {
        self.inner
            .registry
            .register(collector)
            .expect("each name is registered once, under the lock");
    }
}

/// The table as the Markdown of `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| metric | kind | labels | what it says |\n|---|---|---|---|\n");
    for Metric {
        name,
        kind,
        labels,
        help,
    } in METRICS
    {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = labels.join(", ");
        writeln!(text, "| `{name}` | {} | {labels} | {help} |", kind.word())
            .expect("a string takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_table_can_be_made_and_is_shown_with_its_help() {
        let metrics = Metrics::new("0.0.0");
        for metric in METRICS {
            let labels = vec!["x"; metric.labels.len()];
            match metric.kind {
                Kind::Counter => metrics.counter(metric.name, &labels).inc(),
                Kind::Gauge => metrics.gauge(metric.name, &labels).set(1),
                Kind::Histogram => metrics.histogram(metric.name, &labels).observe(0.1),
            }
        }
        let text = metrics.encode();
        for metric in METRICS {
            assert!(
                text.contains(&format!("# HELP {} {}", metric.name, metric.help)),
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn a_gauge_that_is_forgotten_is_shown_no_more_and_its_family_goes_on() {
        let metrics = Metrics::new("0.0.0");
        let (name, labels) = ("carousel_agent_certificate_expiry_seconds", ["host", "ssh"]);
        metrics.forget_gauge(name, &labels);
        metrics.gauge(name, &labels).set(7);
        metrics.gauge(name, &["host", "client"]).set(8);
        metrics.forget_gauge(name, &labels);
        let text = metrics.encode();
        assert!(!text.contains("\"ssh\"") && text.contains("\"client\""), "{text}");
        metrics.gauge(name, &labels).set(9);
        assert!(metrics.encode().contains("\"ssh\""));
    }

    #[test]
    fn names_are_unique_sorted_and_follow_the_conventions() {
        for pair in METRICS.windows(2) {
            assert!(
                pair[0].name < pair[1].name,
                "{} comes after {}",
                pair[0].name,
                pair[1].name
            );
        }
        for Metric {
            name,
            kind,
            labels,
            help,
        } in METRICS
        {
            assert!(name.starts_with("carousel_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(
                name.ends_with("_seconds"),
                *kind == Kind::Histogram || help.contains("in seconds"),
                "{name}"
            );
            assert!(
                help.ends_with('.') && !help.contains(['|', '\n', '\\']),
                "{name}: {help}"
            );
            for label in *labels {
                let grows =
                    ["node", "hostname", "id", "position", "serial", "user", "address"].contains(label);
                assert!(
                    !grows,
                    "{name}: the label {label} grows with the fleet or with time"
                );
            }
        }
    }

    #[test]
    fn two_users_of_one_name_count_together() {
        let metrics = Metrics::new("0.0.0");
        metrics.counter("carousel_log_gaps_total", &[]).inc();
        metrics.clone().counter("carousel_log_gaps_total", &[]).inc();
        assert!(metrics.encode().contains("carousel_log_gaps_total 2"));
    }

    #[test]
    #[should_panic(expected = "is not in runtime::metrics::table::METRICS")]
    fn an_unknown_name_is_a_bug() {
        let _ = Metrics::new("0.0.0").counter("carousel_surprise_total", &[]);
    }
}
