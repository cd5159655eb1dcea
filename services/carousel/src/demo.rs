//! `carousel demo`: a control plane, a fleet and traffic on this machine, one whole rotation, and the proof.
//!
//! Everything in it is the product: the services, the agents, the log, TLS over real sockets. Only the
//! durations are short, and it says so.

use std::{
    io::IsTerminal,
    path::PathBuf,
    time::{Duration, Instant},
};

use cli::args::{DemoArgs, Format, Global};
use domain::{AuthorityType, Phase, SpkiPin};
use runtime::shutdown::Signals;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod credentials;
mod ending;
mod fleet;
mod proof;
mod screen;
mod show;
mod traffic;

use credentials::Application;
use ending::Ending;
use fleet::Fleet;
use show::Show;
use traffic::{Traffic, Wire};

/// What `--all` rotates: a type of each kind, one after the other.
const ALL: [AuthorityType; 4] = [
    AuthorityType::Host,
    AuthorityType::User,
    AuthorityType::DbClient,
    AuthorityType::Jwt,
];
/// How long a phase is shown at least, so that a person can see it; the fleet itself is faster.
const DWELL: Duration = Duration::from_millis(900);
/// How long a phase may take before the demo gives up and says who is missing.
const PHASE_TIMEOUT: Duration = Duration::from_secs(120);

/// Why the demo could not be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("no place for the demo's data")]
    Place(#[source] std::io::Error),
    #[error(transparent)]
    Init(#[from] crate::init::InitError),
    #[error(transparent)]
    Home(#[from] crate::home::HomeError),
    #[error(transparent)]
    Plane(#[from] crate::plane::PlaneError),
    #[error(transparent)]
    Agent(#[from] agent::AgentError),
    #[error("the demo's own command failed: {0}")]
    Command(#[from] execution::ExecuteError),
    #[error("{0}")]
    TooSlow(String),
    #[error("the terminal could not be drawn on")]
    Terminal(#[source] std::io::Error),
    #[error("nothing could be signed for the demo's application: {0}")]
    Credential(String),
    #[error("the audit could not be made: {0}")]
    Audit(String),
    #[error("interrupted")]
    Interrupted,
}

/// One phase, as it went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    pub phase: Phase,
    pub seconds: f64,
}

/// One rotation, as it went.
#[derive(Clone, Debug)]
pub(crate) struct Rotated {
    pub authority_type: AuthorityType,
    pub id: Option<domain::RotationId>,
    pub phases: Vec<Took>,
    pub before: Option<SpkiPin>,
    pub after: Option<SpkiPin>,
    pub proof: proof::Proof,
}

/// The command. `--format=json` is the same wish as `--json`.
pub async fn run(global: &Global, args: &DemoArgs) -> u8 {
    let args = &DemoArgs {
        json: args.json || global.format == Format::Json,
        ..args.clone()
    };
    let stop = CancellationToken::new();
    let mut watching = JoinSet::new();
    match Signals::install() {
        Ok(signals) => drop(watching.spawn(signals.watch(stop.clone()))),
        Err(error) => return crate::failed(&error),
    }
    match Box::pin(give(args, stop.clone())).await {
        Ok(code) => code,
        Err(DemoError::Interrupted) => {
            anstream::eprintln!("Stopped. Nothing is left running.");
            130
        }
        Err(error) => crate::failed(&error),
    }
}

async fn give(args: &DemoArgs, stop: CancellationToken) -> Result<u8, DemoError> {
    let began = Instant::now();
    let place = Place::new(args)?;
    let mut show = Show::new(args, stop.clone());
    show.say(&format!("Carousel demo: {} nodes, {}", args.nodes, titles(args)));
    let joining = |done, of| show.joining(done, of);
    let mut fleet = Fleet::start(args, &place.path, &joining, stop.clone()).await?;
    let types: Vec<AuthorityType> = match args.all {
        true => ALL.to_vec(),
        false => vec![args.authority_type],
    };
    let traffic = Traffic::start(
        fleet.cluster.clone(),
        fleet.peers(),
        fleet.home.admin_identity(),
        1,
        fleet.now(),
    );
    let mut rotations = vec![];
    let mut outcome = Ok(());
    for authority_type in types {
        let wire = match authority_type {
            AuthorityType::Host => Wire::Nodes,
            AuthorityType::User => Wire::Operators,
            _ => Wire::Credentials,
        };
        traffic.replace(fleet.active(authority_type), wire);
        let over = stop.child_token();
        let mut application = JoinSet::new();
        if wire == Wire::Credentials {
            application.spawn(asking(&fleet, &traffic, authority_type).run(over.clone()));
        }
        let rotated = rotate(&mut fleet, &traffic, &mut show, authority_type, args.rollback).await;
        over.cancel();
        while application.join_next().await.is_some() {}
        match rotated {
            Ok(rotated) => rotations.push(rotated),
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    show.end()?;
    let counts = traffic.stop().await;
    outcome?;
    let audit = fleet.audit().await?;
    let ending = Ending {
        args,
        rotations,
        counts,
        audit,
        seconds: began.elapsed().as_secs_f64(),
        kept: None,
    };
    let code = ending.finish(&mut fleet, place, stop).await?;
    fleet.stop().await;
    Ok(code)
}

/// An application that has credentials of a type signed and shows them to the nodes.
fn asking(fleet: &Fleet, traffic: &Traffic, authority_type: AuthorityType) -> Application {
    Application {
        authority_type,
        identity: fleet.home.admin_identity(),
        nodes: fleet.verifiers(),
        now: fleet.now(),
        note: traffic.note(),
    }
}

fn titles(args: &DemoArgs) -> String {
    if args.all {
        "host, user, db_client and jwt CAs".into()
    } else {
        args.authority_type.row().title.into()
    }
}

/// One whole rotation or rollback under load.
async fn rotate(
    fleet: &mut Fleet,
    traffic: &Traffic,
    show: &mut Show,
    authority_type: AuthorityType,
    rollback: bool,
) -> Result<Rotated, DemoError> {
    let plan: &[Phase] = if rollback {
        &[Phase::Init, Phase::UpdateClients, Phase::Rollback, Phase::Standby]
    } else {
        &[
            Phase::Init,
            Phase::UpdateClients,
            Phase::UpdateServers,
            Phase::Standby,
        ]
    };
    let before = fleet.active(authority_type);
    let mut proof = proof::Collector::begin(fleet, authority_type, rollback).await;
    show.begin(authority_type, plan);
    proof.collect(fleet, Phase::Standby).await?;
    let mut phases = vec![];
    let mut id = None;
    for phase in plan.iter().copied() {
        let entered = Instant::now();
        traffic.set_phase(phase.name());
        id = fleet.enter(authority_type, phase).await?.or(id);
        show.enter(phase);
        loop {
            let done = fleet.has_reached(authority_type, phase);
            if done {
                show.reached(phase, entered.elapsed());
            }
            // Also the last time round: that the phase is reached is to be seen before the next one.
            show.draw(fleet, traffic, authority_type)?;
            if done && entered.elapsed() >= DWELL {
                break;
            }
            if entered.elapsed() > PHASE_TIMEOUT {
                return Err(DemoError::TooSlow(fleet.who_is_missing(authority_type, phase)));
            }
            show.pause().await?;
        }
        proof.collect(fleet, phase).await?;
        phases.push(Took {
            phase,
            seconds: show.took(phase).as_secs_f64(),
        });
    }
    show.draw(fleet, traffic, authority_type)?;
    let proof = proof.prove(fleet).await;
    Ok(Rotated {
        authority_type,
        id,
        phases,
        before,
        after: fleet.active(authority_type),
        proof,
    })
}

/// Where the demo's data lies: removed at the end unless it is to be kept.
pub(crate) struct Place {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Place {
    fn new(args: &DemoArgs) -> Result<Self, DemoError> {
        if let Some(path) = &args.data_dir {
            std::fs::create_dir_all(path).map_err(DemoError::Place)?;
            return Ok(Self {
                path: path.clone(),
                temporary: None,
            });
        }
        let dir = tempfile::Builder::new()
            .prefix("carousel-demo-")
            .tempdir()
            .map_err(DemoError::Place)?;
        Ok(Self {
            path: dir.path().to_owned(),
            temporary: Some(dir),
        })
    }

    /// Keeps the data, for a person to look at.
    pub(crate) fn keep(self) -> PathBuf {
        match self.temporary {
            Some(dir) => dir.keep(),
            None => self.path,
        }
    }

    /// Is the data removed when this is dropped?
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary.is_some()
    }
}

/// Does a person watch?
pub(crate) fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// How text is written on this terminal.
pub(crate) fn look() -> cli::text::Look {
    let now = crate::now_of(runtime::clock::SystemClock::shared())();
    *cli::terminal::Terminal::new(Format::Text, now).look()
}

/// May symbols beyond ASCII be used?
pub(crate) fn is_unicode() -> bool {
    look().unicode
}

/// A symbol, or its word where there are no symbols.
pub(crate) fn symbol(unicode: &'static str, ascii: &'static str) -> &'static str {
    if is_unicode() { unicode } else { ascii }
}
