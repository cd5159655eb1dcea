//! What a crash, a careless administrator or an older program may leave, and what is made of it.

use std::{fs, os::unix::fs::PermissionsExt};

use domain::{
    AuthorityType, CommandId, Phase, Position, Timestamp,
    access::Uses,
    event::LeafUse,
    reconcile::{Generation, desired_of_bundle},
};
use pki::KeyPair;
use runtime::clock::{ManualClock, SharedClock};

use super::{
    credential::Credential,
    generations::{Link, Material},
    requests::{Purpose, Request},
    trust::{NotTaken, Told},
    *,
};
use crate::testing::{CLUSTER, Plane};

const HOST: AuthorityType = AuthorityType::Host;

fn clock() -> SharedClock {
    ManualClock::new(1_790_000_000_000)
}

fn open() -> (tempfile::TempDir, DataDir) {
    let temporary = tempfile::tempdir().unwrap();
    let dir = DataDir::open(&temporary.path().join("d")).unwrap();
    (temporary, dir)
}

fn identity(plane: &Plane) -> Identity {
    Identity {
        version: FORMAT_VERSION,
        node: plane.inner.node,
        cluster: CLUSTER.parse().unwrap(),
        bundle_pin: plane.inner.bundle_key.spki_pin(),
        hostname: "n1".parse().unwrap(),
    }
}

/// A generation with one certificate for both roles.
fn material(plane: &Plane, position: u64) -> Material {
    let key = KeyPair::generate();
    let der = plane.inner.leaf(&key, LeafUse::Both);
    let credential = Credential::new(&der, &key.to_pem(), Position(position)).unwrap();
    let anchors: std::collections::BTreeMap<_, _> = pki::bundle::authorities(&plane.inner.bundle())
        .map(|ca| (ca.pin(), ca))
        .collect();
    let sshd = plane.inner.sshd_certificate(Position(position));
    let generation = Generation {
        revisions: [(HOST, Position(position))].into(),
        trusted: [(HOST, anchors.keys().copied().collect())].into(),
        client: Some(credential.leaf.clone()),
        server: Some(credential.leaf.clone()),
        ssh: Some(sshd.leaf.clone()),
    };
    Material {
        generation,
        client: Some(credential.clone()),
        server: Some(credential),
        ssh: Some(sshd),
        anchors,
        beside: [(HOST, [("ssh_known_hosts".to_owned(), b"line".to_vec())].into())].into(),
    }
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_an_installation_leaves_a_whole_generation() {
    let plane = Plane::start(clock()).await;
    let (temporary, dir) = open();
    let (first, second) = (material(&plane, 1), material(&plane, 2));
    // After the directory, before the link: nothing is live.
    let number = dir.write_generation(&first).unwrap();
    assert!(dir.generation(Link::Current).unwrap().is_none());
    dir.point(Link::Current, number).unwrap();
    dir.point(Link::Passed, number).unwrap();
    assert_eq!(
        dir.generation(Link::Current)
            .unwrap()
            .unwrap()
            .material
            .generation,
        first.generation
    );
    // The next one, written and not pointed at: the first is live, and the number is not used again.
    let next = dir.write_generation(&second).unwrap();
    assert!(next > number);
    assert_eq!(dir.generation(Link::Current).unwrap().unwrap().number, number);
    dir.point(Link::Current, next).unwrap();
    // Half a generation and half a link of a crash are removed at the next start.
    let stray = temporary.path().join("d/generations/.9.tmp");
    fs::create_dir(&stray).unwrap();
    fs::write(stray.join("client.key"), "half").unwrap();
    std::os::unix::fs::symlink("generations/9", temporary.path().join("d/.current.tmp")).unwrap();
    drop(dir);
    let dir = DataDir::open(&temporary.path().join("d")).unwrap();
    assert!(!stray.exists() && !temporary.path().join("d/.current.tmp").exists());
    assert_eq!(
        dir.generation(Link::Current)
            .unwrap()
            .unwrap()
            .material
            .generation,
        second.generation
    );
    assert_eq!(
        dir.generation(Link::Passed).unwrap().unwrap().material.generation,
        first.generation
    );
}

#[tokio::test]
async fn a_generation_has_the_files_of_the_contract_with_keys_for_the_owner_alone() {
    let plane = Plane::start(clock()).await;
    let (temporary, dir) = open();
    let mut material = material(&plane, 1);
    let trusted = material.generation.trusted[&HOST].clone();
    material.generation.trusted.insert(AuthorityType::Db, trusted);
    let number = dir.write_generation(&material).unwrap();
    dir.point(Link::Current, number).unwrap();
    let current = temporary.path().join("d/current");
    for file in [
        "client.crt",
        "client.key",
        "server.crt",
        "server.key",
        "trust.pem",
        "ssh_known_hosts",
        "db/trust.pem",
        "manifest.json",
    ] {
        let mode = fs::metadata(current.join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
    for directory in ["", "db"] {
        assert_eq!(
            fs::metadata(current.join(directory))
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o700
        );
    }
    // A generation that differs in its revision alone shares every other file.
    material.generation.revisions.insert(HOST, Position(7));
    let number = dir.write_generation(&material).unwrap();
    use std::os::unix::fs::MetadataExt;
    let inode = |path: &str| fs::metadata(temporary.path().join("d").join(path)).unwrap().ino();
    assert_eq!(
        inode("current/client.key"),
        inode(&format!("generations/{number}/client.key"))
    );
}

#[tokio::test]
async fn old_generations_go_and_those_that_are_pointed_at_stay() {
    let plane = Plane::start(clock()).await;
    let (_temporary, dir) = open();
    let material = material(&plane, 1);
    let numbers: Vec<_> = (0..6).map(|_| dir.write_generation(&material).unwrap()).collect();
    dir.point(Link::Passed, numbers[0]).unwrap();
    dir.point(Link::Current, numbers[5]).unwrap();
    dir.prune_generations();
    let is_there = |n: u64| dir.root().join("generations").join(n.to_string()).exists();
    assert_eq!(
        numbers.iter().map(|n| is_there(*n)).collect::<Vec<_>>(),
        [true, false, false, true, true, true]
    );
}

#[tokio::test]
async fn a_damaged_generation_is_said_and_one_readable_by_others_is_refused() {
    let plane = Plane::start(clock()).await;
    let (temporary, dir) = open();
    let number = dir.write_generation(&material(&plane, 1)).unwrap();
    dir.point(Link::Current, number).unwrap();
    let file = |name: &str| temporary.path().join("d/current").join(name);
    fs::set_permissions(file("client.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = dir.generation(Link::Current).unwrap_err();
    assert!(exposed.to_string().contains("chmod 600"), "{exposed}");
    fs::set_permissions(file("client.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(file("client.crt"), "cut short").unwrap();
    assert!(matches!(
        dir.generation(Link::Current),
        Err(DiskError::Damaged { .. })
    ));
    fs::remove_file(file("manifest.json")).unwrap();
    assert!(matches!(
        dir.generation(Link::Current),
        Err(DiskError::Damaged { .. })
    ));
}

#[test]
fn two_agents_never_share_a_directory_and_the_lock_ends_with_the_first() {
    let (temporary, dir) = open();
    let root = temporary.path().join("d");
    assert!(is_in_use(&root));
    assert!(matches!(DataDir::open(&root), Err(DiskError::Locked(_))));
    // As a child has it that was forked and whose program has not started yet.
    let inherited = dir._lock.as_ref().unwrap().0.try_clone().unwrap();
    drop(dir);
    assert!(!is_in_use(&root));
    DataDir::open(&root).unwrap();
    drop(inherited);
}

#[test]
fn an_agent_that_starts_while_somebody_looks_at_its_directory_waits_for_them() {
    let (temporary, dir) = open();
    let root = temporary.path().join("d");
    drop(dir);
    let mut looking = Some(Lock::take(&root, || unreachable!("nobody holds it")).unwrap());
    Lock::take(&root, || drop(looking.take())).unwrap();
}

#[test]
fn a_directory_of_a_newer_version_or_that_others_can_change_is_refused_in_words() {
    let (temporary, dir) = open();
    drop(dir);
    let root = temporary.path().join("d");
    let path = root.join("agent.json");
    fs::write(&path, r#"{"version":99,"what":"ever"}"#).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let newer = DataDir::open(&root).unwrap_err().to_string();
    assert!(
        newer.contains("format version 99") && newer.contains("newer agent"),
        "{newer}"
    );
    fs::write(&path, r#"{"version":1,"node":"secret"#).unwrap();
    let damaged = DataDir::open(&root).unwrap().identity().unwrap_err().to_string();
    assert!(
        damaged.contains("damaged") && !damaged.contains("secret"),
        "{damaged}"
    );
    fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
    let exposed = DataDir::open(&root).unwrap_err().to_string();
    assert!(exposed.contains("chmod 700"), "{exposed}");
}

#[tokio::test]
async fn a_request_is_found_again_with_its_key_and_its_answer_and_a_damaged_one_is_passed_over() {
    let plane = Plane::start(clock()).await;
    let (temporary, dir) = open();
    let purpose = Purpose::Row {
        usage: LeafUse::Client,
        issuer: plane.active(),
    };
    let mut request = Request::new(purpose.clone(), CommandId(uuid::Uuid::from_u128(3)), Timestamp(5));
    dir.keep_request(&request).unwrap();
    let found = dir.requests().unwrap().remove(0);
    assert_eq!(
        (&found.purpose, found.spki, &found.csr),
        (&purpose, request.spki, &request.csr)
    );
    assert_eq!(found.in_flight().map(|f| f.spki), Some(request.spki));
    let key = KeyPair::from_pkcs8_pem(&request.key).unwrap();
    let pem = pki::pem::encode("CERTIFICATE", &plane.inner.leaf(&key, LeafUse::Client));
    assert!(
        request
            .answer(
                &pki::pem::encode(
                    "CERTIFICATE",
                    &plane.inner.leaf(&KeyPair::generate(), LeafUse::Client)
                ),
                Position(1)
            )
            .is_err()
    );
    request.answer(&pem, Position(9)).unwrap();
    dir.keep_request(&request).unwrap();
    let found = dir.requests().unwrap().remove(0);
    assert_eq!(found.received.map(|c| c.leaf.position), Some(Position(9)));
    assert!(!format!("{request:?}").contains("PRIVATE"));
    let other = temporary.path().join("d/keys/00.json");
    fs::write(&other, r#"{"version":1"#).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(dir.requests().unwrap().len(), 1);
    dir.forget_request(&request.spki).unwrap();
    dir.forget_request(&request.spki).unwrap();
    assert_eq!(dir.requests().unwrap().len(), 0);
}

#[tokio::test]
async fn what_was_told_is_applied_together_or_not_at_all_and_never_goes_back() {
    let plane = Plane::start(clock()).await;
    let (identity, now) = (identity(&plane), Timestamp(clock().now_ms()));
    let first = plane.inner.update();
    let told = Told::offered(None, &identity, &first.desired, &first.bundles, now).unwrap();
    plane.enter(Phase::Init);
    let second = plane.inner.update();
    // A row without its bundle, and a row that its bundle does not say.
    let unsigned = Told::offered(Some(&told), &identity, &second.desired, &first.bundles, now);
    assert!(matches!(unsigned, Err(NotTaken::Unsigned { .. })));
    let mut forged = second.desired.clone();
    forged.authorities.get_mut(&HOST).unwrap().client_issuer = Some(SpkiPin([1; 32]));
    let disagrees = Told::offered(Some(&told), &identity, &forged, &second.bundles, now);
    assert!(matches!(disagrees, Err(NotTaken::Disagrees { .. })));
    let newer = Told::offered(Some(&told), &identity, &second.desired, &second.bundles, now).unwrap();
    assert_eq!(newer.desired, second.desired);
    // A genuine bundle without its row is left alone: after a start it would be a row of a type that nobody granted.
    let mut unnamed = second.desired.clone();
    unnamed.authorities.clear();
    let alone = Told::offered(None, &identity, &unnamed, &second.bundles, now).unwrap();
    assert!(alone.bundles.is_empty() && alone.desired.authorities.is_empty());
    let alone = Told::offered(Some(&told), &identity, &unnamed, &second.bundles, now).unwrap();
    assert_eq!(
        (&alone.bundles, &alone.desired.authorities),
        (&told.bundles, &told.desired.authorities)
    );
    // An earlier document is never taken again, whoever sends it.
    let older = Told::offered(Some(&newer), &identity, &first.desired, &first.bundles, now);
    assert!(matches!(older, Err(NotTaken::Older { .. })));
    assert!(matches!(
        newer.with_bundle(&identity, HOST, &first.bundles[&HOST], now),
        Err(NotTaken::Older { .. })
    ));
    // Nor one that another key signed, or that has expired.
    let mut stranger = identity.clone();
    stranger.bundle_pin = SpkiPin([2; 32]);
    assert!(matches!(
        told.with_bundle(&stranger, HOST, &second.bundles[&HOST], now),
        Err(NotTaken::Bundle(_))
    ));
    let late = now.plus_ms(3 * domain::time::DAY_MS);
    assert!(matches!(
        told.with_bundle(&identity, HOST, &second.bundles[&HOST], late),
        Err(NotTaken::Bundle(_))
    ));
}

#[tokio::test]
async fn a_crash_between_bundle_and_desired_state_leaves_the_row_of_the_bundle() {
    let plane = Plane::start(clock()).await;
    let (_temporary, dir) = open();
    let (identity, now) = (identity(&plane), Timestamp(clock().now_ms()));
    let first = plane.inner.update();
    let told = Told::offered(None, &identity, &first.desired, &first.bundles, now).unwrap();
    dir.keep_told(&told, None).unwrap();
    assert_eq!(dir.told(&identity).unwrap(), Some(told.clone()));
    plane.enter(Phase::Init);
    let bundle_only = told
        .with_bundle(&identity, HOST, &plane.inner.signed(), now)
        .unwrap();
    // Only the bundle reached the disk.
    let half = Told {
        desired: told.desired.clone(),
        ..bundle_only.clone()
    };
    dir.keep_told(&half, Some(&told)).unwrap();
    let found = dir.told(&identity).unwrap().unwrap();
    assert_eq!(found.desired.authorities, bundle_only.desired.authorities);
    let expected = desired_of_bundle(
        &plane.inner.bundle(),
        Uses::ALL,
        told.desired.authorities.get(&HOST),
    );
    assert_eq!(found.desired.authorities[&HOST], expected);
    // A file that somebody else wrote does not verify and is not believed.
    let mut stranger = identity.clone();
    stranger.bundle_pin = SpkiPin([2; 32]);
    assert!(matches!(dir.told(&stranger), Err(DiskError::Damaged { .. })));
    dir.forget_told().unwrap();
    assert_eq!(dir.told(&identity).unwrap(), None);
}

#[tokio::test]
async fn a_generation_is_whole_without_the_certificate_of_sshd() {
    let plane = Plane::start(clock()).await;
    let (temporary, dir) = open();
    let written = material(&plane, 1);
    let number = dir.write_generation(&written).unwrap();
    dir.point(Link::Current, number).unwrap();
    let file = temporary.path().join("d/current/ssh_host_key-cert.pub");
    let read = || dir.generation(Link::Current).unwrap().unwrap().material;
    assert_eq!(read().generation, written.generation);
    for damage in [Some("nonsense"), None] {
        match damage {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        let found = read();
        assert_eq!((found.ssh, found.generation.ssh), (None, None));
        assert_eq!(found.generation.client, written.generation.client);
    }
}
