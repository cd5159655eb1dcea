//! SSH certificates of people and of nodes, by their own word.

use domain::{
    Phase,
    authority::{AuthorityType, KeyKind},
    command::{Order, Sign},
    decide::certificates,
    event::{Form, LeafUse},
    gate,
    id::Principal,
    refusal::Code,
};

use crate::{
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
