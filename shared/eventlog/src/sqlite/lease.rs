//! Leases in the log's file, beside the events: the only rows here that are ever changed.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rusqlite::Connection;

use crate::{Lease, LeaseError};

/// When each lease vanishes, on this process's monotonic clock: no wall clock is stored or compared.
///
/// The rows outlive the process, so that a reader after a restart sees who was there, with unchanged
/// revisions; each then has its whole ttl once more.
#[derive(Debug)]
pub(super) struct Leases {
    until: HashMap<String, Instant>,
    revision: u64,
}

impl Leases {
    /// Takes over what an earlier process left.
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let now = Instant::now();
        let mut leases = Self {
            until: HashMap::new(),
            revision: 0,
        };
        let mut statement = connection.prepare("SELECT key, ttl_ms, revision FROM leases")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            leases
                .until
                .insert(row.get(0)?, now + Duration::from_millis(row.get(1)?));
            leases.revision = leases.revision.max(row.get(2)?);
        }
        Ok(leases)
    }

    /// Writes or renews one; durable like an event, though nobody relies on that.
    pub(super) fn put(
        &mut self,
        connection: &Connection,
        key: String,
        value: &[u8],
        ttl: Duration,
    ) -> Result<(), LeaseError> {
        let revision = self.revision + 1;
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).min(3_600_000);
        let sql = "INSERT INTO leases (key, value, ttl_ms, revision) VALUES (?1, ?2, ?3, ?4)
            ON CONFLICT (key) DO UPDATE SET value = ?2, ttl_ms = ?3, revision = ?4";
        connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute((&key, value, ttl_ms, revision)))
            .map_err(unavailable)?;
        self.revision = revision;
        self.until
            .insert(key, Instant::now() + Duration::from_millis(ttl_ms));
        Ok(())
    }

    /// Those that have not vanished; vanished ones are removed from the file on this occasion.
    pub(super) fn list(&mut self, connection: &Connection) -> Result<Vec<Lease>, LeaseError> {
        let now = Instant::now();
        let gone: Vec<String> = self
            .until
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.remove(connection, &key)?;
        }
        let mut statement = connection
            .prepare_cached("SELECT key, value, revision FROM leases ORDER BY key")
            .map_err(unavailable)?;
        let rows = statement.query_map([], |row| {
            let value: Vec<u8> = row.get(1)?;
            Ok(Lease {
                key: row.get(0)?,
                value: Bytes::from(value),
                revision: row.get(2)?,
            })
        });
        rows.and_then(|rows| rows.collect()).map_err(unavailable)
    }

    /// Removes one, or nothing.
    pub(super) fn remove(&mut self, connection: &Connection, key: &str) -> Result<(), LeaseError> {
        connection
            .execute("DELETE FROM leases WHERE key = ?1", [key])
            .map_err(unavailable)?;
        self.until.remove(key);
        Ok(())
    }
}

fn unavailable(source: rusqlite::Error) -> LeaseError {
    LeaseError::Unavailable {
        detail: source.to_string(),
    }
}
