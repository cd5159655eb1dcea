//! The phase that a node is shown in: the cluster's exactly when it has reached it.

use domain::{Phase, gate};

use crate::{
    rotations::{HOST, fleet, reach, rotate},
    world::World,
};

#[test]
fn a_node_that_lost_a_phase_again_is_shown_in_the_one_before_and_never_in_the_clusters() {
    let mut world = World::new();
    let [n1, ..] = fleet(&mut world);
    let shown = |world: &World| {
        let node = &world.state.nodes[&n1];
        gate::phase_of_node(&world.state, HOST, node)
    };
    rotate(&mut world, Phase::Init).unwrap();
    let before_the_key = world.report_of(1, 2);
    world.report(n1, before_the_key).unwrap();
    assert_eq!(shown(&world), Phase::Init);
    // The key changes the row, and what was measured before it counts no more.
    world.make_key(HOST);
    assert_eq!(shown(&world), Phase::Standby);
    world.enter(HOST, Phase::UpdateClients);
    world.enter(HOST, Phase::UpdateServers);
    reach(&mut world, n1, 3);
    assert_eq!(shown(&world), Phase::UpdateServers);
    let mut again = world.report_of(1, 4);
    again.authorities.get_mut(&HOST).unwrap().sessions_on_retiring = true;
    world.report(n1, again).unwrap();
    assert_eq!(shown(&world), Phase::UpdateClients);
    let gate = gate::evaluate(&world.state, HOST, Phase::Standby, world.now);
    let lagging = gate.lagging.iter().find(|l| l.node == n1).unwrap();
    assert_eq!(lagging.reached, Phase::UpdateClients, "a refusal says the same");
}

#[test]
fn the_standby_before_a_rotation_is_not_the_one_after_it() {
    let mut world = World::new();
    let [_, n2, _] = fleet(&mut world);
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ] {
        world.enter(HOST, phase);
    }
    let shown = |world: &World| gate::phase_of_node(&world.state, HOST, &world.state.nodes[&n2]);
    assert_eq!(shown(&world), Phase::UpdateServers, "it slept through all of it");
    reach(&mut world, n2, 2);
    assert_eq!(shown(&world), Phase::Standby);
}
