//! Who a certificate speaks for: the log says, never the chain.

use domain::{
    access::RoleName::Operator,
    authority::AuthorityType,
    command::Order,
    event::LeafUse,
    id::{CertDigest, NodeId, Principal},
    identity::{Presented, identify},
    phase::Phase,
    refusal::Code,
    time::{DAY_MS, HOUR_MS},
};
use uuid::Uuid;

use crate::world::{World, admin, roles};

const HOST: AuthorityType = AuthorityType::Host;
const USER: AuthorityType = AuthorityType::User;

fn who(
    world: &World,
    authority_type: AuthorityType,
    holder: &Principal,
    digest: CertDigest,
) -> Result<Principal, Code> {
    let uri = format!("carousel://acme.cluster/{holder}");
    identify(
        &world.state,
        &Presented {
            authority_type,
            uri: &uri,
            digest,
        },
        world.now,
    )
    .map_err(|r| r.code)
}

#[test]
fn nodes_gateways_and_users_are_known_by_their_certificates() {
    let mut world = World::new();
    let node = Principal::Node(world.node("n1"));
    let gateway = Principal::Gateway(world.gateway);
    for (authority_type, holder) in [(HOST, node), (HOST, gateway), (USER, admin())] {
        let (digest, _) = world.newest(&holder);
        assert_eq!(who(&world, authority_type, &holder, digest), Ok(holder));
    }
}

#[test]
fn a_leaf_that_we_never_issued_is_nobody_although_its_chain_verifies() {
    let mut world = World::new();
    let node = Principal::Node(world.node("n1"));
    assert_eq!(
        who(&world, HOST, &node, CertDigest([66; 32])),
        Err(Code::CertificateUnknown)
    );
}

#[test]
fn a_kind_of_holder_has_its_own_authority_even_where_a_log_says_otherwise() {
    let mut world = World::new();
    let node = Principal::Node(world.node("n1"));
    for (holder, wrong) in [(admin(), HOST), (node, USER)] {
        let (digest, mut known) = world.newest(&holder);
        known.authority_type = wrong;
        world.state.certificates.insert(digest, known);
        assert_eq!(who(&world, wrong, &holder, digest), Err(Code::CertificateUnknown));
    }
}

#[test]
fn kind_holder_type_and_cluster_must_all_agree() {
    let mut world = World::new();
    let (node, other) = (
        Principal::Node(world.node("n1")),
        Principal::Node(world.node("n2")),
    );
    let (digest, _) = world.newest(&node);
    let (of_admin, _) = world.newest(&admin());
    let as_gateway = match &node {
        Principal::Node(id) => Principal::Gateway(domain::MemberId(id.0)),
        _ => panic!("it is a node"),
    };
    let nobody = Err(Code::CertificateUnknown);
    assert_eq!(who(&world, HOST, &other, digest), nobody, "another node's");
    assert_eq!(
        who(&world, USER, &node, digest),
        nobody,
        "verified against another type"
    );
    assert_eq!(
        who(&world, HOST, &admin(), of_admin),
        nobody,
        "a user by the host authority"
    );
    assert_eq!(
        who(&world, HOST, &as_gateway, digest),
        nobody,
        "the same id as a gateway"
    );
    assert_eq!(who(&world, AuthorityType::Db, &node, digest), nobody);
    assert_eq!(
        who(&world, USER, &Principal::External("x".into()), of_admin),
        nobody
    );
    let uri = format!("carousel://evil.cluster/{node}");
    let presented = Presented {
        authority_type: HOST,
        uri: &uri,
        digest,
    };
    assert_eq!(
        identify(&world.state, &presented, world.now).unwrap_err().code,
        Code::CertificateUnknown
    );
}

#[test]
fn an_expired_certificate_is_nobody() {
    let mut world = World::new();
    let node = Principal::Node(world.node("n1"));
    let (digest, _) = world.newest(&node);
    world.pass(DAY_MS - 1);
    assert!(who(&world, HOST, &node, digest).is_ok());
    world.pass(1);
    assert_eq!(who(&world, HOST, &node, digest), Err(Code::CertificateUnknown));
}

#[test]
fn what_is_removed_stops_counting_at_once() {
    let mut world = World::new();
    let node = world.node("n1");
    let (of_node, _) = world.newest(&Principal::Node(node));
    let (key, name) = (world.key(), "alice".parse::<domain::UserName>().unwrap());
    world
        .ask(
            admin(),
            Order::AddUser {
                user: name.clone(),
                roles: roles(&[Operator]),
                key,
                logins: vec![],
            },
        )
        .unwrap();
    world.sign();
    let alice = Principal::User(name.clone());
    let (of_alice, _) = world.newest(&alice);
    assert!(who(&world, USER, &alice, of_alice).is_ok());
    world.ask(admin(), Order::RemoveNode { node }).unwrap();
    world
        .ask(admin(), Order::RemoveUser { user: name.clone() })
        .unwrap();
    assert_eq!(
        who(&world, HOST, &Principal::Node(node), of_node),
        Err(Code::NodeRemoved)
    );
    assert_eq!(who(&world, USER, &alice, of_alice), Err(Code::CertificateUnknown));
    // Somebody else may be called alice later: the old certificate stays dead.
    let key = world.key();
    world
        .ask(
            admin(),
            Order::AddUser {
                user: name,
                roles: roles(&[Operator]),
                key,
                logins: vec![],
            },
        )
        .unwrap();
    assert_eq!(who(&world, USER, &alice, of_alice), Err(Code::CertificateUnknown));
}

#[test]
fn an_authorisation_that_waited_while_its_holder_was_removed_comes_to_nothing() {
    let mut world = World::new();
    let (token, key) = (world.token(&["n1"], 1), world.key());
    let node = world.joined(token, "n1", key, None).unwrap();
    world.ask(admin(), Order::RemoveNode { node }).unwrap();
    world.sign();
    assert!(!world.state.held.contains_key(&Principal::Node(node)));
}

#[test]
fn a_copy_older_than_what_was_presented_since_is_superseded() {
    let mut world = World::new();
    let node = world.node("n1");
    let holder = Principal::Node(node);
    let (old, _) = world.newest(&holder);
    world.renew(node);
    let (new, _) = world.newest(&holder);
    assert!(
        who(&world, HOST, &holder, old).is_ok(),
        "a certificate never presented supersedes nothing"
    );
    let report = world.report_of(1, 1);
    world.report(node, report).unwrap();
    world.pass(10 * 60_000 - 1);
    assert!(
        who(&world, HOST, &holder, old).is_ok(),
        "ten minutes to change over"
    );
    world.pass(1);
    assert_eq!(who(&world, HOST, &holder, old), Err(Code::CertificateSuperseded));
    assert!(who(&world, HOST, &holder, new).is_ok());
}

#[test]
fn a_users_older_certificate_is_not_superseded() {
    let mut world = World::new();
    let (old, _) = world.newest(&admin());
    let key = world.key();
    let order = Order::RequestCertificate {
        authority_type: USER,
        usage: LeafUse::Client,
        issuer: None,
        key,
        form: domain::authority::KeyKind::Tls,
    };
    world.ask(admin(), order).unwrap();
    world.sign();
    let (certificate, _) = world.newest(&admin());
    let present = Order::PresentCredential {
        holder: admin(),
        certificate,
    };
    world.ask(crate::world::clock(), present).unwrap();
    world.pass(HOUR_MS);
    assert!(who(&world, USER, &admin(), old).is_ok());
}

#[test]
fn a_server_certificate_identifies_no_caller() {
    let mut world = World::new();
    world.enter(HOST, Phase::Init);
    world.enter(HOST, Phase::UpdateClients);
    let node = world.node("n1");
    let issuer = world.ca(HOST, false);
    world.request(node, LeafUse::Server, Some(issuer)).unwrap();
    world.sign();
    let holder = Principal::Node(node);
    let (server, _) = world.newest(&holder);
    assert_eq!(who(&world, HOST, &holder, server), Err(Code::CertificateUnknown));
}

#[test]
fn an_empty_log_knows_nobody() {
    let world = World::empty();
    let stranger = Principal::Node(NodeId(Uuid::from_u128(1)));
    assert_eq!(
        who(&world, HOST, &stranger, CertDigest([1; 32])),
        Err(Code::CertificateUnknown)
    );
}
