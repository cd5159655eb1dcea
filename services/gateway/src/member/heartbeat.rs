//! The heartbeat: a lease beside the log, read back before it counts.
//!
//! It beats beside whatever else the member does: waiting for the signer must not look like silence.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::app::App;

/// How often it beats.
const EVERY: Duration = Duration::from_secs(5);
/// How long a lease outlives its last renewal: longer than the orchestrator's patience, so that what ends
/// a member is the orchestrator's clock and not the store's.
const TTL: Duration = Duration::from_secs(60);
/// How long one heartbeat may take.
const IN_TIME: Duration = Duration::from_secs(4);

/// Beats for one process.
pub(super) struct Heart {
    app: Arc<App>,
    key: String,
    /// Tells this process's heartbeats from another one's under the same id.
    process: String,
}

/// Why a heartbeat was not read back.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Missed(String);

impl Heart {
    pub(super) fn new(app: Arc<App>) -> Self {
        let key = api::member_lease(app.config.member);
        let process = execution::fresh_id(app.now()).to_string();
        Self { app, key, process }
    }

    /// Beats until it is dropped. A heartbeat that is missed is said, and nothing else: the right to serve
    /// ends by itself 20 s after the last one that was read back.
    pub(super) async fn beat_on(&self) {
        let mut every = tokio::time::interval(EVERY);
        loop {
            every.tick().await;
            if let Err(missed) = self.beat().await {
                tracing::warn!(%missed, "a heartbeat was not read back");
            }
        }
    }

    /// Sends one heartbeat and reads it back; from then on its sending counts.
    pub(super) async fn beat(&self) -> Result<(), Missed> {
        let sent = self.app.serving.stamp();
        let value = Bytes::from(format!("{} {}", self.process, sent.as_millis()));
        let late = || Missed(format!("the log did not answer within {} s", IN_TIME.as_secs()));
        tokio::time::timeout(IN_TIME, self.exchange(value))
            .await
            .map_err(|_| late())??;
        self.app.serving.heard(sent);
        Ok(())
    }

    async fn exchange(&self, value: Bytes) -> Result<(), Missed> {
        let log = self.app.fold.log();
        log.put_lease(&self.key, value.clone(), TTL)
            .await
            .map_err(|e| Missed(e.to_string()))?;
        let leases = log.leases().await.map_err(|e| Missed(e.to_string()))?;
        match leases.iter().find(|lease| lease.key == self.key) {
            Some(lease) if lease.value == value => Ok(()),
            Some(_) => {
                let text = "another process writes this member's heartbeat: two share its data directory";
                Err(Missed(text.into()))
            }
            None => Err(Missed("the heartbeat was written but not found".into())),
        }
    }

    /// Takes the lease away at an orderly stop; it would vanish by itself.
    pub(super) async fn stop(&self) {
        let dropping = self.app.fold.log().drop_lease(&self.key);
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(1), dropping).await {
            tracing::debug!(%error, "the heartbeat could not be removed");
        }
    }
}
