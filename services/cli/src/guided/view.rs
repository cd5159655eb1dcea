//! What each screen of the guided rotation looks like. Pure: a state and one clock reading in, a picture out.

use api::{
    plan::Plan,
    problem::GateDetails,
    shape::{AuthorityStatusDoc, WatchLine},
};
use domain::{
    AuthorityType, Code, Phase, Timestamp, command::Mode, decide::rotation::DEFAULT_GRACE_PERIOD_MS,
};

use super::{
    canvas::View,
    machine::{Guided, Note, Pick, Planned, Screen, Step},
};
use crate::{
    command::wait::Target,
    failure::Exit,
    screen::{plan, refusal::beside_nodes, status::idle_line, watch},
    text::{Look, span, wrap},
};

/// How wide sentences are: what is said once is not drawn again, so it may be wider than a narrow terminal.
const SENTENCE: usize = 78;

/// The picture. `moves` says whether lines can be drawn again in their place.
pub(super) fn view(guided: &Guided, look: &Look, moves: bool) -> View {
    let mut view = View {
        serial: guided.serial,
        fixed: said(&guided.notes, look),
        ..View::default()
    };
    match &guided.screen {
        Screen::Choose(pick) => choose(&mut view, guided, *pick, look, moves),
        Screen::Asking => {
            view.question = format!("Asking the control plane {} ", look.ellipsis());
            view.passing = true;
        }
        Screen::Steps(pick) => steps(&mut view, guided, *pick, look, moves),
        Screen::Reason(planned, typed) => reason(&mut view, planned, typed, look),
        Screen::Confirm(planned, _, typed) => confirm(&mut view, planned.step, typed),
        Screen::Sending(step) => {
            view.question = format!(
                "Sent: {}. Waiting for the answer {} ",
                step.word(),
                look.ellipsis()
            );
            view.passing = true;
        }
        Screen::Waiting { target, since, .. } => waiting(&mut view, guided, *target, *since, look, moves),
    }
    view
}

/// What was noted, a line under the other.
fn said(notes: &[Note], look: &Look) -> String {
    let said = |note: &Note| match note {
        Note::Text(text) if text.is_empty() || text.ends_with('\n') => text.clone(),
        Note::Text(text) => format!("{text}\n"),
        Note::Reached(line, since) => {
            // Which steps follow is shown below.
            let all = watch::done(line, *since, look);
            all.lines()
                .next()
                .map_or_else(String::new, |first| format!("{first}\n"))
        }
    };
    let text: String = notes.iter().map(said).collect();
    if text.is_empty() {
        text
    } else {
        format!("{text}\n")
    }
}

fn choose(view: &mut View, guided: &Guided, pick: Pick, look: &Look, moves: bool) {
    view.fixed.push_str(&format!(
        "Which authority of {} is to be rotated?\nNothing is sent before it was shown and confirmed.\n\n",
        guided.status.cluster.name
    ));
    let choices = guided.choices();
    let width = choices
        .iter()
        .map(|of| of.authority_type.name().len())
        .max()
        .unwrap_or(0);
    view.live = choices
        .iter()
        .enumerate()
        .map(|(at, of)| {
            let name = of.authority_type.name();
            let mark = mark(pick.at == at, look, moves);
            format!("{mark}{:>2}  {name:width$}  {}", at + 1, standing(of, look))
        })
        .collect();
    view.live.push(String::new());
    view.live
        .push("  Enter takes it; a number or the arrows choose; q ends.".into());
    view.question = format!("Authority 1-{}: {}", pick.of, pick.at + 1);
}

fn mark(is_marked: bool, look: &Look, moves: bool) -> &'static str {
    match (is_marked && moves, look.unicode) {
        (false, _) => "  ",
        (true, true) => "▸ ",
        (true, false) => "> ",
    }
}

/// How an authority stands, in one line.
fn standing(of: &AuthorityStatusDoc, look: &Look) -> String {
    let rotation = &of.rotation;
    if rotation.phase == Phase::Standby {
        return idle_line(rotation.last_rotated, rotation.last_rolled_back);
    }
    let since = rotation
        .started
        .map_or_else(String::new, |at| format!(", begun {} ago", look.ago(at)));
    let held = if rotation.held { ", held" } else { "" };
    format!(
        "{}, {}{since}, {}/{} nodes reached{held}",
        rotation.phase, rotation.mode, of.nodes.reached, of.nodes.required
    )
}

fn steps(view: &mut View, guided: &Guided, pick: Pick, look: &Look, moves: bool) {
    let Some(plan) = &guided.plan else { return };
    view.fixed.push_str(&about(plan));
    let is_idle = plan.phase == Phase::Standby;
    if let Some(line) = &guided.line {
        view.live = fleet(line, plan.since, look, moves);
    }
    view.live.extend(plan.gate.iter().flat_map(beside_nodes));
    view.live.push(String::new());
    let all = Guided::steps(plan.phase);
    let refused = guided
        .line
        .as_ref()
        .map_or(plan.refused_with, |line| line.next_refused);
    for (at, step) in all.iter().enumerate() {
        view.live.push(format!(
            "{}{:>2}  {:14}  {}",
            mark(pick.at == at, look, moves),
            at + 1,
            step.word(),
            meaning(plan.phase, *step, refused)
        ));
    }
    view.live.push(String::new());
    let wait = if is_idle { "" } else { "w waits; " };
    view.live.push(format!(
        "  Enter shows what the step would do; {wait}b: another authority; q ends."
    ));
    view.question = format!("Step 1-{}: {}", all.len(), pick.at + 1);
}

/// What is known of the authority, and what is left to people.
fn about(plan: &Plan) -> String {
    let row = plan.authority_type.row();
    let mut out = format!("{} of {}: {}\n\n", row.title, plan.cluster, plan::now(plan));
    let mut line = |label: &str, text: &str| {
        let text = wrap(text, SENTENCE - 9, "         ");
        out.push_str(&format!("{label:7}  {text}\n"));
    };
    line("Signs", row.signs);
    line("Trusted", &format!("by {}", row.verifiers));
    let (registered, attested) = plan.consumers;
    if registered > 0 {
        let text =
            format!("{attested}/{registered} external consumers have attested; each step waits for them");
        line("", &text);
    }
    if plan.mode == Some(Mode::Automatic) {
        let text = "the rotation makes its steps by itself; a step made here makes it manual";
        line("Mode", text);
    }
    // What is to be done now, in full; what comes, so that it is known of. All has to fit on a small terminal.
    let by_hand = plan::by_hand(plan, SENTENCE + 2, |phase| {
        phase == plan.phase && phase != Phase::Standby
    });
    match by_hand.as_str() {
        "" => line("By hand", "nothing"),
        _ => out.push_str(&by_hand),
    }
    out.push('\n');
    out
}

/// What a step means and whether it would be accepted now, in one line of a terminal.
fn meaning(from: Phase, step: Step, refused: Option<Code>) -> String {
    if step.automatic {
        let (grace, each) = (span(DEFAULT_GRACE_PERIOD_MS), span(DEFAULT_GRACE_PERIOD_MS / 3));
        return format!("init now, then a step by itself every {each} ({grace} in all)");
    }
    let what = match (from, step.phase) {
        (Phase::Rollback, Phase::Standby) => "new CA dropped, all is as before",
        (_, phase) => phase.now_true(),
    };
    let gate = match (from, step.phase, refused) {
        (Phase::Standby, ..) => "each step by hand".to_owned(),
        (_, Phase::Rollback, _) => "waits for nobody".into(),
        (_, _, None) => "gate open".into(),
        (_, _, Some(code)) => format!("gate closed: {code}"),
    };
    format!("{what}; {gate}")
}

/// Who is there and who lags, with how long that takes: a block that is drawn again, or one line.
fn fleet(line: &WatchLine, since: Option<Timestamp>, look: &Look, moves: bool) -> Vec<String> {
    if !moves {
        return vec![watch::row(line)];
    }
    let line = WatchLine {
        time: look.now,
        ..line.clone()
    };
    let block = watch::block(&line, since.unwrap_or(look.now), look);
    let mut lines: Vec<String> = block.lines().map(str::to_owned).collect();
    // While idle nothing takes its time.
    if let (None, Some(first)) = (since, lines.first_mut())
        && let Some((row, _)) = first.rsplit_once("   ")
    {
        *first = row.to_owned();
    }
    lines
}

fn reason(view: &mut View, planned: &Planned, typed: &str, look: &Look) {
    let Planned { step, plan, .. } = planned;
    view.fixed.push_str(&plan::body(plan, look));
    view.fixed.push('\n');
    view.fixed.push_str(&verdict(plan, *step, look));
    view.question = "Reason for the audit log (may be empty): ".into();
    view.typed = typed.into();
}

/// Would it be accepted, and if not, what then?
fn verdict(plan: &Plan, step: Step, look: &Look) -> String {
    let refused = plan.refused_with.filter(|_| step.phase != Phase::Rollback);
    let mut out = match (plan.phase, refused) {
        (Phase::Standby, None) => String::new(),
        (_, None) if step.phase == Phase::Rollback => "A rollback waits for nobody.\n".into(),
        (_, None) => format!("{} The gate is open.\n", look.done()),
        (_, Some(code)) => format!("{} The step would be refused now: {code}.\n", look.attention()),
    };
    if refused.is_some() {
        let planned = plan.steps.iter().find(|planned| planned.phase == step.phase);
        if let Some(breaks) = planned.map(|planned| planned.if_forced).filter(|c| c.broken > 0) {
            let (broken, total) = (breaks.broken, breaks.total);
            out.push_str(&format!(
                "Made all the same, it would break {broken} of {total} connections.\n"
            ));
        }
        out.extend(plan.gate.as_ref().and_then(force));
    }
    if plan.phase == Phase::UpdateServers && step.phase == Phase::Standby {
        out.push_str(&format!(
            "{} There is no way back after this step.\n",
            look.attention()
        ));
    }
    if step.automatic {
        out.push_str(&format!(
            "Grace period {}: a due step waits while nodes lag.\n\
             Others are given on the command line: --grace-period, --on-lagging.\n",
            span(DEFAULT_GRACE_PERIOD_MS)
        ));
    }
    out
}

/// The command that passes over a closed gate: it is not made by keys that are pressed out of habit.
pub(super) fn force(gate: &GateDetails) -> Option<String> {
    (gate.members.is_empty() && gate.keys_missing.is_empty()).then(|| {
        format!(
            "Forcing it is not done here: carousel auth rotate --manual --type={} --phase={} --force --reason \"...\"\n",
            gate.authority_type, gate.to
        )
    })
}

fn confirm(view: &mut View, step: Step, typed: &str) {
    view.question = format!("Type \"{}\" to send it (Enter alone goes back): ", step.word());
    view.typed = typed.into();
}

fn waiting(view: &mut View, guided: &Guided, target: Target, since: Timestamp, look: &Look, moves: bool) {
    view.fixed.push_str(&format!(
        "Waiting for {}. The rotation goes on without this screen.\n\n",
        target.words()
    ));
    if let Some(line) = &guided.line {
        view.live = fleet(line, Some(since), look, moves);
        if line.held {
            view.live.push(format!(
                "{} held: the due step waits for the nodes above",
                look.attention()
            ));
        }
    }
    view.question = "s shows the steps; q stops watching ".into();
    view.passing = true;
}

/// The end: where things stand, and how to go on.
pub(super) fn leaving(guided: &Guided, exit: Exit, look: &Look) -> String {
    let mut out = match guided.notes.last() {
        Some(Note::Reached(line, since)) if exit == Exit::Done => return watch::done(line, *since, look),
        _ => String::new(),
    };
    if matches!(guided.screen, Screen::Sending(_)) {
        out.push_str("Left before the answer: the command may have been accepted all the same.\n");
        out.push_str("Next: carousel status\n");
        return out;
    }
    out.push_str(if guided.accepted {
        "Left. Nothing that was accepted is undone.\n"
    } else {
        "Left. Nothing was changed.\n"
    });
    let Some(authority) = guided.authority else {
        out.push_str("Again: carousel auth rotate\n");
        return out;
    };
    if let Some(line) = &guided.line {
        out.push_str(&place(line));
        out.push_str(&next(authority, line));
    }
    out.push_str("Again: carousel auth rotate\n");
    out
}

fn place(line: &WatchLine) -> String {
    let title = line.authority_type.row().title;
    let mode = match line.mode {
        Some(Mode::Manual) => ", manual",
        Some(Mode::Automatic) => ", automatic",
        None => "",
    };
    let lagging = match (line.lagging.len(), line.lagging.first()) {
        (1, Some(first)) => format!(", waiting for {}", first.name),
        (n, Some(first)) => format!(", waiting for {} (+{})", first.name, n - 1),
        (_, None) => String::new(),
    };
    format!(
        "{title}: {}{mode}, {}/{} reached{lagging}.\n",
        line.phase, line.reached, line.required
    )
}

/// The command that goes on from here.
fn next(authority: AuthorityType, line: &WatchLine) -> String {
    match (line.phase.next(), line.mode) {
        (Some(_), Some(Mode::Automatic)) => format!("Next: carousel wait --type={authority}\n"),
        (Some(_), _) if !line.done => {
            format!("Next: carousel wait --type={authority} --phase={}\n", line.phase)
        }
        (Some(next), _) => {
            format!("Next: carousel auth rotate --manual --type={authority} --phase={next} --wait\n")
        }
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests;
