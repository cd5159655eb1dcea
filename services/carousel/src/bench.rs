//! `carousel bench`: what this machine does with Carousel, and beside each figure what it could do at most.
//!
//! A raw limit is measured in the same run with the same keys, bytes and settings, so that the ratio says something
//! on any machine. `docs/performance.md` tells the method.

use cli::args::{BenchCommand, Format, Global};
use serde::Serialize;

mod fleet;
mod gateway;
mod log;
mod machine;
mod node;
mod raw;
mod rig;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("no place for the benchmark's data")]
    Place(#[source] std::io::Error),
    #[error(transparent)]
    Init(#[from] crate::init::InitError),
    #[error(transparent)]
    Home(#[from] crate::home::HomeError),
    #[error(transparent)]
    Plane(#[from] crate::plane::PlaneError),
    #[error(transparent)]
    Projector(#[from] projector::ProjectorError),
    #[error("the benchmark's own command failed: {0}")]
    Command(#[from] execution::ExecuteError),
    #[error("it could not be measured: {0}")]
    Raw(String),
    #[error(transparent)]
    Identity(#[from] cli::connect::ConnectError),
    #[error(transparent)]
    Agent(#[from] agent::AgentError),
    #[error("a process of the benchmark could not be started or talked to")]
    Process(#[source] std::io::Error),
    #[error("{0}")]
    Stuck(String),
}

/// The command.
pub async fn run(global: &Global, command: &BenchCommand) -> u8 {
    let measured = match command {
        BenchCommand::Fleet(args) => fleet::measure(args).await.map(|report| show(global, &report)),
        BenchCommand::Log(args) => log::measure(args).await.map(|report| show(global, &report)),
        BenchCommand::Gateway(args) => gateway::measure(args).await.map(|report| show(global, &report)),
        BenchCommand::Agents => gateway::agents::run().await,
    };
    match measured {
        Ok(()) => 0,
        Err(error) => crate::failed(&error),
    }
}

/// A report for people and for programs.
trait Report: Serialize {
    /// The same figures in lines.
    fn text(&self) -> String;
}

/// Progress, on stderr.
fn say(text: &str) {
    anstream::eprintln!("{text}");
}

fn show(global: &Global, report: &impl Report) {
    match global.format {
        Format::Json => anstream::println!(
            "{}",
            serde_json::to_string(report).expect("figures are plain data")
        ),
        Format::Text | Format::Wide | Format::Yaml | Format::Name => anstream::print!("{}", report.text()),
    }
}
