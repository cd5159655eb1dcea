//! `carousel check`: the control plane's findings, and two of our own.

use std::time::Duration;

use api::{
    route,
    shape::{CheckFinding, CheckLevel, CheckReport, Status, Whoami},
};
use tokio::time::Instant;

use crate::{
    args::CheckArgs,
    connect::{ConnectError, Session},
    failure::{Exit, Failure},
    run::Context,
    screen,
};

/// How long between two tries of `--wait`.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn check(context: &Context, args: &CheckArgs) -> Result<Exit, Failure> {
    let deadline = args.timeout.map(|limit| Instant::now() + limit);
    loop {
        let found = look(context).await;
        let clean = found.as_ref().is_ok_and(|report| is_clean(report, args));
        let in_time = deadline.is_none_or(|deadline| Instant::now() + PAUSE < deadline);
        if clean || !args.wait || !in_time {
            let report = found?;
            let names = || report.checks.iter().map(|check| check.name.clone()).collect();
            context
                .terminal
                .show(&report, |look| screen::check::render(&report, look), names)?;
            return match (clean, args.wait) {
                (true, _) => Ok(Exit::Done),
                (false, false) => Ok(Exit::Failed),
                (false, true) => Err(Failure {
                    exit: Exit::NotYet,
                    page: "not yet: the check is not clean. Again: carousel check --wait\n".into(),
                    problem: None,
                }),
            };
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_clean(report: &CheckReport, args: &CheckArgs) -> bool {
    report.errors == 0 && (report.warnings == 0 || args.fail_on != "warn")
}

async fn look(context: &Context) -> Result<CheckReport, Failure> {
    let session = context.session().await?;
    let mut report: CheckReport = context.get(&session, route::CHECK).await?;
    let ours = context.sort(own(context, &session).await)?;
    let count = |level| u32::try_from(ours.iter().filter(|f| f.level == level).count()).unwrap_or(0);
    report.errors += count(CheckLevel::Error);
    report.warnings += count(CheckLevel::Warn);
    report.checks.splice(0..0, ours);
    Ok(report)
}

/// What only this side can see.
async fn own(context: &Context, session: &Session) -> Result<Vec<CheckFinding>, ConnectError> {
    let me: Whoami = session.get(route::WHOAMI).await?;
    let status: Status = session.get(route::STATUS).await?;
    let finding = |name: &str, level, text| CheckFinding {
        section: "control plane".into(),
        name: name.into(),
        level,
        text,
        next: None,
    };
    let life = context.look().until(me.not_after);
    let (theirs, ours) = (&status.cluster.version, env!("CARGO_PKG_VERSION"));
    let version = if theirs == ours {
        finding("version", CheckLevel::Ok, format!("version {theirs} = CLI"))
    } else {
        finding(
            "version",
            CheckLevel::Warn,
            format!("version {theirs}, this tool is {ours}"),
        )
    };
    Ok(vec![
        finding(
            "reachable",
            CheckLevel::Ok,
            format!("reachable, identity valid for {life}"),
        ),
        version,
    ])
}
