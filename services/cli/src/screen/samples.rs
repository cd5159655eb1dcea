//! Shapes for the screens' tests: one cluster, half way through a rotation, with two laggards.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    problem::{Connections, GateDetails, Laggard},
    shape::{
        AuthorityStatusDoc, ClusterDoc, KeyDoc, NodeAuthority, NodeCounts, NodeDoc, NodeMetadata,
        NodeRotation, NodeSpec, Presence, RotationState, RotationStatusDoc, Status,
    },
};
use domain::{AuthorityType, NodeId, Phase, Position, SpkiPin, Timestamp, fact::Failure};

use crate::text::Look;

/// A time on the day of the samples.
pub(crate) fn at(clock: &str) -> Timestamp {
    format!("2026-09-20T{clock}Z").parse().unwrap()
}

/// Two o'clock, no colour.
pub(crate) fn look() -> Look {
    Look::plain(at("02:00:00"))
}

pub(crate) fn pin(byte: u8) -> SpkiPin {
    SpkiPin([byte; 32])
}

pub(crate) fn node_id(n: u128) -> NodeId {
    NodeId(uuid::Uuid::from_u128(n))
}

pub(crate) fn status() -> Status {
    let key = |status: &str, generation, byte| KeyDoc {
        protocol: "tls".into(),
        status: status.into(),
        algorithm: "ECDSA P-256".into(),
        storage: "software".into(),
        pin: pin(byte),
        generation,
        expires: Some(at("00:00:00")),
    };
    Status {
        cluster: ClusterDoc {
            name: "acme.cluster".into(),
            version: "0.1.0".into(),
            ca_pins: vec![pin(1)],
        },
        position: Position(1042),
        time: Some(at("01:59:00")),
        authorities: vec![
            AuthorityStatusDoc {
                authority_type: AuthorityType::Host,
                rotation: RotationStatusDoc {
                    state: RotationState::InProgress,
                    phase: Phase::Init,
                    mode: "manual".into(),
                    started: Some(at("01:44:36")),
                    grace_period: Some("48h0m0s".into()),
                    ..Default::default()
                },
                keys: vec![key("active", 3, 1), key("prepared", 4, 2)],
                nodes: NodeCounts {
                    required: 12,
                    reached: 10,
                    lagging: 2,
                    excluded: 0,
                },
                broken_now: None,
                lagging: laggards(),
                may_accept_retired: Vec::new(),
                time_condition: None,
                consumers_waiting: Vec::new(),
            },
            idle(AuthorityType::User, Some(at("01:42:54"))),
            idle(AuthorityType::Jwt, None),
        ],
        members: Vec::new(),
        warnings: Vec::new(),
    }
}

fn idle(authority_type: AuthorityType, last_rotated: Option<Timestamp>) -> AuthorityStatusDoc {
    AuthorityStatusDoc {
        authority_type,
        rotation: RotationStatusDoc {
            last_rotated,
            settled: true,
            ..Default::default()
        },
        keys: Vec::new(),
        nodes: NodeCounts::default(),
        broken_now: None,
        lagging: Vec::new(),
        may_accept_retired: Vec::new(),
        time_condition: None,
        consumers_waiting: Vec::new(),
    }
}

pub(crate) fn laggards() -> Vec<Laggard> {
    let laggard = |name: &str, n, online, last_seen| Laggard {
        node: node_id(n),
        name: name.into(),
        missing: "trust".into(),
        text: "does not trust the new CA".into(),
        reached: Phase::Standby,
        status: Presence {
            online,
            last_seen: Some(last_seen),
        },
        failure: None,
    };
    let mut failing = laggard("db-07", 7, true, at("01:59:22"));
    failing.failure = Some(Failure {
        step: "reload".into(),
        detail: "`systemctl reload postgresql` exited 1".into(),
        count: 4,
    });
    vec![failing, laggard("edge-3", 3, false, at("01:45:00"))]
}

pub(crate) fn gate() -> GateDetails {
    GateDetails {
        authority_type: AuthorityType::Host,
        from: Phase::Init,
        to: Phase::UpdateClients,
        position: Position(1042),
        since: Some(at("01:44:36")),
        required: 12,
        reached: 10,
        excluded: 0,
        lagging: laggards(),
        members: Vec::new(),
        keys_missing: Vec::new(),
        consumers: Vec::new(),
        time_condition: None,
        published_until: None,
        if_forced: Some(Connections {
            broken: 20,
            total: 132,
        }),
        cut_off: vec!["db-07".into(), "edge-3".into()],
        broken_now: Some(Connections {
            broken: 0,
            total: 132,
        }),
    }
}

/// A node that has come this far; `facts` are the client's and the server's issuer.
pub(crate) fn node(name: &str, n: u128, reached: Phase, facts: (u8, u8)) -> NodeDoc {
    let authority = NodeAuthority {
        reached,
        trusted: BTreeSet::from([pin(1), pin(2)]),
        client_issuer: Some(pin(facts.0)),
        server_issuer: Some(pin(facts.1)),
        client_not_after: Some(at("13:00:00")),
        server_not_after: Some(at("13:00:00")),
        ..Default::default()
    };
    NodeDoc {
        kind: "node".into(),
        version: "v1".into(),
        metadata: NodeMetadata {
            name: node_id(n),
            labels: BTreeMap::new(),
        },
        spec: NodeSpec {
            hostname: name.into(),
            addr: String::new(),
            version: "0.1.0".into(),
            last_reported: Some(at("01:59:00")),
            rotation: NodeRotation {
                state: RotationState::InProgress,
                phase: reached,
                ..Default::default()
            },
            authorities: BTreeMap::from([(AuthorityType::Host, authority)]),
            excluded: None,
            failure: None,
            unsynced: false,
        },
        status: Presence {
            online: true,
            last_seen: Some(at("01:59:56")),
        },
    }
}
