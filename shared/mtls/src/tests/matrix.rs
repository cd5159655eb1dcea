//! The table of phases against itself, by handshake: the oracle says what TLS does.

use std::collections::BTreeSet;

use domain::{
    AuthorityType, SpkiPin,
    event::LeafUse,
    trust::{Side, interoperate},
};

use crate::{
    Epochs, Expect, PeerFault, PeerRefusal, SessionRegistry, TlsError, TrustEpoch, probe,
    testing::{Ca, Hand, Server, cluster, node},
};

/// A moment in a node's rotation: what it trusts, presents and serves. `true` is prepared.
type Moment = (&'static str, &'static [bool], bool, bool);
const MOMENTS: [Moment; 6] = [
    ("standby, before", &[false], false, false),
    ("init", &[false, true], false, false),
    ("update_clients", &[false, true], true, false),
    ("update_servers", &[false, true], true, true),
    ("standby, after", &[true], true, true),
    ("rollback", &[false, true], false, false),
];

fn at(moment: Moment, cas: [&Ca; 2], id: u128, hand: &Hand) -> (Epochs, Side) {
    let (_, trusts, client, server) = moment;
    let of = |prepared: bool| cas[usize::from(prepared)];
    let epoch = TrustEpoch::builder(hand.now())
        .trust(AuthorityType::Host, trusts.iter().map(|p| of(*p).cert.clone()))
        .client(of(client).issue(&node(id), LeafUse::Client))
        .server(of(server).issue(&node(id), LeafUse::Server))
        .build()
        .unwrap();
    let side = Side {
        trusted: trusts.iter().map(|p| of(*p).pin()).collect(),
        client_issuer: Some(of(client).pin()),
        server_issuer: Some(of(server).pin()),
    };
    assert_eq!(epoch.trusted(AuthorityType::Host), side.trusted);
    (Epochs::new(epoch), side)
}

#[tokio::test]
async fn all_pairs_of_phases_connect_exactly_as_the_oracle_says() {
    let hand = Hand::new();
    let (active, prepared) = (Ca::new(AuthorityType::Host, 1), Ca::new(AuthorityType::Host, 2));
    let cas = [&active, &prepared];
    let mut connected = 0;
    for server_at in MOMENTS {
        let (epochs, server_side) = at(server_at, cas, 2, &hand);
        let server = Server::answering(epochs).await;
        for client_at in MOMENTS {
            let (epochs, client_side) = at(client_at, cas, 1, &hand);
            let expect = Expect::AnyNode { cluster: cluster() };
            let probed = probe(&server.addr, &epochs, &SessionRegistry::new(), &expect).await;
            let pair = format!("{} -> {}: {probed:?}", client_at.0, server_at.0);
            assert_eq!(probed.is_ok(), interoperate(&client_side, &server_side), "{pair}");
            match probed {
                Ok(result) => {
                    connected += 1;
                    assert_eq!(Some(result.identity.issuer), server_side.server_issuer, "{pair}");
                    assert_eq!(result.answer.client_issuer, client_side.client_issuer, "{pair}");
                    let same = server_side.trusted == client_side.trusted;
                    assert_eq!(result.trusts_exactly(&epochs.load()), same, "{pair}");
                }
                Err(error) => told_apart(&error, &client_side, &server_side),
            }
        }
    }
    // The table of the measurements: ten of 36 pairs are too far apart.
    assert_eq!(connected, 26);
}

/// Whoever refuses, the client learns which of the two it was.
fn told_apart(error: &TlsError, client: &Side, server: &Side) {
    assert!(error.is_trust_failure() && !error.is_transient());
    let presented = server.server_issuer.unwrap();
    match error {
        TlsError::Peer(PeerFault::UnknownIssuer {
            presented: named,
            trusted,
        }) => {
            assert!(!client.trusted.contains(&presented));
            assert_eq!((*named, &trusted.0), (Some(presented), &client.trusted));
        }
        TlsError::Refused(PeerRefusal::UnknownIssuer) => {
            assert!(client.trusted.contains(&presented));
            assert!(!server.trusted.contains(&client.client_issuer.unwrap()));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_probe_shows_the_trust_that_is_in_force_by_the_names_in_the_servers_question() {
    let hand = Hand::new();
    let (active, prepared) = (Ca::new(AuthorityType::Host, 1), Ca::new(AuthorityType::Host, 2));
    let user = Ca::new(AuthorityType::User, 1);
    let build = |host: &[&Ca], users: &[&Ca]| {
        TrustEpoch::builder(hand.now())
            .trust(AuthorityType::Host, host.iter().map(|ca| ca.cert.clone()))
            .trust(AuthorityType::User, users.iter().map(|ca| ca.cert.clone()))
            .client(active.issue(&node(1), LeafUse::Client))
            .server(active.issue(&node(1), LeafUse::Server))
            .build()
            .unwrap()
    };
    let server = Server::answering(Epochs::new(build(&[&active, &prepared], &[&user]))).await;
    let expect = Expect::AnyNode { cluster: cluster() };
    let probed = probe(&server.addr, &server.epochs, &SessionRegistry::new(), &expect)
        .await
        .unwrap();
    assert!(probed.trusts_exactly(&build(&[&prepared, &active], &[&user])));
    for other in [build(&[&active], &[&user]), build(&[&active, &prepared], &[])] {
        assert!(!probed.trusts_exactly(&other));
    }
    let (known, strangers) = probed.trusted(&build(&[&active], &[]));
    assert_eq!((known, strangers), (BTreeSet::<SpkiPin>::from([active.pin()]), 2));
}
