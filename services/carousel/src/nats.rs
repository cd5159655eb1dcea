//! `carousel nats provision`: the streams of a log, made by the person who administers the broker.

use cli::args::{Format, Global, ProvisionArgs};
use eventlog::{Done, JetStreamLog, JetStreamOpenError, Provision, Provisioned, SYNC_KEY};

use crate::{
    home::{EMBEDDED, HomeError, names_a_log},
    plane::log::bus_of,
};

/// Why nothing was made, or not everything.
#[derive(Debug, thiserror::Error)]
enum ProvisionError {
    #[error(transparent)]
    Log(#[from] HomeError),
    #[error("an embedded log has no streams: give --log nats://HOST:PORT")]
    Embedded,
    #[error(transparent)]
    Stream(#[from] JetStreamOpenError),
}

/// The command.
pub async fn provision(global: &Global, args: &ProvisionArgs) -> u8 {
    match streams(args).await {
        Ok(streams) => {
            show(global.format, args, &streams);
            0
        }
        Err(error) => crate::failed(&error),
    }
}

async fn streams(args: &ProvisionArgs) -> Result<Vec<Provisioned>, ProvisionError> {
    if !names_a_log(&args.log) {
        return Err(HomeError::NoLog.into());
    }
    if args.log == EMBEDDED {
        return Err(ProvisionError::Embedded);
    }
    let wanted = Provision {
        cluster: args.cluster.to_string(),
        replicas: args.replicas.into(),
        syncs_always: args.sync_always,
    };
    let bus = bus_of(&args.log, "carousel-provision");
    Ok(JetStreamLog::provision(&bus, &wanted, args.dry_run).await?)
}

fn show(format: Format, args: &ProvisionArgs, streams: &[Provisioned]) {
    match format {
        Format::Json | Format::Yaml => anstream::println!("{}", serde_json::json!(streams)),
        Format::Name => streams
            .iter()
            .for_each(|one| anstream::println!("{}", one.stream)),
        Format::Text | Format::Wide => {
            for one in streams {
                anstream::println!("{:<44} {}", one.stream, in_words(&one.done, args));
            }
            // The first one is the log itself.
            let stated = streams.first().map(|one| &one.config["metadata"][SYNC_KEY]);
            if stated.is_none_or(|stated| stated != "always") {
                anstream::println!(
                    "Next: once the servers have `sync_interval: always`, say so with --sync-always, or each start warns."
                );
            }
        }
    }
}

fn in_words(done: &Done, args: &ProvisionArgs) -> String {
    let would = if args.dry_run { "would be " } else { "" };
    match done {
        Done::Made => {
            let copies = if args.replicas == 1 { "replica" } else { "replicas" };
            format!("{would}made, {} {copies}", args.replicas)
        }
        Done::Left => "is as it has to be".into(),
        Done::Changed(what) => format!("{would}changed: {}", what.join(", ")),
    }
}
