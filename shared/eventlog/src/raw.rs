//! What the stores can do by themselves, for benchmarks: the same records with the same settings, and nothing of
//! ours around them.

use std::path::Path;

use crate::{SqliteOpenError, Stored, sqlite};

/// Appends records to a new SQLite file in groups as large as the embedded log's, without conditions, tails or
/// answers. Blocking.
///
/// # Errors
/// When the file cannot be made or written.
pub fn append(path: &Path, records: &[Stored]) -> Result<(), SqliteOpenError> {
    sqlite::append_raw(path, records)
}
