//! Two running instances of one node: how they are noticed, and when they are forgotten.

use domain::{
    gate::{self, Missing},
    time::MINUTE_MS,
};

use crate::{
    rotations::{HOST, fleet, lagging},
    world::World,
};

#[test]
fn two_instances_that_alternate_are_shown_and_have_not_reached() {
    let mut world = World::new();
    let [n1, ..] = fleet(&mut world);
    for (boot, seq) in [(2, 1), (1, 2), (2, 2)] {
        world.pass(6_000);
        let report = world.report_of(boot, seq);
        world.report(n1, report).unwrap();
    }
    assert_eq!(lagging(&world, n1), Missing::Clone);
}

#[test]
fn a_start_of_one_of_two_instances_clears_nothing_until_the_others_have_been_silent_for_ten_minutes() {
    let mut world = World::new();
    let [n1, ..] = fleet(&mut world);
    let say = |world: &mut World, boot: u128, seq: u64| {
        world.pass(6_000);
        let report = world.report_of(boot, seq);
        world.report(n1, report).unwrap();
        gate::missing(&world.state, HOST, &world.state.nodes[&n1])
    };
    for (boot, seq) in [(2, 1), (1, 2), (2, 2)] {
        let _ = say(&mut world, boot, seq);
    }
    assert_eq!(
        say(&mut world, 9, 1),
        Err(Missing::Clone),
        "the other one may still run"
    );
    world.pass(5 * MINUTE_MS);
    assert_eq!(say(&mut world, 1, 3), Err(Missing::Clone), "it does");
    assert_eq!(say(&mut world, 10, 1), Err(Missing::Clone));
    // Starts that came after it are successors, however many: none of them has to be silent.
    world.pass(9 * MINUTE_MS);
    assert_eq!(say(&mut world, 11, 1), Err(Missing::Clone));
    world.pass(MINUTE_MS);
    assert_eq!(say(&mut world, 11, 2), Ok(()));
}

#[test]
fn a_late_report_within_one_start_marks_the_node_until_a_later_start_has_been_heard_for_long_enough() {
    let mut world = World::new();
    let [n1, ..] = fleet(&mut world);
    let say = |world: &mut World, boot: u128, seq: u64| {
        world.pass(6_000);
        let report = world.report_of(boot, seq);
        world.report(n1, report).unwrap();
        gate::missing(&world.state, HOST, &world.state.nodes[&n1])
    };
    assert_eq!(say(&mut world, 1, 5), Ok(()));
    assert_eq!(say(&mut world, 1, 4), Err(Missing::Clone));
    world.pass(10 * MINUTE_MS);
    assert_eq!(
        say(&mut world, 1, 6),
        Err(Missing::Clone),
        "both instances may be one start"
    );
    world.pass(10 * MINUTE_MS);
    assert_eq!(say(&mut world, 2, 1), Ok(()));
}
