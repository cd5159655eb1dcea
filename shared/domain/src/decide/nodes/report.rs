//! A node's fact report: is it one that the log should hold?
//!
//! What it says is not judged here; the gate does that. Refused is what cannot be true, what the node may not
//! speak of, and what would only fill the log.

use std::net::{IpAddr, SocketAddr};

use crate::{
    authority::AuthorityType,
    command::Given,
    decide::{Decided, Decision},
    event::NodeReported,
    fact::{FactReport, REPORT_INTERVAL_MS, Seen, TypeFacts},
    id::{Hostname, NodeId, SpkiPin},
    refusal::{Code, Refusal},
    state::{ClusterState, Node, Reported},
};

/// The longest version, step and label, in bytes.
const MAX_WORD: usize = 100;
/// The longest detail of a failure, in characters.
const MAX_DETAIL: usize = 300;
/// The most labels.
const MAX_LABELS: usize = 32;
/// The most authorities that one trust set can name: two, and room for what a confused node reports.
const MAX_TRUSTED: usize = 16;

/// Decides a fact report.
///
/// Boot ids that alternate and sequences that go back are recorded, not refused: they are the evidence of a
/// clone, and the fold marks the node.
///
/// # Errors
/// `node_removed`, `report_invalid`, `type_not_granted`, `address_not_granted`, `report_too_often`.
pub fn report(
    state: &ClusterState,
    node: &NodeId,
    report: &FactReport,
    seen: &Seen,
    given: &Given,
) -> Decided {
    let Some(known) = state.nodes.get(node) else {
        return Err(Refusal::new(
            Code::NodeRemoved,
            "this node was removed: it needs a new join token",
        ));
    };
    // From the cheap to the dear: form, grant, truth, address, frequency.
    check_form(report)?;
    for (authority_type, facts) in &report.authorities {
        if known.uses(*authority_type).is_none() {
            let text = format!(
                "the grant of {} does not include `{authority_type}`",
                known.hostname
            );
            return Err(Refusal::new(Code::TypeNotGranted, text));
        }
        check_facts(state, *authority_type, facts)?;
    }
    if let Some(addr) = &report.addr {
        check_addr(state, known, addr, seen)?;
    }
    if let Some(before) = &known.report {
        // The very same report: its answer was lost on the way.
        if (&before.report, &before.seen) == (report, seen) {
            return Ok(Decision {
                repeats: Some(before.position),
                ..Decision::done(vec![])
            });
        }
        check_interval(report, seen, before, given)?;
    }
    Ok(Decision::done(vec![
        NodeReported {
            node: *node,
            report: report.clone(),
            seen: seen.clone(),
        }
        .into(),
    ]))
}

/// Refuses facts that cannot be true: authorities of this type that never were, or a row of the future.
///
/// # Errors
/// `report_invalid`.
pub fn check_facts(
    state: &ClusterState,
    authority_type: AuthorityType,
    facts: &TypeFacts,
) -> Result<(), Refusal> {
    let Some(of) = state.types.get(&authority_type) else {
        return Err(invalid(format!(
            "this cluster has no key of type `{authority_type}`"
        )));
    };
    if facts.trusted.len() > MAX_TRUSTED {
        return Err(invalid(format!(
            "more than {MAX_TRUSTED} trusted authorities of `{authority_type}`"
        )));
    }
    // Retired ones are known: a node that slept reports what it holds, and the gate shows that it lags.
    let is_known = |pin: &SpkiPin| of.known(*pin).is_some();
    let named = facts
        .trusted
        .iter()
        .chain(&facts.client_issuer)
        .chain(&facts.server_issuer)
        .chain(&facts.ssh_issuer);
    if let Some(unknown) = named.into_iter().find(|pin| !is_known(pin)) {
        let text = format!(
            "{} was never an authority of type `{authority_type}`",
            unknown.short()
        );
        return Err(invalid(text));
    }
    // Measured under a row that never was: another cluster's data directory, or a lie. The caller has folded to
    // the log's end, so an honest node is never ahead.
    if facts.revision > state.position {
        let text = format!(
            "the row at position {} of `{authority_type}` is not in the log",
            facts.revision
        );
        return Err(invalid(text));
    }
    Ok(())
}

/// Bounds whatever a node may write freely, so that no report can swell the log.
fn check_form(report: &FactReport) -> Result<(), Refusal> {
    let failure = report.failure.as_ref();
    let texts_fit = report.version.len() <= MAX_WORD
        && failure.is_none_or(|f| f.step.len() <= MAX_WORD && f.detail.chars().count() <= MAX_DETAIL);
    let labels_fit = report.labels.len() <= MAX_LABELS
        && report
            .labels
            .iter()
            .all(|(key, value)| key.len() <= MAX_WORD && value.len() <= MAX_WORD);
    if texts_fit && labels_fit {
        return Ok(());
    }
    Err(invalid(format!(
        "at most {MAX_LABELS} labels, {MAX_WORD} bytes a word, {MAX_DETAIL} characters of detail"
    )))
}

/// Does a gateway itself listen on loopback? Then its nodes may be there too: a fleet on one machine.
fn is_on_loopback(state: &ClusterState) -> bool {
    state.settings().allow_loopback
        || state
            .members
            .values()
            .any(|m| m.running && m.addresses.iter().any(IpAddr::is_loopback))
}

/// The address that the gateway will dial to probe the node: granted, or where no address is granted the one
/// that it speaks from. Anything else would make the gateway knock at doors of the node's choice.
fn check_addr(state: &ClusterState, node: &Node, addr: &str, seen: &Seen) -> Result<(), Refusal> {
    let (host, port) = addr.rsplit_once(':').ok_or_else(|| bad_addr(addr))?;
    if port.parse::<u16>().is_err() || port == "0" || addr.len() > 260 {
        return Err(bad_addr(addr));
    }
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    let is_granted = match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if ip.is_loopback() => is_on_loopback(state),
        Ok(ip) if node.grant.addresses.is_empty() => source(seen) == Some(ip),
        Ok(ip) => node
            .grant
            .addresses
            .iter()
            .any(|granted| granted.to_canonical() == ip),
        Err(_) if host == "localhost" => is_on_loopback(state),
        Err(_) => node
            .names
            .contains(&host.parse::<Hostname>().map_err(|_| bad_addr(addr))?),
    };
    if is_granted {
        return Ok(());
    }
    let text = format!(
        "{} may not be probed at {addr}: its host is neither granted nor where the node speaks from",
        node.hostname
    );
    Err(Refusal::new(Code::AddressNotGranted, text))
}

/// The source address of the connection; it is written with or without its port.
fn source(seen: &Seen) -> Option<IpAddr> {
    let from = seen.from.as_deref()?;
    let ip = from
        .parse::<SocketAddr>()
        .map(|a| a.ip())
        .or_else(|_| from.parse::<IpAddr>());
    ip.ok().map(|ip| ip.to_canonical())
}

/// A report that says nothing new may come once in five seconds. One that was measured under a changed row is news by
/// its revision, even where the row is equal; one that was not says the same as before, however far the node lags.
fn check_interval(report: &FactReport, seen: &Seen, before: &Reported, given: &Given) -> Result<(), Refusal> {
    // A new certificate on the connection is news: rule 4 compares it with what the node claims.
    let says_news = report.brings_news_since(&before.report)
        || (seen.certificate, seen.issuer) != (before.seen.certificate, before.seen.issuer);
    if says_news || given.now.since_ms(before.at) >= REPORT_INTERVAL_MS {
        return Ok(());
    }
    let text = "the same facts were reported less than five seconds ago: report again when something changes";
    Err(Refusal::new(Code::ReportTooOften, text))
}

fn bad_addr(addr: &str) -> Refusal {
    let cut: String = addr.chars().take(80).collect();
    invalid(format!("{cut:?} is no `host:port` to probe"))
}

fn invalid(text: impl Into<String>) -> Refusal {
    Refusal::new(Code::ReportInvalid, text)
}
