use domain::{Phase, SpkiPin, authority::KeyKind};

use super::*;
use crate::testing::{Cluster, START};

/// Changes one thing in an honest authorisation and tells what the signer says.
async fn judged(change: impl FnOnce(&mut AuthorizationGranted)) -> Result<(), Objection> {
    let cluster = Cluster::new().await;
    cluster.ask().await;
    judge(&cluster, |pending| change(&mut pending.granted))
}

fn judge(cluster: &Cluster, change: impl FnOnce(&mut Pending)) -> Result<(), Objection> {
    cluster.fold.read(|state| {
        let mut pending = state.pending.values().next().unwrap().clone();
        change(&mut pending);
        recheck(state, &pending, START)
    })
}

/// A rotation of `user`, its new key in the log, and the authority that the row names no more.
async fn clients_updated(cluster: &Cluster) -> (SpkiPin, SpkiPin) {
    let t = AuthorityType::User;
    cluster.rotate(t, Phase::Init).await;
    cluster.make_key(t).await;
    cluster.rotate(t, Phase::UpdateClients).await;
    cluster.fold.read(|state| {
        let of = &state.types[&t];
        (of.active[&KeyKind::Tls].id, of.prepared[&KeyKind::Tls].id)
    })
}

#[tokio::test]
async fn an_honest_authorisation_is_signed() {
    assert_eq!(judged(|_| {}).await, Ok(()));
}

#[tokio::test]
async fn every_dishonest_one_is_told_apart() {
    let other = SpkiPin([9; 32]);
    assert_eq!(judged(|g| g.issuer = other).await, Err(Objection::Authority));
    assert_eq!(judged(|g| g.spki = other).await, Err(Objection::Key));
    let bundle_key = |state: &ClusterState| state.cluster.as_ref().unwrap().bundle_key;
    assert_eq!(
        with_a_key_that_is(bundle_key).await,
        Err(Objection::Key),
        "the bundle key is nobody's leaf key"
    );
    assert_eq!(judged(|g| g.usage = LeafUse::Both).await, Err(Objection::Profile));
    assert_eq!(
        judged(|g| g.names = vec!["acme.cluster".parse().unwrap()]).await,
        Err(Objection::Names)
    );
    assert_eq!(
        judged(|g| g.common_name = "postgres".into()).await,
        Err(Objection::CommonName)
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

/// An authorisation for a key of the cluster's own, which the fold would take for the holder's.
async fn with_a_key_that_is(which: impl FnOnce(&ClusterState) -> SpkiPin) -> Result<(), Objection> {
    let cluster = Cluster::new().await;
    cluster.ask().await;
    cluster.fold.read(|state| {
        let mut state = state.clone();
        let mut pending = state.pending.values().next().unwrap().clone();
        pending.granted.spki = which(&state);
        state
            .keys
            .insert(pending.granted.spki, pending.granted.holder.clone());
        recheck(&state, &pending, START)
    })
}

#[tokio::test]
async fn the_row_is_that_of_the_log_and_not_what_an_authorisation_says() {
    let cluster = Cluster::new().await;
    let (old, new) = clients_updated(&cluster).await;
    cluster.ask().await;
    assert_eq!(judge(&cluster, |_| {}), Ok(()));
    // An old phase names the old authority; so it would get it, and the rotation's end would wait for it.
    let back = |p: &mut Pending| {
        (p.granted.phase, p.granted.rotation, p.granted.issuer) = (Phase::Standby, None, old);
    };
    assert_eq!(judge(&cluster, back), Err(Objection::Row));
    assert_eq!(
        judge(&cluster, |p| p.granted.issuer = old),
        Err(Objection::Phase),
        "neither row names it"
    );
    assert_eq!(judge(&cluster, |p| p.granted.issuer = new), Ok(()));
}

#[tokio::test]
async fn a_node_gets_what_a_row_gave_it_although_the_row_has_changed() {
    let cluster = Cluster::new().await;
    let (old, _) = clients_updated(&cluster).await;
    cluster.ask().await;
    cluster.fold.read(|state| {
        let of = &state.types[&AuthorityType::User];
        let mut pending = state.pending.values().next().unwrap().clone();
        pending.granted.holder = Principal::Node(domain::NodeId(uuid::Uuid::from_u128(1)));
        // Decided and recorded before the rotation, signed after two of its phases.
        let granted = &mut pending.granted;
        (granted.phase, granted.rotation, granted.issuer) = (Phase::Standby, None, old);
        (pending.row.phase, pending.row.rotation, pending.row.client) = (Phase::Standby, None, Some(old));
        assert_eq!(check_row(of, &pending), Ok(()), "its agent throws it away");
        pending.granted.issuer = SpkiPin([9; 32]);
        assert_eq!(check_row(of, &pending), Err(Objection::Phase));
    });
}

#[tokio::test]
async fn a_person_gets_nothing_from_an_authority_that_the_row_names_no_more() {
    let cluster = Cluster::new().await;
    clients_updated(&cluster).await;
    cluster.ask().await;
    cluster.rotate(AuthorityType::User, Phase::Rollback).await;
    assert_eq!(judge(&cluster, |_| {}), Err(Objection::Phase));
}
