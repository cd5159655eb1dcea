//! The log's own line in `/readyz`: can it be read to its end right now?
//!
//! Every service waits for the log in its own way and says so in its own words; whoever is woken at night wants to know
//! first whether it is the log.

use std::time::Duration;

use eventlog::SharedLog;
use runtime::readiness::Part;
use tokio_util::sync::CancellationToken;

/// How long between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Looks until it is stopped. A log that is away makes the process not ready, and never not alive: a restart of this
/// process does not bring it back.
pub(super) async fn watch(log: SharedLog, part: Part, stop: CancellationToken) {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => look(&log, &part).await,
        }
    }
}

async fn look(log: &SharedLog, part: &Part) {
    match tokio::time::timeout(PATIENCE, log.last_position()).await {
        Ok(Ok(_)) => part.ready(),
        Ok(Err(error)) => part.waiting(&format!("the log, which cannot be read: {error}")),
        Err(_) => part.waiting("the log, which does not answer"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use eventlog::{EventLog, MemoryLog};
    use runtime::readiness::Readiness;

    use super::*;

    #[tokio::test]
    async fn the_log_has_a_line_of_its_own_that_falls_back_when_it_cannot_be_read() {
        let (log, readiness) = (Arc::new(MemoryLog::new()), Readiness::new());
        let part = readiness.part("log", "its first answer");
        let shared: SharedLog = log.clone();
        look(&shared, &part).await;
        assert_eq!(readiness.marked(), "[+]log ok\n");
        log.close().await;
        look(&shared, &part).await;
        assert!(
            readiness
                .marked()
                .starts_with("[-]log waiting for the log, which")
        );
        assert!(readiness.is_alive());
    }
}
