//! What would break: the oracle's rule over the fleet's current facts, counted by groups.
//!
//! Nodes with the same trust, certificates and roles behave alike, so pairs are counted per pair of groups:
//! a fleet of any size has a handful of groups, and the answer does not grow with its square.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    access::Uses,
    authority::{AuthorityType, KeyKind},
    gate,
    id::{NodeId, SpkiPin},
    phase::{Generation, Phase},
    state::{ClusterState, Node, TypeState},
    trust::{Side, interoperate},
};

/// Stands for the new key while it is not made yet.
const NOT_MADE_YET: SpkiPin = SpkiPin([0; 32]);

/// Ordered pairs of nodes that can open a connection, counted by the oracle's rule, never by hand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Connections {
    /// Pairs that cannot connect, or could not any more.
    pub broken: u64,
    /// All pairs.
    pub total: u64,
}

/// A phase and the one that it is entered from: the final standby drops the old authority after `update_servers`
/// and the new one after `rollback`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entering {
    /// The phase before.
    pub from: Phase,
    /// The phase that is entered.
    pub to: Phase,
}

/// A node as the oracle sees it.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen {
    /// Which node.
    pub node: NodeId,
    /// What it trusts and presents, as its newest facts say.
    pub side: Side,
    /// The roles in which it uses the type.
    pub uses: Uses,
    /// Has it reached the current phase, so that it will follow the next one?
    pub follows: bool,
    /// Is it taken out of the rotation? Then nobody waits for it, and it stays as it is.
    pub excluded: bool,
    /// Has it reported this type at all?
    pub known: bool,
}

/// What a forced step would do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Forced {
    /// The connections that would break.
    pub connections: Connections,
    /// Who could not be reached by, or could not reach, those that follow.
    pub cut_off: BTreeSet<NodeId>,
}

/// Every node that uses the type, as its newest facts say; excluded ones too: they are there when the step comes.
pub fn fleet(state: &ClusterState, authority_type: AuthorityType, of: &TypeState) -> Vec<Seen> {
    let nodes = state.nodes.values();
    nodes
        .filter_map(|node| seen(state, authority_type, of, node))
        .collect()
}

/// One node, if it uses the type.
pub fn seen(
    state: &ClusterState,
    authority_type: AuthorityType,
    of: &TypeState,
    node: &Node,
) -> Option<Seen> {
    let uses = node.uses(authority_type)?;
    let facts = node
        .report
        .as_ref()
        .and_then(|r| r.report.authorities.get(&authority_type));
    let side = facts.map(|f| Side {
        trusted: f.trusted.clone(),
        client_issuer: f.client_issuer,
        server_issuer: f.server_issuer,
    });
    let excluded = gate::is_excluded(node, authority_type, of);
    Some(Seen {
        node: node.id,
        known: side.is_some(),
        side: side.unwrap_or_default(),
        uses,
        follows: !excluded && gate::missing(state, authority_type, node).is_ok(),
        excluded,
    })
}

/// What a node holds that has followed this step.
pub fn row_at(of: &TypeState, step: Entering) -> Side {
    let active = of.tls(Generation::Active).map_or(NOT_MADE_YET, |k| k.id);
    let prepared = of.prepared.get(&KeyKind::Tls).map_or(NOT_MADE_YET, |k| k.id);
    // The final standby of a rotation that goes forward: prepared has become active.
    let completes = step.to == Phase::Standby && step.from != Phase::Rollback;
    let pin = |generation| match generation {
        Generation::Active if completes => prepared,
        Generation::Active => active,
        Generation::Prepared => prepared,
    };
    let row = step.to.row();
    let mut trusted = BTreeSet::from([pin(Generation::Active)]);
    if row.trusts_prepared {
        trusted.insert(prepared);
    }
    Side {
        trusted,
        client_issuer: Some(pin(row.client)),
        server_issuer: Some(pin(row.server)),
    }
}

/// What would break if a step were forced now: those that follow hold its row, those that lag or are excluded stay
/// as they are.
pub fn if_forced(of: &TypeState, fleet: &[Seen], step: Entering) -> Forced {
    let row = row_at(of, step);
    let mut groups: BTreeMap<Group, u64> = BTreeMap::new();
    for node in fleet {
        let side = if node.follows { &row } else { &node.side };
        *groups.entry(Group::new(side, node.uses)).or_default() += 1;
    }
    let somebody_follows = fleet.iter().any(|node| node.follows);
    let is_cut_off = |node: &&Seen| somebody_follows && !node.follows && is_cut_off(node, &row);
    Forced {
        connections: count(&groups),
        cut_off: fleet.iter().filter(is_cut_off).map(|node| node.node).collect(),
    }
}

/// The pairs that cannot connect now, by what the nodes have reported. Who has reported nothing is not judged.
pub fn broken_now(fleet: &[Seen]) -> Connections {
    let mut groups: BTreeMap<Group, u64> = BTreeMap::new();
    for node in fleet.iter().filter(|node| node.known) {
        *groups.entry(Group::new(&node.side, node.uses)).or_default() += 1;
    }
    count(&groups)
}

/// The same over groups that were counted before: see [`Standing`](crate::standing::Standing).
pub fn broken_among(groups: &BTreeMap<Group, u64>) -> Connections {
    count(groups)
}

/// The group of a node that has reported the type.
pub(crate) fn group_of(authority_type: AuthorityType, node: &Node) -> Option<Group> {
    let uses = node.uses(authority_type)?;
    let facts = node.report.as_ref()?.report.authorities.get(&authority_type)?;
    Some(Group {
        trusted: facts.trusted.iter().copied().collect(),
        client_issuer: facts.client_issuer,
        server_issuer: facts.server_issuer,
        client: uses.client,
        server: uses.server,
    })
}

/// Does anything break between this node and one that holds the row?
fn is_cut_off(node: &Seen, row: &Side) -> bool {
    (node.uses.server && !interoperate(row, &node.side))
        || (node.uses.client && !interoperate(&node.side, row))
}

/// Nodes that behave alike towards each other: the same trust, certificates and roles.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Group {
    trusted: Vec<SpkiPin>,
    client_issuer: Option<SpkiPin>,
    server_issuer: Option<SpkiPin>,
    client: bool,
    server: bool,
}

impl Group {
    fn new(side: &Side, uses: Uses) -> Self {
        Self {
            trusted: side.trusted.iter().copied().collect(),
            client_issuer: side.client_issuer,
            server_issuer: side.server_issuer,
            client: uses.client,
            server: uses.server,
        }
    }

    fn side(&self) -> Side {
        Side {
            trusted: self.trusted.iter().copied().collect(),
            client_issuer: self.client_issuer,
            server_issuer: self.server_issuer,
        }
    }
}

fn count(groups: &BTreeMap<Group, u64>) -> Connections {
    let mut connections = Connections::default();
    for (client, clients) in groups.iter().filter(|(group, _)| group.client) {
        for (server, servers) in groups.iter().filter(|(group, _)| group.server) {
            // A node does not connect to itself.
            let pairs = if client == server {
                clients * (servers - 1)
            } else {
                clients * servers
            };
            connections.total += pairs;
            if !interoperate(&client.side(), &server.side()) {
                connections.broken += pairs;
            }
        }
    }
    connections
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::AuthorityKey;

    const OLD: SpkiPin = SpkiPin([1; 32]);
    const NEW: SpkiPin = SpkiPin([2; 32]);

    fn key_of(id: SpkiPin) -> AuthorityKey {
        AuthorityKey {
            id,
            kind: KeyKind::Tls,
            public_key: String::new(),
            generation: 1,
            certificate: String::new(),
            algorithm: String::new(),
            storage: String::new(),
            not_after: crate::Timestamp(0),
            rotation: None,
            position: crate::Position(1),
        }
    }

    fn in_phase(phase: Phase) -> TypeState {
        TypeState {
            phase,
            active: [(KeyKind::Tls, key_of(OLD))].into(),
            prepared: [(KeyKind::Tls, key_of(NEW))].into(),
            ..Default::default()
        }
    }

    fn twelve(of: &TypeState, laggard: Side) -> Vec<Seen> {
        let follower = Seen {
            side: row_at(of, into(of, of.phase)),
            ..node(1, true)
        };
        let mut fleet = vec![follower; 11];
        fleet.push(Seen {
            side: laggard,
            ..node(12, false)
        });
        fleet
    }

    fn node(n: u128, follows: bool) -> Seen {
        Seen {
            node: NodeId(uuid::Uuid::from_u128(n)),
            side: Side::default(),
            uses: Uses::ALL,
            follows,
            excluded: false,
            known: true,
        }
    }

    fn into(of: &TypeState, to: Phase) -> Entering {
        Entering { from: of.phase, to }
    }

    #[test]
    fn a_node_that_never_loaded_the_new_authority_cannot_be_reached_then_cannot_reach_others() {
        let of = in_phase(Phase::Init);
        let old = Side {
            trusted: [OLD].into(),
            client_issuer: Some(OLD),
            server_issuer: Some(OLD),
        };
        let fleet = twelve(&of, old);
        let broken = |phase| if_forced(&of, &fleet, into(&of, phase)).connections;
        assert_eq!(
            broken(Phase::Init),
            Connections {
                broken: 0,
                total: 132
            }
        );
        assert_eq!(
            broken(Phase::UpdateClients),
            Connections {
                broken: 11,
                total: 132
            }
        );
        assert_eq!(
            broken(Phase::UpdateServers),
            Connections {
                broken: 22,
                total: 132
            }
        );
        assert_eq!(
            broken(Phase::Standby),
            Connections {
                broken: 22,
                total: 132
            }
        );
    }

    #[test]
    fn a_node_that_still_serves_the_old_authority_is_cut_off_only_at_the_end() {
        let of = in_phase(Phase::UpdateServers);
        let half = Side {
            trusted: [OLD, NEW].into(),
            client_issuer: Some(NEW),
            server_issuer: Some(OLD),
        };
        let fleet = twelve(&of, half);
        let stays = if_forced(&of, &fleet, into(&of, Phase::UpdateServers));
        assert_eq!((stays.connections.broken, stays.cut_off.len()), (0, 0));
        let ends = if_forced(&of, &fleet, into(&of, Phase::Standby));
        assert_eq!(ends.connections.broken, 11);
        assert_eq!(
            ends.cut_off,
            [fleet[11].node].into(),
            "the laggard and nobody else"
        );
    }

    #[test]
    fn the_end_of_a_rollback_keeps_the_old_authority_and_the_end_of_a_rotation_the_new_one() {
        let of = in_phase(Phase::UpdateServers);
        let holds = |from| {
            row_at(
                &of,
                Entering {
                    from,
                    to: Phase::Standby,
                },
            )
        };
        let all = |pin| Side {
            trusted: [pin].into(),
            client_issuer: Some(pin),
            server_issuer: Some(pin),
        };
        assert_eq!(holds(Phase::UpdateServers), all(NEW));
        assert_eq!(holds(Phase::Rollback), all(OLD));
    }

    #[test]
    fn what_is_broken_already_is_counted_over_what_was_reported() {
        let of = in_phase(Phase::UpdateServers);
        let old = Side {
            trusted: [OLD].into(),
            client_issuer: Some(OLD),
            server_issuer: Some(OLD),
        };
        let mut fleet = twelve(&of, old);
        assert_eq!(
            broken_now(&fleet),
            Connections {
                broken: 22,
                total: 132
            }
        );
        // A node that has just joined and said nothing yet is no broken one.
        fleet[11] = Seen {
            known: false,
            ..node(12, false)
        };
        assert_eq!(
            broken_now(&fleet),
            Connections {
                broken: 0,
                total: 110
            }
        );
    }

    #[test]
    fn counting_by_groups_gives_what_counting_every_pair_gives() {
        // A small generator is enough: every mixture of sides and roles over a few nodes.
        let sides: Vec<Side> = [(false, false), (false, true), (true, false), (true, true)]
            .into_iter()
            .flat_map(|(client, server)| {
                let pin = |new| Some(if new { NEW } else { OLD });
                [[OLD].into(), [NEW].into(), [OLD, NEW].into()].map(|trusted| Side {
                    trusted,
                    client_issuer: pin(client),
                    server_issuer: pin(server),
                })
            })
            .collect();
        for seed in 0..200_usize {
            let fleet: Vec<Seen> = (0..7)
                .map(|i| Seen {
                    side: sides[(seed * 31 + i * 7 + seed * i) % sides.len()].clone(),
                    uses: Uses {
                        client: (seed + i) % 5 != 0,
                        server: (seed + i) % 3 != 0,
                        verifier: true,
                    },
                    ..node(1, false)
                })
                .collect();
            let mut expected = Connections::default();
            for (i, client) in fleet.iter().enumerate().filter(|(_, n)| n.uses.client) {
                for (_, server) in fleet.iter().enumerate().filter(|(j, n)| *j != i && n.uses.server) {
                    expected.total += 1;
                    expected.broken += u64::from(!interoperate(&client.side, &server.side));
                }
            }
            assert_eq!(broken_now(&fleet), expected, "seed {seed}");
        }
    }
}
