//! The first reading: the records as records. Order, schema, writers, checkpoints.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
};

use domain::{
    AuthorityType, ClusterName, Event, EventId, Fact, Phase, Position, Principal, Timestamp, event::Writer,
    id::SystemActor,
};
use eventlog::{Envelope, EventLog, ReadError, Stored, Subject};
use execution::{
    checkpoint::{Chain, Checkpoint},
    codec,
};

use super::{BATCH, Check, count};
use crate::audit::ReplayError;

/// The log's writers share no clock: the time of an event may be a little before that of the one before it.
const BACKWARDS_MS: u64 = 60_000;

/// A phase event whose gate is to be evaluated again when the state is where it was evaluated first.
#[derive(Clone, Copy, Debug)]
pub(super) struct PhaseAt {
    pub(super) event: Position,
    pub(super) authority_type: AuthorityType,
    pub(super) to: Phase,
    pub(super) time: Timestamp,
}

/// An event that names the state that it was decided on.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecidedAt {
    pub(super) at: Position,
    pub(super) event: Position,
    /// The event before it on its subject.
    pub(super) tail: Position,
}

/// What the first reading found.
pub(super) struct Survey {
    pub(super) order: Check,
    pub(super) schema: Check,
    pub(super) writers: Check,
    pub(super) checkpoints: Check,
    /// The last record.
    pub(super) end: Position,
    /// The last record up to which everything can be decoded.
    pub(super) decodable: Position,
    /// Phase events by the position that they were decided on.
    pub(super) phases: BTreeMap<Position, Vec<PhaseAt>>,
    /// Every event that says on which position it was decided.
    pub(super) decisions: Vec<DecidedAt>,
    /// What somebody outside attested, which nothing in the log proves.
    pub(super) attested: u64,
    tails: HashMap<Subject, Position>,
    ids: HashSet<EventId>,
    types: BTreeSet<&'static str>,
    last_time: Timestamp,
    cluster: Option<ClusterName>,
    /// The time of the first event, for as long as the genesis goes on.
    genesis: Option<Timestamp>,
}

impl Survey {
    /// Reads to the end, or to the first hole.
    pub(super) async fn read(
        log: &dyn EventLog,
        known: Option<io::Result<Vec<Checkpoint>>>,
    ) -> Result<Self, ReplayError> {
        let mut survey = Self {
            order: Check::new("order"),
            schema: Check::new("schema"),
            writers: Check::new("writers"),
            checkpoints: Check::new("checkpoints"),
            end: Position(0),
            decodable: Position(0),
            phases: BTreeMap::new(),
            decisions: vec![],
            attested: 0,
            tails: HashMap::new(),
            ids: HashSet::new(),
            types: BTreeSet::new(),
            last_time: Timestamp(i64::MIN),
            cluster: None,
            genesis: None,
        };
        let mut chain = Chain::default();
        let known = survey.known(known);
        let mut waiting = known.iter().peekable();
        // What is appended while this reads is left to the next time. The checkpoints were read before: none of
        // them can be ahead of an honest log.
        let end = log.last_position().await?;
        while survey.end.0 < end {
            let batch = match log.read(survey.end.0 + 1, BATCH).await {
                Ok(batch) if batch.is_empty() => break,
                Ok(batch) => batch,
                Err(ReadError::Gap { expected, .. }) => {
                    survey.order.fail(Some(Position(expected)), "is missing");
                    break;
                }
                Err(error) => return Err(error.into()),
            };
            for record in &batch {
                survey.take(record);
                chain.push(record);
                while let Some(holds) = waiting.peek().and_then(|next| chain.agrees(next)) {
                    let at = Position(record.position);
                    waiting.next();
                    let why = "the records up to here are not those that the signer saw";
                    survey
                        .checkpoints
                        .take(at, if holds { Ok(()) } else { Err(why.into()) });
                }
            }
        }
        let unseen = waiting.next().map(|checkpoint| checkpoint.position);
        survey.finish(known.last(), unseen);
        Ok(survey)
    }

    fn known(&mut self, known: Option<io::Result<Vec<Checkpoint>>>) -> Vec<Checkpoint> {
        let (known, why) = match known {
            Some(Ok(known)) if !known.is_empty() => return known,
            Some(Ok(known)) => (
                known,
                "not checked: the signer has written no checkpoint yet".into(),
            ),
            None => (
                vec![],
                "not checked: the signer's checkpoints are not at hand".into(),
            ),
            Some(Err(error)) => {
                self.checkpoints
                    .fail(None, format!("the file of checkpoints cannot be read: {error}"));
                (vec![], String::new())
            }
        };
        self.checkpoints.skipped = Some(why);
        known
    }

    fn take(&mut self, record: &Stored) {
        let at = Position(record.position);
        self.order.checked += 1;
        if at.0 != self.end.0 + 1 {
            self.order
                .fail(Some(at), format!("follows position {}", self.end));
        }
        self.end = at;
        match codec::decode(record) {
            Ok(event) => {
                if self.decodable.0 + 1 == at.0 {
                    self.decodable = at;
                }
                self.schema.checked += 1;
                self.types.insert(event.fact.type_name());
                self.order_of(&event);
                self.remember(record, &event);
                let is_genesis = self.is_of_genesis(&event);
                let outcome = self.writer_of(record, &event, is_genesis);
                self.writers.take(at, outcome);
            }
            Err(error) => self.schema.take(at, Err(error.to_string())),
        }
    }

    fn order_of(&mut self, event: &Event) {
        let at = event.header.position;
        if !self.ids.insert(event.header.id) {
            self.order.fail(
                Some(at),
                format!("the event id {} stands in the log twice", event.header.id),
            );
        }
        let back_ms = self.last_time.since_ms(event.header.time);
        if back_ms > BACKWARDS_MS {
            self.order.fail(
                Some(at),
                format!("is {} s earlier than an event before it", back_ms / 1_000),
            );
        }
        self.last_time = self.last_time.max(event.header.time);
    }

    fn remember(&mut self, record: &Stored, event: &Event) {
        let position = event.header.position;
        let tail = self.tails.get_mut(&record.subject);
        let tail = match tail {
            Some(tail) => std::mem::replace(tail, position),
            None => self
                .tails
                .insert(record.subject.clone(), position)
                .unwrap_or_default(),
        };
        let decided_at = event.header.decided_at.filter(|at| *at < position);
        if let Some(at) = decided_at.filter(|_| self.decodable == position) {
            self.decisions.push(DecidedAt {
                at,
                event: position,
                tail,
            });
        }
        match &event.fact {
            Fact::ClusterCreated(f) if self.cluster.is_none() => {
                self.cluster = Some(f.cluster.clone());
            }
            Fact::RotationPhaseEntered(f) => {
                let at = event.header.decided_at.unwrap_or(f.gate.position);
                self.phases.entry(at).or_default().push(PhaseAt {
                    event: position,
                    authority_type: f.authority_type,
                    to: f.to,
                    time: event.header.time,
                });
            }
            Fact::ConsumerAttested(_) => self.attested += 1,
            _ => {}
        }
    }

    /// Does it stand where its fact belongs, written by the service whose family it is?
    fn writer_of(&self, record: &Stored, event: &Event, is_genesis: bool) -> Result<(), String> {
        let Some(cluster) = &self.cluster else {
            return Err("stands before the cluster was created".into());
        };
        let subject = codec::subject_of(cluster, &event.fact);
        if subject != record.subject {
            return Err(format!("a fact of {subject} stands on {}", record.subject));
        }
        let envelope = Envelope::decode(&record.data).map_err(|error| error.to_string())?;
        if envelope.subject != record.subject.as_str() {
            return Err(format!(
                "it names the subject {}, but stands on {}",
                envelope.subject, record.subject
            ));
        }
        let signer = Principal::System(SystemActor::Signer);
        let service = match event.fact.writer() {
            Writer::Signer if is_genesis => return Ok(()),
            Writer::Signer if event.header.actor == signer => "signer",
            Writer::Signer => return Err(format!("{} wrote a fact of the signer", event.header.actor)),
            Writer::Orchestrator if event.header.actor == signer => {
                return Err(format!(
                    "the signer wrote a fact of the family {}",
                    event.fact.family()
                ));
            }
            Writer::Orchestrator => "orchestrator",
        };
        let source = format!("carousel://{cluster}/{service}");
        if envelope.source == source {
            Ok(())
        } else {
            Err(format!("its source is {}, not {source}", envelope.source))
        }
    }

    /// Is it of the first append? The genesis is made by `init`, keys and certificates included, and appended as one:
    /// it ends with the first event of another time or actor, and never begins again.
    fn is_of_genesis(&mut self, event: &Event) -> bool {
        if event.header.position.0 == 1 {
            self.genesis = Some(event.header.time);
        }
        let of_host = event.header.actor == Principal::System(SystemActor::Host);
        let goes_on = of_host && event.header.command.is_none() && self.genesis == Some(event.header.time);
        if !goes_on {
            self.genesis = None;
        }
        goes_on
    }

    fn finish(&mut self, last: Option<&Checkpoint>, unseen: Option<Position>) {
        self.order.text = format!("{}, none missing, none twice", count(self.end.0, "position"));
        let (events, types) = (count(self.schema.checked, "event"), self.types.len() as u64);
        self.schema.text = format!("{events} of {}, 0 unknown", count(types, "type"));
        self.writers.text = format!(
            "{}, each on its subject, by the service whose family it is",
            count(self.writers.checked, "event")
        );
        if let Some(last) = last {
            if let Some(unseen) = unseen {
                let why = format!(
                    "the log ends at position {}, but the signer has seen {}",
                    self.end, unseen
                );
                self.checkpoints.fail(Some(Position(self.end.0 + 1)), why);
            }
            let hold = count(self.checkpoints.checked, "checkpoint");
            self.checkpoints.text = format!(
                "{hold} of the signer, all as it saw them, the last at position {}",
                last.position
            );
        }
    }
}
