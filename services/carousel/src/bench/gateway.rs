//! `bench gateway`: a control plane and its agents as processes, over real connections: joins, what an idle agent
//! weighs, a rotation with commands beside it, and the storms after a restart.

use std::time::{Duration, Instant};

use cli::args::GatewayArgs;
use domain::{ClusterName, Phase, command::Settings};
use tokio_util::sync::CancellationToken;

use super::{
    BenchError,
    machine::Machine,
    rig::{PHASES, Place},
    say,
};
use crate::init;
use agents::{Count, Crew};
use crowd::Crowd;
use operator::Operator;
use raw::Raw;
use report::{Commands, Gateway, Memory, Storm};
use serve::Serve;

pub(crate) mod agents;
mod crowd;
mod operator;
mod raw;
mod report;
mod serve;
mod spread;

/// How long any one thing may take.
const PATIENCE: Duration = Duration::from_secs(1_800);
/// How long agents are left alone before they are weighed: two heartbeats and a look at the clock.
const REST: Duration = Duration::from_secs(11);
/// The same where nobody is connected. Those who wait meanwhile try more and more seldom.
const SHORT_REST: Duration = Duration::from_secs(1);
/// Commands on an idle fleet.
const COMMANDS: usize = 100;
/// One more agent in so many joins while the others come back.
const JOINERS: u32 = 10;

pub(crate) async fn measure(args: &GatewayArgs) -> Result<Gateway, BenchError> {
    check_files(args.agents)?;
    let place = Place::new(args.data_dir.clone())?;
    let raw = Raw::measure().await?;
    let dir = place.path.join("control-plane");
    let (made_in, cluster): (_, ClusterName) = (dir.clone(), "bench.carousel".parse().expect("a DNS name"));
    let making =
        tokio::task::spawn_blocking(move || init::make_in_files(&made_in, &cluster, Settings::default()));
    making.await.map_err(|e| BenchError::Stuck(e.to_string()))??;
    let bench = Bench {
        dir,
        agents: args.agents,
    };
    let serve = Serve::start(&bench.dir, "127.0.0.1:0").await?;
    let (crowd, join) = bench.join(&serve).await?;
    let join_peak_mib = serve.peak_mib();
    let idle = bench.idle_commands(&serve).await?;
    let (serve, back, full_kib) = bench.restart(serve, &crowd).await?;
    let (rotation_s, phases_s, rotating) = bench.rotate(&serve).await?;
    let rotation_peak_mib = serve.peak_mib();
    let (storm, empty_kib) = bench.storm(serve, &crowd).await?;
    crowd.end().await;
    Ok(Gateway {
        machine: Machine::this(),
        agents: args.agents,
        join,
        back,
        rotation_s,
        phases_s,
        commands: Commands { idle, rotating },
        storm,
        memory: Memory {
            agent_kib: full_kib.saturating_sub(empty_kib) as f64 / f64::from(args.agents),
            empty_mib: empty_kib / 1024,
            full_mib: full_kib / 1024,
            join_peak_mib,
            rotation_peak_mib,
        },
        raw,
    })
}

/// One cluster, and how many agents it has.
struct Bench {
    dir: std::path::PathBuf,
    agents: u32,
}

impl Bench {
    fn operator(&self, serve: &Serve) -> Result<Operator, BenchError> {
        Operator::new(&self.dir.join("admin.identity"), &serve.url)
    }

    /// Agents that join with a new token, from this number on.
    async fn crew(&self, serve: &Serve, first: u32, count: u32) -> Result<Crew, BenchError> {
        let secret: [u8; 16] = pki::random();
        let token = format!("{:032x}", u128::from_be_bytes(secret));
        let made = self.operator(serve)?.token(&token, count).await?;
        Ok(Crew {
            server: serve.url.clone(),
            first,
            count,
            token,
            ca_pins: made.ca_pins.into_iter().collect(),
            bundle_pin: made.bundle_pin,
        })
    }

    /// All of them join at one moment.
    async fn join(&self, serve: &Serve) -> Result<(Crowd, spread::Spread), BenchError> {
        let crew = self.crew(serve, 0, self.agents).await?;
        let began = Instant::now();
        let crowd = Crowd::start(&crew).await?;
        let join = crowd
            .come("have joined", |count| count.joined, began, PATIENCE)
            .await?;
        say(&format!(
            "{} agents have joined in {:.1} s",
            self.agents, join.last_s
        ));
        Ok((crowd, join))
    }

    async fn idle_commands(&self, serve: &Serve) -> Result<spread::Spread, BenchError> {
        tokio::time::sleep(REST).await;
        self.operator(serve)?
            .commands(COMMANDS, CancellationToken::new())
            .await
    }

    /// Ended without a word and started again at once. When all are back and at rest it is weighed.
    async fn restart(&self, serve: Serve, crowd: &Crowd) -> Result<(Serve, spread::Spread, u64), BenchError> {
        let address = serve.address().to_owned();
        serve.kill().await?;
        crowd.lost().await;
        let serve = Serve::start(&self.dir, &address).await?;
        let back = crowd
            .come("are back", |count| count.connected, Instant::now(), PATIENCE)
            .await?;
        say(&format!("after a restart all are back in {:.1} s", back.last_s));
        tokio::time::sleep(REST).await;
        let memory = serve.memory_kib();
        Ok((serve, back, memory))
    }

    /// A whole rotation, with commands beside it.
    async fn rotate(&self, serve: &Serve) -> Result<(f64, Vec<(Phase, f64)>, spread::Spread), BenchError> {
        let (operator, other) = (self.operator(serve)?, self.operator(serve)?);
        let (began, stop) = (Instant::now(), CancellationToken::new());
        let rotating = async {
            let _stopped = stop.clone().drop_guard();
            let mut phases_s = vec![];
            for phase in PHASES {
                let entered = Instant::now();
                operator.enter(phase).await?;
                operator.reached(phase, PATIENCE).await?;
                let took = entered.elapsed().as_secs_f64();
                say(&format!("{phase} in {took:.1} s"));
                phases_s.push((phase, took));
            }
            Ok((began.elapsed().as_secs_f64(), phases_s))
        };
        let commands = other.commands(usize::MAX, stop.clone());
        let ((rotation_s, phases_s), commands) = tokio::try_join!(rotating, commands)?;
        Ok((rotation_s, phases_s, commands))
    }

    /// A restart in the middle of a row change, when every agent needs a certificate, and others join at that moment.
    /// Meanwhile the control plane is weighed without anybody, on another port.
    async fn storm(&self, serve: Serve, crowd: &Crowd) -> Result<(Storm, u64), BenchError> {
        let operator = self.operator(&serve)?;
        operator.enter(Phase::Init).await?;
        operator.reached(Phase::Init, PATIENCE).await?;
        let joiners = self
            .crew(&serve, self.agents, self.agents.div_ceil(JOINERS))
            .await?;
        operator.enter(Phase::UpdateClients).await?;
        let address = serve.address().to_owned();
        serve.kill().await?;
        crowd.lost().await;
        let renewed_before = crowd.now().holds(Phase::UpdateClients);
        let alone = Serve::start(&self.dir, "127.0.0.1:0").await?;
        tokio::time::sleep(SHORT_REST).await;
        let empty_kib = alone.memory_kib();
        alone.kill().await?;
        let serve = Serve::start(&self.dir, &address).await?;
        let began = Instant::now();
        let joining = Crowd::start(&joiners).await?;
        let renewed = |count: &Count| count.holds(Phase::UpdateClients);
        let (back, renewals, joins) = tokio::try_join!(
            crowd.come("are back", |count| count.connected, began, PATIENCE),
            crowd.come("have renewed", renewed, began, PATIENCE),
            joining.come("have joined", |count| count.joined, began, PATIENCE),
        )?;
        say(&format!(
            "renewals {:.1} s, joins {:.1} s after the restart",
            renewals.last_s, joins.last_s
        ));
        let peak_mib = serve.peak_mib();
        joining.end().await;
        serve.kill().await?;
        Ok((
            Storm {
                back,
                renewed_before,
                renewals,
                joins,
                peak_mib,
            },
            empty_kib,
        ))
    }
}

/// The control plane holds a file for each connection. Said before an hour is spent.
fn check_files(agents: u32) -> Result<(), BenchError> {
    let files = runtime::harden::raise_open_files().map_err(BenchError::Process)?;
    // Three quarters of the gateway's places are for those it knows, and each of them asks beside its stream.
    let needed = u64::from(agents) * 5 / 3 + 2_048;
    if files < needed {
        return Err(BenchError::Stuck(format!(
            "{agents} agents need {needed} open files in the control plane's process, and the hard limit is {files}: \
             raise it (`ulimit -Hn`, or LimitNOFILE= of the unit), or take fewer agents"
        )));
    }
    Ok(())
}
