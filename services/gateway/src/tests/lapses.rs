//! The right to serve ends while something is under way: nothing is answered any more that began before.

use std::time::Duration;

use api::{
    ClientError,
    client::EventStream,
    join::{JoinAnswer, JoinRequest},
    route,
    shape::Whoami,
};
use domain::{Answer, AuthorityType, Code, Phase};
use pki::{KeyPair, csr};
use tokio::{task::JoinSet, time::timeout};

use super::{code, join, open_stream, rotate, token};
use crate::testing::{Late, Running, SOON, World};

/// A frozen process as it sees itself: its clock has gone on and nothing else has.
fn freeze(w: &World) {
    w.clock.advance(Duration::from_secs(25));
}

async fn serves_again(w: &World, gateway: &Running) {
    let asking = async {
        while w.admin(&gateway.addr).get::<Whoami>(route::WHOAMI).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, asking).await.expect("it serves again");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_stream_ends_with_the_right_to_serve() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let (node, _) = join(&w, &gateway, "n1.example").await;
    let admin = w.admin(&gateway.addr);
    let idle = Duration::from_secs(15);
    let watch = route::fill(route::WATCH, "host");
    let follow = format!("{}?after=0", route::EVENTS_FOLLOW);
    let mut streams: Vec<EventStream> = vec![
        admin.sse(&watch, idle).await.unwrap(),
        admin.sse(&follow, idle).await.unwrap(),
        open_stream(&w, &gateway, &node).await,
    ];
    for stream in &mut streams {
        assert!(stream.next().await.unwrap().is_some());
    }
    freeze(&w);
    for (which, mut stream) in streams.into_iter().enumerate() {
        let ending = async { while stream.next().await.is_ok_and(|event| event.is_some()) {} };
        timeout(SOON, ending)
            .await
            .unwrap_or_else(|_| panic!("the stream {which} goes on"));
    }
    serves_again(&w, &gateway).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_waited_through_a_lapse_is_not_answered_from_before_it() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    let request = JoinRequest {
        token: token(&w, &gateway, "n1.example").await,
        hostname: "n1.example".into(),
        csr: csr::make_pem(&KeyPair::generate()),
        rejoin: None,
    };
    w.signer.late.send_replace(Late::Nodes);
    let mut joining: JoinSet<Result<JoinAnswer, ClientError>> = JoinSet::new();
    let (stranger, asked) = (w.client(&gateway.addr, None), request.clone());
    joining.spawn(async move { stranger.post(route::JOIN, &asked).await });
    w.until("the join waits for the signer", |s| !s.pending.is_empty())
        .await;
    freeze(&w);
    serves_again(&w, &gateway).await;
    w.signer.late.send_replace(Late::Nothing);
    let answered = joining.join_next().await.unwrap().unwrap();
    assert_eq!(code(answered), Code::NotServing);
    // Asked again, with the same token and key, it gets what it was given.
    w.client(&gateway.addr, None)
        .post::<_, JoinAnswer>(route::JOIN, &request)
        .await
        .unwrap();
}

/// It is in the log: whoever were told that this gateway may not serve would take it for undone.
#[tokio::test(flavor = "multi_thread")]
async fn an_operators_command_that_was_carried_out_is_answered_through_a_lapse() {
    let w = World::new().await;
    let gateway = w.gateway().await;
    w.signer.late.send_replace(Late::Bundles);
    let lapsing = async {
        w.until("the phase is entered", |s| {
            s.types[&AuthorityType::Host].phase == Phase::Init
        })
        .await;
        freeze(&w);
        w.signer.late.send_replace(Late::Nothing);
    };
    let (answered, ()) = tokio::join!(rotate(&w, &gateway, Phase::Init), lapsing);
    let answered = answered.unwrap();
    assert!(matches!(
        answered.answer,
        Answer::Phase {
            phase: Phase::Init,
            noop: false,
            ..
        }
    ));
}
