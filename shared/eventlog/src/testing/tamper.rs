//! What somebody with the disk can do to an embedded log while nobody serves it.

use std::path::Path;

use rusqlite::Connection;

/// Runs SQL on the file of a log that is closed, with its triggers taken away before and put back after: to the
/// next start it looks untouched.
///
/// # Panics
/// When the file is no log, or the SQL is wrong.
pub fn tamper(path: impl AsRef<Path>, sql: &str) {
    let connection = Connection::open(path).expect("the log's file can be opened");
    let triggers: Vec<(String, String)> = connection
        .prepare("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'")
        .and_then(|mut rows| {
            let pair = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            rows.query_map([], pair)?.collect()
        })
        .expect("the schema can be read");
    assert!(!triggers.is_empty(), "a log has triggers");
    let without: String = triggers
        .iter()
        .map(|(name, _)| format!("DROP TRIGGER {name};"))
        .collect();
    let again: String = triggers.iter().map(|(_, sql)| format!("{sql};")).collect();
    connection
        .execute_batch(&format!("BEGIN; {without} {sql}; {again} COMMIT;"))
        .expect("the SQL fits the log's table");
    // Everything in one file, as after a clean stop; the statement answers with a row that nobody needs.
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .expect("the log's file can be written");
}
