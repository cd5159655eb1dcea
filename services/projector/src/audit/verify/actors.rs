//! Who did it, and might they? The table of permissions asked again, with the roles of then.

use std::collections::{BTreeSet, VecDeque};

use domain::{
    ClusterState, Credential, Event, Fact, Position, Principal, UserName,
    access::{Action, RoleName, permits},
    command::Mode,
    event::{AuthorizationGranted, ConsumerAttested, Occasion},
    id::SystemActor,
    plain,
    state::Certificate,
};

/// How far back a decision may have been made where the log does not say it: commands are decided together and appended after one another, and
/// a role that was taken away meanwhile was there when it was asked for.
const DECIDED_BEFORE: u64 = 1_024;

/// How long a request may be under way between the gateway's look at its certificate and the decision.
const UNDER_WAY_MS: u64 = 60_000;

/// The roles of people over time.
#[derive(Default)]
pub(super) struct Roles {
    lost: VecDeque<(Position, UserName, BTreeSet<RoleName>)>,
}

impl Roles {
    /// Remembers what an event takes away.
    pub(super) fn remember(&mut self, state: &ClusterState, event: &Event) {
        let at = event.header.position;
        while self
            .lost
            .front()
            .is_some_and(|(position, _, _)| position.0 + DECIDED_BEFORE < at.0)
        {
            self.lost.pop_front();
        }
        if let Fact::AccessUserRemoved(f) = &event.fact {
            let roles = state.users.get(&f.user).cloned().unwrap_or_default();
            self.lost.push_back((at, f.user.clone(), roles));
        }
    }

    fn of(&self, state: &ClusterState, actor: &Principal) -> BTreeSet<RoleName> {
        let Principal::User(name) = actor else {
            return BTreeSet::new();
        };
        let lost = self
            .lost
            .iter()
            .filter(|(_, user, _)| user == name)
            .flat_map(|(_, _, roles)| roles);
        state
            .users
            .get(name)
            .into_iter()
            .flatten()
            .chain(lost)
            .copied()
            .collect()
    }
}

/// Might the actor cause this fact, in the state before it?
pub(super) fn check(state: &ClusterState, roles: &Roles, event: &Event) -> Result<(), String> {
    let actor = &event.header.actor;
    let might = match word_of(state, event) {
        Word::Action(action) => permits(actor, &roles.of(state, actor), action),
        Word::Own(holder) => *actor == holder,
        Word::Clock => *actor == Principal::System(SystemActor::Clock),
        Word::System => matches!(actor, Principal::System(_)),
        Word::Host => *actor == Principal::System(SystemActor::Host),
        Word::Anyone => true,
        Word::AnyOf(words) => words.into_iter().any(|word| match word {
            Word::Action(action) => permits(actor, &roles.of(state, actor), action),
            Word::Own(holder) => *actor == holder,
            Word::Host => *actor == Principal::System(SystemActor::Host),
            Word::Clock | Word::System | Word::Anyone | Word::AnyOf(_) => false,
        }),
    };
    if !might {
        return Err(format!("recorded as done by {actor}, who might not do it"));
    }
    credential(state, event)
}

/// What proved the actor names it too: a changed actor contradicts it.
///
/// Where the event names the state that it was decided on, the certificate must have counted there.
fn credential(state: &ClusterState, event: &Event) -> Result<(), String> {
    let actor = &event.header.actor;
    let is_strict = event.header.decided_at.is_some();
    let digest = match &event.header.credential {
        Some(Credential::Certificate(digest)) => digest,
        Some(Credential::Subject(subject)) => return sender(state, actor, subject),
        None => {
            // People and nodes come with a certificate; several refusals as one stand for several requests.
            let is_sum = matches!(event.fact, Fact::CommandRefused(_)) && event.header.command.is_none();
            let needs_one = matches!(actor, Principal::User(_) | Principal::Node(_));
            return if is_strict && needs_one && !is_sum {
                Err(format!("recorded as done by {actor}, but without a certificate"))
            } else {
                Ok(())
            };
        }
    };
    // A recovery is asked for with a certificate, but by nobody that it still makes a principal.
    if *actor == Principal::Anonymous {
        return Ok(());
    }
    match state.certificates.get(digest) {
        Some(certificate) if certificate.holder == *actor && is_strict => counts(certificate, event),
        Some(certificate) if certificate.holder == *actor => Ok(()),
        Some(certificate) => Err(format!(
            "recorded as done by {actor}, but with a certificate of {}",
            certificate.holder
        )),
        None => Err(format!(
            "recorded as done by {actor} with a certificate that was never issued"
        )),
    }
}

/// A message comes on a subject of whoever sends it, which the bus lets nobody else use.
fn sender(state: &ClusterState, actor: &Principal, subject: &str) -> Result<(), String> {
    let named = state
        .cluster_name()
        .and_then(|cluster| api::message::sender_of(cluster, subject));
    match named {
        Some((sender, _)) if sender == *actor => Ok(()),
        Some((sender, _)) => Err(format!(
            "recorded as done by {actor}, but on a subject of {sender}"
        )),
        None => Err(format!(
            "recorded as done by {actor}, but on {}, which is no subject of a sender",
            plain(subject)
        )),
    }
}

/// Did the certificate open the door when it was presented, a moment before the decision?
fn counts(certificate: &Certificate, event: &Event) -> Result<(), String> {
    let presented = event.header.time.minus_ms(UNDER_WAY_MS);
    let is_superseded = certificate.superseded_at.is_some_and(|at| at <= presented);
    // Whoever was removed while he asked was refused just for that, and did nothing.
    let did_something = !matches!(event.fact, Fact::CommandRefused(_));
    let why = if certificate.revoked && did_something {
        "that was revoked"
    } else if certificate.not_after <= presented {
        "that had expired"
    } else if is_superseded && matches!(certificate.holder, Principal::Node(_)) {
        "that was superseded"
    } else if !certificate.usage.client() {
        "for servers alone"
    } else {
        return seen(certificate, event);
    };
    Err(format!(
        "recorded as done by {} with a certificate {why}",
        event.header.actor
    ))
}

/// A report says what the gateway saw of the connection: the certificate that was presented on it.
fn seen(certificate: &Certificate, event: &Event) -> Result<(), String> {
    match &event.fact {
        Fact::NodeReported(f)
            if Some(&Credential::Certificate(f.seen.certificate)) != event.header.credential.as_ref()
                || f.seen.issuer != certificate.issuer =>
        {
            Err("reported over a connection with another certificate than is recorded as seen".into())
        }
        _ => Ok(()),
    }
}

/// On whose word a fact may stand.
enum Word {
    /// Whoever the table of permissions lets do this.
    Action(Action),
    /// This principal alone.
    Own(Principal),
    /// The schedule.
    Clock,
    /// Any part of the control plane.
    System,
    /// The control-plane host.
    Host,
    /// The public routes.
    Anyone,
    /// Any of these.
    AnyOf(Vec<Word>),
}

/// A gateway says what it saw, and gives no word of its own.
fn attestation(f: &ConsumerAttested) -> Word {
    match f.saw {
        Some(_) => Word::AnyOf(vec![
            Word::Action(Action::Rotate),
            Word::Action(Action::MemberSelf),
        ]),
        None => Word::Action(Action::Rotate),
    }
}

fn word_of(state: &ClusterState, event: &Event) -> Word {
    let is_automatic = |t| {
        let rotation = state
            .types
            .get(&t)
            .and_then(|of: &domain::state::TypeState| of.rotation.as_ref());
        rotation.is_some_and(|r| r.mode == Mode::Automatic)
    };
    match &event.fact {
        Fact::RotationPhaseEntered(f) if event.header.actor == Principal::System(SystemActor::Clock) => {
            // The schedule speaks only for rotations that were given to it.
            if is_automatic(f.authority_type) {
                Word::Clock
            } else {
                Word::Host
            }
        }
        Fact::RotationPhaseEntered(_)
        | Fact::RotationModeChanged(_)
        | Fact::NodeExcluded(_)
        | Fact::NodeIncluded(_)
        | Fact::ClusterClockAccepted(_) => Word::Action(Action::Rotate),
        Fact::ConsumerAttested(f) => attestation(f),
        Fact::RotationHeld(_)
        | Fact::RotationResumed(_)
        | Fact::RotationSettled(_)
        | Fact::MemberLost(_)
        | Fact::AuthorizationVoided(_) => Word::Clock,
        Fact::NodeRemoved(_)
        | Fact::AccessNamesReleased(_)
        | Fact::AccessTokenCreated(_)
        | Fact::AccessTokenRemoved(_)
        | Fact::AccessUserRemoved(_)
        | Fact::AccessCertificatesRevoked(_)
        | Fact::ConsumerAdded(_)
        | Fact::ConsumerWithdrawn(_) => Word::Action(Action::Administer),
        Fact::AccessUserAdded(_) => Word::AnyOf(vec![Word::Action(Action::Administer), Word::Host]),
        Fact::ClusterCreated(_) | Fact::AccessRecovered(_) => Word::Host,
        Fact::NodeJoined(_) | Fact::NodeRejoined(_) | Fact::NodeRecovered(_) | Fact::AccessTokenUsed(_) => {
            Word::Anyone
        }
        Fact::NodeReported(f) => Word::Own(Principal::Node(f.node)),
        Fact::MemberStarted(f) => Word::Own(Principal::Gateway(f.member)),
        Fact::MemberReported(f) => Word::Own(Principal::Gateway(f.member)),
        Fact::MemberStopped(f) => Word::Own(Principal::Gateway(f.member)),
        Fact::AccessCredentialPresented(_) => Word::Action(Action::MemberSelf),
        Fact::CommandRefused(f) => Word::Own(f.principal.clone()),
        Fact::CommandNoop(f) => Word::Own(f.principal.clone()),
        Fact::AuthorizationGranted(f) => authorised(f),
        // Whose facts these are is the check of the writers.
        Fact::AuthorityKeyGenerated(_)
        | Fact::AuthorityActivated(_)
        | Fact::AuthorityRetired(_)
        | Fact::AuthorityDestroyed(_)
        | Fact::AuthorityBundleSigned(_)
        | Fact::CertificateIssued(_)
        | Fact::CertificateRefused(_)
        | Fact::CertificateRevoked(_) => Word::System,
    }
}

/// On whose word a credential is authorised.
fn authorised(f: &AuthorizationGranted) -> Word {
    match f.occasion {
        Occasion::Genesis => Word::Host,
        Occasion::Join | Occasion::Recovery => Word::Anyone,
        Occasion::Renewal => Word::Own(f.holder.clone()),
        Occasion::Signing => Word::Action(Action::to_sign(f.authority_type)),
        Occasion::Login => Word::AnyOf(vec![
            Word::Action(Action::Administer),
            Word::Own(f.holder.clone()),
            Word::Host,
        ]),
    }
}
