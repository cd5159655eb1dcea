//! One command from its arguments to its exit code.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use api::{audit::VerifyReport, shape::WatchLine};
use domain::Timestamp;
use mtls::Now;
use runtime::clock::{SharedClock, SystemClock};
use serde::de::DeserializeOwned;

use crate::{
    args::{Cli, Format, Global},
    command,
    connect::{ConnectError, Session},
    failure::{Exit, Failure},
    identity,
    screen::{audit::verification, watch::not_yet},
    terminal::Terminal,
    text::{Look, milliseconds},
};

/// Does a command that talks to a running control plane, or needs none. `demo`, `init`, `serve` and `recover` are the
/// binary's.
pub async fn run(cli: Cli) -> u8 {
    let context = Context::new(cli.global);
    let work = Box::pin(command::dispatch(cli.command, &context));
    let result = tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(interrupted(&context)),
    };
    let exit = match result {
        Ok(exit) => exit,
        Err(failure) => {
            context.terminal.fail(&failure);
            failure.exit
        }
    };
    exit as u8
}

/// Shows what a verification of a stopped control plane's log found, as `audit verify` would.
pub fn show_verification(format: Format, report: &VerifyReport) -> u8 {
    let terminal = Terminal::new(format, Timestamp(SystemClock::shared().now_ms()));
    match verified(&terminal, report) {
        Ok(exit) => exit as u8,
        Err(failure) => {
            terminal.fail(&failure);
            failure.exit as u8
        }
    }
}

/// The report on stdout; the exit code is the verdict.
pub(crate) fn verified(terminal: &Terminal, report: &VerifyReport) -> Result<Exit, Failure> {
    let names = || vec![report.cluster.clone()];
    terminal.show(report, |look| verification(report, look), names)?;
    Ok(if report.verified { Exit::Done } else { Exit::Failed })
}

/// Ctrl-C stops watching, never what is watched.
fn interrupted(context: &Context) -> Failure {
    let page = match &*context.watched() {
        Some(watched) => {
            let line = watched.line.as_ref();
            let authority = watched.authority.clone();
            format!(
                "Stopped watching. {}",
                not_yet(line, &watched.target, "", &authority)
            )
        }
        // The answer is lost, the command perhaps not.
        None if context.has_sent.load(Ordering::Relaxed) => {
            "Interrupted before the answer: the command may have been accepted all the same.\nNext: carousel status\n".into()
        }
        None => "Interrupted.\n".into(),
    };
    Failure {
        exit: Exit::Interrupted,
        page,
        problem: None,
        passes: false,
    }
}

/// A trace as the control plane continues it, and as its events name it.
struct Trace {
    id: String,
    parent: String,
}

impl Trace {
    fn new(id: [u8; 16], span: [u8; 8]) -> Self {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let id = hex(&id);
        Self {
            parent: format!("00-{id}-{}-01", hex(&span)),
            id,
        }
    }
}

/// What a wait has seen last, for whoever interrupts it.
pub(crate) struct Watched {
    /// The type.
    pub(crate) authority: String,
    /// What is waited for.
    pub(crate) target: String,
    /// The newest line.
    pub(crate) line: Option<WatchLine>,
}

/// What every command has at hand.
pub(crate) struct Context {
    pub(crate) global: Global,
    pub(crate) terminal: Terminal,
    clock: SharedClock,
    watched: Mutex<Option<Watched>>,
    has_sent: AtomicBool,
}

impl Context {
    fn new(mut global: Global) -> Self {
        // An empty variable counts as unset, as everywhere: shells make it hard to tell the two apart.
        global.identity = global.identity.filter(|path| !path.as_os_str().is_empty());
        global.server = global.server.filter(|server| !server.is_empty());
        let clock = SystemClock::shared();
        let mut terminal = Terminal::new(global.format, Timestamp(clock.now_ms()));
        terminal.quiet = global.quiet;
        Self {
            global,
            terminal,
            clock,
            watched: Mutex::new(None),
            has_sent: AtomicBool::new(false),
        }
    }

    /// From here on an interruption leaves open whether something was changed.
    pub(crate) fn sends(&self) {
        self.has_sent.store(true, Ordering::Relaxed);
    }

    /// The time now; screens use the one reading of [`Context::look`].
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.clock.now_ms())
    }

    pub(crate) fn look(&self) -> &Look {
        self.terminal.look()
    }

    pub(crate) fn is_wide(&self) -> bool {
        self.terminal.format == Format::Wide
    }

    pub(crate) fn watched(&self) -> std::sync::MutexGuard<'_, Option<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the way to the control plane: finds the identity, keeps it current, and says on stderr what could not
    /// be renewed.
    pub(crate) async fn session(&self) -> Result<Session, Failure> {
        let look = self.look();
        let path =
            identity::find(self.global.identity.as_deref()).map_err(|e| Failure::of(e.into(), look))?;
        let clock: Arc<_> = self.clock.clone();
        let now = Now::new(move || clock.now_ms());
        let mut session =
            Session::open(&path, self.global.server.as_deref(), now).map_err(|e| Failure::of(e, look))?;
        if self.global.verbose {
            let (terminal, server) = (self.terminal, session.server());
            session = session.with_tracer(Arc::new(move |method, path| {
                let trace = Trace::new(pki::random(), pki::random());
                terminal.note(&format!("> {method} {server}{path}  trace {}", trace.id));
                trace.parent
            }));
        }
        let (_, warning) = session.keep_current().await.map_err(|e| Failure::of(e, look))?;
        if let Some(warning) = warning {
            self.terminal.note(&format!("{} {warning}", look.attention()));
        }
        Ok(session)
    }

    /// Turns what went wrong on the way into a page.
    pub(crate) fn sort<T>(&self, result: Result<T, ConnectError>) -> Result<T, Failure> {
        result.map_err(|error| Failure::of(error, self.look()))
    }

    /// Asks for a document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, session: &Session, path: &str) -> Result<T, Failure> {
        self.sort(session.get(path).await)
    }

    /// Reads a moment: a position, an RFC 3339 time, or so long ago (`2h`).
    pub(crate) fn moment(&self, text: &str) -> Result<String, Failure> {
        if text.parse::<api::At>().is_ok() {
            return Ok(text.into());
        }
        match humantime::parse_duration(text) {
            Ok(ago) => Ok(self.look().now.minus_ms(milliseconds(ago)).to_string()),
            Err(_) => Err(Failure::usage(format!(
                "{text:?} is no moment; give a log position, a time such as 2026-09-20T06:10:00Z, or so long ago (2h)"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interruption_after_a_command_was_sent_says_that_it_may_have_been_accepted() {
        let words = ["carousel", "status"];
        let context = Context::new(<Cli as clap::Parser>::try_parse_from(words).unwrap().global);
        assert_eq!(interrupted(&context).page, "Interrupted.\n");
        context.sends();
        let failure = interrupted(&context);
        assert!(
            failure.page.contains("may have been accepted"),
            "{}",
            failure.page
        );
        assert!(failure.page.contains("carousel status"), "{}", failure.page);
        assert_eq!(failure.exit, Exit::Interrupted);
    }

    #[test]
    fn a_trace_is_written_as_the_w3c_has_it_and_shown_by_its_id() {
        let trace = Trace::new([0xab; 16], [1; 8]);
        assert_eq!(trace.id, "ab".repeat(16));
        assert_eq!(trace.parent, format!("00-{}-0101010101010101-01", trace.id));
    }
}
