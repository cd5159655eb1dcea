use api::{At, audit::AuditView};
use domain::Position;
use eventlog::{MemoryLog, SharedLog, bus::BusOptions, testing::NatsServer};
use runtime::{metrics::Metrics, readiness::Readiness};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::{Config, LogAudit, Projector, testing::story};

/// Projectors over one story, on a broker, and who asks them.
struct Asking {
    direct: Arc<dyn Queries>,
    audit: Arc<dyn Audit>,
    asked: Asked,
    at: Position,
    bus: Bus,
    tasks: JoinSet<()>,
    _nats: NatsServer,
    _dir: TempDir,
}

async fn asking() -> Option<Asking> {
    let dir = TempDir::new().unwrap();
    let nats = NatsServer::start(dir.path().join("nats")).await?;
    let log: SharedLog = Arc::new(MemoryLog::new());
    let world = story(log.clone()).await;
    let options = BusOptions {
        url: nats.url(),
        name: "test".into(),
        ..BusOptions::default()
    };
    let bus = Bus::connect(&options).await.unwrap();
    let cluster: ClusterName = "acme.cluster".parse().unwrap();
    let at = world.fold.position();
    let config = Config {
        views_dir: dir.path().join("views"),
    };
    let part = Readiness::new().part("projector", "its start");
    let now = world.now.clone();
    let projector = Projector::open(config, world.fold.clone(), now, Metrics::new("test"), part);
    let projector = projector.await.unwrap();
    let direct: Arc<dyn Queries> = Arc::new(projector.queries());
    let audit: Arc<dyn Audit> = Arc::new(LogAudit::new(log, None));
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let desk = open_queries(&bus, &cluster).await.unwrap();
        tasks.spawn(answer_queries(desk, direct.clone(), audit.clone(), stop.clone()));
    }
    tasks.spawn(async move {
        let _world = world;
        projector.run(stop).await.unwrap();
    });
    Some(Asking {
        direct,
        audit,
        asked: ask_projectors(bus.clone(), &cluster),
        at,
        bus,
        tasks,
        _nats: nats,
        _dir: dir,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_is_answered_over_the_bus_as_it_is_in_one_process() {
    let Some(a) = asking().await else { return };
    let (direct, asked, at) = (&*a.direct, &a.asked, a.at);
    macro_rules! same {
        ($call:ident($($argument:expr),*) of $there:expr) => {
            assert_eq!(asked.$call($($argument),*).await, $there.$call($($argument),*).await)
        };
    }
    for moment in [At::Newest, At::Position(Position(at.0 - 1))] {
        same!(status(moment, at) of direct);
        same!(nodes(moment, at) of direct);
        same!(authorities(moment, at) of direct);
        same!(certificates(moment, at) of direct);
    }
    same!(rotations(at) of direct);
    same!(tokens(at) of direct);
    same!(users(at) of direct);
    same!(consumers(at) of direct);
    for view in [AuditView::Status, AuditView::Nodes] {
        same!(replay(At::Newest, view) of a.audit);
    }
    same!(diff(At::Position(Position(3)), At::Newest) of a.audit);
    same!(event(at) of a.audit);
    let there = asked.verify().await.unwrap();
    assert!(there.verified, "{there:?}");
    assert!(!asked.nodes(At::Newest, at).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_yet_is_said_and_so_is_a_moment_that_never_was_and_that_nobody_answers() {
    let Some(mut a) = asking().await else { return };
    let ahead = Position(a.at.0 + 1);
    let lagging = a.asked.users(ahead).await.unwrap_err();
    assert!(matches!(lagging, QueryError::Lagging(_)), "{lagging:?}");
    let never = a.asked.status(At::Position(Position(a.at.0 + 1_000)), a.at).await;
    assert!(matches!(never, Err(QueryError::NotFound(_))), "{never:?}");
    let subject = message::query_subject(&"acme.cluster".parse().unwrap());
    let answer = a
        .bus
        .ask(&subject, &[], b"{\"query\":\"secrets\"}".to_vec(), PATIENCE)
        .await
        .unwrap();
    assert_eq!(answer.no.unwrap().0, 400);
    a.tasks.shutdown().await;
    let nobody = a.asked.users(a.at).await.unwrap_err();
    assert!(nobody.to_string().contains("no projector answers"), "{nobody}");
}
