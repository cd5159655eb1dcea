//! What one node should hold: the newest signed row of each type it uses, and its name and grant.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    access::Uses,
    authority::AuthorityType,
    command::Mode,
    id::{Hostname, NodeId, Position, RotationId, SpkiPin},
    phase::Phase,
    rules::{Rule, holds},
    state::{ClusterState, TypeState},
    time::Timestamp,
};

/// Sessions may drain for at most this part of a grace period.
const DRAIN_SHARE_OF_GRACE: u64 = 30;

/// What a node (or a member) should hold. Pushed whenever it changes; level-triggered, so that a node
/// that missed any number of them needs only the newest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DesiredState {
    /// The highest revision in it.
    pub position: Position,
    /// Every name that its certificates bear.
    pub names: Vec<Hostname>,
    /// Per authority type in use.
    pub authorities: BTreeMap<AuthorityType, DesiredAuthority>,
    /// How long sessions on the retiring issuer may drain, in milliseconds.
    pub drain_timeout_ms: u64,
    /// Life of the certificates, to know when half of it is over.
    pub node_ttl_ms: u64,
}

/// One row for one holder. Everything in it but `uses` and `excluded_peers` stands in the signed bundle of
/// that revision too: the agent applies both together or neither.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct DesiredAuthority {
    /// The revision of the bundle that this row comes from.
    pub revision: Position,
    /// The rotation in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<RotationId>,
    /// The phase.
    pub phase: Phase,
    /// The roles in which the holder uses the type.
    pub uses: Uses,
    /// What to trust, exactly.
    pub trusted: BTreeSet<SpkiPin>,
    /// The issuer of the client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_issuer: Option<SpkiPin>,
    /// The issuer of the server certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_issuer: Option<SpkiPin>,
    /// The SSH authority that certifies the keys of servers: of the same generation as `server_issuer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_issuer: Option<SpkiPin>,
    /// For gateways only: the other authority, a server certificate of which is held as well, for
    /// clients whose hint names only that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also_serve: Option<SpkiPin>,
    /// The issuer on which sessions are to be drained now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retiring: Option<SpkiPin>,
    /// Peers excluded from this rotation: their sessions do not hold the gate.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub excluded_peers: BTreeSet<NodeId>,
    /// When the rotation began; for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
}

/// What a node should hold. `None` for a node that is unknown or removed.
///
/// The row of a type is handed out only once its bundle is signed: until then the one before stands
/// (a desired state names its bundle revision, and both are applied together or not at all): a type that
/// is missing here means "keep what you have".
pub fn desired(state: &ClusterState, node: &NodeId) -> Option<DesiredState> {
    let node = state.nodes.get(node)?;
    let authorities: BTreeMap<_, _> = node
        .grant
        .uses
        .iter()
        .filter_map(|(t, uses)| Some((*t, row_for(state.types.get(t)?, *uses, false)?)))
        .collect();
    Some(DesiredState {
        position: authorities.values().map(|a| a.revision).max().unwrap_or_default(),
        names: node.names.clone(),
        authorities,
        drain_timeout_ms: drain_timeout_ms(state),
        node_ttl_ms: state.settings().node_ttl_ms,
    })
}

/// How long sessions may drain: as the cluster says, but never more than a thirtieth of the grace period of a
/// semi-automatic rotation in progress, so that a step which is due waits for stragglers and not for sessions.
fn drain_timeout_ms(state: &ClusterState) -> u64 {
    let rotations = state.types.values().filter_map(|of| of.rotation.as_ref());
    rotations
        .filter(|rotation| rotation.mode == Mode::Automatic)
        .map(|rotation| rotation.grace_period_ms / DRAIN_SHARE_OF_GRACE)
        .fold(state.settings().drain_timeout_ms, u64::min)
}

/// What a join or a recovery is answered with: the row at or after the position of its event, of every type of the
/// node's grant that the cluster has. `None` while the fold has not come so far, or a row is not signed \[M\].
///
/// A join may be asked again long after it was carried out: the row of then would be one that was retired since.
pub fn answers_join(state: &ClusterState, node: &NodeId, at_least: Position) -> Option<DesiredState> {
    if holds(Rule::JoinAnswerIsCurrent) && state.position < at_least {
        return None;
    }
    let granted = &state.nodes.get(node)?.grant.uses;
    let desired = desired(state, node)?;
    let is_whole = granted
        .keys()
        .filter(|t| state.types.contains_key(*t))
        .all(|t| desired.authorities.contains_key(t));
    is_whole.then_some(desired)
}

/// May a gateway that holds rows of these revisions hand anything out? Only once it holds the current row of every
/// type that it verifies callers against, whichever type the news is of \[M\]: else an agent that obeys presents
/// something to it that it does not accept yet, and is locked out.
pub fn may_hand_out(state: &ClusterState, held: &BTreeMap<AuthorityType, Position>) -> bool {
    !holds(Rule::GatewayHoldsBeforeHandingOut)
        || MEMBER_TYPES.iter().all(|(t, _)| {
            state
                .types
                .get(t)
                .is_none_or(|of| held.get(t).is_some_and(|revision| *revision >= of.row_position))
        })
}

/// The types that a gateway uses, and in which roles.
const MEMBER_TYPES: [(AuthorityType, Uses); 2] = [
    (AuthorityType::Host, Uses::ALL),
    (AuthorityType::User, Uses::VERIFIER),
];

/// What a gateway should hold: all roles in `host` with server certificates of both authorities while
/// there are two, and trust in every other type that it verifies callers against.
///
/// It does not wait for a bundle: a member reads the log itself.
pub fn desired_of_member(state: &ClusterState) -> BTreeMap<AuthorityType, DesiredAuthority> {
    MEMBER_TYPES
        .into_iter()
        .filter_map(|(t, uses)| {
            let mut row = row_for(state.types.get(&t)?, uses, true)?;
            if uses.server {
                row.also_serve = row
                    .trusted
                    .iter()
                    .copied()
                    .find(|pin| Some(*pin) != row.server_issuer);
            }
            Some((t, row))
        })
        .collect()
}

fn row_for(of: &TypeState, uses: Uses, is_member: bool) -> Option<DesiredAuthority> {
    // Until the newest row's bundle is signed, a node is told nothing new: its agent could not install it.
    let revision = if is_member {
        of.row_position
    } else {
        of.bundle
            .as_ref()
            .filter(|b| b.revision >= of.row_position)?
            .revision
    };
    let rotation = of.rotation_id();
    let excluded_peers = of
        .rotation
        .as_ref()
        .map(|r| r.excluded.clone())
        .unwrap_or_default();
    let retiring = match of.phase {
        Phase::UpdateServers | Phase::Rollback => of.retiring().map(|k| k.id),
        Phase::Standby | Phase::Init | Phase::UpdateClients => None,
    };
    Some(DesiredAuthority {
        revision,
        rotation,
        phase: of.phase,
        uses,
        trusted: of.trusted(),
        client_issuer: uses.client.then(|| of.client_issuer()).flatten(),
        server_issuer: uses.server.then(|| of.server_issuer()).flatten(),
        ssh_issuer: uses.server.then(|| of.ssh_issuer()).flatten(),
        also_serve: None,
        retiring,
        excluded_peers,
        started: of.rotation.as_ref().map(|r| r.started),
    })
}
