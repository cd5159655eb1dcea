//! The durations of a cluster.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};

/// Durations of a cluster, fixed when it is made; `demo` and tests use shorter ones and say so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Settings {
    /// Life of a node's certificates.
    pub node_ttl_ms: u64,
    /// Life of an operator's certificates.
    pub user_ttl_ms: u64,
    /// How long after its expiry a certificate still allows a recovery.
    pub max_offline_ms: u64,
    /// How long sessions on the retiring issuer may drain.
    pub drain_timeout_ms: u64,
    /// Max-age of the published JWKS: the time before a new JWT key may sign.
    pub jwks_max_age_ms: u64,
    /// Life of a token signed by a JWT authority.
    pub jwt_ttl_ms: u64,
    /// May nodes and members be on loopback? Only where the gateway itself is.
    pub allow_loopback: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_ttl_ms: DAY_MS,
            user_ttl_ms: 12 * HOUR_MS,
            max_offline_ms: 30 * DAY_MS,
            drain_timeout_ms: 30 * SECOND_MS,
            jwks_max_age_ms: 330 * SECOND_MS,
            jwt_ttl_ms: 15 * MINUTE_MS,
            allow_loopback: false,
        }
    }
}

/// A setting that no cluster can live with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{name} is {found} ms, and may be {least} to {most} ms")]
pub struct UnusableSetting {
    /// The setting's name, as in [`Settings`].
    pub name: &'static str,
    /// What it is.
    pub found: u64,
    /// The least that it may be.
    pub least: u64,
    /// The most that it may be.
    pub most: u64,
}

impl Settings {
    /// Settings are for a cluster's life, so that one mistyped would be too. Looked at where a cluster is made, and not
    /// where it is decided: a log of before keeps its settings, and is decided again as it was.
    ///
    /// # Errors
    /// The first that is out of bounds: certificates live a second to a year (an authority lives ten), whoever was
    /// offline is let in again for up to ten years, and a phase does not wait longer than a day for sessions and for
    /// tokens that were handed out.
    pub fn check(&self) -> Result<(), UnusableSetting> {
        let life = SECOND_MS..=366 * DAY_MS;
        let wait = 0..=DAY_MS;
        let bounds = [
            ("node_ttl_ms", self.node_ttl_ms, life.clone()),
            ("user_ttl_ms", self.user_ttl_ms, life),
            ("max_offline_ms", self.max_offline_ms, 0..=3_650 * DAY_MS),
            ("drain_timeout_ms", self.drain_timeout_ms, wait.clone()),
            ("jwks_max_age_ms", self.jwks_max_age_ms, wait.clone()),
            ("jwt_ttl_ms", self.jwt_ttl_ms, wait),
        ];
        let unusable = bounds
            .into_iter()
            .find(|(_, found, usable)| !usable.contains(found));
        unusable.map_or(Ok(()), |(name, found, usable)| {
            Err(UnusableSetting {
                name,
                found,
                least: *usable.start(),
                most: *usable.end(),
            })
        })
    }
}
