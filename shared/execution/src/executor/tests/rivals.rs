//! Two processes that decide on one log.

use std::time::Duration;

use super::*;

const SOON: Duration = Duration::from_secs(10);

/// Each has a state of its own, which holds what the other wrote a moment later.
#[tokio::test]
async fn of_two_processes_that_spend_one_token_at_once_one_does() {
    let w = world().await;
    let fold = Fold::start(w.log.clone(), w.stop.clone()).await.unwrap();
    let suspect = Arc::new(AtomicBool::new(false));
    let rival = Executor::new(fold.clone(), Arc::new(|| NOW), suspect, w.stop.clone());
    for round in 0..50_u8 {
        let name = format!("web-{round}.example");
        let token = Order::CreateToken {
            hash: TokenHash([round; 32]),
            grant: Grant {
                names: vec![NamePattern::Exact(name.parse().unwrap())],
                addresses: vec![],
                uses: BTreeMap::from([(AuthorityType::Host, Uses::ALL)]),
            },
            uses: 1,
            ttl_ms: 60_000,
        };
        let admin = Principal::User("admin".parse().unwrap());
        let made = w.executor.own_command(admin, token);
        w.executor.execute(made).await.unwrap();
        fold.catch_up(SOON).await.unwrap();
        let join = |key: u8| {
            let join = Join {
                token: TokenHash([round; 32]),
                hostname: name.parse().unwrap(),
                key: KeyRequest {
                    spki: SpkiPin([key; 32]),
                    public_key: String::new(),
                },
                rejoin: None,
            };
            w.executor.own_command(Principal::Anonymous, Order::Join(join))
        };
        let (ours, theirs) = tokio::join!(
            w.executor.execute(join(100 + 2 * round)),
            rival.execute(join(101 + 2 * round)),
        );
        let lost = match (ours, theirs) {
            (Ok(_), Err(lost)) | (Err(lost), Ok(_)) => lost,
            both => panic!("one token, in round {round}: {both:?}"),
        };
        assert!(
            matches!(&lost, ExecuteError::Refused(refusal) if refusal.code == Code::TokenUsed),
            "{lost:?}"
        );
    }
    w.fold.catch_up(SOON).await.unwrap();
    assert_eq!(w.fold.read(|s| s.nodes.len()), 50);
}
