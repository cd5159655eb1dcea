//! A node may join at any moment of a rotation, whatever pin it was given.

use crate::world::{Log, World};

#[test]
fn a_node_joins_in_each_phase_with_either_pin() {
    let Some(mut world) = World::start("joining", Log::Embedded) else {
        return;
    };
    world.join("first");
    for phase in ["init", "update_clients", "update_servers"] {
        world.enter_and_wait("host", phase);
        join_with_each_pin(&mut world, phase);
    }
    // Those who joined in the middle hold the gate like everybody else, and it opens.
    world.enter_and_wait("host", "standby");
    world.until_all_reached();

    for phase in ["init", "update_clients", "rollback"] {
        world.enter_and_wait("host", phase);
    }
    join_with_each_pin(&mut world, "rollback");
    world.enter_and_wait("host", "standby");
    world.until_all_reached();
    assert_eq!(world.host()["nodes"]["required"], 9);
}

/// Both authorities' pins come with a token while both are trusted; each alone must do.
fn join_with_each_pin(world: &mut World, phase: &str) {
    let pins = world.token(&["--name", "unused"]).1;
    assert_eq!(pins.len(), 2, "{phase}: a token comes with both pins");
    for (which, pin) in ["one", "two"].iter().zip(pins) {
        let name = format!("{}-{which}", phase.replace('_', "-"));
        let (token, _, bundle) = world.token(&["--name", &name]);
        world.join_with(&name, &token, &[pin], &bundle);
        world.until_reached(&name);
    }
}
