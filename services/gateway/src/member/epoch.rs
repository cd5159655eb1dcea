//! From rows and certificates to one TLS epoch: widened while certificates change, narrowed last.

use std::collections::BTreeMap;

use domain::{AuthorityType, SpkiPin, Timestamp};
use mtls::{ClientAuth, Credential, EpochError, Now, TrustEpoch};
use pki::{CaCert, CertificateError};

use super::wanted::Wanted;

/// Trusted authorities, by type and pin.
pub(crate) type Anchors = BTreeMap<(AuthorityType, SpkiPin), CaCert>;

/// What an epoch is made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    pub(crate) anchors: Anchors,
    pub(crate) client: Option<Credential>,
    pub(crate) server: Option<Credential>,
    pub(crate) also_serve: Option<Credential>,
}

impl Parts {
    /// The parts for a row, with these certificates. What is missing is taken over from `before`, so that
    /// the gateway never stops answering while it waits for the signer. `widened`: trust what was
    /// trusted before as well; towards its peers any order is safe, its own proof needs this one.
    pub(crate) fn of(
        wanted: &Wanted,
        held: &[Credential],
        before: &Self,
        widened: bool,
        now: Timestamp,
    ) -> Result<Self, CertificateError> {
        let mut anchors = Anchors::new();
        for (key, certificate) in &wanted.anchors {
            anchors.insert(*key, CaCert::from_base64(certificate)?);
        }
        if widened {
            anchors.extend(before.anchors.iter().map(|(key, ca)| (*key, ca.clone())));
        }
        let row = wanted.host();
        let newest = |issuer: Option<SpkiPin>, fits: fn(&Credential) -> bool| {
            let issuer = issuer?;
            let usable = held
                .iter()
                .filter(|c| c.issuer() == issuer && fits(c) && c.certificate().not_after > now);
            usable.max_by_key(|c| c.certificate().not_after).cloned()
        };
        let client = newest(row.and_then(|r| r.client_issuer), |c| c.certificate().client);
        let server = newest(row.and_then(|r| r.server_issuer), |c| c.certificate().server);
        let also_serve = newest(row.and_then(|r| r.also_serve), |c| c.certificate().server);
        Ok(Self {
            anchors,
            client: client.or_else(|| before.client.clone()),
            server: server.or_else(|| before.server.clone()),
            also_serve,
        })
    }

    /// The epoch.
    pub(crate) fn build(&self, wanted: &Wanted, now: Now) -> Result<std::sync::Arc<TrustEpoch>, EpochError> {
        let mut builder = TrustEpoch::builder(now)
            .client_auth(ClientAuth::Optional)
            .alpn(["h2", "http/1.1"])
            .deny(wanted.denied.iter().copied());
        for ((authority_type, _), ca) in &self.anchors {
            builder = builder.trust(*authority_type, [ca.clone()]);
        }
        if let Some(client) = &self.client {
            builder = builder.client(client.clone());
        }
        if let Some(server) = &self.server {
            builder = builder.server(server.clone());
        }
        if let Some(also) = &self.also_serve {
            builder = builder.also_serve(also.clone());
        }
        builder.build()
    }
}
