//! Each command: what it asks, and what it shows of the answer.

use api::{
    command::{CommandAnswer, PlainRequest},
    route,
    shape::command_id,
};
use clap::CommandFactory;
use domain::AuthorityType;

use crate::{
    args::{AuditCommand, AuthCommand, Cli, ClockCommand, Command, NodesCommand},
    connect::Session,
    failure::{Exit, Failure},
    run::Context,
    screen::{explain, refusal},
};

mod audit;
mod certificates;
mod check;
mod consumers;
mod export;
mod get;
mod login;
mod manual;
mod probe;
pub(crate) mod rotate;
mod sign;
mod status;
mod tokens;
mod users;
pub(crate) mod wait;

/// Does it.
pub(crate) async fn dispatch(command: Command, context: &Context) -> Result<Exit, Failure> {
    match command {
        Command::Status(args) => status::status(context, &args).await,
        Command::Auth(AuthCommand::Rotate(args)) => rotate::rotate(context, &args).await,
        Command::Auth(AuthCommand::Export(args)) => export::export(context, &args).await,
        Command::Auth(AuthCommand::Sign(args)) => sign::sign(context, &args).await,
        Command::Auth(AuthCommand::Token(args)) => sign::token(context, &args).await,
        Command::Login(args) => login::login(context, &args).await,
        Command::Certificates(command) => certificates::certificates(context, command).await,
        Command::Wait(args) => wait::wait(context, &args).await,
        Command::Get(args) => get::get(context, &args).await,
        Command::Nodes(command) => nodes(context, &command).await,
        Command::Tokens(command) => tokens::tokens(context, command).await,
        Command::Users(command) => users::users(context, command).await,
        Command::Consumers(command) => consumers::consumers(context, command).await,
        Command::Probe(args) => probe::probe(context, &args).await,
        Command::Check(args) => check::check(context, &args).await,
        Command::Explain { code } => explain_code(context, code.as_deref()),
        Command::Audit(command) => audited(context, command).await,
        Command::Clock(ClockCommand::Accept) => {
            plain(context, route::CLOCK_ACCEPT, "The clock is accepted.").await
        }
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "carousel", &mut out);
            context.terminal.data(&String::from_utf8_lossy(&out));
            Ok(Exit::Done)
        }
        Command::Man { dir } => manual::man(context, dir.as_deref()),
        Command::Help { words } => manual::help(context, &words),
        Command::Demo(_)
        | Command::Bench(_)
        | Command::Init(_)
        | Command::Serve(_)
        | Command::Recover(_)
        | Command::Nats(_)
        | Command::Log(_) => Err(Failure::failed(
            "this command is the program's, not this library's",
        )),
    }
}

async fn audited(context: &Context, command: AuditCommand) -> Result<Exit, Failure> {
    match command {
        AuditCommand::Ls(filter) => audit::ls(context, &filter).await,
        AuditCommand::Follow(filter) => audit::follow(context, &filter).await,
        AuditCommand::Show { position } => audit::show(context, position).await,
        AuditCommand::Replay { as_of, view } => audit::replay(context, &as_of, &view).await,
        AuditCommand::Diff { a, b } => audit::diff(context, &a, &b).await,
        AuditCommand::Verify { data_dir: None, .. } => audit::verify(context).await,
        AuditCommand::Verify {
            data_dir: Some(_), ..
        } => Err(Failure::failed(
            "a stopped control plane's log is verified by the program, not by this library",
        )),
    }
}

async fn nodes(context: &Context, command: &NodesCommand) -> Result<Exit, Failure> {
    let (path, name, done) = match command {
        NodesCommand::Exclude(node) => (
            route::NODE_EXCLUDE,
            &node.name,
            "is excluded from the rotations in progress",
        ),
        NodesCommand::Include(node) => (route::NODE_INCLUDE, &node.name, "is waited for again"),
        NodesCommand::Rm(node) => (
            route::NODE_REMOVE,
            &node.name,
            "is removed; its certificates no longer count",
        ),
    };
    plain(context, &route::fill(path, name), &format!("Node {name} {done}.")).await
}

/// A command that needs no more than an id and a reason.
async fn plain(context: &Context, path: &str, done: &str) -> Result<Exit, Failure> {
    let session = context.session().await?;
    context.sends();
    let answer: CommandAnswer = context.sort(session.post(path, &plain_request(context, &session)).await)?;
    let text = match &answer.answer {
        domain::Answer::Noop { text } => format!("Nothing to do: {text}.\n"),
        _ => format!("{done}\n"),
    };
    context.terminal.show(&answer, |_| text, Vec::new)?;
    warn(context, answer.warning.as_deref());
    Ok(Exit::Done)
}

fn plain_request(context: &Context, session: &Session) -> PlainRequest {
    PlainRequest {
        id: command_id(session.now(), pki::random()),
        reason: context.global.reason.clone(),
    }
}

/// Accepted, but: on stderr.
fn warn(context: &Context, warning: Option<&str>) {
    if let Some(warning) = warning {
        context
            .terminal
            .note(&format!("{} {warning}", context.look().attention()));
    }
}

/// `--type`, without which nothing is guessed.
fn required_type(authority: Option<AuthorityType>) -> Result<AuthorityType, Failure> {
    authority.ok_or_else(|| {
        Failure::usage(format!(
            "required flag --type not provided; valid types: {}\n\nFor more information, try '--help'.",
            AuthorityType::names()
        ))
    })
}

fn explain_code(context: &Context, code: Option<&str>) -> Result<Exit, Failure> {
    let Some(name) = code else {
        let pages: Vec<explain::Page> = explain::pages().collect();
        let names = || pages.iter().map(|page| page.name.to_owned()).collect();
        context.terminal.show(&pages, |_| explain::index(), names)?;
        return Ok(Exit::Done);
    };
    match explain::find(name) {
        Some(page) => {
            let names = || vec![page.name.to_owned()];
            context.terminal.show(&page, |_| explain::render(&page), names)?;
            Ok(Exit::Done)
        }
        None => {
            let near = explain::nearest(name);
            let near = if near.is_empty() {
                String::new()
            } else {
                format!("; is it {}?", near.join(", "))
            };
            Err(Failure::usage(format!(
                "no page {name:?}{near} All of them: carousel explain"
            )))
        }
    }
}

/// The page of a refusal, with what the caller had looked at before.
fn refused(context: &Context, error: crate::connect::ConnectError, asked: refusal::Asked<'_>) -> Failure {
    match error {
        crate::connect::ConnectError::Client(api::ClientError::Problem(problem)) => {
            let page = refusal::page(&problem, asked, context.look());
            Failure {
                page,
                ..Failure::refused(problem, context.look())
            }
        }
        other => Failure::of(other, context.look()),
    }
}
