//! Authorities, permissions to sign, and what was signed: with certificates and signatures that verify.

use domain::{
    AuthorityType, Phase, Position, Principal,
    authority::{AuthorityKey, KeyKind},
    event::*,
    time::DAY_MS,
    trust::{KeyReplacement, SignedBundle},
};

use super::{
    Sample, by, by_alice, by_clock, by_signer, days, first, material::*, minutes, node, read, rotation,
    second,
};

const HOST: AuthorityType = AuthorityType::Host;
const AUTHORIZATION: &str = "01a0bc85-bb60-7c33-8d62-1d5a7e3f9b03";

pub(super) fn samples() -> Vec<Sample> {
    [authorizations(), authorities(), bundles(), certificates()]
        .into_iter()
        .flatten()
        .collect()
}

/// Exactly what stands in `LEAF`.
fn granted() -> AuthorizationGranted {
    let holder = Principal::Node(node());
    AuthorizationGranted {
        authorization: read(AUTHORIZATION),
        uri: holder.uri(&super::cluster()),
        holder,
        authority_type: HOST,
        issuer: second(),
        usage: LeafUse::Client,
        occasion: Occasion::Renewal,
        spki: read(LEAF_PIN),
        public_key: LEAF_KEY.into(),
        common_name: "web-1".into(),
        names: vec![read("web-1.acme.example"), read("www.acme.example")],
        addresses: vec![read("192.0.2.7"), read("2001:db8::7")],
        serial: read(LEAF_SERIAL),
        not_before: minutes(5),
        not_after: minutes(10).plus_ms(DAY_MS),
        rotation: Some(rotation()),
        phase: Phase::UpdateClients,
        form: Form::Tls,
    }
}

fn authorizations() -> Vec<Sample> {
    let bare = AuthorizationGranted {
        usage: LeafUse::Both,
        occasion: Occasion::Join,
        issuer: first(),
        not_before: minutes(2),
        not_after: minutes(7).plus_ms(DAY_MS),
        rotation: None,
        phase: Phase::Standby,
        ..granted()
    };
    let voided = AuthorizationVoided {
        authorization: read(AUTHORIZATION),
        holder: Principal::Node(node()),
        why: "its authority is no longer active or prepared".into(),
    };
    let holder = Principal::External("alice".into());
    let logon = AuthorizationGranted {
        uri: holder.uri(&super::cluster()),
        holder,
        authority_type: AuthorityType::Windows,
        occasion: Occasion::Signing,
        common_name: "alice".into(),
        names: vec![],
        addresses: vec![],
        form: Form::Logon {
            upn: "alice@corp.example.com".into(),
        },
        ..granted()
    };
    let actor = Principal::Node(node());
    vec![
        Sample::full(granted(), by(actor.clone(), minutes(10))),
        Sample::bare(bare, by(actor, minutes(7))),
        Sample::full(voided, by_clock(days(2))),
        Sample::later("logon", logon, by_alice(minutes(14))),
    ]
}

fn authorities() -> Vec<Sample> {
    let key = AuthorityKey {
        id: second(),
        kind: KeyKind::Tls,
        public_key: String::new(),
        generation: 2,
        certificate: SECOND_CA.into(),
        algorithm: "ECDSA P-256".into(),
        storage: "software".into(),
        not_after: days(3653),
        rotation: Some(rotation()),
        position: Position(4702),
    };
    let founding = AuthorityKey {
        id: first(),
        generation: 1,
        certificate: FIRST_CA.into(),
        not_after: days(3623),
        rotation: None,
        position: Position(0),
        ..key.clone()
    };
    let without_certificate = AuthorityKey {
        id: read(LEAF_PIN),
        kind: KeyKind::Ssh,
        public_key: LEAF_KEY.into(),
        certificate: String::new(),
        ..key.clone()
    };
    let generated = |key| AuthorityKeyGenerated {
        authority_type: HOST,
        key,
    };
    let activated = AuthorityActivated {
        authority_type: HOST,
        kind: KeyKind::Tls,
        authority: second(),
    };
    let retired = AuthorityRetired {
        authority_type: HOST,
        authority: first(),
        outcome: RotationOutcome::Completed,
    };
    let destroyed = AuthorityDestroyed {
        authority_type: HOST,
        authority: first(),
        stores: vec!["keys/".into(), "memory".into()],
    };
    vec![
        Sample::full(generated(key), by_signer(minutes(0))),
        Sample::bare(generated(founding), by_signer(minutes(0))),
        Sample::later(
            "public_key",
            generated(without_certificate),
            by_signer(minutes(0)),
        ),
        Sample::full(activated, by_signer(days(2))),
        Sample::full(retired, by_signer(days(2))),
        Sample::full(destroyed, by_signer(days(2))),
    ]
}

fn bundles() -> Vec<Sample> {
    let replacement = KeyReplacement {
        old_key: BUNDLE_KEY.into(),
        new_key: BUNDLE_KEY_2.into(),
        by_old: REPLACED_BY_OLD.into(),
        by_new: REPLACED_BY_NEW.into(),
    };
    let signed = AuthorityBundleSigned {
        revocation_lists: Default::default(),
        authority_type: HOST,
        revision: Position(4711),
        phase: Phase::UpdateClients,
        expires: minutes(10).plus_ms(DAY_MS),
        bundle: SignedBundle {
            document: BUNDLE.into(),
            signature: BUNDLE_SIGNATURE.into(),
            key: read(BUNDLE_PIN_2),
            public_key: BUNDLE_KEY_2.into(),
            replacements: vec![replacement],
        },
    };
    let mut bare = signed.clone();
    bare.bundle.replacements.clear();
    vec![
        Sample::full(signed, by_signer(minutes(10))),
        Sample::bare(bare, by_signer(minutes(10))),
    ]
}

fn certificates() -> Vec<Sample> {
    let granted = granted();
    let issued = granted.issued(read(LEAF_DIGEST), LEAF.into());
    let refused = CertificateRefused {
        authorization: granted.authorization,
        holder: granted.holder.clone(),
        why: "the life of 48 h is longer than the 24 h of its profile".into(),
    };
    let revoked = CertificateRevoked {
        holder: granted.holder,
        certificates: vec![read(LEAF_DIGEST)],
        why: "the node was removed".into(),
    };
    vec![
        Sample::full(issued, by_signer(minutes(10))),
        Sample::full(refused, by_signer(minutes(10))),
        Sample::full(revoked, by_signer(days(90))),
    ]
}
