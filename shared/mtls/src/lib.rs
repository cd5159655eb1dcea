//! Live connections: who may connect to whom, swapped as a whole with every change of trust.
//!
//! A [`TrustEpoch`] is everything a process trusts and presents at one moment. [`Epochs`] holds the
//! current one; [`accept`] and [`connect`] use it for one handshake; the [`SessionRegistry`] knows every
//! session that stands, so that a change of trust reaches those as well. TLS 1.3 only, resumption off
//! (a resumed session is never verified again), identity by URI, never by DNS name.
//!
//! What callers use:
//!
//! ```text
//! Now::new(|| clock.now_ms())                                       // the time, as a handle
//! Credential::new(chain_der, &KeyPair) · from_pem(certificates, key) -> Result<Credential, EpochError>
//! TrustEpoch::builder(now).trust(Host, cas).deny(digests).client(cred).server(cred).also_serve(cred)
//!     .client_auth(ClientAuth::Optional).alpn(["h2", "http/1.1"]).build() -> Result<Arc<TrustEpoch>, EpochError>
//! Epochs::new(epoch) · load() · store(epoch) · install(epoch, &registry) -> closed · subscribe()
//! SessionRegistry::new() · close_untrusted(&epoch) · drain(issuer, timeout).await · issuers(&excluded)
//!     · standing_on(issuer, &excluded) · watch_expiry(now).await (never ends; put it in a JoinSet)
//! accept(tcp, &epochs, &registry).await -> Result<Accepted { stream, peer, served, session }, TlsError>
//! connect("host:port", &epochs, &registry, &Expect).await -> Result<Connected { stream, peer, session, .. }, TlsError>
//! connect_anonymous(..) the same without a certificate (recover, join after the pins were checked)
//! connect_untrusted("host:port").await -> Result<Untrusted { stream, presented }, TlsError>   // GET /v1/trust only
//! keep_pinned(certificates, &pins) -> Vec<CaCert>                   // join: drop what no pin names
//! probe("host:port", &epochs, &registry, &Expect).await -> Result<ProbeResult, TlsError>
//! answer_probe(&mut Accepted).await                                 // the server's side
//! look(address, "host").await -> Result<Looked { presented, ca_names }, TlsError>   // a server of somebody else
//! refused_by_peer(&error) -> Option<PeerRefusal>                    // in any error's chain, after connect
//! ```
//!
//! A client's handshake succeeds before the server has judged its certificate (TLS 1.3): only received
//! bytes prove that it was accepted. So [`probe`] exchanges some, and callers of [`connect`] look at the
//! first read's error with [`refused_by_peer`].

mod accept;
mod anchors;
mod connect;
mod credential;
mod epoch;
mod epochs;
mod error;
mod identity;
mod join;
mod look;
mod now;
mod probe;
pub mod raw;
mod registry;
mod verdict;
mod verify;

pub use accept::{Accepted, HANDSHAKE_TIMEOUT, accept};
pub use anchors::PeerRole;
pub use connect::{Connected, Target, Untrusted, connect, connect_anonymous, connect_untrusted};
pub use credential::Credential;
pub use epoch::{ClientAuth, EpochBuilder, EpochError, TrustEpoch};
pub use epochs::Epochs;
pub use error::{PeerFault, PeerRefusal, Pins, TlsError, refused_by_peer};
pub use identity::{Expect, PeerIdentity};
pub use join::keep_pinned;
pub use look::{Looked, look};
pub use now::Now;
pub use probe::{ProbeAnswer, ProbeResult, answer_probe, probe};
pub use registry::{Drained, Issuers, Session, SessionRegistry, Standing};

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
