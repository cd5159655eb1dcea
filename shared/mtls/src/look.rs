//! A look at a TLS server of somebody else: whom it says that it accepts, and what it presents.
//!
//! Nothing is trusted here and nothing is sent: what was presented is for the caller to judge. The server has proved that
//! it holds the key of its certificate, and signed with it what it asked for (RFC 8446, section 4.4.3).

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, ring::default_provider, verify_tls13_signature},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::{accept::HANDSHAKE_TIMEOUT, connect::Presenter, error::TlsError, verify::tls12};

/// What a server showed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Looked {
    /// Its certificate, DER.
    pub presented: Vec<u8>,
    /// The subjects (DER) of the authorities whose clients it says it accepts; none if it did not ask for a
    /// certificate, or named nobody.
    pub ca_names: BTreeSet<Vec<u8>>,
}

/// Looks at the server at this address, by this name where it has one.
///
/// # Errors
/// [`TlsError`]: nobody answers, it does not speak TLS 1.3, or it does not hold the key of its certificate.
pub async fn look(at: SocketAddr, host: &str) -> Result<Looked, TlsError> {
    let unreachable = |source| TlsError::Unreachable {
        addr: at.to_string(),
        source,
    };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| unreachable(std::io::ErrorKind::InvalidInput.into()))?;
    let provider = Arc::new(default_provider());
    let witness = Arc::new(Witness {
        algorithms: provider.signature_verification_algorithms,
        proven: Mutex::default(),
    });
    let asked = Arc::new(Presenter::nothing());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| TlsError::Broken(std::io::Error::other(error)))?
        .dangerous()
        .with_custom_certificate_verifier(witness.clone())
        .with_client_cert_resolver(asked.clone());
    config.resumption = Resumption::disabled();
    let late = |_| TlsError::Timeout {
        after: HANDSHAKE_TIMEOUT,
    };
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    let tcp = timeout_at(deadline, TcpStream::connect(at)).await.map_err(late)?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, tcp.map_err(unreachable)?);
    // The handshake is over before the server misses our certificate: the stream is not read from.
    let stream = timeout_at(deadline, connecting).await.map_err(late)?;
    drop(stream.map_err(TlsError::of_io)?);
    let presented = witness
        .proven
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let presented =
        presented.ok_or_else(|| TlsError::Broken(std::io::Error::other("the server presented nothing")))?;
    let (_, ca_names) = asked.seen();
    Ok(Looked { presented, ca_names })
}

/// Takes any certificate whose key signs the handshake, by any algorithm that there is.
#[derive(Debug)]
struct Witness {
    algorithms: WebPkiSupportedAlgorithms,
    proven: Mutex<Option<Vec<u8>>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Deliberately no check: who issued it is what the caller wants to know.
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let valid = verify_tls13_signature(message, certificate, signed, &self.algorithms)?;
        *self.proven.lock().unwrap_or_else(PoisonError::into_inner) = Some(certificate.to_vec());
        Ok(valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
