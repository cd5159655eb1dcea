//! Join tokens.

use std::collections::BTreeMap;

use domain::{
    access::Uses,
    authority::AuthorityType,
    command::{Answer, Order},
    id::{TokenHash, TokenId},
    refusal::Code,
    time::{DAY_MS, HOUR_MS},
};
use uuid::Uuid;

use crate::world::{World, admin, grant};

fn create(names: &[&str], uses: u32, ttl_ms: u64) -> Order {
    Order::CreateToken {
        hash: TokenHash([9; 32]),
        grant: grant(names),
        uses,
        ttl_ms,
    }
}

#[test]
fn a_token_of_no_use_is_refused() {
    let mut world = World::new();
    for order in [
        create(&[], 1, HOUR_MS),
        create(&["n1"], 0, HOUR_MS),
        create(&["n1"], 1, 0),
        create(&["n1"], 1, 7 * DAY_MS + 1),
    ] {
        assert_eq!(world.refused(admin(), order), Code::TokenInvalid);
    }
    world.ask(admin(), create(&["n1"], 1, 7 * DAY_MS)).unwrap();
    assert_eq!(
        world.refused(admin(), create(&["n2"], 1, HOUR_MS)),
        Code::TokenInvalid,
        "the same secret again"
    );
}

#[test]
fn a_token_always_grants_host_and_never_a_type_without_keys() {
    let mut world = World::new();
    let order = |uses: &[(AuthorityType, Uses)]| {
        let mut grant = grant(&["n1"]);
        grant.uses = uses.iter().copied().collect();
        Order::CreateToken {
            hash: TokenHash([9; 32]),
            grant,
            uses: 1,
            ttl_ms: HOUR_MS,
        }
    };
    let deaf = Uses {
        client: true,
        server: true,
        verifier: false,
    };
    assert_eq!(
        world.refused(admin(), order(&[(AuthorityType::Host, deaf)])),
        Code::TokenInvalid
    );
    assert_eq!(
        world.refused(admin(), order(&[(AuthorityType::Db, Uses::default())])),
        Code::TokenInvalid
    );
    assert_eq!(
        world.refused(admin(), order(&[(AuthorityType::Jwt, Uses::VERIFIER)])),
        Code::TypeNotInService
    );
    world
        .ask(admin(), order(&[(AuthorityType::Db, Uses::VERIFIER)]))
        .unwrap();
    let token = world.state.tokens.values().next().unwrap();
    let expected = BTreeMap::from([
        (AuthorityType::Host, Uses::ALL),
        (AuthorityType::Db, Uses::VERIFIER),
    ]);
    assert_eq!(token.grant.uses, expected);
}

#[test]
fn reserved_names_and_addresses_are_not_granted() {
    let mut world = World::new();
    world.start_gateway(&["cp.example.com"], &["192.0.2.1"]);
    for name in [
        "localhost",
        "a.localhost",
        "*.localhost",
        "acme.cluster",
        "cp.example.com",
        "CP.example.com",
    ] {
        assert_eq!(
            world.refused(admin(), create(&["n1", name], 1, HOUR_MS)),
            Code::NameReserved,
            "{name}"
        );
    }
    for address in [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "192.0.2.1",
    ] {
        let mut grant = grant(&["n1"]);
        grant.addresses = vec![address.parse().unwrap()];
        let order = Order::CreateToken {
            hash: TokenHash([9; 32]),
            grant,
            uses: 1,
            ttl_ms: HOUR_MS,
        };
        assert_eq!(world.refused(admin(), order), Code::NameReserved, "{address}");
    }
    // A pattern may cover a reserved name: that one name is refused when somebody asks for it.
    world
        .ask(admin(), create(&["*.example.com"], 3, HOUR_MS))
        .unwrap();
    let key = world.key();
    let order = World::join_order(TokenHash([9; 32]), "cp.example.com", key, None);
    assert_eq!(
        world.refused(domain::Principal::Anonymous, order),
        Code::NameReserved
    );
}

#[test]
fn a_removed_token_opens_nothing() {
    let mut world = World::new();
    let Ok(Answer::Token { token, .. }) = world.ask(admin(), create(&["n1"], 1, HOUR_MS)) else {
        panic!("a token was asked for");
    };
    world.ask(admin(), Order::RemoveToken { token }).unwrap();
    let key = world.key();
    let order = World::join_order(TokenHash([9; 32]), "n1", key, None);
    assert_eq!(
        world.refused(domain::Principal::Anonymous, order),
        Code::TokenUnknown
    );
    let unknown = TokenId(Uuid::from_u128(1));
    assert_eq!(
        world.refused(admin(), Order::RemoveToken { token: unknown }),
        Code::NotFound
    );
}
