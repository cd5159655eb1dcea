//! The control plane's data directory: which cluster it belongs to, which log, and who holds it.

use std::{
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use domain::{ClusterName, MemberId, Timestamp, UserName, plain};
use eventlog::bus::redacted;
use runtime::harden;
use serde::{Deserialize, Serialize};

use crate::plane::{Service, Services};

/// What the log in the directory itself is called.
pub const EMBEDDED: &str = "embedded";
/// The layout of the directory; a higher one was made by a newer version.
const FORMAT: u32 = 1;
/// What the description is called in the directory.
const FILE: &str = "cluster.json";
/// How a broker's URL begins.
const SCHEMES: [&str; 4] = ["nats", "tls", "ws", "wss"];
/// The longest name of a log without its credentials: it stands in messages.
const MAX_LOG_BYTES: usize = 500;
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
    /// It was made for another cluster.
    #[error("{} belongs to the cluster {found}; give --data-dir a directory of its own", .path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: ClusterName,
    },
    /// A signer needs what `init` makes.
    #[error("{} holds no keys, and a signer needs them: give the directory that `carousel init` made, or --services without signer", .0.display())]
    NoKeys(PathBuf),
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
    /// The text that should name a log does not. It is not shown: it may hold a password.
    #[error(
        "--log, CAROUSEL_EVENT_LOG or the configuration names no log: write `embedded`, or nats://HOST:PORT for each \
         broker with commas between them (a comma in a password is written %2C)"
    )]
    NoLog,
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
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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

impl Description {
    /// Reads what `init` and later starts wrote; `home` is for the message only.
    ///
    /// # Errors
    /// [`HomeError::Newer`], [`HomeError::Broken`].
    pub fn parse(bytes: &[u8], home: &Path) -> Result<Self, HomeError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let found: Format = serde_json::from_slice(bytes).map_err(|error| broken(home, error))?;
        if found.format > FORMAT {
            return Err(HomeError::Newer {
                path: home.into(),
                found: found.format,
            });
        }
        let read: Self = serde_json::from_slice(bytes).map_err(|error| broken(home, error))?;
        if !read.log.as_deref().is_none_or(names_a_log) {
            let detail = "its `log` names none: write `embedded`, or nats://HOST:PORT for each broker, without user and \
                          password";
            return Err(broken(home, detail));
        }
        Ok(read)
    }

    /// The log to open: the one asked for, with its credentials, or the one remembered, or the embedded one.
    ///
    /// # Errors
    /// [`HomeError::NoLog`]; [`HomeError::OtherLog`], from the first start that chose one on.
    pub fn choose_log(&self, asked: Option<&str>) -> Result<String, HomeError> {
        if !asked.is_none_or(names_a_log) {
            return Err(HomeError::NoLog);
        }
        match (&self.log, asked) {
            // Earlier versions remembered the spaces between the brokers too.
            (Some(remembered), Some(asked)) if redacted(remembered) != redacted(asked) => {
                Err(HomeError::OtherLog {
                    remembered: redacted(remembered),
                    asked: redacted(asked),
                })
            }
            (_, Some(asked)) => Ok(asked.to_owned()),
            (Some(remembered), None) => Ok(remembered.clone()),
            (None, None) => Ok(EMBEDDED.to_owned()),
        }
    }
}

fn broken(home: &Path, detail: impl std::fmt::Display) -> HomeError {
    HomeError::Broken {
        path: home.join(FILE),
        detail: plain(detail),
    }
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
        let file = path.join(FILE);
        if !file.exists() {
            return Err(HomeError::Missing(path.into()));
        }
        let bytes = harden::read_owner_only(&file, MAX_BYTES).map_err(|error| broken(path, error))?;
        Ok(Self {
            path: path.into(),
            description: Description::parse(&bytes, path)?,
        })
    }

    /// Opens the directory of a process that takes part in a cluster without its keys, or makes it.
    ///
    /// # Errors
    /// [`HomeError`]: it belongs to another cluster, or a signer would need keys.
    pub fn open_or_join(
        path: &Path,
        cluster: &ClusterName,
        services: &Services,
        now: Timestamp,
    ) -> Result<Self, HomeError> {
        match Self::open(path) {
            Ok(home) if home.description.cluster == *cluster => Ok(home),
            Ok(home) => Err(HomeError::OtherCluster {
                path: path.into(),
                found: home.description.cluster,
            }),
            Err(HomeError::Missing(_)) if services.has(Service::Signer) => {
                Err(HomeError::NoKeys(path.into()))
            }
            Err(HomeError::Missing(_)) => {
                Self::prepare(path)?;
                let description = Description {
                    format: FORMAT,
                    cluster: cluster.clone(),
                    member: MemberId(execution::fresh_id(now)),
                    admin: "admin".parse().expect("a plain name"),
                    log: None,
                    begun: false,
                };
                Self::create(path, description)
            }
            Err(error) => Err(error),
        }
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

    /// Remembers the log before the first facts are written to it: after a crash in between, no other one is taken.
    ///
    /// # Errors
    /// [`HomeError::Write`].
    pub fn remember_log(&mut self, chosen: &str) -> Result<(), HomeError> {
        self.description.log = Some(redacted(chosen));
        self.description.begun = false;
        self.save()
    }

    /// Remembers another log than before, which was found to hold the same events.
    ///
    /// # Errors
    /// [`HomeError::Write`].
    pub fn move_log(&mut self, chosen: &str) -> Result<(), HomeError> {
        self.description.log = Some(redacted(chosen));
        self.description.begun = true;
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
        self.description.log = Some(redacted(chosen));
        self.description.begun = true;
        self.save()
    }

    /// Writes the description, whole or not at all.
    ///
    /// # Errors
    /// [`HomeError::Write`].
    pub fn save(&self) -> Result<(), HomeError> {
        let path = self.path.join(FILE);
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

/// Is it the name of a log: `embedded`, or brokers as URLs with commas between them, of which only the first must say
/// how it is spoken to?
///
/// A comma in a password would cut the URL in two, and one half would be taken for a host and written down: what stands
/// without a scheme has no `@`.
pub(crate) fn names_a_log(text: &str) -> bool {
    let has_scheme = |one: &str| {
        let scheme = one.trim().split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| SCHEMES.contains(&scheme))
    };
    let is_bare = |one: &str| !one.trim().is_empty() && !one.contains('@') && !one.contains("://");
    let is_plain = !text.contains(char::is_control) && redacted(text).len() <= MAX_LOG_BYTES;
    text == EMBEDDED
        || is_plain && has_scheme(text) && text.split(',').all(|one| has_scheme(one) || is_bare(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(log: Option<&str>) -> Description {
        Description {
            format: FORMAT,
            cluster: "acme.cluster".parse().unwrap(),
            member: MemberId(uuid::Uuid::nil()),
            admin: "root".parse().unwrap(),
            log: log.map(Into::into),
            begun: true,
        }
    }

    #[test]
    fn the_log_that_was_chosen_is_the_same_with_other_credentials() {
        let kept = with(Some("nats://a:4222,tls://b:4222"));
        let asked = "nats://u:p@a:4222, tls://b:4222";
        assert_eq!(kept.choose_log(Some(asked)).unwrap(), asked);
        let refused = kept
            .choose_log(Some("nats://u:hunter2@c"))
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("not in nats://c") && !refused.contains("hunter2"),
            "{refused}"
        );
    }

    #[test]
    fn what_an_earlier_version_remembered_is_the_same_log() {
        for (remembered, asked) in [
            ("nats://a:4222, tls://b:4222", "nats://u:p@a:4222, tls://b:4222"),
            ("nats://a,b:4222", "nats://a,b:4222"),
        ] {
            let kept = serde_json::to_vec(&with(Some(remembered))).unwrap();
            let kept = Description::parse(&kept, Path::new("d")).unwrap();
            assert_eq!(kept.choose_log(Some(asked)).unwrap(), asked);
        }
        let kept = serde_json::to_vec(&with(Some("nats://a,u:hunter2@b"))).unwrap();
        let refused = Description::parse(&kept, Path::new("d")).unwrap_err().to_string();
        assert!(
            refused.contains("d/cluster.json") && !refused.contains("hunter2"),
            "{refused}"
        );
    }

    #[test]
    fn what_names_no_log_is_refused_and_not_shown() {
        for asked in [
            "nats://u:hunter2,1@c",
            "u:hunter2@c",
            "hunter2",
            "nats://a,u:hunter2@c",
            "nats://u:hun,ter,2@c",
            "a,nats://b",
            "nats://a,",
            "nats://a\n",
            "",
        ] {
            let refused = with(None).choose_log(Some(asked)).unwrap_err();
            assert!(matches!(refused, HomeError::NoLog), "{asked}");
        }
    }
}
