//! Somebody who wants in: with a token that grants something else, and with a gateway that is none.

use carousel_tests::run;
use domain::{AuthorityType, MemberId, Principal, TokenHash};
use pki::KeyPair;
use serde_json::json;
use uuid::Uuid;

use super::{
    admin, command, deeds, events,
    impostor::{self, Impostor, Script},
};
use crate::{
    forged::{Authority, Forged, trusted},
    wire::{Verdict, Wire},
    world::{Log, World, given_up},
};

/// A name of the gateway's beside its address.
const GATEWAY: &str = "cp.example.com";

#[test]
fn a_stranger_gets_no_name_no_type_and_no_token_that_it_was_not_granted() {
    let mut world = World::empty("strangers", Log::Embedded).expect("the embedded log is always there");
    let _ = run(&mut world.init_command(None)).expect_code(0);
    let mut serve = world.serve_command();
    serve.args(["--advertise", "127.0.0.1", "--advertise", GATEWAY]);
    world.serve_by(&mut serve);
    world.join("n1");
    a_token_for_a_reserved_name(&world);
    a_join_beyond_the_grant(&world);
    a_type_beyond_the_grant(&mut world);
    an_evil_first_contact(&mut world);
}

/// Not even an administrator grants what is the control plane's.
fn a_token_for_a_reserved_name(world: &World) {
    let before = deeds(world);
    let names = [
        GATEWAY,
        "acme.cluster",
        "localhost",
        "n1.localhost",
        "localhost.localdomain",
    ];
    let names = names.map(|name| ["--name".to_owned(), name.to_owned()]);
    let addresses = ["127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::ffff:127.0.0.1"];
    let addresses = addresses.map(|address| ["--name=n9".to_owned(), format!("--address={address}")]);
    let patterns = [["--names".to_owned(), "*.localhost".to_owned()]];
    for asked in names.iter().chain(&addresses).chain(&patterns) {
        let refused = world.carousel(&["tokens", "add", &asked[0], &asked[1]]);
        assert_eq!(refused.code, Some(3), "{asked:?}: {}", refused.stderr);
        assert!(
            refused.stderr.starts_with("refused: name_reserved:"),
            "{asked:?}: {}",
            refused.stderr
        );
    }
    // One that stands for every name there is no pattern, whatever program sends it.
    let wire = admin(world);
    for name in ["*", "*.", "*.*.com", "n1,*"] {
        let body = command(json!({"hash": TokenHash([7; 32]), "names": [name], "uses": 1, "ttl_ms": 60_000}));
        assert_eq!(
            wire.verdict("/v1/tokens", Some(&body)),
            Verdict::refused("token_invalid"),
            "{name}"
        );
    }
    assert_eq!(deeds(world), before, "nothing was granted");
}

/// A token for many names lets nobody take one that is not among them, or is not to be had at all.
fn a_join_beyond_the_grant(world: &World) {
    let grants = ["--names", "*.example.com", "--names", "*.cluster", "--uses", "9"];
    let (token, pins, bundle) = world.token(&grants);
    let before = deeds(world);
    let wire = Wire::of(world);
    for (name, code) in [
        (GATEWAY, "name_reserved"),
        ("CP.Example.com", "name_reserved"),
        ("acme.cluster", "name_reserved"),
        ("localhost", "name_not_granted"),
        ("x.localhost", "name_not_granted"),
        ("example.com", "name_not_granted"),
        ("evilexample.com", "name_not_granted"),
        ("a.example.com.evil.org", "name_not_granted"),
        ("n1", "name_not_granted"),
        ("127.0.0.1", "bad_request"),
        ("*", "bad_request"),
        ("*.example.com", "bad_request"),
        ("cp.example.com.", "bad_request"),
        ("cp.example.com\0.example.com", "bad_request"),
    ] {
        let csr = pki::csr::make_pem(&KeyPair::generate());
        let body = json!({"token": token, "hostname": name, "csr": csr});
        assert_eq!(
            wire.verdict("/v1/join", Some(&body)),
            Verdict::refused(code),
            "{name:?}"
        );
    }
    // The agent says so, and gives up.
    let refused = given_up(world.first_contact(&world.url, (GATEWAY, &token), (&pins, &bundle)));
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("refused: name_reserved:"),
        "{}",
        refused.stderr
    );
    assert_eq!(deeds(world), before, "nobody came in");
}

/// A node of `host` alone asks for every other type there is, and says that it uses it.
fn a_type_beyond_the_grant(world: &mut World) {
    let wire = Wire::of(world);
    let (certificate, key) = wire.files_of(world.agent("n1"));
    let n1 = wire.presenting(&certificate, &key);
    let issued = events(world, Some("certificate.issued")).len();
    for of in AuthorityType::all().filter(|of| *of != AuthorityType::Host) {
        let csr = pki::csr::make_pem(&KeyPair::generate());
        let body = command(json!({"type": of, "usage": "client", "csr": csr}));
        let verdict = n1.verdict("/v1/node/certificates", Some(&body));
        // What people have no node ever has, whatever it was granted.
        let code = if of == AuthorityType::User {
            "not_permitted"
        } else {
            "type_not_granted"
        };
        assert_eq!(verdict, Verdict::refused(code), "{of}");
        let facts = json!({"revision": 1, "trusted": []});
        let report =
            json!({"boot": Uuid::now_v7(), "seq": 1, "version": "1", "authorities": {of.name(): facts}});
        let verdict = n1.verdict("/v1/node/facts", Some(&report));
        assert_eq!(verdict, Verdict::refused("type_not_granted"), "facts of {of}");
    }
    assert_eq!(events(world, Some("certificate.issued")).len(), issued);
}

/// Between a new node and its gateway stands somebody who hands on the genuine documents and wants the token.
fn an_evil_first_contact(world: &mut World) {
    let wire = Wire::of(world);
    let genuine = wire.bundle();
    let genuine_ca = trusted(world, AuthorityType::Host).swap_remove(0);
    let evil = Authority::made_up(AuthorityType::Host);
    let posing = Principal::Gateway(MemberId(Uuid::from_u128(7)));
    let (token, pins, bundle) = world.token(&["--name", "n2"]);
    let (certificate, key) = wire.files_of(world.agent("n1"));
    let insider = Forged {
        certificate,
        key: KeyPair::from_pkcs8_pem(&key).expect("the node's own key"),
    };
    let beside = pki::pem::encode_certificates([&evil.ca.der()[..], &genuine_ca.der()[..]]);
    let forged = impostor::listing_both(&genuine, &evil);
    // Who answers, what it hands out, and what is said to it.
    let meetings = [
        (
            "an evil authority beside the genuine one",
            evil.forge(&posing),
            genuine.clone(),
            "the server is not trusted",
        ),
        (
            "a node in a gateway's place",
            insider,
            genuine,
            "the server is not trusted",
        ),
        (
            "a bundle that lists both",
            evil.forge(&posing),
            forged,
            "not by the pinned bundle key",
        ),
    ];
    let meetings = meetings.map(|(what, presents, document, words)| {
        let impostor = Impostor::start(Script {
            presents,
            beside: beside.clone(),
            trusts: vec![],
            bundles: vec![document],
            feed: vec![],
        });
        let agent = world.first_contact(&impostor.url, ("n2", &token), (&pins, &bundle));
        (what, impostor, agent, words)
    });
    for (what, impostor, agent, words) in meetings {
        let refused = given_up(agent);
        assert_eq!(refused.code, Some(4), "{what}: {}", refused.stderr);
        assert!(refused.stderr.contains(words), "{what}: {}", refused.stderr);
        assert!(
            impostor.heard("GET /v1/trust/host"),
            "{what}: it was asked for the public document"
        );
        assert!(
            !impostor.heard(&token) && !impostor.heard("/v1/join"),
            "{what}: it got no token"
        );
    }
    // The token is as good as before.
    world.join_with("n2", &token, &pins, &bundle);
    world.until_reached("n2");
}
