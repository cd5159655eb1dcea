//! The heartbeat: a lease beside the log, read back before it counts.

use std::time::Duration;

use bytes::Bytes;

use super::{Member, Trouble};

/// How long a lease outlives its last renewal: longer than the orchestrator's patience, so that what ends
/// a member is the orchestrator's clock and not the store's.
const TTL: Duration = Duration::from_secs(60);
/// How long one heartbeat may take.
const IN_TIME: Duration = Duration::from_secs(4);

impl Member {
    /// Sends a heartbeat and reads it back; from then on its sending counts.
    pub(super) async fn beat(&self) -> Result<(), Trouble> {
        let sent = self.app.serving.stamp();
        let key = api::member_lease(self.app.config.member);
        let value = Bytes::from(format!("{} {}", self.boot, sent.as_millis()));
        let log = self.app.fold.log();
        let beating = async {
            log.put_lease(&key, value.clone(), TTL)
                .await
                .map_err(|e| e.to_string())?;
            let leases = log.leases().await.map_err(|e| e.to_string())?;
            match leases.iter().find(|lease| lease.key == key) {
                Some(lease) if lease.value == value => Ok(()),
                Some(_) => {
                    Err("another process writes this member's heartbeat: two share its data directory".into())
                }
                None => Err("the heartbeat was written but not found".to_owned()),
            }
        };
        match tokio::time::timeout(IN_TIME, beating).await {
            Ok(Ok(())) => {
                self.app.serving.heard(sent);
                Ok(())
            }
            Ok(Err(why)) => Err(Trouble::Heartbeat(why)),
            Err(_) => Err(Trouble::Heartbeat(format!(
                "the log did not answer within {} s",
                IN_TIME.as_secs()
            ))),
        }
    }

    /// Takes the lease away at an orderly stop; it would vanish by itself.
    pub(super) async fn forget_heartbeat(&self) {
        let key = api::member_lease(self.app.config.member);
        let dropping = self.app.fold.log().drop_lease(&key);
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(1), dropping).await {
            tracing::debug!(%error, "the heartbeat could not be removed");
        }
    }
}
