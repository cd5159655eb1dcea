//! Properties of any history of joins, renewals, recoveries and removals.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    authority::AuthorityType,
    command::{Order, Rejoin},
    event::{Fact, LeafUse},
    id::{Hostname, NodeId, Principal, SpkiPin, TokenHash},
    phase::Phase,
    time::{DAY_MS, HOUR_MS, Timestamp},
};
use proptest::prelude::*;

use crate::world::{World, admin, grant};

/// What may happen next; the numbers choose among the tokens, names and nodes that there are.
#[derive(Clone, Debug)]
enum Deed {
    Token {
        uses: u32,
        name: u8,
        pattern: bool,
    },
    Join {
        token: u8,
        name: u8,
    },
    Rejoin {
        token: u8,
        name: u8,
        node: u8,
        proven: bool,
    },
    Renew {
        node: u8,
    },
    Recover {
        node: u8,
    },
    Present {
        node: u8,
    },
    Remove {
        node: u8,
    },
    Sign,
    Pass {
        hours: u64,
    },
    Phase {
        phase: u8,
    },
}

fn deed() -> impl Strategy<Value = Deed> {
    let small = 0..6_u8;
    prop_oneof![
        3 => (1..3_u32, small.clone(), any::<bool>()).prop_map(|(uses, name, pattern)| Deed::Token { uses, name, pattern }),
        5 => (small.clone(), small.clone()).prop_map(|(token, name)| Deed::Join { token, name }),
        4 => (small.clone(), small.clone(), small.clone(), any::<bool>())
            .prop_map(|(token, name, node, proven)| Deed::Rejoin { token, name, node, proven }),
        3 => small.clone().prop_map(|node| Deed::Renew { node }),
        3 => small.clone().prop_map(|node| Deed::Recover { node }),
        2 => small.clone().prop_map(|node| Deed::Present { node }),
        1 => small.clone().prop_map(|node| Deed::Remove { node }),
        4 => Just(Deed::Sign),
        2 => (1..20_u64).prop_map(|hours| Deed::Pass { hours }),
        1 => (0..5_u8).prop_map(|phase| Deed::Phase { phase }),
    ]
}

fn pick<T: Clone>(from: impl IntoIterator<Item = T>, n: u8) -> Option<T> {
    let all: Vec<T> = from.into_iter().collect();
    all.get(usize::from(n) % all.len().max(1)).cloned()
}

fn host_name(n: u8) -> String {
    format!("n{}.web", n % 4)
}

/// Does the deed; a refusal is as good an answer as any.
fn act(world: &mut World, deed: &Deed) -> Option<()> {
    let tokens: Vec<TokenHash> = world.state.token_hashes.keys().copied().collect();
    let nodes: Vec<NodeId> = world.state.nodes.keys().copied().collect();
    match deed {
        Deed::Token { uses, name, pattern } => {
            let name = if *pattern {
                "*.web".into()
            } else {
                host_name(*name)
            };
            world.token_for(4 * DAY_MS, grant(&[&name]), *uses);
        }
        Deed::Join { token, name } => {
            let key = world.key();
            let _ = world.joined(pick(tokens, *token)?, &host_name(*name), key, None);
        }
        Deed::Rejoin {
            token,
            name,
            node,
            proven,
        } => {
            let (node, key) = (pick(nodes, *node)?, world.key());
            let held = world
                .state
                .held
                .get(&Principal::Node(node))
                .cloned()
                .unwrap_or_default();
            let proven_by = proven.then(|| held.first().copied()).flatten();
            let rejoin = Some(Rejoin { node, proven_by });
            let _ = world.joined(pick(tokens, *token)?, &host_name(*name), key, rejoin);
        }
        Deed::Renew { node } => {
            let _ = world.request(pick(nodes, *node)?, LeafUse::Both, None);
        }
        Deed::Recover { node } => {
            let (node, key) = (pick(nodes, *node)?, world.key());
            let proven_by = *world.state.held.get(&Principal::Node(node))?.last()?;
            let _ = world.ask(Principal::Anonymous, Order::Recover { node, proven_by, key });
        }
        Deed::Present { node } => {
            let node = Principal::Node(pick(nodes, *node)?);
            let certificate = *world.state.held.get(&node)?.last()?;
            let order = Order::PresentCredential {
                holder: node,
                certificate,
            };
            let _ = world.ask(crate::world::clock(), order);
        }
        Deed::Remove { node } => {
            let _ = world.ask(
                admin(),
                Order::RemoveNode {
                    node: pick(nodes, *node)?,
                },
            );
        }
        Deed::Sign => world.sign(),
        Deed::Pass { hours } => world.pass(hours * HOUR_MS),
        Deed::Phase { phase } => {
            let of = &world.state.types[&AuthorityType::Host];
            let target = pick(of.phase.legal_targets(), *phase)?;
            world.enter(AuthorityType::Host, target);
        }
    }
    Some(())
}

/// No two nodes bear one name at one time, whatever was authorised or issued.
fn check_names(world: &World) {
    let mut bearer: BTreeMap<&Hostname, (NodeId, Timestamp)> = BTreeMap::new();
    let mut removed_at: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (at, event) in world.log.iter().enumerate() {
        match &event.fact {
            Fact::NodeRemoved(f) => {
                removed_at.insert(f.node, at);
                bearer.retain(|_, (node, _)| *node != f.node);
            }
            Fact::AuthorizationGranted(f) => {
                let Principal::Node(node) = f.holder else { continue };
                assert!(
                    !removed_at.contains_key(&node),
                    "{node} was removed and gets a certificate"
                );
                for name in &f.names {
                    if let Some((other, until)) = bearer.get(name) {
                        let free = *other == node || *until <= event.header.time;
                        assert!(
                            free,
                            "{name} is borne by {other} until {until} and given to {node}"
                        );
                    }
                    let until = bearer
                        .get(name)
                        .filter(|(n, _)| *n == node)
                        .map_or(f.not_after, |(_, u)| *u);
                    bearer.insert(name, (node, until.max(f.not_after)));
                }
            }
            _ => {}
        }
    }
}

/// One key is authorised once, and never for an authority's key.
fn check_keys(world: &World) {
    let mut keys: BTreeSet<SpkiPin> = BTreeSet::new();
    for event in &world.log {
        let key = match &event.fact {
            Fact::AuthorizationGranted(f) => f.spki,
            Fact::AuthorityKeyGenerated(f) => f.key.id,
            _ => continue,
        };
        assert!(keys.insert(key), "{key} was taken twice");
    }
}

fn check_tokens(world: &World) {
    for token in world.state.tokens.values() {
        assert!(
            token.used.len() <= token.uses as usize,
            "{token:?} let in too many"
        );
    }
}

/// Everything authorised comes from the row at that time, or from one that trusts it.
fn check_authorisations(world: &World) {
    for event in &world.log {
        let Fact::AuthorizationGranted(f) = &event.fact else {
            continue;
        };
        assert!(f.not_after <= event.header.time.plus_ms(DAY_MS));
        assert!(
            f.names.iter().all(|name| name.as_str().ends_with(".web")),
            "{:?} was never granted",
            f.names
        );
        if f.phase == Phase::UpdateClients && matches!(f.holder, Principal::Node(_)) {
            assert_ne!(f.usage, LeafUse::Both, "one leaf with two issuers");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_keys_and_tokens_are_never_given_twice(deeds in prop::collection::vec(deed(), 10..120)) {
        let mut world = World::new();
        for deed in &deeds {
            let _ = act(&mut world, deed);
        }
        check_names(&world);
        check_keys(&world);
        check_tokens(&world);
        check_authorisations(&world);
    }
}
