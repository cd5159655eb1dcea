//! Names and addresses that a certificate may bear: which are reserved, and which are taken.
//!
//! A name is decided on the one access subject, so that two joins cannot both get it.

use std::net::IpAddr;

use crate::{
    access::NamePattern,
    id::{Hostname, Principal},
    refusal::{Code, Refusal},
    state::ClusterState,
    time::Timestamp,
};

/// The most names that one certificate bears or one token grants; a bound on the size of events.
pub const MAX_NAMES: usize = 100;
/// The most addresses, likewise.
pub const MAX_ADDRESSES: usize = 32;

/// Does the name belong to the control plane: a gateway's, the cluster's, or the local host's?
///
/// A node that bore one of them could stand in for a gateway before a client that looks at names.
pub fn is_reserved(state: &ClusterState, name: &Hostname) -> bool {
    let text = name.as_str();
    text == "localhost"
        || text.ends_with(".localhost")
        || text == "localhost.localdomain"
        || state
            .cluster_name()
            .is_some_and(|cluster| cluster.as_str() == text)
        || state.members.values().any(|member| member.names.contains(name))
}

/// Does the address belong to the control plane, or to no single host (loopback, unspecified, multicast)?
pub fn address_is_reserved(state: &ClusterState, address: IpAddr) -> bool {
    // An IPv4 address in IPv6 clothes (::ffff:127.0.0.1) is the same address.
    let address = address.to_canonical();
    address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
        || state
            .members
            .values()
            .flat_map(|m| &m.addresses)
            .any(|a| a.to_canonical() == address)
}

/// Refuses a pattern whose names could only be reserved ones.
///
/// A wider pattern may cover a reserved name: that one is refused when somebody asks for it.
///
/// # Errors
/// `name_reserved`.
pub fn check_pattern(state: &ClusterState, pattern: &NamePattern) -> Result<(), Refusal> {
    let (NamePattern::Exact(name) | NamePattern::Below(name)) = pattern;
    let only_local = matches!(pattern, NamePattern::Below(_)) && name.as_str() == "localhost";
    let reserved = matches!(pattern, NamePattern::Exact(_)) && is_reserved(state, name);
    if reserved || only_local {
        Err(reserved_name(name))
    } else {
        Ok(())
    }
}

/// Refuses addresses that no node may bear.
///
/// # Errors
/// `name_reserved`: addresses and names share the code, as they share the rule.
pub fn check_addresses(state: &ClusterState, addresses: &[IpAddr]) -> Result<(), Refusal> {
    match addresses.iter().find(|a| address_is_reserved(state, **a)) {
        Some(address) => {
            let text =
                format!("the address {address} is the control plane's, or no single host's: leave it out");
            Err(Refusal::new(Code::NameReserved, text))
        }
        None => Ok(()),
    }
}

/// Refuses names that are reserved, or borne by somebody other than `own`.
///
/// # Errors
/// `name_reserved` or `name_taken`.
pub fn check_names(
    state: &ClusterState,
    names: &[Hostname],
    own: Option<&Principal>,
    now: Timestamp,
) -> Result<(), Refusal> {
    for name in names {
        if is_reserved(state, name) {
            return Err(reserved_name(name));
        }
        check_free(state, name, own, now)?;
    }
    Ok(())
}

/// Refuses a name that somebody other than `own` bears: in a certificate that is neither expired nor revoked.
///
/// # Errors
/// `name_taken`.
pub fn check_free(
    state: &ClusterState,
    name: &Hostname,
    own: Option<&Principal>,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Some((holder, until)) = bearers(state, name, now).find(|(holder, _)| Some(*holder) != own) else {
        return Ok(());
    };
    let text = match holder {
        Principal::Node(node) => format!(
            "the name {name} is borne by node {node} until {until}: choose another name, or remove that node \
             with `carousel nodes rm`"
        ),
        other => format!(
            "the name {name} is borne by {other} until {until}: choose another name, or revoke what it has with \
             `carousel certificates revoke`"
        ),
    };
    Err(Refusal::new(Code::NameTaken, text))
}

/// Who has an unexpired, unrevoked certificate for the name, and until when.
pub fn bearers<'a>(
    state: &'a ClusterState,
    name: &Hostname,
    now: Timestamp,
) -> impl Iterator<Item = (&'a Principal, Timestamp)> + use<'a> {
    let of_name = state.names.get(name).into_iter().flatten();
    of_name
        .filter(move |(_, until)| **until > now)
        .map(|(holder, until)| (holder, *until))
}

pub(crate) fn reserved_name(name: &Hostname) -> Refusal {
    let text = format!("the name {name} is reserved for the control plane: choose another name");
    Refusal::new(Code::NameReserved, text)
}
