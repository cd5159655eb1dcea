//! Files and memory that hold secrets.
//!
//! Keys live in files with mode 0600, written so that a crash leaves either the old file or the new one, and in memory
//! that no core dump writes to disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};

/// The mode of files that hold keys, tokens or identities.
pub const OWNER_ONLY: u32 = 0o600;
/// What an unlimited number of open files counts as: the kernel's own ceiling, unless somebody moved it.
const UNLIMITED_FILES: u64 = 1 << 20;

/// Why a file with a secret was not read.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// Somebody besides the owner may read or change it.
    #[error("{} can be read by others (mode {mode:04o}); run: chmod 600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to another user, who could change it under us.
    #[error("{} belongs to user id {owner}, not to the user who runs this; copy it or change its owner", path.display())]
    ForeignOwner {
        /// The file.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
    },
    /// It is a directory, a device or a pipe.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// It is larger than anything we would have written.
    #[error("{} is larger than {limit} bytes; this is not the file it should be", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What was expected at most.
        limit: u64,
    },
    /// It is missing or cannot be read.
    #[error("{} cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

/// Forbids core dumps and tracing by other processes of the same user. Call it first in `main`, before a key exists.
///
/// # Errors
/// When the kernel refuses; the caller should go on with a warning, since containers may forbid it.
pub fn no_core_dumps() -> io::Result<()> {
    rustix::process::setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    )?;
    // The limit alone does not stop a core that is piped to a handler; this does, and it forbids ptrace as well.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Makes every file and directory of this process the owner's alone, whatever its umask was: what is kept by a library
/// of others gets the mode that they think of.
pub fn files_for_owner_alone() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
}

/// Raises the number of files that this process may open as far as the system lets it, and says what it is now.
///
/// Each connection is a file. The usual soft limit of 1024 is for programs that wait with `select`; ours do not.
///
/// # Errors
/// When the kernel refuses; the limit is what it was then.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    // "Unlimited" is more than the kernel gives to anybody.
    let most = limit.maximum.unwrap_or(UNLIMITED_FILES);
    if limit.current.is_some_and(|now| now < most) {
        let current = Some(most);
        rustix::process::setrlimit(Resource::Nofile, Rlimit { current, ..limit })?;
    }
    Ok(open_files())
}

/// How many files this process may open.
#[must_use]
pub fn open_files() -> u64 {
    rustix::process::getrlimit(Resource::Nofile)
        .current
        .unwrap_or(UNLIMITED_FILES)
}

/// Checks that nobody but the owner can read or write `path`, and that the owner is us (or that we are root).
///
/// # Errors
/// [`SecretFileError`], which says how to mend it.
pub fn owner_only(path: &Path) -> Result<(), SecretFileError> {
    open_owner_only(path).map(drop)
}

/// Reads a file with a secret, at most `limit` bytes, after the same check on the opened file.
///
/// # Errors
/// [`SecretFileError`], which says how to mend it.
pub fn read_owner_only(path: &Path, limit: u64) -> Result<Vec<u8>, SecretFileError> {
    let file = open_owner_only(path)?;
    let mut bytes = Vec::new();
    let io = |source| SecretFileError::Io {
        path: path.to_owned(),
        source,
    };
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(SecretFileError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

/// Replaces `path` by `bytes` at once: readers and crashes see the old content or the new, never a part.
///
/// The mode holds from the first moment on, whatever the umask. A crash may leave a `.NAME.*.tmp` beside it.
///
/// # Errors
/// What the operating system said; `path` is unchanged then (a failed sync of the directory is the exception: the
/// new content is there but may not outlive a power cut).
pub fn atomic_write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    publish(path, bytes, mode, |temporary| fs::rename(temporary, path))
}

/// Like [`atomic_write`], but refuses with `AlreadyExists` where `path` exists, without a moment in between.
///
/// # Errors
/// What the operating system said; `path` is unchanged then.
pub fn atomic_create(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    publish(path, bytes, mode, |temporary| {
        fs::hard_link(temporary, path)?;
        fs::remove_file(temporary)
    })
}

/// Makes `path` and its parents as directories that only the owner can enter; an existing one keeps its mode.
///
/// # Errors
/// What the operating system said.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes renames and new names in `dir` survive a power cut.
///
/// # Errors
/// What the operating system said.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn open_owner_only(path: &Path) -> Result<File, SecretFileError> {
    let io = |source| SecretFileError::Io {
        path: path.to_owned(),
        source,
    };
    // NONBLOCK: opening a pipe that nobody writes must not hang. The checks are on the opened file and not on the
    // name, so that nothing can be exchanged in between.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
        .map_err(io)?;
    let found = file.metadata().map_err(io)?;
    if !found.is_file() {
        return Err(SecretFileError::NotAFile(path.to_owned()));
    }
    let mode = found.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let us = rustix::process::geteuid();
    if !us.is_root() && found.uid() != us.as_raw() {
        return Err(SecretFileError::ForeignOwner {
            path: path.to_owned(),
            owner: found.uid(),
        });
    }
    Ok(file)
}

fn publish(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    place: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<()> {
    let dir = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let temporary = dir.join(temporary_name(path)?);
    // Crash point: before the rename recovery finds the old file and perhaps a stray temporary one, which no reader
    // looks at; after it, the new file. The file is durable before its name is, so the name never shows a part.
    let placed = write_durably(&temporary, bytes, mode).and_then(|()| place(&temporary));
    if let Err(error) = placed {
        // The first error is the one to tell; that the temporary file could not be removed changes nothing.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(dir)
}

fn write_durably(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(OWNER_ONLY & mode)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A name that no other thread or living process of this machine uses.
fn temporary_name(path: &Path) -> io::Result<String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().and_then(|name| name.to_str());
    let name =
        name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no usable file name"))?;
    // The seed keeps a stray file of an earlier process with the same id out of the way.
    let seed = crate::backoff::random_seed();
    Ok(format!(
        ".{name}.{}.{}.{seed:016x}.tmp",
        process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    ))
}

#[cfg(test)]
mod tests;
