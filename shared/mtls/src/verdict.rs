//! Carries a verifier's verdict out of the handshake that asked for it.
//!
//! TLS reports a refused peer as one of a few alerts, without the pins that a person needs, and an
//! accepted one as bare bytes. A verifier is called within the poll of its handshake's future, so a
//! task-local slot around that future belongs to exactly one handshake.

use std::{cell::RefCell, io};

use rustls::{CertificateError, CommonState};

use crate::{
    error::{PeerFault, TlsError},
    identity::PeerIdentity,
};

/// What a verifier found.
pub(crate) type Verdict = Result<PeerIdentity, PeerFault>;

tokio::task_local! {
    static SLOT: RefCell<Option<Verdict>>;
}

/// Runs a handshake and returns its result with the verdict on the peer, if there was one.
pub(crate) async fn judged<T>(handshake: impl Future<Output = T>) -> (T, Option<Verdict>) {
    SLOT.scope(RefCell::new(None), async {
        let result = handshake.await;
        (result, SLOT.with(RefCell::take))
    })
    .await
}

/// The peer of a complete handshake; none if it presented no certificate.
///
/// The verdict belongs to the connection exactly if it is about the certificate that TLS verified.
pub(crate) fn peer_of(
    connection: &CommonState,
    verdict: Option<Verdict>,
) -> Result<Option<PeerIdentity>, TlsError> {
    let leaf = connection.peer_certificates().and_then(<[_]>::first);
    match (leaf, verdict) {
        (None, _) => Ok(None),
        (Some(leaf), Some(Ok(peer))) if peer.digest.0 == pki::sha256(leaf) => Ok(Some(peer)),
        (Some(_), Some(Err(fault))) => Err(TlsError::Peer(fault)),
        (Some(_), _) => Err(TlsError::Broken(io::Error::other(
            "the handshake ended without a verdict on the peer",
        ))),
    }
}

/// The error of a failed handshake: the verdict where there was one, else what TLS or the system said.
pub(crate) fn failure(error: io::Error, verdict: Option<Verdict>) -> TlsError {
    verdict
        .and_then(Result::err)
        .map_or_else(|| TlsError::of_io(error), TlsError::Peer)
}

/// Leaves the verdict in the slot and translates it for TLS, so that the peer gets the right alert.
pub(crate) fn give(verdict: Verdict) -> Result<(), rustls::Error> {
    let answer = verdict
        .as_ref()
        .map(|_| ())
        .map_err(|fault| rustls::Error::from(alert(fault)));
    // Outside a handshake of ours there is nobody to tell.
    let _ = SLOT.try_with(|slot| slot.replace(Some(verdict)));
    answer
}

fn alert(fault: &PeerFault) -> CertificateError {
    match fault {
        PeerFault::UnknownIssuer { .. } => CertificateError::UnknownIssuer,
        PeerFault::Expired { .. } => CertificateError::Expired,
        PeerFault::NotYetValid { .. } => CertificateError::NotValidYet,
        PeerFault::Denied { .. } => CertificateError::Revoked,
        PeerFault::WrongIdentity { .. } | PeerFault::NoCertificate => {
            CertificateError::ApplicationVerificationFailure
        }
        PeerFault::WrongUsage | PeerFault::Malformed(_) => CertificateError::BadEncoding,
        PeerFault::BadSignature => CertificateError::BadSignature,
    }
}
