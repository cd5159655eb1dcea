//! Commands as a whole: what makes two of them the same, and that a refused one is on record.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    command::{
        AttestRequest, CommandAnswer, ConsumerProbeRequest, ConsumerRequest, PlainRequest, RevokeRequest,
        RevokeTarget, RotateRequest, SignRequest, SignTokenRequest, TokenRequest, UserCertificateAnswer,
        UserRequest, WithdrawRequest,
    },
    route,
};
use domain::{
    AuthorityType, Code, Phase, Principal, TokenHash,
    access::{Action, RoleName},
    command::Expectation,
};
use pki::{KeyPair, csr};
use serde_json::{Value, json};

use super::{code, der, join, rotate};
use crate::{
    route::{Accepts, ROUTES},
    testing::{Running, World},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_was_used_for_one_node_does_nothing_for_another_and_says_so() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (one, _) = join(&w, &gateway, "n1.example").await;
    let (two, _) = join(&w, &gateway, "n2.example").await;
    rotate(&w, &gateway, Phase::Init).await.unwrap();
    let admin = w.admin(&gateway.addr);
    let request = PlainRequest {
        id: w.id(),
        reason: Some("away".into()),
    };
    let exclude = |name: &str| route::fill(route::NODE_EXCLUDE, name);
    let first: CommandAnswer = admin.post(&exclude("n1.example"), &request).await.unwrap();
    let again: CommandAnswer = admin.post(&exclude("n1.example"), &request).await.unwrap();
    assert_eq!(first, again, "a lost answer is given again");
    // Id and body are the same; what they are aimed at is not.
    assert_eq!(
        code(admin.post_only(&exclude("n2.example"), &request).await),
        Code::CommandIdReused
    );
    let include = route::fill(route::NODE_INCLUDE, "n1.example");
    assert_eq!(
        code(admin.post_only(&include, &request).await),
        Code::CommandIdReused
    );
    let is_excluded = |node| {
        w.fold
            .read(|s| s.nodes[&node].excluded.contains_key(&AuthorityType::Host))
    };
    assert!(is_excluded(one.id) && !is_excluded(two.id));
}

/// Somebody who may read and nothing else.
pub(super) async fn auditor(w: &World, gateway: &Running) -> (KeyPair, Vec<u8>) {
    let key = KeyPair::generate();
    let request = UserRequest {
        id: w.id(),
        reason: None,
        name: "audrey".into(),
        roles: vec![RoleName::Auditor],
        logins: vec![],
        csr: csr::make_pem(&key),
    };
    let answer: UserCertificateAnswer = w.admin(&gateway.addr).post(route::USERS, &request).await.unwrap();
    (key, der(&answer.certificate))
}

/// Every command of people that needs more than any role, with what the log calls it.
fn commands(w: &World) -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let id = || w.id();
    let plain = || {
        json!(PlainRequest {
            id: id(),
            reason: None
        })
    };
    let rotate = RotateRequest::manual(id(), AuthorityType::Host, None);
    let token = TokenRequest {
        id: id(),
        reason: None,
        hash: TokenHash([7; 32]),
        names: vec!["n9.example".into()],
        addresses: vec![],
        types: BTreeMap::new(),
        uses: 1,
        ttl_ms: 60_000,
    };
    let user = UserRequest {
        id: id(),
        reason: None,
        name: "mallory".into(),
        roles: vec![RoleName::Admin],
        logins: vec![],
        csr: csr::make_pem(&KeyPair::generate()),
    };
    let some_id = "01890000-0000-7000-8000-000000000001";
    vec![
        (route::ROTATE, "", "rotate", json!(rotate)),
        (route::NODE_EXCLUDE, "n1.example", "nodes-exclude", plain()),
        (route::NODE_INCLUDE, "n1.example", "nodes-include", plain()),
        (route::NODE_REMOVE, "n1.example", "nodes-rm", plain()),
        (route::TOKENS, "", "tokens-add", json!(token)),
        (route::TOKEN_REMOVE, some_id, "tokens-rm", plain()),
        (route::USERS, "", "users-add", json!(user)),
        (route::USER_REMOVE, "admin", "users-rm", plain()),
        (route::CLOCK_ACCEPT, "", "clock-accept", plain()),
    ]
    .into_iter()
    .chain(on_consumers(w))
    .chain(on_credentials(w))
    .collect()
}

fn on_credentials(w: &World) -> [(&'static str, &'static str, &'static str, Value); 3] {
    let id = || w.id();
    let sign = SignRequest {
        id: id(),
        reason: None,
        authority_type: AuthorityType::Db,
        name: "pg-1".into(),
        csr: Some(csr::make_pem(&KeyPair::generate())),
        upn: None,
        ssh_key: None,
        names: vec!["pg-1.example".into()],
        addresses: vec![],
        principals: vec![],
        critical_options: BTreeMap::new(),
        extensions: vec![],
        ttl_ms: None,
    };
    let token = SignTokenRequest {
        id: id(),
        reason: None,
        authority_type: AuthorityType::Jwt,
        name: "billing".into(),
        audience: vec!["api".into()],
        ttl_ms: None,
        public_key: KeyPair::generate().public().to_base64(),
    };
    let revoke = RevokeRequest {
        id: id(),
        reason: None,
        target: RevokeTarget::User("admin".into()),
    };
    [
        (route::SIGN, "", "auth-sign", json!(sign)),
        (route::SIGN_TOKEN, "", "auth-token", json!(token)),
        (
            route::CERTIFICATES_REVOKE,
            "",
            "certificates-revoke",
            json!(revoke),
        ),
    ]
}

fn on_consumers(w: &World) -> [(&'static str, &'static str, &'static str, Value); 4] {
    let id = || w.id();
    let authority_type = AuthorityType::Db;
    let consumer = ConsumerRequest {
        id: id(),
        reason: None,
        name: "etl".into(),
        authority_type,
        owner: "mallory".into(),
        contact: String::new(),
        probe: None,
    };
    let attest = AttestRequest {
        id: id(),
        reason: None,
        authority_type,
        expects: Expectation {
            rotation: None,
            phase: Phase::Standby,
        },
    };
    let probe = ConsumerProbeRequest {
        id: id(),
        reason: None,
        authority_type,
    };
    let withdraw = WithdrawRequest {
        id: id(),
        reason: None,
        authority_type,
    };
    [
        (route::CONSUMERS, "", "consumers-add", json!(consumer)),
        (route::CONSUMER_ATTEST, "etl", "consumers-attest", json!(attest)),
        // A look that proves something is an attestation.
        (route::CONSUMER_PROBE, "etl", "consumers-attest", json!(probe)),
        (
            route::CONSUMER_WITHDRAW,
            "etl",
            "consumers-withdraw",
            json!(withdraw),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_the_role_for_it_is_refused_on_record_route_by_route() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    join(&w, &gateway, "n1.example").await;
    let (key, leaf) = auditor(&w, &gateway).await;
    let audrey = w.client(&gateway.addr, Some((&key, &leaf)));
    let commands = commands(&w);
    // None is forgotten here: every command of people but those for one's own certificates.
    let table: BTreeSet<_> = ROUTES
        .iter()
        .filter(|r| r.is_command() && r.accepts == Accepts::Users && r.action != Action::RenewOwn)
        .map(|r| r.path)
        .collect();
    assert_eq!(table, commands.iter().map(|(path, ..)| *path).collect());
    let who = Principal::User("audrey".parse().unwrap());
    for (path, part, name, body) in commands {
        let result = audrey.post_only(&route::fill(path, part), &body).await;
        assert_eq!(code(result), Code::NotPermitted, "{path}");
        let is_on_record = w.fold.read(|s| {
            let mut kinds = s.refusals.keys();
            kinds.any(|(principal, command, _, code, _)| {
                (principal, command.as_str(), *code) == (&who, name, Code::NotPermitted)
            })
        });
        assert!(is_on_record, "{path} leaves no trace");
    }
    // What is no command is refused all the same, and before anything is said about what was sent.
    let unknown = route::fill(route::NODE_REMOVE, "nobody.example");
    for (path, body) in [
        (unknown.as_str(), json!({})),
        (route::ROTATE, json!("no command")),
    ] {
        assert_eq!(
            code(audrey.post_only(path, &body).await),
            Code::NotPermitted,
            "{path}"
        );
    }
    let probe = route::fill(route::PROBE, "n1.example");
    let plain = PlainRequest {
        id: w.id(),
        reason: None,
    };
    assert_eq!(code(audrey.post_only(&probe, &plain).await), Code::NotPermitted);
}
