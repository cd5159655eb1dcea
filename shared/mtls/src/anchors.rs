//! Trust anchors, kept apart by authority type, and the one way a peer's certificate is judged.

use std::collections::{BTreeMap, BTreeSet};

use domain::{AuthorityType, CertDigest, SpkiPin, Timestamp};
use pki::{CaCert, Certificate};
use rustls::DistinguishedName;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, ring::ECDSA_P256_SHA256};

use crate::{
    error::{PeerFault, Pins},
    identity::PeerIdentity,
};

/// `id-kp-serverAuth` and `id-kp-clientAuth` (RFC 5280), the content of the OID.
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// What the peer is in this handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerRole {
    /// It connected to us.
    Client,
    /// We connected to it.
    Server,
}

/// The anchors of one type: `trust[i]` is what TLS verifies against, `named[i]` what we call it.
#[derive(Debug, Default)]
struct OfType {
    trust: Vec<TrustAnchor<'static>>,
    named: Vec<Named>,
}

#[derive(Debug)]
struct Named {
    pin: SpkiPin,
    /// The subject, DER with its outer header.
    subject: Vec<u8>,
}

/// Whom an epoch trusts, and whom nevertheless not.
#[derive(Debug, Default)]
pub(crate) struct Anchors {
    by_type: BTreeMap<AuthorityType, OfType>,
    denied: BTreeSet<CertDigest>,
}

impl Anchors {
    /// Adds an authority; the same one twice is kept once.
    pub(crate) fn add(&mut self, authority_type: AuthorityType, ca: &CaCert) -> Result<(), webpki::Error> {
        let trust = webpki::anchor_from_trusted_cert(ca.der())?.to_owned();
        let of_type = self.by_type.entry(authority_type).or_default();
        if of_type.named.iter().all(|a| a.pin != ca.pin()) {
            of_type.trust.push(trust);
            of_type.named.push(Named {
                pin: ca.pin(),
                subject: ca.parsed().subject_dn.clone(),
            });
        }
        Ok(())
    }

    pub(crate) fn deny(&mut self, digest: CertDigest) {
        self.denied.insert(digest);
    }

    /// The pins of one type.
    pub(crate) fn pins(&self, authority_type: AuthorityType) -> BTreeSet<SpkiPin> {
        self.named(Some(authority_type)).map(|a| a.pin).collect()
    }

    /// Subjects, as hints for the other side: of all types, or of one.
    pub(crate) fn hints(&self, only: Option<AuthorityType>) -> Vec<DistinguishedName> {
        self.of_types(only)
            .flat_map(|of_type| &of_type.trust)
            .map(|trust| DistinguishedName::in_sequence(trust.subject.as_ref()))
            .collect()
    }

    /// The subjects of all types, DER: what our servers send in the CertificateRequest.
    pub(crate) fn subjects(&self) -> BTreeSet<Vec<u8>> {
        self.named(None).map(|a| a.subject.clone()).collect()
    }

    /// The authority with this subject.
    pub(crate) fn pin_of_subject(&self, subject: &[u8]) -> Option<SpkiPin> {
        self.named(None).find(|a| a.subject == subject).map(|a| a.pin)
    }

    /// Is it an anchor of any type?
    pub(crate) fn has(&self, pin: SpkiPin) -> bool {
        self.named(None).any(|a| a.pin == pin)
    }

    fn of_types(&self, only: Option<AuthorityType>) -> impl Iterator<Item = &OfType> {
        self.by_type
            .iter()
            .filter(move |(t, _)| only.is_none_or(|o| o == **t))
            .map(|(_, of_type)| of_type)
    }

    fn named(&self, only: Option<AuthorityType>) -> impl Iterator<Item = &Named> {
        self.of_types(only).flat_map(|of_type| &of_type.named)
    }

    /// Judges a peer's certificate: chain, time, usage, deny list, URI.
    ///
    /// Against the anchors of one type at a time: which type it is decides what its holder may be. A
    /// server is only ever a `host`. Intermediates are not used: our authorities sign leaves directly,
    /// so a certificate that needs one was made by somebody with a leaf's key.
    pub(crate) fn judge(
        &self,
        end_entity: &CertificateDer<'_>,
        role: PeerRole,
        now: UnixTime,
    ) -> Result<PeerIdentity, PeerFault> {
        let read = Certificate::parse(end_entity).map_err(|_| PeerFault::Malformed("it cannot be read"))?;
        let unknown = || PeerFault::UnknownIssuer {
            presented: read.issuer,
            trusted: self.trusted_by(role),
        };
        let mut fault = unknown();
        for (authority_type, of_type) in &self.by_type {
            if role == PeerRole::Server && *authority_type != AuthorityType::Host {
                continue;
            }
            match verify(of_type, end_entity, role, now) {
                Ok(issuer) => return self.identity(*authority_type, issuer, read),
                Err(webpki::Error::UnknownIssuer) => {}
                Err(error) => fault = sort(&error, &read),
            }
        }
        Err(fault)
    }

    fn identity(
        &self,
        authority_type: AuthorityType,
        issuer: SpkiPin,
        read: Certificate,
    ) -> Result<PeerIdentity, PeerFault> {
        if self.denied.contains(&read.digest) {
            return Err(PeerFault::Denied { digest: read.digest });
        }
        let uri = read
            .uri
            .ok_or(PeerFault::Malformed("it does not have exactly one URI"))?;
        let Certificate {
            digest,
            spki,
            serial,
            not_after,
            ..
        } = read;
        Ok(PeerIdentity {
            authority_type,
            issuer,
            uri,
            digest,
            spki,
            serial,
            not_after,
        })
    }

    /// Would this peer, judged once, still be accepted?
    ///
    /// Its signature cannot have changed since: what can is whether its issuer is still an anchor of
    /// that type, the deny list and the time. So thousands of sessions are looked through in a moment.
    pub(crate) fn still_accepts(&self, peer: &PeerIdentity, now: Timestamp) -> Result<(), PeerFault> {
        if !self
            .named(Some(peer.authority_type))
            .any(|a| a.pin == peer.issuer)
        {
            let trusted = Pins(self.pins(peer.authority_type));
            return Err(PeerFault::UnknownIssuer {
                presented: Some(peer.issuer),
                trusted,
            });
        }
        if self.denied.contains(&peer.digest) {
            return Err(PeerFault::Denied { digest: peer.digest });
        }
        if peer.not_after < now {
            return Err(PeerFault::Expired {
                not_after: peer.not_after,
            });
        }
        Ok(())
    }

    fn trusted_by(&self, role: PeerRole) -> Pins {
        let only = (role == PeerRole::Server).then_some(AuthorityType::Host);
        Pins(self.named(only).map(|a| a.pin).collect())
    }
}

/// Verifies against the anchors of one type and says which of them signed.
fn verify(
    of_type: &OfType,
    end_entity: &CertificateDer<'_>,
    role: PeerRole,
    now: UnixTime,
) -> Result<SpkiPin, webpki::Error> {
    let usage = match role {
        PeerRole::Client => KeyUsage::required(CLIENT_AUTH),
        PeerRole::Server => KeyUsage::required(SERVER_AUTH),
    };
    let certificate = EndEntityCert::try_from(end_entity)?;
    let path =
        certificate.verify_for_usage(&[ECDSA_P256_SHA256], &of_type.trust, &[], now, usage, None, None)?;
    let signed_by = path.anchor();
    let at = of_type
        .trust
        .iter()
        .position(|t| t == signed_by)
        .ok_or(webpki::Error::UnknownIssuer)?;
    Ok(of_type.named[at].pin)
}

fn sort(error: &webpki::Error, read: &Certificate) -> PeerFault {
    match error {
        webpki::Error::CertExpired { .. } => PeerFault::Expired {
            not_after: read.not_after,
        },
        webpki::Error::CertNotValidYet { .. } => PeerFault::NotYetValid {
            not_before: read.not_before,
        },
        webpki::Error::RequiredEkuNotFoundContext(_) => PeerFault::WrongUsage,
        webpki::Error::CaUsedAsEndEntity => PeerFault::Malformed("it is a CA certificate"),
        webpki::Error::InvalidSignatureForPublicKey => PeerFault::BadSignature,
        _ => PeerFault::Malformed("it does not have the profile of a leaf"),
    }
}
