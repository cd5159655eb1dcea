//! What could go wrong with files that hold secrets.

use super::*;

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("readable");
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("exists").mode() & 0o7777
}

#[test]
fn a_write_replaces_the_whole_file_with_the_asked_mode_and_leaves_nothing_beside_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("identity");
    atomic_write(&path, b"a long first content", 0o600).expect("written");
    atomic_write(&path, b"short", 0o640).expect("replaced");
    assert_eq!(fs::read(&path).expect("readable"), b"short");
    assert_eq!(mode(&path), 0o640);
    assert_eq!(names(dir.path()), ["identity"]);
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_beside_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("taken");
    fs::create_dir(&path).expect("a directory stands in the way");
    fs::write(path.join("inside"), b"kept").expect("written");
    atomic_write(&path, b"new", 0o600).expect_err("a file cannot replace a directory");
    assert_eq!(fs::read(path.join("inside")).expect("readable"), b"kept");
    assert_eq!(names(dir.path()), ["taken"]);
}

#[test]
fn create_refuses_to_replace_and_keeps_what_is_there() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("kek");
    atomic_create(&path, b"first", 0o600).expect("created");
    let error = atomic_create(&path, b"second", 0o600).expect_err("it exists");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).expect("readable"), b"first");
    assert_eq!(names(dir.path()), ["kek"]);
}

#[test]
fn concurrent_writers_leave_one_whole_content() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("shared");
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let path = &path;
            scope.spawn(move || {
                for _ in 0..20 {
                    atomic_write(path, &[writer; 4096], 0o600).expect("written");
                }
            });
        }
    });
    let bytes = fs::read(&path).expect("readable");
    assert_eq!(bytes.len(), 4096);
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "contents were mixed");
    assert_eq!(names(dir.path()), ["shared"]);
}

#[test]
fn a_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("identity");
    for bad in [0o644, 0o640, 0o604, 0o620, 0o601] {
        atomic_write(&path, b"secret", bad).expect("written");
        let error = read_owner_only(&path, 100).expect_err("exposed").to_string();
        assert!(
            error.contains("chmod 600") && !error.contains("secret"),
            "{error}"
        );
    }
    atomic_write(&path, b"secret", 0o400).expect("written");
    assert_eq!(read_owner_only(&path, 100).expect("owner only"), b"secret");
    owner_only(&path).expect("owner only");
}

#[test]
fn what_is_no_secret_file_is_refused_without_hanging() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let directory = dir.path().join("d");
    create_private_dir(&directory).expect("created");
    assert!(matches!(
        owner_only(&directory),
        Err(SecretFileError::NotAFile(_))
    ));
    assert!(matches!(
        owner_only(&dir.path().join("missing")),
        Err(SecretFileError::Io { .. })
    ));
    let pipe = dir.path().join("pipe");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    );
    made.expect("a pipe can be made");
    assert!(matches!(owner_only(&pipe), Err(SecretFileError::NotAFile(_))));
    let large = dir.path().join("large");
    atomic_write(&large, &[0; 101], 0o600).expect("written");
    assert!(matches!(
        read_owner_only(&large, 100),
        Err(SecretFileError::TooLarge { .. })
    ));
}

#[test]
fn a_private_directory_lets_nobody_else_in() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("a/b");
    create_private_dir(&path).expect("created");
    create_private_dir(&path).expect("again");
    assert_eq!(mode(&path), 0o700);
}

#[test]
fn a_relative_name_without_a_directory_is_written_beside_the_process() {
    assert!(
        temporary_name(Path::new("plain"))
            .expect("a name")
            .starts_with(".plain.")
    );
    temporary_name(Path::new("/")).expect_err("no file name");
}

#[test]
fn core_dumps_are_off_after_hardening() {
    no_core_dumps().expect("allowed for the own process");
    assert_eq!(rustix::process::getrlimit(Resource::Core).current, Some(0));
    #[cfg(target_os = "linux")]
    assert_eq!(
        rustix::process::dumpable_behavior().expect("readable"),
        rustix::process::DumpableBehavior::NotDumpable
    );
}

#[test]
fn as_many_files_may_be_opened_as_the_system_allows() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let lowered = Rlimit {
        current: Some(256),
        ..limit
    };
    rustix::process::setrlimit(Resource::Nofile, lowered).expect("lowering is always allowed");
    assert_eq!(open_files(), 256);
    let raised = raise_open_files().expect("up to the hard limit it is allowed");
    assert_eq!(raised, limit.maximum.unwrap_or(UNLIMITED_FILES));
}
