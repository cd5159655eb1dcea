use std::sync::Arc;

use eventlog::MemoryLog;
use serde_json::json;

use super::*;
use crate::testing::{World, story};

#[tokio::test]
async fn an_idle_cluster_says_so_for_every_type_of_the_table() {
    let world = World::on(Arc::new(MemoryLog::new())).await;
    let status = world.fold.read(status);
    let types: Vec<_> = status.authorities.iter().map(|a| a.authority_type).collect();
    assert_eq!(types, AuthorityType::all().collect::<Vec<_>>());
    assert_eq!(status.cluster.ca_pins.len(), 1);
    let host = serde_json::to_value(&status.authorities[0].rotation).unwrap();
    let wanted =
        json!({ "state": "standby", "phase": "standby", "mode": "", "held": false, "settled": true });
    assert_eq!(host, wanted, "a time that never was is absent");
}

#[tokio::test]
async fn during_a_rotation_there_are_two_pins_a_schedule_and_the_laggards_by_name() {
    let world = story(Arc::new(MemoryLog::new())).await;
    world
        .rotate(AuthorityType::Host, Phase::Init, None)
        .await
        .unwrap();
    let status = world.fold.read(status);
    assert_eq!(status.cluster.ca_pins.len(), 2);
    let host = &status.authorities[0];
    let statuses: Vec<_> = host
        .keys
        .iter()
        .map(|key| (key.status.as_str(), key.generation))
        .collect();
    assert_eq!(statuses, [("active", 2), ("prepared", 3)]);
    assert_eq!((host.nodes.required, host.nodes.lagging), (1, 1));
    assert_eq!(host.lagging[0].name, "db-1");
    assert_eq!(host.rotation.grace_period.as_deref(), Some("48h0m0s"));
    assert!(host.rotation.last_rotated.is_some() && host.rotation.last_rolled_back.is_none());
    assert!(host.rotation.schedule.is_none(), "a manual rotation has none");
}

#[tokio::test]
async fn a_node_shows_the_clusters_phase_exactly_when_it_has_reached_it() {
    let world = story(Arc::new(MemoryLog::new())).await;
    let reached = |world: &World| {
        let nodes = world.fold.read(nodes);
        let spec = &nodes[0].spec;
        (
            spec.rotation.phase,
            spec.authorities[&AuthorityType::Host].missing_code.clone(),
        )
    };
    assert_eq!(reached(&world), (Phase::Standby, None));
    world
        .rotate(AuthorityType::Host, Phase::Init, None)
        .await
        .unwrap();
    assert_eq!(reached(&world), (Phase::Standby, Some("stale_facts".into())));
    let node = world.fold.read(|state| *state.nodes.keys().next().unwrap());
    world.report(node, 9).await;
    assert_eq!(reached(&world), (Phase::Init, None));
}

#[test]
fn a_schedule_names_every_step_that_is_to_come() {
    let rotation = Rotation {
        id: domain::RotationId(uuid::Uuid::nil()),
        started: Timestamp(0),
        mode: Mode::Automatic,
        grace_period_ms: 30,
        on_lagging: Default::default(),
        stepped: Timestamp(100),
        held: None,
        excluded: Default::default(),
    };
    let doc = schedule(&rotation, Phase::UpdateClients).unwrap();
    assert_eq!(
        (doc.update_clients, doc.update_servers, doc.standby),
        (None, Some(Timestamp(110)), Some(Timestamp(120)))
    );
    assert!(schedule(&rotation, Phase::Rollback).is_none());
}

#[tokio::test]
async fn who_was_cut_off_is_named_after_the_settlement_and_over_the_next_rotation() {
    let world = story(Arc::new(MemoryLog::new())).await;
    let mut state = world.fold.read(Clone::clone);
    let named = |state: &ClusterState| status(state).authorities[0].may_accept_retired.clone();
    assert!(named(&state).is_empty(), "everybody has followed");
    let node = *state.nodes.keys().next().unwrap();
    let host = state.types.get_mut(&AuthorityType::Host).unwrap();
    let ended = host.ended.as_mut().unwrap();
    assert!(ended.settled);
    ended.cut_off.insert(node);
    assert_eq!(named(&state), ["db-1"]);
    world
        .rotate(AuthorityType::Host, Phase::Init, None)
        .await
        .unwrap();
    let mut state = world.fold.read(Clone::clone);
    let host = state.types.get_mut(&AuthorityType::Host).unwrap();
    assert!(host.rotation.is_some());
    host.ended.as_mut().unwrap().cut_off.insert(node);
    assert_eq!(named(&state), ["db-1"]);
}
