//! Which event stands on which subject, and who may write it: conditional appends and the NATS permissions rest on it.

use std::collections::{BTreeMap, BTreeSet};

use domain::{Fact, event::Writer};
use execution::codec;

use crate::samples::{self, cluster};

/// contract.md section 3: families and their only writer.
pub(crate) const ORCHESTRATOR: [&str; 8] = [
    "access",
    "authorization",
    "cluster",
    "command",
    "consumer",
    "member",
    "node",
    "rotation",
];
pub(crate) const SIGNER: [&str; 2] = ["authority", "certificate"];

/// What decides on one subject shares it: a condition stands on no more than one.
const SHARED: [&str; 10] = [
    "carousel.access.certificates-revoked.v1",
    "carousel.access.names-released.v1",
    "carousel.access.recovered.v1",
    "carousel.access.token-created.v1",
    "carousel.access.token-removed.v1",
    "carousel.access.token-used.v1",
    "carousel.access.user-added.v1",
    "carousel.access.user-removed.v1",
    "carousel.cluster.clock-accepted.v1",
    "carousel.cluster.created.v1",
];

/// contract.md section 3: the facts it lists by name.
const KNOWN: &str = "cluster.created rotation.phase-entered rotation.held rotation.resumed rotation.mode-changed \
    rotation.settled node.joined node.rejoined node.recovered node.reported node.excluded node.included node.removed \
    member.started member.reported member.lost member.stopped access.token-created access.token-used \
    access.token-removed access.user-added access.user-removed access.recovered cluster.clock-accepted consumer.added \
    consumer.attested consumer.withdrawn command.refused command.noop authorization.granted authorization.voided \
    authority.key-generated authority.activated authority.retired authority.destroyed authority.bundle-signed \
    certificate.issued certificate.refused certificate.revoked";

#[test]
fn every_fact_the_contract_names_has_a_type_of_version_1() {
    for name in KNOWN.split_whitespace() {
        let type_name = format!("carousel.{name}.v1");
        assert!(Fact::TYPES.contains(&&*type_name), "{type_name}");
    }
    let unique: BTreeSet<_> = Fact::TYPES.iter().collect();
    assert_eq!(unique.len(), Fact::TYPES.len(), "a type is there twice");
    assert_eq!(Fact::MEANINGS.len(), Fact::TYPES.len());
    for (type_name, meaning) in Fact::TYPES.iter().zip(Fact::MEANINGS) {
        let sentence = meaning.ends_with('.') && !meaning.contains(['|', '\n']);
        assert!(sentence, "{type_name}: {meaning:?} is no sentence");
    }
}

#[test]
fn every_family_has_one_writer_and_it_is_the_contracts() {
    let mut writers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for sample in samples::all() {
        let writer = match sample.fact.writer() {
            Writer::Orchestrator => "orchestrator",
            Writer::Signer => "signer",
        };
        writers.entry(sample.fact.family()).or_default().insert(writer);
    }
    let of = |name: &'static str| {
        let own = writers.iter().filter(move |(_, w)| **w == [name].into());
        own.map(|(family, _)| *family).collect::<Vec<_>>()
    };
    assert_eq!(of("orchestrator"), ORCHESTRATOR);
    assert_eq!(of("signer"), SIGNER);
}

#[test]
fn every_subject_names_the_cluster_the_family_and_one_holder() {
    for sample in samples::all() {
        let subject = codec::subject_of(&cluster(), &sample.fact);
        let tokens: Vec<&str> = subject.as_str().split('.').collect();
        let [c1, c2, c3, c4, family, holder] = tokens[..] else {
            panic!("{subject} has not six tokens");
        };
        assert_eq!(
            [c1, c2, c3, c4],
            ["carousel", "v1", "acme_cluster", "evt"],
            "{subject}"
        );
        assert_eq!(family, sample.fact.family());
        assert_eq!(holder, sample.fact.holder());
        let second = sample.fact.type_name().split('.').nth(1);
        assert_eq!(
            second,
            Some(family),
            "the type names the family that the subject names"
        );
    }
}

#[test]
fn what_is_decided_in_one_place_shares_one_subject_and_nothing_else_does() {
    for sample in samples::all() {
        let shared = SHARED.contains(&sample.fact.type_name());
        assert_eq!(sample.fact.holder() == "cluster", shared, "{}", sample.name);
    }
}

/// A certificate never has a subject of its own: the signer answers where the holder's events stand.
#[test]
fn what_the_signer_answers_stands_on_the_holder_it_was_authorised_for() {
    let holder_of = |type_name: &str| {
        let sample = samples::all()
            .into_iter()
            .find(|sample| sample.name == type_name)
            .expect("a sample");
        sample.fact.holder()
    };
    let authorised = holder_of("carousel.authorization.granted.v1");
    for answer in [
        "carousel.certificate.issued.v1",
        "carousel.certificate.refused.v1",
        "carousel.authorization.voided.v1",
    ] {
        assert_eq!(holder_of(answer), authorised, "{answer}");
    }
}
