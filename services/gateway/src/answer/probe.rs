//! `POST /v1/probe/{node}`: dials a node where it advertises to listen, and says what it serves.

use std::net::{IpAddr, SocketAddr};

use api::shape::ProbeReport;
use domain::{AuthorityType, ClusterState, Code, NodeId, state::Node};
use mtls::{Expect, ProbeResult, TlsError};

use super::{Asked, commands::node};
use crate::{
    app::App,
    places::places,
    reply::{self, No, Reply},
};

pub(super) async fn probe(asked: &Asked) -> Reply {
    let node = node(asked).await?;
    reply::json(&dial(&asked.app, node).await?)
}

/// Dials one node. A node that does not answer is a report, not a problem.
pub(super) async fn dial(app: &App, node: NodeId) -> Result<ProbeReport, No> {
    let cluster = app.cluster()?;
    let allow_loopback = app.config.is_on_loopback();
    let target = app.fold.read(|s| {
        s.nodes
            .get(&node)
            .map(|n| (n.hostname.to_string(), target(n, allow_loopback)))
    });
    let Some((name, target)) = target else {
        return Err(No::new(Code::NodeUnknown, "the node was removed"));
    };
    let mut report = ProbeReport {
        node,
        name,
        addr: String::new(),
        ok: false,
        generation: None,
        issuer: None,
        not_after: None,
        millis: None,
        error: None,
    };
    let addr = match target {
        Ok(addr) => addr,
        Err(why) => {
            report.error = Some(why);
            return Ok(report);
        }
    };
    report.addr.clone_from(&addr);
    let places = match places(&addr, allow_loopback).await {
        Ok(places) => places,
        Err(why) => {
            report.error = Some(why);
            return Ok(report);
        }
    };
    let begun = app.clock.monotonic();
    match first_that_answers(app, &places, &Expect::Node { cluster, node }).await {
        Ok(result) => {
            let took = app.clock.monotonic().saturating_sub(begun);
            let issuer = result.identity.issuer;
            report.ok = true;
            report.generation = app.fold.read(|s| generation(s, issuer));
            report.issuer = Some(issuer);
            report.not_after = Some(result.identity.not_after);
            report.millis = Some(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        }
        Err(error) => report.error = Some(error.in_words()),
    }
    Ok(report)
}

/// Dials one address after another until somebody is there.
async fn first_that_answers(
    app: &App,
    places: &[SocketAddr],
    expect: &Expect,
) -> Result<ProbeResult, TlsError> {
    let (last, others) = places
        .split_last()
        .expect("there is a place, or it was said why not");
    for place in others {
        match mtls::probe(&place.to_string(), &app.epochs, &app.sessions, expect).await {
            Err(TlsError::Unreachable { .. } | TlsError::Timeout { .. }) => {}
            answered => return answered,
        }
    }
    mtls::probe(&last.to_string(), &app.epochs, &app.sessions, expect).await
}

/// Where the node may be dialled. Judged again here, by what the log says now: the gateway must not knock
/// at doors of a node's choice.
fn target(node: &Node, allow_loopback: bool) -> Result<String, String> {
    let reported = node.report.as_ref().ok_or("it has not reported any facts")?;
    let addr = reported
        .report
        .addr
        .clone()
        .ok_or("it advertises no listen address (--listen)")?;
    let host = addr
        .rsplit_once(':')
        .map(|(host, _)| host.trim_start_matches('[').trim_end_matches(']'));
    let host = host.ok_or("its address has no port")?;
    let seen = reported
        .seen
        .from
        .as_deref()
        .and_then(|from| from.parse::<IpAddr>().ok());
    let may = match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if ip.is_loopback() => allow_loopback,
        Ok(ip) if node.grant.addresses.is_empty() => seen.map(|s| s.to_canonical()) == Some(ip),
        Ok(ip) => node
            .grant
            .addresses
            .iter()
            .any(|granted| granted.to_canonical() == ip),
        Err(_) if host == "localhost" => allow_loopback,
        Err(_) => node.names.iter().any(|name| name.as_str() == host),
    };
    if may {
        Ok(addr)
    } else {
        Err(format!(
            "its address {addr} is neither granted nor where it speaks from"
        ))
    }
}

fn generation(state: &ClusterState, issuer: domain::SpkiPin) -> Option<u32> {
    let key = state.types.get(&AuthorityType::Host)?.known(issuer)?;
    Some(key.generation)
}
