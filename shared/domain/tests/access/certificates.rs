//! Requests for certificates: from the row, from the grant, with a new key.

use domain::{
    access::Uses,
    authority::AuthorityType,
    command::{Answer, KeyRequest, Order},
    event::{
        AuthorizationGranted,
        LeafUse::{Both, Client, Server},
    },
    id::{AuthorizationId, Principal, SpkiPin, TokenHash},
    phase::Phase,
    refusal::Code,
    time::{DAY_MS, HOUR_MS},
};
use uuid::Uuid;

use crate::world::{World, admin, clock, grant};

fn request(
    authority_type: AuthorityType,
    usage: domain::event::LeafUse,
    issuer: Option<SpkiPin>,
    key: KeyRequest,
) -> Order {
    Order::RequestCertificate {
        authority_type,
        usage,
        issuer,
        key,
        form: domain::authority::KeyKind::Tls,
    }
}

#[test]
fn a_renewal_takes_the_issuer_of_the_current_row_in_every_phase() {
    let mut world = World::new();
    let node = world.node("n1");
    let old = world.ca(AuthorityType::Host, false);
    world.enter(AuthorityType::Host, Phase::Init);
    let new = world.ca(AuthorityType::Host, true);
    // phase, issuer of the client role, issuer of the server role
    let rows = [
        (Phase::Init, old, old),
        (Phase::UpdateClients, new, old),
        (Phase::UpdateServers, new, new),
        (Phase::Rollback, old, old),
    ];
    for (phase, client, server) in rows {
        if phase != Phase::Init {
            world.enter(AuthorityType::Host, phase);
        }
        let both = (client == server).then_some(client);
        for (usage, named) in [(Client, Some(client)), (Server, Some(server)), (Both, both)] {
            for asked in [old, new] {
                let result = world.request(node, usage, Some(asked)).map_err(|r| r.code);
                if named == Some(asked) {
                    result.unwrap();
                    assert_eq!(world.last_granted().issuer, asked, "{phase} {usage:?}");
                } else {
                    assert_eq!(result, Err(Code::StaleView), "{phase} {usage:?}");
                }
            }
        }
    }
}

#[test]
fn names_addresses_and_life_come_from_the_grant_in_the_log() {
    let mut world = World::new();
    let mut grant = grant(&["n1", "n1.example.com"]);
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
    let node = world.joined(hash, "n1", key, None).unwrap();
    let joined = world.last_granted();
    world.request(node, Both, None).unwrap();
    let renewed = world.last_granted();
    assert_eq!(
        (&renewed.names, &renewed.addresses, &renewed.uri),
        (&joined.names, &joined.addresses, &joined.uri)
    );
    assert_eq!(renewed.not_after, world.now.plus_ms(DAY_MS));
}

#[test]
fn a_type_or_role_that_was_not_granted_is_refused() {
    let mut world = World::new();
    let mut grant = grant(&["n1"]);
    grant.uses.insert(
        AuthorityType::Host,
        Uses {
            server: false,
            ..Uses::ALL
        },
    );
    grant.uses.insert(AuthorityType::Db, Uses::VERIFIER);
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
    let node = world.joined(hash, "n1", key, None).unwrap();
    assert_eq!(world.last_granted().usage, Client, "it has no server role");
    for (authority_type, usage) in [
        (AuthorityType::Host, Server),
        (AuthorityType::Host, Both),
        (AuthorityType::Db, Server),
        (AuthorityType::Spiffe, Client),
    ] {
        let key = world.key();
        let order = request(authority_type, usage, None, key);
        assert_eq!(
            world.refused(Principal::Node(node), order),
            Code::TypeNotGranted,
            "{authority_type}"
        );
    }
    let key = world.key();
    let order = request(AuthorityType::User, Client, None, key);
    assert_eq!(
        world.refused(Principal::Node(node), order),
        Code::NotPermitted,
        "a node is no user"
    );
}

#[test]
fn the_same_request_with_the_same_key_gives_the_first_result() {
    let mut world = World::new();
    let node = world.node("n1");
    let key = world.key();
    let order = request(AuthorityType::Host, Both, None, key.clone());
    let first = world.ask(Principal::Node(node), order.clone()).unwrap();
    for sign in [false, true] {
        if sign {
            world.sign();
        }
        let again = world.decide(Principal::Node(node), order.clone()).unwrap();
        assert!(again.facts.is_empty() && again.repeats.is_some());
        assert_eq!(again.answer, first);
    }
    let other = request(AuthorityType::Host, Client, None, key);
    assert_eq!(
        world.refused(Principal::Node(node), other),
        Code::KeyReused,
        "a new key for each certificate"
    );
}

#[test]
fn a_key_whose_authorisation_was_voided_may_ask_again() {
    let mut world = World::new();
    let node = world.node("n1");
    let key = world.key();
    let order = request(AuthorityType::Host, Both, None, key);
    let Ok(Answer::Authorized { authorization }) = world.ask(Principal::Node(node), order.clone()) else {
        panic!("the request is good");
    };
    let void = |authorization| Order::VoidAuthorization {
        authorization,
        why: "the phase moved on".into(),
    };
    world.ask(clock(), void(authorization)).unwrap();
    assert!(
        world
            .decide(clock(), void(authorization))
            .unwrap()
            .facts
            .is_empty(),
        "voided once"
    );
    assert_eq!(
        world.refused(clock(), void(AuthorizationId(Uuid::from_u128(1)))),
        Code::NotFound
    );
    let Ok(Answer::Authorized { authorization: next }) = world.ask(Principal::Node(node), order) else {
        panic!("the key is free");
    };
    world.sign();
    assert_eq!(
        world.refused(clock(), void(next)),
        Code::NotFound,
        "what is signed cannot be unsigned"
    );
}

#[test]
fn keys_of_others_and_of_authorities_are_refused() {
    let mut world = World::new();
    let (node, other) = (world.node("n1"), world.node("n2"));
    let (_, certificate) = world.newest(&Principal::Node(other));
    world.enter(AuthorityType::Host, Phase::Init);
    for spki in [
        certificate.spki,
        world.ca(AuthorityType::Host, true),
        world.ca(AuthorityType::User, false),
    ] {
        let order = request(
            AuthorityType::Host,
            Both,
            None,
            KeyRequest {
                spki,
                public_key: "key".into(),
            },
        );
        assert_eq!(world.refused(Principal::Node(node), order), Code::KeyReused);
    }
}

#[test]
fn a_gateway_holds_certificates_of_every_trusted_authority_with_its_own_names() {
    let mut world = World::new();
    let gateway = Principal::Gateway(world.gateway);
    let ask = |world: &mut World, issuer| {
        let key = world.key();
        world.ask(
            Principal::Gateway(world.gateway),
            request(AuthorityType::Host, Server, issuer, key),
        )
    };
    assert_eq!(
        ask(&mut world, None).unwrap_err().code,
        Code::MemberUnknown,
        "it has not started"
    );
    world.start_gateway(&["cp.example.com"], &["192.0.2.1"]);
    world.enter(AuthorityType::Host, Phase::Init);
    for prepared in [false, true] {
        let issuer = world.ca(AuthorityType::Host, prepared);
        ask(&mut world, Some(issuer)).unwrap();
        let granted = world.last_granted();
        assert_eq!((granted.issuer, &granted.holder), (issuer, &gateway));
        assert_eq!(granted.names, ["cp.example.com".parse().unwrap()]);
        assert_eq!(
            granted.addresses,
            ["192.0.2.1".parse::<std::net::IpAddr>().unwrap()]
        );
    }
    let foreign = world.ca(AuthorityType::User, false);
    assert_eq!(ask(&mut world, Some(foreign)).unwrap_err().code, Code::StaleView);
    let key = world.key();
    assert_eq!(
        world.refused(gateway, request(AuthorityType::Db, Server, None, key)),
        Code::TypeNotGranted
    );
}

#[test]
fn a_user_renews_a_client_certificate_of_its_own_and_nothing_else() {
    let mut world = World::new();
    let key = world.key();
    world
        .ask(admin(), request(AuthorityType::User, Client, None, key))
        .unwrap();
    assert_eq!(world.last_granted().holder, admin());
    let (key, foreign) = (world.key(), world.ca(AuthorityType::Host, false));
    let order = request(AuthorityType::User, Client, Some(foreign), key);
    assert_eq!(world.refused(admin(), order), Code::StaleView);
    let key = world.key();
    assert_eq!(
        world.refused(admin(), request(AuthorityType::User, Both, None, key)),
        Code::TypeNotGranted
    );
    let key = world.key();
    assert_eq!(
        world.refused(admin(), request(AuthorityType::Host, Client, None, key)),
        Code::NotPermitted
    );
}

#[test]
fn an_authorisation_is_stamped_with_the_row_at_its_place_in_the_log() {
    let mut world = World::new();
    let node = world.node("n1");
    world.request(node, Client, None).unwrap();
    let granted = world.last_granted();
    // The same words again, decided before a rotation and recorded after two of its phases.
    world.enter(AuthorityType::Host, Phase::Init);
    world.enter(AuthorityType::Host, Phase::UpdateClients);
    let late = AuthorizationGranted {
        authorization: AuthorizationId(world.uuid()),
        ..granted.clone()
    };
    world.append(Principal::Node(node), late.clone().into());
    let row = |id| world.state.pending[&id].row;
    let (early, late) = (row(granted.authorization), row(late.authorization));
    assert_eq!((early.phase, early.rotation), (Phase::Standby, None));
    assert_eq!(early.issuer(Both), Some(granted.issuer));
    assert_eq!(late.phase, Phase::UpdateClients);
    assert_eq!(
        late.rotation,
        world.state.types[&AuthorityType::Host].rotation_id()
    );
    assert_ne!(late.issuer(Client), Some(granted.issuer));
    assert_eq!(late.issuer(Server), Some(granted.issuer));
}

#[test]
fn no_leaf_outlives_its_authority() {
    let mut world = World::new();
    let node = world.node("n1");
    world.pass(3_650 * DAY_MS - HOUR_MS - (world.now.0 - crate::world::START.0) as u64);
    world.request(node, Both, None).unwrap();
    assert_eq!(world.last_granted().not_after, world.now.plus_ms(HOUR_MS));
    world.pass(HOUR_MS);
    assert_eq!(
        world.request(node, Both, None).unwrap_err().code,
        Code::KeyMissing
    );
}

#[test]
fn a_certificate_in_use_supersedes_earlier_ones_of_its_own_type_alone() {
    let mut world = World::new();
    let db = AuthorityType::Db;
    let mut grant = grant(&["n1"]);
    grant.uses.insert(db, Uses::ALL);
    let (token, key) = (world.token_for(HOUR_MS, grant, 1), world.key());
    let node = world.joined(token, "n1", key, None).unwrap();
    world.sign();
    let (first, _) = world.newest(&Principal::Node(node));
    let order = request(db, Client, None, world.key());
    world.ask(Principal::Node(node), order).unwrap();
    world.sign();
    let (of_db, _) = world.newest(&Principal::Node(node));
    world.renew(node);
    let report = world.report_of(1, 1);
    world.report(node, report).unwrap(); // presents the newest one of `host`
    let superseded = |digest| world.state.certificates[&digest].superseded_at.is_some();
    assert!(superseded(first) && !superseded(of_db));
}

#[test]
fn a_name_is_borne_no_longer_than_the_certificates_that_were_made() {
    let mut world = World::new();
    let node = world.node("n1");
    let name = "n1".parse().unwrap();
    let holder = Principal::Node(node);
    let borne_until = |world: &World| world.state.names.get(&name).and_then(|n| n.get(&holder)).copied();
    let first = borne_until(&world);
    world.pass(HOUR_MS);
    world.request(node, Both, None).unwrap();
    assert!(borne_until(&world) > first);
    let void = |world: &World| Order::VoidAuthorization {
        authorization: world.last_granted().authorization,
        why: "its authority signs no more".into(),
    };
    let order = void(&world);
    world.ask(clock(), order).unwrap();
    assert_eq!(borne_until(&world), first, "the certificate of the join lives");
    // Of a join whose only authorisation is void nobody bears the name.
    let (token, key) = (world.token(&["n2"], 1), world.key());
    world.joined(token, "n2", key, None).unwrap();
    let order = void(&world);
    world.ask(clock(), order).unwrap();
    world.node("n2");
}
