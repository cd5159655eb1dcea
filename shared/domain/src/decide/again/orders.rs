//! The order that facts carry: the inverse of `decide`, fact by fact.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Difference;
use crate::{
    authority::AuthorityType,
    command::{Expectation, Genesis, Join, KeyRequest, Mode, Order, Rejoin, Rotate, Sign},
    event::{
        AccessCredentialPresented, AccessTokenCreated, AccessTokenUsed, AccessUserAdded,
        AuthorizationGranted, AuthorizationVoided, ClusterCreated, ConsumerAdded, ConsumerAttested,
        ConsumerWithdrawn, Event, Fact, Form, MemberLost, MemberReported, MemberStarted, MemberStopped,
        NodeReported, Occasion, RotationHeld, RotationPhaseEntered, RotationSettled,
    },
    id::{AuthorizationId, MemberId, NodeId, Principal, SystemActor, TokenHash},
    phase::Phase,
    refusal::Code,
    state::ClusterState,
};

/// An order with what it was given: the parts of the recorded facts that no rule makes.
pub(super) struct Asked {
    pub(super) order: Order,
    pub(super) fresh: [Uuid; 4],
    pub(super) serial: [u8; 16],
    pub(super) clock_suspect: bool,
}

impl Asked {
    fn plain(order: Order) -> Self {
        Self {
            order,
            fresh: [Uuid::nil(); 4],
            serial: [0; 16],
            clock_suspect: false,
        }
    }

    /// With an authorisation, whose id is the fresh one at `place`.
    fn granted(order: Order, granted: &AuthorizationGranted, place: usize) -> Self {
        let mut asked = Self::plain(order);
        asked.fresh[place] = granted.authorization.0;
        asked.serial = granted.serial.0;
        asked
    }
}

/// The order behind the facts that begin here.
///
/// # Errors
/// [`Difference::NoOrder`] for a fact that no order begins with, [`Difference::Incomplete`] if what must follow it
/// does not.
pub(super) fn asked(state: &ClusterState, first: &Event, events: &[Event]) -> Result<Asked, Difference> {
    let next = |n: usize| events.get(n).map(|event| &event.fact);
    let granted = |n: usize| match next(n) {
        Some(Fact::AuthorizationGranted(granted)) => Ok(granted),
        _ => Err(Difference::Incomplete(first.fact.type_name())),
    };
    let order = match &first.fact {
        Fact::ClusterCreated(f) => Order::Genesis(Box::new(genesis(f, events))),
        Fact::ClusterClockAccepted(f) => {
            let order = Order::AcceptClock {
                behind_ms: f.behind_ms,
            };
            return Ok(Asked {
                clock_suspect: true,
                ..Asked::plain(order)
            });
        }
        Fact::RotationPhaseEntered(f) => return Ok(step(first, f)),
        Fact::RotationResumed(_) => match next(1) {
            Some(Fact::RotationPhaseEntered(f)) => return Ok(step(first, f)),
            _ => return Err(Difference::Incomplete(first.fact.type_name())),
        },
        Fact::NodeRecovered(f) => {
            let granted = granted(1)?;
            let (node, proven_by, key) = (f.node, f.proven_by, key_of(granted));
            return Ok(Asked::granted(
                Order::Recover { node, proven_by, key },
                granted,
                1,
            ));
        }
        Fact::AccessTokenUsed(f) => return joined(state, f, next(1), granted(2)?),
        Fact::AccessTokenCreated(f) => {
            let mut asked = Asked::plain(token(first, f));
            asked.fresh[0] = f.token.0;
            return Ok(asked);
        }
        Fact::AccessUserAdded(f) => {
            return match next(1) {
                Some(Fact::AccessRecovered(_)) => Ok(recovered(&f.user, granted(2)?)),
                _ => Ok(added(f, granted(1)?)),
            };
        }
        Fact::AccessRecovered(f) => return Ok(recovered(&f.user, granted(1)?)),
        Fact::AuthorizationGranted(f) => return requested(state, f, first),
        Fact::CommandRefused(f) => return answered(first, f.order.as_deref(), Some(f.code)),
        Fact::CommandNoop(f) => return answered(first, f.order.as_deref(), None),
        fact => alone(state, fact)?,
    };
    Ok(Asked::plain(order))
}

/// Facts that stand alone (or before facts that say nothing more), and need nothing that is fresh.
fn alone(state: &ClusterState, fact: &Fact) -> Result<Order, Difference> {
    Ok(match fact {
        Fact::RotationHeld(f) => held(state, f),
        Fact::RotationSettled(f) => settled(f),
        Fact::AuthorizationVoided(f) => voided(f),
        Fact::NodeReported(f) => reported(f),
        Fact::NodeExcluded(f) => Order::ExcludeNode { node: f.node },
        Fact::NodeIncluded(f) => Order::IncludeNode { node: f.node },
        Fact::AccessNamesReleased(f) => Order::RemoveNode { node: f.node },
        Fact::MemberStarted(f) => started(f),
        Fact::MemberReported(f) => member_reported(f),
        Fact::MemberLost(f) => lost(f),
        Fact::MemberStopped(f) => stopped(f),
        Fact::AccessTokenRemoved(f) => Order::RemoveToken { token: f.token },
        Fact::AccessUserRemoved(f) => Order::RemoveUser { user: f.user.clone() },
        Fact::AccessCertificatesRevoked(f) => Order::RevokeCertificates {
            target: f.target.clone(),
        },
        Fact::AccessCredentialPresented(f) => presented(f),
        Fact::ConsumerAdded(f) => consumer_added(f),
        Fact::ConsumerAttested(f) => attested(f),
        Fact::ConsumerWithdrawn(f) => withdrawn(f),
        // Behind the fact that carries their order, written by the signer, or by nobody any more.
        Fact::RotationModeChanged(_)
        | Fact::NodeJoined(_)
        | Fact::NodeRejoined(_)
        | Fact::NodeRemoved(_)
        | Fact::AuthorityKeyGenerated(_)
        | Fact::AuthorityActivated(_)
        | Fact::AuthorityRetired(_)
        | Fact::AuthorityDestroyed(_)
        | Fact::AuthorityBundleSigned(_)
        | Fact::CertificateIssued(_)
        | Fact::CertificateRefused(_)
        | Fact::CertificateRevoked(_)
        // `asked` knows what leads to these.
        | Fact::ClusterCreated(_)
        | Fact::ClusterClockAccepted(_)
        | Fact::RotationPhaseEntered(_)
        | Fact::RotationResumed(_)
        | Fact::NodeRecovered(_)
        | Fact::AccessTokenCreated(_)
        | Fact::AccessTokenUsed(_)
        | Fact::AccessUserAdded(_)
        | Fact::AccessRecovered(_)
        | Fact::AuthorizationGranted(_)
        | Fact::CommandRefused(_)
        | Fact::CommandNoop(_) => return Err(Difference::NoOrder(fact.type_name())),
    })
}

fn held(state: &ClusterState, f: &RotationHeld) -> Order {
    let of = state.types.get(&f.authority_type);
    Order::ScheduledStep {
        authority_type: f.authority_type,
        expects: Expectation {
            rotation: Some(f.rotation),
            phase: of.map(|of| of.phase).unwrap_or_default(),
        },
        // As if just started: then no policy may act, and what is due is held.
        uptime_since_step_ms: 0,
        uptime_ms: 0,
        seen: None,
    }
}

fn settled(f: &RotationSettled) -> Order {
    Order::Settle {
        authority_type: f.authority_type,
        rotation: f.rotation,
    }
}

fn voided(f: &AuthorizationVoided) -> Order {
    Order::VoidAuthorization {
        authorization: f.authorization,
        why: f.why.clone(),
    }
}

fn reported(f: &NodeReported) -> Order {
    Order::Report {
        node: f.node,
        report: f.report.clone(),
        seen: f.seen.clone(),
    }
}

fn member_reported(f: &MemberReported) -> Order {
    Order::ReportMember {
        member: f.member,
        boot: f.boot,
        seq: f.seq,
        facts: f.facts.clone(),
    }
}

fn lost(f: &MemberLost) -> Order {
    Order::LoseMember {
        member: f.member,
        boot: f.boot,
        silent_ms: f.silent_ms,
        // How long it was up is not recorded; that it lost the member says that it was long enough.
        uptime_ms: u64::MAX,
    }
}

fn stopped(f: &MemberStopped) -> Order {
    Order::StopMember {
        member: f.member,
        boot: f.boot,
    }
}

fn presented(f: &AccessCredentialPresented) -> Order {
    Order::PresentCredential {
        holder: f.holder.clone(),
        certificate: f.certificate,
    }
}

fn consumer_added(f: &ConsumerAdded) -> Order {
    Order::AddConsumer {
        authority_type: f.authority_type,
        consumer: f.consumer.clone(),
        owner: f.owner.clone(),
        contact: f.contact.clone(),
        probe: f.probe.clone(),
    }
}

fn attested(f: &ConsumerAttested) -> Order {
    Order::AttestConsumer {
        authority_type: f.authority_type,
        consumer: f.consumer.clone(),
        expects: Expectation {
            rotation: Some(f.rotation),
            phase: f.phase,
        },
        probed: f.probed,
        saw: f.saw.clone(),
    }
}

fn withdrawn(f: &ConsumerWithdrawn) -> Order {
    Order::WithdrawConsumer {
        authority_type: f.authority_type,
        consumer: f.consumer.clone(),
    }
}

/// A step of the schedule, or of a person.
fn step(first: &Event, f: &RotationPhaseEntered) -> Asked {
    if first.header.actor == Principal::System(SystemActor::Clock) {
        return Asked::plain(Order::ScheduledStep {
            authority_type: f.authority_type,
            expects: Expectation {
                rotation: Some(f.rotation),
                phase: f.from,
            },
            // How long it was up and whom it saw is not recorded; that it made the step says that it was long enough,
            // and that nobody was there whom it passed over.
            uptime_since_step_ms: u64::MAX,
            uptime_ms: u64::MAX,
            seen: Some(BTreeSet::new()),
        });
    }
    let begins = f.from == Phase::Standby;
    let manual = f.mode == Mode::Manual;
    let mut asked = Asked::plain(Order::Rotate(Rotate {
        authority_type: f.authority_type,
        target: (!begins || manual).then_some(f.to),
        manual,
        grace_period_ms: begins.then_some(f.grace_period_ms),
        on_lagging: begins.then_some(f.on_lagging),
        force: f.forced,
        expects: None,
    }));
    asked.fresh[0] = f.rotation.0;
    asked
}

/// A join: the token's digest is in the state, the key in the authorisation.
fn joined(
    state: &ClusterState,
    used: &AccessTokenUsed,
    entered: Option<&Fact>,
    granted: &AuthorizationGranted,
) -> Result<Asked, Difference> {
    let rejoin = match entered {
        Some(Fact::NodeJoined(_)) => None,
        Some(Fact::NodeRejoined(f)) => Some(Rejoin {
            node: f.node,
            proven_by: f.proven_by,
        }),
        _ => return Err(Difference::Incomplete("a join")),
    };
    // A token that is not there has no digest: the join is refused as one with an unknown token.
    let token = state
        .tokens
        .get(&used.token)
        .map_or(TokenHash([0; 32]), |t| t.hash);
    let join = Join {
        token,
        hostname: used.hostname.clone(),
        key: key_of(granted),
        rejoin,
    };
    let mut asked = Asked::granted(Order::Join(join), granted, 1);
    asked.fresh[0] = used.node.0;
    Ok(asked)
}

fn token(first: &Event, f: &AccessTokenCreated) -> Order {
    Order::CreateToken {
        hash: f.hash,
        grant: f.grant.clone(),
        uses: f.uses,
        ttl_ms: f.expires.since_ms(first.header.time),
    }
}

fn added(f: &AccessUserAdded, granted: &AuthorizationGranted) -> Asked {
    let order = Order::AddUser {
        user: f.user.clone(),
        roles: f.roles.iter().copied().collect(),
        logins: f.logins.clone(),
        key: key_of(granted),
    };
    Asked::granted(order, granted, 0)
}

fn recovered(user: &crate::id::UserName, granted: &AuthorizationGranted) -> Asked {
    let order = Order::RecoverAdmin {
        user: user.clone(),
        key: key_of(granted),
    };
    Asked::granted(order, granted, 0)
}

/// An authorisation alone: somebody's own request, or a join again whose first authorisation was voided.
fn requested(state: &ClusterState, f: &AuthorizationGranted, first: &Event) -> Result<Asked, Difference> {
    match (f.occasion, &f.holder) {
        (Occasion::Renewal, holder) if *holder == first.header.actor => {
            let order = Order::RequestCertificate {
                authority_type: f.authority_type,
                usage: f.usage,
                issuer: Some(f.issuer),
                form: f.form.kind(),
                key: key_of(f),
            };
            Ok(Asked::granted(order, f, 0))
        }
        (Occasion::Signing, Principal::External(name)) => {
            let order = signed_by_hand(f, name, first).ok_or(Difference::NoOrder(first.fact.type_name()))?;
            Ok(Asked::granted(order, f, 0))
        }
        (Occasion::Join, Principal::Node(id)) => {
            let join = joined_before(state, *id, f).ok_or(Difference::NoOrder(first.fact.type_name()))?;
            Ok(Asked::granted(Order::Join(join), f, 1))
        }
        (
            Occasion::Genesis
            | Occasion::Join
            | Occasion::Renewal
            | Occasion::Recovery
            | Occasion::Login
            | Occasion::Signing,
            _,
        ) => Err(Difference::NoOrder(first.fact.type_name())),
    }
}

/// The order of `auth sign` or `auth token`. A life that was cut at its authority's end asks for that much.
fn signed_by_hand(f: &AuthorizationGranted, name: &str, first: &Event) -> Option<Order> {
    let is_host = f.authority_type == AuthorityType::Host;
    let form = match &f.form {
        // Its principals are its names: the decision makes them.
        Form::Ssh { .. } if is_host => Form::Ssh {
            principals: vec![],
            critical_options: BTreeMap::new(),
            extensions: vec![],
        },
        form => form.clone(),
    };
    Some(Order::Sign(Box::new(Sign {
        authority_type: f.authority_type,
        holder: name.parse().ok()?,
        form,
        names: f.names.clone(),
        addresses: f.addresses.clone(),
        ttl_ms: Some(f.not_after.since_ms(first.header.time)),
        key: key_of(f),
    })))
}

/// The join that this key was used for before.
fn joined_before(state: &ClusterState, node: NodeId, granted: &AuthorizationGranted) -> Option<Join> {
    let token = state
        .tokens
        .values()
        .find(|token| token.used.get(&granted.spki) == Some(&node))?;
    Some(Join {
        token: token.hash,
        hostname: state.nodes.get(&node)?.hostname.clone(),
        key: key_of(granted),
        rejoin: None,
    })
}

/// The order that was refused, or found done.
fn answered(first: &Event, order: Option<&Order>, code: Option<Code>) -> Result<Asked, Difference> {
    let order = order.ok_or(Difference::NoOrder(first.fact.type_name()))?.clone();
    // Whether the clock was suspect is said by the refusal: only while it is can it be accepted.
    let clock_suspect = match order {
        Order::AcceptClock { .. } => code != Some(Code::NothingSuspect),
        _ => code == Some(Code::ClockSuspect),
    };
    Ok(Asked {
        clock_suspect,
        ..Asked::plain(order)
    })
}

fn started(f: &MemberStarted) -> Order {
    Order::StartMember {
        member: f.member,
        boot: f.boot,
        seq: f.seq,
        service: f.service.clone(),
        names: f.names.clone(),
        addresses: f.addresses.clone(),
        facts: f.facts.clone(),
    }
}

fn key_of(granted: &AuthorizationGranted) -> KeyRequest {
    KeyRequest {
        spki: granted.spki,
        public_key: granted.public_key.clone(),
    }
}

/// The parts of a genesis, as far as they follow: what is missing or too much makes another one of it.
fn genesis(f: &ClusterCreated, events: &[Event]) -> Genesis {
    let (mut keys, mut admin, mut certificates) = (vec![], None, vec![]);
    let mut granted: BTreeMap<AuthorizationId, AuthorizationGranted> = BTreeMap::new();
    let mut generated = None;
    for event in events.iter().skip(1) {
        match &event.fact {
            Fact::AuthorityKeyGenerated(f) if admin.is_none() => generated = Some(f.clone()),
            Fact::AuthorityActivated(f) => keys.extend(generated.take().map(|of| (of, f.clone()))),
            Fact::AccessUserAdded(f) if admin.is_none() => admin = Some(f.user.clone()),
            Fact::AuthorizationGranted(f) if f.occasion == Occasion::Genesis => {
                granted.insert(f.authorization, f.clone());
            }
            Fact::CertificateIssued(f) if granted.contains_key(&f.authorization) => {
                certificates.extend(granted.remove(&f.authorization).map(|of| (of, f.clone())));
            }
            _ => break,
        }
    }
    let gateway = certificates.iter().find_map(|(of, _)| match of.holder {
        Principal::Gateway(id) => Some(id),
        _ => None,
    });
    Genesis {
        cluster: f.cluster.clone(),
        settings: f.settings.clone(),
        bundle_key: f.bundle_key,
        bundle_public_key: f.bundle_public_key.clone(),
        keys,
        // Every cluster has an administrator; without one in the log this name stands in the difference.
        admin: admin.unwrap_or_else(|| "admin".parse().expect("`admin` is a user name")),
        gateway: gateway.unwrap_or(MemberId(Uuid::nil())),
        certificates,
    }
}
