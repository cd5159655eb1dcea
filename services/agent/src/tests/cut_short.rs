//! A process that dies, or a disk that is full, between two durable acts.

use crate::{
    disk::{DataDir, generations::Link},
    enter,
};

use super::*;

#[tokio::test]
async fn a_join_that_is_cut_short_after_any_of_its_writes_is_finished_by_the_next_start_with_the_same_token()
{
    for written in 0..=3 {
        let (plane, dir) = (
            Plane::start(SystemClock::shared()).await,
            tempfile::tempdir().unwrap(),
        );
        plane.state().one_use = true;
        let (config, clock) = (plane.config(dir.path()), SystemClock::shared());
        let spki = {
            let disk = DataDir::open(dir.path()).unwrap();
            let joined = enter::join(&config, &disk, &clock, None, &CancellationToken::new()).await;
            joined.unwrap().expect("it was not told to stop");
            let mut request = disk.requests().unwrap().remove(0);
            // Backwards through what a join writes, to where this one was cut short.
            fs::remove_file(dir.path().join("agent.json")).unwrap();
            if written < 3 {
                disk.unlink(Link::Passed).unwrap();
            }
            if written < 2 {
                disk.forget_told().unwrap();
            }
            if written < 1 {
                request.received = None;
                disk.keep_request(&request).unwrap();
            }
            request.spki
        };
        let running = Running::start(config);
        plane.reached().await;
        assert_eq!(
            installed(dir.path(), "client.crt").spki,
            spki,
            "after {written} of the writes"
        );
        assert_eq!(plane.state().joins, 1, "after {written} of the writes");
        running.stop().await;
    }
}
