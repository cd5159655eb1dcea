//! The agent's data directory: who it is, what it trusts, its keys and its generations of certificates.
//!
//! ```text
//! D/lock                     held while an agent runs: two never share a directory
//! D/agent.json               node id, cluster, bundle pin, name (written last of a join)
//! D/bundles/<type>.json      the newest verified trust bundle of each type: the persisted revision
//! D/desired.json             the newest desired state that a gateway named
//! D/keys/<pin>.json          each request for a certificate: its key, and the answer once it came
//! D/generations/<n>/         client.* server.* trust.pem <type>/trust.pem manifest.json ssh_host_key-cert.pub, and
//!                            what `beside` says
//! D/current -> generations/n what is live        D/passed -> generations/n  the last that passed its proof
//! D/hooked -> generations/n  the last that the reload hooks have all seen
//! D/status.json              for `carousel-agent status`
//! ```
//!
//! Every file is replaced at once (a temporary file, synced, then renamed), so that each state that a crash
//! can leave is one that the plan goes on from. Keys are 0600, directories 0700.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use domain::{ClusterName, Hostname, NodeId, SpkiPin};
use runtime::harden::{self, SecretFileError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub mod beside;
pub mod credential;
pub mod generations;
pub mod requests;
pub mod trust;

mod bare;

/// The layout that this version reads and writes.
pub const FORMAT_VERSION: u32 = 1;
/// No file of ours is larger; one that is, is not ours.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// How often a lock that somebody holds is looked at before it counts as another agent's: `status` holds it for less.
const LOCK_LOOKS: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another agent runs on it.
    #[error("{} is in use by another agent; stop that one, or give this one a data directory of its own", .0.display())]
    Locked(PathBuf),
    /// Others could exchange what is in it.
    #[error("{} can be changed by others (mode {mode:04o}); run: chmod 700 {}", path.display(), path.display())]
    Exposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file with a secret that others can read, or that cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretFileError),
    /// Written by a version that knows more than this one.
    #[error("{} has format version {found}, this agent knows {FORMAT_VERSION}; run the newer agent that wrote it", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Cut short, edited or not ours.
    #[error("{} is damaged ({why}); restore the data directory from a backup, or join again with a new token", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, without content.
        why: String,
    },
    /// The disk refused.
    #[error("{} cannot be {verb}: {source}", path.display())]
    Io {
        /// What was tried: `read`, `written`.
        verb: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Who this agent is: `D/agent.json`, written once it has joined.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The layout's version.
    pub version: u32,
    /// The node.
    pub node: NodeId,
    /// The cluster.
    pub cluster: ClusterName,
    /// The pin of the bundle key that it joined with; successors are followed by their documents.
    pub bundle_pin: SpkiPin,
    /// The name that it joined under.
    pub hostname: Hostname,
}

/// An open data directory. The lock is given back when this is dropped, also by a crash.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: Option<Lock>,
    /// Of one without a disk.
    bare: Option<Mutex<bare::Bare>>,
}

impl DataDir {
    /// Opens a data directory, making it if it is not there, and locks it.
    ///
    /// # Errors
    /// [`DiskError`]: in use, exposed to others, newer, or unreadable. Damage is found where it matters.
    pub fn open(root: &Path) -> Result<Self, DiskError> {
        let made = |path: &Path| harden::create_private_dir(path).map_err(|e| io_error("made", path, e));
        made(root)?;
        let root = root.canonicalize().map_err(|e| io_error("found", root, e))?;
        let found = fs::metadata(&root).map_err(|e| io_error("read", &root, e))?;
        if found.mode() & 0o022 != 0 {
            return Err(DiskError::Exposed {
                path: root,
                mode: found.mode() & 0o7777,
            });
        }
        let lock = Lock::take(&root, || std::thread::sleep(LOCK_PAUSE))?;
        for part in ["bundles", "keys", "generations"] {
            made(&root.join(part))?;
        }
        let dir = Self {
            root,
            _lock: Some(lock),
            bare: None,
        };
        // A newer format is found before anything is written. What is damaged can be replaced by joining again.
        match dir.identity() {
            Ok(_) | Err(DiskError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        dir.remove_strays();
        Ok(dir)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Who this agent is; none before it has joined.
    ///
    /// # Errors
    /// [`DiskError`]: newer, damaged or unreadable.
    pub fn identity(&self) -> Result<Option<Identity>, DiskError> {
        if self.is_nowhere() {
            return Ok(None);
        }
        read_json(&self.root.join("agent.json"))
    }

    /// Keeps who this agent is. The last act of a join: everything else of it is durable before.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn keep_identity(&self, identity: &Identity) -> Result<(), DiskError> {
        if self.is_nowhere() {
            return Ok(());
        }
        write_json(&self.root.join("agent.json"), identity)
    }

    /// Removes what a crash may have left: temporary files and half-made generations that nothing points at.
    fn remove_strays(&self) {
        for part in ["", "bundles", "keys", "generations"] {
            let Ok(entries) = fs::read_dir(self.root.join(part)) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.starts_with('.') && name.ends_with(".tmp") {
                    // A stray that cannot be removed is looked at by nobody, only in the way of the eye.
                    let path = entry.path();
                    let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
                }
            }
        }
    }
}

/// Who a data directory belongs to, without opening it; none if it has not joined.
///
/// # Errors
/// [`DiskError`]: newer, damaged or unreadable.
pub fn peek_identity(root: &Path) -> Result<Option<Identity>, DiskError> {
    read_json(&root.join("agent.json"))
}

/// Does an agent run on this directory now? For `status`, which holds the lock for a moment if nobody else does: an
/// agent that starts just then waits for it.
pub fn is_in_use(root: &Path) -> bool {
    let opened = OpenOptions::new().read(true).write(true).open(root.join("lock"));
    opened.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// The lock of a data directory, held until it is dropped.
#[derive(Debug)]
struct Lock(File);

impl Lock {
    /// Takes it; `pause` is what passes between two looks at one that somebody holds.
    fn take(root: &Path, mut pause: impl FnMut()) -> Result<Self, DiskError> {
        let path = root.join("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(harden::OWNER_ONLY)
            .open(&path)
            .map_err(|e| io_error("opened", &path, e))?;
        let mut looks = LOCK_LOOKS;
        loop {
            looks -= 1;
            match file.try_lock() {
                Ok(()) => return Ok(Self(file)),
                Err(TryLockError::WouldBlock) if looks > 0 => pause(),
                Err(TryLockError::WouldBlock) => return Err(DiskError::Locked(root.to_owned())),
                Err(TryLockError::Error(e)) => return Err(io_error("locked", &path, e)),
            }
        }
    }
}

impl Drop for Lock {
    /// Closing the file is not enough: a child that was forked in this moment, to run a hook, has the file open until
    /// its program starts, and the lock would last as long.
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the data directory stays locked until this process has ended");
        }
    }
}

/// Runs work that waits for the disk without holding up other tasks of the process: a sync takes a
/// millisecond or a hundred, and many agents may share one process.
pub(crate) fn off_the_loop<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        // A runtime of one thread has nobody to hand its other tasks to.
        Ok(_) | Err(_) => work(),
    }
}

/// Every file of ours says its version first.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Reads a JSON file of ours; none if it is not there.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, DiskError> {
    let bytes = match harden::read_owner_only(path, MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(SecretFileError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let damaged = |why: String| DiskError::Damaged {
        path: path.to_owned(),
        why,
    };
    let found: Versioned =
        serde_json::from_slice(&bytes).map_err(|_| damaged("no version in it; cut short?".into()))?;
    if found.version > FORMAT_VERSION {
        return Err(DiskError::Newer {
            path: path.to_owned(),
            found: found.version,
        });
    }
    // serde's message may quote what it found, and that may be a key: only the place is told.
    let parsed = serde_json::from_slice(&bytes).map_err(|e| {
        damaged(format!(
            "not what it should be at line {} column {}",
            e.line(),
            e.column()
        ))
    })?;
    Ok(Some(parsed))
}

/// Replaces a JSON file of ours, durably.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), DiskError> {
    let mut bytes =
        serde_json::to_vec_pretty(value).expect("our own files have string keys and no failing parts");
    bytes.push(b'\n');
    off_the_loop(|| harden::atomic_write(path, &bytes, harden::OWNER_ONLY))
        .map_err(|e| io_error("written", path, e))
}

pub(crate) fn io_error(verb: &'static str, path: &Path, source: io::Error) -> DiskError {
    DiskError::Io {
        verb,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests;
