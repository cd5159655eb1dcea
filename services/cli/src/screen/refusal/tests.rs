use super::*;
use crate::screen::samples::{self, look};

fn lagging() -> Problem {
    let mut problem = Problem::new(Code::NodesLagging, "2 of 12 nodes have not reached init");
    problem.gate = Some(Box::new(samples::gate()));
    problem
}

fn asked(status: &Status) -> Asked<'_> {
    Asked {
        status: Some(status),
        authority: None,
    }
}

#[test]
fn a_closed_gate_says_what_who_that_nothing_is_broken_and_the_dangerous_way_last() {
    let text = page(&lagging(), asked(&samples::status()), &look());
    let expected = "\
refused: nodes_lagging: 2 of 12 nodes have not reached init

  db-07   does not trust the new CA  online, seen 38 s ago, reload fails (4 times)
  edge-3  does not trust the new CA  offline since 2026-09-20 01:45 UTC (15 min)

Nothing was changed. The host CA stays in init, old and new CA are both trusted,
nothing is broken, and there is no deadline (mode: manual).

If the host CA entered update_clients now, 20 of 132 connections would break.

  db-07   its reload failed 4 times:
          `systemctl reload postgresql` exited 1
          look   ssh db-07 journalctl -u carousel-agent -n 50
          test   carousel probe db-07
  edge-3  catches up by itself when it returns, while the old CA is trusted
          gone?  carousel nodes exclude edge-3 --reason \"...\"

Go back   carousel auth rotate --manual --type=host --phase=rollback
Override  add --force --reason \"...\"  (recorded; cuts off the 2 nodes above)
More      carousel explain nodes_lagging
";
    assert_eq!(text, expected);
}

#[test]
fn connections_that_are_broken_already_are_not_called_whole() {
    let with = |broken_now| {
        let mut problem = lagging();
        problem.gate.as_mut().unwrap().broken_now = broken_now;
        let text = page(&problem, Asked::default(), &look());
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let text = with(Some(Connections {
        broken: 4,
        total: 132,
    }));
    assert!(!text.contains("nothing is broken"), "{text}");
    assert!(
        text.contains("but 4 of 132 connections are broken already."),
        "{text}"
    );
    let text = with(None);
    assert!(!text.contains("broken"), "nobody counted: {text}");
}

#[test]
fn the_price_of_force_is_what_the_oracle_counted_and_names_whom_it_locks_out() {
    let of = |change: &dyn Fn(&mut GateDetails)| {
        let mut problem = lagging();
        change(problem.gate.as_mut().unwrap());
        let text = page(&problem, Asked::default(), &look());
        let (_, rest) = text.split_once("Override  ").unwrap_or_else(|| panic!("{text}"));
        let (price, _) = rest.split_once("More").unwrap();
        price.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let nothing = |gate: &mut GateDetails| {
        (gate.if_forced, gate.cut_off) = (Some(Connections::default()), Vec::new());
    };
    let text = of(&nothing);
    assert!(text.ends_with("(recorded; nothing would break)"), "{text}");
    let text = of(&|gate| gate.cut_off = vec!["edge-3".into(), "old-9".into()]);
    assert!(text.ends_with("(recorded; cuts off edge-3, old-9)"), "{text}");
    let text = of(&|gate| {
        nothing(gate);
        gate.lagging.clear();
        gate.time_condition = Some(TimeConditionDoc {
            until: samples::at("04:00:00"),
            holders: vec!["user/alice".into()],
        });
    });
    assert!(
        text.ends_with("(recorded; locks out user/alice until they get a new certificate)"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_forced_does_not_offer_force() {
    let mut problem = lagging();
    problem.gate.as_mut().unwrap().keys_missing = vec!["tls".into()];
    let text = page(&problem, Asked::default(), &look());
    assert!(!text.contains("--force"), "{text}");
}

#[test]
fn of_an_online_laggard_only_what_is_known_is_said() {
    let mut problem = lagging();
    let gate = problem.gate.as_mut().unwrap();
    (gate.lagging[0].failure, gate.lagging[0].missing) = (None, "stale_facts".into());
    let text = page(&problem, Asked::default(), &look());
    let expected =
        "  db-07   has not reported since the step (Sep 20 2026 01:44:36 UTC), online, seen 38 s ago\n";
    assert!(text.contains(expected), "{text}");
    problem.gate.as_mut().unwrap().lagging[0].missing = "trust".into();
    let text = page(&problem, Asked::default(), &look());
    assert!(
        text.contains("  db-07   has reported since the step, and still lacks it, online"),
        "{text}"
    );
}

#[test]
fn many_laggards_are_grouped_by_what_is_missing() {
    let mut problem = lagging();
    let gate = problem.gate.as_mut().unwrap();
    let one = gate.lagging[1].clone();
    gate.lagging = (0..30)
        .map(|n| Laggard {
            name: format!("n{n}"),
            ..one.clone()
        })
        .collect();
    let text = page(&problem, Asked::default(), &look());
    assert!(text.contains("      30  does not trust the new CA\n"), "{text}");
    assert!(
        text.contains("... 20 more\n") && text.contains("get nodes --lagging=host"),
        "{text}"
    );
}

/// The page of a step that is not legal, without its first line.
fn wrong_step(detail: &str) -> String {
    let asked = Asked {
        authority: Some(AuthorityType::Host),
        ..Asked::default()
    };
    let text = page(&Problem::new(Code::IllegalTransition, detail), asked, &look());
    let first = format!("refused: illegal_transition: {detail}\n");
    let rest = text.strip_prefix(&first);
    rest.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn a_wrong_step_names_the_one_that_is_legal_now() {
    let detail = "can only switch to phase update_servers from update_clients, current phase is init";
    let expected = "\
Nothing was changed.
Next: carousel auth rotate --manual --type=host --phase=update_clients
More: carousel explain illegal_transition
";
    assert_eq!(wrong_step(detail), expected);
    let text = wrong_step("can only switch to phase update_clients from init, current phase is standby");
    assert!(text.contains("--phase=init\n"), "{text}");
}

#[test]
fn whoever_asks_for_an_earlier_phase_is_shown_the_way_back_and_never_the_final_step() {
    let text =
        wrong_step("can only switch to phase update_clients from init, current phase is update_servers");
    assert!(
        text.contains("Go back: carousel auth rotate --manual --type=host --phase=rollback\n"),
        "{text}"
    );
    for detail in [
        "can only switch to phase update_clients from init, current phase is update_servers",
        "can only switch to phase update_servers from update_clients, current phase is rollback",
        "can not transition to phase rollback from phase standby",
        "can not transition to phase standby from phase init",
    ] {
        let text = wrong_step(detail);
        assert!(!text.contains("--phase=standby"), "{text}");
        assert!(text.contains("Next: ") || text.contains("Go back: "), "{text}");
    }
}

#[test]
fn a_rotation_in_the_way_says_where_it_stands_and_how_it_goes_on() {
    let problem = Problem::new(
        Code::RotationInProgress,
        "can not initiate rotation while another is in progress",
    );
    let mut status = samples::status();
    let text = |status: &Status| {
        let asked = Asked {
            status: Some(status),
            authority: Some(AuthorityType::Host),
        };
        page(&problem, asked, &look())
    };
    let waits = text(&status);
    assert!(
        waits.contains("The host CA is in init (mode: manual).\nNext: carousel wait --type=host\n"),
        "{waits}"
    );
    status.authorities[0].nodes.lagging = 0;
    let goes_on = text(&status);
    assert!(goes_on.contains("--phase=update_clients\n"), "{goes_on}");
    status.authorities[0].rotation.phase = Phase::UpdateServers;
    let ends = text(&status);
    assert!(ends.contains("--type=host --plan\n"), "{ends}");
}
