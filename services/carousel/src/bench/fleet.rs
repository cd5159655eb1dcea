//! `bench fleet`: one rotation of the host authority over a simulated fleet, on the embedded log.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use cli::args::FleetArgs;
use domain::{
    Answer, AuthorityType, ClusterName, Command, Order, Phase, Principal, TokenHash, UserName,
    access::{Grant, Uses},
    command::{Rotate, Settings},
    gate, schedule,
    time::HOUR_MS,
};
use execution::sha256;
use projector::Projector;
use serde::Serialize;
use signer::KekSource;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    BenchError, Report,
    machine::{Machine, peak_mib, process_cpu},
    node::{Node, Shared},
    raw::{self, PerCertificate},
};
use crate::{
    home::Home,
    init,
    plane::{Core, IfEmpty},
};

/// Nodes at work at one moment; a fleet behind gateways is as eager.
const AT_ONCE: usize = 1_024;
/// The phases of a rotation.
const PHASES: [Phase; 4] = [
    Phase::Init,
    Phase::UpdateClients,
    Phase::UpdateServers,
    Phase::Standby,
];

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Fleet {
    machine: Machine,
    nodes: u32,
    /// Until every node had joined with its first certificate.
    join_s: f64,
    /// The whole rotation, from the first command until the last node had reported `standby`.
    rotation_s: f64,
    /// Each phase of it.
    phases_s: Vec<(Phase, f64)>,
    /// CPU time of the process meanwhile, all threads.
    cpu_s: f64,
    events: u64,
    events_per_s: f64,
    certificates: u64,
    certificates_per_s: f64,
    peak_mib: u64,
    raw: Raw,
    /// `rotation_s` over what the raw work takes on all cores: (agents + ours) / cores + append.
    ratio: f64,
}

/// The same work without anything of ours around it.
#[derive(Debug, Serialize)]
struct Raw {
    /// One thread: key and request of every certificate.
    agents_cpu_s: f64,
    /// One thread: the look at every request, and every signature.
    ours_cpu_s: f64,
    /// SQLite alone, with the same bytes, settings and group size.
    append_s: f64,
    append_events_per_s: f64,
    append_mib: f64,
}

pub(crate) async fn measure(args: &FleetArgs) -> Result<Fleet, BenchError> {
    let place = Place::new(args.data_dir.clone())?;
    let per_certificate = tokio::task::spawn_blocking(PerCertificate::measure)
        .await
        .map_err(|e| BenchError::Raw(e.to_string()))?;
    let bench = Bench::start(&place.path, args.nodes).await?;
    let began = Instant::now();
    let mut nodes = bench.join(args.nodes).await?;
    let join_s = began.elapsed().as_secs_f64();
    say(&format!("{} nodes have joined in {join_s:.1} s", args.nodes));
    let start = bench.core.fold.position().0;
    let (began, cpu) = (Instant::now(), process_cpu());
    let mut phases_s = vec![];
    for phase in PHASES {
        let entered = Instant::now();
        bench.enter(phase).await?;
        nodes = bench.follow(nodes).await?;
        bench.reached(phase).await?;
        let took = entered.elapsed().as_secs_f64();
        say(&format!("{phase} in {took:.1} s"));
        phases_s.push((phase, took));
    }
    let (rotation_s, cpu_s) = (began.elapsed().as_secs_f64(), (process_cpu() - cpu).as_secs_f64());
    let (end, peak_mib) = (bench.core.fold.position().0, peak_mib());
    let appended = raw::append(&bench.core.log, start, &place.path).await?;
    bench.stop().await;
    // Two a node: the client's in update_clients, the server's in update_servers.
    let certificates = u64::from(args.nodes) * 2;
    let count = u32::try_from(certificates).unwrap_or(u32::MAX);
    let machine = Machine::this();
    let raw_s =
        (per_certificate.both() * count).as_secs_f64() / machine.cores as f64 + appended.took.as_secs_f64();
    Ok(Fleet {
        nodes: args.nodes,
        join_s,
        rotation_s,
        phases_s,
        cpu_s,
        events: end - start,
        events_per_s: (end - start) as f64 / rotation_s,
        certificates,
        certificates_per_s: certificates as f64 / rotation_s,
        peak_mib,
        raw: Raw {
            agents_cpu_s: (per_certificate.agent * count).as_secs_f64(),
            ours_cpu_s: (per_certificate.ours * count).as_secs_f64(),
            append_s: appended.took.as_secs_f64(),
            append_events_per_s: appended.events as f64 / appended.took.as_secs_f64(),
            append_mib: appended.bytes as f64 / (1024.0 * 1024.0),
        },
        ratio: rotation_s / raw_s,
        machine,
    })
}

/// Progress, on stderr.
fn say(text: &str) {
    anstream::eprintln!("{text}");
}

/// Log, signer, projector and the administrator who rotates.
struct Bench {
    core: Core,
    shared: Shared,
    admin: UserName,
    projecting: JoinSet<()>,
    queries: projector::Answers,
    stop: CancellationToken,
    _home: Home,
}

impl Bench {
    async fn start(place: &std::path::Path, nodes: u32) -> Result<Self, BenchError> {
        let cluster: ClusterName = "bench.carousel".parse().expect("a DNS name");
        let dir = place.join("control-plane");
        let made_in = dir.clone();
        tokio::task::spawn_blocking(move || {
            init::make(&made_in, &cluster, KekSource::default(), Settings::default())
        })
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
        let bench = Self {
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
        bench
            .order(Order::CreateToken {
                hash,
                grant,
                uses: nodes,
                ttl_ms: 24 * HOUR_MS,
            })
            .await?;
        Ok(bench)
    }

    /// Every node joins, and follows the row.
    async fn join(&self, nodes: u32) -> Result<Vec<Node>, BenchError> {
        let joining = (0..nodes).map(|i| {
            let shared = self.shared.clone();
            let name = format!("n{i}.fleet.bench").parse().expect("a host name");
            async move { Node::join(&shared, name).await }
        });
        all(joining).await
    }

    /// Every node follows the row, as many at once as a fleet does.
    async fn follow(&self, nodes: Vec<Node>) -> Result<Vec<Node>, BenchError> {
        let following = nodes.into_iter().map(|mut node| {
            let shared = self.shared.clone();
            async move { node.follow(&shared).await.map(|()| node) }
        });
        all(following).await
    }

    async fn enter(&self, phase: Phase) -> Result<(), BenchError> {
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
    async fn reached(&self, phase: Phase) -> Result<(), BenchError> {
        let now = self.core.executor.now();
        let is_reached = self.core.fold.read(|state| match phase.next() {
            Some(next) => gate::evaluate(state, AuthorityType::Host, next, state.now(now)).is_open(),
            None => schedule::is_settled(state, AuthorityType::Host),
        });
        if !is_reached {
            return Err(BenchError::Stuck(format!("not every node has reached {phase}")));
        }
        let end = self.core.fold.position();
        let status = api::Queries::status(&self.queries, api::At::Newest, end)
            .await
            .map_err(|e| BenchError::Stuck(e.to_string()))?;
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
            credential: self.core.fold.read(newest),
            ..self.core.executor.own_command(admin.clone(), order)
        };
        Ok(self.core.executor.execute(command).await?.answer)
    }

    async fn stop(mut self) {
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
    let (mut running, mut done) = (JoinSet::new(), vec![]);
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
struct Place {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn new(asked: Option<PathBuf>) -> Result<Self, BenchError> {
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

impl Report for Fleet {
    fn text(&self) -> String {
        let phases: Vec<String> = self
            .phases_s
            .iter()
            .map(|(phase, s)| format!("{phase} {s:.1}"))
            .collect();
        let raw = &self.raw;
        format!(
            "{} nodes on {} cores ({})\n\
             join       {:.1} s, {:.0} nodes/s\n\
             rotation   {:.1} s ({}), {:.1} s of CPU, {:.2} ms a node\n\
             events     {}, {:.0}/s\n\
             certs      {}, {:.0}/s, each durable and logged\n\
             memory     {} MiB at the most\n\
             raw        agents {:.1} s + verify and sign {:.1} s of one thread; append {:.1} s ({:.0} events/s, {:.0} MiB)\n\
             ratio      {:.2} (rotation / (raw CPU / cores + raw append))\n",
            self.nodes,
            self.machine.cores,
            self.machine.processor,
            self.join_s,
            f64::from(self.nodes) / self.join_s,
            self.rotation_s,
            phases.join(", "),
            self.cpu_s,
            self.rotation_s * 1000.0 / f64::from(self.nodes),
            self.events,
            self.events_per_s,
            self.certificates,
            self.certificates_per_s,
            self.peak_mib,
            raw.agents_cpu_s,
            raw.ours_cpu_s,
            raw.append_s,
            raw.append_events_per_s,
            raw.append_mib,
            self.ratio,
        )
    }
}
