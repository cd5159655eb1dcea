//! `carousel log copy`: a cluster's log from its file to NATS, or back, and the directory that remembers it.

use std::time::{Duration, Instant};

use cli::args::{CopyArgs, Format, Global};
use eventlog::{Copied, CopyError, JetStreamLog, SharedLog, SqliteLog};

use crate::{
    home::{EMBEDDED, Home, HomeError, names_a_log},
    plane::{PlaneError, log::stream_of, open_log_to_read},
};

/// How often progress is shown.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

/// Why the log is where it was.
#[derive(Debug, thiserror::Error)]
enum MoveError {
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Open(#[from] PlaneError),
    #[error("{}: no cluster was begun in this directory yet, so it has no log to copy", .0)]
    NoLog(String),
    #[error("the log is there already: {0}")]
    Same(String),
    #[error("the log could not be copied")]
    Copy(#[from] CopyError),
}

/// The command.
pub async fn run(global: &Global, args: &CopyArgs) -> u8 {
    match move_log(global, args).await {
        Ok((copied, to)) => {
            match global.format {
                Format::Json | Format::Yaml => anstream::println!(
                    "{}",
                    serde_json::json!({"log": to, "position": copied.position, "were_there": copied.were_there})
                ),
                Format::Text | Format::Wide | Format::Name => {
                    anstream::println!(
                        "Copied {} events to {to} ({} were there), and read all of them back: each is the same.",
                        copied.position - copied.were_there,
                        copied.were_there
                    );
                    anstream::println!(
                        "This directory serves from there now. The old log is as it was; keep it until you are sure."
                    );
                }
            }
            0
        }
        Err(error) => crate::failed(&error),
    }
}

async fn move_log(global: &Global, args: &CopyArgs) -> Result<(Copied, String), MoveError> {
    let mut home = Home::open(&args.data_dir)?;
    let _held = home.hold()?;
    if !home.was_begun() {
        return Err(MoveError::NoLog(args.data_dir.display().to_string()));
    }
    let chosen = home.description.choose_log(args.log.as_deref())?;
    if !names_a_log(&args.to) {
        return Err(HomeError::NoLog.into());
    }
    let redacted = eventlog::bus::redacted;
    if redacted(&args.to) == redacted(&chosen) {
        return Err(MoveError::Same(redacted(&chosen)));
    }
    let from = open_log_to_read(&home, &chosen).await?;
    let to = match target(&home, &args.to).await {
        Ok(to) => to,
        Err(error) => {
            from.close().await;
            return Err(error.into());
        }
    };
    let copied = eventlog::copy(&*from, &*to, shown(global.quiet)).await;
    from.close().await;
    to.close().await;
    let copied = copied?;
    // Crash point: both logs are the same, and the directory still names the old one. Copying again finds nothing to do.
    home.move_log(&args.to)?;
    Ok((copied, redacted(&args.to)))
}

/// The log to write, made if it is not there. One that is there is compared, never replaced.
async fn target(home: &Home, to: &str) -> Result<SharedLog, PlaneError> {
    if to == EMBEDDED {
        return Ok(SqliteLog::open(home.log_file()).await?);
    }
    let (bus, options) = stream_of(home, to);
    Ok(JetStreamLog::connect(&bus, &options).await?)
}

/// Says now and then on stderr how far it is.
fn shown(quiet: bool) -> impl FnMut(&'static str, u64, u64) {
    let mut next = Instant::now() + SHOWN_EVERY;
    move |what, position, of| {
        if !quiet && Instant::now() >= next {
            next = Instant::now() + SHOWN_EVERY;
            anstream::eprintln!("{what} {position} of {of}");
        }
    }
}
