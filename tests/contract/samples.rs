//! One fact of each type with realistic values in every field, in the story of one rotation of `acme.cluster`, and a
//! second, barer one where fields may be absent.
//!
//! A sample is never changed once its golden file is committed: logs hold such events. A field that is added later
//! gets its default here, and a further sample that bears it.

use std::{collections::BTreeMap, fmt::Debug, str::FromStr};

use domain::{
    AuthorityType, BootId, ClusterName, Credential, Event, Fact, MemberId, NodeId, Position, Principal,
    RotationId, SpkiPin, SystemActor, Timestamp,
    access::{Grant, Uses},
    event::CommandRef,
    time::{DAY_MS, HOUR_MS, MINUTE_MS},
};
use eventlog::{NewEvent, Stored};
use execution::codec::{self, Circumstances};

mod by_hand;
mod material;
mod parties;
mod rotation;
mod signed;

pub(crate) use by_hand::SSH_CA;
pub(crate) use material::{BUNDLE_PIN, FIRST_CA, SECOND_CA};

/// 2026-09-20T01:44:36Z, when the rotation of the story begins.
pub(crate) const BEGINNING: Timestamp = Timestamp(1_789_868_676_000);

/// A fact, how it came about, and the name of its golden file.
pub(crate) struct Sample {
    /// `carousel.node.joined.v1`, and for a barer one `carousel.node.joined.v1.bare`.
    pub(crate) name: String,
    pub(crate) fact: Fact,
    pub(crate) of: Circumstances,
}

impl Sample {
    fn full(fact: impl Into<Fact>, of: Circumstances) -> Self {
        let fact = fact.into();
        let name = fact.type_name().to_owned();
        Self { name, fact, of }
    }

    /// One whose optional fields are absent.
    fn bare(fact: impl Into<Fact>, of: Circumstances) -> Self {
        let sample = Self::full(fact, of);
        let name = format!("{}.bare", sample.name);
        Self { name, ..sample }
    }

    /// One with a field that its type gained later.
    fn later(field: &str, fact: impl Into<Fact>, of: Circumstances) -> Self {
        let sample = Self::full(fact, of);
        let name = format!("{}.{field}", sample.name);
        Self { name, ..sample }
    }

    /// One that says on which state it was decided.
    fn decided(fact: impl Into<Fact>, of: Circumstances, at: u64) -> Self {
        let mut sample = Self::full(fact, of);
        sample.of.decided_at = Some(Position(at));
        sample.name.push_str(".decided");
        sample
    }

    /// As the product writes it today; its id is new each time.
    pub(crate) fn written(&self) -> NewEvent {
        codec::encode(&cluster(), &self.fact, &self.of)
    }

    /// These bytes as they come out of a log.
    pub(crate) fn stored(&self, bytes: &[u8]) -> Stored {
        let subject = codec::subject_of(&cluster(), &self.fact);
        let data = bytes.to_vec().into();
        Stored {
            position: 4711,
            subject,
            data,
        }
    }

    /// What these bytes decode to.
    pub(crate) fn decoded(&self, bytes: &[u8]) -> Result<Event, codec::DecodeError> {
        codec::decode(&self.stored(bytes))
    }
}

/// Every sample, in the order of `Fact::TYPES` within each family.
pub(crate) fn all() -> Vec<Sample> {
    [
        rotation::samples(),
        parties::samples(),
        signed::samples(),
        by_hand::samples(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

pub(crate) fn cluster() -> ClusterName {
    read("acme.cluster")
}

/// Reads an identifier, name or time.
fn read<T: FromStr<Err: Debug>>(text: &str) -> T {
    text.parse()
        .unwrap_or_else(|error| panic!("{text} in a sample: {error:?}"))
}

fn minutes(count: u64) -> Timestamp {
    BEGINNING.plus_ms(count * MINUTE_MS)
}

fn days(count: u64) -> Timestamp {
    BEGINNING.plus_ms(count * DAY_MS)
}

fn hours(count: u64) -> Timestamp {
    BEGINNING.plus_ms(count * HOUR_MS)
}

/// The rotation of the story.
fn rotation() -> RotationId {
    read("01a0bc7c-93a0-7a11-8c3d-5e0f9a6b7c01")
}

fn node() -> NodeId {
    read("01a021fd-cba0-7b22-9a51-0c4f6d2e8a02")
}

fn member() -> MemberId {
    read("01a021fd-cba0-7d44-b173-2e6b8f4a0c04")
}

fn boot() -> BootId {
    read("01a0bc7c-0001-7e55-a284-3f7c9a5b1d05")
}

fn first() -> SpkiPin {
    read(material::FIRST_CA_PIN)
}

fn second() -> SpkiPin {
    read(material::SECOND_CA_PIN)
}

fn grant() -> Grant {
    let uses = BTreeMap::from([
        (AuthorityType::Host, Uses::ALL),
        (AuthorityType::User, Uses::VERIFIER),
    ]);
    Grant {
        names: vec![read("web-1.acme.example"), read("*.www.acme.example")],
        addresses: vec![read("192.0.2.7"), read("2001:db8::7")],
        uses,
    }
}

fn bare_grant() -> Grant {
    let uses = BTreeMap::from([(AuthorityType::Host, Uses::ALL)]);
    Grant {
        names: vec![read("web-1.acme.example")],
        addresses: vec![],
        uses,
    }
}

/// On the word of a person, with everything that can be known about it.
fn by_alice(time: Timestamp) -> Circumstances {
    let command = CommandRef {
        id: read("01a0bc7c-9000-7f66-9395-4a8dab6c2e06"),
        digest: read("sha256:0d2a1f4be4f1d2c55f0e7a0b3b0f3f4f6f0d9d3d6c1a5e8b7f2c4d6e8a0b1c2d"),
    };
    Circumstances {
        time,
        actor: Principal::User(read("alice")),
        credential: Some(Credential::Certificate(read(
            "sha256:7b52009b64fd0a2a49e6d8a939753077792b0554f53a5d9a2d1f6f0e3c4b5a69",
        ))),
        command: Some(command),
        reason: Some("yearly rotation, CHG-1138 \u{201c}autumn\u{201d}".into()),
        decided_at: None,
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        service: "orchestrator",
    }
}

/// On the word of a person that came as a message.
fn by_message(time: Timestamp, sender: &str, command: &str) -> Circumstances {
    let subject = format!("carousel.v1.acme_cluster.cmd.user-{sender}.{command}");
    Circumstances {
        actor: Principal::User(read(sender)),
        credential: Some(Credential::Subject(subject)),
        ..by_alice(time)
    }
}

/// By the schedule: nobody asked, nobody gave a reason.
fn by_clock(time: Timestamp) -> Circumstances {
    alone(time, SystemActor::Clock, "orchestrator")
}

/// By the signer, which decides nothing.
fn by_signer(time: Timestamp) -> Circumstances {
    alone(time, SystemActor::Signer, "signer")
}

/// By a program on the control plane's host.
fn by_host(time: Timestamp) -> Circumstances {
    alone(time, SystemActor::Host, "orchestrator")
}

fn alone(time: Timestamp, actor: SystemActor, service: &'static str) -> Circumstances {
    Circumstances {
        time,
        actor: Principal::System(actor),
        credential: None,
        command: None,
        reason: None,
        decided_at: None,
        traceparent: None,
        service,
    }
}

/// By a party that shows its certificate and gives no reason.
fn by(actor: Principal, time: Timestamp) -> Circumstances {
    Circumstances {
        actor,
        reason: None,
        ..by_alice(time)
    }
}

/// By a caller without a certificate, as at a join.
fn by_nobody(time: Timestamp) -> Circumstances {
    Circumstances {
        credential: None,
        ..by(Principal::Anonymous, time)
    }
}
