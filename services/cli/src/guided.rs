//! `carousel auth rotate` for a person at a terminal: choose an authority, see the fleet, see what the next step does,
//! confirm it, wait, and so on to the end.
//!
//! - [`machine`]: a screen and a key, or an answer, give the next screen; pure;
//! - [`view`]: what a screen looks like; pure;
//! - [`canvas`]: which bytes change what stands on the terminal; pure;
//! - [`keys`]: the terminal's bytes as keys, and its mode while they are read;
//! - [`tasks`]: what is asked of the control plane meanwhile.
//!
//! It sends what the command line sends, and nothing that was not shown and confirmed.

use std::{io::Write, sync::Arc, time::Duration};

use api::{ClientError, route, shape::Status};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    args::{Format, RotateArgs},
    command::rotate,
    connect::ConnectError,
    failure::{Exit, Failure},
    run::Context,
    screen::refusal::{self, Asked},
    text::Look,
};

use canvas::Canvas;
use keys::{Key, Keys};
use machine::{Effect, Guided};
use tasks::{Event, Tasks};

mod canvas;
mod keys;
mod machine;
mod tasks;
mod view;

#[cfg(test)]
mod samples;

/// How often the clock of a live screen goes on.
const TICK: Duration = Duration::from_secs(1);
/// Where a terminal does not say its size.
const SIZE: (usize, usize) = (80, 24);

/// Is this a person at a terminal who has left open what to rotate?
pub(crate) fn is_meant(context: &Context, args: &RotateArgs) -> bool {
    use std::io::{IsTerminal, stderr, stdin};
    let format = context.terminal.format;
    asks(args)
        && !context.global.no_input
        && matches!(format, Format::Text | Format::Wide)
        && stdin().is_terminal()
        && stderr().is_terminal()
}

/// Nothing but the bare command: whoever gives a flag knows what is wanted, and has forgotten the type.
fn asks(args: &RotateArgs) -> bool {
    let RotateArgs {
        authority_type: None,
        manual: false,
        phase: None,
        grace_period: None,
        on_lagging: None,
        plan: false,
        force: false,
        wait: false,
        timeout: None,
    } = args
    else {
        return false;
    };
    true
}

/// Goes through it with the person at the terminal.
pub(crate) async fn run(context: &Context) -> Result<Exit, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("this terminal cannot be asked: {error}"));
    let session = Arc::new(context.session().await?);
    let status: Status = context.get(&session, route::STATUS).await?;
    let mut shell = Shell {
        context,
        guided: Guided::new(status, context.global.reason.clone()),
        canvas: Canvas::new(context.terminal.redraws()),
        tasks: Tasks::new(session),
        keys: Keys::open().map_err(failed)?,
        ends: Ends::new().map_err(failed)?,
    };
    let result = shell.follow().await;
    write(shell.canvas.close());
    // The terminal is given back before the last word.
    let Shell { guided, keys, .. } = shell;
    drop(keys);
    let exit = result?;
    let page = view::leaving(&guided, exit, &context.terminal.look_at(context.now()));
    if exit == Exit::Interrupted {
        return Err(Failure {
            exit,
            page,
            problem: None,
            passes: false,
        });
    }
    context.terminal.note(&page);
    Ok(exit)
}

/// Signals that end programs: the terminal is given back before.
struct Ends {
    terminate: Signal,
    hang_up: Signal,
}

impl Ends {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

struct Shell<'a> {
    context: &'a Context,
    guided: Guided,
    canvas: Canvas,
    tasks: Tasks,
    keys: Keys,
    ends: Ends,
}

impl Shell<'_> {
    /// Draws and listens until it is left.
    async fn follow(&mut self) -> Result<Exit, Failure> {
        let mut tick = tokio::time::interval(TICK);
        loop {
            self.draw();
            let now = self.context.now();
            let effect = tokio::select! {
                key = self.keys.next() => self.guided.key(key, now),
                event = self.tasks.next() => self.take(event)?,
                () = self.ends.next() => self.guided.key(Key::Interrupt, now),
                _ = tick.tick() => Effect::Nothing,
            };
            match effect {
                Effect::Nothing => {}
                Effect::Look(authority) => self.tasks.look(authority),
                Effect::Plan(authority, step) => self.tasks.plan(authority, step),
                Effect::Send(order) => {
                    self.context.sends();
                    self.tasks.send(order);
                }
                Effect::Leave(exit) => return Ok(exit),
            }
        }
    }

    fn look(&self) -> Look {
        let width = Some(size().0);
        Look {
            width,
            ..self.context.terminal.look_at(self.context.now())
        }
    }

    fn draw(&mut self) {
        let view = view::view(&self.guided, &self.look(), self.canvas.redraws);
        write(&self.canvas.draw(&view, size()));
        // They stand above this screen now.
        self.guided.notes.clear();
    }

    /// An answer of the control plane. What is no answer ends it, for nobody can go on without one.
    fn take(&mut self, event: Event) -> Result<Effect, Failure> {
        let (look, now) = (self.look(), self.context.now());
        Ok(match event {
            Event::Looked(result) => {
                let (status, plan) = self.context.sort(result)?;
                self.guided.looked(status, plan)
            }
            Event::Planned(step, result) => {
                let (status, plan) = self.context.sort(result)?;
                self.guided.planned(step, status, plan)
            }
            Event::Watched(line) => {
                if self.guided.sees(&line) {
                    // Also the line that ends a wait is shown by it.
                    self.draw();
                }
                self.guided.watched(line)
            }
            Event::Unwatched(error) => return Err(Failure::of(error, &look)),
            Event::Answered(authority, Ok(answer)) => {
                let said = rotate::spoken(authority, &answer, &look);
                self.guided.answered(&answer, &said, now)
            }
            Event::Answered(authority, Err(ConnectError::Client(ClientError::Problem(problem)))) => {
                let asked = Asked {
                    status: Some(&self.guided.status),
                    authority: Some(authority),
                };
                let mut page = refusal::page(&problem, asked, &look);
                page.extend(problem.gate.as_deref().and_then(view::force));
                self.guided.refused(&page)
            }
            Event::Answered(_, Err(error)) => return Err(Failure::of(error, &look)),
        })
    }
}

/// The size of the terminal now: nobody tells when it changes, and some never say it.
fn size() -> (usize, usize) {
    match crossterm::terminal::size() {
        Ok((columns, lines)) if columns > 0 && lines > 0 => (usize::from(columns), usize::from(lines)),
        _ => SIZE,
    }
}

fn write(text: &str) {
    let mut out = anstream::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{AuthCommand, Cli, Command};

    #[test]
    fn only_the_bare_command_asks() {
        let args = |line: &str| {
            let words = ["carousel", "auth", "rotate"]
                .into_iter()
                .chain(line.split_whitespace());
            match Cli::try_parse_from(words).unwrap().command {
                Command::Auth(AuthCommand::Rotate(args)) => asks(&args),
                other => panic!("{other:?}"),
            }
        };
        assert!(args(""));
        assert!(args("--reason CHG-4411"));
        for given in [
            "--type=host",
            "--manual",
            "--phase=init",
            "--grace-period=48h",
            "--on-lagging=hold",
            "--plan",
            "--force",
            "--wait",
        ] {
            assert!(!args(given), "{given}");
        }
    }
}
