//! Who has not reached the current phase, and the first fact that each of them lacks.

use serde::{Deserialize, Serialize};

use super::{Missing, last_reached, missing, missing_from_row};
use crate::{
    access::Uses,
    authority::AuthorityType,
    fact::TypeFacts,
    id::{Hostname, MemberId, NodeId, Principal},
    phase::Phase,
    standing::Standing,
    state::{ClusterState, Node, TypeState},
    time::Timestamp,
};

/// A required node that has not reached the current phase.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lagging {
    /// Which node.
    pub node: NodeId,
    /// Its name.
    pub hostname: Hostname,
    /// The first fact that is missing.
    pub missing: Missing,
    /// The phase that it reached last.
    pub reached: Phase,
    /// Its last report.
    pub last_seen: Option<Timestamp>,
}

/// A running control-plane service that has not reached the current phase.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LaggingMember {
    /// Which member.
    pub member: MemberId,
    /// What it is.
    pub service: String,
    /// The first fact that is missing.
    pub missing: Missing,
}

/// Who is required and has not reached, with what is missing, in the order of the names.
pub fn lagging(state: &ClusterState, authority_type: AuthorityType) -> impl Iterator<Item = Lagging> {
    let standing = state.standings.get(&authority_type);
    let nodes = standing.into_iter().flat_map(Standing::lagging);
    nodes.filter_map(move |id| lags(state, authority_type, state.nodes.get(&id)?))
}

/// What keeps this node from having reached the current phase, if anything does.
pub fn lags(state: &ClusterState, authority_type: AuthorityType, node: &Node) -> Option<Lagging> {
    let of = state.types.get(&authority_type)?;
    Some(Lagging {
        node: node.id,
        hostname: node.hostname.clone(),
        missing: missing(state, authority_type, node).err()?,
        reached: last_reached(authority_type, of, node),
        last_seen: last_seen(state, node),
    })
}

/// The last sign of life: a report, or a certificate that it asked for. Who has just joined has reported nothing.
fn last_seen(state: &ClusterState, node: &Node) -> Option<Timestamp> {
    let newest = state
        .held
        .get(&Principal::Node(node.id))
        .and_then(|held| held.last());
    let issued = newest
        .and_then(|digest| state.certificates.get(digest))
        .map(|c| c.issued);
    node.report.as_ref().map(|r| r.at).max(issued)
}

/// Which running members have not reached the current phase? They report the same facts as nodes.
pub fn lagging_members(
    state: &ClusterState,
    authority_type: AuthorityType,
    of: &TypeState,
) -> Vec<LaggingMember> {
    let uses = match authority_type {
        AuthorityType::Host => Uses::ALL,
        AuthorityType::User => Uses::VERIFIER,
        AuthorityType::Db
        | AuthorityType::DbClient
        | AuthorityType::Openssh
        | AuthorityType::Jwt
        | AuthorityType::SamlIdp
        | AuthorityType::OidcIdp
        | AuthorityType::Spiffe
        | AuthorityType::Okta
        | AuthorityType::Awsra
        | AuthorityType::Windows => return vec![],
    };
    let missing =
        |facts: Option<&TypeFacts>| facts.map_or(Err(Missing::NoFacts), |f| missing_from_row(of, uses, f));
    state
        .members
        .values()
        .filter(|m| m.running)
        .filter_map(|m| {
            let missing = missing(m.facts.get(&authority_type).map(|facts| &**facts)).err()?;
            Some(LaggingMember {
                member: m.id,
                service: m.service.clone(),
                missing,
            })
        })
        .collect()
}
