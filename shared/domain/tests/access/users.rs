//! Users: added, removed, recovered.

use std::collections::BTreeSet;

use domain::{
    access::RoleName::{Admin, Auditor, Operator},
    authority::AuthorityType,
    command::{Answer, KeyRequest, Order},
    event::LeafUse,
    id::{Principal, UserName},
    phase::Phase,
    refusal::Code,
    time::HOUR_MS,
};

use crate::world::{World, admin, clock, host, names_of, pin, roles};

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

#[test]
fn a_new_user_gets_a_client_certificate_of_type_user() {
    let mut world = World::new();
    let key = world.key();
    let order = Order::AddUser {
        user: user("alice"),
        roles: roles(&[Operator]),
        key,
        logins: vec![],
    };
    let decision = world.decide(admin(), order).unwrap();
    assert_eq!(
        names_of(&decision),
        ["access.user-added", "authorization.granted"]
    );
    let granted = world.last_granted();
    assert_eq!(
        decision.answer,
        Answer::Authorized {
            authorization: granted.authorization
        }
    );
    assert_eq!(
        (granted.authority_type, granted.usage),
        (AuthorityType::User, LeafUse::Client)
    );
    assert_eq!(granted.uri, "carousel://acme.cluster/user/alice");
    assert_eq!(granted.not_after, world.now.plus_ms(12 * HOUR_MS));
    assert!(granted.names.is_empty() && granted.addresses.is_empty());
}

#[test]
fn users_sign_with_the_prepared_authority_from_update_clients_on() {
    let mut world = World::new();
    world.enter(AuthorityType::User, Phase::Init);
    let prepared = world.ca(AuthorityType::User, true);
    let key = world.key();
    world
        .ask(
            admin(),
            Order::AddUser {
                user: user("early"),
                roles: roles(&[Auditor]),
                key,
                logins: vec![],
            },
        )
        .unwrap();
    assert_ne!(world.last_granted().issuer, prepared);
    world.enter(AuthorityType::User, Phase::UpdateClients);
    let key = world.key();
    world
        .ask(
            admin(),
            Order::AddUser {
                user: user("late"),
                roles: roles(&[Auditor]),
                key,
                logins: vec![],
            },
        )
        .unwrap();
    assert_eq!(world.last_granted().issuer, prepared);
}

#[test]
fn a_user_is_added_once_with_a_role_and_a_key_of_its_own() {
    let mut world = World::new();
    let (_, of_admin) = world.newest(&admin());
    let host_ca = world.ca(AuthorityType::Host, false);
    let key = world.key();
    let add = |name: &str, r: &[_], spki| Order::AddUser {
        user: user(name),
        roles: roles(r),
        key: KeyRequest {
            spki,
            public_key: "k".into(),
        },
        logins: vec![],
    };
    assert_eq!(
        world.refused(admin(), add("root", &[Admin], key.spki)),
        Code::UserExists
    );
    assert_eq!(
        world.refused(admin(), add("alice", &[], key.spki)),
        Code::RolesInvalid
    );
    assert_eq!(
        world.refused(admin(), add("alice", &[Admin], of_admin.spki)),
        Code::KeyReused,
        "another user's"
    );
    assert_eq!(
        world.refused(admin(), add("alice", &[Admin], host_ca)),
        Code::KeyReused,
        "an authority's"
    );
    assert_eq!(
        world.refused(admin(), add("alice", &[Admin], pin(0xb0b))),
        Code::KeyReused,
        "the bundle key"
    );
    world.ask(admin(), add("alice", &[Admin], key.spki)).unwrap();
    assert_eq!(
        world.refused(admin(), add("bob", &[Admin], key.spki)),
        Code::KeyReused,
        "not signed yet, but taken"
    );
}

#[test]
fn the_last_administrator_cannot_be_removed() {
    let mut world = World::new();
    for (name, role) in [("alice", Operator), ("bob", Admin)] {
        let key = world.key();
        world
            .ask(
                admin(),
                Order::AddUser {
                    user: user(name),
                    roles: roles(&[role]),
                    key,
                    logins: vec![],
                },
            )
            .unwrap();
    }
    world
        .ask(admin(), Order::RemoveUser { user: user("bob") })
        .unwrap();
    assert_eq!(
        world.refused(
            admin(),
            Order::RemoveUser {
                user: user(crate::world::ADMIN)
            }
        ),
        Code::LastAdmin
    );
    assert_eq!(
        world.refused(admin(), Order::RemoveUser { user: user("bob") }),
        Code::UserUnknown
    );
    world
        .ask(admin(), Order::RemoveUser { user: user("alice") })
        .unwrap();
}

#[test]
fn only_an_administrator_adds_users() {
    let mut world = World::new();
    let key = world.key();
    world
        .ask(
            admin(),
            Order::AddUser {
                user: user("op"),
                roles: roles(&[Operator]),
                key,
                logins: vec![],
            },
        )
        .unwrap();
    let node = world.node("n1");
    for principal in [
        Principal::User(user("op")),
        Principal::User(user("nobody")),
        Principal::Node(node),
        Principal::Gateway(world.gateway),
        Principal::Anonymous,
    ] {
        let key = world.key();
        let order = Order::AddUser {
            user: user("eve"),
            roles: roles(&[Admin]),
            key,
            logins: vec![],
        };
        assert_eq!(world.refused(principal, order), Code::NotPermitted);
    }
}

#[test]
fn the_host_recovers_an_administrator_that_is_gone() {
    let mut world = World::new();
    let key = world.key();
    let order = Order::RecoverAdmin {
        user: user("phoenix"),
        key: key.clone(),
    };
    let decision = world.decide(host(), order.clone()).unwrap();
    assert_eq!(
        names_of(&decision),
        ["access.user-added", "access.recovered", "authorization.granted"]
    );
    assert_eq!(world.state.users[&user("phoenix")], roles(&[Operator, Admin]));
    // Asked again with the same key, after a crash: the first result.
    let again = world.decide(host(), order.clone()).unwrap();
    assert!(again.facts.is_empty() && again.repeats.is_some());
    assert_eq!(again.answer, decision.answer);
    world.sign();
    assert_eq!(world.ask(host(), order.clone()).unwrap(), decision.answer);
    assert_eq!(world.refused(admin(), order), Code::NotPermitted);
}

#[test]
fn an_auditor_that_is_recovered_becomes_an_administrator() {
    let mut world = World::new();
    let key = world.key();
    world
        .ask(
            admin(),
            Order::AddUser {
                user: user("alice"),
                roles: roles(&[Auditor]),
                key,
                logins: vec![],
            },
        )
        .unwrap();
    let key = world.key();
    let decision = world
        .decide(
            host(),
            Order::RecoverAdmin {
                user: user("alice"),
                key,
            },
        )
        .unwrap();
    assert_eq!(names_of(&decision), ["access.recovered", "authorization.granted"]);
    assert!(world.state.users[&user("alice")].contains(&Admin));
}

#[test]
fn a_certificate_is_recorded_as_presented_once() {
    let mut world = World::new();
    let (certificate, _) = world.newest(&admin());
    let order = |holder, certificate| Order::PresentCredential { holder, certificate };
    let first = world.decide(clock(), order(admin(), certificate)).unwrap();
    assert_eq!(names_of(&first), ["access.credential-presented"]);
    assert!(
        world
            .decide(clock(), order(admin(), certificate))
            .unwrap()
            .facts
            .is_empty()
    );
    let gateway = Principal::Gateway(world.gateway);
    assert_eq!(
        world.refused(clock(), order(gateway, certificate)),
        Code::CertificateUnknown,
        "not its own"
    );
}

#[test]
fn no_two_holders_share_a_subject_whatever_they_are_called() {
    let user = |name: &str| Principal::User(name.parse().unwrap()).holder_token();
    let names = [
        "cluster",
        "clock",
        "anonymous",
        "a.b",
        "a_b",
        "a__b",
        "a-b",
        "external-x",
    ];
    let mut tokens: Vec<String> = names.iter().map(|n| user(n)).collect();
    tokens.extend(["x", "a.b", "a_b"].map(|n| Principal::External(n.into()).holder_token()));
    tokens.extend([clock(), Principal::Anonymous].map(|p| p.holder_token()));
    tokens.push("cluster".into());
    let of_any_token = |t: &String| t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    assert!(tokens.iter().all(of_any_token), "{tokens:?}");
    let unique: BTreeSet<_> = tokens.iter().collect();
    assert_eq!(unique.len(), tokens.len(), "{tokens:?}");
}
