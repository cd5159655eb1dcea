//! The streams as an administrator makes them.

use super::*;

#[tokio::test]
async fn an_administrator_makes_the_streams_once_and_changes_only_replicas_and_the_statement_about_sync() {
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start(directory.path()).await else {
        return;
    };
    let wanted = |replicas, syncs_always| Provision {
        cluster: CLUSTER.into(),
        replicas,
        syncs_always,
    };
    let bus = bus_to(&server);
    let provision = async |wanted: Provision, dry_run| {
        let streams = JetStreamLog::provision(&bus, &wanted, dry_run).await;
        streams.map(|all| all.into_iter().map(|one| one.done).collect::<Vec<_>>())
    };
    let made = vec![Done::Made, Done::Made];
    assert_eq!(
        provision(wanted(1, false), true).await.unwrap(),
        made,
        "only said"
    );
    assert_eq!(provision(wanted(1, false), false).await.unwrap(), made);
    let left = vec![Done::Left, Done::Left];
    assert_eq!(provision(wanted(1, false), false).await.unwrap(), left);
    // Whoever serves finds both as it would have made them.
    let log = JetStreamLog::connect_existing(&bus, &options()).await.unwrap();
    append_certainly(&*log, one("host", None)).await.unwrap();
    log.put_lease("member.x", "alive".into(), Duration::from_secs(30))
        .await
        .unwrap();
    let has = |log: &SharedLog, text: &str| log.warnings().iter().any(|warning| warning.contains(text));
    assert!(has(&log, "carousel.sync=always"), "{:?}", log.warnings());
    let stated = provision(wanted(1, true), false).await.unwrap();
    assert_eq!(
        stated,
        [Done::Changed(vec!["carousel.sync to always".into()]), Done::Left]
    );
    let log = JetStreamLog::connect_existing(&bus, &options()).await.unwrap();
    assert!(!has(&log, "carousel.sync=always"), "{:?}", log.warnings());
    assert_eq!(log.last_position().await.unwrap(), 1, "nothing is lost by it");
    // One server cannot keep three copies: the server says no, and nothing is changed.
    let refused = provision(wanted(3, true), false).await.unwrap_err();
    assert!(
        matches!(refused, JetStreamOpenError::Stream { .. }),
        "{refused:?}"
    );
    assert_eq!(provision(wanted(1, true), false).await.unwrap(), left);
}

#[tokio::test]
async fn a_stream_that_is_not_safe_is_not_mended_by_provisioning() {
    let directory = TempDir::new().unwrap();
    let Some(server) = NatsServer::start(directory.path()).await else {
        return;
    };
    unchecked(&server, |config| config.max_messages = 10).await;
    let wanted = Provision {
        cluster: CLUSTER.into(),
        replicas: 1,
        syncs_always: true,
    };
    let refused = JetStreamLog::provision(&bus_to(&server), &wanted, false)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("max_msgs is set"), "{refused}");
}
