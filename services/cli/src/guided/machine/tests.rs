use api::command::CommandAnswer;

use super::*;
use crate::{
    guided::samples::{at_steps, line, plan, rotation, status, types},
    screen::samples::at,
};

const NOW: Timestamp = Timestamp(1_000);

fn accepted(phase: Phase, mode: Mode, position: u64) -> CommandAnswer {
    CommandAnswer {
        position: Position(position),
        answer: Answer::Phase {
            authority_type: AuthorityType::Host,
            rotation: Some(rotation()),
            phase,
            mode: Some(mode),
            noop: false,
            became_manual: false,
            cut_off: vec![],
        },
        warning: None,
        locked_out: None,
    }
}

fn step(phase: Phase) -> Step {
    Step {
        phase,
        automatic: false,
    }
}

/// Up to the confirmation of a step from this phase, with its reason.
fn at_confirm(from: Phase, to: Phase, reason: &str) -> Guided {
    let mut guided = at_steps(from);
    let effect = guided.key(Key::Enter, NOW);
    assert_eq!(effect, Effect::Plan(AuthorityType::Host, step(to)));
    guided.planned(step(to), status(from), plan(from, &[to]));
    assert_eq!(types(&mut guided, reason), Effect::Nothing);
    assert!(
        matches!(guided.screen, Screen::Confirm(..)),
        "{:?}",
        guided.screen
    );
    guided
}

#[test]
fn what_is_sent_is_what_was_shown_and_confirmed() {
    let mut guided = at_confirm(Phase::Init, Phase::UpdateClients, " CHG-4411 ");
    let effect = types(&mut guided, "update_clients");
    let order = Order {
        authority: AuthorityType::Host,
        step: step(Phase::UpdateClients),
        reason: Some("CHG-4411".into()),
        expects: Expectation {
            rotation: Some(rotation()),
            phase: Phase::Init,
        },
    };
    assert_eq!(effect, Effect::Send(order));
    assert!(!guided.accepted, "nobody has answered yet");
}

#[test]
fn nothing_is_sent_without_the_word() {
    for word in ["", "y", "yes", "update_client", "UPDATE_CLIENTS", "init"] {
        let mut guided = at_confirm(Phase::Init, Phase::UpdateClients, "");
        let effect = types(&mut guided, word);
        assert_eq!(effect, Effect::Look(AuthorityType::Host), "{word:?}");
        assert!(
            guided
                .notes
                .contains(&Note::Text("Not confirmed: nothing was sent.\n".into()))
        );
    }
}

#[test]
fn every_screen_is_left_by_every_key_that_means_it_and_nothing_is_sent() {
    let screens: [fn() -> Guided; 6] = [
        || Guided::new(status(Phase::Init), None),
        || at_steps(Phase::Init),
        || {
            let mut guided = at_steps(Phase::Init);
            guided.key(Key::Enter, NOW);
            guided
        },
        || {
            let mut guided = at_steps(Phase::Init);
            guided.key(Key::Enter, NOW);
            let to = step(Phase::UpdateClients);
            guided.planned(to, status(Phase::Init), plan(Phase::Init, &[to.phase]));
            guided
        },
        || at_confirm(Phase::Init, Phase::UpdateClients, "a reason"),
        || {
            let mut guided = at_confirm(Phase::Init, Phase::UpdateClients, "");
            types(&mut guided, "update_clients");
            guided
        },
    ];
    for (n, screen) in screens.iter().enumerate() {
        assert_eq!(
            screen().key(Key::Interrupt, NOW),
            Effect::Leave(Exit::Interrupted),
            "{n}"
        );
        for key in [Key::Escape, Key::End] {
            assert_eq!(screen().key(key, NOW), Effect::Leave(Exit::Done), "{n} {key:?}");
        }
        // Where a line is typed, q is a letter until it is the whole line.
        let mut guided = screen();
        let effect = match guided.key(Key::Char('q'), NOW) {
            Effect::Nothing => guided.key(Key::Enter, NOW),
            effect => effect,
        };
        assert_eq!(effect, Effect::Leave(Exit::Done), "{n} q");
    }
}

#[test]
fn the_steps_are_those_of_the_transition_table_the_way_back_last() {
    let words = |phase| -> Vec<&str> { Guided::steps(phase).into_iter().map(Step::word).collect() };
    assert_eq!(words(Phase::Standby), ["init", "automatic"]);
    assert_eq!(words(Phase::Init), ["update_clients", "rollback"]);
    assert_eq!(words(Phase::UpdateClients), ["update_servers", "rollback"]);
    assert_eq!(words(Phase::UpdateServers), ["standby", "rollback"]);
    assert_eq!(words(Phase::Rollback), ["standby"]);
}

#[test]
fn numbers_and_arrows_choose() {
    let mut pick = Pick::new(0, 12);
    let mut after = |keys: &[Key]| {
        keys.iter().for_each(|key| pick.key(*key));
        pick.at + 1
    };
    assert_eq!(after(&[Key::Char('1'), Key::Char('2')]), 12);
    assert_eq!(
        after(&[Key::Char('3')]),
        3,
        "123 is no number of the list, so 3 begins a new one"
    );
    assert_eq!(after(&[Key::Up, Key::Up, Key::Up]), 1);
    assert_eq!(
        after(&[Key::Down, Key::Char('1')]),
        1,
        "the arrow ended the number"
    );
    assert_eq!(after(&[Key::Char('0'), Key::Char('x')]), 10);
    assert_eq!(after(&[Key::Down; 20]), 12);
}

#[test]
fn the_wait_ends_when_a_line_of_after_the_answer_says_so() {
    let mut guided = at_confirm(Phase::Init, Phase::UpdateClients, "");
    types(&mut guided, "update_clients");
    guided.watched(line(Phase::Init, true, 50));
    let answer = accepted(Phase::UpdateClients, Mode::Manual, 60);
    assert_eq!(
        guided.answered(&answer, "Updated.\n", at("02:00:00")),
        Effect::Nothing
    );
    assert!(guided.accepted);
    assert_eq!(guided.line, None, "what was so before the answer is not shown");
    assert_eq!(
        guided.watched(line(Phase::UpdateClients, true, 59)),
        Effect::Nothing,
        "older"
    );
    assert_eq!(
        guided.watched(line(Phase::UpdateClients, false, 60)),
        Effect::Nothing
    );
    let done = line(Phase::UpdateClients, true, 61);
    assert_eq!(guided.watched(done.clone()), Effect::Look(AuthorityType::Host));
    assert_eq!(
        guided.notes.last(),
        Some(&Note::Reached(Box::new(done), at("02:00:00")))
    );
}

#[test]
fn a_rotation_that_was_completed_before_does_not_end_the_wait_for_the_next() {
    let mut guided = at_confirm(Phase::Standby, Phase::Init, "");
    let mut idle = line(Phase::Standby, true, 50);
    idle.outcome = Some(domain::event::RotationOutcome::Completed);
    guided.watched(idle);
    types(&mut guided, "init");
    let answer = accepted(Phase::Init, Mode::Manual, 60);
    assert_eq!(guided.answered(&answer, "", NOW), Effect::Nothing);
}

#[test]
fn the_end_of_the_rotation_ends_the_guide() {
    let mut guided = at_confirm(Phase::UpdateServers, Phase::Standby, "");
    types(&mut guided, "standby");
    let _ = guided.answered(&accepted(Phase::Standby, Mode::Manual, 60), "", NOW);
    assert_eq!(guided.watched(line(Phase::Standby, false, 61)), Effect::Nothing);
    assert_eq!(
        guided.watched(line(Phase::Standby, true, 62)),
        Effect::Leave(Exit::Done)
    );
}

#[test]
fn a_refusal_is_shown_and_the_loop_goes_on_but_whoever_leaves_then_was_refused() {
    let mut guided = at_confirm(Phase::Init, Phase::UpdateClients, "CHG-4411");
    types(&mut guided, "update_clients");
    assert_eq!(
        guided.refused("refused: nodes_lagging\n"),
        Effect::Look(AuthorityType::Host)
    );
    assert_eq!(guided.notes, [Note::Text("refused: nodes_lagging\n".into())]);
    guided.looked(status(Phase::Init), plan(Phase::Init, &[Phase::UpdateClients]));
    assert!(matches!(guided.screen, Screen::Steps(_)));
    assert_eq!(guided.key(Key::Char('q'), NOW), Effect::Leave(Exit::Refused));
    // What was written as the reason is offered again.
    guided.key(Key::Enter, NOW);
    let to = step(Phase::UpdateClients);
    guided.planned(to, status(Phase::Init), plan(Phase::Init, &[to.phase]));
    assert!(matches!(&guided.screen, Screen::Reason(_, reason) if reason == "CHG-4411"));
}

#[test]
fn whoever_stops_watching_is_told_that_it_is_not_yet() {
    let mut guided = at_steps(Phase::Init);
    assert_eq!(guided.key(Key::Char('w'), NOW), Effect::Nothing);
    assert!(matches!(
        guided.screen,
        Screen::Waiting {
            target: Target::Phase(Phase::Init),
            ..
        }
    ));
    assert_eq!(guided.key(Key::Char('q'), NOW), Effect::Leave(Exit::NotYet));
    assert_eq!(guided.key(Key::Char('s'), NOW), Effect::Look(AuthorityType::Host));
}

#[test]
fn a_step_of_somebody_else_is_shown_and_not_stepped_over() {
    let mut guided = at_steps(Phase::Init);
    let look = Effect::Look(AuthorityType::Host);
    assert_eq!(guided.watched(line(Phase::UpdateClients, false, 60)), look);
    assert_eq!(
        guided.watched(line(Phase::UpdateClients, false, 61)),
        Effect::Nothing,
        "it is asked already"
    );
    let serial = guided.serial;
    guided.looked(
        status(Phase::UpdateClients),
        plan(Phase::UpdateClients, &[Phase::UpdateServers]),
    );
    assert!(guided.serial > serial, "a new screen");
    // Between the choice and its plan somebody stepped: the step that was meant is not legal any more.
    let mut guided = at_steps(Phase::Init);
    guided.key(Key::Enter, NOW);
    let moved = plan(Phase::UpdateClients, &[Phase::UpdateServers]);
    let effect = guided.planned(step(Phase::UpdateClients), status(Phase::UpdateClients), moved);
    assert_eq!(effect, look);
}

#[test]
fn a_rotation_that_goes_by_itself_is_waited_for_until_its_end() {
    let mut guided = at_steps(Phase::Standby);
    guided.key(Key::Char('2'), NOW);
    let automatic = Step {
        phase: Phase::Init,
        automatic: true,
    };
    assert_eq!(
        guided.key(Key::Enter, NOW),
        Effect::Plan(AuthorityType::Host, automatic)
    );
    guided.planned(
        automatic,
        status(Phase::Standby),
        plan(Phase::Standby, &[Phase::Init]),
    );
    types(&mut guided, "");
    assert!(matches!(types(&mut guided, "automatic"), Effect::Send(_)));
    let _ = guided.answered(&accepted(Phase::Init, Mode::Automatic, 60), "", NOW);
    assert_eq!(guided.watched(line(Phase::Init, true, 61)), Effect::Nothing);
    assert!(matches!(
        guided.screen,
        Screen::Waiting {
            target: Target::End,
            ..
        }
    ));
}
