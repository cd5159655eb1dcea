//! The agent's state, for the program around it and for `carousel-agent status`.

use domain::{
    AuthorityType,
    reconcile::{Leaf, Proof},
};

use super::Engine;
use crate::{
    disk::credential::Credential,
    error::AgentError,
    status::{AgentStatus, LeafStatus, REFRESH_MS, Stage, TypeStatus},
};

impl Engine {
    /// Publishes the state if it changed, and writes it to disk then and every few seconds.
    pub(super) fn publish(&mut self, ended: Option<&Result<(), AgentError>>) {
        let mut status = self.status();
        self.count(&status);
        if let Some(ended) = ended {
            status.stage = Stage::Stopped;
            status.connected = false;
            if let Err(error) = ended {
                status.trouble = Some(error.to_string());
            }
        }
        let now = self.clock.monotonic();
        let is_same = |before: &AgentStatus| {
            AgentStatus {
                time: status.time,
                ..before.clone()
            } == status
        };
        let is_saved = self.saved.as_ref().is_some_and(|(before, at)| {
            is_same(before) && now.saturating_sub(*at).as_millis() < u128::from(REFRESH_MS)
        });
        if is_saved {
            return;
        }
        self.shared.status.send_if_modified(|shown| {
            let is_new = !is_same(shown);
            shown.clone_from(&status);
            is_new
        });
        if !self.disk.is_nowhere()
            && let Err(error) = status.save(self.disk.root())
        {
            tracing::warn!(%error, "the status file could not be written");
        }
        self.saved = Some((status, now));
    }

    /// Shows what changes with time, and whether a gateway is heard.
    fn count(&self, status: &AgentStatus) {
        let Some(metrics) = &self.config.metrics else {
            return;
        };
        metrics
            .gauge("carousel_agent_synced", &[])
            .set(i64::from(status.synced));
        for (role, leaf) in status.leaves() {
            let (name, labels) = (
                "carousel_agent_certificate_expiry_seconds",
                [AuthorityType::Host.name(), role],
            );
            let Some(leaf) = leaf else {
                metrics.forget_gauge(name, &labels);
                continue;
            };
            // Of one that has expired it is how long ago, as a negative number.
            let left_ms = leaf.not_after.0 - status.time.0;
            metrics.gauge(name, &labels).set(left_ms / 1000);
        }
    }

    /// Counts a generation by how it came to be the live one.
    pub(super) fn count_installed(&self, outcome: &str) {
        let Some(metrics) = &self.config.metrics else {
            return;
        };
        for authority_type in self.installed.material.generation.trusted.keys() {
            let labels = [authority_type.name(), outcome];
            metrics.counter("carousel_agent_installs_total", &labels).inc();
        }
    }

    fn status(&self) -> AgentStatus {
        let installed = &self.installed.material;
        let proven = self.proof == Proof::Passed;
        let of_type = |(t, row): (&AuthorityType, &domain::desired::DesiredAuthority)| {
            let held_revision = installed
                .generation
                .revisions
                .get(t)
                .is_some_and(|held| *held >= row.revision);
            let issuer = |c: &Option<Credential>| c.as_ref().map(|c| c.leaf.issuer);
            let leaves_fit = row
                .client_issuer
                .is_none_or(|i| issuer(&installed.client) == Some(i))
                && row
                    .server_issuer
                    .is_none_or(|i| issuer(&installed.server) == Some(i))
                && (installed.ssh.as_ref()).is_none_or(|c| Some(c.leaf.issuer) == row.ssh_issuer);
            let trusts = installed
                .generation
                .trusted
                .get(t)
                .is_some_and(|held| *held == row.trusted);
            let held = proven && held_revision && trusts && leaves_fit;
            (
                *t,
                TypeStatus {
                    phase: row.phase,
                    revision: row.revision,
                    held,
                    trusted: row.trusted.len(),
                },
            )
        };
        let leaf = |leaf: &Option<Leaf>| {
            leaf.as_ref().map(|leaf| LeafStatus {
                issuer: leaf.issuer,
                not_before: leaf.not_before,
                not_after: leaf.not_after,
            })
        };
        AgentStatus {
            stage: if self.serving {
                Stage::Serving
            } else {
                Stage::Syncing
            },
            node: Some(self.identity.node),
            cluster: Some(self.identity.cluster.clone()),
            connected: self.connected,
            synced: self.synced,
            listen: self.listen,
            generation: self.installed.number,
            proven,
            authorities: self.told.desired.authorities.iter().map(of_type).collect(),
            client: leaf(&installed.generation.client),
            server_certificate: leaf(&installed.generation.server),
            ssh_certificate: leaf(&installed.generation.ssh),
            reported: self.report.position(),
            failure: self.complaint(),
            trouble: self.trouble.clone(),
            ..AgentStatus::starting(
                self.identity.hostname.clone(),
                self.config.servers[self.server].to_string(),
                self.now(),
            )
        }
    }
}
