//! What a join is answered: a certificate that is signed, and the row of now.

use api::{
    ClientError,
    command::PlainRequest,
    join::{JoinAnswer, JoinRequest},
    route,
};
use domain::{
    AuthorityType, Code, Order, Phase, Position, Principal, SpkiPin, command::Rotate, id::SystemActor,
};
use pki::{KeyPair, csr};
use tokio::{task::JoinSet, time::timeout};

use super::{code, rotate, token};
use crate::testing::{Late, Running, SOON, World};

type Joined = Result<JoinAnswer, ClientError>;

async fn request(w: &World, gateway: &Running, name: &str) -> JoinRequest {
    JoinRequest {
        token: token(w, gateway, name).await,
        hostname: name.into(),
        csr: csr::make_pem(&KeyPair::generate()),
        rejoin: None,
    }
}

async fn post(w: &World, gateway: &Running, request: &JoinRequest) -> Joined {
    w.client(&gateway.addr, None).post(route::JOIN, request).await
}

/// Sends a join that the signer is late with, and comes back when it waits.
async fn waiting(w: &World, gateway: &Running, request: &JoinRequest) -> JoinSet<Joined> {
    w.signer.late.send_replace(Late::Nodes);
    let (stranger, request) = (w.client(&gateway.addr, None), request.clone());
    let mut joining = JoinSet::new();
    joining.spawn(async move { stranger.post(route::JOIN, &request).await });
    w.until("the join waits for the signer", |s| !s.pending.is_empty())
        .await;
    joining
}

async fn answered(mut joining: JoinSet<Joined>) -> Joined {
    let answered = timeout(SOON, joining.join_next()).await.expect("it is answered");
    answered.unwrap().unwrap()
}

fn host_row(w: &World) -> Position {
    w.fold.read(|s| s.types[&AuthorityType::Host].row_position)
}

fn pins(w: &World) -> Vec<SpkiPin> {
    w.fold
        .read(|s| s.types[&AuthorityType::Host].trusted().into_iter().collect())
}

/// Does the answer say what holds now, in the desired state and in the bundle alike?
fn is_of_now(w: &World, answer: &JoinAnswer) {
    let row = &answer.desired.authorities[&AuthorityType::Host];
    assert!(
        row.revision >= host_row(w),
        "{} is older than the row",
        row.revision
    );
    assert_eq!(row.trusted.iter().copied().collect::<Vec<_>>(), pins(w));
    let (bundle, now) = (&answer.bundles[&AuthorityType::Host], w.executor.now());
    let pin = w.fold.read(|s| s.cluster.as_ref().unwrap().bundle_key);
    let read = pki::bundle::verify(bundle, &pin, now, Some(&w.cluster), AuthorityType::Host).unwrap();
    assert_eq!(read.revision, row.revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_whose_authorisation_is_voided_gets_another_one() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let request = request(&w, &gateway, "n1.example").await;
    let joining = waiting(&w, &gateway, &request).await;
    let first = w.fold.read(|s| *s.pending.keys().next().unwrap());
    let void = Order::VoidAuthorization {
        authorization: first,
        why: "its authority is gone".into(),
    };
    let clock = Principal::System(SystemActor::Clock);
    w.executor
        .execute(w.executor.own_command(clock, void))
        .await
        .unwrap();
    w.until("it is authorised anew", |s| {
        s.pending.keys().any(|id| *id != first)
    })
    .await;
    w.signer.late.send_replace(Late::Nothing);
    is_of_now(&w, &answered(joining).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_is_repeated_after_a_whole_rotation_gets_its_certificate_and_the_row_of_now() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let request = request(&w, &gateway, "n1.example").await;
    // Its answer is lost on the way, and the node is away for a rotation.
    let lost = post(&w, &gateway, &request).await.unwrap();
    let old = pins(&w);
    rotate(&w, &gateway, Phase::Init).await.unwrap();
    let exclude = route::fill(route::NODE_EXCLUDE, "n1.example");
    let away = PlainRequest {
        id: w.id(),
        reason: Some("away".into()),
    };
    w.admin(&gateway.addr).post_only(&exclude, &away).await.unwrap();
    for phase in [Phase::UpdateClients, Phase::UpdateServers, Phase::Standby] {
        rotate(&w, &gateway, phase).await.unwrap();
    }
    let answer = post(&w, &gateway, &request).await.unwrap();
    assert_eq!((&answer.certificate, answer.node), (&lost.certificate, lost.node));
    is_of_now(&w, &answer);
    let new = pins(&w);
    assert!(new.len() == 1 && new != old);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_a_rotation_overtakes_is_answered_with_the_row_of_the_rotation() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let request = request(&w, &gateway, "n1.example").await;
    let joining = waiting(&w, &gateway, &request).await;
    let answer = rotate(&w, &gateway, Phase::Init).await.unwrap();
    assert_eq!(answer.warning, None, "key, bundle and gateway are there");
    w.signer.late.send_replace(Late::Nothing);
    let answer = answered(joining).await.unwrap();
    assert_eq!(pins(&w).len(), 2);
    is_of_now(&w, &answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_is_never_answered_with_the_row_before_because_the_new_one_is_not_signed() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let request = request(&w, &gateway, "n1.example").await;
    w.signer.late.send_replace(Late::Bundles);
    let before = host_row(&w);
    // Straight to the log: the answer of the gateway would wait for the bundle.
    let order = Order::Rotate(Rotate {
        authority_type: AuthorityType::Host,
        target: Some(Phase::Init),
        manual: true,
        grace_period_ms: None,
        on_lagging: None,
        force: false,
        expects: None,
    });
    let admin = Principal::User("admin".parse().unwrap());
    w.executor
        .execute(w.executor.own_command(admin, order))
        .await
        .unwrap();
    w.until("the new key is in the log", |s| {
        s.types[&AuthorityType::Host].trusted().len() == 2
    })
    .await;
    assert!(host_row(&w) > before);
    assert_eq!(code(post(&w, &gateway, &request).await), Code::NotServing);
    w.signer.late.send_replace(Late::Nothing);
    w.until("the bundle of the row is signed", |s| {
        let of = &s.types[&AuthorityType::Host];
        of.bundle.as_ref().unwrap().revision >= of.row_position
    })
    .await;
    is_of_now(&w, &post(&w, &gateway, &request).await.unwrap());
}
