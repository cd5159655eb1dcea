//! Problems: how the control plane says no over HTTP (RFC 9457).

use domain::{
    AuthorityType, Code, NodeId, Phase, Position, Refusal, Timestamp,
    fact::Failure,
    gate::{Gate, Lagging, LaggingMember, TimeCondition},
};
use serde::{Deserialize, Serialize};

use crate::shape::Presence;
pub use domain::oracle::Connections;

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An RFC 9457 problem. `code` is the domain's refusal code, alike in HTTP, the CLI, metrics and docs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank#CODE`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the code means, the same text each time.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What stands in the way this time.
    pub detail: String,
    /// The stable code that scripts match on.
    pub code: Code,
    /// The closed gate, when that is the obstacle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate: Option<Box<GateDetails>>,
    /// After how many seconds to ask again, for what passes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
}

/// A closed gate: who has not reached, what is missing, and what would break if it were forced now.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct GateDetails {
    /// Which authority.
    #[serde(rename = "type")]
    pub authority_type: AuthorityType,
    /// The current phase, which everybody must have reached.
    pub from: Phase,
    /// The phase behind the gate.
    pub to: Phase,
    /// The log position it was evaluated at.
    pub position: Position,
    /// When the current phase was entered: whoever reported before that has not said yet that it holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Nodes that must have reached.
    pub required: u32,
    /// Those that have.
    pub reached: u32,
    /// Nodes taken out of the rotation.
    pub excluded: u32,
    /// Nodes that have not reached, by name.
    pub lagging: Vec<Laggard>,
    /// Control-plane services that have not; never overridden.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<LaggingMemberDoc>,
    /// Kinds of the new key that are not in the log yet; never overridden.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys_missing: Vec<String>,
    /// External consumers that have not attested.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<String>,
    /// Leaves of the retiring authority that parties without an agent still hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_condition: Option<TimeConditionDoc>,
    /// A new key has to be published until then before it may sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_until: Option<Timestamp>,
    /// What the oracle says would break if the gate were forced now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_forced: Option<Connections>,
    /// Who would be cut off by that, by name (the first hundred); excluded nodes too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut_off: Vec<String>,
    /// What the oracle says is broken already, with nothing forced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken_now: Option<Connections>,
}

/// A node that has not reached the phase.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Laggard {
    /// Its id.
    pub node: NodeId,
    /// The name people know it by.
    pub name: String,
    /// The missing fact's stable name.
    pub missing: String,
    /// The missing fact in words: `still serves a certificate of the old CA`.
    pub text: String,
    /// The phase that it reached last.
    pub reached: Phase,
    /// Is it there? Presence, like a node's own `status`: not in the log, and outside every promise of sameness.
    #[serde(default)]
    pub status: Presence,
    /// What its agent says keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// A control-plane service that has not reached the phase.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LaggingMemberDoc {
    /// `gateway <id>`.
    pub name: String,
    /// The missing fact's stable name.
    pub missing: String,
    /// The missing fact in words.
    pub text: String,
}

/// What the time condition waits for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimeConditionDoc {
    /// When the last of the leaves expires.
    pub until: Timestamp,
    /// Who holds them: `user/alice`.
    pub holders: Vec<String>,
}

impl TimeConditionDoc {
    /// What the gate knows of it.
    pub fn of(condition: &TimeCondition) -> Self {
        Self {
            until: condition.until,
            holders: condition.holders.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Problem {
    /// A problem with a code and its sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("about:blank#{code}"),
            title: code.meaning().into(),
            status: code.http_status(),
            detail: detail.into(),
            code,
            gate: None,
            retry_after_s: None,
        }
    }

    /// The domain's refusal as a problem. Presence and the oracle's counts are the caller's to add.
    pub fn of_refusal(refusal: &Refusal) -> Self {
        let mut problem = Self::new(refusal.code, refusal.text.clone());
        problem.gate = refusal
            .gate
            .as_deref()
            .map(|gate| Box::new(GateDetails::of(gate)));
        problem
    }

    /// Says when to ask again.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }
}

impl Laggard {
    /// What the log knows of a node that lags behind this phase.
    pub fn of(lagging: &Lagging, phase: Phase) -> Self {
        Self {
            node: lagging.node,
            name: lagging.hostname.to_string(),
            missing: lagging.missing.name().into(),
            text: lagging.missing.in_words(phase),
            reached: lagging.reached,
            status: Presence {
                online: false,
                last_seen: lagging.last_seen,
            },
            failure: None,
        }
    }
}

impl GateDetails {
    /// What the gate itself knows.
    pub fn of(gate: &Gate) -> Self {
        let member = |m: &LaggingMember| LaggingMemberDoc {
            name: format!("{} {}", m.service, m.member),
            missing: m.missing.name().into(),
            text: m.missing.in_words(gate.from),
        };
        Self {
            authority_type: gate.authority_type,
            from: gate.from,
            to: gate.to,
            position: gate.position,
            since: None,
            required: gate.required,
            reached: gate.reached,
            excluded: gate.excluded,
            lagging: gate.lagging.iter().map(|l| Laggard::of(l, gate.from)).collect(),
            members: gate.members.iter().map(member).collect(),
            keys_missing: gate.keys_missing.iter().map(|k| k.as_str().into()).collect(),
            consumers: gate.consumers.clone(),
            time_condition: gate.time_condition.as_ref().map(TimeConditionDoc::of),
            published_until: gate.publication,
            if_forced: None,
            cut_off: vec![],
            broken_now: None,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code, self.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_back_as_it_was_written_and_names_its_code_twice() {
        let problem = Problem::new(Code::NodesLagging, "2 of 12 nodes have not reached init").retry_after(3);
        let text = serde_json::to_string(&problem).unwrap();
        assert!(text.contains(r#""type":"about:blank#nodes_lagging""#), "{text}");
        assert!(
            text.contains(r#""code":"nodes_lagging""#) && text.contains(r#""status":409"#),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Problem>(&text).unwrap(), problem);
    }

    #[test]
    fn what_a_laggard_says_of_presence_is_all_in_its_status() {
        let laggard = Laggard {
            node: NodeId(uuid::Uuid::nil()),
            name: "db-07".into(),
            missing: "trust".into(),
            text: "does not trust the new CA".into(),
            reached: Phase::Standby,
            status: Presence {
                online: true,
                last_seen: Some(Timestamp(0)),
            },
            failure: None,
        };
        let value = serde_json::to_value(&laggard).unwrap();
        let names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["missing", "name", "node", "reached", "status", "text"]);
        assert_eq!(value["status"]["online"], true);
    }

    #[test]
    fn a_problem_of_another_implementation_without_our_extras_can_be_read() {
        let text =
            r#"{"type":"about:blank#internal","title":"t","status":500,"detail":"d","code":"internal"}"#;
        assert_eq!(serde_json::from_str::<Problem>(text).unwrap().gate, None);
    }
}
