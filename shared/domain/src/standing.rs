//! How the fleet stands behind each row, kept event by event: what gates and views count without counting again.
//!
//! A rotation writes an event or more for every node. Whoever counted the fleet at each of them would take the square
//! of its size; here one event moves one node, and only a change of a row moves all.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    authority::AuthorityType,
    event::Fact,
    gate,
    id::{Hostname, NodeId, Principal},
    oracle::{self, Group},
    state::{ClusterState, Node},
};

/// The nodes that use one type: who has reached the current phase, and what they hold.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Standing {
    reached: u32,
    lagging: BTreeSet<(Hostname, NodeId)>,
    excluded: BTreeSet<(Hostname, NodeId)>,
    groups: BTreeMap<Group, u64>,
}

impl Standing {
    /// How many nodes are required: all that use the type, but for excluded ones.
    pub fn required(&self) -> u32 {
        self.reached.saturating_add(count(&self.lagging))
    }

    /// How many of those have reached the current phase.
    pub fn reached(&self) -> u32 {
        self.reached
    }

    /// How many nodes are excluded from the rotation.
    pub fn excluded(&self) -> u32 {
        count(&self.excluded)
    }

    /// Who is required and has not reached, in the order of the names.
    pub fn lagging(&self) -> impl Iterator<Item = NodeId> {
        self.lagging.iter().map(|(_, id)| *id)
    }

    /// Who lags or is excluded: whoever would be cut off if the rotation ended now.
    pub(crate) fn not_with_it(&self) -> impl Iterator<Item = NodeId> {
        self.lagging.iter().chain(&self.excluded).map(|(_, id)| *id)
    }

    /// What the nodes have reported, and how many of them each.
    pub fn groups(&self) -> &BTreeMap<Group, u64> {
        &self.groups
    }

    fn add(&mut self, node: &Named, stand: Stand) {
        match stand.place {
            Place::Reached => self.reached += 1,
            Place::Lagging => _ = self.lagging.insert(node.clone()),
            Place::Excluded => _ = self.excluded.insert(node.clone()),
        }
        if let Some(group) = stand.group {
            *self.groups.entry(group).or_default() += 1;
        }
    }

    fn remove(&mut self, node: &Named, stand: Stand) {
        match stand.place {
            Place::Reached => self.reached = self.reached.saturating_sub(1),
            Place::Lagging => _ = self.lagging.remove(node),
            Place::Excluded => _ = self.excluded.remove(node),
        }
        if let Some(group) = stand.group
            && let Some(size) = self.groups.get_mut(&group)
        {
            *size = size.saturating_sub(1);
            if *size == 0 {
                self.groups.remove(&group);
            }
        }
    }
}

/// A node by its name, as people look for it.
type Named = (Hostname, NodeId);

/// Where a node stands in one type.
struct Stand {
    place: Place,
    group: Option<Group>,
}

enum Place {
    Reached,
    Lagging,
    Excluded,
}

/// Whom an event may move.
pub(crate) struct Moved(Moving);

enum Moving {
    /// One node; with where it stood before the event, if it was there.
    Node(NodeId, Option<(Named, Vec<(AuthorityType, Stand)>)>),
    /// Everybody who uses a type: its row has changed.
    Type(AuthorityType),
    Nobody,
}

/// Before an event is folded: whom may it move, and where do they stand?
pub(crate) fn before(state: &ClusterState, fact: &Fact) -> Moved {
    Moved(match whom(fact) {
        Whom::Node(id) => Moving::Node(id, state.nodes.get(&id).map(|node| stands(state, node))),
        Whom::Type(t) => Moving::Type(t),
        Whom::Nobody => Moving::Nobody,
    })
}

/// After it was folded: where do they stand now?
pub(crate) fn after(state: &mut ClusterState, moved: Moved) {
    match moved.0 {
        Moving::Node(id, was) => {
            let is = state.nodes.get(&id).map(|node| stands(state, node));
            if let Some((node, stands)) = was {
                for (t, stand) in stands {
                    state.standings.entry(t).or_default().remove(&node, stand);
                }
            }
            if let Some((node, stands)) = is {
                for (t, stand) in stands {
                    state.standings.entry(t).or_default().add(&node, stand);
                }
            }
        }
        Moving::Type(t) => {
            let standing = counted(state, t);
            state.standings.insert(t, standing);
        }
        Moving::Nobody => {}
    }
}

/// The first type whose standing is not what counting the fleet gives: none, at any moment.
pub fn miscounted(state: &ClusterState) -> Option<AuthorityType> {
    let kept = |t| state.standings.get(&t).cloned().unwrap_or_default();
    AuthorityType::all().find(|t| kept(*t) != counted(state, *t))
}

fn counted(state: &ClusterState, t: AuthorityType) -> Standing {
    let mut standing = Standing::default();
    for node in state.nodes.values().filter(|node| node.uses(t).is_some()) {
        standing.add(&named(node), stand(state, t, node));
    }
    standing
}

fn stands(state: &ClusterState, node: &Node) -> (Named, Vec<(AuthorityType, Stand)>) {
    let types = node.grant.uses.keys();
    (named(node), types.map(|t| (*t, stand(state, *t, node))).collect())
}

fn stand(state: &ClusterState, t: AuthorityType, node: &Node) -> Stand {
    let is_excluded = state
        .types
        .get(&t)
        .is_some_and(|of| gate::is_excluded(node, t, of));
    let place = if is_excluded {
        Place::Excluded
    } else if gate::missing(state, t, node).is_ok() {
        Place::Reached
    } else {
        Place::Lagging
    };
    Stand {
        place,
        group: oracle::group_of(t, node),
    }
}

fn named(node: &Node) -> Named {
    (node.hostname.clone(), node.id)
}

fn count(nodes: &BTreeSet<Named>) -> u32 {
    u32::try_from(nodes.len()).unwrap_or(u32::MAX)
}

enum Whom {
    Node(NodeId),
    Type(AuthorityType),
    Nobody,
}

/// Exhaustive, so that a new fact has to say whom it moves.
fn whom(fact: &Fact) -> Whom {
    match fact {
        Fact::RotationPhaseEntered(f) => Whom::Type(f.authority_type),
        Fact::AuthorityKeyGenerated(f) => Whom::Type(f.authority_type),
        Fact::NodeJoined(f) => Whom::Node(f.node),
        Fact::NodeRejoined(f) => Whom::Node(f.node),
        Fact::NodeReported(f) => Whom::Node(f.node),
        Fact::NodeExcluded(f) => Whom::Node(f.node),
        Fact::NodeIncluded(f) => Whom::Node(f.node),
        Fact::NodeRemoved(f) => Whom::Node(f.node),
        // A node that was touched by the prepared authority has something to undo in a rollback.
        Fact::AuthorizationGranted(f) => match f.holder {
            Principal::Node(id) => Whom::Node(id),
            Principal::Gateway(_)
            | Principal::User(_)
            | Principal::External(_)
            | Principal::System(_)
            | Principal::Anonymous => Whom::Nobody,
        },
        Fact::ClusterCreated(_)
        | Fact::ClusterClockAccepted(_)
        | Fact::RotationHeld(_)
        | Fact::RotationResumed(_)
        | Fact::RotationModeChanged(_)
        | Fact::RotationSettled(_)
        | Fact::NodeRecovered(_)
        | Fact::MemberStarted(_)
        | Fact::MemberReported(_)
        | Fact::MemberLost(_)
        | Fact::MemberStopped(_)
        | Fact::AccessTokenCreated(_)
        | Fact::AccessTokenUsed(_)
        | Fact::AccessTokenRemoved(_)
        | Fact::AccessUserAdded(_)
        | Fact::AccessUserRemoved(_)
        | Fact::AccessRecovered(_)
        | Fact::AccessNamesReleased(_)
        | Fact::AccessCertificatesRevoked(_)
        | Fact::AccessCredentialPresented(_)
        | Fact::ConsumerAdded(_)
        | Fact::ConsumerAttested(_)
        | Fact::ConsumerWithdrawn(_)
        | Fact::CommandRefused(_)
        | Fact::CommandNoop(_)
        | Fact::AuthorizationVoided(_)
        | Fact::AuthorityActivated(_)
        | Fact::AuthorityRetired(_)
        | Fact::AuthorityDestroyed(_)
        | Fact::AuthorityBundleSigned(_)
        | Fact::CertificateIssued(_)
        | Fact::CertificateRefused(_)
        | Fact::CertificateRevoked(_) => Whom::Nobody,
    }
}
