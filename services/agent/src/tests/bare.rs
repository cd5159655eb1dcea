//! An agent without a disk: the same agent, and nothing of it is left.

use super::*;

#[tokio::test]
async fn it_joins_from_the_address_that_was_asked_for_follows_a_rotation_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let plane = Plane::start(SystemClock::shared()).await;
    let mut config = plane.config(&dir.path().join("nowhere"));
    config.servers[0].from = Some("127.0.0.1".parse().unwrap());
    let agent = Agent::bare(config, SystemClock::shared()).unwrap();
    let (handle, stop, mut tasks) = (agent.handle(), CancellationToken::new(), JoinSet::new());
    tasks.spawn(agent.run(stop.clone()));
    plane.reached().await;
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ] {
        plane.enter(phase);
        plane.reached().await;
    }
    let status = handle.status().borrow().clone();
    assert!(status.connected && status.listen.is_none());
    assert_eq!(status.client.unwrap().issuer, plane.active());
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
