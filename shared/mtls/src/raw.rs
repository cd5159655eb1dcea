//! Raw limits for benchmarks: TLS alone with the product's own configurations, both sides in one thread and no socket
//! between them.

use std::sync::Arc;

use domain::{
    AuthorityType, AuthorizationId, ClusterName, NodeId, Phase, Principal, Serial, Timestamp,
    event::{AuthorizationGranted, LeafUse, Occasion},
    time::{DAY_MS, MINUTE_MS},
};
use pki::{Blueprint, KeyPair, authority, issue, random};
use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;

use crate::{Credential, Epochs, Expect, Now, TrustEpoch, connect::Presenter};

/// A node with a cluster of its own, which speaks to itself.
pub struct Alone {
    epochs: Epochs,
    expect: Expect,
}

/// The server's side of a connection that stands.
pub struct Standing(#[allow(dead_code, reason = "it is held for its weight")] ServerConnection);

impl Alone {
    /// Fresh keys and certificates of the usual profile, good for a day.
    ///
    /// # Panics
    /// Never: keys and certificates that were made here fit together.
    pub fn new(now: Timestamp) -> Self {
        let cluster: ClusterName = "raw.bench".parse().expect("a DNS name");
        let (key, serial) = (KeyPair::generate(), Serial::of_random(random()));
        let blueprint = Blueprint {
            cluster: &cluster,
            authority_type: AuthorityType::Host,
            generation: 1,
            serial,
            now,
        };
        let ca = authority::make(&blueprint, &key).expect("a fresh key signs its own certificate");
        let node = NodeId(uuid::Uuid::from_bytes(random()));
        let (holder, pair) = (Principal::Node(node), KeyPair::generate());
        let granted = AuthorizationGranted {
            authorization: AuthorizationId(uuid::Uuid::from_bytes(random())),
            uri: holder.uri(&cluster),
            holder,
            authority_type: AuthorityType::Host,
            issuer: ca.pin(),
            usage: LeafUse::Both,
            occasion: Occasion::Join,
            spki: pair.spki_pin(),
            public_key: pair.public().to_base64(),
            common_name: "raw".into(),
            names: vec!["raw.bench".parse().expect("a host name")],
            addresses: vec![],
            serial: Serial::of_random(random()),
            not_before: now.minus_ms(5 * MINUTE_MS),
            not_after: now.plus_ms(DAY_MS),
            rotation: None,
            phase: Phase::Standby,
            form: domain::event::Form::Tls,
        };
        let leaf = issue(&granted, &cluster, &ca, &key).expect("it signs what is of the usual profile");
        let credential = Credential::new(vec![leaf.der.into()], &pair).expect("the leaf is of this key");
        let epoch = TrustEpoch::builder(Now::new(move || now.0))
            .trust(AuthorityType::Host, [ca])
            .client(credential.clone())
            .server(credential)
            .build()
            .expect("its own certificates are for both roles");
        Self {
            epochs: Epochs::new(epoch),
            expect: Expect::Node { cluster, node },
        }
    }

    /// What it trusts and presents.
    pub fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// Whom it expects: itself.
    pub fn expect(&self) -> &Expect {
        &self.expect
    }

    /// One whole handshake of TLS 1.3 with certificates on both sides.
    ///
    /// # Errors
    /// The TLS library's own.
    pub fn handshake(&self) -> Result<Standing, rustls::Error> {
        let epoch = self.epochs.load();
        let dial = epoch.dial(&self.expect, Arc::new(Presenter::new(&epoch, true)))?;
        let name = ServerName::try_from("raw.bench").expect("a DNS name");
        let mut client = ClientConnection::new(Arc::new(dial), name)?;
        let (_, config) = epoch.serve(None).expect("it has a server certificate");
        let mut server = ServerConnection::new(config.clone())?;
        while client.is_handshaking() || server.is_handshaking() {
            carry(&mut client, &mut server)?;
            carry(&mut server, &mut client)?;
        }
        Ok(Standing(server))
    }
}

/// Carries what one side has to say to the other.
fn carry<A, B>(
    from: &mut rustls::ConnectionCommon<A>,
    to: &mut rustls::ConnectionCommon<B>,
) -> Result<(), rustls::Error>
where
    A: rustls::SideData,
    B: rustls::SideData,
{
    let failed = |error: std::io::Error| rustls::Error::General(error.to_string());
    let mut bytes = vec![];
    while from.wants_write() {
        from.write_tls(&mut bytes).map_err(failed)?;
    }
    let mut left = &bytes[..];
    while !left.is_empty() {
        to.read_tls(&mut left).map_err(failed)?;
        to.process_new_packets()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_come_to_stand() {
        let alone = Alone::new(Timestamp(1_789_868_676_000));
        let standing = alone.handshake().unwrap();
        assert!(
            standing.0.peer_certificates().is_some(),
            "with a certificate of the client"
        );
    }
}
