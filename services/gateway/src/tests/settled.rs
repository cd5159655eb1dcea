//! What became of an authorisation by the time that somebody asks, or is told: nothing that does not count leaves.

use std::time::Duration;

use api::{
    client::EventStream,
    node::{CERTIFICATE_EVENT, CertificateAnswer, CertificateRequest, PushedCertificate},
    route,
};
use domain::{
    AuthorityType, Code, Fact, Order, Principal,
    command::{KeyRequest, Sign},
    event::{AuthorizationGranted, Form, LeafUse},
    id::SystemActor,
};
use execution::{Expected, FactWriter};
use pki::{KeyPair, csr};
use tokio::{task::JoinSet, time::timeout};

use super::{code, join, open_stream};
use crate::testing::{Late, SOON, World, issued};

/// What waits to be signed.
async fn waiting(w: &World) -> AuthorizationGranted {
    w.until("it waits for the signer", |s| !s.pending.is_empty())
        .await;
    w.fold
        .read(|s| s.pending.values().next().map(|p| p.granted.clone()))
        .unwrap()
}

/// A signer that was slow writes what it has made all the same.
async fn sign_late(w: &World, granted: &AuthorizationGranted) {
    let leaf = w.signer.issue(granted, &w.cluster);
    let fact: Fact = issued(granted, &leaf).into();
    let writer = FactWriter::signer(w.fold.clone());
    writer
        .append(&w.cluster, &[fact], w.executor.now(), Expected::Any)
        .await
        .unwrap();
}

async fn pushed(stream: &mut EventStream) -> PushedCertificate {
    let reading = async {
        loop {
            let event = stream.next().await.unwrap().expect("the stream stays open");
            if event.name == CERTIFICATE_EVENT {
                return event.json().unwrap();
            }
        }
    };
    timeout(SOON, reading).await.expect("it is pushed soon")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_voided_while_it_was_being_signed_is_pushed_to_nobody() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let mut stream = open_stream(&w, &gateway, &node).await;
    w.signer.late.send_replace(Late::Nodes);
    let asked = CertificateRequest {
        id: w.id(),
        authority_type: AuthorityType::Host,
        usage: LeafUse::Both,
        issuer: None,
        csr: csr::make_pem(&KeyPair::generate()),
    };
    let asks = w.client(&gateway.addr, node.own());
    let mut asking: JoinSet<Result<CertificateAnswer, _>> = JoinSet::new();
    asking.spawn(async move { asks.post(route::NODE_CERTIFICATES, &asked).await });
    let granted = waiting(&w).await;
    let void = Order::VoidAuthorization {
        authorization: granted.authorization,
        why: "the row moved on".into(),
    };
    let clock = Principal::System(SystemActor::Clock);
    w.executor
        .execute(w.executor.own_command(clock, void))
        .await
        .unwrap();
    sign_late(&w, &granted).await;
    w.signer.late.send_replace(Late::Nothing);
    let answered = asking.join_next().await.unwrap().unwrap();
    assert_eq!(code(answered), Code::StaleView);
    // The first that comes is the first that counts.
    let counts = node
        .request(&w, &gateway, &KeyPair::generate(), LeafUse::Both, None)
        .await
        .unwrap();
    assert_eq!(pushed(&mut stream).await.certificate, counts.certificate);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_signed_long_after_its_end_is_to_be_asked_for_anew() {
    let w = World::new().await;
    let app = w.open(w.config("127.0.0.1:0")).await.unwrap().app.clone();
    w.signer.late.send_replace(Late::Parties);
    let key = KeyPair::generate();
    let sign = Sign {
        authority_type: AuthorityType::User,
        holder: "etl".parse().unwrap(),
        form: Form::Tls,
        names: vec![],
        addresses: vec![],
        ttl_ms: None,
        key: KeyRequest {
            spki: key.spki_pin(),
            public_key: key.public().to_base64(),
        },
    };
    let admin = Principal::User("admin".parse().unwrap());
    w.executor
        .execute(w.executor.own_command(admin, Order::Sign(Box::new(sign))))
        .await
        .unwrap();
    let granted = waiting(&w).await;
    // Longer than anything is remembered that has ended.
    let kept = w.fold.read(|s| s.settings().max_offline_ms);
    w.clock
        .advance(Duration::from_millis(kept) + Duration::from_secs(24 * 60 * 60));
    sign_late(&w, &granted).await;
    w.until("it is settled", |s| {
        s.settled_authorizations.contains_key(&granted.authorization)
    })
    .await;
    let refused = app
        .certificate(&granted.holder, granted.authorization)
        .await
        .expect_err("nothing is handed out");
    assert_eq!(refused.code(), Code::StaleView);
    let text = &refused.problem().detail;
    assert!(text.contains("its life is over: ask again"), "{text}");
}
