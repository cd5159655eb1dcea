//! Whoever asked and has gone.

use super::*;

/// A join of `web-1` with the token that is seven throughout.
pub(super) fn joining(w: &World) -> Command {
    let join = Join {
        token: TokenHash([7; 32]),
        hostname: "web-1".parse().unwrap(),
        key: KeyRequest {
            spki: SpkiPin([8; 32]),
            public_key: String::new(),
        },
        rejoin: None,
    };
    w.executor.own_command(Principal::Anonymous, Order::Join(join))
}

#[tokio::test]
async fn a_join_that_nobody_waits_for_any_more_is_not_decided() {
    let w = world().await;
    let admin = Principal::User("admin".parse().unwrap());
    let grant = || Grant {
        names: vec![NamePattern::Exact("web-1".parse().unwrap())],
        addresses: vec![],
        uses: BTreeMap::from([(AuthorityType::Host, Uses::ALL)]),
    };
    let token = |hash| {
        let order = Order::CreateToken {
            hash: TokenHash([hash; 32]),
            grant: grant(),
            uses: 1,
            ttl_ms: 60_000,
        };
        w.executor.execute(w.executor.own_command(admin.clone(), order))
    };
    token(7).await.unwrap();
    let join = joining(&w);
    let mut asked = Box::pin(w.executor.execute(join.clone()));
    assert!(futures::poll!(&mut asked).is_pending());
    drop(asked);
    token(8).await.unwrap();
    assert_eq!(w.fold.read(|s| s.nodes.len()), 0);
    // It was never decided, so it may be asked again under the same id.
    w.executor.execute(join).await.unwrap();
    assert_eq!(w.fold.read(|s| s.nodes.len()), 1);
}
