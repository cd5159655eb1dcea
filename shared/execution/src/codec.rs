//! Events as bytes and back: the domain's facts in the log's CloudEvents envelope.

use domain::{
    BodyDigest, ClusterName, CommandId, Credential, Event, EventId, Fact, Header, Position, Principal,
    Timestamp, event::CommandRef, plain,
};
use eventlog::{Envelope, NewEvent, Stored, Subject};
use serde_json::value::to_raw_value;

/// Why a record is not an event that this version understands. The fold stops at it: a state that skipped
/// an event is no state.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are no envelope.
    #[error("position {position} holds no event of Carousel: {source}")]
    Envelope {
        /// Where.
        position: u64,
        /// What is wrong.
        source: eventlog::DecodeError,
    },
    /// A newer version wrote it.
    #[error(
        "position {position} holds an event of type {type_name}, which this version does not know: upgrade Carousel"
    )]
    UnknownType {
        /// Where.
        position: u64,
        /// The unknown type.
        type_name: String,
    },
    /// The data does not fit its type.
    #[error("position {position} holds an event of type {type_name} that cannot be read: {detail}")]
    Data {
        /// Where.
        position: u64,
        /// The type.
        type_name: String,
        /// What is wrong.
        detail: String,
    },
}

/// The circumstances that a writer gives to its events.
#[derive(Clone, Debug)]
pub struct Circumstances {
    /// When it was decided.
    pub time: Timestamp,
    /// On whose word.
    pub actor: Principal,
    /// What proved it, if anything had to.
    pub credential: Option<Credential>,
    /// The command behind it.
    pub command: Option<CommandRef>,
    /// Why.
    pub reason: Option<String>,
    /// The position of the state that it was decided on.
    pub decided_at: Option<Position>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// The service that writes: `orchestrator` or `signer`.
    pub service: &'static str,
}

/// The subject that a fact stands on: `carousel.v1.<c>.evt.<family>.<holder>`.
///
/// Joins, tokens, names, principals and removals share one subject, because a condition stands on one only.
pub fn subject_of(cluster: &ClusterName, fact: &Fact) -> Subject {
    let text = format!(
        "{}{}.{}",
        eventlog::event_prefix(cluster.as_str()),
        fact.family(),
        fact.holder()
    );
    Subject::parse(text).expect("families and holders are tokens by construction")
}

/// A fact with its circumstances as a new event.
pub fn encode(cluster: &ClusterName, fact: &Fact, of: &Circumstances) -> NewEvent {
    let id = crate::fresh_id(of.time);
    let subject = subject_of(cluster, fact);
    let data = to_raw_value(fact).expect("facts are plain data");
    let source = format!("carousel://{cluster}/{}", of.service);
    let mut envelope = Envelope::new(id, source, fact.type_name(), subject.as_str(), of.time.0, &data);
    let (kind, who) = split(&of.actor);
    envelope.authtype = Some(kind.into());
    envelope.authid = Some(who.into());
    match &of.credential {
        Some(Credential::Certificate(digest)) => envelope.authcert = Some(digest.to_string().into()),
        Some(Credential::Subject(subject)) => envelope.authsubject = Some(subject.into()),
        None => {}
    }
    envelope.reason = of.reason.as_deref().map(Into::into);
    envelope.decidedat = of.decided_at.map(|position| position.to_string().into());
    envelope.traceparent = of.traceparent.as_deref().map(Into::into);
    envelope.correlationid = correlation(fact).map(Into::into);
    if let Some(command) = &of.command {
        envelope.causationid = Some(command.id.to_string().into());
        envelope.commanddigest = Some(command.digest.to_string().into());
    }
    let data = envelope.encode();
    NewEvent { subject, id, data }
}

/// A record as an event.
///
/// # Errors
/// [`DecodeError`] names the position; nothing after it may be folded.
pub fn decode(stored: &Stored) -> Result<Event, DecodeError> {
    let position = stored.position;
    let envelope =
        Envelope::decode(&stored.data).map_err(|source| DecodeError::Envelope { position, source })?;
    let bad = |detail: String| DecodeError::Data {
        position,
        type_name: plain(&envelope.r#type),
        detail: plain(detail),
    };
    let fact = Fact::decode(
        &envelope.r#type,
        &mut serde_json::Deserializer::from_str(envelope.data.get()),
    )
    .ok_or_else(|| DecodeError::UnknownType {
        position,
        type_name: plain(&envelope.r#type),
    })?
    .map_err(|error| bad(error.to_string()))?;
    let time = envelope
        .time_ms()
        .map(Timestamp)
        .ok_or_else(|| bad("its time is not RFC 3339".into()))?;
    let actor = match (&envelope.authtype, &envelope.authid) {
        (Some(kind), Some(who)) => format!("{kind}/{who}")
            .parse()
            .map_err(|e| bad(format!("its actor: {e}")))?,
        _ => return Err(bad("it names no actor".into())),
    };
    let parsed = |text: &Option<std::borrow::Cow<'_, str>>| text.as_ref().map(|t| t.to_string());
    let command = match (parsed(&envelope.causationid), parsed(&envelope.commanddigest)) {
        (Some(id), Some(digest)) => Some(CommandRef {
            id: id
                .parse::<CommandId>()
                .map_err(|e| bad(format!("its command: {e}")))?,
            digest: digest
                .parse::<BodyDigest>()
                .map_err(|e| bad(format!("its command's digest: {e}")))?,
        }),
        _ => None,
    };
    let credential = credential_of(&envelope).map_err(|e| bad(format!("its credential: {e}")))?;
    let decided_at = match &envelope.decidedat {
        Some(text) => {
            let position = text.parse().map(Position);
            Some(
                position
                    .map_err(|_| bad(format!("the position it was decided on: {text:?} is no number")))?,
            )
        }
        None => None,
    };
    Ok(Event {
        header: Header {
            position: Position(position),
            id: EventId(envelope.id),
            time,
            actor,
            credential,
            command,
            reason: parsed(&envelope.reason),
            decided_at,
        },
        fact,
    })
}

/// What proved the actor: a certificate counts before anything else that a later version may name beside it.
fn credential_of(envelope: &Envelope<'_>) -> Result<Option<Credential>, domain::id::InvalidId> {
    if let Some(text) = &envelope.authcert {
        return text.parse().map(|digest| Some(Credential::Certificate(digest)));
    }
    let subject = envelope.authsubject.as_ref();
    Ok(subject.map(|subject| Credential::Subject(subject.to_string())))
}

/// `user/alice` as (`user`, `alice`).
fn split(actor: &Principal) -> (String, String) {
    let text = actor.to_string();
    let (kind, who) = text.split_once('/').expect("principals are written kind/id");
    (kind.to_owned(), who.to_owned())
}

/// What belongs together: the rotation. Exhaustive, so that a new fact has to say whether it belongs to one.
fn correlation(fact: &Fact) -> Option<String> {
    let rotation = match fact {
        Fact::RotationPhaseEntered(f) => Some(f.rotation),
        Fact::RotationHeld(f) => Some(f.rotation),
        Fact::RotationResumed(f) => Some(f.rotation),
        Fact::RotationModeChanged(f) => Some(f.rotation),
        Fact::RotationSettled(f) => Some(f.rotation),
        Fact::ConsumerAttested(f) => Some(f.rotation),
        Fact::AuthorizationGranted(f) => f.rotation,
        Fact::AuthorityKeyGenerated(f) => f.key.rotation,
        // Of no rotation, or (an exclusion) of several at once.
        Fact::ClusterCreated(_)
        | Fact::ClusterClockAccepted(_)
        | Fact::NodeJoined(_)
        | Fact::NodeRejoined(_)
        | Fact::NodeRecovered(_)
        | Fact::NodeReported(_)
        | Fact::NodeExcluded(_)
        | Fact::NodeIncluded(_)
        | Fact::NodeRemoved(_)
        | Fact::MemberStarted(_)
        | Fact::MemberReported(_)
        | Fact::MemberLost(_)
        | Fact::MemberStopped(_)
        | Fact::AccessTokenCreated(_)
        | Fact::AccessTokenUsed(_)
        | Fact::AccessTokenRemoved(_)
        | Fact::AccessUserAdded(_)
        | Fact::AccessUserRemoved(_)
        | Fact::AccessRecovered(_)
        | Fact::AccessNamesReleased(_)
        | Fact::AccessCertificatesRevoked(_)
        | Fact::AccessCredentialPresented(_)
        | Fact::ConsumerAdded(_)
        | Fact::ConsumerWithdrawn(_)
        | Fact::CommandRefused(_)
        | Fact::CommandNoop(_)
        | Fact::AuthorizationVoided(_)
        | Fact::AuthorityActivated(_)
        | Fact::AuthorityRetired(_)
        | Fact::AuthorityDestroyed(_)
        | Fact::AuthorityBundleSigned(_)
        | Fact::CertificateIssued(_)
        | Fact::CertificateRefused(_)
        | Fact::CertificateRevoked(_) => None,
    };
    rotation.map(|rotation| rotation.0.to_string())
}
