//! What a missing fact and a closed gate are called on a screen.

use std::fmt;

use super::{Gate, Missing};
use crate::{phase::Phase, refusal::Code};

impl Missing {
    /// A stable snake-case name for JSON and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoFacts => "no_facts",
            Self::Stale { .. } => "stale_facts",
            Self::Clone => "clone",
            Self::Trust { .. } => "trust",
            Self::ClientIssuer => "client_issuer",
            Self::ServerIssuer => "server_issuer",
            Self::SshIssuer => "ssh_issuer",
            Self::Sessions => "sessions",
            Self::Contradiction => "contradiction",
        }
    }

    /// The missing fact in words that fit the phase: `still serves a certificate of the old CA`.
    pub fn in_words(&self, phase: Phase) -> String {
        let (from, wanted) = match phase {
            Phase::Rollback => ("new", "old"),
            Phase::Standby | Phase::Init | Phase::UpdateClients | Phase::UpdateServers => ("old", "new"),
        };
        match self {
            Self::NoFacts => "has not reported any facts".into(),
            // What it holds nobody knows: its newest facts are older than the step.
            Self::Stale { .. } => match phase {
                Phase::Init => "has not reported that it trusts the new CA",
                Phase::UpdateClients => "has not reported a client certificate of the new CA",
                Phase::UpdateServers => "has not reported that it serves the new CA",
                Phase::Rollback => "has not reported that it went back to the old CA",
                Phase::Standby => "has not reported that it dropped the retired CA",
            }
            .into(),
            Self::Clone => "runs twice: two instances share its identity".into(),
            Self::Trust { lacks, extra } => match (lacks.is_empty(), extra.is_empty()) {
                (false, _) => format!("does not trust the {wanted} CA"),
                (true, false) => "still trusts a CA that it should not".into(),
                (true, true) => "does not report what it trusts".into(),
            },
            Self::ClientIssuer => format!("needs a client certificate of the {wanted} CA"),
            Self::ServerIssuer => format!("still serves a certificate of the {from} CA"),
            Self::SshIssuer => format!("its sshd still presents a certificate of the {from} CA"),
            Self::Sessions => format!("has sessions left on the {from} CA"),
            Self::Contradiction => "presents another certificate than it reports".into(),
        }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One sentence for a closed gate.
pub(super) fn obstacle(gate: &Gate, code: Code) -> String {
    let from = gate.from;
    match code {
        Code::KeyMissing => {
            let kinds: Vec<_> = gate.keys_missing.iter().map(|k| k.as_str()).collect();
            format!(
                "the new {} key ({}) is not in the log yet; the signer makes it",
                gate.authority_type,
                kinds.join(", ")
            )
        }
        Code::MembersLagging => {
            let names: Vec<_> = gate
                .members
                .iter()
                .map(|m| format!("{} {}", m.service, m.member))
                .collect();
            format!(
                "a running control-plane service has not reached {from}: {}",
                names.join(", ")
            )
        }
        Code::NodesLagging => {
            format!(
                "{} of {} nodes have not reached {from}",
                gate.lagging.len(),
                gate.required
            )
        }
        Code::ConsumersLagging => {
            format!(
                "external consumers have not attested {from}: {}",
                gate.consumers.join(", ")
            )
        }
        Code::TimeCondition => {
            let (until, holders) = gate
                .time_condition
                .as_ref()
                .map(|t| {
                    (
                        t.until.to_string(),
                        t.holders
                            .iter()
                            .take(10)
                            .map(ToString::to_string)
                            .collect::<Vec<_>>(),
                    )
                })
                .unwrap_or_default();
            format!(
                "certificates of the retiring CA are held until {until} by {}; each is replaced when its holder \
                 next uses `carousel`",
                holders.join(", ")
            )
        }
        Code::PublicationTime => {
            let until = gate.publication.map(|t| t.to_string()).unwrap_or_default();
            format!("the new key has to be published until {until} before it may sign")
        }
        _ => code.meaning().into(),
    }
}
