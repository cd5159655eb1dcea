//! `carousel wait` and `--wait`: follows a phase until everybody is there, the time is over, or somebody has enough.

use std::time::Duration;

use api::{
    client::EventStream,
    route,
    shape::{WatchLine, go_duration},
};
use domain::{AuthorityType, Phase, Timestamp, command::Mode, event::RotationOutcome};
use tokio::time::Instant;

use super::required_type;
use crate::{
    args::WaitArgs,
    connect::{ConnectError, Session},
    failure::{Exit, Failure},
    run::{Context, Watched},
    screen::watch,
    text::{Look, milliseconds},
};

/// How often the stall line is repeated without a terminal.
const STALL: Duration = Duration::from_secs(60);
/// How long between two attempts to open the stream again.
pub(crate) const PAUSE: Duration = Duration::from_millis(300);
/// For how long nobody may be there before it is given up.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn wait(context: &Context, args: &WaitArgs) -> Result<Exit, Failure> {
    let authority = required_type(args.authority_type)?;
    let session = context.session().await?;
    let target = match args.phase {
        Some(phase) => Target::Phase(phase),
        None => Target::Current,
    };
    Waiting::new(context, authority, target)
        .run(&session, args.timeout)
        .await
}

/// Waits after a command: for the phase it entered, or (none: semi-automatic) for the end of the rotation.
pub(super) async fn follow(
    context: &Context,
    session: &Session,
    authority: AuthorityType,
    phase: Option<Phase>,
    timeout: Option<Duration>,
) -> Result<Exit, Failure> {
    let target = phase.map_or(Target::End, Target::Phase);
    Waiting::new(context, authority, target)
        .run(session, timeout)
        .await
}

/// Opens the watch of an authority; for as long as nobody is there, again and again.
pub(crate) async fn open(session: &Session, authority: AuthorityType) -> Result<EventStream, ConnectError> {
    let path = route::fill(route::WATCH, authority.name());
    let begun = Instant::now();
    loop {
        match session.stream(&path).await {
            // A refusal or a question of trust does not pass by itself; silence may.
            Err(ConnectError::Client(error)) if error.is_transient() && begun.elapsed() < PATIENCE => {}
            opened => return opened,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// Until everybody has reached this phase.
    Phase(Phase),
    /// Until everybody has reached the phase of the first line; of a semi-automatic rotation, its end.
    Current,
    /// Until the rotation is over.
    End,
}

impl Target {
    /// In words.
    pub(crate) fn words(self) -> String {
        match self {
            Self::Phase(phase) => phase.to_string(),
            Self::Current => "the current phase".into(),
            Self::End => "the end of the rotation".into(),
        }
    }
}

/// What a line means for the wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Not there yet.
    Waiting,
    /// Everybody is there.
    Done,
    /// What was waited for lies behind: the rotation has gone on. Nobody is known to have reached what came after.
    Passed,
    /// What was waited for will not come.
    Never(&'static str),
}

struct Waiting<'a> {
    context: &'a Context,
    authority: AuthorityType,
    target: Target,
    since: Timestamp,
    shown: Option<String>,
    drawn: usize,
    spoken: Instant,
    held_said: bool,
}

impl<'a> Waiting<'a> {
    fn new(context: &'a Context, authority: AuthorityType, target: Target) -> Self {
        Self {
            context,
            authority,
            target,
            since: context.now(),
            shown: None,
            drawn: 0,
            spoken: Instant::now(),
            held_said: false,
        }
    }

    async fn run(mut self, session: &Session, timeout: Option<Duration>) -> Result<Exit, Failure> {
        self.remember(None);
        let watching = self.watch(session);
        let Some(limit) = timeout else {
            return watching.await;
        };
        match tokio::time::timeout(limit, watching).await {
            Ok(result) => result,
            Err(_) => Err(self.not_yet(limit)),
        }
    }

    /// Reads lines until the verdict; opens the stream anew when it ends, for a control plane may be restarted and
    /// a change of trust closes connections.
    async fn watch(&mut self, session: &Session) -> Result<Exit, Failure> {
        loop {
            let opened = open(session, self.authority).await;
            let mut stream = opened.map_err(|error| Failure::of(error, self.context.look()))?;
            if let Some(exit) = self.listen(&mut stream).await? {
                return Ok(exit);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Reads one stream to its end. Between its lines the clock of the block goes on, and a stall is said.
    async fn listen(&mut self, stream: &mut EventStream) -> Result<Option<Exit>, Failure> {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                event = stream.next() => {
                    let Ok(Some(event)) = event else { return Ok(None) };
                    let Ok(line) = event.json::<WatchLine>() else { continue };
                    if let Some(exit) = self.see(&line)? {
                        return Ok(Some(exit));
                    }
                }
                _ = tick.tick() => {
                    let last = self.context.watched().as_ref().and_then(|w| w.line.clone());
                    if let Some(mut line) = last.filter(|_| !self.context.terminal.is_machine()) {
                        line.time = self.context.now();
                        self.draw(&line, Verdict::Waiting);
                    }
                }
            }
        }
    }

    /// Shows a line; an exit ends the wait.
    fn see(&mut self, line: &WatchLine) -> Result<Option<Exit>, Failure> {
        if self.target == Target::Current {
            self.target = match (line.mode, line.phase) {
                (Some(Mode::Automatic), _) => Target::End,
                (_, phase) => Target::Phase(phase),
            };
        }
        self.remember(Some(line.clone()));
        let verdict = verdict(self.target, line);
        if self.context.terminal.is_machine() {
            // `done` is the wait's own: with `--phase` a line may be complete for another phase.
            let done = matches!(verdict, Verdict::Done | Verdict::Passed);
            self.context
                .terminal
                .json_line(&WatchLine { done, ..line.clone() });
        } else {
            self.draw(line, verdict);
        }
        match verdict {
            Verdict::Waiting => Ok(None),
            Verdict::Done | Verdict::Passed => Ok(Some(Exit::Done)),
            Verdict::Never(why) => Err(Failure::failed(format!("{} CA: {why}", self.authority))),
        }
    }

    fn draw(&mut self, line: &WatchLine, verdict: Verdict) {
        let terminal = &self.context.terminal;
        let look = terminal.look_at(line.time);
        let redraws = terminal.redraws();
        let erase = match (redraws, self.drawn) {
            (true, lines) if lines > 0 => format!("\x1b[{lines}A\x1b[J"),
            _ => String::new(),
        };
        let end = match verdict {
            Verdict::Done => Some(watch::done(line, self.since, &look)),
            Verdict::Passed => Some(watch::passed(line, &self.target.words(), &look)),
            Verdict::Waiting | Verdict::Never(_) => None,
        };
        if let Some(end) = end {
            terminal.progress(&format!("{erase}{end}"));
            self.drawn = 0;
            return;
        }
        if line.held && !std::mem::replace(&mut self.held_said, line.held) {
            let title = self.authority.row().title;
            terminal.progress(&format!(
                "{erase}{} {title} is held: the due step waits for the nodes below.",
                look.attention()
            ));
            self.drawn = 0;
        }
        self.held_said = line.held;
        if redraws {
            // stderr's own width: stdout may be a pipe.
            let look = Look {
                width: terminal.columns(),
                ..look
            };
            let block = watch::block(line, self.since, &look);
            let erase = if self.drawn > 0 { erase } else { String::new() };
            self.drawn = block.lines().count();
            terminal.progress(&format!("{erase}{block}"));
            return;
        }
        // Compared without the time of day, which changes always.
        let row = watch::row(line);
        let news = row.split_once(' ').map(|(_, rest)| rest.to_owned());
        if news != self.shown {
            terminal.progress(&row);
            (self.shown, self.spoken) = (news, Instant::now());
        } else if self.spoken.elapsed() >= STALL {
            terminal.progress(&watch::stalled(line));
            self.spoken = Instant::now();
        }
    }

    fn remember(&self, line: Option<WatchLine>) {
        let target = self.target.words();
        let authority = self.authority.to_string();
        *self.context.watched() = Some(Watched {
            authority,
            target,
            line,
        });
    }

    fn not_yet(&self, limit: Duration) -> Failure {
        let waited = format!(" after {}", go_duration(milliseconds(limit)));
        let watched = self.context.watched();
        let (line, target) = watched
            .as_ref()
            .map_or((None, "the phase"), |w| (w.line.as_ref(), w.target.as_str()));
        let page = watch::not_yet(line, target, &waited, self.authority.name());
        Failure {
            exit: Exit::NotYet,
            page: format!("not yet: {page}"),
            problem: None,
            passes: false,
        }
    }
}

/// The order in which a rotation meets its phases; rollback stands beside it.
fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Init => 1,
        Phase::UpdateClients => 2,
        Phase::UpdateServers => 3,
        Phase::Rollback => 4,
        Phase::Standby => 5,
    }
}

/// What a line means for whoever waits for this.
pub(crate) fn verdict(target: Target, line: &WatchLine) -> Verdict {
    let wanted = match target {
        Target::Phase(phase) => phase,
        Target::End => Phase::Standby,
        Target::Current => return Verdict::Waiting,
    };
    let rolled_back = line.outcome == Some(RotationOutcome::RolledBack);
    match (wanted, line.phase) {
        (Phase::Standby, Phase::Standby) if target == Target::End && rolled_back && line.done => {
            Verdict::Never("the rotation was rolled back")
        }
        (wanted, phase) if wanted == phase => {
            if line.done {
                Verdict::Done
            } else {
                Verdict::Waiting
            }
        }
        // The end may lie behind a rollback; that is said when it is reached.
        (Phase::Standby, _) => Verdict::Waiting,
        (Phase::Rollback, Phase::Standby) if rolled_back => Verdict::Passed,
        (Phase::Rollback, _) => Verdict::Waiting,
        (_, Phase::Rollback) => Verdict::Never("the rotation is being rolled back"),
        (_, Phase::Standby) if rolled_back => Verdict::Never("the rotation was rolled back"),
        // `standby` also stands before `init`: without a completed rotation there is nothing behind it.
        (_, Phase::Standby) if line.outcome.is_none() => Verdict::Waiting,
        // It has gone on, so the gate behind the wanted phase was open, or was forced. Of the phase that it is in now
        // that says nothing.
        (wanted, phase) if rank(phase) > rank(wanted) => Verdict::Passed,
        _ => Verdict::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use domain::Position;

    use super::*;

    fn line(phase: Phase, done: bool, outcome: Option<RotationOutcome>) -> WatchLine {
        WatchLine {
            time: Timestamp(0),
            authority_type: AuthorityType::Host,
            phase,
            reached: 1,
            required: 1,
            excluded: 0,
            lagging: Vec::new(),
            done,
            mode: None,
            held: false,
            next_refused: None,
            outcome,
            position: Position(1),
        }
    }

    #[test]
    fn a_wait_for_a_phase_ends_when_everybody_is_there_or_the_rotation_has_gone_on() {
        let target = Target::Phase(Phase::UpdateClients);
        assert_eq!(
            verdict(target, &line(Phase::UpdateClients, false, None)),
            Verdict::Waiting
        );
        assert_eq!(
            verdict(target, &line(Phase::UpdateClients, true, None)),
            Verdict::Done
        );
        assert_eq!(verdict(target, &line(Phase::Init, true, None)), Verdict::Waiting);
        assert_eq!(
            verdict(target, &line(Phase::UpdateServers, false, None)),
            Verdict::Passed
        );
        assert_eq!(
            verdict(target, &line(Phase::Standby, false, None)),
            Verdict::Waiting
        );
    }

    #[test]
    fn what_will_not_come_is_not_waited_for() {
        let target = Target::Phase(Phase::UpdateServers);
        assert!(matches!(
            verdict(target, &line(Phase::Rollback, true, None)),
            Verdict::Never(_)
        ));
        let back = Some(RotationOutcome::RolledBack);
        assert!(matches!(
            verdict(Target::End, &line(Phase::Standby, true, back)),
            Verdict::Never(_)
        ));
        assert_eq!(
            verdict(Target::Phase(Phase::Standby), &line(Phase::Standby, true, back)),
            Verdict::Done
        );
        assert_eq!(
            verdict(Target::Phase(Phase::Rollback), &line(Phase::Standby, false, back)),
            Verdict::Passed
        );
    }

    #[test]
    fn a_semi_automatic_rotation_is_waited_for_until_everybody_dropped_the_old_authority() {
        let completed = Some(RotationOutcome::Completed);
        assert_eq!(
            verdict(Target::End, &line(Phase::UpdateServers, true, None)),
            Verdict::Waiting
        );
        assert_eq!(
            verdict(Target::End, &line(Phase::Standby, false, completed)),
            Verdict::Waiting
        );
        assert_eq!(
            verdict(Target::End, &line(Phase::Standby, true, completed)),
            Verdict::Done
        );
    }
}
