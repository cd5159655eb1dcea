//! `carousel-agent`: one agent as a process.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use agent::{Agent, AgentError, AgentStatus, Config, Stage, disk};
use clap::Parser;
use domain::Timestamp;
use runtime::{
    admin,
    clock::{Clock, SystemClock},
    harden,
    metrics::Metrics,
    readiness::{Part, Readiness},
    shutdown::{Hangups, Signals},
    telemetry::{Telemetry, TelemetryConfig},
};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use args::{Cli, Command, StartArgs, StatusArgs};

mod args;

fn main() -> ExitCode {
    // Before a key exists. A container may forbid it, and then the agent runs all the same.
    let hardened = harden::no_core_dumps();
    match Cli::parse().command {
        Command::Start(start) => {
            let telemetry = match Telemetry::init(&TelemetryConfig::default()) {
                Ok(telemetry) => telemetry,
                Err(error) => return said(&error.to_string(), 2),
            };
            if let Err(error) = hardened {
                tracing::warn!(%error, "core dumps could not be switched off; keys may end up in one");
            }
            let code = start_agent(start);
            drop(telemetry);
            code
        }
        Command::Status(status) => show(&status),
    }
}

fn start_agent(start: StartArgs) -> ExitCode {
    let config = match start.into_config() {
        Ok(config) => config,
        Err(error) => return failed(&error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return said(&format!("the operating system gives no threads: {error}"), 1),
    };
    match runtime.block_on(run(config)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => failed(&error),
        Err(error) => said(&format!("signals cannot be handled: {error}"), 1),
    }
}

/// Runs the agent until a signal ends it or it cannot go on.
async fn run(mut config: Config) -> io::Result<Result<(), AgentError>> {
    let (signals, mut hangups) = (Signals::install()?, Hangups::install()?);
    let shutdown = CancellationToken::new();
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"));
    let endpoint = match config.settings.metrics_listen {
        Some(addr) => match TcpListener::bind(addr).await {
            Ok(listener) => Some(listener),
            Err(source) => return Ok(Err(AgentError::Listen { addr, source })),
        },
        None => None,
    };
    config.metrics = endpoint.is_some().then(|| metrics.clone());
    let agent = match Agent::new(config, SystemClock::shared()) {
        Ok(agent) => agent,
        Err(error) => return Ok(Err(error)),
    };
    let handle = agent.handle();
    let mut watchers = JoinSet::new();
    watchers.spawn(signals.watch(shutdown.clone()));
    watchers.spawn(async move {
        loop {
            hangups.next().await;
            handle.reload();
        }
    });
    if let Some(listener) = endpoint {
        let readiness = Readiness::new();
        watchers.spawn(follow(
            agent.handle().status(),
            readiness.part("agent", "a gateway"),
        ));
        let stop = shutdown.clone();
        watchers.spawn(async move {
            if let Err(error) = admin::serve(listener, metrics, readiness, stop).await {
                tracing::error!(%error, "metrics are served no more");
            }
        });
    }
    let ended = agent.run(shutdown).await;
    watchers.shutdown().await;
    Ok(ended)
}

/// Ready while it serves; the node's own monitoring reads no more from it than that.
async fn follow(mut status: watch::Receiver<AgentStatus>, part: Part) {
    loop {
        match status.borrow_and_update().stage {
            Stage::Serving => part.ready(),
            Stage::Joining | Stage::Syncing => part.waiting("a gateway"),
            Stage::Stopped => part.failed("the agent has ended"),
        }
        if status.changed().await.is_err() {
            return; // The agent is gone.
        }
    }
}

/// `carousel-agent status`: data on stdout, complaints on stderr.
fn show(args: &StatusArgs) -> ExitCode {
    let status = match AgentStatus::load(&args.data_dir) {
        Ok(Some(status)) => status,
        Ok(None) => {
            return said(
                "no agent has run on this data directory yet; start one with `carousel-agent start`",
                1,
            );
        }
        Err(error) => return said(&error.to_string(), 1),
    };
    let text = if args.format == "json" {
        serde_json::to_string_pretty(&status).expect("a status has string keys only and can be written")
    } else {
        status.text()
    };
    if writeln!(io::stdout(), "{text}").is_err() {
        return ExitCode::from(1); // Nobody reads any more.
    }
    let now = Timestamp(SystemClock.now_ms());
    let complaints = status.complaints(disk::is_in_use(&args.data_dir), now);
    let code = if args.check && !complaints.is_empty() {
        1
    } else {
        0
    };
    said(&complaints.join("\n"), code)
}

fn failed(error: &AgentError) -> ExitCode {
    said(&error.to_string(), error.exit_code())
}

/// Says something on stderr, if there is something to say, and gives the exit code.
fn said(text: &str, code: u8) -> ExitCode {
    if !text.is_empty() {
        // Where stderr is closed nobody can be told; the code still says it.
        let _ = writeln!(io::stderr(), "{text}");
    }
    ExitCode::from(code)
}
