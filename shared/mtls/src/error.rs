//! What went wrong with a connection, told apart by what to do about it.

use std::{collections::BTreeSet, error::Error as StdError, fmt, io, time::Duration};

use domain::{CertDigest, SpkiPin, Timestamp};
use rustls::AlertDescription;

/// A set of authorities, as an error shows it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pins(pub BTreeSet<SpkiPin>);

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, pin) in self.0.iter().enumerate() {
            write!(f, "{}{pin}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Why we refuse a peer's certificate.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeerFault {
    /// No trusted authority signed it.
    #[error("the peer's certificate was issued by {}, trusted here: {trusted}", shown(*.presented))]
    UnknownIssuer {
        /// The authority that the certificate names, if it names one in our way.
        presented: Option<SpkiPin>,
        /// What is trusted here.
        trusted: Pins,
    },
    /// Its life is over.
    #[error("the peer's certificate expired {not_after}; it must renew or recover (or this clock is wrong)")]
    Expired {
        /// The end of its life.
        not_after: Timestamp,
    },
    /// Its life has not begun.
    #[error("the peer's certificate is valid only from {not_before}; compare the clocks")]
    NotYetValid {
        /// The beginning of its life.
        not_before: Timestamp,
    },
    /// It stands on the deny list.
    #[error("the peer's certificate {digest} was revoked")]
    Denied {
        /// Which certificate.
        digest: CertDigest,
    },
    /// A server's certificate presented as a client's, or the other way round.
    #[error("the peer's certificate is not for this use (client or server)")]
    WrongUsage,
    /// A good certificate of somebody else.
    #[error("the peer is {found}, wanted was {expected}; check the address")]
    WrongIdentity {
        /// Its URI.
        found: String,
        /// Who was wanted.
        expected: String,
    },
    /// Not a certificate of our kind.
    #[error("the peer's certificate is not one of Carousel's: {0}")]
    Malformed(&'static str),
    /// It was changed, or signed by a stranger in an authority's name.
    #[error("the signature of the peer's certificate does not verify")]
    BadSignature,
    /// It has none where one is needed.
    #[error("the peer presented no certificate; it must present one of this cluster")]
    NoCertificate,
}

fn shown(pin: Option<SpkiPin>) -> String {
    pin.map_or_else(|| "an unnamed authority".into(), |pin| pin.to_string())
}

/// Why a peer refuses ours, as far as TLS tells (RFC 8446, section 6.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeerRefusal {
    /// It does not trust our issuer.
    #[error("it does not trust the issuer of our certificate")]
    UnknownIssuer,
    /// Ours has expired, by its clock.
    #[error("our certificate has expired by its clock")]
    Expired,
    /// Ours is on its deny list.
    #[error("our certificate was revoked")]
    Revoked,
    /// It wants one.
    #[error("it requires a certificate and we presented none")]
    CertificateRequired,
    /// It wanted somebody else.
    #[error("it wanted another identity than ours")]
    WrongIdentity,
    /// Anything else about our certificate.
    #[error("it does not accept our certificate")]
    Certificate,
    /// No version, cipher or protocol in common.
    #[error("there is no TLS 1.3 configuration or protocol in common")]
    Incompatible,
}

/// A connection that could not be made or was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Nobody answers there.
    #[error("{addr} cannot be reached")]
    Unreachable {
        /// The address.
        addr: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The other side was silent.
    #[error("the handshake was not complete after {} s", after.as_secs())]
    Timeout {
        /// How long was waited.
        after: Duration,
    },
    /// We refuse the peer.
    #[error(transparent)]
    Peer(#[from] PeerFault),
    /// The peer refuses us. Of a server only after the handshake, when it has proved who it is.
    #[error("the peer refused the connection: {0}")]
    Refused(PeerRefusal),
    /// The authority of our own certificate was dropped while the handshake went on.
    #[error("our own certificate was replaced during the handshake; dial again")]
    Changed,
    /// There is nothing to serve yet.
    #[error("no server certificate is installed yet")]
    NotServing,
    /// The connection broke, or the other side does not speak our protocol.
    #[error("the connection broke or the peer does not speak TLS 1.3")]
    Broken(#[source] io::Error),
}

impl TlsError {
    /// Is it about trust (whom we trust, who trusts us), so that fetching the newest signed bundle or
    /// recovering may help, and dialling again alone does not?
    pub fn is_trust_failure(&self) -> bool {
        match self {
            Self::Peer(_) => true,
            Self::Refused(refusal) => *refusal != PeerRefusal::Incompatible,
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Changed
            | Self::NotServing
            | Self::Broken(_) => false,
        }
    }

    /// With what the system said, in one line.
    pub fn in_words(&self) -> String {
        let source = self.source();
        source.map_or_else(|| self.to_string(), |source| format!("{self}: {source}"))
    }

    /// May dialling again help?
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::Peer(_) | Self::Refused(_))
    }

    /// Sorts an error of a handshake or of a stream after it.
    pub fn of_io(error: io::Error) -> Self {
        match refused_by_peer(&error) {
            Some(refusal) => Self::Refused(refusal),
            None => match find::<rustls::Error>(&error) {
                Some(rustls::Error::NoCertificatesPresented) => Self::Peer(PeerFault::NoCertificate),
                _ => Self::Broken(error),
            },
        }
    }
}

/// Finds a peer's refusal in an error and its causes: of a read, of an HTTP exchange, of anything that
/// keeps its source. `None` if the peer did not refuse us by TLS.
pub fn refused_by_peer(error: &(dyn StdError + 'static)) -> Option<PeerRefusal> {
    use AlertDescription as A;
    let rustls::Error::AlertReceived(alert) = find::<rustls::Error>(error)? else {
        return None;
    };
    Some(match alert {
        A::UnknownCA => PeerRefusal::UnknownIssuer,
        A::CertificateExpired => PeerRefusal::Expired,
        A::CertificateRevoked => PeerRefusal::Revoked,
        A::CertificateRequired | A::NoCertificate => PeerRefusal::CertificateRequired,
        A::AccessDenied => PeerRefusal::WrongIdentity,
        A::BadCertificate | A::UnsupportedCertificate | A::CertificateUnknown | A::DecryptError => {
            PeerRefusal::Certificate
        }
        A::ProtocolVersion | A::HandshakeFailure | A::NoApplicationProtocol | A::MissingExtension => {
            PeerRefusal::Incompatible
        }
        _ => return None,
    })
}

/// Walks the causes. An `io::Error` keeps what it wraps in a place of its own.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}
