use std::collections::BTreeMap;

use api::audit::{DiffChange, VerifyCheck};
use domain::{
    AuthorityType, Code, EventId, Header, Order, Phase, Position, Principal, RotationId,
    command::{LaggingPolicy, Mode, Rotate},
    event::{CommandRefused, GateRecord, NodeReported, RotationPhaseEntered},
    fact::{FactReport, Failure, Seen},
    id::{BootId, SystemActor},
};
use uuid::Uuid;

use super::*;
use crate::screen::samples::{at, look, node_id, pin};

fn event(position: u64, clock: &str, actor: Principal, fact: impl Into<Fact>) -> Event {
    Event {
        header: Header {
            position: Position(position),
            id: EventId(Uuid::nil()),
            time: at(clock),
            actor,
            credential: None,
            command: None,
            reason: None,
            decided_at: None,
        },
        fact: fact.into(),
    }
}

fn alice() -> Principal {
    Principal::User("alice".parse().unwrap())
}

fn entered(forced: bool) -> RotationPhaseEntered {
    RotationPhaseEntered {
        authority_type: AuthorityType::Host,
        rotation: RotationId(Uuid::nil()),
        from: Phase::UpdateClients,
        to: Phase::UpdateServers,
        outcome: None,
        mode: Mode::Manual,
        grace_period_ms: 1,
        on_lagging: LaggingPolicy::Hold,
        gate: GateRecord {
            position: Position(1186),
            required: 12,
            reached: 11,
            excluded: 1,
            overridden: u32::from(forced),
        },
        forced,
        passed_over: Vec::new(),
        passed_over_digest: None,
    }
}

fn report(position: u64, clock: &str, failure: Option<Failure>) -> Event {
    let node = node_id(7);
    let report = FactReport {
        boot: BootId(Uuid::nil()),
        seq: position,
        version: "0.1.0".into(),
        addr: None,
        authorities: BTreeMap::new(),
        failure,
        unsynced: false,
        labels: BTreeMap::new(),
    };
    let seen = Seen {
        certificate: domain::CertDigest([0; 32]),
        issuer: pin(1),
        from: None,
    };
    event(
        position,
        clock,
        Principal::Node(node),
        NodeReported { node, report, seen },
    )
}

fn names() -> Names {
    Names::from([(node_id(7), "db-07".into())])
}

#[test]
fn the_log_reads_as_when_who_what_why() {
    let mut step = event(1187, "06:10:12.340", alice(), entered(false));
    step.header.reason = Some("CHG-4411 quarterly rotation".into());
    let refusal = CommandRefused {
        order: None,
        principal: alice(),
        command: "rotate".into(),
        target: None,
        code: Code::NodesLagging,
        text: "2 of 12".into(),
        count: 2,
    };
    let failure = Failure {
        step: "reload".into(),
        detail: "exit 1".into(),
        count: 4,
    };
    let events = [
        step,
        report(1188, "06:10:14", None),
        report(1189, "06:10:15", None),
        report(1190, "06:10:31", None),
        report(1220, "06:11:04.902", Some(failure)),
        event(1223, "06:12:40.118", alice(), refusal),
    ];
    let text = table(&rows(&events, &names(), false), &look());
    let expected = "\
POS    TIME (UTC)               WHO         WHAT                                     WHY
1187   2026-09-20 06:10:12.340  alice       host: update_clients -> update_servers   CHG-4411 quarterly rotation
1188…  2026-09-20 06:10:14-31   nodes       3 node reports                           -
1220   2026-09-20 06:11:04.902  node db-07  FAILED reload: exit 1 (4 times)          -
1223   2026-09-20 06:12:40.118  alice       REFUSED rotate: nodes_lagging (2 times)  -
";
    assert_eq!(text, expected);
    assert_eq!(rows(&events, &names(), true).len(), events.len());
}

#[test]
fn a_refused_step_says_which_step_and_in_full_why() {
    let step = Rotate {
        authority_type: AuthorityType::Host,
        target: Some(Phase::Standby),
        manual: true,
        grace_period_ms: None,
        on_lagging: None,
        force: false,
        expects: None,
    };
    let refusal = CommandRefused {
        principal: alice(),
        command: "rotate".into(),
        target: Some("host".into()),
        code: Code::NodesLagging,
        text: "2 of 12 nodes have not reached update_servers".into(),
        count: 1,
        order: Some(Box::new(Order::Rotate(step))),
    };
    let event = event(1223, "06:12:40.118", alice(), refusal);
    let row = table(&rows([&event], &names(), true), &look());
    assert!(
        row.contains("  REFUSED host -> standby: nodes_lagging  "),
        "{row}"
    );
    let text = show(&event, event.fact.type_name(), None, None, &[], &names());
    assert!(
        text.contains(
            "What   REFUSED host -> standby: nodes_lagging\n       2 of 12 nodes have not reached update_servers\n"
        ),
        "{text}"
    );
}

#[test]
fn reports_that_are_far_apart_are_not_folded() {
    let events = [report(1, "06:00:00", None), report(2, "06:10:00", None)];
    assert_eq!(rows(&events, &names(), false).len(), 2);
}

#[test]
fn force_is_said_in_capitals() {
    let clock = Principal::System(SystemActor::Clock);
    let rows = rows(&[event(1, "06:00:00", clock, entered(true))], &names(), false);
    let text = table(&rows, &look());
    assert!(
        text.contains("clock  FORCED host: update_clients -> update_servers, over 1 node"),
        "{text}"
    );
    // What is followed has columns of its own, which do not depend on what comes.
    assert_eq!(head().find("WHAT"), line(&rows[0], &look()).find("FORCED"));
}

#[test]
fn an_event_in_full_names_its_gate_and_the_way_to_its_effect() {
    let event = event(1187, "06:10:12.340", alice(), entered(false));
    let audit = EventAudit {
        position: Position(1187),
        outcome: VerifyOutcome::Ok,
        text: "decided again from the log: same answer".into(),
        roles: [domain::access::RoleName::Operator].into(),
    };
    let text = show(
        &event,
        event.fact.type_name(),
        Some(&audit),
        None,
        &["11 certificates issued".into()],
        &names(),
    );
    assert!(
        text.starts_with("Event 1187   carousel.rotation.phase-entered.v1   "),
        "{text}"
    );
    assert!(
        text.contains("Gate   at position 1186: required 12, reached 11, excluded 1, overridden 0\n"),
        "{text}"
    );
    assert!(text.contains("Who    alice (operator)"), "{text}");
    assert!(
        text.contains("Check  decided again from the log: same answer\n"),
        "{text}"
    );
    assert!(text.contains("Led to 11 certificates issued\n"), "{text}");
    assert!(text.contains("carousel audit diff 1186 1187"), "{text}");
}

#[test]
fn a_failed_verification_names_the_position() {
    let check = |name: &str, outcome, text: &str, position| VerifyCheck {
        name: name.into(),
        outcome,
        checked: 1,
        text: text.into(),
        position,
    };
    let report = VerifyReport {
        cluster: "acme.cluster".into(),
        position: Position(1611),
        seconds: 0.91,
        verified: false,
        checks: vec![
            check(
                "order",
                VerifyOutcome::Ok,
                "1,611 positions, none missing, none twice",
                None,
            ),
            check(
                "decisions",
                VerifyOutcome::Failed,
                "recorded accepted, recomputed refused",
                Some(Position(1187)),
            ),
        ],
    };
    let expected = "\
✓ order      1,611 positions, none missing, none twice
✗ decisions  position 1187: recorded accepted, recomputed refused
NOT verified: acme.cluster up to position 1,611 in 0.9 s.
";
    assert_eq!(verification(&report, &look()), expected);
}

#[test]
fn a_difference_shows_both_values() {
    let change = DiffChange {
        path: "authorities.host.rotation.phase".into(),
        before: Some("init".into()),
        after: Some("update_clients".into()),
    };
    let doc = DiffDoc {
        before: Position(1),
        after: Position(2),
        changes: vec![change],
    };
    let expected =
        "From position 1 to 2\nauthorities.host.rotation.phase\n  - \"init\"\n  + \"update_clients\"\n";
    assert_eq!(diff(&doc, &look()), expected);
}
