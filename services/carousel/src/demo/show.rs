//! What the demo shows while it runs: a live screen where a person watches, lines otherwise.

use std::{
    collections::BTreeMap,
    io::{Stderr, stderr},
    time::{Duration, Instant},
};

use cli::args::DemoArgs;
use domain::{AuthorityType, Fact, Phase, state::ClusterState};
use ratatui::{
    Terminal, TerminalOptions, Viewport, backend::CrosstermBackend, text::Text, widgets::Paragraph,
};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{
    DemoError,
    fleet::Fleet,
    screen::{self, PhaseRow, Picture, Progress, grouped},
    traffic::{Counts, Tally, Traffic},
};

/// Redraws per second, at most.
const FRAME: Duration = Duration::from_millis(100);
/// Without a terminal: a line at least this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The demo's face.
pub(crate) struct Show {
    nodes: u32,
    began: Instant,
    terminal: Option<Terminal<CrosstermBackend<Stderr>>>,
    stop: CancellationToken,
    unicode: bool,
    watched: bool,
    title: String,
    plan: Vec<Phase>,
    current: Option<(Phase, Instant)>,
    took: BTreeMap<Phase, Duration>,
    events: Option<broadcast::Receiver<std::sync::Arc<domain::Event>>>,
    last_event: String,
    last_line: Option<Instant>,
    said_done: bool,
}

impl Show {
    pub(crate) fn new(args: &DemoArgs, stop: CancellationToken) -> Self {
        Self {
            nodes: args.nodes,
            began: Instant::now(),
            terminal: None,
            stop,
            unicode: super::is_unicode(),
            watched: super::is_watched() && !args.json,
            title: String::new(),
            plan: vec![],
            current: None,
            took: BTreeMap::new(),
            events: None,
            last_event: String::new(),
            last_line: None,
            said_done: false,
        }
    }

    /// A line for people, before the live screen.
    pub(crate) fn say(&self, text: &str) {
        anstream::eprintln!("{text}");
    }

    /// How far the fleet has joined.
    pub(crate) fn joining(&self, done: usize, of: usize) {
        if self.watched {
            anstream::eprint!("\r  starting: {done}/{of} nodes have joined ");
            if done == of {
                anstream::eprint!("\r\x1b[2K");
            }
        } else if done == of {
            anstream::eprintln!("{} {of} nodes have joined", clock());
        }
    }

    /// A rotation begins.
    pub(crate) fn begin(&mut self, t: AuthorityType, plan: &[Phase]) {
        let title = t.row().title.replace("Host", "host").replace("User", "user");
        self.title = format!(
            "Carousel demo   {} nodes, {title}, real TLS 1.3 on loopback",
            self.nodes
        );
        self.plan = plan.to_vec();
        self.took.clear();
        self.current = None;
    }

    /// A phase was entered.
    pub(crate) fn enter(&mut self, phase: Phase) {
        self.current = Some((phase, Instant::now()));
        self.last_line = Some(Instant::now());
        self.said_done = false;
    }

    /// It was reached; the first time counts.
    pub(crate) fn reached(&mut self, phase: Phase, took: Duration) {
        self.took.entry(phase).or_insert(took);
    }

    /// How long it took.
    pub(crate) fn took(&self, phase: Phase) -> Duration {
        self.took.get(&phase).copied().unwrap_or_default()
    }

    /// Draws the picture, or a line when it is time for one.
    pub(crate) fn draw(
        &mut self,
        fleet: &Fleet,
        traffic: &Traffic,
        t: AuthorityType,
    ) -> Result<(), DemoError> {
        self.listen(fleet);
        let picture = self.picture(fleet, traffic, t);
        if !self.watched {
            self.line(&picture);
            return Ok(());
        }
        if self.terminal.is_none() {
            let options = TerminalOptions {
                viewport: Viewport::Inline(screen::HEIGHT),
            };
            let terminal = Terminal::with_options(CrosstermBackend::new(stderr()), options);
            self.terminal = Some(terminal.map_err(DemoError::Terminal)?);
        }
        if let Some(terminal) = &mut self.terminal {
            let text = Text::from(screen::live(&picture));
            terminal
                .draw(|frame| frame.render_widget(Paragraph::new(text), frame.area()))
                .map_err(DemoError::Terminal)?;
        }
        Ok(())
    }

    /// The pause between two pictures.
    ///
    /// # Errors
    /// [`DemoError::Interrupted`].
    pub(crate) async fn pause(&self) -> Result<(), DemoError> {
        tokio::select! {
            () = tokio::time::sleep(FRAME) => Ok(()),
            () = self.stop.cancelled() => Err(DemoError::Interrupted),
        }
    }

    /// Leaves the last picture in the scroll-back.
    pub(crate) fn end(&mut self) -> Result<(), DemoError> {
        if let Some(mut terminal) = self.terminal.take() {
            // The cursor goes below the picture, so that what is printed next does not run through it.
            let below = terminal.get_frame().area().bottom().saturating_sub(1);
            let end = |terminal: &mut Terminal<CrosstermBackend<Stderr>>| {
                terminal.set_cursor_position((0, below))?;
                terminal.show_cursor()
            };
            end(&mut terminal).map_err(DemoError::Terminal)?;
            drop(terminal);
            anstream::eprintln!("\n");
        }
        Ok(())
    }

    fn picture(&self, fleet: &Fleet, traffic: &Traffic, t: AuthorityType) -> Picture {
        let nodes = fleet.progress(t);
        let reached = u32::try_from(nodes.iter().filter(|(_, ok)| *ok).count()).unwrap_or(u32::MAX);
        let required = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        let row = |phase: &Phase| {
            let is_current = self.current.is_some_and(|(current, _)| current == *phase);
            let took = self.took.get(phase).copied();
            let progress = match (took, is_current) {
                (Some(_), _) => Progress::Done,
                (None, true) => Progress::Current,
                (None, false) => Progress::ToCome,
            };
            let running = self
                .current
                .filter(|_| is_current)
                .map(|(_, since)| since.elapsed());
            PhaseRow {
                name: phase.name(),
                progress,
                reached: if took.is_some() { required } else { reached },
                required,
                took: took.or(running),
                now_true: phase.now_true(),
            }
        };
        Picture {
            title: self.title.clone(),
            elapsed: self.began.elapsed(),
            phases: self.plan.iter().map(row).collect(),
            counts: traffic.counts(),
            events: fleet.plane.core().fold.position().0,
            last_event: self.last_event.clone(),
            nodes,
            unicode: self.unicode,
        }
    }

    /// One line per change of phase, and one per ten seconds.
    fn line(&mut self, picture: &Picture) {
        let Some((phase, _)) = self.current else { return };
        let done = self.took.contains_key(&phase);
        let since_last = self.last_line.map_or(Duration::ZERO, |last| last.elapsed());
        // A line when the phase is reached, and before that one every ten seconds.
        if done == self.said_done && (done || since_last < LINE_EVERY) {
            return;
        }
        self.said_done = done;
        self.last_line = Some(Instant::now());
        let row = picture.phases.iter().find(|row| row.name == phase.name());
        let (reached, required) = row.map_or((0, 0), |row| (row.reached, row.required));
        let took = row.and_then(|row| row.took).unwrap_or_default().as_secs_f64();
        anstream::eprintln!(
            "{} {:<15} {reached}/{required} nodes  {took:.1} s   {}",
            clock(),
            phase.name(),
            tallies(&picture.counts),
        );
    }

    fn listen(&mut self, fleet: &Fleet) {
        let fold = &fleet.plane.core().fold;
        let events = self.events.get_or_insert_with(|| fold.events());
        let mut last = None;
        loop {
            match events.try_recv() {
                Ok(event) => last = Some(event),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
        if let Some(event) = last {
            self.last_event = fold.read(|state| describe(state, &event.fact));
        }
    }
}

/// `handshakes 6,120 ok, 0 failed`, and the credentials where there are any.
fn tallies(counts: &Counts) -> String {
    let text = |what: &str, tally: Tally| {
        let ok = grouped(tally.total - tally.failed);
        format!("{what} {ok} ok, {} failed", grouped(tally.failed))
    };
    let handshakes = text("handshakes", counts.handshakes);
    match counts.credentials.total {
        0 => handshakes,
        _ => format!("{handshakes}   {}", text("credentials", counts.credentials)),
    }
}

/// `node.reported n08 (server certificate: new CA)`.
fn describe(state: &ClusterState, fact: &Fact) -> String {
    let name = fact
        .type_name()
        .trim_start_matches("carousel.")
        .trim_end_matches(".v1");
    let host = |id: &domain::NodeId| {
        let full = state
            .nodes
            .get(id)
            .map(|n| n.hostname.to_string())
            .unwrap_or_default();
        full.split('.').next().unwrap_or_default().to_owned()
    };
    let of_holder = |holder: &domain::Principal| match holder {
        domain::Principal::Node(id) => host(id),
        other => other.to_string().split('/').next().unwrap_or_default().to_owned(),
    };
    let detail = match fact {
        Fact::NodeReported(f) => host(&f.node),
        Fact::NodeJoined(f) => host(&f.node),
        Fact::CertificateIssued(f) => of_holder(&f.holder),
        Fact::AuthorizationGranted(f) => of_holder(&f.holder),
        Fact::RotationPhaseEntered(f) => format!("{} -> {}", f.from, f.to),
        Fact::MemberStarted(_) | Fact::MemberReported(_) => "gateway".into(),
        _ => fact.holder(),
    };
    format!("{name} {detail}")
}

/// `06:11:02Z`.
fn clock() -> String {
    let now = crate::now_of(runtime::clock::SystemClock::shared())().to_string();
    format!("{}Z", now.get(11..19).unwrap_or_default())
}
