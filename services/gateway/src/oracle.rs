//! What would break: the oracle's rule over the fleet's current facts, counted by groups.
//!
//! Nodes with the same trust, certificates and roles behave alike, so pairs are counted per pair of groups:
//! a fleet of any size has a handful of groups, and the answer does not grow with its square.

use std::collections::BTreeMap;

use api::problem::Connections;
use domain::{
    AuthorityType, ClusterState, Phase, SpkiPin,
    access::Uses,
    gate,
    phase::Generation,
    state::{Node, TypeState},
    trust::{Side, interoperate},
};

/// Stands for the new key while it is not made yet.
const NOT_MADE_YET: SpkiPin = SpkiPin([0; 32]);

/// A node as the oracle sees it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Seen {
    pub(crate) side: Side,
    pub(crate) uses: Uses,
    /// Has it reached the current phase, so that it will follow the next one?
    pub(crate) follows: bool,
}

/// Every node that the type's rotation waits for, as its newest facts say.
pub(crate) fn fleet(state: &ClusterState, authority_type: AuthorityType, of: &TypeState) -> Vec<Seen> {
    let nodes = state
        .nodes
        .values()
        .filter(|n| !gate::is_excluded(n, authority_type, of));
    nodes
        .filter_map(|node| seen(state, authority_type, node))
        .collect()
}

/// One node, if it uses the type.
pub(crate) fn seen(state: &ClusterState, authority_type: AuthorityType, node: &Node) -> Option<Seen> {
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
    let follows = gate::missing(state, authority_type, node).is_ok();
    Some(Seen {
        side: side.unwrap_or_default(),
        uses,
        follows,
    })
}

/// What a node holds that has reached a phase entered from here.
pub(crate) fn row_at(of: &TypeState, phase: Phase) -> Side {
    let active = of.tls(Generation::Active).map_or(NOT_MADE_YET, |k| k.id);
    let prepared = of
        .prepared
        .get(&domain::authority::KeyKind::Tls)
        .map_or(NOT_MADE_YET, |k| k.id);
    // The final standby of a rotation that goes forward: prepared has become active.
    let completes = phase == Phase::Standby && of.phase != Phase::Rollback;
    let pin = |generation| match generation {
        Generation::Active if completes => prepared,
        Generation::Active => active,
        Generation::Prepared => prepared,
    };
    let row = phase.row();
    let mut trusted = std::collections::BTreeSet::from([pin(Generation::Active)]);
    if row.trusts_prepared {
        trusted.insert(prepared);
    }
    Side {
        trusted,
        client_issuer: Some(pin(row.client)),
        server_issuer: Some(pin(row.server)),
    }
}

/// The connections that would break if a phase were forced now: those that follow hold its row, those that
/// lag stay as they are.
pub(crate) fn if_forced(of: &TypeState, fleet: &[Seen], phase: Phase) -> Connections {
    let row = row_at(of, phase);
    let mut groups: BTreeMap<Key, u64> = BTreeMap::new();
    for node in fleet {
        let side = if node.follows { &row } else { &node.side };
        *groups.entry(key(side, node.uses)).or_default() += 1;
    }
    count(&groups)
}

type Key = (Vec<SpkiPin>, Option<SpkiPin>, Option<SpkiPin>, bool, bool);

fn key(side: &Side, uses: Uses) -> Key {
    let trusted = side.trusted.iter().copied().collect();
    (
        trusted,
        side.client_issuer,
        side.server_issuer,
        uses.client,
        uses.server,
    )
}

fn count(groups: &BTreeMap<Key, u64>) -> Connections {
    let mut connections = Connections::default();
    let side = |k: &Key| Side {
        trusted: k.0.iter().copied().collect(),
        client_issuer: k.1,
        server_issuer: k.2,
    };
    for (client, clients) in groups.iter().filter(|(k, _)| k.3) {
        for (server, servers) in groups.iter().filter(|(k, _)| k.4) {
            // A node does not connect to itself.
            let pairs = if client == server {
                clients * (servers - 1)
            } else {
                clients * servers
            };
            connections.total += pairs;
            if !interoperate(&side(client), &side(server)) {
                connections.broken += pairs;
            }
        }
    }
    connections
}

#[cfg(test)]
mod tests {
    use domain::authority::{AuthorityKey, KeyKind};

    use super::*;

    const OLD: SpkiPin = SpkiPin([1; 32]);
    const NEW: SpkiPin = SpkiPin([2; 32]);

    fn key_of(id: SpkiPin) -> AuthorityKey {
        AuthorityKey {
            id,
            kind: KeyKind::Tls,
            generation: 1,
            certificate: String::new(),
            algorithm: String::new(),
            storage: String::new(),
            not_after: domain::Timestamp(0),
            rotation: None,
            position: domain::Position(1),
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
            side: row_at(of, of.phase),
            uses: Uses::ALL,
            follows: true,
        };
        let mut fleet = vec![follower; 11];
        fleet.push(Seen {
            side: laggard,
            uses: Uses::ALL,
            follows: false,
        });
        fleet
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
        let broken = |phase| if_forced(&of, &fleet, phase);
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
        assert_eq!(if_forced(&of, &fleet, Phase::UpdateServers).broken, 0);
        assert_eq!(if_forced(&of, &fleet, Phase::Standby).broken, 11);
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
                    follows: false,
                })
                .collect();
            let mut expected = Connections::default();
            for (i, client) in fleet.iter().enumerate().filter(|(_, n)| n.uses.client) {
                for (_, server) in fleet.iter().enumerate().filter(|(j, n)| *j != i && n.uses.server) {
                    expected.total += 1;
                    expected.broken += u64::from(!interoperate(&client.side, &server.side));
                }
            }
            assert_eq!(
                if_forced(&in_phase(Phase::Init), &fleet, Phase::Init),
                expected,
                "seed {seed}"
            );
        }
    }
}
