//! The golden samples in `tests/golden/events`: what was written once is read for ever.
//!
//! A golden file is never rewritten, not even by `UPDATE=1`, which only adds what is missing: logs out there hold
//! these very bytes.

use std::{collections::BTreeSet, fs};

use domain::{
    Credential, Fact,
    authority::{AuthorityKey, KeyKind},
};
use execution::codec::{self, DecodeError};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    kept,
    samples::{self, Sample, cluster},
};

const DIRECTORY: &str = "tests/golden/events";

/// Objects whose keys are data, so that an unknown one is not an unknown field.
const MAPS: [&str; 6] = [
    "authorities",
    "critical_options",
    "facts",
    "labels",
    "rotations",
    "uses",
];

#[test]
fn every_type_has_a_golden_sample_and_every_golden_file_is_a_samples() {
    let samples = samples::all();
    if kept::updating() {
        samples.iter().for_each(add_if_missing);
    }
    let covered: BTreeSet<&str> = samples.iter().map(|sample| sample.fact.type_name()).collect();
    let uncovered = Fact::TYPES
        .iter()
        .filter(|name| !covered.contains(*name))
        .map(|name| format!("no sample of {name}"));
    let wanted: BTreeSet<String> = samples.iter().map(file_of).collect();
    assert_eq!(wanted.len(), samples.len(), "two samples have one name");
    let found = kept::files_in(DIRECTORY);
    let missing = wanted
        .difference(&found)
        .map(|name| format!("{DIRECTORY}/{name} is missing"));
    let strange = found
        .difference(&wanted)
        .map(|name| format!("{DIRECTORY}/{name} belongs to no sample"));
    kept::none(
        uncovered.chain(missing).chain(strange),
        "each type and version of events has a golden sample; UPDATE=1 adds missing files",
    );
}

#[test]
fn every_golden_sample_decodes_to_the_fact_and_circumstances_it_was_made_of() {
    for sample in samples::all() {
        let event = sample
            .decoded(kept_text(&sample.name).as_bytes())
            .unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        assert_eq!(event.fact, sample.fact, "{}", sample.name);
        let (header, of) = (event.header, &sample.of);
        assert_eq!(header.position.0, 4711, "{}", sample.name);
        assert_eq!(header.time, of.time, "{}", sample.name);
        assert_eq!(header.actor, of.actor, "{}", sample.name);
        assert_eq!(header.credential, of.credential, "{}", sample.name);
        assert_eq!(header.command, of.command, "{}", sample.name);
        assert_eq!(header.reason, of.reason, "{}", sample.name);
        assert_eq!(header.decided_at, of.decided_at, "{}", sample.name);
        assert_eq!(
            json!(header.id),
            kept_value(&sample.name)["id"],
            "{}",
            sample.name
        );
    }
}

#[test]
fn a_decoded_golden_sample_is_written_as_the_same_data() {
    for sample in samples::all() {
        let golden = kept_value(&sample.name);
        let event = sample
            .decoded(kept_text(&sample.name).as_bytes())
            .expect("tested above");
        let again = serde_json::to_value(&event.fact).expect("facts are plain data");
        assert_eq!(again, golden["data"], "{}", sample.name);
    }
}

/// All but the id, which is new each time; a later version may write further attributes.
#[test]
fn the_writer_still_writes_what_stands_in_the_golden_samples() {
    for sample in samples::all() {
        let written: Value = serde_json::from_slice(&sample.written().data).expect("the writer writes JSON");
        for (attribute, value) in kept_value(&sample.name).as_object().expect("an envelope") {
            if attribute != "id" {
                assert_eq!(&written[attribute], value, "{}: {attribute}", sample.name);
            }
        }
    }
}

/// contract.md section 3: CloudEvents 1.0, `id` a UUIDv7 of the event's time, and who caused it.
#[test]
fn every_envelope_says_what_where_when_and_who() {
    for sample in samples::all() {
        let (golden, name, of) = (kept_value(&sample.name), &sample.name, &sample.of);
        let text = |attribute: &str| golden[attribute].as_str().map(str::to_owned);
        assert_eq!(text("specversion").as_deref(), Some("1.0"), "{name}");
        assert_eq!(
            text("datacontenttype").as_deref(),
            Some("application/json"),
            "{name}"
        );
        assert_eq!(text("type").as_deref(), Some(sample.fact.type_name()), "{name}");
        assert_eq!(text("time"), Some(of.time.to_string()), "{name}");
        assert_eq!(
            text("source"),
            Some(format!("carousel://acme.cluster/{}", of.service)),
            "{name}"
        );
        let subject = codec::subject_of(&cluster(), &sample.fact);
        assert_eq!(text("subject").as_deref(), Some(subject.as_str()), "{name}");
        let id: Uuid = text("id").expect("an id").parse().expect("a UUID");
        assert_eq!(id.get_version_num(), 7, "{name}");
        assert_eq!(
            (id.as_u128() >> 80) as i64,
            of.time.0,
            "{name}: the time in its id"
        );
        let actor = format!(
            "{}/{}",
            text("authtype").unwrap_or_default(),
            text("authid").unwrap_or_default()
        );
        assert_eq!(actor, of.actor.to_string(), "{name}");
        let command = of
            .command
            .as_ref()
            .map(|command| (command.id.to_string(), command.digest.to_string()));
        assert_eq!(
            text("causationid").zip(text("commanddigest")),
            command,
            "{name}: the command"
        );
        assert_eq!(text("traceparent"), of.traceparent, "{name}");
        assert_eq!(text("reason"), of.reason, "{name}");
        assert_eq!(
            text("decidedat"),
            of.decided_at.map(|at| at.to_string()),
            "{name}"
        );
        let (certificate, subject) = match of.credential.clone() {
            Some(Credential::Certificate(digest)) => (Some(digest.to_string()), None),
            Some(Credential::Subject(subject)) => (None, Some(subject)),
            None => (None, None),
        };
        assert_eq!(text("authcert"), certificate, "{name}");
        assert_eq!(text("authsubject"), subject, "{name}");
        let whole = golden["data"]["rotation"].as_str();
        if sample.fact.family() == "rotation" {
            assert_eq!(
                text("correlationid").as_deref(),
                whole,
                "{name}: what belongs together"
            );
        }
    }
}

#[test]
fn unknown_attributes_and_unknown_fields_are_tolerated_in_every_place() {
    for sample in samples::all() {
        let mut golden = kept_value(&sample.name);
        golden["futureattribute"] = json!("x");
        golden["proof"] = json!("a signature of the caller");
        golden["writersig"] = json!("a signature of the writer");
        let places = add_unknown_fields(&mut golden["data"], "data");
        assert!(places > 0, "{}", sample.name);
        let event = sample
            .decoded(golden.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{}: {error}", sample.name));
        assert_eq!(event.fact, sample.fact, "{}", sample.name);
    }
}

#[test]
fn an_unknown_type_or_version_is_an_error_that_says_upgrade() {
    let sample = &samples::all()[0];
    for unknown in ["carousel.cluster.renamed.v1", "carousel.cluster.created.v2", ""] {
        let mut golden = kept_value(&sample.name);
        golden["type"] = json!(unknown);
        let error = sample.decoded(golden.to_string().as_bytes()).unwrap_err();
        assert!(
            matches!(error, DecodeError::UnknownType { position: 4711, .. }),
            "{error}"
        );
        assert!(
            error.to_string().contains("upgrade") && error.to_string().contains(unknown),
            "{error}"
        );
    }
}

#[test]
fn an_event_that_names_nobody_or_no_time_is_not_decoded() {
    let sample = &samples::all()[0];
    for (attribute, value) in [
        ("authtype", json!(null)),
        ("authid", json!(null)),
        ("authtype", json!("robot")),
        ("time", json!("yesterday")),
        ("id", json!("not a UUID")),
    ] {
        let mut golden = kept_value(&sample.name);
        golden[attribute] = value;
        assert!(
            sample.decoded(golden.to_string().as_bytes()).is_err(),
            "{attribute}"
        );
    }
}

/// What stands in the samples is no decoration: their certificates and signatures verify.
#[test]
fn the_certificate_and_the_bundle_in_the_golden_samples_verify() {
    use domain::AuthorityType::Host;

    let facts = samples::all().into_iter().map(|sample| sample.fact);
    let (mut granted, mut issued, mut bundles, mut keys) = (vec![], vec![], vec![], vec![]);
    for fact in facts {
        if let Fact::AuthorizationGranted(fact) = fact {
            granted.push(fact);
        } else if let Fact::CertificateIssued(fact) = fact {
            issued.push(fact);
        } else if let Fact::AuthorityBundleSigned(fact) = fact {
            bundles.push(fact.bundle);
        } else if let Fact::AuthorityKeyGenerated(fact) = fact {
            keys.push(fact.key);
        }
    }
    let [first, second] = [samples::FIRST_CA, samples::SECOND_CA]
        .map(|text| pki::CaCert::from_base64(text).expect("an authority's certificate"));
    let expected = [(&second, &keys[0]), (&first, &keys[1])];
    for (certificate, key) in expected {
        let again = certificate.authority_key(key.generation, &key.storage, key.rotation, key.position);
        assert_eq!(&again, key);
    }
    let leaf = base64_of(&issued[0].certificate);
    pki::lint(&leaf, &granted[0], &cluster(), &second).expect("the leaf is what was authorised");
    assert_eq!(pki::sha256(&leaf), issued[0].digest.0);
    let ssh_ca = pki::PublicKey::from_base64(samples::SSH_CA).expect("an authority's key");
    let ssh_ca = AuthorityKey {
        id: ssh_ca.pin(),
        kind: KeyKind::Ssh,
        certificate: String::new(),
        public_key: samples::SSH_CA.into(),
        ..keys[0].clone()
    };
    let of_ssh = |kind| kind == KeyKind::Ssh;
    let granted = granted
        .iter()
        .find(|f| of_ssh(f.form.kind()))
        .expect("one for SSH");
    let ssh = issued.iter().find(|f| of_ssh(f.kind)).expect("one for SSH");
    pki::credential::check(ssh, granted, &cluster(), &ssh_ca).expect("it is what was authorised");
    let pinned = samples::BUNDLE_PIN.parse().expect("a pin");
    let verify = |bundle| pki::bundle::verify_unexpired(bundle, &pinned, Some(&cluster()), Host);
    assert_eq!(
        verify(&bundles[0]).expect("by way of the replaced key").trusted(),
        [first.pin(), second.pin()].into()
    );
    assert!(
        verify(&bundles[1]).is_err(),
        "without the replacement the pinned key did not sign it"
    );
}

/// The kept text of a sample.
fn kept_text(name: &str) -> String {
    kept::text(&format!("{DIRECTORY}/{name}.json"))
}

pub(crate) fn kept_value(name: &str) -> Value {
    serde_json::from_str(&kept_text(name)).unwrap_or_else(|error| panic!("{DIRECTORY}/{name}.json: {error}"))
}

fn file_of(sample: &Sample) -> String {
    format!("{}.json", sample.name)
}

fn add_if_missing(sample: &Sample) {
    let path = kept::path(&format!("{DIRECTORY}/{}", file_of(sample)));
    if !path.exists() {
        let value: Value = serde_json::from_slice(&sample.written().data).expect("the writer writes JSON");
        fs::write(path, kept::pretty(&value)).expect("the checkout is writable");
    }
}

/// Adds a field to every object below, and counts them.
fn add_unknown_fields(value: &mut Value, name: &str) -> usize {
    match value {
        Value::Object(map) => {
            let below: usize = map
                .iter_mut()
                .map(|(key, value)| add_unknown_fields(value, key))
                .sum();
            if MAPS.contains(&name) {
                return below;
            }
            map.insert("futurefield".into(), json!({ "deep": [1, 2] }));
            below + 1
        }
        Value::Array(items) => items
            .iter_mut()
            .map(|item| add_unknown_fields(item, "item"))
            .sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn base64_of(text: &str) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.decode(text).expect("certificates are kept in base64")
}
