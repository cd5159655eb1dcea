//! `auth rotate --plan`: what each next step does, and which connections break if it were forced now.

use api::plan::Plan;
use domain::Phase;

use crate::text::{Look, Table, clock, count, wrap};

/// The screen.
pub fn render(plan: &Plan, look: &Look) -> String {
    format!("{}\n{}", body(plan, look), next(plan))
}

/// The same without the next command.
pub(crate) fn body(plan: &Plan, look: &Look) -> String {
    let title = plan.authority_type.row().title;
    let mut out = format!(
        "{title} of {} at position {} ({} UTC). Nothing was changed.\n\n",
        plan.cluster,
        plan.position,
        clock(plan.time)
    );
    out.push_str(&format!("Now     {}\n", now(plan)));
    if let Some(line) = gate(plan) {
        out.push_str(&format!("Gate    {line}\n"));
    }
    out.push('\n');
    out.push_str(&steps(plan, look));
    if !plan.who.is_empty() {
        out.push('\n');
        let width = plan.who.iter().map(|w| w.name.chars().count()).max().unwrap_or(0);
        for (at, who) in plan.who.iter().enumerate() {
            let head = if at == 0 { "Who     " } else { "        " };
            let indent = " ".repeat(width + 10);
            let text = wrap(&who.text, 90usize.saturating_sub(width + 10).max(30), &indent);
            out.push_str(&format!("{head}{:width$}  {text}\n", who.name));
        }
    }
    out.push_str(&by_hand(plan, 90, |_| true));
    out
}

/// What is left to people, phase by phase; nothing where nothing is. The commands of some phases are shown with it, each on a
/// line of its own, whole.
pub(crate) fn by_hand(plan: &Plan, width: usize, with_commands: impl Fn(Phase) -> bool) -> String {
    let mut out = String::new();
    let phases = plan.by_hand.iter().map(|item| item.phase.name().len());
    let Some(widest) = phases.max() else { return out };
    out.push_str("\nBy hand, outside the agents\n");
    let indent = " ".repeat(widest + 4);
    let mut before = None;
    for item in &plan.by_hand {
        let phase = if before == Some(item.phase) {
            ""
        } else {
            item.phase.name()
        };
        before = Some(item.phase);
        let text = wrap(&item.text, width - widest - 4, &indent);
        out.push_str(&format!("  {phase:widest$}  {text}\n"));
        if let Some(command) = item.command.as_ref().filter(|_| with_commands(item.phase)) {
            out.push_str(&format!("{indent}{command}\n"));
        }
    }
    out
}

/// The phase, since when, how, and between which generations.
pub(crate) fn now(plan: &Plan) -> String {
    let (active, prepared) = plan.generations;
    let mut text = match (plan.since.or(plan.started), plan.mode) {
        (Some(entered), mode) => {
            let mode = mode.map_or(String::new(), |m| match m {
                domain::command::Mode::Manual => ", manual".into(),
                domain::command::Mode::Automatic => ", automatic".into(),
            });
            let since = crate::text::span(plan.time.since_ms(entered));
            format!(
                "{} since {since}{mode}, generation {active} -> {prepared}",
                plan.phase
            )
        }
        (None, _) => format!("{}, generation {active}; the next one is {prepared}", plan.phase),
    };
    let now = plan.broken_now;
    if now.broken > 0 {
        let broken = format!("{} of {} connections are broken", now.broken, now.total);
        text.push_str(&format!("\n        {broken} already, whatever is done next"));
    }
    text
}

fn gate(plan: &Plan) -> Option<String> {
    let gate = plan.gate.as_ref()?;
    let state = if plan.refused_with.is_some() {
        "CLOSED"
    } else {
        "open"
    };
    let mut text = format!(
        "{state}  {}/{} nodes reached {}",
        gate.reached, gate.required, gate.from
    );
    let (registered, attested) = plan.consumers;
    if registered > 0 {
        text.push_str(&format!(
            ", {attested}/{} attested",
            count(registered, "external consumer")
        ));
    }
    Some(text)
}

fn steps(plan: &Plan, look: &Look) -> String {
    let mut table = Table::new(["Step", "does", "if forced now, breaks"]);
    for step in &plan.steps {
        let mut breaks = match (step.if_forced.broken, step.if_forced.total) {
            (_, 0) | (0, _) => "nothing".to_owned(),
            (broken, total) => format!("{broken} of {total} connections"),
        };
        if let Some(locked_out) = &step.locked_out {
            let holders = count(locked_out.holders.len() as u64, "holder");
            breaks.push_str(&format!(", and locks out {holders}"));
        }
        if !step.consumers.is_empty() {
            breaks.push_str(&format!(", and {} (consumer)", step.consumers.join(", ")));
        }
        table.row([step.phase.name().into(), step.does.as_str().into(), breaks.into()]);
    }
    table.render(look)
}

fn next(plan: &Plan) -> String {
    let name = plan.authority_type;
    if let Some(code) = plan.refused_with {
        let lagging = plan.gate.as_ref().map_or(0, |g| g.lagging.len());
        let probe = plan.gate.as_ref().and_then(|g| g.lagging.first());
        let command = probe.map_or_else(
            || format!("carousel explain {code}"),
            |l| format!("carousel probe {}", l.name),
        );
        let counted = if lagging > 0 {
            format!(" ({lagging})")
        } else {
            String::new()
        };
        return format!("The next step would be refused: {code}{counted}.\nNext: {command}\n");
    }
    match plan.steps.first() {
        Some(step) => format!(
            "Next: carousel auth rotate --manual --type={name} --phase={}\n",
            step.phase
        ),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use api::{
        plan::{PlanByHand, PlanStep, PlanSubject},
        problem::Connections,
    };
    use domain::{AuthorityType, Code, Position};

    use super::*;
    use crate::screen::samples::{self, at, look};

    fn plan() -> Plan {
        let step = |phase, does: &str, broken| PlanStep {
            phase,
            does: does.into(),
            if_forced: Connections { broken, total: 132 },
            cut_off: Vec::new(),
            locked_out: None,
            consumers: Vec::new(),
        };
        Plan {
            cluster: "acme.cluster".into(),
            authority_type: AuthorityType::Host,
            position: Position(1042),
            time: at("03:55:40"),
            phase: Phase::Init,
            mode: Some(domain::command::Mode::Manual),
            started: Some(at("01:14:36")),
            since: Some(at("01:44:36")),
            broken_now: Connections::default(),
            generations: (3, 4),
            gate: Some(samples::gate()),
            consumers: (1, 1),
            steps: vec![
                step(Phase::UpdateClients, "12 new client certificates", 11),
                step(Phase::Standby, "old CA dropped", 0),
            ],
            who: vec![PlanSubject {
                name: "db-07".into(),
                text: "does not trust the new CA".into(),
            }],
            by_hand: vec![
                PlanByHand {
                    phase: Phase::Standby,
                    text: "clients without an agent: take the old CA out".into(),
                    command: Some("carousel auth export --type=host".into()),
                },
                PlanByHand {
                    phase: Phase::Standby,
                    text: "CA pin changes".into(),
                    command: None,
                },
            ],
            refused_with: Some(Code::NodesLagging),
        }
    }

    #[test]
    fn a_plan_says_what_each_step_does_breaks_and_why_the_next_would_be_refused() {
        let plan = plan();
        let expected = "\
Host CA of acme.cluster at position 1042 (03:55:40 UTC). Nothing was changed.

Now     init since 2 h 11 min, manual, generation 3 -> 4
Gate    CLOSED  10/12 nodes reached init, 1/1 external consumer attested

Step            does                        if forced now, breaks
update_clients  12 new client certificates  11 of 132 connections
standby         old CA dropped              nothing

Who     db-07  does not trust the new CA

By hand, outside the agents
  standby  clients without an agent: take the old CA out
           carousel auth export --type=host
           CA pin changes

The next step would be refused: nodes_lagging (2).
Next: carousel probe db-07
";
        assert_eq!(render(&plan, &look()), expected);
    }

    #[test]
    fn what_is_broken_already_and_who_is_locked_out_stand_in_the_plan() {
        let mut plan = plan();
        plan.broken_now = Connections {
            broken: 4,
            total: 132,
        };
        plan.steps[1].locked_out = Some(api::problem::TimeConditionDoc {
            until: at("04:00:00"),
            holders: vec!["user/alice".into()],
        });
        let text = render(&plan, &look());
        assert!(
            text.contains("        4 of 132 connections are broken already, whatever is done next\n"),
            "{text}"
        );
        assert!(text.contains("nothing, and locks out 1 holder\n"), "{text}");
    }
}
