//! The gate: has everybody who must reach a phase reached it? Decided from facts, never from labels.
//!
//! This file is the trust table of the product: [`missing`] says, for one node and the current row,
//! which fact is not there. Everything else counts and names.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    access::Uses,
    authority::{AuthorityType, KeyKind},
    fact::TypeFacts,
    id::{Position, Principal, SpkiPin},
    phase::{Phase, Transition},
    refusal::{Code, Refusal},
    rules::{Rule, holds},
    state::{Certificate, ClusterState, Node, TypeState},
    time::Timestamp,
};

pub use lagging::{Lagging, LaggingMember, lagging, lagging_members, lags};
pub use outline::{Outline, outline};

mod lagging;
mod outline;
mod words;

/// The fact that keeps a node or member from having reached the current phase.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// It has never reported this type: a node without facts has reached nothing.
    NoFacts,
    /// Its newest facts were measured before the row last changed.
    Stale {
        /// The revision under which they were measured.
        measured: Position,
        /// The revision that is needed.
        needed: Position,
    },
    /// Two running instances share its identity.
    Clone,
    /// It trusts less or more than the row.
    Trust {
        /// Authorities of the row that it does not trust.
        lacks: BTreeSet<SpkiPin>,
        /// Authorities that it trusts beyond the row.
        extra: BTreeSet<SpkiPin>,
    },
    /// Its client certificate comes from another authority than the row's.
    ClientIssuer,
    /// So does the certificate it serves.
    ServerIssuer,
    /// So does the certificate of its sshd.
    SshIssuer,
    /// Sessions still stand on the issuer that the row retires.
    Sessions,
    /// The gateway saw another client issuer than the node claims.
    Contradiction,
}

/// Leaves of the retiring authority that are still held by parties without an agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimeCondition {
    /// When the last of them expires.
    pub until: Timestamp,
    /// Who holds them.
    pub holders: Vec<Principal>,
}

/// The gate between the current phase of a type and the next one.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Gate {
    /// Which authority.
    pub authority_type: AuthorityType,
    /// The current phase, which everybody must have reached.
    pub from: Phase,
    /// The phase behind the gate.
    pub to: Phase,
    /// The fold it was evaluated on.
    pub position: Position,
    /// How many nodes are required.
    pub required: u32,
    /// How many of those have reached.
    pub reached: u32,
    /// How many nodes are excluded from the rotation.
    pub excluded: u32,
    /// Who has not reached, by name.
    pub lagging: Vec<Lagging>,
    /// Control-plane services that have not: never overridden.
    pub members: Vec<LaggingMember>,
    /// New keys that are not in the log yet: never overridden.
    pub keys_missing: Vec<KeyKind>,
    /// External consumers that have not attested.
    pub consumers: Vec<String>,
    /// Leaves held by parties without an agent.
    pub time_condition: Option<TimeCondition>,
    /// Until when a new JWT key must have been published.
    pub publication: Option<Timestamp>,
}

/// Evaluates the gate from the current phase of a type into `to`.
///
/// `standby -> init` and every way into `rollback` wait for nobody: such a gate is open.
pub fn evaluate(state: &ClusterState, authority_type: AuthorityType, to: Phase, now: Timestamp) -> Gate {
    let (mut gate, waits) = without_names(state, authority_type, to, now);
    if waits {
        gate.lagging = lagging(state, authority_type).collect();
    }
    gate
}

/// The gate but for the nodes that lag; says whether it waits for anybody, and so for them.
fn without_names(
    state: &ClusterState,
    authority_type: AuthorityType,
    to: Phase,
    now: Timestamp,
) -> (Gate, bool) {
    let idle = TypeState::default();
    let of = state.types.get(&authority_type).unwrap_or(&idle);
    let mut gate = Gate {
        authority_type,
        from: of.phase,
        to,
        position: state.position,
        required: 0,
        reached: 0,
        excluded: 0,
        lagging: vec![],
        members: vec![],
        keys_missing: vec![],
        consumers: vec![],
        time_condition: None,
        publication: None,
    };
    if let Some(standing) = state.standings.get(&authority_type) {
        gate.required = standing.required();
        gate.reached = standing.reached();
        gate.excluded = standing.excluded();
    }
    let transition = of.phase.transition_to(to);
    let forward = match transition {
        Transition::Forward => of.phase != Phase::Standby,
        Transition::Complete => true,
        Transition::FinishRollback => false,
        Transition::RollBack
        | Transition::Noop
        | Transition::InProgress
        | Transition::OnlyFrom(_)
        | Transition::NoWay => return (gate, false),
    };
    if transition == Transition::Forward && of.phase == Phase::Standby {
        return (gate, false);
    }
    gate.members = lagging_members(state, authority_type, of);
    if forward {
        if holds(Rule::KeysBeforeForwardGates) {
            gate.keys_missing = of.keys_missing().collect();
        }
        gate.consumers = consumers_that_have_not_attested(state, authority_type, of);
        gate.publication = publication_until(state, of, now);
    }
    let people_count = match transition {
        Transition::Complete => holds(Rule::TimeConditionForward),
        Transition::FinishRollback => holds(Rule::TimeConditionBack),
        Transition::Forward
        | Transition::RollBack
        | Transition::Noop
        | Transition::InProgress
        | Transition::OnlyFrom(_)
        | Transition::NoWay => false,
    };
    if people_count {
        gate.time_condition = time_condition(state, authority_type, now);
    }
    (gate, true)
}

/// Is the node taken out of the current rotation of this type?
pub fn is_excluded(node: &Node, authority_type: AuthorityType, of: &TypeState) -> bool {
    match node.excluded.get(&authority_type) {
        Some(rotation) if holds(Rule::ExclusionEndsWithRotation) => of.rotation_id() == Some(*rotation),
        Some(_) => true,
        None => false,
    }
}

/// Has the node reached the current phase of this type? The first fact that is missing otherwise.
///
/// # Errors
/// [`Missing`], for a node that uses the type; a node that does not is never asked.
pub fn missing(state: &ClusterState, authority_type: AuthorityType, node: &Node) -> Result<(), Missing> {
    let Some(of) = state.types.get(&authority_type) else {
        return Ok(());
    };
    let Some(uses) = node.uses(authority_type) else {
        return Ok(());
    };
    // On the way back a node that was never touched by the prepared authority has nothing to undo.
    if of.phase == Phase::Rollback
        && holds(Rule::UntouchedHasReachedRollback)
        && node.touched.get(&authority_type) != of.rotation_id().as_ref()
    {
        return Ok(());
    }
    let reported = node.report.as_ref().ok_or(Missing::NoFacts)?;
    if node.clone_suspect.is_some() {
        return Err(Missing::Clone);
    }
    let facts = reported
        .report
        .authorities
        .get(&authority_type)
        .ok_or(Missing::NoFacts)?;
    missing_from_row(of, uses, facts)?;
    // What the gateway sees must agree with the claim: the reporting connection is the proof.
    if authority_type == AuthorityType::Host && facts.client_issuer != Some(reported.seen.issuer) {
        return Err(Missing::Contradiction);
    }
    Ok(())
}

/// The row itself, the same for nodes and members.
fn missing_from_row(of: &TypeState, uses: Uses, facts: &TypeFacts) -> Result<(), Missing> {
    if holds(Rule::FactsAreFresh) && facts.revision < of.row_position {
        return Err(Missing::Stale {
            measured: facts.revision,
            needed: of.row_position,
        });
    }
    let row: BTreeSet<SpkiPin> = of.trusted();
    let lacks: BTreeSet<_> = row.difference(&facts.trusted).copied().collect();
    let extra: BTreeSet<_> = facts.trusted.difference(&row).copied().collect();
    let uses = if holds(Rule::OnlyRolesInUse) {
        uses
    } else {
        Uses::ALL
    };
    if of.phase == Phase::Rollback {
        // Present active and trust at least active: narrowing comes with standby.
        if uses.verifier && !of.trusted_active().is_subset(&facts.trusted) {
            return Err(Missing::Trust {
                lacks,
                extra: BTreeSet::new(),
            });
        }
    } else if uses.verifier && (!lacks.is_empty() || (holds(Rule::TrustIsEqual) && !extra.is_empty())) {
        return Err(Missing::Trust { lacks, extra });
    }
    if uses.client && facts.client_issuer != of.client_issuer() {
        return Err(Missing::ClientIssuer);
    }
    if uses.server && facts.server_issuer != of.server_issuer() {
        return Err(Missing::ServerIssuer);
    }
    // Whoever has no sshd of ours has nothing to replace; whoever has one is known by its certificate alone.
    if facts.ssh_issuer.is_some() && facts.ssh_issuer != of.ssh_issuer() && holds(Rule::SshdsAreCounted) {
        return Err(Missing::SshIssuer);
    }
    if of.phase == Phase::UpdateServers && facts.sessions_on_retiring {
        return Err(Missing::Sessions);
    }
    Ok(())
}

/// The phase to show for a node: the cluster's exactly when the node has reached it, else the last it reached.
pub fn phase_of_node(state: &ClusterState, authority_type: AuthorityType, node: &Node) -> Phase {
    let Some(of) = state.types.get(&authority_type) else {
        return Phase::default();
    };
    match missing(state, authority_type, node) {
        Ok(()) => of.phase,
        Err(_) => last_reached(authority_type, of, node),
    }
}

/// The phase to show for a node that has not reached the current one: the last that it reached.
///
/// It may have reached the current phase and lost it again (a key was made since, sessions came back, it runs
/// twice), or have reached the same phase of an earlier rotation. Neither counts: the phase before is shown, because
/// the cluster's phase means that the node has reached it.
pub fn last_reached(authority_type: AuthorityType, of: &TypeState, node: &Node) -> Phase {
    let last = node.reached.get(&authority_type).map(|r| r.phase);
    match last.unwrap_or_default() {
        phase if phase == of.phase => of.phase_before,
        phase => phase,
    }
}

fn consumers_that_have_not_attested(
    state: &ClusterState,
    authority_type: AuthorityType,
    of: &TypeState,
) -> Vec<String> {
    state
        .consumers
        .iter()
        .filter(|((t, _), consumer)| *t == authority_type && of.waits_for(consumer))
        .map(|((_, name), _)| name.to_string())
        .collect()
}

/// A new JWT key may not sign before every cache of the key set has had the time to see it.
fn publication_until(state: &ClusterState, of: &TypeState, now: Timestamp) -> Option<Timestamp> {
    let rotation = of.rotation.as_ref().filter(|_| of.phase == Phase::Init)?;
    of.prepared.get(&KeyKind::Jwt)?;
    // From when the key was there, not from when it was asked for: a signer may have been away.
    let published = rotation.stepped.max(of.prepared_at?);
    let until = published.plus_ms(state.settings().jwks_max_age_ms);
    (now < until).then_some(until)
}

/// The leaves of the retiring authority that people, programs and tokens still hold: not expired, not
/// revoked, and not replaced by a later one of the other authority that was seen in use where it can be.
pub fn time_condition(
    state: &ClusterState,
    authority_type: AuthorityType,
    now: Timestamp,
) -> Option<TimeCondition> {
    let retiring = state.types.get(&authority_type)?.retiring_of_each_kind();
    let mut condition = TimeCondition {
        until: now,
        holders: vec![],
    };
    // Holders are ordered nodes, gateways, users, external: people are at the end, however large the fleet is.
    let people = state
        .held
        .iter()
        .rev()
        .take_while(|(holder, _)| !matches!(holder, Principal::Node(_) | Principal::Gateway(_)));
    for (holder, digests) in people {
        let certificates: Vec<_> = digests
            .iter()
            .filter_map(|d| state.certificates.get(d))
            .filter(|c| c.authority_type == authority_type && !c.revoked)
            .collect();
        let last = certificates
            .iter()
            .filter(|c| {
                retiring.contains(&c.issuer) && c.not_after > now && !is_replaced(c, &certificates, &retiring)
            })
            .map(|c| c.not_after)
            .max();
        if let Some(not_after) = last {
            condition.until = condition.until.max(not_after);
            condition.holders.push(holder.clone());
        }
    }
    (!condition.holders.is_empty()).then_some(condition)
}

/// Is there a later one of the same holder and kind by the other authority, seen in use where it can be: what people present
/// to us over TLS? A token is never replaced: whoever has it may have many, and each is good until its end.
fn is_replaced(one: &Certificate, all: &[&Certificate], retiring: &BTreeSet<SpkiPin>) -> bool {
    let is_visible = matches!(one.holder, Principal::User(_)) && one.kind == KeyKind::Tls;
    let replaces = |later: &&Certificate| {
        later.kind == one.kind
            && later.position > one.position
            && !retiring.contains(&later.issuer)
            && (!is_visible || later.presented.is_some())
    };
    one.kind != KeyKind::Jwt && all.iter().any(replaces)
}

impl Gate {
    /// Does nothing stand in the way?
    pub fn is_open(&self) -> bool {
        self.is_open_by_force() && self.overridden() == 0
    }

    /// Would `--force` open it? Members and missing keys are never overridden.
    pub fn is_open_by_force(&self) -> bool {
        (self.members.is_empty() || !holds(Rule::MembersAlwaysBind)) && self.keys_missing.is_empty()
    }

    /// How many nodes, consumers and conditions force would pass over.
    pub fn overridden(&self) -> u32 {
        let conditions = u32::from(self.time_condition.is_some()) + u32::from(self.publication.is_some());
        u32::try_from(self.lagging.len() + self.consumers.len())
            .unwrap_or(u32::MAX)
            .saturating_add(conditions)
    }

    /// The names of what force passes over, in order.
    pub fn overridden_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.lagging.iter().map(|l| l.hostname.to_string()).collect();
        names.extend(self.consumers.iter().map(|c| format!("consumer {c}")));
        names.extend(
            self.time_condition
                .as_ref()
                .map(|t| format!("time condition until {}", t.until)),
        );
        names.extend(
            self.publication
                .as_ref()
                .map(|t| format!("publication until {t}")),
        );
        names
    }

    /// The refusal for a closed gate: the obstacle that cannot be overridden first. With `force`, only
    /// such an obstacle refuses.
    ///
    /// # Errors
    /// The refusal, when the gate is closed.
    pub fn check(&self, force: bool) -> Result<(), Refusal> {
        let Some(code) = self.obstacle(self.lagging.len(), force) else {
            return Ok(());
        };
        Err(Refusal::closed(code, words::obstacle(self, code), self.clone()))
    }

    fn obstacle(&self, lagging: usize, force: bool) -> Option<Code> {
        if !self.keys_missing.is_empty() {
            Some(Code::KeyMissing)
        } else if !self.is_open_by_force() {
            Some(Code::MembersLagging)
        } else if force {
            None
        } else if lagging > 0 {
            Some(Code::NodesLagging)
        } else if !self.consumers.is_empty() {
            Some(Code::ConsumersLagging)
        } else if self.time_condition.is_some() {
            Some(Code::TimeCondition)
        } else if self.publication.is_some() {
            Some(Code::PublicationTime)
        } else {
            None
        }
    }
}
