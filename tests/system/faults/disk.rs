//! Small disks of their own, and clocks of their own, for processes that shall meet a bad one.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A small file system in memory, mounted until this is dropped. Needs root.
#[derive(Debug)]
pub(crate) struct Disk {
    at: PathBuf,
}

impl Disk {
    /// So many MiB at a directory, which is made. `None` where this may not be done.
    pub(crate) fn mount(at: &Path, mib: u32) -> Option<Self> {
        fs::create_dir_all(at).expect("a test directory is writable");
        let options = format!("size={mib}m,mode=700");
        mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], at).then(|| Self { at: at.to_owned() })
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a disk that takes a name");
        let block = [0; 64 * 1024];
        // The last write takes what is left of the last block.
        while ballast.write(&block).is_ok_and(|written| written > 0) {}
    }

    /// Gives it back.
    pub(crate) fn free(&self) {
        let _ = fs::remove_file(self.ballast());
    }

    /// Lets nobody write, or everybody again. Only while nobody has a file open for writing.
    pub(crate) fn read_only(&self, read_only: bool) {
        let options = if read_only { "remount,ro" } else { "remount,rw" };
        assert!(mount(&["-o", options], &self.at), "the disk can be mounted anew");
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is still being killed may have a file open.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn mount(args: &[&str], at: &Path) -> bool {
    let output = Command::new("mount").args(args).arg(at).output();
    output.is_ok_and(|output| output.status.success())
}

/// A wall clock that its processes read instead of the machine's, by the library `libfaketime`.
#[derive(Debug)]
pub(crate) struct FakeClock {
    file: PathBuf,
    library: PathBuf,
}

impl FakeClock {
    /// After so long every process has seen a jump: the library looks once a second.
    pub(crate) const NOTICED: Duration = Duration::from_millis(2_500);

    /// A clock that shows the true time at first. `None` where the library is missing.
    pub(crate) fn new(file: PathBuf) -> Option<Self> {
        let library = find_library()?;
        let clock = Self { file, library };
        clock.jump_s(0);
        Some(clock)
    }

    /// From the next look on it is so far from the true time.
    pub(crate) fn jump_s(&self, by: i64) {
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, format!("{by:+}\n")).expect("a test directory is writable");
        fs::rename(&fresh, &self.file).expect("a test directory is writable");
    }

    /// What makes a process read it. Its monotonic clock stays true, as it does on a machine.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        let set = |name: &str, value: &Path| (name.to_owned(), value.display().to_string());
        vec![
            set("LD_PRELOAD", &self.library),
            set("FAKETIME_TIMESTAMP_FILE", &self.file),
            set("FAKETIME_DONT_FAKE_MONOTONIC", Path::new("1")),
            set("FAKETIME_CACHE_DURATION", Path::new("1")),
        ]
    }
}

fn find_library() -> Option<PathBuf> {
    let places = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let names = ["faketime/libfaketimeMT.so.1", "libfaketimeMT.so.1"];
    let mut found = places.flat_map(|place| names.map(|name| place.path().join(name)));
    found.find(|path| path.exists())
}

/// Copies a directory with its modes and times.
pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a test directory is writable");
    let all = from.join(".");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(all)
        .arg(to)
        .output()
        .expect("cp is there");
    // What is replaced while it is read may be missing from the copy, like from any backup of a living directory.
    let said = String::from_utf8_lossy(&copied.stderr).into_owned();
    assert!(copied.status.success() || said.contains("cannot stat"), "{said}");
}

/// Makes a directory hold what another holds and nothing else. The directory itself, which may be a disk, stays.
pub(crate) fn replace(with: &Path, at: &Path) {
    for entry in fs::read_dir(at).expect("it is there").filter_map(Result::ok) {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let gone = if is_dir {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        gone.expect("a test directory is writable");
    }
    let copied = Command::new("cp").arg("-a").arg(with.join(".")).arg(at).status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "the directory can be replaced"
    );
}
