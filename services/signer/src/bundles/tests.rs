use std::sync::Arc;

use domain::{
    Phase, SpkiPin, Timestamp,
    authority::KeyKind,
    decide::certificates::revoke::MAX_REVOKED,
    event::AuthorityKeyGenerated,
    id::{CertDigest, Serial},
    state::TypeState,
    trust::Denied,
};
use execution::FactWriter;
use pki::KeyPair;

use super::*;
use crate::{
    FileStore, KeyStore,
    founding::public_half,
    keystore::KeyPurpose,
    testing::{Cluster, START},
};

const DB: AuthorityType = AuthorityType::Db;

fn due(cluster: &Cluster) -> Duty {
    due_at(cluster, START).expect("a bundle is owed")
}

fn due_at(cluster: &Cluster, now: Timestamp) -> Option<Duty> {
    let is_it = |duty: &Duty| {
        matches!(
            duty,
            Duty::SignBundle {
                authority_type: DB,
                ..
            }
        )
    };
    let owed = cluster.fold.read(|state| domain::owed(state, now));
    owed.into_iter().find(is_it)
}

fn signed_phase(cluster: &Cluster) -> Option<Phase> {
    cluster
        .fold
        .read(|state| state.types[&DB].bundle.as_ref().map(|head| head.phase))
}

/// Whoever can write the log gives the rotation a key of their own before the signer does.
async fn forge_key(cluster: &Cluster) -> SpkiPin {
    let (rotation, key) = (
        cluster.fold.read(|s| s.types[&DB].rotation_id()),
        KeyPair::generate(),
    );
    let name = "acme.cluster".parse().unwrap();
    let purpose = KeyPurpose {
        cluster: "acme.cluster".parse().unwrap(),
        authority_type: DB,
        kind: KeyKind::Tls,
        generation: 2,
        rotation,
    };
    let (key, _) = public_half(&purpose, &key, START).unwrap();
    let id = key.id;
    let fact = AuthorityKeyGenerated {
        authority_type: DB,
        key,
    };
    let writer = FactWriter::signer(cluster.fold.clone());
    writer
        .append(&name, &[fact.into()], START, Expected::AsFolded)
        .await
        .unwrap();
    cluster
        .until("the forged key", |s| s.types[&DB].prepared_is_complete())
        .await;
    id
}

#[tokio::test]
async fn an_authority_whose_key_the_signer_never_made_is_vouched_for_in_no_bundle() {
    let cluster = Cluster::new().await;
    let signer = cluster.signer().await.unwrap();
    signer.sign_bundle(&due(&cluster), DB).await.unwrap();
    assert_eq!(signed_phase(&cluster), Some(Phase::Standby));
    cluster.rotate(DB, Phase::Init).await;
    let foreign = forge_key(&cluster).await;
    let end = cluster.fold.position();
    let done = signer.sign_bundle(&due(&cluster), DB).await.unwrap();
    assert_eq!(
        done,
        Progress::None,
        "it is no error that keeps the signer from its work"
    );
    assert_eq!(cluster.fold.position(), end, "nothing is recorded");
    let gauge = signer
        .metrics
        .gauge("carousel_signer_bundle_refused", &[DB.name()]);
    assert_eq!(gauge.get(), 1, "it is an alarm");
    let content = cluster
        .fold
        .read(|state| bundle_content(state, DB, START).unwrap());
    assert_eq!(signer.foreign(&content).await.unwrap(), Some(foreign));
}

#[tokio::test]
async fn a_lost_key_that_an_earlier_bundle_lists_can_still_be_rotated_away() {
    let cluster = Cluster::new().await;
    let signer = cluster.signer().await.unwrap();
    cluster.rotate(DB, Phase::Init).await;
    cluster.make_key(DB).await;
    signer.sign_bundle(&due(&cluster), DB).await.unwrap();
    let prepared = cluster.fold.read(|s| s.types[&DB].prepared[&KeyKind::Tls].id);
    FileStore::open(&cluster.keys())
        .unwrap()
        .destroy(&prepared)
        .unwrap();
    cluster.rotate(DB, Phase::Rollback).await;
    signer.sign_bundle(&due(&cluster), DB).await.unwrap();
    assert_eq!(signed_phase(&cluster), Some(Phase::Rollback));
}

fn lists(cluster: &Cluster) -> BTreeSet<AuthorityId> {
    let of_head = |of: &TypeState| of.bundle.as_ref().map(|head| head.lists.clone());
    cluster
        .fold
        .read(|state| of_head(&state.types[&DB]))
        .unwrap_or_default()
}

#[tokio::test]
async fn an_authority_whose_key_was_away_gets_its_revocation_list_once_it_is_back_and_nothing_is_signed_before()
 {
    let mut cluster = Cluster::new().await;
    let active = cluster.fold.read(|s| s.types[&DB].active[&KeyKind::Tls].id);
    let name = active.to_string().replace(':', "-");
    let file = cluster.keys().join(format!("{name}.sealed"));
    std::fs::rename(&file, file.with_extension("away")).unwrap();
    cluster.rotate(DB, Phase::Init).await;
    cluster.make_key(DB).await;
    let prepared = cluster.fold.read(|s| s.types[&DB].prepared[&KeyKind::Tls].id);
    let signer = cluster.signer().await.unwrap();
    signer.sign_bundle(&due(&cluster), DB).await.unwrap();
    assert_eq!(lists(&cluster), [prepared].into());

    let later = START.plus_ms(LIST_AFTER_MS);
    assert_eq!(due_at(&cluster, START.plus_ms(LIST_AFTER_MS - 1)), None);
    let duty = due_at(&cluster, later).expect("the list is owed");
    cluster.now = Arc::new(move || later);
    let end = cluster.fold.position();
    let signer = cluster.signer().await.unwrap();
    assert_eq!(signer.sign_bundle(&duty, DB).await.unwrap(), Progress::None);
    assert_eq!(cluster.fold.position(), end, "no reader is woken for nothing");

    std::fs::rename(file.with_extension("away"), &file).unwrap();
    // It is asked for once a minute.
    assert_eq!(signer.sign_bundle(&duty, DB).await.unwrap(), Progress::None);
    assert_eq!(cluster.fold.position(), end);
    let signer = cluster.signer().await.unwrap();
    signer.sign_bundle(&duty, DB).await.unwrap();
    assert_eq!(lists(&cluster), [active, prepared].into());
    assert_eq!(due_at(&cluster, later.plus_ms(LIST_AFTER_MS)), None);
}

/// One of so many.
fn denied(n: u32) -> Denied {
    Denied {
        serial: Serial([0x41; 16]),
        digest: CertDigest([n as u8; 32]),
        not_after: Timestamp(START.0 + 1),
    }
}

#[tokio::test]
async fn all_that_may_be_revoked_by_hand_fits_a_bundle_and_leaves_room() {
    let cluster = Cluster::new().await;
    let signer = cluster.signer().await.unwrap();
    let content = cluster
        .fold
        .read(|state| bundle_content(state, DB, START).unwrap());
    let serials = (0..MAX_REVOKED as u32).map(|n| {
        let mut serial = [0xa5; 16];
        serial[1..5].copy_from_slice(&n.to_be_bytes());
        (Serial(serial), START)
    });
    let full = Bundle {
        denied: (0..MAX_REVOKED as u32).map(denied).collect(),
        ..content.clone()
    };
    let keys = cluster
        .fold
        .read(|state| state.types[&DB].active.values().cloned().collect::<Vec<_>>());
    let lists = keys
        .into_iter()
        .map(|key| (key, serials.clone().collect()))
        .collect();
    let lists = signer
        .revocation_lists(lists, content.expires, true)
        .await
        .unwrap();
    assert_eq!(lists.len(), 1);
    let bytes: usize = lists.values().map(String::len).sum();
    let weight = bundle::sign(&full, &signer.bundle_key, vec![]).document.len() * 11 / 10 + bytes;
    assert!(
        weight < MAX_EVENT_BYTES * 3 / 4,
        "{weight} bytes: whoever is removed needs room as well"
    );
}

#[tokio::test]
async fn a_bundle_that_the_log_or_its_readers_would_not_take_is_not_published() {
    let cluster = Cluster::new().await;
    let signer = cluster.signer().await.unwrap();
    let content = cluster
        .fold
        .read(|state| bundle_content(state, DB, START).unwrap());
    let judge = async |content: &Bundle| {
        let signed = bundle::sign(content, &signer.bundle_key, vec![]);
        let fact = AuthorityBundleSigned {
            revocation_lists: Default::default(),
            authority_type: DB,
            revision: content.revision,
            phase: content.phase,
            expires: content.expires,
            bundle: signed.clone(),
        };
        let append = signer
            .writer
            .prepare(&signer.cluster, &[fact.into()], START, Expected::Any);
        signer
            .judge_bundle(content, &signed, append.as_ref())
            .await
            .unwrap()
    };
    assert!(judge(&content).await.is_ok());
    let long = Bundle {
        denied: (0..4_000).map(denied).collect(),
        ..content.clone()
    };
    assert!(matches!(
        judge(&long).await,
        Err(Unfit::TooLarge { denied: 4_000, .. })
    ));
    let nobody = Bundle {
        authorities: vec![],
        ..content
    };
    assert!(matches!(
        judge(&nobody).await,
        Err(Unfit::Unusable(BundleError::NoActive))
    ));
}
