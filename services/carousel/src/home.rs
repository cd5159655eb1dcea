//! The control plane's data directory: which cluster it belongs to, which log, and who holds it.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use domain::{ClusterName, MemberId, UserName};
use runtime::harden;
use serde::{Deserialize, Serialize};

/// What the log in the directory itself is called.
pub const EMBEDDED: &str = "embedded";
/// The layout of the directory; a higher one was made by a newer version.
const FORMAT: u32 = 1;
/// Larger than any description this version writes.
const MAX_BYTES: u64 = 64 * 1024;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// There is nothing.
    #[error("{} holds no cluster; make one with: carousel init --data-dir {} --cluster NAME", .0.display(), .0.display())]
    Missing(PathBuf),
    /// There is one already.
    #[error("{} holds the cluster {cluster} already; give an empty directory, or start it with: carousel serve --data-dir {}", .path.display(), .path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        cluster: ClusterName,
    },
    /// There is something else.
    #[error("{} is not empty and holds no cluster; give a new or empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// A newer version wrote it.
    #[error("{} was written by a newer version of Carousel (format {found}, this one knows {FORMAT}); start that version", .path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The description cannot be read.
    #[error("{} cannot be used: {detail}", .path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// Another process works in it.
    #[error("{} is in use by another carousel process; stop that one first", .0.display())]
    InUse(PathBuf),
    /// It cannot be written.
    #[error("{} cannot be written", .path.display())]
    Write {
        /// What was written.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// Another log was chosen before.
    #[error(
        "this cluster keeps its log in {remembered}, not in {asked}; start it without --log, or with --log {remembered}"
    )]
    OtherLog {
        /// The log of the first start.
        remembered: String,
        /// The log asked for now.
        asked: String,
    },
}

/// What `init` wrote down.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// The layout.
    pub format: u32,
    /// The cluster.
    pub cluster: ClusterName,
    /// This host's gateway, stable over restarts.
    pub member: MemberId,
    /// The first administrator.
    pub admin: UserName,
    /// The log, once the first start has chosen it: `embedded` or a NATS URL without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Was the cluster begun in that log? Between the choice and the first facts in it, an empty log is no loss.
    #[serde(default = "unless_told")]
    pub begun: bool,
}

/// Earlier versions wrote the log down once it had been begun.
fn unless_told() -> bool {
    true
}

/// An opened data directory.
pub struct Home {
    path: PathBuf,
    /// What it holds.
    pub description: Description,
}

/// Holds a data directory for one process; given back by the operating system however the process ends.
pub struct Held {
    _lock: fd_lock::RwLockWriteGuard<'static, File>,
}

impl Home {
    /// Is the directory free for a new cluster? Makes it, for the owner alone.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn prepare(path: &Path) -> Result<(), HomeError> {
        match Self::open(path) {
            Ok(home) => {
                return Err(HomeError::Exists {
                    path: path.into(),
                    cluster: home.description.cluster,
                });
            }
            Err(HomeError::Missing(_)) => {}
            Err(error) => return Err(error),
        }
        let write = |source| HomeError::Write {
            path: path.into(),
            source,
        };
        harden::create_private_dir(path).map_err(write)?;
        // A first `init` that was interrupted leaves `keys` and nothing that anybody uses: it may begin again
        // only by hand, because keys are never overwritten.
        if std::fs::read_dir(path).map_err(write)?.next().is_some() {
            return Err(HomeError::NotEmpty(path.into()));
        }
        Ok(())
    }

    /// Writes the description: the last step of `init`, so that a half-made directory is none.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn create(path: &Path, description: Description) -> Result<Self, HomeError> {
        let home = Self {
            path: path.into(),
            description,
        };
        home.save()?;
        Ok(home)
    }

    /// Opens a directory that `init` made.
    ///
    /// # Errors
    /// [`HomeError`].
    pub fn open(path: &Path) -> Result<Self, HomeError> {
        let file = path.join("cluster.json");
        let broken = |detail: String| HomeError::Broken {
            path: file.clone(),
            detail,
        };
        if !file.exists() {
            return Err(HomeError::Missing(path.into()));
        }
        let bytes = harden::read_owner_only(&file, MAX_BYTES).map_err(|e| broken(e.to_string()))?;
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let found: Format = serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
        if found.format > FORMAT {
            return Err(HomeError::Newer {
                path: path.into(),
                found: found.format,
            });
        }
        let description: Description = serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
        Ok(Self {
            path: path.into(),
            description,
        })
    }

    /// Takes the directory for this process.
    ///
    /// # Errors
    /// [`HomeError::InUse`].
    pub fn hold(&self) -> Result<Held, HomeError> {
        let path = self.path.join("lock");
        let write = |source| HomeError::Write {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(write)?;
        // Leaked once per process and directory: the guard has to live as long as the process serves.
        let lock = Box::leak(Box::new(fd_lock::RwLock::new(file)));
        let guard = lock
            .try_write()
            .map_err(|_| HomeError::InUse(self.path.clone()))?;
        Ok(Held { _lock: guard })
    }

    /// Had a start begun the cluster in its log?
    pub fn was_begun(&self) -> bool {
        self.description.begun && self.description.log.is_some()
    }

    /// The log to open: the one asked for, with its credentials, or the one remembered, or the embedded one.
    ///
    /// # Errors
    /// [`HomeError::OtherLog`], from the first start that chose one on.
    pub fn choose_log(&self, asked: Option<&str>) -> Result<String, HomeError> {
        match (&self.description.log, asked) {
            (Some(remembered), Some(asked)) if *remembered != without_credentials(asked) => {
                Err(HomeError::OtherLog {
                    remembered: remembered.clone(),
                    asked: without_credentials(asked),
                })
            }
            (_, Some(asked)) => Ok(asked.to_owned()),
            (Some(remembered), None) => Ok(remembered.clone()),
            (None, None) => Ok(EMBEDDED.to_owned()),
        }
    }

    /// Remembers the log before the first facts are written to it: after a crash in between, no other one is taken.
    ///
    /// # Errors
    /// [`HomeError::Write`].
    pub fn remember_log(&mut self, chosen: &str) -> Result<(), HomeError> {
        self.description.log = Some(without_credentials(chosen));
        self.description.begun = false;
        self.save()
    }

    /// Remembers that the log holds the cluster: empty, it is lost from now on.
    ///
    /// # Errors
    /// [`HomeError::Write`].
    pub fn remember_begun(&mut self, chosen: &str) -> Result<(), HomeError> {
        if self.was_begun() {
            return Ok(());
        }
        self.description.log = Some(without_credentials(chosen));
        self.description.begun = true;
        self.save()
    }

    /// Writes the description, whole or not at all.
    ///
    /// # Errors
    /// [`HomeError::Write`].
    pub fn save(&self) -> Result<(), HomeError> {
        let path = self.path.join("cluster.json");
        let json = serde_json::to_vec_pretty(&self.description).expect("a description is plain data");
        harden::atomic_write(&path, &json, harden::OWNER_ONLY)
            .map_err(|source| HomeError::Write { path, source })
    }

    /// The sealed keys, checkpoints and the genesis.
    pub fn keys(&self) -> PathBuf {
        self.path.join("keys")
    }
    /// The embedded log.
    pub fn log_file(&self) -> PathBuf {
        self.path.join("log.sqlite")
    }
    /// The disposable views.
    pub fn views(&self) -> PathBuf {
        self.path.join("views")
    }
    /// The gateway's own key and certificates.
    pub fn gateway(&self) -> PathBuf {
        self.path.join("gateway")
    }
    /// The administrator's identity file.
    pub fn admin_identity(&self) -> PathBuf {
        self.path.join("admin.identity")
    }
    /// The socket for commands that only this host may give.
    pub fn host_socket(&self) -> PathBuf {
        self.path.join("host.sock")
    }
    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// `nats://user:secret@host` without what must not be written down.
fn without_credentials(url: &str) -> String {
    url.split(',')
        .map(|one| match one.split_once("://") {
            Some((scheme, rest)) => {
                let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
                format!("{scheme}://{host}")
            }
            None => one.to_owned(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_a_log_url_are_not_written_down() {
        assert_eq!(
            without_credentials("nats://u:p@a:4222,nats://b:4222"),
            "nats://a:4222,nats://b:4222"
        );
        assert_eq!(without_credentials("embedded"), "embedded");
    }
}
