//! Nobody has to be joined again for having been away, and nobody who is away is forgotten.

use carousel_tests::{PATIENCE, deadline};
use serde_json::Value;

use crate::world::{Log, World, text};

/// Long enough that a busy machine renews in time, short enough that a test can wait for the end.
const SHORT_LIFE: &str = "node_ttl_ms = 12000\n";

fn world(test: &str, settings: Option<&str>) -> World {
    let mut world =
        World::start_with(test, Log::Embedded, settings).expect("the embedded log is always to be had");
    world.join("steady");
    world.join("sleeper");
    world
}

#[test]
fn an_agent_stopped_in_init_catches_up_in_update_servers() {
    let mut world = world("catch-up", None);
    let id = id_of(&world);
    world.enter_and_wait("host", "init");
    world.agent("sleeper").kill();
    world.enter_and_wait("host", "update_clients_of_the_rest");
    force(&world, "update_servers", "sleeper is in repair");
    wakes_up(&mut world, &id);
    world.enter_and_wait("host", "standby");
    world.until_all_reached();
}
