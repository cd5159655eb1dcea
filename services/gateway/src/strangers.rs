//! Callers that nobody knows: counted, and summed up in one line a minute, so that an attacker can fill
//! neither the log nor a disk.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use runtime::{
    metrics::Metrics,
    ratelimit::{KeyedLimit, Rate},
};

/// How often the sum is written down.
pub(crate) const SUMMARY_EVERY: Duration = Duration::from_secs(60);

/// Why a certificate must not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alert {
    /// Its chain verifies, and the log does not know it.
    Unknown,
    /// A later one of the same node has been in use.
    Superseded,
}

/// The counts since the last summary.
#[derive(Debug)]
pub(crate) struct Strangers {
    metrics: Metrics,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    superseded: KeyedLimit<String>,
    others: KeyedLimit<String>,
}

impl Strangers {
    /// Nothing counted yet.
    pub(crate) fn new(metrics: Metrics, now: Duration) -> Self {
        let once_a_minute = Rate {
            burst: 1,
            per_second: 1.0 / 60.0,
        };
        let table = || KeyedLimit::new(once_a_minute, 1_024, now);
        Self {
            metrics,
            counts: Mutex::default(),
            superseded: table(),
            others: table(),
        }
    }

    /// An unauthenticated failure: a handshake, a join, a request without a certificate.
    pub(crate) fn count(&self, reason: &'static str) {
        self.metrics
            .counter("carousel_gateway_unauthenticated_total", &[reason])
            .inc();
        // The map is whole at every moment.
        *self
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(reason)
            .or_default() += 1;
    }

    /// A certificate that must not be there: its chain verifies, but the log does not know it or a later one
    /// of the same node has been in use. Always counted; written down once a minute for each holder.
    ///
    /// The kinds do not share a table: a stolen authority's key mints names without end, but only a certificate
    /// that the log knows is superseded.
    pub(crate) fn alert(&self, kind: Alert, uri: &str, from: IpAddr, why: &str, now: Duration) -> bool {
        let (kind, table) = match kind {
            Alert::Unknown => ("unknown", &self.others),
            Alert::Superseded => ("superseded", &self.superseded),
        };
        self.metrics
            .counter("carousel_gateway_alerts_total", &[kind])
            .inc();
        let is_first = table.try_take(uri.to_owned(), now).is_ok();
        if is_first {
            tracing::error!(kind, uri, %from, why, "ALERT: a certificate was refused that should not exist");
        }
        is_first
    }

    /// Writes the sum down, if there is something to say.
    pub(crate) fn summarise(&self) {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        if !counts.is_empty() {
            let total: u64 = counts.values().sum();
            tracing::warn!(
                total,
                ?counts,
                "unauthenticated requests were refused in the last minute"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_thief_makes_up_do_not_drown_the_alert_about_a_node() {
        let now = Duration::from_secs(1_000);
        let strangers = Strangers::new(Metrics::new("test"), now);
        let from = IpAddr::from([192, 0, 2, 7]);
        let written = (0..5_000)
            .filter(|n| strangers.alert(Alert::Unknown, &format!("carousel://c/node/{n}"), from, "", now))
            .count();
        assert!(
            written < 2_000,
            "a flood is not written down name by name: {written}"
        );
        let about = |n: u32| {
            strangers.alert(
                Alert::Superseded,
                &format!("carousel://c/node/{n}"),
                from,
                "",
                now,
            )
        };
        assert!(about(1) && about(2), "each node's alert is");
        assert!(!about(1), "once a minute");
    }
}
