//! `carousel check`: the control plane's findings, and two of our own.

use std::time::Duration;

use api::{
    route,
    shape::{CheckFinding, CheckLevel, CheckReport, NodeDoc, ProbeReport, Status, Whoami},
};
use domain::access::{Action, permits};
use tokio::time::Instant;

use super::probe;
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
    let mut last: Option<Result<CheckReport, Failure>> = None;
    loop {
        // A server that takes the connection and says nothing must not outlast the limit either.
        let found = match deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, look(context)).await.ok(),
            None => Some(look(context).await),
        };
        let in_time = found.is_some() && deadline.is_none_or(|deadline| Instant::now() + PAUSE < deadline);
        if let Some(found) = found {
            if !args.wait || is_over(&found, args) {
                return show(context, found?, args);
            }
            if let (None, Err(failure)) = (&last, &found) {
                let first = failure.page.lines().next().unwrap_or_default();
                let look = context.look();
                context
                    .terminal
                    .note(&format!("{} {first}; trying again", look.attention()));
            }
            last = Some(found);
        }
        if !in_time {
            return Err(not_yet(context, last));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Does trying again not help: is it clean, or is there an error that does not pass by itself?
fn is_over(found: &Result<CheckReport, Failure>, args: &CheckArgs) -> bool {
    match found {
        Ok(report) => is_clean(report, args),
        Err(failure) => !failure.passes,
    }
}

fn show(context: &Context, report: CheckReport, args: &CheckArgs) -> Result<Exit, Failure> {
    let names = || report.checks.iter().map(|check| check.name.clone()).collect();
    context
        .terminal
        .show(&report, |look| screen::check::render(&report, look), names)?;
    Ok(if is_clean(&report, args) {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// The time is over: what was found last, on stdout or on stderr, and exit 5 whichever it was.
fn not_yet(context: &Context, last: Option<Result<CheckReport, Failure>>) -> Failure {
    let (why, problem) = match last {
        Some(Ok(report)) => {
            let names = || report.checks.iter().map(|check| check.name.clone()).collect();
            let shown = context
                .terminal
                .show(&report, |look| screen::check::render(&report, look), names);
            let why = shown.map_or_else(|failure| failure.page, |()| "the check is not clean.".into());
            (why, None)
        }
        Some(Err(failure)) => (failure.page, failure.problem),
        None => ("no answer came in time.".into(), None),
    };
    Failure {
        exit: Exit::NotYet,
        page: format!("not yet: {}\nAgain: carousel check --wait\n", why.trim_end()),
        problem,
        passes: true,
    }
}

fn is_clean(report: &CheckReport, args: &CheckArgs) -> bool {
    report.errors == 0 && (report.warnings == 0 || args.fail_on != "warn")
}

async fn look(context: &Context) -> Result<CheckReport, Failure> {
    let session = context.session().await?;
    let mut report: CheckReport = context.get(&session, route::CHECK).await?;
    let me: Whoami = context.get(&session, route::WHOAMI).await?;
    let ours = context.sort(own(context, &session, &me).await)?;
    let probed = context.sort(probed(context, &session, &me).await)?;
    for found in ours.iter().chain(&probed) {
        report.errors += u32::from(found.level == CheckLevel::Error);
        report.warnings += u32::from(found.level == CheckLevel::Warn);
    }
    report.checks.splice(0..0, ours);
    report.checks.extend(probed);
    Ok(report)
}

/// Dials every online node that has a probe endpoint. Only for whoever may probe: another's try would be a refusal on
/// record at every check.
async fn probed(
    context: &Context,
    session: &Session,
    me: &Whoami,
) -> Result<Option<CheckFinding>, ConnectError> {
    if !permits(&me.principal, &me.roles, Action::Rotate) {
        return Ok(None);
    }
    let nodes: Vec<NodeDoc> = session.get(route::NODES).await?;
    let there = nodes
        .iter()
        .filter(|node| node.status.online && !node.spec.addr.is_empty());
    let names: Vec<String> = there.map(|node| node.metadata.name.to_string()).collect();
    let reports = probe::dial_all(context, session, names).await?;
    Ok(answered(&reports))
}

/// What the probes say together; nothing where nobody was dialled.
fn answered(reports: &[ProbeReport]) -> Option<CheckFinding> {
    let ok = reports.iter().filter(|report| report.ok).count();
    if reports.is_empty() {
        return None;
    }
    let all = ok == reports.len();
    Some(CheckFinding {
        section: "nodes".into(),
        name: "probe".into(),
        level: if all { CheckLevel::Ok } else { CheckLevel::Error },
        text: format!("{ok} of {} online nodes answered a probe", reports.len()),
        next: (!all).then(|| "carousel probe --all".into()),
    })
}

/// What only this side can see.
async fn own(context: &Context, session: &Session, me: &Whoami) -> Result<Vec<CheckFinding>, ConnectError> {
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

#[cfg(test)]
mod tests {
    use api::ClientError;

    use super::*;
    use crate::{connect::ConnectError, identity::IdentityError, screen::samples};

    #[test]
    fn one_node_that_does_not_answer_a_probe_is_an_error() {
        let report = |ok| ProbeReport {
            node: samples::node_id(1),
            name: "api-1".into(),
            addr: "10.0.0.1:1".into(),
            ok,
            generation: None,
            issuer: None,
            not_after: None,
            millis: None,
            error: None,
        };
        assert_eq!(answered(&[]), None);
        let well = answered(&[report(true), report(true)]).unwrap();
        assert_eq!(
            (well.level, well.text.as_str()),
            (CheckLevel::Ok, "2 of 2 online nodes answered a probe")
        );
        let ill = answered(&[report(true), report(false)]).unwrap();
        assert_eq!(ill.level, CheckLevel::Error);
        assert_eq!(ill.next.as_deref(), Some("carousel probe --all"));
    }

    #[test]
    fn only_what_passes_by_itself_is_tried_again() {
        let args = CheckArgs {
            fail_on: "error".into(),
            wait: true,
            timeout: None,
        };
        let look = samples::look();
        let over = |error: ConnectError| is_over(&Err(Failure::of(error, &look)), &args);
        let problem = |code| ClientError::Problem(Box::new(api::Problem::new(code, "x"))).into();
        assert!(!over(
            ClientError::Unreachable {
                authority: "x:1".into(),
                detail: "refused".into()
            }
            .into()
        ));
        assert!(!over(problem(domain::Code::NotServing)));
        assert!(!over(ConnectError::NoServer("x".into())), "it may be started yet");
        assert!(over(problem(domain::Code::NotPermitted)));
        assert!(over(IdentityError::Nowhere.into()));
        assert!(over(ConnectError::NotAccepted {
            server: "x".into(),
            why: "revoked".into(),
            not_after: None
        }));
        let mut report = CheckReport {
            position: domain::Position(1),
            checks: Vec::new(),
            errors: 1,
            warnings: 0,
        };
        assert!(!is_over(&Ok(report.clone()), &args));
        report.errors = 0;
        assert!(is_over(&Ok(report), &args));
    }
}
