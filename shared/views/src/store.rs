//! The store: one sled tree, locked by one process.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use domain::{EventId, Position};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// What sled may keep in memory. Its own default is a gigabyte.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// A leaf of the tree, sixteen documents, that is larger than a quarter of this is a file of its own. Those that a killed
/// process had replaced are never removed, so that they should be rare.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;
/// On the disk views may weigh so many times what their documents weigh, and this much more.
const MOST_TIMES: u64 = 8;
const MOST_MORE: u64 = 64 * 1024 * 1024;
/// Keys of this crate begin with a byte that no document key begins with.
const MARK_KEY: &[u8] = b"\0mark";
const SCHEMA_KEY: &[u8] = b"\0schema";

/// Up to where the log is in the views: the position, and the event that stood there, to notice another log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Mark {
    /// The last event that was projected; 0 for empty views.
    pub position: Position,
    /// Its id.
    pub event: Option<EventId>,
}

/// Why views were thrown away. None of these loses anything but the time to read the log again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// There were none.
    Absent,
    /// They could not be opened or read.
    Damaged,
    /// Another version wrote them.
    Schema,
    /// They are of another log, or ahead of this one.
    OtherLog,
    /// They had grown far beyond their documents.
    Bloated,
}

impl Doubt {
    /// A stable name for the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Damaged => "damaged",
            Self::Schema => "schema",
            Self::OtherLog => "other_log",
            Self::Bloated => "bloated",
        }
    }
}

/// Why views cannot be used, although they could be made anew.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// Another process has them.
    #[error("the views {} are in use by another process; stop that one first", .0.display())]
    InUse(PathBuf),
    /// The directory cannot be made, locked or removed.
    #[error("the views {} cannot be used; check their owner, their mode and the space on the disk", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The store's own error.
    #[error("the views {} cannot be read or written", .path.display())]
    Store {
        /// The directory.
        path: PathBuf,
        /// What sled said.
        #[source]
        source: sled::Error,
    },
    /// They are being opened again.
    #[error("the views {} are opened again after the disk failed", .0.display())]
    Away(PathBuf),
    /// A document is not what was written.
    #[error("a document of the views cannot be read ({0}); they are made anew")]
    Document(String),
}

/// Changes that take effect together with their mark.
#[derive(Default)]
pub struct Batch {
    changes: Vec<(String, Option<Vec<u8>>)>,
}

impl Batch {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a document. Of several for one key the last one counts.
    ///
    /// # Panics
    /// If the document has a map with keys that are no text: a bug of its shape.
    pub fn put(&mut self, key: impl Into<String>, document: &impl Serialize) {
        self.changes.push((key.into(), Some(encoded(document))));
    }

    /// Removes a document; one that is not there is no error.
    pub fn remove(&mut self, key: impl Into<String>) {
        self.changes.push((key.into(), None));
    }

    fn into_sled(self) -> sled::Batch {
        let mut changes = sled::Batch::default();
        for (key, document) in self.changes {
            match document {
                Some(bytes) => changes.insert(key.as_bytes(), bytes),
                None => changes.remove(key.as_bytes()),
            }
        }
        changes
    }
}

/// Documents by key. Cheap to clone; blocking, but short.
#[derive(Clone)]
pub struct ViewStore {
    path: PathBuf,
    /// None while they are opened again.
    db: Arc<RwLock<Option<sled::Db>>>,
    /// Held as long as any handle: sled's own lock cannot be told from damage by its error.
    _lock: Arc<File>,
}

impl ViewStore {
    /// Opens the views of this schema, or empty ones when there is any doubt; says which doubt it was.
    ///
    /// # Errors
    /// `InUse` when another process has them; `Io` when not even empty ones can be made.
    pub fn open(path: &Path, schema: u32) -> Result<(Self, Option<Doubt>), ViewError> {
        let lock = Arc::new(lock(path)?);
        let (db, doubt) = open_or_begin(path, schema)?;
        let store = Self {
            path: path.into(),
            db: Arc::new(RwLock::new(Some(db))),
            _lock: lock,
        };
        Ok((store, doubt))
    }

    /// Opens them again, in every handle, after the disk failed: what sled could not write once it never writes again.
    /// What was not on the disk yet is gone, so that the mark may be an earlier one; views that are not whole begin anew.
    ///
    /// # Errors
    /// `Io` while the disk is no better; until the next call there are no views to be had.
    pub fn reopen(&self, schema: u32) -> Result<Option<Doubt>, ViewError> {
        let mut db = self.db.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: sled lets no second handle in. Whoever reads at this moment has one of his own a little longer;
        // then the views cannot be opened and begin anew, which loses nothing.
        *db = None;
        let (opened, doubt) = open_or_begin(&self.path, schema)?;
        *db = Some(opened);
        Ok(doubt)
    }

    fn db(&self) -> Result<sled::Db, ViewError> {
        // Nothing that is done under this lock leaves it half done.
        let db = self.db.read().unwrap_or_else(PoisonError::into_inner);
        db.clone().ok_or_else(|| ViewError::Away(self.path.clone()))
    }

    /// Up to where the log is in them.
    ///
    /// # Errors
    /// `Store`, `Document`: they are in doubt.
    pub fn mark(&self) -> Result<Mark, ViewError> {
        Ok(self.read(MARK_KEY)?.unwrap_or_default())
    }

    /// Makes the changes of a batch and moves the mark, both or neither. Not yet durable: after a crash the views
    /// are right up to an earlier mark, and the log says the rest again.
    ///
    /// # Errors
    /// `Store`.
    pub fn apply(&self, batch: Batch, mark: &Mark) -> Result<(), ViewError> {
        let mut changes = batch.into_sled();
        changes.insert(MARK_KEY, serde_json::to_vec(mark).expect("a mark is plain data"));
        self.db()?
            .apply_batch(changes)
            .map_err(|source| self.failed(source))
    }

    /// Writes a part of many changes, one after the other; the mark comes with the last part, by [`ViewStore::apply`]. After
    /// a crash in between these documents may be newer than the mark. Quickest in the order of the keys.
    ///
    /// # Errors
    /// `Store`.
    pub fn fill(&self, part: Batch) -> Result<(), ViewError> {
        let db = self.db()?;
        for (key, document) in part.changes {
            let written = match document {
                Some(bytes) => db.insert(key, bytes),
                None => db.remove(key),
            };
            written.map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// One document.
    ///
    /// # Errors
    /// `Store`, `Document`: the views are in doubt.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, ViewError> {
        self.read(key.as_bytes())
    }

    /// Every document whose key begins so, in the order of the keys.
    ///
    /// # Errors
    /// `Store`, `Document`: the views are in doubt.
    pub fn scan<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, ViewError> {
        let db = self.db()?;
        let entries = db.scan_prefix(prefix.as_bytes());
        entries
            .map(|entry| {
                let (key, bytes) = entry.map_err(|source| self.failed(source))?;
                document(&key, &bytes)
            })
            .collect()
    }

    /// Makes the documents whose keys begin so exactly these, with the rest of the batch: what is written already is not
    /// written again, and what is not among them goes. None of the keys may be in the batch before.
    ///
    /// # Errors
    /// `Store`: the views are in doubt.
    ///
    /// # Panics
    /// As [`Batch::put`].
    pub fn replace<D: Serialize>(
        &self,
        batch: &mut Batch,
        prefix: &str,
        documents: impl IntoIterator<Item = (String, D)>,
    ) -> Result<(), ViewError> {
        let entries = self.db()?.scan_prefix(prefix.as_bytes());
        let mut before = entries
            .collect::<Result<BTreeMap<_, _>, _>>()
            .map_err(|source| self.failed(source))?;
        for (key, document) in documents {
            let bytes = encoded(&document);
            if before.remove(key.as_bytes()).is_none_or(|was| *was != *bytes) {
                batch.changes.push((key, Some(bytes)));
            }
        }
        for gone in before.into_keys() {
            batch.remove(String::from_utf8_lossy(&gone));
        }
        Ok(())
    }

    /// Throws every document away, to begin anew at position 0. The schema stays.
    ///
    /// # Errors
    /// `Store`.
    pub fn clear(&self) -> Result<(), ViewError> {
        // The mark goes first: views that are half gone must not look as if they were whole.
        let db = self.db()?;
        db.remove(MARK_KEY).map_err(|source| self.failed(source))?;
        let keys = db.iter().keys();
        for key in keys.filter(|key| key.as_ref().is_ok_and(|key| **key != *SCHEMA_KEY)) {
            let key = key.map_err(|source| self.failed(source))?;
            db.remove(key).map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    fn read<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, ViewError> {
        let found = self.db()?.get(key).map_err(|source| self.failed(source))?;
        found.map(|bytes| document(key, &bytes)).transpose()
    }

    fn failed(&self, source: sled::Error) -> ViewError {
        ViewError::Store {
            path: self.path.clone(),
            source,
        }
    }
}

fn encoded(document: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("documents have string keys")
}

fn document<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, ViewError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ViewError::Document(format!("{}: {error}", String::from_utf8_lossy(key))))
}

/// The views of this schema, or empty ones when there is any doubt; says which doubt it was.
fn open_or_begin(path: &Path, schema: u32) -> Result<(sled::Db, Option<Doubt>), ViewError> {
    let io = |source| ViewError::Io {
        path: path.into(),
        source,
    };
    let is_new = !path.exists();
    let doubt = match open_sled(path) {
        Ok(db) => {
            let found = db.get(SCHEMA_KEY).ok().flatten();
            let is_known = found.is_some_and(|version| *version == schema.to_be_bytes());
            if is_known && !is_bloated(&db) {
                return Ok((db, None));
            }
            drop(db);
            match (is_new, is_known) {
                (true, _) => Doubt::Absent,
                (false, true) => Doubt::Bloated,
                (false, false) => Doubt::Schema,
            }
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), error, "the views cannot be opened");
            Doubt::Damaged
        }
    };
    // Crash point: removed and not made anew is the same as absent.
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    let db = open_sled(path).map_err(|error| io(io::Error::other(error)))?;
    let written = db.insert(SCHEMA_KEY, &schema.to_be_bytes());
    written.map_err(|source| ViewError::Store {
        path: path.into(),
        source,
    })?;
    Ok((db, Some(doubt)))
}

/// Do they take far more of the disk than their documents weigh? Documents are only read where they take much.
fn is_bloated(db: &sled::Db) -> bool {
    let Some(beyond) = db
        .size_on_disk()
        .ok()
        .and_then(|size| size.checked_sub(MOST_MORE))
    else {
        return false;
    };
    let documents: usize = db
        .iter()
        .flatten()
        .map(|(key, document)| key.len() + document.len())
        .sum();
    beyond > MOST_TIMES * documents as u64
}

/// Opens sled. It may panic on files that are none of its own; that is a doubt like any other error.
fn open_sled(path: &Path) -> Result<sled::Db, String> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        .segment_size(SEGMENT_BYTES);
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open())) {
        Ok(opened) => opened.map_err(|error| error.to_string()),
        Err(_) => Err("sled gave up on what it found".into()),
    }
}

/// The lock ends with the process, however that ends. It lies beside the directory, which may be removed.
fn lock(path: &Path) -> Result<File, ViewError> {
    let io = |source| ViewError::Io {
        path: path.into(),
        source,
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&name)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ViewError::InUse(path.into())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

#[cfg(test)]
mod tests;
