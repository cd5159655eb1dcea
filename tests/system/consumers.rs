//! External consumers: whoever trusts an exported authority without an agent is asked before each forward step.

use carousel_tests::Finished;

use crate::world::{Log, World};

mod probed;

fn consumers(world: &World, words: &[&str]) -> Finished {
    let mut args = vec!["consumers"];
    args.extend(words);
    world.carousel(&args)
}

fn refused(finished: &Finished, code: &str, name: &str) {
    let text = &finished.stderr;
    assert_eq!(finished.code, Some(3), "{text}");
    assert!(text.contains(code) && text.contains(name), "{text}");
}

#[test]
fn each_forward_step_waits_for_the_word_of_those_who_have_no_agent() {
    let world = World::start("consumers", Log::Embedded).expect("the embedded log is always there");
    let etl = [
        "add",
        "billing-etl",
        "--type=db",
        "--owner",
        "billing team",
        "--contact",
        "#billing",
    ];
    let _ = consumers(&world, &etl).expect_code(0);
    refused(&consumers(&world, &etl), "consumer_exists", "billing-etl");
    let _ = consumers(&world, &["add", "reports", "--type=db", "--owner=alice"]).expect_code(0);
    all_are_listed(&world);
    let attest = ["attest", "billing-etl", "--type=db"];
    refused(&consumers(&world, &attest), "no_rotation", "db");

    world.enter_and_wait("db", "init");
    refused(
        &world.enter("db", "update_clients"),
        "consumers_lagging",
        "billing-etl",
    );
    let plan = world
        .carousel(&["auth", "rotate", "--type=db", "--plan"])
        .expect_code(0);
    assert!(plan.contains("0/2"), "both are waited for: {plan}");
    words_of_another_time_or_type_do_not_count(&world);
    let said = consumers(&world, &attest).expect_code(0);
    assert!(said.contains("has attested for init of db"), "{said}");
    let said = consumers(&world, &attest).expect_code(0);
    assert!(said.contains("Nothing to do"), "{said}");
    // One of the two is not enough; one that is gone is waited for no more.
    refused(
        &world.enter("db", "update_clients"),
        "consumers_lagging",
        "reports",
    );
    let _ = consumers(&world, &["withdraw", "reports", "--type=db"]).expect_code(0);
    world.enter_and_wait("db", "update_clients");

    // What was said for one phase is not said for the next.
    refused(
        &world.enter("db", "update_servers"),
        "consumers_lagging",
        "billing-etl",
    );
    for phase in ["update_servers", "standby"] {
        let _ = consumers(&world, &attest).expect_code(0);
        world.enter_and_wait("db", phase);
    }
    let events = world.json(&["audit", "ls", "--all"]);
    let types: Vec<_> = events
        .as_array()
        .expect("events")
        .iter()
        .map(|event| &event["type"])
        .collect();
    for fact in ["added", "attested", "withdrawn"] {
        assert!(
            types
                .iter()
                .any(|t| **t == format!("carousel.consumer.{fact}.v1")),
            "{fact}"
        );
    }
    let _ = world.carousel(&["audit", "verify"]).expect_code(0);
}

fn words_of_another_time_or_type_do_not_count(world: &World) {
    let status = world.carousel(&["status"]).expect_code(0);
    let waits = "Database CA waits for external consumers: billing-etl, reports";
    assert!(status.contains(waits), "{status}");
    refused(
        &consumers(
            world,
            &["attest", "billing-etl", "--type=db", "--phase=update_clients"],
        ),
        "stale_view",
        "init",
    );
    refused(
        &consumers(world, &["attest", "billing-etl", "--type=user"]),
        "consumer_unknown",
        "billing-etl",
    );
}

fn all_are_listed(world: &World) {
    let listed = consumers(world, &["ls", "--type=db"]).expect_code(0);
    for word in ["billing-etl", "billing team", "#billing", "reports", "alice"] {
        assert!(listed.contains(word), "{word}: {listed}");
    }
}
