//! Joining and rejoining: tokens, names, keys.

use std::collections::BTreeMap;

use domain::{
    authority::AuthorityType,
    command::{Answer, KeyRequest, Order, Rejoin},
    desired::{answers_join, desired, may_hand_out},
    event::{Fact, LeafUse},
    id::{NodeId, Position, Principal, TokenHash},
    phase::Phase,
    refusal::Code,
    time::{DAY_MS, HOUR_MS},
};

use crate::world::{World, admin, grant, names_of};

fn refused(world: &mut World, token: TokenHash, name: &str, rejoin: Option<Rejoin>) -> Code {
    let key = world.key();
    world.refused(Principal::Anonymous, World::join_order(token, name, key, rejoin))
}

#[test]
fn a_join_is_one_append_on_the_access_subject() {
    let mut world = World::new();
    let (token, key) = (world.token(&["n1"], 1), world.key());
    let order = World::join_order(token, "n1", key.clone(), None);
    let decision = world.decide(Principal::Anonymous, order).unwrap();
    assert_eq!(
        names_of(&decision),
        ["access.token-used", "node.joined", "authorization.granted"]
    );
    let granted = world.last_granted();
    let Answer::Joined { node, authorization } = decision.answer else {
        panic!("a join was decided")
    };
    assert_eq!(authorization, granted.authorization);
    assert_eq!(granted.holder, Principal::Node(node));
    assert_eq!(granted.uri, format!("carousel://acme.cluster/node/{node}"));
    assert_eq!((granted.usage, granted.spki), (LeafUse::Both, key.spki));
    assert_eq!(granted.names, ["n1".parse().unwrap()]);
    assert_eq!(granted.not_before, world.now.minus_ms(300_000));
    assert_eq!(granted.not_after, world.now.plus_ms(DAY_MS));
    assert_eq!(granted.issuer, world.ca(AuthorityType::Host, false));
}

#[test]
fn a_join_is_answered_with_no_row_of_before_it_and_with_every_type_or_none() {
    let mut world = World::new();
    let node = world.node("n1");
    let at_least = world.state.nodes[&node].joined;
    assert_eq!(
        answers_join(&world.state, &node, at_least),
        None,
        "nothing is signed"
    );
    world.sign_bundle(AuthorityType::Host);
    let answer = answers_join(&world.state, &node, at_least);
    assert_eq!(answer, desired(&world.state, &node));
    assert!(answer.is_some());
    let next = Position(world.state.position.0 + 1);
    assert_eq!(answers_join(&world.state, &node, next), None);
    world.enter(AuthorityType::Host, Phase::Init);
    assert_eq!(
        answers_join(&world.state, &node, at_least),
        None,
        "the new row is not signed"
    );
}

#[test]
fn a_gateway_hands_out_nothing_while_it_does_not_hold_every_row_that_binds_it() {
    let mut world = World::new();
    let row = |world: &World, t| (t, world.state.types[&t].row_position);
    let both = [AuthorityType::Host, AuthorityType::User];
    let held = BTreeMap::from(both.map(|t| row(&world, t)));
    assert!(may_hand_out(&world.state, &held));
    world.enter(AuthorityType::User, Phase::Init);
    assert!(!may_hand_out(&world.state, &held), "its trust in people is old");
    let held = BTreeMap::from(both.map(|t| row(&world, t)));
    assert!(may_hand_out(&world.state, &held));
    assert!(!may_hand_out(
        &world.state,
        &BTreeMap::from([row(&world, AuthorityType::User)])
    ));
}

#[test]
fn a_join_repeated_with_the_same_token_and_key_gives_the_first_result() {
    let mut world = World::new();
    let (token, key) = (world.token(&["n1"], 1), world.key());
    let order = World::join_order(token, "n1", key, None);
    let first = world.ask(Principal::Anonymous, order.clone()).unwrap();
    let waiting = world.decide(Principal::Anonymous, order.clone()).unwrap();
    assert!(waiting.facts.is_empty() && waiting.repeats.is_some());
    world.sign();
    world.pass(2 * HOUR_MS); // the token has expired meanwhile
    let signed = world.decide(Principal::Anonymous, order).unwrap();
    assert!(signed.facts.is_empty());
    assert_eq!((&waiting.answer, &signed.answer), (&first, &first));
    assert_eq!(world.state.nodes.len(), 1);
}

#[test]
fn a_join_whose_authorisation_was_voided_is_authorised_anew_for_the_same_node() {
    let mut world = World::new();
    let (token, key) = (world.token(&["n1"], 1), world.key());
    let order = World::join_order(token, "n1", key, None);
    let Ok(Answer::Joined { node, authorization }) = world.ask(Principal::Anonymous, order.clone()) else {
        panic!("the join is good");
    };
    let void = Order::VoidAuthorization {
        authorization,
        why: "its authority signs no more".into(),
    };
    world.ask(crate::world::clock(), void).unwrap();
    let again = world.decide(Principal::Anonymous, order).unwrap();
    assert_eq!(names_of(&again), ["authorization.granted"]);
    assert!(
        matches!(again.answer, Answer::Joined { node: n, authorization: a } if n == node && a != authorization)
    );
}

#[test]
fn an_expired_token_authorises_nothing_anew_for_the_key_that_used_it() {
    let mut world = World::new();
    let (token, key) = (world.token(&["n1"], 1), world.key());
    let order = World::join_order(token, "n1", key, None);
    let Ok(Answer::Joined { authorization, .. }) = world.ask(Principal::Anonymous, order.clone()) else {
        panic!("the join is good");
    };
    let void = Order::VoidAuthorization {
        authorization,
        why: "its authority signs no more".into(),
    };
    world.ask(crate::world::clock(), void).unwrap();
    world.pass(HOUR_MS);
    assert_eq!(world.refused(Principal::Anonymous, order), Code::TokenExpired);
}

#[test]
fn a_backup_with_its_token_is_certified_anew_neither_while_the_token_lives_nor_later() {
    let mut world = World::new();
    let grant = grant(&["n1"]);
    let (token, key) = (world.token_for(7 * DAY_MS, grant, 1), world.key());
    let order = World::join_order(token, "n1", key, None);
    let Ok(Answer::Joined { node, .. }) = world.ask(Principal::Anonymous, order.clone()) else {
        panic!("the join is good");
    };
    world.sign();
    // The first certificate is forgotten as soon as it allows no recovery any more and a newer one is issued.
    let settings = domain::command::Settings {
        max_offline_ms: DAY_MS,
        ..world.state.settings()
    };
    world.state.cluster.as_mut().unwrap().settings = settings;
    world.pass(2 * DAY_MS + 1);
    world.renew(node);
    assert_eq!(world.state.held[&Principal::Node(node)].len(), 1);
    assert_eq!(
        world.refused(Principal::Anonymous, order.clone()),
        Code::TokenUsed
    );
    world.pass(7 * DAY_MS);
    assert_eq!(world.refused(Principal::Anonymous, order), Code::TokenExpired);
}

#[test]
fn a_token_admits_as_many_nodes_as_it_has_uses_and_no_more() {
    let mut world = World::new();
    let token = world.token(&["*.web"], 2);
    for name in ["a.web", "b.web"] {
        let key = world.key();
        world.joined(token, name, key, None).unwrap();
        assert_eq!(world.last_granted().names, [name.parse().unwrap()]);
    }
    assert_eq!(refused(&mut world, token, "c.web", None), Code::TokenUsed);
}

#[test]
fn a_used_token_with_another_key_is_used() {
    let mut world = World::new();
    let (token, key) = (world.token(&["n1"], 1), world.key());
    world.joined(token, "n1", key, None).unwrap();
    assert_eq!(refused(&mut world, token, "n1", None), Code::TokenUsed);
}

#[test]
fn bad_tokens_and_names_are_refused() {
    let mut world = World::new();
    let token = world.token(&["n1", "*.web"], 9);
    assert_eq!(
        refused(&mut world, TokenHash([8; 32]), "n1", None),
        Code::TokenUnknown
    );
    for name in ["n2", "web", "xweb", "n1.web.evil", "localhost", "acme.cluster"] {
        assert_eq!(
            refused(&mut world, token, name, None),
            Code::NameNotGranted,
            "{name}"
        );
    }
    world.pass(HOUR_MS);
    assert_eq!(refused(&mut world, token, "n1", None), Code::TokenExpired);
}

#[test]
fn a_token_for_one_node_gives_it_all_its_exact_names_and_addresses() {
    let mut world = World::new();
    let mut grant = grant(&["n1", "n1.example.com", "*.db"]);
    grant.addresses = vec!["10.0.0.7".parse().unwrap()];
    let hash = TokenHash([5; 32]);
    world
        .ask(
            admin(),
            Order::CreateToken {
                hash,
                grant,
                uses: 1,
                ttl_ms: HOUR_MS,
            },
        )
        .unwrap();
    let key = world.key();
    world.joined(hash, "n1.example.com", key, None).unwrap();
    let granted = world.last_granted();
    assert_eq!(
        granted.names,
        ["n1.example.com".parse().unwrap(), "n1".parse().unwrap()]
    );
    assert_eq!(
        granted.addresses,
        ["10.0.0.7".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(granted.common_name, "n1.example.com");
    // Every one of the names is taken now.
    let token = world.token(&["n1"], 1);
    assert_eq!(refused(&mut world, token, "n1", None), Code::NameTaken);
}

#[test]
fn a_name_is_free_again_when_no_living_certificate_bears_it() {
    let mut world = World::new();
    let first = world.node("n1");
    let token = world.token(&["n1"], 1);
    assert_eq!(refused(&mut world, token, "n1", None), Code::NameTaken);
    world.pass(DAY_MS);
    let token = world.token(&["n1"], 1);
    let key = world.key();
    let second = world.joined(token, "n1", key, None).unwrap();
    assert_ne!(first, second);
}

#[test]
fn a_removed_node_leaves_its_name_and_its_first_result_is_gone() {
    let mut world = World::new();
    let (token, key) = (world.token(&["n1"], 1), world.key());
    let node = world.joined(token, "n1", key.clone(), None).unwrap();
    world.sign();
    let decision = world.decide(admin(), Order::RemoveNode { node }).unwrap();
    assert_eq!(names_of(&decision), ["access.names-released", "node.removed"]);
    let repeated = World::join_order(token, "n1", key, None);
    assert_eq!(world.refused(Principal::Anonymous, repeated), Code::NodeRemoved);
    world.node("n1");
}

#[test]
fn a_key_in_use_admits_nobody() {
    let mut world = World::new();
    let node = world.node("n1");
    let (_, certificate) = world.newest(&Principal::Node(node));
    let token = world.token(&["n2", "n3"], 2);
    let ca = world.ca(AuthorityType::User, false);
    for spki in [certificate.spki, ca] {
        let key = KeyRequest {
            spki,
            public_key: "key".into(),
        };
        assert_eq!(
            world.refused(Principal::Anonymous, World::join_order(token, "n2", key, None)),
            Code::KeyReused
        );
    }
}

#[test]
fn a_node_that_joins_in_a_phase_gets_the_row_of_that_phase() {
    let mut world = World::new();
    let join = |world: &mut World, name: &str| {
        world.node(name);
        let granted = world.last_granted();
        (granted.issuer, granted.usage)
    };
    let old = world.ca(AuthorityType::Host, false);
    world.enter(AuthorityType::Host, Phase::Init);
    let new = world.ca(AuthorityType::Host, true);
    assert_eq!(join(&mut world, "n1"), (old, LeafUse::Both));
    world.enter(AuthorityType::Host, Phase::UpdateClients);
    assert_eq!(
        join(&mut world, "n2"),
        (new, LeafUse::Client),
        "one leaf cannot have two issuers"
    );
    world.enter(AuthorityType::Host, Phase::UpdateServers);
    assert_eq!(join(&mut world, "n3"), (new, LeafUse::Both));
    world.enter(AuthorityType::Host, Phase::Rollback);
    assert_eq!(join(&mut world, "n4"), (old, LeafUse::Both));
}

fn rejoin(node: NodeId, proven_by: Option<domain::CertDigest>) -> Option<Rejoin> {
    Some(Rejoin { node, proven_by })
}

#[test]
fn a_rejoin_with_an_old_key_keeps_the_node_and_its_living_name() {
    let mut world = World::new();
    let node = world.node("n1");
    let (old, _) = world.newest(&Principal::Node(node));
    let (token, key) = (world.token(&["n1"], 1), world.key());
    assert_eq!(
        world.joined(token, "n1", key, rejoin(node, Some(old))).unwrap(),
        node
    );
    assert!(
        world
            .log
            .iter()
            .any(|e| matches!(&e.fact, Fact::NodeRejoined(f) if f.proven_by == Some(old)))
    );
    assert_eq!(world.state.nodes.len(), 1);
}

#[test]
fn a_rejoin_without_an_old_key_must_wait_until_nothing_of_the_node_lives() {
    let mut world = World::new();
    let node = world.node("n1");
    let other = world.node("n2");
    let (foreign, _) = world.newest(&Principal::Node(other));
    let token = world.token(&["n1"], 1);
    assert_eq!(
        refused(&mut world, token, "n1", rejoin(node, None)),
        Code::NameTaken
    );
    assert_eq!(
        refused(&mut world, token, "n1", rejoin(node, Some(foreign))),
        Code::NameTaken,
        "another's key"
    );
    world.pass(DAY_MS);
    let (token, key) = (world.token(&["n1"], 1), world.key());
    assert_eq!(world.joined(token, "n1", key, rejoin(node, None)).unwrap(), node);
}

#[test]
fn a_token_for_one_name_takes_over_no_node_of_another() {
    let mut world = World::new();
    let victim = world.node("n1");
    world.pass(2 * DAY_MS); // even when nothing of it lives
    let (token, key) = (world.token(&["n2"], 1), world.key());
    assert_ne!(
        world.joined(token, "n2", key, rejoin(victim, None)).unwrap(),
        victim
    );
    assert_eq!(world.state.nodes[&victim].hostname.as_str(), "n1");
}

#[test]
fn a_rejoin_of_a_removed_or_unknown_node_is_a_join() {
    let mut world = World::new();
    let node = world.node("n1");
    let (old, _) = world.newest(&Principal::Node(node));
    world.ask(admin(), Order::RemoveNode { node }).unwrap();
    let (token, key) = (world.token(&["n1"], 1), world.key());
    assert_ne!(
        world.joined(token, "n1", key, rejoin(node, Some(old))).unwrap(),
        node
    );
}

#[test]
fn a_superseded_node_comes_back_with_a_new_token() {
    let mut world = World::new();
    let node = world.node("n1");
    let (old, _) = world.newest(&Principal::Node(node));
    world.renew(node);
    let report = world.report_of(1, 1);
    world.report(node, report).unwrap(); // presents the newer certificate
    world.pass(11 * 60_000);
    let key = world.key();
    let recover = Order::Recover {
        node,
        proven_by: old,
        key,
    };
    assert_eq!(
        world.refused(Principal::Anonymous, recover),
        Code::CertificateSuperseded
    );
    let (token, key) = (world.token(&["n1"], 1), world.key());
    assert_eq!(
        world.joined(token, "n1", key, rejoin(node, Some(old))).unwrap(),
        node
    );
}
