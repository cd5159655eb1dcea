//! Who has no business at the door: no certificate, the wrong one, a forged one, or too many requests.

use api::{
    ClientError,
    join::{JoinAnswer, JoinRequest, RECOVER_CONTEXT, RecoverRequest},
    route,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use domain::{
    AuthorityType, Code, Fact, Principal,
    event::{CertificateRefused, LeafUse},
    trust::SignedBundle,
};
use execution::{Expected, FactWriter};
use pki::{KeyPair, csr, pem, statement};

use super::{code, join};
use crate::testing::{Late, World, granted};

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_the_genuine_authority_that_the_log_does_not_know_opens_nothing() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let (host, user) = w.fold.read(|s| {
        let issuer = |t| (t, s.types[&t].client_issuer().unwrap());
        (issuer(AuthorityType::Host), issuer(AuthorityType::User))
    });
    let holders = [
        (Principal::Node(node.id), host, route::NODE_DESIRED),
        (Principal::User("admin".parse().unwrap()), user, route::WHOAMI),
        (Principal::Gateway(w.member), host, route::NODE_DESIRED),
        // A user's name under the host authority, and a node's under the user authority, are nobody.
        (Principal::User("admin".parse().unwrap()), host, route::WHOAMI),
        (Principal::Node(node.id), user, route::NODE_DESIRED),
    ];
    for (holder, issuer, path) in holders {
        let key = KeyPair::generate();
        let granted = granted(
            &w.cluster,
            holder.clone(),
            issuer,
            LeafUse::Client,
            &key,
            w.executor.now(),
        );
        let leaf = w.signer.issue(&granted, &w.cluster);
        let client = w.client(&gateway.addr, Some((&key, &leaf.der)));
        assert_eq!(
            code(client.get_bytes(path).await),
            Code::CertificateUnknown,
            "{holder} {path}"
        );
        // Public documents are for everybody.
        client
            .get::<SignedBundle>(&route::fill(route::TRUST, "host"))
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_the_public_documents_and_are_told_what_is_missing_for_the_rest() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let stranger = w.client(&gateway.addr, None);
    let bundle: SignedBundle = stranger.get(&route::fill(route::TRUST, "host")).await.unwrap();
    let pin = w.fold.read(|s| s.cluster.as_ref().unwrap().bundle_key);
    pki::bundle::verify(
        &bundle,
        &pin,
        w.executor.now(),
        Some(&w.cluster),
        AuthorityType::Host,
    )
    .unwrap();
    assert_eq!(
        code(stranger.get_bytes(&route::fill(route::TRUST, "jwt")).await),
        Code::NotFound
    );
    assert_eq!(
        code(stranger.get_bytes("/v1/trust/bogus").await),
        Code::BadRequest
    );
    assert_eq!(code(stranger.get_bytes("/v1/nothing").await), Code::NotFound);
    for path in [
        route::WHOAMI,
        route::STATUS,
        route::NODE_STREAM,
        route::EVENTS,
        route::AUDIT_VERIFY,
    ] {
        assert_eq!(
            code(stranger.get_bytes(path).await),
            Code::Unauthenticated,
            "{path}"
        );
    }
    let key = KeyPair::generate();
    let mut request = JoinRequest {
        token: "wrong".into(),
        hostname: "n1.example".into(),
        csr: csr::make_pem(&key),
        rejoin: None,
    };
    assert_eq!(
        code(stranger.post::<_, JoinAnswer>(route::JOIN, &request).await),
        Code::TokenUnknown
    );
    request.csr = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".into();
    assert_eq!(
        code(stranger.post::<_, JoinAnswer>(route::JOIN, &request).await),
        Code::CsrInvalid
    );
    request.csr = "x".repeat(20_000);
    assert_eq!(
        code(stranger.post::<_, JoinAnswer>(route::JOIN, &request).await),
        Code::TooLarge
    );
    request.hostname = "*.example".into();
    request.csr = csr::make_pem(&key);
    assert_eq!(
        code(stranger.post::<_, JoinAnswer>(route::JOIN, &request).await),
        Code::BadRequest
    );
    assert_eq!(
        code(stranger.post::<_, JoinAnswer>(route::JOIN, &"no object").await),
        Code::BadRequest
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_recovers_with_the_key_of_its_certificate_and_nobody_else_does() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let stranger = w.client(&gateway.addr, None);
    let key = KeyPair::generate();
    let csr = csr::make_pem(&key);
    let recover = |signing: &KeyPair, context: &str| RecoverRequest {
        certificate: pem::encode_certificates([&node.der[..]]),
        csr: csr.clone(),
        signature: STANDARD.encode(statement::sign(signing, context, csr.as_bytes())),
    };
    for forged in [
        recover(&key, RECOVER_CONTEXT),
        recover(&node.key, api::join::REJOIN_CONTEXT),
    ] {
        let result = stranger.post::<_, JoinAnswer>(route::RECOVER, &forged).await;
        assert_eq!(code(result), Code::RecoveryRefused);
    }
    let request = recover(&node.key, RECOVER_CONTEXT);
    let first: JoinAnswer = stranger.post(route::RECOVER, &request).await.unwrap();
    assert_eq!(first.node, node.id);
    let again: JoinAnswer = stranger.post(route::RECOVER, &request).await.unwrap();
    assert_eq!(
        again.certificate, first.certificate,
        "a lost answer is given again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_from_one_address_are_limited_and_renewals_are_not() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let (stranger, csr) = (w.client(&gateway.addr, None), csr::make_pem(&KeyPair::generate()));
    let request = JoinRequest {
        token: "guess".into(),
        hostname: "n2.example".into(),
        csr,
        rejoin: None,
    };
    for _ in 0..19 {
        assert_eq!(
            code(stranger.post::<_, JoinAnswer>(route::JOIN, &request).await),
            Code::TokenUnknown
        );
    }
    let Err(ClientError::Problem(problem)) = stranger.post::<_, JoinAnswer>(route::JOIN, &request).await
    else {
        panic!("the twentieth guess is one too many");
    };
    assert_eq!(
        (problem.code, problem.retry_after_s),
        (Code::RateLimited, Some(1))
    );
    // Nodes that come back from the same address are counted apart.
    let old = RecoverRequest {
        certificate: pem::encode_certificates([&node.der[..]]),
        csr: request.csr.clone(),
        signature: "AAAA".into(),
    };
    assert_eq!(
        code(stranger.post::<_, JoinAnswer>(route::RECOVER, &old).await),
        Code::RecoveryRefused
    );
    let (key, issuer) = (
        KeyPair::generate(),
        pki::Certificate::parse(&node.der).unwrap().issuer,
    );
    node.request(&w, &gateway, &key, LeafUse::Both, issuer)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_gets_the_same_certificate_and_another_nodes_key_none() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (one, _) = join(&w, &gateway, "n1.example").await;
    let (two, _) = join(&w, &gateway, "n2.example").await;
    let key = KeyPair::generate();
    let first = one
        .request(&w, &gateway, &key, LeafUse::Both, None)
        .await
        .unwrap();
    let again = one
        .request(&w, &gateway, &key, LeafUse::Both, None)
        .await
        .unwrap();
    assert_eq!(first, again);
    assert_eq!(
        code(two.request(&w, &gateway, &key, LeafUse::Both, None).await),
        Code::KeyReused
    );
}

/// Under its id the same answer is given for ever: a node that took it for silence would ask until its certificate ends.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_signer_refused_is_to_be_asked_for_anew() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    w.signer.late.send_replace(Late::Nodes);
    let refuse = async {
        w.until("the request waits for the signer", |s| !s.pending.is_empty())
            .await;
        let (authorization, holder) = w.fold.read(|s| {
            let (id, pending) = s.pending.iter().next().unwrap();
            (*id, pending.granted.holder.clone())
        });
        let why = "the row has moved on".into();
        let refused = CertificateRefused {
            authorization,
            holder,
            why,
        };
        let writer = FactWriter::signer(w.fold.clone());
        let facts = [Fact::from(refused)];
        let now = w.executor.now();
        writer
            .append(&w.cluster, &facts, now, Expected::Any)
            .await
            .unwrap();
    };
    let key = KeyPair::generate();
    let (answer, ()) =
        futures::future::join(node.request(&w, &gateway, &key, LeafUse::Both, None), refuse).await;
    assert_eq!(code(answer), Code::StaleView);
}
