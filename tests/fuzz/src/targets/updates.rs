//! What an agent is told over its stream, by whoever answers as a gateway.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use agent::disk::{Identity, trust::Told};
use api::{
    client::{EventReader, ServerEvent},
    node::{DESIRED_EVENT, DesiredUpdate, PushedCertificate},
};
use domain::{
    AuthorityType, DesiredState, Position,
    access::Uses,
    reconcile::{Generation, Have, Proof, Step, desired_of_bundle, reconcile},
    trust::{Bundle, SignedBundle},
};
use pki::bundle;
use serde_json::{Value, json};

use super::bundles;
use crate::{
    Form, edit,
    made::{NOW, made},
    speaks,
};

pub(crate) fn run(input: &[u8]) {
    match Form::of(input) {
        Form::Raw(raw) => {
            for event in read(raw, raw.len() / 2) {
                told(&event, None);
            }
        }
        // A document that somebody changed, in a stream that is whole.
        Form::Edits(which @ 0..2, mut u) => {
            let before = (which == 1).then(installed);
            let mut document = serde_json::to_value(update(bundles::good())).expect("an update is written");
            let _ = edit::json(&mut u, &mut document);
            let sent = stream(&document);
            for event in read(&sent, u.arbitrary::<u16>().unwrap_or_default().into()) {
                told(&event, before.as_ref());
            }
        }
        // A stream that somebody changed.
        Form::Edits(_, mut u) => {
            let document = serde_json::to_value(update(bundles::good())).expect("an update is written");
            let mut sent = stream(&document);
            let _ = edit::bytes(&mut u, &mut sent);
            let cut = u.arbitrary::<u16>().unwrap_or_default();
            for event in read(&sent, cut.into()) {
                told(&event, Some(&installed()));
            }
        }
    }
}

fn stream(document: &Value) -> Vec<u8> {
    format!("retry: 4000\n: beat\n\nevent: {DESIRED_EVENT}\nid: 7\ndata: {document}\n\n").into_bytes()
}

/// The events of a stream, which are the same in two parts and byte by byte.
fn read(stream: &[u8], cut: usize) -> VecDeque<ServerEvent> {
    let of = |parts: &mut dyn Iterator<Item = &[u8]>| {
        let (mut reader, mut events) = (EventReader::default(), VecDeque::new());
        parts.for_each(|part| reader.feed(part, &mut events));
        events
    };
    let whole = of(&mut std::iter::once(stream));
    let (first, second) = stream.split_at(cut.min(stream.len()));
    assert_eq!(of(&mut [first, second].into_iter()), whole);
    assert_eq!(of(&mut stream.chunks(1)), whole);
    whole
}

/// What the node holds already: a row and its bundle, of before.
fn installed() -> Told {
    let of_before = Bundle {
        revision: Position(3),
        ..bundles::good().clone()
    };
    let update = update(&of_before);
    Told::offered(None, &identity(), &update.desired, &update.bundles, NOW).expect("it is genuine")
}

fn update(of: &Bundle) -> DesiredUpdate {
    DesiredUpdate {
        desired: DesiredState {
            position: of.revision,
            names: vec!["n1".parse().expect("a name")],
            authorities: BTreeMap::from([(AuthorityType::Host, desired_of_bundle(of, Uses::ALL, None))]),
            drain_timeout_ms: 5_000,
            node_ttl_ms: 86_400_000,
        },
        bundles: BTreeMap::from([(AuthorityType::Host, signed(of))]),
    }
}

fn signed(bundle: &Bundle) -> SignedBundle {
    bundle::sign(bundle, &made().bundle_key, vec![])
}

fn identity() -> Identity {
    let identity = json!({"version": 1, "node": made().node, "cluster": made().cluster,
        "bundle_pin": made().bundle_key.spki_pin(), "hostname": "n1"});
    serde_json::from_value(identity).expect("an identity")
}

/// Takes it as an agent does. What is followed is what the pinned key signed, and nothing that is older than before.
fn told(event: &ServerEvent, before: Option<&Told>) {
    let _ = event.json::<PushedCertificate>();
    let Ok(update) = event.json::<DesiredUpdate>() else {
        return;
    };
    match Told::offered(before, &identity(), &update.desired, &update.bundles, NOW) {
        Err(error) => speaks(&error),
        Ok(told) => {
            assert!(
                told.bundles.keys().eq(told.desired.authorities.keys()),
                "a bundle without its row"
            );
            for (t, row) in &told.desired.authorities {
                let held = &told.bundles[t];
                assert_eq!(
                    held.signed.key,
                    made().bundle_key.spki_pin(),
                    "signed by a stranger"
                );
                assert_eq!(held.bundle.authority_type, *t);
                assert_eq!(row.trusted, held.bundle.trusted(), "trusts what nobody signed");
                assert_eq!(
                    (row.revision, row.phase),
                    (held.bundle.revision, held.bundle.phase)
                );
                let installed = before.and_then(|before| before.bundles.get(t));
                assert!(installed.is_none_or(|installed| installed.bundle.revision <= row.revision));
            }
            for step in reconcile(&nothing(), &told.desired) {
                let Step::Install(generation) = step else { continue };
                let signed = |t: &AuthorityType| told.bundles[t].bundle.trusted();
                assert!(generation.trusted.iter().all(|(t, pins)| *pins == signed(t)));
            }
        }
    }
}

/// A node that has just joined.
fn nothing() -> Have {
    Have {
        now: NOW,
        installed: Generation::default(),
        proof: Proof::Due,
        last_passed: None,
        received: vec![],
        in_flight: vec![],
        sshd: None,
        serving: true,
        synced: true,
        since_start_ms: 0,
        sessions_on: BTreeSet::new(),
        only_excluded_on: BTreeSet::new(),
        draining: None,
        reported: None,
        renew_permille: 500,
    }
}
