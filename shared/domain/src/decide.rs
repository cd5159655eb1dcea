//! The decision: a command against the state gives facts to append, or a refusal. Nothing else does.
//!
//! Each family of commands has a file below; this one holds what all have in common: who may ask
//! (first, every time), and that a repeated command gets its first answer.

use crate::{
    access::permits,
    command::{Answer, Answered, Command, Given, Order},
    event::{CommandNoop, Fact},
    id::{Position, Principal},
    refusal::{Code, Refusal},
    state::ClusterState,
    time::{DAY_MS, MINUTE_MS},
};

pub mod access;
pub mod again;
pub mod certificates;
pub mod consumers;
pub mod genesis;
pub mod join;
pub mod members;
pub mod nodes;
pub mod rotation;

/// How far ahead of us a command id may be, in milliseconds.
const ID_AHEAD_MS: u64 = 5 * MINUTE_MS;
/// How old a command id may be: as long as first answers are kept.
pub const ID_AGE_MS: u64 = DAY_MS;

/// The answer "yes": what to append, as one, and what to say once it is durable.
#[derive(Clone, PartialEq, Debug)]
pub struct Decision {
    /// The facts, in order; empty when the first answer is given again. The subject of the first one
    /// carries the condition: it must not have grown since the state that was decided on.
    pub facts: Vec<Fact>,
    /// The answer.
    pub answer: Answer,
    /// The position of the first answer, when this is a repetition.
    pub repeats: Option<Position>,
}

impl Decision {
    /// Facts with their answer.
    pub fn new(facts: Vec<Fact>, answer: Answer) -> Self {
        Self {
            facts,
            answer,
            repeats: None,
        }
    }

    /// Facts and the answer "done".
    pub fn done(facts: Vec<Fact>) -> Self {
        Self::new(facts, Answer::Done)
    }

    /// The work was done already: recorded, changes nothing.
    pub fn noop(command: &Command, text: impl Into<String>, answer: Option<Answer>) -> Self {
        let text = text.into();
        let fact = CommandNoop {
            principal: command.principal.clone(),
            command: command.order.name().into(),
            text: text.clone(),
            order: Some(Box::new(command.order.clone())),
        };
        Self::new(vec![fact.into()], answer.unwrap_or(Answer::Noop { text }))
    }
}

/// What every `decide/*` function returns.
pub type Decided = Result<Decision, Refusal>;

/// Decides a command.
///
/// # Errors
/// A [`Refusal`] with the code that names the obstacle. Nothing is changed by a refusal.
pub fn decide(state: &ClusterState, command: &Command, given: &Given) -> Decided {
    authorise(state, command)?;
    if let Some(first) = first_answer(state, command, given)? {
        return Ok(first);
    }
    if state.cluster.is_none() && !matches!(command.order, Order::Genesis(_)) {
        return Err(Refusal::new(
            Code::NoCluster,
            "the log holds no cluster yet: start `carousel serve` once",
        ));
    }
    dispatch(state, command, given)
}

/// Each order to its function.
fn dispatch(state: &ClusterState, command: &Command, given: &Given) -> Decided {
    match &command.order {
        Order::Genesis(genesis) => genesis::begin(state, genesis),
        Order::Rotate(rotate) => rotation::rotate(state, command, rotate, given),
        Order::ScheduledStep {
            authority_type,
            expects,
            uptime_since_step_ms,
            uptime_ms,
            seen,
        } => {
            let heard = rotation::Heard {
                uptime_since_step_ms: *uptime_since_step_ms,
                uptime_ms: *uptime_ms,
                seen: seen.as_ref(),
            };
            rotation::scheduled_step(state, *authority_type, expects, heard, given)
        }
        Order::Settle {
            authority_type,
            rotation,
        } => rotation::settle(state, *authority_type, *rotation),
        Order::ExcludeNode { node } => nodes::exclude(state, command, node),
        Order::IncludeNode { node } => nodes::include(state, command, node),
        Order::RemoveNode { node } => nodes::remove(state, node),
        Order::Report { node, report, seen } => nodes::report(state, node, report, seen, given),
        Order::CreateToken {
            hash,
            grant,
            uses,
            ttl_ms,
        } => access::create_token(state, *hash, grant, *uses, *ttl_ms, given),
        Order::RemoveToken { token } => access::remove_token(state, token),
        Order::AddUser { .. } => access::add_user(state, &command.order, given),
        Order::RemoveUser { user } => access::remove_user(state, user),
        Order::RecoverAdmin { user, key } => access::recover_admin(state, user, key, given),
        Order::PresentCredential { holder, certificate } => access::present(state, holder, *certificate),
        Order::Join(join) => join::join(state, join, given),
        Order::Recover { node, proven_by, key } => join::recover(state, node, *proven_by, key, given),
        Order::RequestCertificate {
            authority_type,
            usage,
            issuer,
            form,
            key,
        } => {
            let wanted = certificates::Wanted::new(*authority_type, *usage, *issuer, *form);
            certificates::request(state, command, &wanted, key, given)
        }
        Order::Sign(sign) => certificates::sign(state, sign, given),
        Order::RevokeCertificates { target } => certificates::revoke(state, command, target),
        Order::VoidAuthorization { authorization, why } => certificates::void(state, *authorization, why),
        Order::StartMember { .. } | Order::ReportMember { .. } => {
            members::report(state, &command.order, given)
        }
        Order::LoseMember {
            member,
            boot,
            silent_ms,
            uptime_ms,
        } => members::lose(state, *member, *boot, *silent_ms, *uptime_ms),
        Order::StopMember { member, boot } => members::stop(state, *member, *boot),
        Order::AcceptClock { behind_ms } => rotation::accept_clock(command, *behind_ms, given),
        Order::AddConsumer { .. } | Order::AttestConsumer { .. } | Order::WithdrawConsumer { .. } => {
            consumers::decide(state, command, given)
        }
    }
}

/// Who may ask for this? Checked first and every time, also for a repeated command.
fn authorise(state: &ClusterState, command: &Command) -> Result<(), Refusal> {
    // It was good when the connection was made; a revocation may have been decided since.
    // A recovery, which is anonymous, has words of its own for it.
    let shown = state.shown(command.credential.as_ref());
    if command.principal != Principal::Anonymous && shown.is_some_and(|shown| shown.revoked) {
        let text = format!("the certificate that {} shows was revoked", command.principal);
        return Err(Refusal::new(Code::CertificateUnknown, text));
    }
    let roles = match &command.principal {
        Principal::User(name) => state.users.get(name).cloned().unwrap_or_default(),
        Principal::Node(_)
        | Principal::Gateway(_)
        | Principal::External(_)
        | Principal::System(_)
        | Principal::Anonymous => Default::default(),
    };
    if !permits(&command.principal, &roles, command.action()) {
        return Err(Refusal::new(
            Code::NotPermitted,
            format!(
                "{} may not do `{}`: it lacks the role",
                command.principal,
                command.order.name()
            ),
        ));
    }
    // A node speaks for itself alone, and so does a member.
    let speaks_for = match &command.order {
        Order::Report { node, .. } => Some(Principal::Node(*node)),
        Order::StartMember { member, .. }
        | Order::ReportMember { member, .. }
        | Order::StopMember { member, .. } => Some(Principal::Gateway(*member)),
        Order::Genesis(_)
        | Order::Rotate(_)
        | Order::ScheduledStep { .. }
        | Order::Settle { .. }
        | Order::ExcludeNode { .. }
        | Order::IncludeNode { .. }
        | Order::RemoveNode { .. }
        | Order::CreateToken { .. }
        | Order::RemoveToken { .. }
        | Order::AddUser { .. }
        | Order::RemoveUser { .. }
        | Order::RecoverAdmin { .. }
        | Order::Join(_)
        | Order::Recover { .. }
        | Order::RequestCertificate { .. }
        | Order::Sign(_)
        | Order::RevokeCertificates { .. }
        | Order::PresentCredential { .. }
        | Order::LoseMember { .. }
        | Order::VoidAuthorization { .. }
        | Order::AcceptClock { .. }
        | Order::AddConsumer { .. }
        | Order::AttestConsumer { .. }
        | Order::WithdrawConsumer { .. } => None,
    };
    match speaks_for.filter(|holder| *holder != command.principal) {
        Some(holder) => Err(Refusal::new(
            Code::NotPermitted,
            format!("{} may not speak for {holder}", command.principal),
        )),
        None => Ok(()),
    }
}

/// Refuses what cuts somebody off, or overrules a safeguard, where nobody says why: whoever reads the log later must learn it.
fn needs_reason(command: &Command, text: impl Into<String>) -> Result<(), Refusal> {
    match command.reason.as_deref().map_or("", str::trim) {
        "" => Err(Refusal::new(Code::ReasonRequired, text)),
        _ => Ok(()),
    }
}

/// The first answer to a repeated command; refuses a reused or stale id.
fn first_answer(state: &ClusterState, command: &Command, given: &Given) -> Result<Option<Decision>, Refusal> {
    if !command.order.is_command() {
        return Ok(None);
    }
    // Joins and recoveries come without a certificate: their key is the token and the key pair.
    if command.principal == Principal::Anonymous {
        return Ok(None);
    }
    if let Some(done) = state.commands.get(&(command.principal.clone(), command.id)) {
        if done.digest != command.digest {
            let text = "this command id was used before for another request: make a new id for a new command";
            return Err(Refusal::new(Code::CommandIdReused, text));
        }
        return match &done.answer {
            Ok(Answered { position, answer }) => Ok(Some(Decision {
                facts: vec![],
                answer: answer.clone(),
                repeats: Some(*position),
            })),
            // Its words are the first ones; who keeps the gate closed is not in them, and is told as of now.
            Err((code, text)) => Err(Refusal {
                gate: rotation::still_closed(state, command, given).map(Box::new),
                ..Refusal::new(*code, text.clone())
            }),
        };
    }
    let Some(created) = command.id.created_ms() else {
        return Err(Refusal::new(
            Code::CommandIdStale,
            "the command id is not a UUIDv7",
        ));
    };
    let now = given.now.0;
    if created < now.saturating_sub(ID_AGE_MS as i64) || created > now.saturating_add(ID_AHEAD_MS as i64) {
        let text = "the command id is older than 24 h or more than 5 min ahead: check this machine's clock";
        return Err(Refusal::new(Code::CommandIdStale, text));
    }
    Ok(None)
}
