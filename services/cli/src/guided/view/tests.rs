use domain::Position;

use super::*;
use crate::{
    guided::{
        canvas::Canvas,
        keys::Key,
        samples::{at_steps, line, plan, status, types},
    },
    screen::samples::{self, at, look},
};

const NOW: Timestamp = Timestamp(1_000);

/// The whole screen as it stands on a terminal of 80 columns.
fn shown(guided: &Guided, look: &Look, moves: bool) -> String {
    Canvas::new(moves).draw(&view(guided, look, moves), (80, 24))
}

#[test]
fn the_authorities_stand_with_their_state_and_the_one_in_rotation_is_marked() {
    let guided = Guided::new(status(Phase::Init), None);
    let expected = "\
Which authority of acme.cluster is to be rotated?
Nothing is sent before it was shown and confirmed.

▸  1  host  init, manual, begun 15 min ago, 10/12 nodes reached
   2  user  rotated Sep 20 2026 01:42:54 UTC

  Enter takes it; a number or the arrows choose; q ends.
Authority 1-2: 1";
    assert_eq!(shown(&guided, &look(), true), expected);
}

#[test]
fn the_fleet_stands_above_the_steps_and_each_says_what_it_means_and_whether_it_may() {
    let mut guided = at_steps(Phase::Init);
    let _ = guided.watched(line(Phase::Init, false, 1043));
    let expected = "\
Host CA of acme.cluster: init since 2 min, manual, generation 1 -> 2

Signs    node and control-plane certificates, SSH host certificates
Trusted  by every node and every TLS client; holders of a CA pin

By hand, outside the agents
  standby  join lines with the old pin stop

host CA  init  █████████████░░░░░░░ 2/3 reached   02:00
  db-07  does not trust the new CA  online, seen 38 s ago, reload fails (4 times

▸  1  update_clients  clients present the new CA; gate closed: nodes_lagging
   2  rollback        everybody presents the old CA again; waits for nobody

  Enter shows what the step would do; w waits; b: another authority; q ends.
Step 1-2: 1";
    let narrow = Look {
        width: Some(80),
        ..look()
    };
    assert_eq!(shown(&guided, &narrow, true), expected);
}

#[test]
fn a_terminal_without_unicode_and_without_a_cursor_says_the_same_in_plain_lines() {
    let mut guided = at_steps(Phase::Init);
    let _ = guided.watched(line(Phase::Init, false, 1043));
    let plain = Look {
        unicode: false,
        ..look()
    };
    let text = shown(&guided, &plain, false);
    assert!(text.is_ascii(), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(
        text.contains("\n02:00:00Z host init 2/3 reached, waiting for db-07\n"),
        "{text}"
    );
    assert!(text.contains("\n   1  update_clients  clients present"), "{text}");
    assert!(
        shown(&guided, &plain, true).contains("\n>  1  update_clients"),
        "{text}"
    );
}

#[test]
fn a_rotation_begins_by_hand_or_by_itself_and_the_grace_period_is_said() {
    let text = shown(&at_steps(Phase::Standby), &look(), true);
    let steps = "
▸  1  init            every node trusts old and new CA; each step by hand
   2  automatic       init now, then a step by itself every 16 h (48 h in all)

  Enter shows what the step would do; b: another authority; q ends.
Step 1-2: 1";
    assert!(text.ends_with(steps), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let mut guided = at_steps(Phase::Standby);
    let _ = guided.watched(line(Phase::Standby, true, 1043));
    let text = shown(&guided, &look(), true);
    assert!(
        text.contains(" 3/3 reached\n"),
        "while idle no time is counted: {text}"
    );
}

#[test]
fn what_the_gate_waits_for_beside_nodes_stands_below_the_fleet() {
    let mut plan = plan(Phase::Init, &[Phase::UpdateClients]);
    let mut gate = samples::gate();
    gate.consumers = vec!["billing-etl".into()];
    (plan.gate, plan.consumers) = (Some(gate), (1, 0));
    let mut guided = at_steps(Phase::Init);
    guided.looked(status(Phase::Init), plan);
    let text = shown(&guided, &look(), true);
    assert!(
        text.contains("\n  billing-etl  external consumer, has not attested\n"),
        "{text}"
    );
    assert!(text.contains("0/1 external consumers have attested"), "{text}");
}

/// The plan of the first step from this phase is shown.
fn at_reason(from: Phase, to: Phase, change: impl FnOnce(&mut Plan)) -> Guided {
    let mut guided = at_steps(from);
    guided.key(Key::Enter, NOW);
    let mut plan = plan(from, &[to]);
    change(&mut plan);
    let step = Step {
        phase: to,
        automatic: false,
    };
    guided.planned(step, status(from), plan);
    guided
}

#[test]
fn the_plan_stands_before_the_reason_and_says_whether_the_gate_is_open() {
    let mut guided = at_reason(Phase::Init, Phase::UpdateClients, |_| {});
    let text = shown(&guided, &look(), true);
    assert!(
        text.starts_with("Host CA of acme.cluster at position 1042 (02:00:00 UTC). Nothing was changed.\n")
    );
    let end = "
Step            does                      if forced now, breaks
update_clients  what update_clients does  nothing

By hand, outside the agents
  standby  join lines with the old pin stop

✓ The gate is open.
Reason for the audit log (may be empty): ";
    assert!(text.ends_with(end), "{text}");
    types(&mut guided, "CHG-4411");
    let text = shown(&guided, &look(), true);
    assert_eq!(
        text,
        "Type \"update_clients\" to send it (Enter alone goes back): "
    );
}

#[test]
fn a_closed_gate_is_said_and_forcing_it_is_left_to_the_command_line() {
    let closed = |plan: &mut Plan| {
        (plan.gate, plan.refused_with) = (Some(samples::gate()), Some(Code::NodesLagging));
        plan.steps[0].if_forced.broken = 4;
    };
    let text = shown(
        &at_reason(Phase::Init, Phase::UpdateClients, closed),
        &look(),
        true,
    );
    let said = "\
! The step would be refused now: nodes_lagging.
Made all the same, it would break 4 of 6 connections.
Forcing it is not done here: carousel auth rotate --manual --type=host --phase=update_clients --force --reason \"...\"
Reason";
    assert!(text.contains(said), "{text}");
    let key_missing = |plan: &mut Plan| {
        closed(plan);
        plan.gate.as_mut().unwrap().keys_missing = vec!["tls".into()];
    };
    let text = shown(
        &at_reason(Phase::Init, Phase::UpdateClients, key_missing),
        &look(),
        true,
    );
    assert!(!text.contains("--force"), "{text}");
}

#[test]
fn the_step_without_a_way_back_says_so() {
    let text = shown(
        &at_reason(Phase::UpdateServers, Phase::Standby, |_| {}),
        &look(),
        true,
    );
    assert!(
        text.contains("\n! There is no way back after this step.\n"),
        "{text}"
    );
    let text = shown(&at_reason(Phase::Rollback, Phase::Standby, |_| {}), &look(), true);
    assert!(!text.contains("no way back"), "{text}");
}

#[test]
fn whoever_leaves_is_told_where_things_stand_and_how_to_go_on() {
    let mut guided = at_steps(Phase::Init);
    let _ = guided.watched(line(Phase::Init, false, 1043));
    let expected = "\
Left. Nothing was changed.
Host CA: init, manual, 2/3 reached, waiting for db-07.
Next: carousel wait --type=host --phase=init
Again: carousel auth rotate
";
    assert_eq!(leaving(&guided, Exit::Done, &look()), expected);
    let _ = guided.watched(line(Phase::Init, true, 1044));
    guided.accepted = true;
    let expected = "\
Left. Nothing that was accepted is undone.
Host CA: init, manual, 3/3 reached.
Next: carousel auth rotate --manual --type=host --phase=update_clients --wait
Again: carousel auth rotate
";
    assert_eq!(leaving(&guided, Exit::Interrupted, &look()), expected);
    let nobody = Guided::new(status(Phase::Init), None);
    let expected = "Left. Nothing was changed.\nAgain: carousel auth rotate\n";
    assert_eq!(leaving(&nobody, Exit::Done, &look()), expected);
}

#[test]
fn whoever_leaves_before_the_answer_is_told_that_it_may_have_been_accepted() {
    let mut guided = at_reason(Phase::Init, Phase::UpdateClients, |_| {});
    types(&mut guided, "");
    types(&mut guided, "update_clients");
    let text = leaving(&guided, Exit::Interrupted, &look());
    assert!(text.contains("may have been accepted"), "{text}");
    assert!(text.ends_with("Next: carousel status\n"), "{text}");
}

#[test]
fn what_was_reached_is_said_above_the_next_screen_and_at_the_end() {
    let mut guided = at_steps(Phase::Init);
    let since = at("01:59:30");
    guided
        .notes
        .push(Note::Reached(Box::new(line(Phase::Init, true, 9)), since));
    let text = shown(&guided, &look(), true);
    assert!(
        text.starts_with("✓ host CA: all 3 nodes reached init in 30 s.\n\nHost CA of"),
        "{text}"
    );
    let mut end = line(Phase::Standby, true, 9);
    end.position = Position(10);
    guided.notes.push(Note::Reached(Box::new(end), since));
    let text = leaving(&guided, Exit::Done, &look());
    assert_eq!(text, "✓ host CA: all 3 nodes reached standby in 30 s.\n");
}
