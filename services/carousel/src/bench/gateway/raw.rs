//! Raw limits: TLS by itself, with the same library, keys and profile.

use std::time::{Duration, Instant};

use domain::Timestamp;
use mtls::{SessionRegistry, raw::Alone};
use runtime::clock::SystemClock;
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::spread::Spread;
use crate::bench::{
    BenchError,
    machine::{memory_kib, thread_cpu},
};

/// Handshakes that are made to learn what one costs, and connections that stand to learn what one weighs.
const HANDSHAKES: u32 = 1_000;
/// Questions and answers of a byte over one connection.
const TRIPS: usize = 1_000;

/// What TLS alone takes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Raw {
    /// CPU time of a handshake with certificates on both sides, both sides together, in milliseconds.
    pub(crate) handshake_ms: f64,
    /// What one thread makes of them.
    pub(crate) handshakes_per_s: f64,
    /// A byte there and a byte back over a connection that stands.
    pub(crate) trip: Spread,
    /// The server's side of a connection that stands, without its socket.
    pub(crate) connection_kib: f64,
}

impl Raw {
    pub(crate) async fn measure() -> Result<Self, BenchError> {
        let alone = Alone::new(Timestamp(SystemClock::shared().now_ms()));
        let trip = trips(&alone).await.map_err(|e| BenchError::Raw(e.to_string()))?;
        let measured = tokio::task::spawn_blocking(move || handshakes(&alone)).await;
        let measured = measured.map_err(|e| BenchError::Raw(e.to_string()))?;
        let (cpu, connection_kib) = measured?;
        Ok(Self {
            handshake_ms: cpu.as_secs_f64() * 1e3 / f64::from(HANDSHAKES),
            handshakes_per_s: f64::from(HANDSHAKES) / cpu.as_secs_f64(),
            trip,
            connection_kib,
        })
    }
}

/// The CPU time of them all, and what one of them weighs as long as it stands.
fn handshakes(alone: &Alone) -> Result<(Duration, f64), BenchError> {
    let (process, mut standing) = (std::process::id(), vec![]);
    let (memory, began) = (memory_kib(process, "VmRSS:"), thread_cpu());
    for _ in 0..HANDSHAKES {
        standing.push(alone.handshake().map_err(|e| BenchError::Raw(e.to_string()))?);
    }
    let cpu = thread_cpu() - began;
    let grown = memory_kib(process, "VmRSS:").saturating_sub(memory);
    Ok((cpu, grown as f64 / f64::from(HANDSHAKES)))
}

async fn trips(alone: &Alone) -> Result<Spread, Box<dyn std::error::Error + Send + Sync>> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let (at, sessions) = (listener.local_addr()?.to_string(), SessionRegistry::new());
    let answering = async {
        let (tcp, _) = listener.accept().await?;
        let mut accepted = mtls::accept(tcp, alone.epochs(), &sessions).await?;
        for _ in 0..TRIPS {
            let byte = accepted.stream.read_u8().await?;
            accepted.stream.write_u8(byte).await?;
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    };
    let asking = async {
        let mut connected = mtls::connect(&at, alone.epochs(), &sessions, alone.expect()).await?;
        let mut times = vec![];
        for _ in 0..TRIPS {
            let asked = Instant::now();
            connected.stream.write_u8(1).await?;
            connected.stream.read_u8().await?;
            times.push(asked.elapsed());
        }
        Ok(times)
    };
    let ((), times) = tokio::try_join!(answering, asking)?;
    Ok(Spread::of(times))
}
