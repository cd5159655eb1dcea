//! What the orchestrator decides about the cluster, its rotations, consumers and commands.

use domain::{
    AuthorityType, Code, Order, Phase, Position, Principal, SpkiPin, Timestamp,
    command::{Expectation, LaggingPolicy, Mode, Rotate, Settings},
    event::*,
    probe::{Accepted, Presented, Sight},
    time::HOUR_MS,
};

use super::{
    BEGINNING, Sample, by_alice, by_clock, by_host, hours,
    material::{BUNDLE_KEY, BUNDLE_PIN, FIRST_CA_PIN, SECOND_CA_PIN},
    minutes, read, rotation,
};

const HOST: AuthorityType = AuthorityType::Host;

pub(super) fn samples() -> Vec<Sample> {
    [cluster(), steps(), schedule(), consumers(), commands()]
        .into_iter()
        .flatten()
        .collect()
}

fn cluster() -> Vec<Sample> {
    let created = ClusterCreated {
        cluster: super::cluster(),
        version: "0.1.0".into(),
        settings: Settings {
            node_ttl_ms: 24 * HOUR_MS,
            user_ttl_ms: 12 * HOUR_MS,
            max_offline_ms: 720 * HOUR_MS,
            drain_timeout_ms: 30_000,
            jwks_max_age_ms: 330_000,
            jwt_ttl_ms: 900_000,
            allow_loopback: true,
        },
        bundle_key: read(BUNDLE_PIN),
        bundle_public_key: BUNDLE_KEY.into(),
    };
    let accepted = ClusterClockAccepted { behind_ms: 93_000 };
    vec![
        Sample::full(created, by_host(Timestamp(1_787_276_676_000))),
        Sample::full(accepted, by_alice(minutes(1))),
    ]
}

/// A step that a person forced over a lagging node, and the plain first one.
fn steps() -> Vec<Sample> {
    let entered = RotationPhaseEntered {
        authority_type: HOST,
        rotation: rotation(),
        from: Phase::UpdateServers,
        to: Phase::Standby,
        outcome: Some(RotationOutcome::Completed),
        mode: Mode::Manual,
        grace_period_ms: 48 * HOUR_MS,
        on_lagging: LaggingPolicy::Proceed,
        gate: GateRecord {
            position: Position(4710),
            required: 12,
            reached: 11,
            excluded: 1,
            overridden: 1,
        },
        forced: true,
        passed_over: vec!["db-3.acme.example".into()],
        passed_over_digest: Some(
            "sha256:1f3b6e0a9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f".into(),
        ),
    };
    let begun = RotationPhaseEntered {
        from: Phase::Standby,
        to: Phase::Init,
        outcome: None,
        mode: Mode::Automatic,
        on_lagging: LaggingPolicy::Hold,
        gate: GateRecord {
            position: Position(4700),
            ..GateRecord::default()
        },
        forced: false,
        passed_over: vec![],
        passed_over_digest: None,
        ..entered.clone()
    };
    vec![
        Sample::full(entered, by_alice(hours(40))),
        Sample::bare(begun, by_clock(BEGINNING)),
    ]
}

fn schedule() -> Vec<Sample> {
    let (authority_type, rotation) = (HOST, rotation());
    let held = RotationHeld {
        authority_type,
        rotation,
        due: Phase::UpdateClients,
        due_at: hours(16),
        lagging: 2,
        names: vec!["db-3.acme.example".into(), "web-1.acme.example".into()],
    };
    let resumed = RotationResumed {
        authority_type,
        rotation,
        due: Phase::UpdateClients,
    };
    let manual = RotationModeChanged {
        authority_type,
        rotation,
        mode: Mode::Manual,
    };
    let settled = RotationSettled {
        authority_type,
        rotation,
        required: 12,
    };
    vec![
        Sample::full(held, by_clock(hours(16))),
        Sample::full(resumed, by_clock(hours(17))),
        Sample::full(manual, by_alice(hours(18))),
        Sample::full(settled.clone(), by_clock(hours(41))),
        Sample::decided(settled, by_clock(hours(41)), 4709),
    ]
}

fn consumers() -> Vec<Sample> {
    let (authority_type, consumer) = (AuthorityType::User, read("bastion-sshd"));
    let added = ConsumerAdded {
        authority_type,
        consumer,
        owner: "infrastructure".into(),
        contact: "infra@acme.example".into(),
        probe: None,
    };
    let consumer = added.consumer.clone();
    let attested = ConsumerAttested {
        authority_type,
        consumer: consumer.clone(),
        rotation: rotation(),
        phase: Phase::UpdateServers,
        probed: true,
        saw: None,
    };
    let withdrawn = ConsumerWithdrawn {
        authority_type,
        consumer,
    };
    let with_probe = ConsumerAdded {
        probe: Some(read("tls://bastion.acme.example:5061")),
        ..added.clone()
    };
    let (first, second): (SpkiPin, SpkiPin) = (read(FIRST_CA_PIN), read(SECOND_CA_PIN));
    let with_sight = ConsumerAttested {
        saw: Some(Sight::Tls {
            accepts: Some(Accepted {
                authorities: [first, second].into(),
                others: 0,
            }),
            presents: Some(Presented {
                issuer: second,
                not_after: hours(20),
            }),
        }),
        ..attested.clone()
    };
    vec![
        Sample::full(added, by_alice(minutes(2))),
        Sample::later("probe", with_probe, by_alice(minutes(2))),
        Sample::full(attested, by_alice(hours(3))),
        Sample::later("saw", with_sight, by_alice(hours(3))),
        Sample::full(withdrawn, by_alice(hours(42))),
    ]
}

fn commands() -> Vec<Sample> {
    let principal = Principal::User(read("alice"));
    let refused = CommandRefused {
        principal: principal.clone(),
        command: "rotate".into(),
        target: None,
        code: Code::NodesLagging,
        text: "2 of 12 nodes have not reached init".into(),
        count: 3,
        order: None,
    };
    let noop = CommandNoop {
        principal,
        command: "rotate".into(),
        text: "the host CA is already in phase init".into(),
        order: None,
    };
    let order = Box::new(Order::Rotate(Rotate {
        authority_type: AuthorityType::Host,
        target: Some(Phase::UpdateClients),
        manual: true,
        grace_period_ms: None,
        on_lagging: None,
        force: false,
        expects: Some(Expectation {
            rotation: Some(rotation()),
            phase: Phase::Init,
        }),
    }));
    let refused_alone = CommandRefused {
        count: 1,
        order: Some(order.clone()),
        ..refused.clone()
    };
    let noop_alone = CommandNoop {
        order: Some(order),
        ..noop.clone()
    };
    // The first logs were written without it.
    let with_target = CommandRefused {
        target: Some("host".into()),
        ..refused.clone()
    };
    vec![
        Sample::full(refused, by_alice(minutes(5))),
        Sample::later("target", with_target, by_alice(minutes(5))),
        Sample::full(noop, by_alice(minutes(6))),
        Sample::decided(refused_alone, by_alice(minutes(5)), 4708),
        Sample::decided(noop_alone, by_alice(minutes(6)), 4710),
    ]
}
