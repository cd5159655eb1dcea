//! The table is the contract: held against `schemas/openapi.yaml`, and role by role.

use std::collections::{BTreeMap, BTreeSet};

use domain::access::{RoleName, permits};

use super::*;

#[derive(serde::Deserialize)]
struct OpenApi {
    paths: BTreeMap<String, BTreeMap<String, Operation>>,
}

#[derive(serde::Deserialize)]
struct Operation {
    #[serde(rename = "x-action")]
    action: String,
    #[serde(rename = "x-accepts")]
    accepts: String,
    #[serde(rename = "requestBody")]
    body: Option<Body>,
}

#[derive(serde::Deserialize)]
struct Body {
    required: bool,
    content: BTreeMap<String, Media>,
}

#[derive(serde::Deserialize)]
struct Media {
    schema: Schema,
}

#[derive(serde::Deserialize)]
struct Schema {
    title: String,
}

fn described() -> OpenApi {
    let text = include_str!("../../../../schemas/openapi.yaml");
    serde_saphyr::from_str(text).expect("schemas/openapi.yaml can be read")
}

#[test]
fn the_description_and_the_table_name_the_same_routes_actions_and_principals() {
    let described = described();
    let operation = |path: &String, (method, o): (String, Operation)| {
        (path.clone(), method.to_uppercase(), o.action, o.accepts)
    };
    let described: BTreeSet<_> = described
        .paths
        .into_iter()
        .flat_map(|(path, methods)| methods.into_iter().map(move |m| operation(&path, m)))
        .collect();
    let row = |r: &Route| {
        let (action, accepts) = (format!("{:?}", r.action), format!("{:?}", r.accepts));
        (r.path.to_owned(), r.method.to_owned(), action, accepts)
    };
    let table: BTreeSet<_> = ROUTES.iter().map(row).collect();
    let missing: Vec<_> = table.difference(&described).collect();
    let invented: Vec<_> = described.difference(&table).collect();
    assert!(
        missing.is_empty() && invented.is_empty(),
        "missing: {missing:?}\ninvented: {invented:?}"
    );
}

/// The type of the crate `api` that each route reads its body as.
fn body_of(endpoint: Endpoint) -> Option<&'static str> {
    match endpoint {
        Endpoint::Join => Some("JoinRequest"),
        Endpoint::Recover => Some("RecoverRequest"),
        Endpoint::NodeCertificates => Some("CertificateRequest"),
        Endpoint::NodeFacts => Some("FactReport"),
        Endpoint::Rotate => Some("RotateRequest"),
        Endpoint::TokenAdd => Some("TokenRequest"),
        Endpoint::UserAdd => Some("UserRequest"),
        Endpoint::UserRenew => Some("RenewRequest"),
        Endpoint::UserSsh => Some("SshRequest"),
        Endpoint::Sign => Some("SignRequest"),
        Endpoint::SignToken => Some("SignTokenRequest"),
        Endpoint::CertificatesRevoke => Some("RevokeRequest"),
        Endpoint::ConsumerAdd => Some("ConsumerRequest"),
        Endpoint::ConsumerAttest => Some("AttestRequest"),
        Endpoint::ConsumerProbe => Some("ConsumerProbeRequest"),
        Endpoint::ConsumerWithdraw => Some("WithdrawRequest"),
        Endpoint::NodeExclude
        | Endpoint::NodeInclude
        | Endpoint::NodeRemove
        | Endpoint::TokenRemove
        | Endpoint::UserRemove
        | Endpoint::ClockAccept
        | Endpoint::Probe => Some("PlainRequest"),
        Endpoint::Trust
        | Endpoint::Jwks
        | Endpoint::SpiffeBundle
        | Endpoint::OidcDiscovery
        | Endpoint::Crl
        | Endpoint::NodeStream
        | Endpoint::NodeDesired
        | Endpoint::Status
        | Endpoint::Nodes
        | Endpoint::Authorities
        | Endpoint::Rotations
        | Endpoint::Tokens
        | Endpoint::Certificates
        | Endpoint::Users
        | Endpoint::Consumers
        | Endpoint::Plan
        | Endpoint::Whoami
        | Endpoint::Check
        | Endpoint::Watch
        | Endpoint::Events
        | Endpoint::EventsFollow
        | Endpoint::AuditReplay
        | Endpoint::AuditDiff
        | Endpoint::AuditEvent
        | Endpoint::AuditVerify => None,
    }
}

#[test]
fn the_description_asks_for_the_bodies_that_the_routes_read() {
    let described = described();
    for route in ROUTES {
        let operation = &described.paths[route.path][&route.method.to_lowercase()];
        let title = operation.body.as_ref().map(|body| {
            assert!(body.required, "{}: nothing is read from no body", route.path);
            body.content["application/json"].schema.title.as_str()
        });
        assert_eq!(title, body_of(route.endpoint), "{}", route.path);
        assert_eq!(title.is_some(), route.method == "POST", "{}", route.path);
    }
}

#[test]
fn the_public_routes_are_the_contracts_list_and_nothing_else() {
    let public: BTreeSet<_> = ROUTES
        .iter()
        .filter(|r| r.accepts == Accepts::Public)
        .map(|r| (r.method, r.path))
        .collect();
    assert_eq!(
        public,
        [
            ("GET", path::TRUST),
            ("GET", path::JWKS),
            ("GET", path::SPIFFE_BUNDLE),
            ("GET", path::OIDC_DISCOVERY),
            ("GET", path::CRL),
            ("POST", path::JOIN),
            ("POST", path::RECOVER)
        ]
        .into()
    );
    for route in ROUTES {
        assert_eq!(
            route.accepts == Accepts::Public,
            route.action == Action::Public,
            "{}",
            route.path
        );
    }
}

#[test]
fn each_role_may_do_what_it_may_route_by_route() {
    let node = Principal::Node(domain::NodeId(uuid::Uuid::nil()));
    let gateway = Principal::Gateway(domain::MemberId(uuid::Uuid::nil()));
    let user = Principal::User("alice".parse().unwrap());
    let (auditor, operator, admin) = (RoleName::Auditor, RoleName::Operator, RoleName::Admin);
    for route in ROUTES {
        let may = |principal: &Principal, roles: &[RoleName]| {
            let roles = roles.iter().copied().collect();
            route.accepts.kind(principal) && permits(principal, &roles, route.action)
        };
        let expected: &[RoleName] = match route.action {
            Action::Public => continue,
            Action::NodeSelf => &[],
            Action::Read | Action::RenewOwn => &[auditor, operator, admin],
            Action::Rotate => &[operator],
            Action::Sign => &[operator, admin],
            Action::Administer => &[admin],
            Action::MemberSelf | Action::System => {
                panic!("{} must not be reachable from outside", route.path)
            }
        };
        for role in [auditor, operator, admin] {
            assert_eq!(
                may(&user, &[role]),
                expected.contains(&role),
                "{role:?} {}",
                route.path
            );
        }
        assert!(
            !may(&user, &[]),
            "a user without a role is nobody: {}",
            route.path
        );
        assert_eq!(
            may(&node, &[]),
            route.action == Action::NodeSelf,
            "node {}",
            route.path
        );
        assert!(!may(&Principal::Anonymous, &[]), "anonymous {}", route.path);
        assert!(!may(&gateway, &[]), "a gateway calls nobody: {}", route.path);
    }
}

#[test]
fn whatever_an_operator_changes_is_a_post_and_whatever_is_read_is_a_get() {
    for route in ROUTES {
        let changes = matches!(
            route.action,
            Action::Rotate | Action::Administer | Action::Sign | Action::RenewOwn
        );
        assert!(!changes || route.method == "POST", "{}", route.path);
        assert!(
            route.action != Action::Read || route.method == "GET",
            "{}",
            route.path
        );
    }
}

#[test]
fn no_path_fits_two_routes_of_one_method() {
    for (i, a) in ROUTES.iter().enumerate() {
        for b in &ROUTES[i + 1..] {
            let filled = a.path.replace(['{', '}'], "");
            assert!(
                a.method != b.method || matches(b.path, &filled).is_none(),
                "{} {}",
                a.path,
                b.path
            );
        }
    }
}

#[test]
fn a_request_finds_its_route_and_its_part_and_nothing_by_tricks() {
    let found = |method: Method, path: &str| find(&method, path).map(|m| (m.route.endpoint, m.part));
    assert_eq!(
        found(Method::GET, "/v1/trust/host"),
        Ok((Endpoint::Trust, "host".into()))
    );
    let excluded = found(Method::POST, "/v1/nodes/db%2D07/exclude");
    assert_eq!(excluded, Ok((Endpoint::NodeExclude, "db-07".into())));
    let renewed = found(Method::POST, "/v1/users/self/certificate");
    assert_eq!(renewed, Ok((Endpoint::UserRenew, String::new())));
    assert_eq!(found(Method::GET, "/v1/join"), Err(Unmatched::NoMethod));
    assert_eq!(found(Method::DELETE, "/v1/status"), Err(Unmatched::NoMethod));
    assert_eq!(
        (methods("/v1/tokens"), methods("/v1/join")),
        ("GET, POST".into(), "POST".into())
    );
    let tricks = [
        "",
        "/",
        "/v1",
        "/v1/status/",
        "//v1/status",
        "/v1/trust/",
        "/v1/trust/a/b",
        "/v1/./status",
        "/v1/trust/%zz",
        "/V1/status",
        "/v1/trust/%ff",
        "/v1/trust/%",
    ];
    for path in tricks {
        assert_eq!(found(Method::GET, path), Err(Unmatched::NoPath), "{path}");
    }
    // An encoded slash stays inside its part.
    let removed = found(Method::POST, "/v1/nodes/..%2F..%2Fjoin/remove");
    assert_eq!(removed, Ok((Endpoint::NodeRemove, "../../join".into())));
}

#[test]
fn a_query_value_is_decoded_and_a_missing_one_is_none() {
    let query = Some("at=2026-09-20T06%3A10%3A12Z&x=a+b");
    assert_eq!(parameter(query, "at").as_deref(), Some("2026-09-20T06:10:12Z"));
    assert_eq!(parameter(query, "x").as_deref(), Some("a b"));
    assert_eq!(parameter(query, "y"), None);
    assert_eq!(parameter(None, "at"), None);
}

#[test]
fn a_broken_escape_is_no_byte() {
    assert_eq!(decode("a%2Fb%20é").as_deref(), Some("a/b é"));
    for broken in ["%", "%2", "%+1", "%-1", "%zz", "%ff"] {
        assert_eq!(decode(broken), None, "{broken}");
    }
    assert_eq!(parameter(Some("a=1&b=x+y%2B&b=2"), "b").as_deref(), Some("x y+"));
}
