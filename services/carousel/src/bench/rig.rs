//! A control plane in this process on the embedded log, and its fleet of simulated nodes, for benchmarks.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use domain::{
    Answer, AuthorityType, ClusterName, Command, Credential, Order, Phase, Principal, TokenHash, UserName,
    access::{Grant, Uses},
    command::{Rotate, Settings},
    gate, schedule,
    time::HOUR_MS,
};
use execution::sha256;
use projector::Projector;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    BenchError,
    node::{Node, Shared},
};
use crate::{
    home::Home,
    init,
    plane::{Core, IfEmpty},
};

/// Nodes at work at one moment; a fleet behind gateways is as eager.
const AT_ONCE: usize = 1_024;
/// How long the views may take.
const VIEWS_PATIENCE: Duration = Duration::from_secs(600);
/// The phases of a rotation.
pub(crate) const PHASES: [Phase; 4] = [
    Phase::Init,
    Phase::UpdateClients,
    Phase::UpdateServers,
    Phase::Standby,
];

/// Log, signer, projector and the administrator who rotates.
pub(crate) struct Rig {
    pub(crate) core: Core,
    shared: Shared,
    admin: UserName,
    projecting: JoinSet<()>,
    queries: projector::Answers,
    stop: CancellationToken,
    _home: Home,
}

impl Rig {
    pub(crate) async fn start(place: &std::path::Path, nodes: u32) -> Result<Self, BenchError> {
        let cluster: ClusterName = "bench.carousel".parse().expect("a DNS name");
        let dir = place.join("control-plane");
        let made_in = dir.clone();
        tokio::task::spawn_blocking(move || init::make_in_files(&made_in, &cluster, Settings::default()))
            .await
            .map_err(|e| BenchError::Stuck(e.to_string()))??;
        let mut home = Home::open(&dir)?;
        let stop = CancellationToken::new();
        let core = Core::start(&mut home, Some("embedded"), IfEmpty::Begin, stop.clone()).await?;
        let config = projector::Config {
            views_dir: home.views(),
        };
        let part = core
            .readiness
            .part("projector", "the views to hold the log's end");
        let projector =
            Projector::open(config, core.fold.clone(), core.now(), core.metrics.clone(), part).await?;
        let queries = projector.queries();
        let token = stop.clone();
        let mut projecting = JoinSet::new();
        projecting.spawn(async move {
            if let Err(error) = projector.run(token).await {
                anstream::eprintln!("the projector ended: {error}");
            }
        });
        let token = TokenHash(sha256(b"bench"));
        let shared = Shared {
            fold: core.fold.clone(),
            executor: core.executor.clone(),
            token,
        };
        let rig = Self {
            core,
            shared,
            admin: home.description.admin.clone(),
            projecting,
            queries,
            stop,
            _home: home,
        };
        let grant = Grant {
            names: vec!["*.fleet.bench".parse().expect("a pattern")],
            addresses: vec![],
            uses: BTreeMap::from([(AuthorityType::Host, Uses::ALL)]),
        };
        let hash = token;
        rig.order(Order::CreateToken {
            hash,
            grant,
            uses: nodes,
            ttl_ms: 24 * HOUR_MS,
        })
        .await?;
        Ok(rig)
    }

    /// Every node joins, and follows the row.
    pub(crate) async fn join(&self, nodes: u32) -> Result<Vec<Node>, BenchError> {
        let joining = (0..nodes).map(|i| {
            let shared = self.shared.clone();
            let name = format!("n{i}.fleet.bench").parse().expect("a host name");
            async move { Node::join(&shared, name).await }
        });
        all(joining).await
    }

    /// Every node follows the row, as many at once as a fleet does.
    pub(crate) async fn follow(&self, nodes: Vec<Node>) -> Result<Vec<Node>, BenchError> {
        let following = nodes.into_iter().map(|mut node| {
            let shared = self.shared.clone();
            async move { node.follow(&shared).await.map(|()| node) }
        });
        all(following).await
    }

    pub(crate) async fn enter(&self, phase: Phase) -> Result<(), BenchError> {
        let rotate = Rotate {
            authority_type: AuthorityType::Host,
            target: Some(phase),
            manual: true,
            grace_period_ms: None,
            on_lagging: None,
            force: false,
            expects: None,
        };
        self.order(Order::Rotate(rotate)).await?;
        // The row is handed out once it is signed.
        self.until(|state| {
            let of = &state.types[&AuthorityType::Host];
            let is_made = phase != Phase::Init || !of.prepared.is_empty();
            is_made && of.bundle.as_ref().is_some_and(|b| b.revision >= of.bundle_due)
        })
        .await
    }

    /// The gate is open, and the views hold that everybody has reached the phase.
    pub(crate) async fn reached(&self, phase: Phase) -> Result<(), BenchError> {
        let now = self.core.executor.now();
        let is_reached = self.core.fold.read(|state| match phase.next() {
            Some(next) => gate::evaluate(state, AuthorityType::Host, next, state.now(now)).is_open(),
            None => schedule::is_settled(state, AuthorityType::Host),
        });
        if !is_reached {
            return Err(BenchError::Stuck(format!("not every node has reached {phase}")));
        }
        let end = self.core.fold.position();
        let asked_from = Instant::now();
        let status = loop {
            match api::Queries::status(&self.queries, api::At::Newest, end).await {
                Ok(status) => break status,
                // Documents of a large fleet take their time; a person would ask again, as the answer says.
                Err(api::QueryError::Lagging(_)) if asked_from.elapsed() < VIEWS_PATIENCE => {}
                Err(error) => return Err(BenchError::Stuck(error.to_string())),
            }
        };
        let host = status
            .authorities
            .iter()
            .find(|a| a.authority_type == AuthorityType::Host);
        match host.map(|a| a.nodes.lagging) {
            Some(0) => Ok(()),
            lagging => Err(BenchError::Stuck(format!(
                "the views show {lagging:?} nodes that lag in {phase}"
            ))),
        }
    }

    async fn until(&self, is_there: impl Fn(&domain::ClusterState) -> bool) -> Result<(), BenchError> {
        let mut changes = self.core.fold.changes();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                if self.core.fold.read(&is_there) || changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting)
            .await
            .map_err(|_| BenchError::Stuck("the signer did not sign the row within 60 s".into()))
    }

    /// A command of the administrator.
    async fn order(&self, order: Order) -> Result<Answer, BenchError> {
        let admin = Principal::User(self.admin.clone());
        let newest = |state: &domain::ClusterState| state.held.get(&admin)?.last().copied();
        let command = Command {
            reason: Some("bench".into()),
            credential: self.core.fold.read(newest).map(Credential::Certificate),
            ..self.core.executor.own_command(admin.clone(), order)
        };
        Ok(self.core.executor.execute(command).await?.answer)
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.projecting.join_next().await.is_some() {}
        drop((self.shared, self.queries));
        self.core.stop().await;
    }
}

/// Does it all on any core, [`AT_ONCE`] at a time.
async fn all<T: Send + 'static>(
    mut work: impl Iterator<Item = impl Future<Output = Result<T, BenchError>> + Send + 'static>,
) -> Result<Vec<T>, BenchError> {
    let mut running = JoinSet::new();
    let mut done = Vec::with_capacity(work.size_hint().0);
    loop {
        while running.len() < AT_ONCE
            && let Some(next) = work.next()
        {
            running.spawn(next);
        }
        match running.join_next().await {
            Some(ended) => done.push(ended.map_err(|e| BenchError::Stuck(e.to_string()))??),
            None => return Ok(done),
        }
    }
}

/// Where the data goes; a temporary directory goes with it.
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn new(asked: Option<PathBuf>) -> Result<Self, BenchError> {
        if let Some(path) = asked {
            std::fs::create_dir_all(&path).map_err(BenchError::Place)?;
            return Ok(Self {
                path,
                _temporary: None,
            });
        }
        let temporary = tempfile::TempDir::with_prefix("carousel-bench-").map_err(BenchError::Place)?;
        Ok(Self {
            path: temporary.path().into(),
            _temporary: Some(temporary),
        })
    }
}
