//! Raw limits: the same work without anything of ours around it.

use std::{
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use eventlog::SharedLog;
use pki::{KeyPair, csr};

use super::{BenchError, machine::thread_cpu};

/// Certificates that are made to learn what one costs.
const SAMPLES: u32 = 2_000;
/// As long as the part of a leaf that is signed.
const TO_BE_SIGNED: [u8; 480] = [7; 480];
/// Records read at once.
const BATCH: usize = 4_096;

/// CPU time of one thread for what one certificate cannot do without.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerCertificate {
    /// The agent's key and request.
    pub(crate) agent: Duration,
    /// Our look at the request's signature, and the signature that makes the certificate.
    pub(crate) ours: Duration,
}

impl PerCertificate {
    /// Blocking: about a second.
    pub(crate) fn measure() -> Self {
        let authority = KeyPair::generate();
        let began = thread_cpu();
        let requests: Vec<String> = (0..SAMPLES)
            .map(|_| csr::make_pem(&KeyPair::generate()))
            .collect();
        let agent = thread_cpu() - began;
        let began = thread_cpu();
        for request in &requests {
            let _ = black_box(csr::parse_and_verify(request.as_bytes()));
            black_box(authority.sign_der(&TO_BE_SIGNED));
        }
        let ours = thread_cpu() - began;
        Self {
            agent: agent / SAMPLES,
            ours: ours / SAMPLES,
        }
    }

    /// Both.
    pub(crate) fn both(&self) -> Duration {
        self.agent + self.ours
    }
}

/// How long SQLite alone takes for the same records with the same settings, in groups as large as ours.
pub(crate) async fn append(log: &SharedLog, after: u64, dir: &Path) -> Result<Appended, BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::Raw(error.to_string());
    let mut records = vec![];
    loop {
        let from = after + records.len() as u64 + 1;
        let batch = log.read(from, BATCH).await.map_err(|e| failed(&e))?;
        if batch.is_empty() {
            break;
        }
        records.extend(batch);
    }
    let path = dir.join("raw.sqlite");
    let (events, bytes) = (
        records.len() as u64,
        records.iter().map(|r| r.data.len() as u64).sum(),
    );
    let began = Instant::now();
    tokio::task::spawn_blocking(move || eventlog::raw::append(&path, &records))
        .await
        .map_err(|e| failed(&e))?
        .map_err(|e| failed(&e))?;
    Ok(Appended {
        events,
        bytes,
        took: began.elapsed(),
    })
}

/// What was appended raw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) events: u64,
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
}
