//! The time, as a handle: certificates expire by the same clock that the rest of the process reads.

use std::{fmt, sync::Arc, time::Duration};

use domain::Timestamp;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Reads the wall clock. Tests and the simulation give one that they hold.
#[derive(Clone)]
pub struct Now(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Now {
    /// Takes a function that returns milliseconds since 1970.
    pub fn new(read_ms: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(read_ms))
    }

    /// The time.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp((self.0)())
    }

    /// The time as TLS wants it; a clock before 1970 reads as 1970, where no certificate is valid.
    pub(crate) fn unix(&self) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_millis(u64::try_from((self.0)()).unwrap_or(0)))
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Now({})", self.timestamp())
    }
}

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.unix())
    }
}
