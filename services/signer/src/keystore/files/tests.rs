use std::os::unix::fs::PermissionsExt;

use domain::{AuthorityType, authority::KeyKind};
use pki::SealError;
use tempfile::TempDir;

use super::*;

fn store() -> (TempDir, FileStore) {
    let dir = TempDir::new().unwrap();
    let store = FileStore::create(&dir.path().join("keys"), &cluster(), &KekSource::default()).unwrap();
    (dir, store)
}

fn cluster() -> ClusterName {
    "acme.cluster".parse().unwrap()
}

fn purpose() -> KeyPurpose {
    KeyPurpose {
        cluster: cluster(),
        authority_type: AuthorityType::Host,
        kind: KeyKind::Tls,
        generation: 2,
        rotation: None,
    }
}

#[test]
fn a_key_outlives_the_process_and_signs_as_before() {
    let (dir, store) = store();
    let (id, signer) = store.make(&purpose()).unwrap();
    drop(store);
    let again = FileStore::open(&dir.path().join("keys")).unwrap();
    assert_eq!(again.signer(&id).unwrap().public_key(), signer.public_key());
    assert_eq!(again.keys().unwrap(), [(id, purpose())]);
}

#[test]
fn a_destroyed_key_is_gone_and_destroying_it_again_is_fine() {
    let (_dir, store) = store();
    let (id, _) = store.make(&purpose()).unwrap();
    store.destroy(&id).unwrap();
    store.destroy(&id).unwrap();
    assert!(matches!(store.signer(&id), Err(KeyStoreError::Unknown(gone)) if gone == id));
    assert_eq!(store.keys().unwrap(), []);
    assert!(
        fs::read_dir(&store.dir)
            .unwrap()
            .all(|f| !f.unwrap().path().ends_with("tmp"))
    );
}

#[test]
fn a_crash_while_a_key_is_destroyed_leaves_a_store_that_opens() {
    let (dir, store) = store();
    let (kept, _) = store.make(&purpose()).unwrap();
    let (id, _) = store.make(&purpose()).unwrap();
    // Moved out of the way and overwritten, then the process died: no file of a key's name is damaged.
    let doomed = store.doomed(&id);
    fs::rename(store.path_of(&id), &doomed).unwrap();
    overwrite(&doomed, 100).unwrap();
    assert_eq!(store.keys().unwrap(), [(kept, purpose())]);
    // The same process does the duty again; or the next start finds the rest.
    store.destroy(&id).unwrap();
    assert!(!doomed.exists(), "destroying it again finishes the work");
    fs::write(&doomed, [0; 100]).unwrap();
    drop(store);
    FileStore::open(&dir.path().join("keys")).unwrap();
    assert!(!doomed.exists(), "and so does a start");
}

#[test]
fn a_key_is_renamed_before_it_is_overwritten() {
    let (_dir, store) = store();
    let (id, _) = store.make(&purpose()).unwrap();
    // A directory in the way of the new name stops it there: the file is whole, and the key is still one.
    fs::create_dir(store.doomed(&id)).unwrap();
    assert!(matches!(
        store.destroy(&id),
        Err(KeyStoreError::Io { doing: "rename", .. })
    ));
    assert!(store.signer(&id).is_ok());
}

#[test]
fn a_spoilt_file_is_passed_over_by_whoever_does_not_need_it() {
    let (_dir, store) = store();
    let (kept, _) = store.make(&purpose()).unwrap();
    let (spoilt, _) = store.make(&purpose()).unwrap();
    overwrite(&store.path_of(&spoilt), 100).unwrap();
    assert_eq!(store.keys().unwrap(), [(kept, purpose())]);
    assert!(matches!(
        store.signer(&spoilt),
        Err(KeyStoreError::Damaged { .. })
    ));
}

#[test]
fn what_is_in_the_files_is_sealed_and_for_the_owner_only() {
    let (_dir, store) = store();
    let (id, _) = store.make(&purpose()).unwrap();
    let key = store.unseal(
        &store.path_of(&id),
        &read_json::<KeyFile>(&store.path_of(&id)).unwrap(),
        &store.label_of(&id, &purpose()),
    );
    let secret = key.unwrap().to_pkcs8_der();
    for entry in fs::read_dir(&store.dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            path.display()
        );
        let text = fs::read(&path).unwrap();
        assert!(!text.windows(secret.len()).any(|w| w == &secret[..]));
    }
}

#[test]
fn another_key_encryption_key_is_told_at_once_and_a_readable_file_is_refused() {
    let (dir, store) = store();
    let keys = dir.path().join("keys");
    let kek = keys.join("kek");
    drop(store);
    let honest = fs::read(&kek).unwrap();
    harden::atomic_write(&kek, Kek::generate().to_base64().as_bytes(), OWNER_ONLY).unwrap();
    let wrong = FileStore::open(&keys).err().unwrap();
    assert!(
        matches!(
            wrong,
            KeyStoreError::Sealed {
                source: SealError::WrongKek,
                ..
            }
        ),
        "{wrong:?}"
    );
    fs::write(&kek, honest).unwrap();
    fs::set_permissions(&kek, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(FileStore::open(&keys), Err(KeyStoreError::Kek(_))));
}

#[test]
fn a_key_file_of_another_generation_does_not_open() {
    let (_dir, store) = store();
    let (id, _) = store.make(&purpose()).unwrap();
    let path = store.path_of(&id);
    let mut file: KeyFile = read_json(&path).unwrap();
    file.purpose.as_mut().unwrap().generation = 3;
    write_json(&path, &file).unwrap();
    assert!(matches!(store.signer(&id), Err(KeyStoreError::Sealed { .. })));
}

#[test]
fn without_the_key_encryption_key_nothing_is_made() {
    let dir = TempDir::new().unwrap();
    let keys = dir.path().join("keys");
    let absent = KekSource::File(dir.path().join("absent"));
    let refused = FileStore::create(&keys, &cluster(), &absent);
    assert!(matches!(refused, Err(KeyStoreError::Kek(_))));
    assert!(!keys.exists(), "`init` can be run again");
}

#[test]
fn init_never_takes_over_a_directory_with_keys() {
    let (dir, _store) = store();
    let again = FileStore::create(&dir.path().join("keys"), &cluster(), &KekSource::default());
    assert!(matches!(again, Err(KeyStoreError::Exists(_))));
}

#[test]
fn a_copy_that_a_crash_left_behind_is_removed_at_the_next_start() {
    let (dir, store) = store();
    let stray = store.dir.join(".sha256-00.sealed.1.0.0000000000000000.tmp");
    fs::write(&stray, b"half a key").unwrap();
    drop(store);
    FileStore::open(&dir.path().join("keys")).unwrap();
    assert!(!stray.exists());
}
