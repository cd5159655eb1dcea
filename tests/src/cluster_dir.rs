//! A directory for one test.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A temporary directory that is removed at the end, or kept and named when the test fails: what a process left there
/// is the best evidence there is.
#[derive(Debug)]
pub struct TestDir {
    dir: Option<TempDir>,
}

impl TestDir {
    /// A fresh directory whose name begins with `test`.
    ///
    /// # Panics
    /// When the disk refuses.
    #[must_use]
    pub fn new(test: &str) -> Self {
        let made = tempfile::Builder::new()
            .prefix(&format!("carousel-{test}-"))
            .tempdir();
        Self {
            dir: Some(made.expect("a temporary directory can be made")),
        }
    }

    /// Its path.
    ///
    /// # Panics
    /// Never: the directory lives as long as this value.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.as_ref().expect("present until drop").path()
    }

    /// A path inside it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file inside it, for the owner alone, and gives its path.
    ///
    /// # Panics
    /// When the disk refuses.
    #[must_use]
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.join(name);
        // What is there already keeps its mode.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path);
        let mut file = file.expect("a test directory is writable");
        file.write_all(text.as_bytes())
            .expect("a test directory is writable");
        path
    }
}

impl Drop for TestDir {
    #[expect(
        clippy::print_stderr,
        reason = "a person who reads a failed test needs the path"
    )]
    fn drop(&mut self) {
        if let Some(dir) = self.dir.take().filter(|_| std::thread::panicking()) {
            eprintln!("kept for inspection: {}", dir.keep().display());
        }
    }
}
