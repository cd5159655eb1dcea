//! What an agent says of itself: to the program that runs it, and in `D/status.json` to a person.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use domain::{AuthorityType, ClusterName, Hostname, NodeId, Phase, Position, Timestamp, fact::Failure};
use runtime::harden;
use serde::{Deserialize, Serialize};

use crate::disk::{self, DiskError};

/// A running agent writes its status at least this often; one that is older is stuck.
pub const REFRESH_MS: u64 = 10_000;
/// A certificate that ends within this share of its life (in thousandths) was not renewed when it should.
const LATE_PERMILLE: u64 = 250;

/// What the agent is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// It has not joined yet.
    #[default]
    Joining,
    /// It looks for a gateway, or takes what the current row asks for, before it serves.
    Syncing,
    /// Its listener is open and its hooks run.
    Serving,
    /// It has ended.
    Stopped,
}

/// One certificate in use.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LeafStatus {
    /// The pin of the authority that signed it.
    pub issuer: domain::SpkiPin,
    /// The start of its life.
    pub not_before: Timestamp,
    /// The end of its life.
    pub not_after: Timestamp,
}

/// One authority type, as it is installed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TypeStatus {
    /// The phase that the newest row names.
    pub phase: Phase,
    /// The revision of that row.
    pub revision: Position,
    /// Is the installed trust, with the certificates of `host`, exactly that row, and proven?
    pub held: bool,
    /// How many authorities are trusted.
    pub trusted: usize,
}

/// The state of an agent, for people and for the program that runs it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The format of the file.
    pub version: u32,
    /// When it was written.
    pub time: Timestamp,
    /// The process.
    pub pid: u32,
    /// What it is doing.
    pub stage: Stage,
    /// The name that it joins or joined under.
    pub hostname: Hostname,
    /// The node, once it has joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// The cluster, once it has joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// The gateway that it tries or holds a stream to.
    pub server: String,
    /// Does it hold a stream to a gateway now?
    pub connected: bool,
    /// Has a gateway named the current row since this start?
    pub synced: bool,
    /// Where the probe endpoint listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// The live generation's number.
    pub generation: u64,
    /// Did the live generation pass its proof?
    pub proven: bool,
    /// Per authority type.
    pub authorities: BTreeMap<AuthorityType, TypeStatus>,
    /// What it presents as a TLS client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<LeafStatus>,
    /// What it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_certificate: Option<LeafStatus>,
    /// What it keeps for sshd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_certificate: Option<LeafStatus>,
    /// The position of the newest row whose facts a gateway has taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported: Option<Position>,
    /// What keeps it from the desired state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The last thing that went wrong with a gateway, cleared by the next success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl AgentStatus {
    /// The status of an agent that has just been started.
    pub fn starting(hostname: Hostname, server: String, time: Timestamp) -> Self {
        Self {
            version: disk::FORMAT_VERSION,
            time,
            pid: std::process::id(),
            stage: Stage::Joining,
            hostname,
            node: None,
            cluster: None,
            server,
            connected: false,
            synced: false,
            listen: None,
            generation: 0,
            proven: false,
            authorities: BTreeMap::new(),
            client: None,
            server_certificate: None,
            ssh_certificate: None,
            reported: None,
            failure: None,
            trouble: None,
        }
    }

    /// The certificates in use, by what they are called in metrics and complaints.
    pub(crate) fn leaves(&self) -> [(&'static str, &Option<LeafStatus>); 3] {
        [
            ("client", &self.client),
            ("server", &self.server_certificate),
            ("ssh", &self.ssh_certificate),
        ]
    }

    /// Reads what the agent of a data directory last wrote; none if there never was one.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn load(data_dir: &Path) -> Result<Option<Self>, DiskError> {
        disk::read_json(&data_dir.join("status.json"))
    }

    /// Writes it for `carousel-agent status`: at once, but not durably, since no start reads it.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn save(&self, data_dir: &Path) -> Result<(), DiskError> {
        let (path, temporary) = (data_dir.join("status.json"), data_dir.join(".status.tmp"));
        let bytes =
            serde_json::to_vec_pretty(self).expect("a status has string keys only and can be written");
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(harden::OWNER_ONLY)
            .open(&temporary);
        made.and_then(|mut file| file.write_all(&bytes))
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|source| disk::io_error("written", &path, source))
    }

    /// What is wrong, one line each; empty when all is well. For `status --check`.
    pub fn complaints(&self, is_running: bool, now: Timestamp) -> Vec<String> {
        if !is_running {
            return vec!["no agent runs on this data directory; start it".into()];
        }
        let mut found = Vec::new();
        let mut complain = |is_so: bool, text: String| {
            if is_so {
                found.push(text);
            }
        };
        let age_ms = now.since_ms(self.time);
        complain(
            age_ms > 3 * REFRESH_MS,
            format!(
                "the agent has said nothing for {} s; look at its log",
                age_ms / 1000
            ),
        );
        complain(self.node.is_none(), "the agent has not joined yet".into());
        complain(
            self.node.is_some() && self.stage != Stage::Serving,
            "the agent does not serve yet: it has not reached a gateway that it trusts".into(),
        );
        complain(
            self.stage == Stage::Serving && !self.synced,
            "unsynced: it serves what it has, because no gateway has answered since its start".into(),
        );
        complain(
            self.synced && !self.connected,
            format!("no stream to {} now", self.server),
        );
        for (authority_type, of) in &self.authorities {
            complain(
                !of.held,
                format!(
                    "{authority_type}: the row of {} is not installed and proven yet",
                    of.phase
                ),
            );
        }
        for (role, leaf) in self.leaves() {
            let Some(leaf) = leaf else { continue };
            let left_ms = leaf.not_after.since_ms(now);
            let life_ms = leaf.not_after.since_ms(leaf.not_before);
            complain(
                left_ms == 0,
                format!("the {role} certificate expired {}", leaf.not_after),
            );
            let is_late = left_ms > 0 && left_ms.saturating_mul(1000) < life_ms.saturating_mul(LATE_PERMILLE);
            complain(
                is_late,
                format!(
                    "the {role} certificate ends {} and has not been renewed",
                    leaf.not_after
                ),
            );
        }
        if let Some(failure) = &self.failure {
            complain(
                true,
                format!(
                    "{} failed {} times: {}",
                    failure.step, failure.count, failure.detail
                ),
            );
        }
        found
    }

    /// The status as a person reads it, without a line feed at the end.
    pub fn text(&self) -> String {
        let mut lines = vec![
            format!(
                "Node      {} ({})",
                self.hostname,
                self.node.map_or_else(|| "not joined".into(), |n| n.to_string())
            ),
            format!(
                "Cluster   {}",
                self.cluster.as_ref().map_or("-", ClusterName::as_str)
            ),
            format!(
                "Gateway   {} ({})",
                self.server,
                if self.connected {
                    "connected"
                } else {
                    "not connected"
                }
            ),
            format!(
                "Listens   {}",
                self.listen.map_or_else(|| "-".into(), |a| a.to_string())
            ),
        ];
        for (authority_type, of) in &self.authorities {
            let held = if of.held { "held" } else { "not held yet" };
            lines.push(format!(
                "{:<9} {}, {held}, {} trusted",
                authority_type.name(),
                of.phase,
                of.trusted
            ));
        }
        for ((_, leaf), role) in self.leaves().into_iter().zip(["Client", "Server", "SSH"]) {
            if let Some(leaf) = leaf {
                lines.push(format!(
                    "{role:<9} by {} until {}",
                    leaf.issuer.short(),
                    leaf.not_after
                ));
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> AgentStatus {
        let mut status =
            AgentStatus::starting("n1".parse().expect("a name"), "https://x:1".into(), Timestamp(0));
        let leaf = LeafStatus {
            issuer: domain::SpkiPin([1; 32]),
            not_before: Timestamp(0),
            not_after: Timestamp(100_000),
        };
        status.stage = Stage::Serving;
        status.node = Some(NodeId(uuid::Uuid::from_u128(1)));
        (status.synced, status.connected) = (true, true);
        status.client = Some(leaf);
        status
    }

    #[test]
    fn a_healthy_agent_has_no_complaint_and_each_fault_has_its_own() {
        assert_eq!(
            healthy().complaints(true, Timestamp(20_000)),
            Vec::<String>::new()
        );
        assert_eq!(healthy().complaints(false, Timestamp(0)).len(), 1);
        let late = healthy().complaints(true, Timestamp(29_000));
        assert_eq!(late, Vec::<String>::new());
        let mut unsynced = healthy();
        (unsynced.synced, unsynced.connected) = (false, false);
        assert!(unsynced.complaints(true, Timestamp(0))[0].starts_with("unsynced"));
        let mut expired = healthy();
        expired.time = Timestamp(100_000);
        assert!(expired.complaints(true, Timestamp(100_000))[0].contains("expired"));
        expired.time = Timestamp(80_000);
        assert!(expired.complaints(true, Timestamp(80_000))[0].contains("not been renewed"));
    }

    #[test]
    fn a_status_reads_back_and_none_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(AgentStatus::load(dir.path()).expect("readable"), None);
        healthy().save(dir.path()).expect("written");
        assert_eq!(AgentStatus::load(dir.path()).expect("readable"), Some(healthy()));
        assert!(healthy().text().contains("connected"));
    }
}
