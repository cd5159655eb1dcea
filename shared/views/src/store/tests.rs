use tempfile::TempDir;

use super::*;

fn mark(position: u64) -> Mark {
    Mark {
        position: Position(position),
        event: None,
    }
}

fn filled(dir: &TempDir) -> ViewStore {
    let (store, doubt) = ViewStore::open(&dir.path().join("views"), 1).unwrap();
    assert_eq!(doubt, Some(Doubt::Absent));
    let mut batch = Batch::new();
    batch.put("node/b", &2);
    batch.put("node/a", &1);
    batch.put("nodes", &3);
    store.apply(batch, &mark(7)).unwrap();
    store
}

#[test]
fn documents_and_their_mark_outlive_the_process() {
    let dir = TempDir::new().unwrap();
    drop(filled(&dir));
    let (store, doubt) = ViewStore::open(&dir.path().join("views"), 1).unwrap();
    assert_eq!((doubt, store.mark().unwrap()), (None, mark(7)));
    assert_eq!(store.scan::<u8>("node/").unwrap(), [1, 2]);
    assert_eq!(store.get::<u8>("node/c").unwrap(), None);
}

#[test]
fn of_documents_that_are_replaced_only_the_changed_ones_are_written() {
    let dir = TempDir::new().unwrap();
    let store = filled(&dir);
    let mut batch = Batch::new();
    let documents = [("node/b", 2), ("node/c", 5)].map(|(key, n)| (key.to_owned(), n));
    store.replace(&mut batch, "node/", documents).unwrap();
    let changes: Vec<_> = batch
        .changes
        .iter()
        .map(|(key, to)| (&**key, to.as_deref()))
        .collect();
    assert_eq!(changes, [("node/c", Some(&b"5"[..])), ("node/a", None)]);
    store.apply(batch, &mark(8)).unwrap();
    assert_eq!(store.scan::<u8>("node").unwrap(), [2, 5, 3]);
}

#[test]
fn another_schema_and_files_of_somebody_else_begin_anew() {
    let dir = TempDir::new().unwrap();
    drop(filled(&dir));
    let path = dir.path().join("views");
    let (store, doubt) = ViewStore::open(&path, 2).unwrap();
    assert_eq!((doubt, store.mark().unwrap()), (Some(Doubt::Schema), mark(0)));
    assert_eq!(store.scan::<u8>("").unwrap_or_default().len(), 0);
    drop(store);
    for entry in fs::read_dir(&path).unwrap() {
        let file = entry.unwrap().path();
        if file.is_file() {
            fs::write(file, b"these are no views").unwrap();
        }
    }
    let (store, doubt) = ViewStore::open(&path, 2).unwrap();
    assert!(doubt.is_some());
    assert_eq!(store.mark().unwrap(), mark(0));
}

#[test]
fn files_that_crashes_left_are_removed_with_the_views_once_they_weigh_much() {
    let dir = TempDir::new().unwrap();
    drop(filled(&dir));
    let path = dir.path().join("views");
    let left = path.join("blobs/7");
    File::create(&left).unwrap().set_len(MOST_MORE / 2).unwrap();
    let (store, doubt) = ViewStore::open(&path, 1).unwrap();
    assert_eq!((doubt, store.mark().unwrap()), (None, mark(7)), "not much yet");
    drop(store);
    File::create(path.join("blobs/8"))
        .unwrap()
        .set_len(MOST_MORE)
        .unwrap();
    let (store, doubt) = ViewStore::open(&path, 1).unwrap();
    assert_eq!((doubt, store.mark().unwrap()), (Some(Doubt::Bloated), mark(0)));
    assert!(!left.exists());
}

#[test]
fn leaves_of_large_documents_make_no_files_of_their_own() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("views");
    let (store, _) = ViewStore::open(&path, 1).unwrap();
    let large = "x".repeat(40_000);
    for n in 0..400_u64 {
        let mut batch = Batch::new();
        batch.put(format!("rotation/{:02}", n % 40), &large);
        store.apply(batch, &mark(n)).unwrap();
    }
    let files = || fs::read_dir(path.join("blobs")).unwrap().count();
    assert_eq!(files(), 0);
    drop(store);
    assert_eq!(files(), 0);
}

#[test]
fn a_second_process_is_told_that_the_views_are_in_use() {
    let dir = TempDir::new().unwrap();
    let store = filled(&dir);
    assert!(matches!(
        ViewStore::open(&dir.path().join("views"), 1),
        Err(ViewError::InUse(_))
    ));
    assert_eq!(store.mark().unwrap(), mark(7), "and nothing was thrown away");
}

#[test]
fn cleared_views_have_no_document_and_no_mark() {
    let dir = TempDir::new().unwrap();
    let store = filled(&dir);
    store.clear().unwrap();
    assert_eq!(store.mark().unwrap(), mark(0));
    assert_eq!(store.scan::<u8>("n").unwrap(), Vec::<u8>::new());
}

#[test]
fn views_that_are_opened_again_are_the_same_in_every_handle_or_begin_anew() {
    let dir = TempDir::new().unwrap();
    let store = filled(&dir);
    let other = store.clone();
    assert_eq!(store.reopen(1).unwrap(), None);
    assert_eq!(other.mark().unwrap(), store.mark().unwrap());
    assert_eq!(other.scan::<u8>("n").unwrap(), [1, 2, 3]);
    // Somebody holds them open, as a reader does: they cannot be opened, and begin anew for everybody.
    let reader = store.db().unwrap();
    assert_eq!(store.reopen(1).unwrap(), Some(Doubt::Damaged));
    drop(reader);
    assert_eq!(other.mark().unwrap(), Mark::default());
    assert!(other.scan::<u8>("n").unwrap().is_empty());
}

#[test]
fn views_that_cannot_be_opened_again_are_away_until_they_can() {
    let dir = TempDir::new().unwrap();
    let store = filled(&dir);
    let (path, aside) = (dir.path().join("views"), dir.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    fs::write(&path, "in the way").unwrap();
    assert!(matches!(store.reopen(1), Err(ViewError::Io { .. })));
    assert!(matches!(store.mark(), Err(ViewError::Away(_))));
    fs::remove_file(&path).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(store.reopen(1).unwrap(), None);
    assert_ne!(store.mark().unwrap(), Mark::default());
}
