use domain::{AuthorityType, Phase, authority::KeyKind, event::Fact, owed};
use execution::codec;
use pki::Certificate;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::testing::{Cluster, START};

/// A signer at work, stopped on drop.
async fn at_work(cluster: &Cluster) -> (CancellationToken, JoinSet<Result<(), SignerError>>) {
    let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
    tasks.spawn(cluster.signer().await.unwrap().run(stop.clone()));
    (stop, tasks)
}

async fn facts(cluster: &Cluster) -> Vec<Fact> {
    let records = cluster.log.read(1, 1_000).await.unwrap();
    records.iter().map(|r| codec::decode(r).unwrap().fact).collect()
}

#[tokio::test]
async fn after_the_genesis_every_type_gets_a_bundle_that_the_pinned_key_signed() {
    let cluster = Cluster::new().await;
    let _work = at_work(&cluster).await;
    cluster
        .until("all bundles", |s| s.types.values().all(|t| t.bundle.is_some()))
        .await;
    let pin = cluster.founded.bundle_pin;
    let mut seen = 0;
    for fact in facts(&cluster).await {
        if let Fact::AuthorityBundleSigned(f) = fact {
            let content = pki::bundle::verify(&f.bundle, &pin, START, None, f.authority_type).unwrap();
            assert_eq!(content.revision, f.revision);
            seen += 1;
        }
    }
    assert_eq!(seen, cluster.fold.read(|s| s.types.len()));
    // The bundle that `init` put into the identity describes the same row.
    let first = pki::bundle::verify(&cluster.founded.bundle, &pin, START, None, AuthorityType::Host).unwrap();
    assert_eq!(
        Some(first.revision),
        cluster
            .fold
            .read(|s| s.types[&AuthorityType::Host].bundle.as_ref().map(|b| b.revision))
    );
}

#[tokio::test]
async fn a_rotation_gets_its_key_and_the_key_of_the_loser_is_destroyed() {
    let cluster = Cluster::new().await;
    let (stop, mut work) = at_work(&cluster).await;
    let t = AuthorityType::SamlIdp;
    for (phases, outcome) in [
        (vec![Phase::Init, Phase::Rollback, Phase::Standby], "rolled back"),
        (
            vec![
                Phase::Init,
                Phase::UpdateClients,
                Phase::UpdateServers,
                Phase::Standby,
            ],
            "completed",
        ),
    ] {
        let before = cluster.fold.read(|s| s.types[&t].active[&KeyKind::Tls].id);
        let mut prepared = None;
        for phase in phases {
            cluster.rotate(t, phase).await;
            if phase == Phase::Init {
                cluster
                    .until("the new key", |s| s.types[&t].prepared_is_complete())
                    .await;
                prepared = cluster
                    .fold
                    .read(|s| s.types[&t].prepared.get(&KeyKind::Tls).map(|k| k.id));
            }
        }
        cluster
            .until("nothing is owed", |s| owed(s, START).is_empty())
            .await;
        let prepared = prepared.unwrap();
        let (stays, goes) = if outcome == "completed" {
            (prepared, before)
        } else {
            (before, prepared)
        };
        let store = Stores::open(&cluster.keys()).unwrap();
        assert!(store.signer(&stays).is_ok(), "{outcome}");
        assert!(
            matches!(store.signer(&goes), Err(KeyStoreError::Unknown(_))),
            "{outcome}"
        );
        let destroyed = facts(&cluster).await.into_iter().any(|f| match f {
            Fact::AuthorityDestroyed(f) => f.authority == goes && f.stores == ["files"],
            _ => false,
        });
        assert!(destroyed, "{outcome}");
    }
    stop.cancel();
    work.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_certificate_is_signed_exactly_as_authorised_and_recorded_once() {
    let cluster = Cluster::new().await;
    let key = cluster.ask().await;
    // Two signers on one log: a standby that woke up too early, or a process that was not dead after all.
    let one = at_work(&cluster).await;
    let two = at_work(&cluster).await;
    cluster.until("the certificate", |s| s.pending.is_empty()).await;
    cluster
        .until("nothing is owed", |s| owed(s, START).is_empty())
        .await;
    drop((one, two));
    let issued: Vec<_> = facts(&cluster)
        .await
        .into_iter()
        .filter_map(|f| {
            if let Fact::CertificateIssued(f) = f {
                Some(f)
            } else {
                None
            }
        })
        .filter(|f| f.spki == key.spki_pin())
        .collect();
    assert_eq!(issued.len(), 1, "only the first signature is recorded");
    let der =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, &issued[0].certificate).unwrap();
    let read = Certificate::parse(&der).unwrap();
    assert_eq!(read.uri.as_deref(), Some("carousel://acme.cluster/user/admin"));
    assert_eq!((read.client, read.server), (true, false));
}

#[tokio::test]
async fn lost_answers_and_lost_requests_of_the_log_change_nothing() {
    use eventlog::{Fault, MemoryLog};
    let log = MemoryLog::new();
    let cluster = Cluster::on(Arc::new(log.clone())).await;
    let key = cluster.ask().await;
    for fault in [Fault::LostAnswer, Fault::LostRequest, Fault::LostAnswer] {
        log.inject(fault);
    }
    let _work = at_work(&cluster).await;
    cluster
        .until("nothing is owed", |s| owed(s, START).is_empty())
        .await;
    let facts = facts(&cluster).await;
    let of_key = |f: &&Fact| matches!(f, Fact::CertificateIssued(f) if f.spki == key.spki_pin());
    assert_eq!(facts.iter().filter(of_key).count(), 1);
    let bundles = facts
        .iter()
        .filter(|f| matches!(f, Fact::AuthorityBundleSigned(_)))
        .count();
    assert_eq!(
        bundles,
        cluster.fold.read(|s| s.types.len()),
        "each is signed once"
    );
}

#[tokio::test]
async fn an_authorisation_that_nobody_decided_is_refused_in_the_log() {
    let cluster = Cluster::new().await;
    let key = KeyPair::generate();
    cluster.ask().await;
    // Whoever can write the log writes an authorisation for a gateway that is no member.
    let mut granted = cluster
        .fold
        .read(|s| s.pending.values().next().unwrap().granted.clone());
    granted.authorization = domain::AuthorizationId(uuid::Uuid::from_u128(7));
    granted.holder = domain::Principal::Gateway(domain::MemberId(uuid::Uuid::from_u128(66)));
    granted.authority_type = AuthorityType::Host;
    granted.issuer = cluster
        .fold
        .read(|s| s.types[&AuthorityType::Host].client_issuer().unwrap());
    (granted.spki, granted.public_key) = (key.spki_pin(), key.public().to_base64());
    granted.uri = "carousel://acme.cluster/gateway/00000000-0000-0000-0000-000000000042".into();
    let writer = FactWriter::signer(cluster.fold.clone());
    let name = "acme.cluster".parse().unwrap();
    writer
        .append(&name, &[granted.into()], START, execution::Expected::AsFolded)
        .await
        .unwrap();
    let _work = at_work(&cluster).await;
    cluster.until("both answers", |s| s.pending.is_empty()).await;
    let refused = facts(&cluster).await.into_iter().any(|f| match f {
        Fact::CertificateRefused(f) => f.why.contains("unknown or was removed"),
        _ => false,
    });
    assert!(refused);
}

#[tokio::test]
async fn a_key_that_a_crash_left_out_of_the_log_is_taken_up_again() {
    let cluster = Cluster::new().await;
    let t = AuthorityType::Db;
    cluster.rotate(t, Phase::Init).await;
    let rotation = cluster.fold.read(|s| s.types[&t].rotation_id());
    let purpose = crate::keystore::KeyPurpose {
        cluster: "acme.cluster".parse().unwrap(),
        authority_type: t,
        kind: KeyKind::Tls,
        generation: 2,
        rotation,
    };
    // The process died between the store and the log.
    let (orphan, _) = Stores::open(&cluster.keys()).unwrap().make(&purpose).unwrap();
    let _work = at_work(&cluster).await;
    cluster
        .until("the new key", |s| s.types[&t].prepared_is_complete())
        .await;
    assert_eq!(
        cluster.fold.read(|s| s.types[&t].prepared[&KeyKind::Tls].id),
        orphan
    );
}

#[tokio::test]
async fn a_key_for_a_rotation_that_ended_before_the_log_named_it_is_destroyed() {
    let cluster = Cluster::new().await;
    let store = Stores::open(&cluster.keys()).unwrap();
    let purpose = crate::keystore::KeyPurpose {
        cluster: "acme.cluster".parse().unwrap(),
        authority_type: AuthorityType::Db,
        kind: KeyKind::Tls,
        generation: 2,
        rotation: Some(RotationId(uuid::Uuid::from_u128(5))),
    };
    store.make(&purpose).unwrap();
    let in_the_log = cluster
        .fold
        .read(|s| s.types.values().map(|of| of.active.len()).sum::<usize>());
    cluster.signer().await.unwrap().sweep().await.unwrap();
    let left = store.keys().unwrap();
    assert_eq!(left.len(), in_the_log, "and no key of the log is touched");
    assert!(
        left.iter()
            .all(|(id, _)| cluster.fold.read(|s| s.keys.contains_key(id)))
    );
}

#[tokio::test]
async fn a_key_for_a_rotation_that_turned_back_before_the_log_named_it_is_destroyed_at_once() {
    let cluster = Cluster::new().await;
    let t = AuthorityType::Db;
    cluster.rotate(t, Phase::Init).await;
    let purpose = crate::keystore::KeyPurpose {
        cluster: "acme.cluster".parse().unwrap(),
        authority_type: t,
        kind: KeyKind::Tls,
        generation: 2,
        rotation: cluster.fold.read(|s| s.types[&t].rotation_id()),
    };
    let store = Stores::open(&cluster.keys()).unwrap();
    let (orphan, _) = store.make(&purpose).unwrap();
    let signer = cluster.signer().await.unwrap();
    signer.sweep().await.unwrap();
    assert!(store.signer(&orphan).is_ok(), "it still may be taken up");
    cluster.rotate(t, Phase::Rollback).await;
    signer.sweep().await.unwrap();
    assert!(
        matches!(store.signer(&orphan), Err(KeyStoreError::Unknown(_))),
        "not only when the rotation ends"
    );
}

#[tokio::test]
async fn a_missing_key_keeps_authorisations_waiting_and_bundles_are_signed_all_the_same() {
    let cluster = Cluster::new().await;
    cluster.ask().await;
    let user = cluster
        .fold
        .read(|s| s.types[&AuthorityType::User].client_issuer().unwrap());
    Stores::open(&cluster.keys()).unwrap().destroy(&user).unwrap();
    let _work = at_work(&cluster).await;
    cluster
        .until("all bundles", |s| s.types.values().all(|t| t.bundle.is_some()))
        .await;
    assert_eq!(
        cluster.fold.read(|s| s.pending.len()),
        1,
        "it is not refused: the signer is at fault"
    );
}

#[tokio::test]
async fn keys_of_another_cluster_do_not_sign_this_log() {
    let (one, two) = (Cluster::new().await, Cluster::new().await);
    let part = runtime::readiness::Readiness::new().part("signer", "its start");
    let config = Config { key_dir: two.keys() };
    let opened = Signer::open(
        config,
        one.fold.clone(),
        one.now.clone(),
        Metrics::new("test"),
        part,
    )
    .await;
    assert!(matches!(opened, Err(SignerError::OtherCluster { .. })));
}

#[tokio::test]
async fn what_waits_for_a_lost_key_does_not_keep_the_next_authority_waiting() {
    let cluster = Cluster::new().await;
    let row = |s: &domain::ClusterState| s.types[&AuthorityType::User].client_issuer().unwrap();
    let lost = cluster.fold.read(row);
    // More than are signed at once, all of them older than what comes after.
    for _ in 0..=crate::signing::BATCH {
        cluster.ask().await;
    }
    Stores::open(&cluster.keys()).unwrap().destroy(&lost).unwrap();
    let _work = at_work(&cluster).await;
    cluster.rotate(AuthorityType::User, Phase::Init).await;
    cluster
        .until("the new keys", |s| {
            s.types[&AuthorityType::User].prepared_is_complete()
        })
        .await;
    cluster.rotate(AuthorityType::User, Phase::UpdateClients).await;
    let key = cluster.ask().await.spki_pin();
    cluster
        .until("a certificate of the new key", |s| {
            s.certificates.values().any(|c| c.spki == key && c.issuer != lost)
        })
        .await;
}
