//! A cluster whose log moves to NATS and back: nothing of it is another log.

use std::fs;

use carousel_tests::{NatsServer, PATIENCE};

use crate::{
    wire::runtime,
    world::{Log, World},
};

/// Stops the control plane in order.
fn stop(world: &mut World) {
    let mut serve = world.serve.take().expect("it serves");
    serve.terminate();
    assert!(serve.wait(PATIENCE).success(), "{}", serve.transcript());
}

#[test]
fn a_log_moves_to_nats_and_back_and_each_event_is_the_same() {
    let Some(mut world) = World::start("moving", Log::Embedded) else {
        return;
    };
    let Some(nats) = runtime().block_on(NatsServer::start(world.dir.join("nats"))) else {
        return;
    };
    world.join("n1");
    world.enter_and_wait("host", "init");
    let (data, url) = (world.data().display().to_string(), nats.url());
    let copy = |world: &World, to: &str| world.carousel(&["log", "copy", "--data-dir", &data, "--to", to]);

    let refused = copy(&world, &url);
    assert_eq!(refused.code, Some(1), "it serves: {}", refused.stderr);
    assert!(refused.stderr.contains("in use by another"), "{}", refused.stderr);
    stop(&mut world);
    let said = copy(&world, &url).expect_code(0);
    assert!(said.contains("read all of them back"), "{said}");

    // The rotation goes on where it was, with the signer's checkpoints of before.
    world.serve();
    world.until_reached("n1");
    world.enter_and_wait("host", "update_clients");
    let verified = world.carousel(&["audit", "verify"]).expect_code(0);
    assert!(!verified.contains("not checked"), "{verified}");
    stop(&mut world);

    // The file of before is the beginning of what goes back into it.
    let said = copy(&world, "embedded").expect_code(0);
    assert!(!said.contains("(0 were there)"), "{said}");
    world.serve();
    world.until_reached("n1");
    world.enter_and_wait("host", "update_servers");
    let verified = world.carousel(&["audit", "verify"]).expect_code(0);
    assert!(!verified.contains("not checked"), "{verified}");
    stop(&mut world);

    // The stream has not gone on: it goes on from here. A file of another history is left alone.
    let _ = copy(&world, &url).expect_code(0);
    let file = world.data().join("log.sqlite");
    fs::write(&file, b"something else").expect("it is ours");
    let refused = copy(&world, "embedded");
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert_eq!(fs::read(&file).expect("it is there"), b"something else");
    world.serve();
    world.enter_and_wait("host", "standby");
}
