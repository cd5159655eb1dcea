//! Fact reports: what the log takes, and what it does not.

use std::collections::BTreeMap;

use domain::{
    authority::AuthorityType,
    command::{Order, Settings},
    fact::{FactReport, Failure, TypeFacts},
    id::{Position, Principal},
    phase::Phase,
    refusal::Code,
};

use crate::world::{World, admin, grant, names_of, pin};

fn code(world: &mut World, node: domain::NodeId, report: FactReport) -> Code {
    world
        .report(node, report)
        .expect_err("the report should be refused")
        .code
}

#[test]
fn news_are_taken_at_once_and_the_same_facts_once_in_five_seconds() {
    let mut world = World::new();
    let node = world.node("n1");
    let first = world.report_of(1, 1);
    assert_eq!(
        names_of(&world.report(node, first.clone()).unwrap()),
        ["node.reported"]
    );
    let again = world.report(node, first).unwrap();
    assert!(
        again.facts.is_empty() && again.repeats.is_some(),
        "the very same report: its answer was lost"
    );
    let same = world.report_of(1, 2);
    world.pass(4_999);
    assert_eq!(code(&mut world, node, same.clone()), Code::ReportTooOften);
    let mut news = same.clone();
    news.authorities
        .get_mut(&AuthorityType::Host)
        .unwrap()
        .sessions_on_retiring = true;
    world.report(node, news.clone()).unwrap();
    world.pass(5_000);
    news.seq = 3;
    world.report(node, news).unwrap();
}

#[test]
fn what_is_merely_shown_waits_for_its_five_seconds() {
    let mut world = World::new();
    let node = world.node("n1");
    let first = world.report_of(1, 1);
    world.report(node, first.clone()).unwrap();
    let changes: [fn(&mut FactReport); 3] = [
        |r| {
            r.failure = Some(Failure {
                step: "reload".into(),
                detail: "exited 1".into(),
                count: 1,
            });
        },
        |r| r.version = "0.2.0".into(),
        |r| {
            r.labels.insert("rack".into(), "7".into());
        },
    ];
    for (change, seq) in changes.into_iter().zip(2..) {
        let mut report = world.state.nodes[&node].report.clone().unwrap().report;
        (report.seq, report.labels) = (seq, first.labels.clone());
        change(&mut report);
        assert_eq!(code(&mut world, node, report.clone()), Code::ReportTooOften);
        world.pass(5_000);
        world.report(node, report).unwrap();
    }
}

#[test]
fn a_changed_row_calls_for_a_new_report_at_once_and_not_for_the_old_one_again_and_again() {
    let mut world = World::new();
    let node = world.node("n1");
    let report = world.report_of(1, 1);
    world.report(node, report.clone()).unwrap();
    world.enter(AuthorityType::Host, Phase::Init);
    let mut unchanged = report;
    unchanged.seq = 2; // old facts: they do not count, and say nothing that was not said
    assert_eq!(code(&mut world, node, unchanged), Code::ReportTooOften);
    let mut measured = world.report_of(1, 3);
    measured
        .authorities
        .get_mut(&AuthorityType::Host)
        .unwrap()
        .revision = world.state.types[&AuthorityType::Host].row_position;
    world.report(node, measured).unwrap();
}

#[test]
fn a_report_over_a_new_certificate_is_news() {
    let mut world = World::new();
    let node = world.node("n1");
    let report = world.report_of(1, 1);
    world.report(node, report).unwrap();
    world.renew(node);
    let same_facts = world.report_of(1, 2);
    assert_eq!(
        names_of(&world.report(node, same_facts).unwrap()),
        ["node.reported"]
    );
}

#[test]
fn facts_that_cannot_be_true_are_refused() {
    let mut world = World::new();
    let node = world.node("n1");
    let good = world.report_of(1, 1);
    let with = |change: fn(&mut TypeFacts)| {
        let mut report = good.clone();
        change(report.authorities.get_mut(&AuthorityType::Host).unwrap());
        report
    };
    for report in [
        with(|f| f.trusted.extend([pin(0xdead)])),
        with(|f| f.client_issuer = Some(pin(0xdead))),
        with(|f| f.server_issuer = Some(pin(0xdead))),
        with(|f| f.revision = Position(u64::MAX)),
        with(|f| f.trusted.extend((0..100).map(pin))),
    ] {
        assert_eq!(code(&mut world, node, report), Code::ReportInvalid);
    }
    // An authority of another type is unknown to this one.
    let user_ca = world.ca(AuthorityType::User, false);
    let mut crossed = good.clone();
    crossed
        .authorities
        .get_mut(&AuthorityType::Host)
        .unwrap()
        .trusted
        .insert(user_ca);
    assert_eq!(code(&mut world, node, crossed), Code::ReportInvalid);
    let mut ungranted = good;
    ungranted.authorities.insert(AuthorityType::User, Box::default());
    assert_eq!(code(&mut world, node, ungranted), Code::TypeNotGranted);
}

#[test]
fn a_retired_authority_is_known_and_so_it_can_be_reported() {
    let mut world = World::new();
    let node = world.node("n1");
    let report = world.report_of(1, 1);
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ] {
        world.enter(AuthorityType::Host, phase);
    }
    world.report(node, report).unwrap();
}

#[test]
fn what_would_swell_the_log_is_refused() {
    let mut world = World::new();
    let node = world.node("n1");
    let good = world.report_of(1, 1);
    let mut many_labels = good.clone();
    many_labels.labels = (0..33).map(|n| (format!("k{n}"), String::new())).collect();
    let mut long_label = good.clone();
    long_label.labels = BTreeMap::from([("k".into(), "v".repeat(101))]);
    let mut long_detail = good.clone();
    long_detail.failure = Some(Failure {
        step: "reload".into(),
        detail: "x".repeat(301),
        count: 1,
    });
    let mut long_version = good;
    long_version.version = "1".repeat(101);
    for report in [many_labels, long_label, long_detail, long_version] {
        assert_eq!(code(&mut world, node, report), Code::ReportInvalid);
    }
}

#[test]
fn the_probed_address_is_granted_or_where_the_node_speaks_from() {
    let mut world = World::new();
    let free = world.node("n1");
    let mut granted = grant(&["n2", "n2.example.com"]);
    granted.addresses = vec!["10.0.0.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
    let hash = domain::TokenHash([5; 32]);
    world
        .ask(
            admin(),
            Order::CreateToken {
                hash,
                grant: granted,
                uses: 1,
                ttl_ms: 60_000,
            },
        )
        .unwrap();
    let key = world.key();
    let bound = world.joined(hash, "n2", key, None).unwrap();
    world.sign();
    let ok = Ok(());
    let no = Err(Code::AddressNotGranted);
    let bad = Err(Code::ReportInvalid);
    // The connection comes from 10.1.2.3.
    let rows = [
        (free, "10.1.2.3:7443", ok),
        (free, "[::ffff:10.1.2.3]:7443", ok),
        (free, "10.1.2.4:7443", no),
        (free, "n1:7443", ok),
        (free, "n2:7443", no),
        (free, "127.0.0.1:7443", no),
        (free, "[::1]:7443", no),
        (free, "localhost:7443", no),
        (free, "0.0.0.0:7443", no),
        (bound, "10.0.0.7:7443", ok),
        (bound, "[2001:db8::7]:7443", ok),
        (bound, "n2.example.com:7443", ok),
        (bound, "10.1.2.3:7443", no),
        (bound, "169.254.169.254:80", no),
        (free, "10.1.2.3", bad),
        (free, "10.1.2.3:0", bad),
        (free, "10.1.2.3:99999", bad),
        (free, "user@host:80", bad),
        (free, "http://10.1.2.3:80", bad),
        (free, ":80", bad),
    ];
    for (seq, (node, addr, expected)) in rows.into_iter().enumerate() {
        let mut report = world.report_of(1, seq as u64 + 1);
        report.addr = Some(addr.into());
        world.pass(5_000);
        assert_eq!(
            world.report(node, report).map(drop).map_err(|r| r.code),
            expected,
            "{addr}"
        );
    }
}

#[test]
fn loopback_is_for_clusters_on_loopback() {
    let mut world = World::with(Settings {
        allow_loopback: true,
        ..Settings::default()
    });
    let node = world.node("n1");
    for (seq, addr) in ["127.0.0.1:7443", "[::1]:7443", "localhost:7443"]
        .into_iter()
        .enumerate()
    {
        let mut report = world.report_of(1, seq as u64 + 1);
        report.addr = Some(addr.into());
        world.pass(5_000);
        world.report(node, report).unwrap();
    }
}

#[test]
fn nobody_reports_for_another() {
    let mut world = World::new();
    let (node, other) = (world.node("n1"), world.node("n2"));
    let (report, seen) = (world.report_of(1, 1), world.seen(node));
    let order = Order::Report { node, report, seen };
    for principal in [Principal::Node(other), Principal::Gateway(world.gateway), admin()] {
        assert_eq!(world.refused(principal, order.clone()), Code::NotPermitted);
    }
}

#[test]
fn a_removed_node_reports_no_more() {
    let mut world = World::new();
    let node = world.node("n1");
    let (report, seen) = (world.report_of(1, 1), world.seen(node));
    world.ask(admin(), Order::RemoveNode { node }).unwrap();
    assert_eq!(
        world.refused(Principal::Node(node), Order::Report { node, report, seen }),
        Code::NodeRemoved
    );
}

#[test]
fn a_sequence_that_goes_back_is_recorded_as_evidence() {
    let mut world = World::new();
    let node = world.node("n1");
    for seq in [2, 1] {
        let report = world.report_of(1, seq);
        world.pass(5_000);
        assert_eq!(names_of(&world.report(node, report).unwrap()), ["node.reported"]);
    }
    assert!(world.state.nodes[&node].clone_suspect.is_some());
}
