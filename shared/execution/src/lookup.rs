//! What is in the log but not in the state: certificates and bundles, read at the positions that the state knows.

use std::{sync::Arc, time::Duration};

use domain::{
    AuthorityType, AuthorizationId, CertDigest, Event, Fact, Position, SpkiPin, Timestamp,
    state::AuthorizationOutcome, trust::SignedBundle,
};

use crate::{Fold, codec};

/// A certificate as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The authorisation it was signed for.
    pub authorization: AuthorizationId,
    /// The certificate, DER, base64 (as in the event).
    pub certificate: String,
    /// Its digest.
    pub digest: CertDigest,
    /// The authority that signed it.
    pub issuer: SpkiPin,
    /// The end of its life.
    pub not_after: Timestamp,
    /// The position of `certificate.issued`.
    pub position: Position,
}

/// Why there is no certificate.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NotIssued {
    /// The signer has not signed it yet; asking again with the same key gives the same certificate.
    #[error("the certificate is authorised, but the signer has not signed it yet")]
    NotYet,
    /// The signer refused it, or it was voided.
    #[error("the certificate was not issued: {0}")]
    Refused(String),
    /// The log cannot be read.
    #[error("{0}")]
    Log(String),
}

impl Issued {
    fn of(fact: &Fact, position: Position) -> Option<Self> {
        let Fact::CertificateIssued(f) = fact else {
            return None;
        };
        Some(Self {
            authorization: f.authorization,
            certificate: f.certificate.clone(),
            digest: f.digest,
            issuer: f.issuer,
            not_after: f.not_after,
            position,
        })
    }
}

impl Fold {
    /// Waits for the certificate of an authorisation.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub async fn issued(
        &self,
        authorization: AuthorizationId,
        at_most: Duration,
    ) -> Result<Issued, NotIssued> {
        let look = async {
            let mut settled: Option<Arc<Event>> = None;
            loop {
                let settlement = self.settlement(authorization);
                match self.read(|state| state.settled_authorizations.get(&authorization).cloned()) {
                    Some(AuthorizationOutcome::Issued(digest)) => {
                        // What was waited for is at hand already, if it is what the state took.
                        let issued = settled.and_then(|event| Issued::of(&event.fact, event.header.position));
                        return match issued.filter(|issued| issued.digest == digest) {
                            Some(issued) => Ok(issued),
                            None => self.certificate(&digest).await,
                        };
                    }
                    Some(AuthorizationOutcome::Refused(why) | AuthorizationOutcome::Voided(why)) => {
                        return Err(NotIssued::Refused(why));
                    }
                    None => settled = Some(settlement.event().await.ok_or(NotIssued::NotYet)?),
                }
            }
        };
        tokio::time::timeout(at_most, look)
            .await
            .unwrap_or(Err(NotIssued::NotYet))
    }

    /// Reads a certificate that the state knows.
    ///
    /// # Errors
    /// [`NotIssued`].
    pub async fn certificate(&self, digest: &CertDigest) -> Result<Issued, NotIssued> {
        let unknown = || NotIssued::Refused("the log does not know this certificate any more".into());
        let position = self
            .read(|state| state.certificates.get(digest).map(|c| c.position))
            .ok_or_else(unknown)?;
        let fact = self.fact_at(position).await.map_err(NotIssued::Log)?;
        Issued::of(&fact, position).ok_or_else(unknown)
    }

    /// The newest signed bundle of a type, if one is signed.
    ///
    /// # Errors
    /// What the log said, in words.
    pub async fn bundle(&self, authority_type: AuthorityType) -> Result<Option<SignedBundle>, String> {
        let head = self.read(|s| {
            s.types
                .get(&authority_type)
                .and_then(|t| t.bundle.as_ref())
                .map(|b| b.position)
        });
        let Some(position) = head else { return Ok(None) };
        match self.fact_at(position).await? {
            Fact::AuthorityBundleSigned(f) => Ok(Some(f.bundle)),
            _ => Err(format!("position {position} holds no bundle")),
        }
    }

    async fn fact_at(&self, position: Position) -> Result<Fact, String> {
        let records = self.log().read(position.0, 1).await.map_err(|e| e.to_string())?;
        let stored = records
            .first()
            .ok_or_else(|| format!("the log ends before position {position}"))?;
        Ok(codec::decode(stored).map_err(|e| e.to_string())?.fact)
    }
}
