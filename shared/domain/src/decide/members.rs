//! Members: control-plane services that speak TLS. While one runs, every gate waits for it.
//!
//! A gateway that lags would turn the whole fleet away at its door, so no force passes over it. What ends its
//! binding is that it says goodbye, or that nothing is heard of it for so long that it must have stopped serving
//! by its own rule (it serves only while it reads back its own reports).

use std::net::IpAddr;

use crate::{
    command::{Given, Order},
    decide::{Decided, Decision, access::names, join::alive_until, nodes::check_facts},
    event::{MemberLost, MemberReported, MemberStarted, MemberStopped},
    fact::FactsByType,
    id::{BootId, MemberId},
    refusal::{Code, Refusal},
    rules::{Rule, holds},
    state::{ClusterState, Member},
    time::{SECOND_MS, Timestamp},
};

/// How long nothing must have been heard from a member before it no longer counts, in milliseconds.
pub const SILENCE_MS: u64 = 30 * SECOND_MS;

/// Decides a start or a report of a member. A steady heartbeat changes nothing and is no event.
///
/// # Errors
/// `member_unknown` for one that must begin (again) with a start, `stale_view` for an older boot or an older
/// report, `report_invalid`, `name_taken` if a living node has a name or an address that the member wants.
pub fn report(state: &ClusterState, order: &Order, given: &Given) -> Decided {
    match order {
        Order::StartMember { member, facts, .. } => {
            check_all(state, facts)?;
            start(state, *member, order, given)
        }
        Order::ReportMember {
            member,
            boot,
            seq,
            facts,
        } => {
            check_all(state, facts)?;
            steady(state, *member, *boot, *seq, facts)
        }
        other => Err(Refusal::new(
            Code::Internal,
            format!("`{}` is no report of a member", other.name()),
        )),
    }
}

/// Decides that a silent member no longer binds the gate. It stands on the member's subject: if the member
/// was heard of meanwhile, the append fails and nothing is lost.
///
/// # Errors
/// `member_unknown`; `stale_view` if it was silent for less than 30 s, counted at the earliest from the
/// orchestrator's own start.
pub fn lose(state: &ClusterState, member: MemberId, boot: BootId, silent_ms: u64, uptime_ms: u64) -> Decided {
    let known = find(state, member)?;
    if !known.running || known.boot != Some(boot) {
        return Ok(Decision::done(vec![]));
    }
    // An orchestrator that was down has heard nothing from anybody: that is its silence, not theirs.
    let counted_ms = if holds(Rule::SilenceCountsFromStart) {
        silent_ms.min(uptime_ms)
    } else {
        silent_ms
    };
    if counted_ms < SILENCE_MS {
        let text = format!(
            "the {} {member} was silent for {} s only",
            known.service,
            counted_ms / SECOND_MS
        );
        return Err(Refusal::new(Code::StaleView, text));
    }
    Ok(Decision::done(vec![
        MemberLost {
            member,
            boot,
            silent_ms: counted_ms,
        }
        .into(),
    ]))
}

/// Decides that a member ended in order.
///
/// # Errors
/// `member_unknown`.
pub fn stop(state: &ClusterState, member: MemberId, boot: BootId) -> Decided {
    let known = find(state, member)?;
    // A late goodbye of an older start says nothing about the current one.
    if !known.running || known.boot != Some(boot) {
        return Ok(Decision::done(vec![]));
    }
    Ok(Decision::done(vec![MemberStopped { member, boot }.into()]))
}

/// A start: a new boot replaces the old one, and one that was counted as lost begins again.
///
/// Crash point: a member that dies after this fact binds the gate until it starts anew or is lost; it never
/// served before it read the fact back.
fn start(state: &ClusterState, member: MemberId, order: &Order, given: &Given) -> Decided {
    let Order::StartMember {
        boot,
        seq,
        service,
        names,
        addresses,
        facts,
        ..
    } = order
    else {
        return Err(Refusal::new(Code::Internal, "a start was expected"));
    };
    if let Some(known) = state.members.get(&member).filter(|m| m.boot == Some(*boot)) {
        let same =
            known.running && known.facts == *facts && (&known.names, &known.addresses) == (names, addresses);
        if same {
            return Ok(Decision::done(vec![]));
        }
        rises(known, *seq)?;
    }
    if names.len() > names::MAX_NAMES || addresses.len() > names::MAX_ADDRESSES {
        return Err(Refusal::new(
            Code::ReportInvalid,
            "too many names or addresses: advertise fewer",
        ));
    }
    // Reserved from here on. A living node that has one of them already would keep it at each renewal, and could
    // stand in for this member; one that is not alive does not come back with it.
    for name in names {
        names::check_free(state, name, None, given.now)?;
    }
    check_addresses_free(state, addresses, given.now)?;
    let started = MemberStarted {
        member,
        boot: *boot,
        seq: *seq,
        service: service.clone(),
        names: names.clone(),
        addresses: addresses.clone(),
        facts: facts.clone(),
    };
    Ok(Decision::done(vec![started.into()]))
}

/// Refuses an address that the grant of a living node names.
fn check_addresses_free(state: &ClusterState, addresses: &[IpAddr], now: Timestamp) -> Result<(), Refusal> {
    let is_wanted = |granted: &IpAddr| {
        let granted = granted.to_canonical();
        addresses.iter().any(|a| a.to_canonical() == granted)
    };
    let holder = state.nodes.values().find_map(|node| {
        let address = node.grant.addresses.iter().find(|a| is_wanted(a))?;
        Some((node, address, alive_until(state, node, now)?))
    });
    let Some((node, address, until)) = holder else {
        return Ok(());
    };
    let text = format!(
        "the address {address} is granted to node {} until {until}: advertise another one, or remove that node with \
         `carousel nodes rm {}`",
        node.hostname, node.hostname
    );
    Err(Refusal::new(Code::NameTaken, text))
}

/// A report of a running member: an event only where its facts changed, because heartbeats are leases.
fn steady(state: &ClusterState, member: MemberId, boot: BootId, seq: u64, facts: &FactsByType) -> Decided {
    let known = find(state, member)?;
    if known.boot != Some(boot) {
        let text = format!(
            "another start of the {} {member} is in service: this one must end",
            known.service
        );
        return Err(Refusal::new(Code::StaleView, text));
    }
    if !known.running {
        let text = format!(
            "the {} {member} counts as lost: it must report a start before it serves",
            known.service
        );
        return Err(Refusal::new(Code::MemberUnknown, text));
    }
    if known.facts == *facts {
        return Ok(Decision::done(vec![]));
    }
    rises(known, seq)?;
    Ok(Decision::done(vec![
        MemberReported {
            member,
            boot,
            seq,
            facts: facts.clone(),
        }
        .into(),
    ]))
}

/// A report that was overtaken by a later one of the same start says nothing any more.
fn rises(known: &Member, seq: u64) -> Result<(), Refusal> {
    if seq > known.seq {
        return Ok(());
    }
    let text = format!(
        "a later report of the {} {} is in the log: report again",
        known.service, known.id
    );
    Err(Refusal::new(Code::StaleView, text))
}

/// Members report the same facts as nodes, and the same things cannot be true of them.
fn check_all(state: &ClusterState, facts: &FactsByType) -> Result<(), Refusal> {
    facts
        .iter()
        .try_for_each(|(authority_type, facts)| check_facts(state, *authority_type, facts))
}

fn find(state: &ClusterState, member: MemberId) -> Result<&Member, Refusal> {
    state.members.get(&member).ok_or_else(|| {
        Refusal::new(
            Code::MemberUnknown,
            format!("no member {member} is recorded: it must report its start first"),
        )
    })
}
