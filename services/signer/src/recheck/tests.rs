use super::*;
use crate::testing::{Cluster, START};

/// Changes one thing in an honest authorisation and tells what the signer says.
async fn judged(change: impl FnOnce(&mut AuthorizationGranted)) -> Result<(), Objection> {
    let cluster = Cluster::new().await;
    cluster.ask().await;
    cluster.fold.read(|state| {
        let mut granted = state.pending.values().next().unwrap().granted.clone();
        change(&mut granted);
        recheck(state, &granted, START)
    })
}

#[tokio::test]
async fn an_honest_authorisation_is_signed() {
    assert_eq!(judged(|_| {}).await, Ok(()));
}

#[tokio::test]
async fn every_dishonest_one_is_told_apart() {
    let other = domain::SpkiPin([9; 32]);
    assert_eq!(judged(|g| g.issuer = other).await, Err(Objection::Authority));
    assert_eq!(judged(|g| g.spki = other).await, Err(Objection::Key));
    assert_eq!(judged(|g| g.usage = LeafUse::Both).await, Err(Objection::Profile));
    assert_eq!(
        judged(|g| g.names = vec!["acme.cluster".parse().unwrap()]).await,
        Err(Objection::Names)
    );
    assert_eq!(
        judged(|g| g.uri = "carousel://acme.cluster/user/root".into()).await,
        Err(Objection::Uri)
    );
    assert_eq!(
        judged(|g| g.not_after = g.not_after.plus_ms(7 * MINUTE_MS)).await,
        Err(Objection::Life)
    );
    assert_eq!(judged(|g| g.not_after = START).await, Err(Objection::Life));
    assert_eq!(
        judged(|g| g.occasion = Occasion::Genesis).await,
        Err(Objection::Life)
    );
    let nobody = Principal::User("mallory".parse().unwrap());
    assert_eq!(judged(|g| g.holder = nobody).await, Err(Objection::Holder));
    assert_eq!(
        judged(|g| g.holder = Principal::Anonymous).await,
        Err(Objection::Profile)
    );
}

#[tokio::test]
async fn a_party_that_no_grant_names_gets_nothing() {
    for authority_type in [AuthorityType::User, AuthorityType::Db] {
        let external = move |g: &mut AuthorizationGranted| {
            g.holder = Principal::External("etl".into());
            g.authority_type = authority_type;
        };
        assert!(judged(external).await.is_err());
    }
}
