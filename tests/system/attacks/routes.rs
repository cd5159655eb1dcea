//! Who is let in by which route: every route of the description, and every kind of caller.
//!
//! The table is written down by hand from the rules (ARCHITECTURE.md, `docs/threat-model.md`) and not derived from the
//! router's own: a route that is let go there is found here.

use std::{collections::BTreeSet, fs, path::Path};

use carousel_tests::source;
use domain::{AuthorityType, TokenHash};
use pki::{Certificate, KeyPair};
use serde_json::{Value, json};

use super::{admin, command, deeds, person};
use crate::{
    forged::{Authority, trusted},
    wire::{Verdict, Wire},
    world::{Log, World, text},
};

/// Each route with the callers that it lets in. `person` stands for the three roles.
const TABLE: &str = "
    GET  /v1/trust/{type}               everybody
    GET  /v1/jwks/{type}                everybody
    GET  /v1/spiffe/bundle              everybody
    GET  /v1/crl/{authority}            everybody
    GET  /v1/oidc/{type}/.well-known/openid-configuration  everybody
    POST /v1/join                       everybody
    POST /v1/recover                    everybody
    GET  /v1/node/stream                node
    GET  /v1/node/desired               node
    POST /v1/node/certificates          node
    POST /v1/node/facts                 node
    GET  /v1/status                     person
    GET  /v1/nodes                      person
    GET  /v1/authorities                person
    GET  /v1/rotations                  person
    GET  /v1/tokens                     person
    GET  /v1/certificates               person
    GET  /v1/users                      person
    GET  /v1/consumers                  person
    GET  /v1/plan/{type}                person
    GET  /v1/whoami                     person
    GET  /v1/check                      person
    GET  /v1/watch/{type}               person
    GET  /v1/events                     person
    GET  /v1/events/follow              person
    GET  /v1/audit/replay               person
    GET  /v1/audit/diff                 person
    GET  /v1/audit/events/{position}    person
    GET  /v1/audit/verify               person
    POST /v1/rotate                     operator
    POST /v1/nodes/{name}/exclude       operator
    POST /v1/nodes/{name}/include       operator
    POST /v1/nodes/{name}/remove        admin
    POST /v1/tokens                     admin
    POST /v1/tokens/{id}/remove         admin
    POST /v1/users                      admin
    POST /v1/users/{name}/remove        admin
    POST /v1/users/self/certificate     person
    POST /v1/users/self/ssh             person
    POST /v1/sign                       operator
    POST /v1/sign/token                 admin
    POST /v1/certificates/revoke        admin
    POST /v1/consumers                  admin
    POST /v1/consumers/{name}/attest    operator
    POST /v1/consumers/{name}/probe     operator
    POST /v1/consumers/{name}/withdraw  admin
    POST /v1/clock/accept               operator
    POST /v1/probe/{node}               operator
";

/// Nobody's node, user or token.
const NOBODY: &str = "01890000-0000-7000-8000-000000000001";

/// Somebody at the door.
struct Caller {
    /// Who it is, as a failed test names it.
    what: &'static str,
    wire: Wire,
    /// The word of the table that lets it in.
    group: &'static str,
    /// What it is told elsewhere.
    code: &'static str,
}

/// One row of the table.
struct Route {
    method: &'static str,
    path: &'static str,
    lets_in: &'static str,
}

#[test]
fn each_kind_of_caller_is_let_in_by_its_own_routes_and_by_no_other() {
    let routes = table();
    all_of_the_description(&routes);
    let mut world = World::start("routes", Log::Embedded).expect("the embedded log is always there");
    for name in ["n1", "n2"] {
        world.join(name);
    }
    let callers = callers(&mut world);
    let before = deeds(&world);
    for route in &routes {
        for caller in &callers {
            let verdict = caller.wire.verdict(&route.filled(), route.body().as_ref());
            let what = format!("{} at {} {}: {verdict:?}", caller.what, route.method, route.path);
            if route.is_for(caller) {
                assert_eq!(verdict, route.lets_in(), "{what}");
            } else {
                assert_eq!(verdict, Verdict::refused(caller.code), "{what}");
            }
        }
    }
    assert_eq!(
        deeds(&world),
        before,
        "whoever was let in asked for nothing that can be had"
    );
    a_node_speaks_for_no_other(&mut world);
    nobody_is_a_user_without_roles(&world);
    a_removed_user_is_nobody(&world);
}

fn table() -> Vec<Route> {
    let lines = TABLE.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let [method, path, lets_in] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            Route {
                method,
                path,
                lets_in,
            }
        })
        .collect()
}

/// A route that was added to the description and not to the table has not been thought about here.
fn all_of_the_description(routes: &[Route]) {
    let text = fs::read_to_string(source::root().join("schemas/openapi.yaml")).expect("it is there");
    let described: Value = serde_saphyr::from_str(&text).expect("YAML");
    let paths = described["paths"].as_object().expect("paths");
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().expect("methods").keys();
        methods.map(move |method| (method.to_uppercase(), path.clone()))
    });
    let table = routes.iter().map(|r| (r.method.to_owned(), r.path.to_owned()));
    assert_eq!(
        table.collect::<BTreeSet<_>>(),
        operations.collect::<BTreeSet<_>>(),
        "the table here and the routes of schemas/openapi.yaml"
    );
}

impl Route {
    fn is_for(&self, caller: &Caller) -> bool {
        let is_person = matches!(caller.group, "auditor" | "operator" | "admin");
        self.lets_in == "everybody" || self.lets_in == caller.group || (self.lets_in == "person" && is_person)
    }

    /// The path, with something in it that is not there wherever it could be hurt.
    fn filled(&self) -> String {
        let path = self.path.replace("{type}", "host").replace("{position}", "1");
        let path = path.replace("{name}", "nobody").replace("{id}", NOBODY);
        let pin = format!("sha256:{}", "0".repeat(64));
        path.replace("{node}", "nobody").replace("{authority}", &pin)
    }

    /// A good request for what cannot be had: it is refused to whoever is let in, and with another code.
    fn body(&self) -> Option<Value> {
        let csr = || pki::csr::make_pem(&KeyPair::generate());
        let body = match self.path {
            _ if self.method == "GET" => return None,
            "/v1/join" => json!({"token": "guessed", "hostname": "n9", "csr": csr()}),
            "/v1/recover" => json!({"certificate": "", "csr": csr(), "signature": ""}),
            "/v1/node/certificates" => command(json!({"type": "db", "usage": "client", "csr": csr()})),
            "/v1/node/facts" => json!({"boot": NOBODY, "seq": 0}),
            "/v1/rotate" => command(json!({"type": "host", "phase": "update_servers", "manual": true})),
            "/v1/tokens" => {
                let hash = TokenHash([7; 32]);
                command(json!({"hash": hash, "names": ["localhost"], "uses": 1, "ttl_ms": 1}))
            }
            "/v1/consumers" => command(json!({"name": "nobody", "type": "host", "owner": ""})),
            "/v1/consumers/{name}/attest" => {
                command(json!({"type": "host", "expects": {"phase": "init", "rotation": null}}))
            }
            "/v1/consumers/{name}/probe" | "/v1/consumers/{name}/withdraw" => {
                command(json!({"type": "host"}))
            }
            "/v1/users" => command(json!({"name": "admin", "roles": ["admin"], "csr": csr()})),
            "/v1/users/self/ssh" => command(json!({"ssh_key": "nobody's"})),
            // Of a database: an operator signs it, and an administrator does not. A server without a name is none.
            "/v1/sign" => command(json!({"type": "db", "name": "nobody", "csr": csr()})),
            "/v1/sign/token" => command(json!({
                "type": "host",
                "name": "nobody",
                "audience": ["nobody"],
                "public_key": KeyPair::generate().public().to_base64(),
            })),
            "/v1/certificates/revoke" => command(json!({"target": {"external": "nobody"}})),
            "/v1/users/self/certificate" => command(json!({"csr": csr()})),
            _ => command(json!({})),
        };
        Some(body)
    }

    /// What is said to those who are let in.
    fn lets_in(&self) -> Verdict {
        let code = match (self.method, self.path) {
            // The host authority has no keys that sign tokens.
            (_, "/v1/jwks/{type}") => "not_found",
            (_, path) if path.starts_with("/v1/oidc/") || path.starts_with("/v1/crl/") => "not_found",
            (_, "/v1/users/self/ssh") => "csr_invalid",
            (_, "/v1/sign") => "sign_invalid",
            (_, "/v1/sign/token") => "type_not_in_service",
            (_, "/v1/certificates/revoke") => "not_found",
            (_, "/v1/join") => "token_unknown",
            (_, "/v1/recover") => "recovery_refused",
            (_, "/v1/node/certificates") => "type_not_granted",
            (_, "/v1/node/facts" | "/v1/audit/replay" | "/v1/audit/diff") => "bad_request",
            (_, "/v1/rotate") => "illegal_transition",
            ("POST", "/v1/tokens") => "name_reserved",
            ("POST", "/v1/users") => "user_exists",
            ("POST", "/v1/consumers") => "bad_request",
            (_, path) if path.starts_with("/v1/consumers/") => "consumer_unknown",
            (_, "/v1/tokens/{id}/remove") => "not_found",
            (_, "/v1/users/{name}/remove") => "user_unknown",
            (_, "/v1/clock/accept") => "nothing_suspect",
            (_, path) if path.contains("{name}") || path.contains("{node}") => "node_unknown",
            _ => return Verdict::Done,
        };
        Verdict::refused(code)
    }
}

/// Everybody who may stand at the door with a certificate that TLS takes, or with none.
fn callers(world: &mut World) -> Vec<Caller> {
    let wire = Wire::of(world);
    let known = |what, group, wire| Caller {
        what,
        wire,
        group,
        code: "not_permitted",
    };
    let mut all = vec![Caller {
        code: "unauthenticated",
        ..known("nobody", "", wire.anonymous())
    }];
    for (name, what) in [("n1", "a node"), ("n2", "another node")] {
        let (certificate, key) = wire.files_of(world.agent(name));
        all.push(known(what, "node", wire.presenting(&certificate, &key)));
    }
    all.push(known("the gateway itself", "", gateway(world, &wire)));
    for role in ["auditor", "operator", "admin"] {
        // Each with one role alone: none of them includes another one.
        let person = person(world, &wire, &format!("only-{role}"), role);
        all.push(known(role, role, person));
    }
    all.extend(forged(world, &wire));
    all
}

/// Holders whose chain is good and whose certificates were never issued; three of the kinds could not be.
fn forged(world: &World, wire: &Wire) -> Vec<Caller> {
    let node = text(&world.node("n1").expect("it joined")["metadata"]["name"]);
    let holders = [
        format!("node/{node}"),
        format!("gateway/{NOBODY}"),
        "user/admin".into(),
        "external/pg".into(),
    ];
    let by_host = [
        "a forged node",
        "a forged gateway",
        "a user by the host authority",
        "an external by it",
    ];
    let by_user = [
        "a node by the user authority",
        "a gateway by it",
        "a forged user",
        "an external",
    ];
    let mut all = vec![];
    for authority in Authority::stolen(world, &[AuthorityType::Host, AuthorityType::User]) {
        let is_host = authority.authority_type == AuthorityType::Host;
        for (what, holder) in (if is_host { by_host } else { by_user }).iter().zip(&holders) {
            all.push(Caller {
                what,
                wire: wire.forged(&authority.forge(&holder.parse().expect("a holder"))),
                group: "",
                code: "certificate_unknown",
            });
        }
    }
    all
}

/// The gateway's own certificate, which is in the log and a client's as well.
fn gateway(world: &World, wire: &Wire) -> Wire {
    let dir = world.data().join("gateway");
    let host = trusted(world, AuthorityType::Host).swap_remove(0).pin();
    let files = fs::read_dir(&dir)
        .expect("it is there")
        .map(|entry| entry.expect("readable").path());
    let read = |path: &Path| fs::read_to_string(path).expect("it is there");
    let mut pairs = files
        .filter(|path| path.extension().is_some_and(|e| e == "crt"))
        .map(|path| (read(&path), read(&path.with_extension("key"))));
    let (certificate, key) = pairs
        .find(|(certificate, _)| {
            let ders = pki::pem::certificates(certificate).expect("PEM");
            let leaf = Certificate::parse(&ders[0]).expect("a certificate");
            leaf.client && leaf.issuer == Some(host)
        })
        .expect("a gateway has a client certificate of the row");
    wire.presenting(&certificate, &key)
}

/// With a good certificate of its own, a node asks in another one's name.
fn a_node_speaks_for_no_other(world: &mut World) {
    let wire = Wire::of(world);
    let (of_one, key_of_one) = wire.files_of(world.agent("n1"));
    let (of_two, key_of_two) = wire.files_of(world.agent("n2"));
    let (one, two) = (
        world.node("n1").expect("it joined"),
        wire.presenting(&of_two, &key_of_two),
    );
    let key = |pem: &str| KeyPair::from_pkcs8_pem(pem).expect("a key");
    // A certificate over the other's key, and a recovery by the other's certificate.
    let csr = pki::csr::make_pem(&key(&key_of_one));
    let body = command(json!({"type": "host", "usage": "both", "csr": csr}));
    assert_eq!(
        two.verdict("/v1/node/certificates", Some(&body)),
        Verdict::refused("key_reused")
    );
    let signature = pki::statement::sign(&key(&key_of_two), api::join::RECOVER_CONTEXT, csr.as_bytes());
    let signature = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature);
    let body = json!({"certificate": of_one, "csr": csr, "signature": signature});
    assert_eq!(
        two.verdict("/v1/recover", Some(&body)),
        Verdict::refused("recovery_refused")
    );
    // What it is told is about itself.
    let own = two.get("/v1/node/desired").expect("its own state").to_string();
    assert!(
        own.contains("n2") && !own.contains(&text(&one["metadata"]["name"])),
        "{own}"
    );
}

fn nobody_is_a_user_without_roles(world: &World) {
    let csr = pki::csr::make_pem(&KeyPair::generate());
    let body = command(json!({"name": "nemo", "roles": [], "csr": csr}));
    let verdict = admin(world).verdict("/v1/users", Some(&body));
    assert_eq!(verdict, Verdict::refused("roles_invalid"));
}

/// The certificate of a removed user is refused by the log at once, and in the handshake when the deny list is signed.
fn a_removed_user_is_nobody(world: &World) {
    let wire = Wire::of(world);
    let gone = person(world, &wire, "gone", "admin,operator,auditor");
    let _ = world.carousel(&["users", "rm", "gone"]).expect_code(0);
    for route in table().iter().filter(|route| route.lets_in != "everybody") {
        let verdict = gone.verdict(&route.filled(), route.body().as_ref());
        let is_refused = [Verdict::refused("certificate_unknown"), Verdict::NoHandshake].contains(&verdict);
        assert!(
            is_refused,
            "a removed user at {} {}: {verdict:?}",
            route.method, route.path
        );
    }
}
