//! Commands as a whole: what makes two of them the same.

use api::{
    command::{CommandAnswer, PlainRequest},
    route,
};
use domain::{AuthorityType, Code, Phase};

use super::{code, join, rotate};
use crate::testing::World;

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
