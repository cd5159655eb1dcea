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

/// The counts since the last summary.
#[derive(Debug)]
pub(crate) struct Strangers {
    metrics: Metrics,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    alerts: KeyedLimit<String>,
}

impl Strangers {
    /// Nothing counted yet.
    pub(crate) fn new(metrics: Metrics, now: Duration) -> Self {
        let alerts = KeyedLimit::new(
            Rate {
                burst: 1,
                per_second: 1.0 / 60.0,
            },
            1_024,
            now,
        );
        Self {
            metrics,
            counts: Mutex::default(),
            alerts,
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
    pub(crate) fn alert(&self, kind: &'static str, uri: &str, from: IpAddr, why: &str, now: Duration) {
        self.metrics
            .counter("carousel_gateway_alerts_total", &[kind])
            .inc();
        if self.alerts.try_take(format!("{kind} {uri}"), now).is_ok() {
            tracing::error!(kind, uri, %from, why, "ALERT: a certificate was refused that should not exist");
        }
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
