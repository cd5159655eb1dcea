//! SSH certificates of people and of nodes, by their own word.

use domain::{
    Phase, Timestamp,
    authority::{AuthorityType, KeyKind},
    command::{KeyRequest, Order, Revocable, Sign},
    decide::certificates,
    event::{Form, LeafUse},
    gate::{self, Missing},
    id::{NodeId, Principal, SpkiPin},
    refusal::Code,
};

use crate::{
    revoking::revoke,
    rotations::reach,
    signing::{cluster, order, ssh, step},
    world::{World, admin, roles},
};

#[test]
fn an_ssh_certificate_of_a_person_does_not_replace_the_one_for_tls() {
    let mut world = cluster();
    let user = |kind, key| Order::RequestCertificate {
        authority_type: AuthorityType::User,
        usage: LeafUse::Client,
        issuer: None,
        form: kind,
        key,
    };
    let until = world.newest(&admin()).1.not_after;
    step(&mut world, AuthorityType::User, Phase::Init).unwrap();
    world.enter(AuthorityType::User, Phase::UpdateClients);
    world.enter(AuthorityType::User, Phase::UpdateServers);
    let key = world.key();
    world.ask(admin(), user(KeyKind::Ssh, key)).unwrap();
    let granted = world.last_granted();
    assert_eq!(
        granted.issuer,
        world.state.types[&AuthorityType::User].prepared[&KeyKind::Ssh].id
    );
    let Form::Ssh {
        principals,
        extensions,
        ..
    } = granted.form
    else {
        panic!("an SSH certificate was asked for")
    };
    assert_eq!(principals, ["root"], "the account of their own name");
    assert!(!extensions.contains(&"permit-agent-forwarding".to_owned()));
    world.sign();
    let waits = gate::time_condition(&world.state, AuthorityType::User, world.now);
    assert_eq!(waits.map(|t| t.until), Some(until));
}

#[test]
fn the_accounts_of_a_person_are_those_that_an_administrator_gave() {
    let mut world = cluster();
    let add = |world: &mut World, logins: &[&str]| Order::AddUser {
        user: "alice".parse().unwrap(),
        roles: roles(&[domain::access::RoleName::Operator]),
        logins: logins.iter().map(ToString::to_string).collect(),
        key: world.key(),
    };
    let bad = add(&mut world, &["a b"]);
    assert_eq!(world.refused(admin(), bad), Code::RolesInvalid);
    let good = add(&mut world, &["deploy", "www"]);
    world.ask(admin(), good).unwrap();
    let key = world.key();
    let alice = Principal::User("alice".parse().unwrap());
    let order = Order::RequestCertificate {
        authority_type: AuthorityType::User,
        usage: LeafUse::Client,
        issuer: None,
        form: KeyKind::Ssh,
        key,
    };
    world.ask(alice.clone(), order).unwrap();
    let Form::Ssh { principals, .. } = world.last_granted().form else {
        panic!("an SSH certificate was asked for")
    };
    assert_eq!(principals, ["deploy", "www"]);
    // An operator signs databases, and nothing for others.
    let sign = order_of_operator(&mut world);
    assert_eq!(
        world.refused(alice, Order::Sign(Box::new(sign))),
        Code::NotPermitted
    );
}

fn order_of_operator(world: &mut World) -> Sign {
    order(world, AuthorityType::Openssh, ssh(&["root"]))
}

#[test]
fn a_node_may_ask_for_its_host_key_again_and_again_and_for_nothing_else_of_ssh() {
    let mut world = cluster();
    let node = world.node("n1");
    let key = world.key();
    let request = |authority_type, usage, form| Order::RequestCertificate {
        authority_type,
        usage,
        issuer: None,
        form,
        key: key.clone(),
    };
    let host = request(AuthorityType::Host, LeafUse::Server, KeyKind::Ssh);
    let principal = Principal::Node(node);
    for _ in 0..2 {
        world.ask(principal.clone(), host.clone()).unwrap();
        world.sign();
        let (_, certificate) = world.newest(&principal);
        assert_eq!(
            (certificate.kind, certificate.usage),
            (KeyKind::Ssh, LeafUse::Server)
        );
    }
    // What is certified for SSH is no first answer to a request for TLS, and no key for a certificate of it.
    assert_eq!(certificates::earlier(&world.state, &principal, key.spki), None);
    let for_tls = request(AuthorityType::Host, LeafUse::Both, KeyKind::Tls);
    assert_eq!(world.refused(principal.clone(), for_tls), Code::KeyReused);
    for (authority_type, usage, form) in [
        (AuthorityType::Host, LeafUse::Client, KeyKind::Ssh),
        (AuthorityType::Host, LeafUse::Server, KeyKind::Jwt),
        (AuthorityType::Host, LeafUse::Signing, KeyKind::Tls),
    ] {
        let order = request(authority_type, usage, form);
        assert_eq!(world.refused(principal.clone(), order), Code::TypeNotGranted);
    }
}

fn certify(key: &KeyRequest) -> Order {
    Order::RequestCertificate {
        authority_type: AuthorityType::Host,
        usage: LeafUse::Server,
        issuer: None,
        form: KeyKind::Ssh,
        key: key.clone(),
    }
}

/// What the node's sshd presents, as a report has it.
fn report(world: &mut World, node: NodeId, seq: u64, ssh_issuer: Option<SpkiPin>) -> Result<(), Missing> {
    let mut report = world.report_of(1, seq);
    let facts = report.authorities.get_mut(&AuthorityType::Host).unwrap();
    (facts.ssh_issuer, facts.ssh_not_after) = (ssh_issuer, ssh_issuer.map(|_| Timestamp(1)));
    world.now = world.now.plus_ms(10_000);
    world.report(node, report).unwrap();
    gate::missing(&world.state, AuthorityType::Host, &world.state.nodes[&node])
}

#[test]
fn a_node_with_an_sshd_has_reached_a_phase_only_with_a_certificate_of_the_row_for_it() {
    let mut world = cluster();
    let node = world.node("n1");
    let key = world.key();
    let take = |world: &mut World| {
        world.ask(Principal::Node(node), certify(&key)).unwrap();
        world.sign();
        Some(world.newest(&Principal::Node(node)).1.issuer)
    };
    let of = AuthorityType::Host;
    let old = take(&mut world);
    assert_eq!(report(&mut world, node, 1, old), Ok(()));
    for (seq, phase) in [(10, Phase::Init), (20, Phase::UpdateClients)] {
        step(&mut world, of, phase).unwrap();
        reach(&mut world, node, seq);
        assert_eq!(take(&mut world), old, "servers change later");
        assert_eq!(report(&mut world, node, seq + 1, old), Ok(()));
    }
    step(&mut world, of, Phase::UpdateServers).unwrap();
    reach(&mut world, node, 30);
    // Whoever has none has nothing to replace; whoever has the old one holds the gate.
    assert_eq!(report(&mut world, node, 31, None), Ok(()));
    assert_eq!(report(&mut world, node, 32, old), Err(Missing::SshIssuer));
    assert_eq!(step(&mut world, of, Phase::Standby), Err(Code::NodesLagging));
    let new = take(&mut world);
    assert_ne!(new, old);
    assert_eq!(report(&mut world, node, 33, new), Ok(()));
    // On the way back it is the other way round.
    step(&mut world, of, Phase::Rollback).unwrap();
    reach(&mut world, node, 40);
    assert_eq!(report(&mut world, node, 41, new), Err(Missing::SshIssuer));
    assert_eq!(step(&mut world, of, Phase::Standby), Err(Code::NodesLagging));
    assert_eq!(take(&mut world), old);
    assert_eq!(report(&mut world, node, 42, old), Ok(()));
    step(&mut world, of, Phase::Standby).unwrap();
}

#[test]
fn a_node_may_not_report_an_ssh_authority_that_never_was() {
    let mut world = cluster();
    let node = world.node("n1");
    let mut invented = world.report_of(1, 5);
    let facts = invented.authorities.get_mut(&AuthorityType::Host).unwrap();
    facts.ssh_issuer = Some(SpkiPin([0xee; 32]));
    let refusal = world.report(node, invented).unwrap_err();
    assert_eq!(refusal.code, Code::ReportInvalid);
}

#[test]
fn whoever_asks_again_while_the_signer_is_away_waits_for_one_certificate() {
    let mut world = cluster();
    let node = Principal::Node(world.node("n1"));
    let (one, other) = (world.key(), world.key());
    let first = world.ask(node.clone(), certify(&one)).unwrap();
    assert_eq!(world.ask(node.clone(), certify(&one)), Ok(first));
    assert_eq!(world.state.pending.len(), 1);
    world.ask(node.clone(), certify(&other)).unwrap();
    assert_eq!(world.state.pending.len(), 2);
    // Once it is signed, it is renewed like any other.
    world.sign();
    world.ask(node, certify(&one)).unwrap();
    assert_eq!(world.state.pending.len(), 1);
}

#[test]
fn the_key_of_an_sshd_is_anothers_only_while_his_certificate_of_it_lives() {
    let mut world = cluster();
    let node = Principal::Node(world.node("n1"));
    // A host that was certified by hand gets an agent, and keeps its key.
    let mut by_hand = order(&mut world, AuthorityType::Host, ssh(&[]));
    by_hand.form = Form::Ssh {
        principals: vec![],
        critical_options: Default::default(),
        extensions: vec![],
    };
    by_hand.names = vec!["bastion.acme.example".parse().unwrap()];
    let key = by_hand.key.clone();
    world
        .ask(admin(), Order::Sign(Box::new(by_hand.clone())))
        .unwrap();
    assert_eq!(world.refused(node.clone(), certify(&key)), Code::KeyReused);
    world.sign();
    assert_eq!(world.refused(node.clone(), certify(&key)), Code::KeyReused);
    let app = Revocable::External("app".parse().unwrap());
    assert_eq!(revoke(&mut world, app), Ok(1));
    world.ask(node.clone(), certify(&key)).unwrap();
    world.sign();
    assert_eq!(world.newest(&node).1.spki, key.spki);
    // Now it is the node's, and nobody else's; for TLS it never is.
    let again = Order::Sign(Box::new(by_hand));
    assert_eq!(world.refused(admin(), again), Code::KeyReused);
    let authority = world.ca(AuthorityType::Host, false);
    let key = KeyRequest {
        spki: authority,
        ..key
    };
    assert_eq!(world.refused(node, certify(&key)), Code::KeyReused);
}
