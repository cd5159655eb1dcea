//! The file: how it is made, locked, recognised and looked over before anybody relies on it.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::Subject;

/// "CRSL" in ASCII: what makes a SQLite file a log of ours.
const APPLICATION_ID: i64 = 0x4352_534C;

/// Raised when an older build could no longer read or write the file.
const VERSION: i64 = 1;

/// Up to this size a file is checked page by page at every start; a larger one only by its positions.
const QUICK_CHECK_BYTES: u64 = 64 * 1024 * 1024;

/// Append-only by the database itself: whoever opens the file with SQLite's own tools meets the same rules.
/// The insert trigger also stops `INSERT OR REPLACE`, which would otherwise delete without a delete trigger.
const TABLES: &str = "
CREATE TABLE events (seq INTEGER PRIMARY KEY, subject TEXT NOT NULL, data BLOB NOT NULL) STRICT;
CREATE TRIGGER events_are_appended BEFORE INSERT ON events
  WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events)
  BEGIN SELECT RAISE(ABORT, 'events are appended at the next position only'); END;
CREATE TRIGGER events_are_not_changed BEFORE UPDATE ON events
  BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER events_are_not_deleted BEFORE DELETE ON events
  BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
CREATE TABLE leases (key TEXT PRIMARY KEY, value BLOB NOT NULL, ttl_ms INTEGER NOT NULL,
  revision INTEGER NOT NULL) STRICT;
";

/// The triggers without which the file is no longer append-only.
const TRIGGERS: [&str; 3] = [
    "events_are_appended",
    "events_are_not_changed",
    "events_are_not_deleted",
];

/// Why an embedded log was not opened. The file is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SqliteOpenError {
    /// Another process writes it.
    #[error("the log {} is in use by another process; stop that one first", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Reading was asked for, and there is nothing.
    #[error("there is no log at {}; check the data directory", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Some other file.
    #[error("{} is not a Carousel log ({detail}); check the data directory", .path.display())]
    NotALog {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        detail: String,
    },
    /// Written by a newer build.
    #[error("the log {} has format {found}, this build knows {VERSION}; use the newer build again", .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// Not what was once written.
    #[error("the log {} is damaged ({detail}); keep the file as it is and restore it from a copy", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The file system's or SQLite's own error.
    #[error("the log {} could not be opened; check its owner, its mode and the space on its disk", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error underneath.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Takes the writer's lock. It ends with the process, however that ends.
///
/// A file of its own: closing any other handle on the database would drop SQLite's own locks on it.
pub(super) fn lock(path: &Path) -> Result<File, SqliteOpenError> {
    let beside = with_suffix(path, ".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .map_err(|source| SqliteOpenError::io(&beside, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SqliteOpenError::InUse { path: path.into() }),
        Err(TryLockError::Error(source)) => Err(SqliteOpenError::io(&beside, source)),
    }
}

/// Makes an empty log under another name and renames it once it is durable.
///
/// A crash before the rename leaves no log, so that a file under the final name is always whole: an empty or
/// short one was truncated, and is refused.
pub(super) fn create(path: &Path) -> Result<(), SqliteOpenError> {
    let fresh = with_suffix(path, ".new");
    let io = |source: io::Error| SqliteOpenError::io(path, source);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(io)?;
    let sqlite = |source| classify(path, source);
    let connection = Connection::open(&fresh).map_err(sqlite)?;
    let script = format!(
        "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; BEGIN; {TABLES}
         PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
    );
    connection.execute_batch(&script).map_err(sqlite)?;
    connection.close().map_err(|(_, source)| sqlite(source))?;
    fs::rename(&fresh, path).map_err(io)?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io)
}

/// Refuses what is visibly no log before SQLite gets to see it, and possibly to change it.
pub(super) fn check_file(path: &Path) -> Result<(), SqliteOpenError> {
    let bytes = match fs::metadata(path) {
        Ok(found) if found.is_file() => found.len(),
        Ok(_) => {
            return Err(SqliteOpenError::NotALog {
                path: path.into(),
                detail: "not a file".into(),
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SqliteOpenError::Missing { path: path.into() });
        }
        Err(source) => return Err(SqliteOpenError::io(path, source)),
    };
    if bytes == 0 {
        return Err(SqliteOpenError::Damaged {
            path: path.into(),
            detail: "the file is empty".into(),
        });
    }
    check_length(path, bytes)
}

/// The header says how many pages there are. SQLite itself fills a page that lost its end with zeros.
///
/// While a WAL holds newer pages the header may lag, so that the check is made once it is empty.
fn check_length(path: &Path, bytes: u64) -> Result<(), SqliteOpenError> {
    let io = |source| SqliteOpenError::io(path, source);
    if fs::metadata(with_suffix(path, "-wal")).is_ok_and(|wal| wal.len() > 0) {
        return Ok(());
    }
    let mut header = [0; 100];
    if let Err(error) = File::open(path).map_err(io)?.read_exact(&mut header) {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => Err(SqliteOpenError::Damaged {
                path: path.into(),
                detail: "the file is too short".into(),
            }),
            _ => Err(io(error)),
        };
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return Err(SqliteOpenError::NotALog {
            path: path.into(),
            detail: "not a SQLite file".into(),
        });
    }
    // Bytes 16 and 28 of the file format: page size (1 means 65536) and number of pages, big-endian.
    let page = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    let expected = page
        * u64::from(u32::from_be_bytes([
            header[28], header[29], header[30], header[31],
        ]));
    if bytes == expected {
        return Ok(());
    }
    let detail = format!("the file has {bytes} bytes, its header says {expected}");
    Err(SqliteOpenError::Damaged {
        path: path.into(),
        detail,
    })
}

/// Opens the file for writing after looking it over.
pub(super) fn open_writer(path: &Path) -> Result<Connection, SqliteOpenError> {
    check_file(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = open(path, flags)?;
    let settings = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF;";
    connection
        .execute_batch(settings)
        .map_err(|source| classify(path, source))?;
    let bytes = fs::metadata(path)
        .map_err(|source| SqliteOpenError::io(path, source))?
        .len();
    if bytes <= QUICK_CHECK_BYTES {
        quick_check(path, &connection)?;
    }
    // What a crash has left in the WAL is moved into the file, whose length can then be compared.
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(|source| classify(path, source))?;
    check_file(path)?;
    Ok(connection)
}

/// Opens the file for reading only.
pub(super) fn open_reader(path: &Path) -> Result<Connection, SqliteOpenError> {
    open(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )
}

/// Reads all positions and subjects once: no hole may be among them, and the last ones are the tails.
pub(super) fn scan(
    path: &Path,
    connection: &Connection,
) -> Result<(HashMap<Subject, u64>, u64), SqliteOpenError> {
    let damaged = |detail: String| SqliteOpenError::Damaged {
        path: path.into(),
        detail,
    };
    let sqlite = |source| classify(path, source);
    let mut statement = connection
        .prepare("SELECT seq, subject FROM events ORDER BY seq")
        .map_err(sqlite)?;
    let mut rows = statement.query([]).map_err(sqlite)?;
    let (mut tails, mut last) = (HashMap::<Subject, u64>::new(), 0);
    while let Some(row) = rows.next().map_err(sqlite)? {
        let position: u64 = row.get(0).map_err(sqlite)?;
        if position != last + 1 {
            return Err(damaged(format!("position {} is missing", last + 1)));
        }
        let subject: String = row.get(1).map_err(sqlite)?;
        let subject =
            Subject::parse(subject).map_err(|error| damaged(format!("position {position}: {error}")))?;
        tails.insert(subject, position);
        last = position;
    }
    Ok((tails, last))
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, SqliteOpenError> {
    let sqlite = |source| classify(path, source);
    let connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(sqlite)?;
    // The tables are read first: SQLite opens lazily, and this is where it meets a file that is none of its own.
    let names: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
        .map_err(sqlite)?;
    let pragma = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(sqlite)
    };
    let application = pragma("application_id")?;
    if application != APPLICATION_ID {
        let detail = format!("a SQLite file with application id {application:#x}");
        return Err(SqliteOpenError::NotALog {
            path: path.into(),
            detail,
        });
    }
    let version = pragma("user_version")?;
    if version > VERSION {
        return Err(SqliteOpenError::Newer {
            path: path.into(),
            found: version,
        });
    }
    match TRIGGERS
        .iter()
        .chain(&["events", "leases"])
        .find(|name| !names.iter().any(|have| have == *name))
    {
        Some(name) => Err(SqliteOpenError::Damaged {
            path: path.into(),
            detail: format!("{name} is missing from its schema"),
        }),
        None => Ok(connection),
    }
}

fn quick_check(path: &Path, connection: &Connection) -> Result<(), SqliteOpenError> {
    let finding: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| classify(path, source))?;
    if finding == "ok" {
        return Ok(());
    }
    let detail = finding.lines().collect::<Vec<_>>().join("; ");
    Err(SqliteOpenError::Damaged {
        path: path.into(),
        detail,
    })
}

/// SQLite's error as what it means for the file.
pub(super) fn classify(path: &Path, source: rusqlite::Error) -> SqliteOpenError {
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => SqliteOpenError::NotALog {
            path: path.into(),
            detail: "not a SQLite file".into(),
        },
        Some(ErrorCode::DatabaseCorrupt) => SqliteOpenError::Damaged {
            path: path.into(),
            detail: source.to_string(),
        },
        _ => SqliteOpenError::Io {
            path: path.into(),
            source: source.into(),
        },
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl SqliteOpenError {
    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source: source.into(),
        }
    }

    pub(super) fn panicked(source: tokio::task::JoinError) -> Self {
        Self::Io {
            path: PathBuf::new(),
            source: source.into(),
        }
    }
}
