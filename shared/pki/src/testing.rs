//! What the tests of this crate share: authorities, authorisations and leaves, with fresh keys.

use domain::{
    AuthorityType, AuthorizationId, NodeId, Phase, Principal, Serial, Timestamp,
    event::{AuthorizationGranted, LeafUse, Occasion},
    time::{DAY_MS, MINUTE_MS},
};
use uuid::Uuid;

use crate::{Blueprint, CaCert, IssuedLeaf, KeyPair, authority, issue, random};

pub(crate) const CLUSTER: &str = "acme.cluster";
/// 2026-09-20T01:44:36Z.
pub(crate) const NOW: Timestamp = Timestamp(1_789_868_676_000);

pub(crate) fn authority(authority_type: AuthorityType, generation: u32) -> (KeyPair, CaCert) {
    let key = KeyPair::generate();
    let cluster = CLUSTER.parse().unwrap();
    let serial = Serial::of_random(random());
    let blueprint = Blueprint {
        cluster: &cluster,
        authority_type,
        generation,
        serial,
        now: NOW,
    };
    let ca = authority::make(&blueprint, &key).unwrap();
    (key, ca)
}

/// An authorisation of a node's leaf for a fresh key.
pub(crate) fn granted(ca: &CaCert) -> AuthorizationGranted {
    let key = KeyPair::generate();
    let holder = Principal::Node(NodeId(Uuid::from_u128(7)));
    AuthorizationGranted {
        authorization: AuthorizationId(Uuid::from_u128(1)),
        uri: holder.uri(&CLUSTER.parse().unwrap()),
        holder,
        authority_type: AuthorityType::Host,
        issuer: ca.pin(),
        usage: LeafUse::Both,
        occasion: Occasion::Join,
        spki: key.spki_pin(),
        public_key: key.public().to_base64(),
        common_name: "web-1".into(),
        names: vec!["web-1".parse().unwrap(), "web-1.acme.cluster".parse().unwrap()],
        addresses: vec!["10.0.0.7".parse().unwrap(), "2001:db8::7".parse().unwrap()],
        serial: Serial::of_random(random()),
        not_before: NOW.minus_ms(5 * MINUTE_MS),
        not_after: NOW.plus_ms(DAY_MS),
        rotation: None,
        phase: Phase::Standby,
        form: domain::event::Form::Tls,
    }
}

pub(crate) fn leaf(granted: &AuthorizationGranted, ca: &CaCert, key: &KeyPair) -> IssuedLeaf {
    issue(granted, &CLUSTER.parse().unwrap(), ca, key).unwrap()
}
