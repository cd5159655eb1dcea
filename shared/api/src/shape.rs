//! What people and their scripts read: the shapes that the contract fixes (section 3).
//!
//! A time that never was is absent, never null or zero. Presence (`NodeDoc::status`) is the one part that
//! does not come from the log and is outside every promise of sameness.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    AuthorityType, Code, MemberId, NodeId, Phase, Position, RotationId, SpkiPin, Timestamp,
    command::{LaggingPolicy, Mode},
    event::RotationOutcome,
    fact::Failure,
};
use serde::{Deserialize, Serialize};

use crate::problem::{Connections, Laggard, TimeConditionDoc};

pub use lists::*;

mod lists;

/// `status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The cluster.
    pub cluster: ClusterDoc,
    /// The log position that this describes.
    pub position: Position,
    /// The time of that event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// Every authority type of the table, in its order.
    pub authorities: Vec<AuthorityStatusDoc>,
    /// Control-plane services that speak TLS.
    pub members: Vec<MemberDoc>,
    /// What a person should know: settings below their defaults, a suspect clock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The cluster in `status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ClusterDoc {
    /// Its name.
    pub name: String,
    /// The control plane's version.
    pub version: String,
    /// The pin of each trusted host authority: two during a rotation, one after.
    pub ca_pins: Vec<SpkiPin>,
}

/// One authority type in `status`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AuthorityStatusDoc {
    /// Which.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// Its rotation.
    pub rotation: RotationStatusDoc,
    /// Its keys, the active ones first.
    pub keys: Vec<KeyDoc>,
    /// Its nodes, by the gate's own count.
    pub nodes: NodeCounts,
    /// Pairs of nodes that cannot connect now, by what they have reported; absent while the type has no keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_now: Option<Connections>,
    /// The first nodes that have not reached the phase, and what is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lagging: Vec<Laggard>,
    /// Who may still accept the retired authority: until `rotation.settled` whoever has not followed, and whoever
    /// was cut off until it has been back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_accept_retired: Vec<String>,
    /// Leaves of the retiring authority held by parties without an agent, and until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_condition: Option<TimeConditionDoc>,
    /// External consumers that have not attested for this phase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers_waiting: Vec<String>,
}

/// Is a rotation going on?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationState {
    /// No.
    #[default]
    Standby,
    /// Yes.
    InProgress,
}

/// The rotation of one type in `status`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RotationStatusDoc {
    /// Idle or in progress.
    pub state: RotationState,
    /// The phase.
    pub phase: Phase,
    /// `manual`, `automatic`, or empty while idle.
    pub mode: String,
    /// The rotation in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_id: Option<RotationId>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// Its grace period in Go's notation, `48h0m0s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<String>,
    /// When the last completed rotation ended; a rollback never changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotated: Option<Timestamp>,
    /// When the last rollback ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rolled_back: Option<Timestamp>,
    /// The steps of a semi-automatic rotation that are still to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleDoc>,
    /// Does a due step wait for the gate?
    pub held: bool,
    /// Since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_since: Option<Timestamp>,
    /// Has every required node followed the last rotation to its end?
    pub settled: bool,
}

/// The schedule of a semi-automatic rotation.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ScheduleDoc {
    /// When `update_clients` is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_clients: Option<Timestamp>,
    /// When `update_servers` is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_servers: Option<Timestamp>,
    /// When the final `standby` is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby: Option<Timestamp>,
    /// What a due step does when nodes lag.
    #[serde(default)]
    pub on_lagging: LaggingPolicy,
}

/// One key of an authority.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct KeyDoc {
    /// `tls`, `ssh` or `jwt`.
    pub protocol: String,
    /// `active`, `prepared` or `retired`.
    pub status: String,
    /// `ECDSA P-256`.
    pub algorithm: String,
    /// `software` or `pkcs11`.
    pub storage: String,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub pin: SpkiPin,
    /// Which key of the type it is, from 1.
    pub generation: u32,
    /// The end of its CA certificate's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// The gate's totals.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeCounts {
    /// Nodes that have to reach the phase.
    pub required: u32,
    /// Those that have.
    pub reached: u32,
    /// Those that have not.
    pub lagging: u32,
    /// Nodes taken out of the rotation.
    pub excluded: u32,
}

/// A control-plane service in `status`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MemberDoc {
    /// Its id, stable over restarts.
    pub id: MemberId,
    /// `gateway`.
    pub service: String,
    /// Does every gate wait for it?
    pub running: bool,
    /// The names and addresses of its certificates.
    pub names: Vec<String>,
    /// Per type: has it reached the current phase?
    pub reached: BTreeMap<AuthorityType, bool>,
    /// When its last event was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event: Option<Timestamp>,
}

/// One node in `get nodes`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeDoc {
    /// Always `node`.
    pub kind: String,
    /// Always `v1`.
    pub version: String,
    /// Its id and labels.
    pub metadata: NodeMetadata,
    /// What the log says of it.
    pub spec: NodeSpec,
    /// Is it there? Not from the log.
    pub status: Presence,
}

/// Name and labels of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NodeMetadata {
    /// The node's id.
    pub name: NodeId,
    /// Labels from its agent's configuration; shown, never decided on.
    pub labels: BTreeMap<String, String>,
}

/// What the log says of a node.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeSpec {
    /// The name that people know it by.
    pub hostname: String,
    /// Where its probe endpoint listens; empty if it has none.
    pub addr: String,
    /// The agent's version; empty before its first report.
    pub version: String,
    /// When its newest facts were recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_reported: Option<Timestamp>,
    /// The host authority's rotation as far as this node has come.
    pub rotation: NodeRotation,
    /// Per type that it uses.
    pub authorities: BTreeMap<AuthorityType, NodeAuthority>,
    /// The rotations from which it is excluded; null when none.
    pub excluded: Option<BTreeMap<AuthorityType, RotationId>>,
    /// What its agent says keeps it from the desired state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// It serves what it had on disk because no gateway answered after its start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unsynced: bool,
}

/// How far a node has come in the host authority's rotation.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeRotation {
    /// Always explicit.
    pub state: RotationState,
    /// The cluster's phase exactly when the node has reached it by the gate's rules, else the last it reached.
    pub phase: Phase,
    /// The rotation in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_id: Option<RotationId>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
}

/// What a node holds of one type.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NodeAuthority {
    /// The phase it has reached, as in `rotation.phase`.
    pub reached: Phase,
    /// The authorities it trusts.
    pub trusted: BTreeSet<SpkiPin>,
    /// The issuer of its client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_issuer: Option<SpkiPin>,
    /// The issuer of the certificate it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_issuer: Option<SpkiPin>,
    /// The end of its client certificate's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_not_after: Option<Timestamp>,
    /// The end of its server certificate's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_not_after: Option<Timestamp>,
    /// The SSH authority that signed the certificate of its sshd, where its agent keeps one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_issuer: Option<SpkiPin>,
    /// The end of that certificate's life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_not_after: Option<Timestamp>,
    /// Does a session with a required peer still stand on the retiring issuer?
    pub sessions_on_retiring: bool,
    /// The fact that keeps it from the current phase, in words; absent when it has reached it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// The same as a stable name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing_code: Option<String>,
}

/// Is the node there?
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Presence {
    /// Does it hold a stream, or did it call within the last seconds?
    pub online: bool,
    /// When a gateway last heard from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

/// One line of `watch`: how far a type's phase has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WatchLine {
    /// When.
    pub time: Timestamp,
    /// Which authority.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// Its phase.
    pub phase: Phase,
    /// Nodes that have reached it.
    pub reached: u32,
    /// Nodes that have to.
    pub required: u32,
    /// Nodes taken out of the rotation, which nobody waits for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub excluded: u32,
    /// Who has not, and what is missing (the first hundred).
    pub lagging: Vec<Laggard>,
    /// Has everybody, members included, reached the phase? The last line of a wait.
    pub done: bool,
    /// `manual` or `automatic`; absent while idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// A due step waits for the gate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub held: bool,
    /// What the step into the next phase would be refused with now, although everybody may have reached this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_refused: Option<Code>,
    /// How the last rotation ended, while idle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RotationOutcome>,
    /// The log position that this describes.
    pub position: Position,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A duration in Go's notation, as the contract writes it: `48h0m0s`, `1m30s`, `1.5s`.
pub fn go_duration(ms: u64) -> String {
    let (hours, minutes, seconds, millis) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60, ms % 1_000);
    let fraction = if millis == 0 {
        String::new()
    } else {
        format!(".{millis:03}").trim_end_matches('0').into()
    };
    match (hours, minutes) {
        (0, 0) if seconds == 0 && millis > 0 => format!("{millis}ms"),
        (0, 0) => format!("{seconds}{fraction}s"),
        (0, _) => format!("{minutes}m{seconds}{fraction}s"),
        _ => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let cases = [
            (0, "0s"),
            (500, "500ms"),
            (1_500, "1.5s"),
            (90_000, "1m30s"),
            (172_800_000, "48h0m0s"),
            (3_600_250, "1h0m0.25s"),
        ];
        for (ms, text) in cases {
            assert_eq!(go_duration(ms), text);
        }
    }

    #[test]
    fn an_idle_rotation_names_state_and_phase_and_omits_times_that_never_were() {
        let json = serde_json::to_value(RotationStatusDoc {
            settled: true,
            ..Default::default()
        })
        .unwrap();
        let expected = serde_json::json!({
            "state": "standby", "phase": "standby", "mode": "", "held": false, "settled": true
        });
        assert_eq!(json, expected);
    }
}
