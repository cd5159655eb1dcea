//! A gateway with certificates of both authorities presents the one that its client can accept.

use domain::{AuthorityType, event::LeafUse};

use crate::{
    ClientAuth, Epochs, Expect, SessionRegistry, Target, TrustEpoch, connect_anonymous, connect_untrusted,
    keep_pinned,
    testing::{Ca, Hand, Server, cluster, gateway},
};

async fn gateway_with_both(active: &Ca, prepared: &Ca, hand: &Hand) -> Server {
    let epoch = TrustEpoch::builder(hand.now())
        .trust(AuthorityType::Host, [active.cert.clone(), prepared.cert.clone()])
        .server(active.issue(&gateway(), LeafUse::Both))
        .also_serve(prepared.issue(&gateway(), LeafUse::Server))
        .client_auth(ClientAuth::Optional)
        .build()
        .unwrap();
    Server::holding(Epochs::new(epoch)).await
}

#[tokio::test]
async fn a_gateway_with_both_certificates_serves_everyone_whichever_authority_they_trust() {
    let hand = Hand::new();
    let (active, prepared) = (Ca::new(AuthorityType::Host, 1), Ca::new(AuthorityType::Host, 2));
    let server = gateway_with_both(&active, &prepared, &hand).await;
    let expect = Expect::Gateway { cluster: cluster() };
    for (trusts, presented) in [
        (vec![&active], active.pin()),
        (vec![&prepared], prepared.pin()),
        // Both are fine: then the row decides.
        (vec![&prepared, &active], active.pin()),
    ] {
        let cas = trusts.iter().map(|ca| ca.cert.clone());
        let epoch = TrustEpoch::builder(hand.now())
            .trust(AuthorityType::Host, cas)
            .build()
            .unwrap();
        let sessions = SessionRegistry::new();
        let connected = connect_anonymous(&server.addr, &Epochs::new(epoch), &sessions, &expect)
            .await
            .unwrap();
        assert_eq!(connected.peer.issuer, presented);
    }
}

#[tokio::test]
async fn a_client_without_hints_gets_the_rows_certificate() {
    let hand = Hand::new();
    let (active, prepared) = (Ca::new(AuthorityType::Host, 1), Ca::new(AuthorityType::Host, 2));
    let server = gateway_with_both(&active, &prepared, &hand).await;
    let anybody = connect_untrusted(&server.addr).await.unwrap();
    assert_eq!(
        anybody.presented.first(),
        Some(server.epochs.load().server().unwrap().der())
    );
}

#[tokio::test]
async fn a_connection_comes_from_the_address_that_is_asked_for() {
    let hand = Hand::new();
    let (active, prepared) = (Ca::new(AuthorityType::Host, 1), Ca::new(AuthorityType::Host, 2));
    let server = gateway_with_both(&active, &prepared, &hand).await;
    for from in ["127.0.0.1", "127.9.8.7"] {
        let from = from.parse().ok();
        let target = Target {
            addr: &server.addr,
            from,
        };
        let anybody = connect_untrusted(target).await.unwrap();
        let at = anybody.stream.get_ref().0.local_addr().unwrap();
        assert_eq!(Some(at.ip()), from);
    }
    let other_kind = Target {
        addr: &server.addr,
        from: "::1".parse().ok(),
    };
    assert!(connect_untrusted(other_kind).await.is_err());
}

#[test]
fn a_joiner_keeps_only_what_a_pin_names() {
    let (mine, theirs) = (Ca::new(AuthorityType::Host, 1), Ca::new(AuthorityType::Host, 2));
    let leaf = mine.issue(&gateway(), LeafUse::Both);
    let offered = [
        theirs.cert.der().clone(),
        leaf.der().clone(),
        mine.cert.der().clone(),
    ];
    let pins = [mine.pin(), leaf.certificate().spki].into();
    // A leaf's pin makes no authority of the leaf.
    assert_eq!(keep_pinned(&offered, &pins), vec![mine.cert.clone()]);
    assert_eq!(keep_pinned(&offered[..1], &pins), []);
}
