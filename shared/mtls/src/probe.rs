//! Probes: a handshake, bytes exchanged, and what both sides saw of each other.
//!
//! The protocol is one line each way: the client sends `carousel-probe/1`, the server answers with one
//! line of JSON, a [`ProbeAnswer`]. Its answer is the proof that it accepted our certificate.

use std::{collections::BTreeSet, io};

use domain::{CertDigest, SpkiPin};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    time::timeout,
};

use crate::{
    accept::{Accepted, HANDSHAKE_TIMEOUT},
    connect::connect,
    epoch::TrustEpoch,
    epochs::Epochs,
    error::TlsError,
    identity::{Expect, PeerIdentity},
    registry::SessionRegistry,
};

/// What a client sends.
const QUESTION: &[u8] = b"carousel-probe/1\n";
/// The longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 4 * 1024;

/// What the server says about the connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ProbeAnswer {
    /// The certificate that it served.
    pub served: CertDigest,
    /// Its issuer.
    pub issuer: SpkiPin,
    /// The URI of the client, as the server verified it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The issuer of the client's certificate, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_issuer: Option<SpkiPin>,
}

/// A probe that succeeded: the server accepted our certificate and we accepted its.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeResult {
    /// The server: issuer, expiry, URI.
    pub identity: PeerIdentity,
    /// The subjects (DER) of the authorities whose clients it accepts, from its CertificateRequest.
    pub ca_names: BTreeSet<Vec<u8>>,
    /// What it answered.
    pub answer: ProbeAnswer,
    /// Bytes that were exchanged over TLS, both ways.
    pub bytes: usize,
}

impl ProbeResult {
    /// Does the server accept clients of exactly the authorities of this epoch, no more and no fewer?
    /// This proves that the trust is in force, not merely installed.
    pub fn trusts_exactly(&self, epoch: &TrustEpoch) -> bool {
        self.ca_names == epoch.ca_names()
    }

    /// The authorities of this epoch that the server accepts clients of, and how many others it named.
    pub fn trusted(&self, epoch: &TrustEpoch) -> (BTreeSet<SpkiPin>, usize) {
        let known: BTreeSet<_> = self
            .ca_names
            .iter()
            .filter_map(|name| epoch.authority_named(name))
            .collect();
        let strangers = self.ca_names.len() - known.len();
        (known, strangers)
    }
}

/// Probes the server at `host:port`.
pub async fn probe(
    addr: &str,
    epochs: &Epochs,
    sessions: &SessionRegistry,
    expect: &Expect,
) -> Result<ProbeResult, TlsError> {
    let mut connected = connect(addr, epochs, sessions, expect).await?;
    let mut line = Vec::new();
    let exchange = async {
        connected.stream.write_all(QUESTION).await?;
        connected.stream.flush().await?;
        let mut reader = BufReader::new((&mut connected.stream).take(MAX_ANSWER_BYTES));
        reader.read_until(b'\n', &mut line).await
    };
    timeout(HANDSHAKE_TIMEOUT, exchange)
        .await
        .map_err(|_| TlsError::Timeout {
            after: HANDSHAKE_TIMEOUT,
        })?
        .map_err(TlsError::of_io)?;
    let answer = serde_json::from_slice(&line).map_err(|_| {
        TlsError::Broken(io::Error::new(
            io::ErrorKind::InvalidData,
            "the server gave no answer to the probe",
        ))
    })?;
    let bytes = QUESTION.len() + line.len();
    Ok(ProbeResult {
        identity: connected.peer,
        ca_names: connected.ca_names,
        answer,
        bytes,
    })
}

/// Answers one probe on an accepted connection and ends it. Serve it as long as [`crate::Session::closed`]
/// does not resolve.
pub async fn answer_probe(accepted: &mut Accepted) -> Result<(), TlsError> {
    let answer = ProbeAnswer {
        served: accepted.served_digest,
        issuer: accepted.served,
        client: accepted.peer.as_ref().map(|p| p.uri.clone()),
        client_issuer: accepted.peer.as_ref().map(|p| p.issuer),
    };
    let mut text = serde_json::to_vec(&answer).expect("an answer has string keys only and can be written");
    text.push(b'\n');
    let exchange = async {
        let mut question = [0; QUESTION.len()];
        accepted.stream.read_exact(&mut question).await?;
        if question != QUESTION {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a probe of this version",
            ));
        }
        accepted.stream.write_all(&text).await?;
        accepted.stream.shutdown().await
    };
    timeout(HANDSHAKE_TIMEOUT, exchange)
        .await
        .map_err(|_| TlsError::Timeout {
            after: HANDSHAKE_TIMEOUT,
        })?
        .map_err(TlsError::of_io)
}
