//! The program `carousel`: parses the command line and hands each command to its module.

use std::process::ExitCode;

use clap::Parser;
use cli::args::{AuditCommand, Cli, Command, LogCommand, NatsCommand};

use carousel::{bench, copy, demo, init, nats, recover, serve, verify};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // First, before a key exists in this process: an authority's, an operator's, or a join token.
    if let Err(error) = runtime::harden::no_core_dumps() {
        anstream::eprintln!(
            "warning: core dumps could not be switched off, so a crash may write keys to disk: {error}"
        );
    }
    if keeps_a_cluster(&cli.command) {
        runtime::harden::files_for_owner_alone();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            anstream::eprintln!("failed: the operating system gives no threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    // The command runs on a thread of its own size: a deep future must not depend on the main thread's stack.
    let code = runtime.block_on(async move { Box::pin(run(cli)).await });
    // Blocking file work that is still going on may finish; nobody waits for a stuck disk for ever.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ExitCode::from(code)
}

/// Does it write into a control plane's directory? Manual pages, say, are for everybody.
fn keeps_a_cluster(command: &Command) -> bool {
    matches!(
        command,
        Command::Demo(_) | Command::Init(_) | Command::Serve(_) | Command::Recover(_) | Command::Log(_)
    )
}

async fn run(cli: Cli) -> u8 {
    match &cli.command {
        Command::Bench(command) => bench::run(&cli.global, command).await,
        Command::Demo(args) => demo::run(&cli.global, args).await,
        Command::Init(args) => init::run(&cli.global, args).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Recover(args) => recover::run(&cli.global, args).await,
        Command::Log(LogCommand::Copy(args)) => copy::run(&cli.global, args).await,
        Command::Nats(NatsCommand::Provision(args)) => nats::provision(&cli.global, args).await,
        Command::Audit(AuditCommand::Verify {
            data_dir: Some(dir),
            log,
        }) => verify::run(cli.global.format, dir, log.as_deref()).await,
        _ => cli::run(cli).await,
    }
}
