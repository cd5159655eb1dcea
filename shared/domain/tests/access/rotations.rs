//! Rotations: the transition table, the gate fact by fact, force, exclusion, the end.

use domain::{
    NodeId, Phase, Position,
    access::RoleName,
    authority::{AuthorityKey, AuthorityType, KeyKind},
    command::{Answer, Expectation, Order, Rotate},
    event::{AuthorityKeyGenerated, Fact, LeafUse},
    gate::{self, Missing},
    id::{Principal, SystemActor},
    refusal::Code,
};

use crate::world::{World, admin, pin, roles};

pub(crate) const HOST: AuthorityType = AuthorityType::Host;

pub(crate) fn to(target: Option<Phase>) -> Rotate {
    Rotate {
        authority_type: HOST,
        target,
        manual: true,
        grace_period_ms: None,
        on_lagging: None,
        force: false,
        expects: None,
    }
}

pub(crate) fn rotate(world: &mut World, target: Phase) -> Result<Answer, domain::Refusal> {
    world.ask(admin(), Order::Rotate(to(Some(target))))
}

/// A node takes the certificates of the current row and reports it.
pub(crate) fn reach(world: &mut World, node: NodeId, seq: u64) {
    let of = &world.state.types[&HOST];
    let usage = if of.client_issuer() == of.server_issuer() {
        LeafUse::Both
    } else {
        LeafUse::Client
    };
    world.request(node, usage, None).unwrap();
    world.sign();
    let report = world.report_of(1, seq);
    world.report(node, report).unwrap();
}

pub(crate) fn fleet(world: &mut World) -> [NodeId; 3] {
    let nodes = ["n1", "n2", "n3"].map(|name| world.node(name));
    for node in nodes {
        reach(world, node, 1);
    }
    nodes
}

pub(crate) fn lagging(world: &World, node: NodeId) -> Missing {
    gate::missing(&world.state, HOST, &world.state.nodes[&node]).expect_err("it should lag")
}

#[test]
fn every_cell_of_the_transition_table_is_as_written() {
    use Phase::{Init, Rollback, Standby, UpdateClients, UpdateServers};
    let from = [Standby, Init, UpdateClients, UpdateServers, Rollback];
    let (ok, noop, e1) = ("ok", "noop", "rotation_in_progress");
    let e2 = "can only switch to phase update_clients from init, current phase is";
    let e3 = "can only switch to phase update_servers from update_clients, current phase is";
    let e4 = "can not transition to phase";
    let table = [
        [ok, e2, e3, e4, noop],
        [noop, ok, e3, ok, e4],
        [e1, noop, ok, ok, e4],
        [e1, e2, noop, ok, ok],
        [e1, e2, e3, noop, ok],
    ];
    for (current, row) in from.into_iter().zip(table) {
        for (target, expected) in [Init, UpdateClients, UpdateServers, Rollback, Standby]
            .into_iter()
            .zip(row)
        {
            let mut world = World::new();
            for phase in [Init, UpdateClients, UpdateServers] {
                if current == Standby || world.state.types[&HOST].phase == current {
                    break;
                }
                world.enter(HOST, phase);
                if current == Rollback {
                    world.enter(HOST, Rollback);
                    break;
                }
            }
            assert_eq!(world.state.types[&HOST].phase, current);
            let got = match rotate(&mut world, target) {
                Ok(Answer::Phase { phase, .. }) => {
                    assert_eq!(phase, target);
                    ok.to_owned()
                }
                Ok(Answer::Noop { .. }) => noop.to_owned(),
                Ok(other) => panic!("{other:?}"),
                Err(refusal) => refusal.to_string(),
            };
            assert!(
                got.contains(expected),
                "{current} -> {target}: {got}, expected {expected}"
            );
        }
    }
}

#[test]
fn a_rotation_without_a_phase_while_one_is_in_progress_is_refused_and_no_noop() {
    let mut world = World::new();
    world.enter(HOST, Phase::Init);
    assert_eq!(
        world.refused(admin(), Order::Rotate(to(None))),
        Code::RotationInProgress
    );
}

#[test]
fn a_stale_view_a_grace_period_of_nothing_and_a_type_without_keys_are_refused() {
    let mut world = World::new();
    let expects = Some(Expectation {
        rotation: None,
        phase: Phase::Init,
    });
    let stale = Rotate {
        expects,
        ..to(Some(Phase::Init))
    };
    assert_eq!(world.refused(admin(), Order::Rotate(stale)), Code::StaleView);
    let nothing = Rotate {
        grace_period_ms: Some(0),
        ..to(None)
    };
    assert_eq!(
        world.refused(admin(), Order::Rotate(nothing)),
        Code::GracePeriodInvalid
    );
    let jwt = Rotate {
        authority_type: AuthorityType::Jwt,
        ..to(None)
    };
    assert_eq!(world.refused(admin(), Order::Rotate(jwt)), Code::TypeNotInService);
}

#[test]
fn no_forward_gate_opens_before_the_new_key_is_in_the_log_and_force_does_not_help() {
    let mut world = World::new();
    rotate(&mut world, Phase::Init).unwrap(); // the signer is late
    let forced = Rotate {
        force: true,
        ..to(Some(Phase::UpdateClients))
    };
    assert_eq!(world.refused(admin(), Order::Rotate(forced)), Code::KeyMissing);
    rotate(&mut world, Phase::Rollback).unwrap(); // but the way back is open
}

#[test]
fn one_node_that_has_not_loaded_the_prepared_authority_holds_the_gate_and_is_named() {
    let mut world = World::new();
    let [n1, n2, n3] = fleet(&mut world);
    world.enter(HOST, Phase::Init);
    reach(&mut world, n1, 2);
    reach(&mut world, n2, 2);
    let refusal = rotate(&mut world, Phase::UpdateClients).unwrap_err();
    assert_eq!(refusal.code, Code::NodesLagging);
    let gate = refusal.gate.unwrap();
    assert_eq!((gate.required, gate.reached), (3, 2));
    assert_eq!(gate.lagging.iter().map(|l| l.node).collect::<Vec<_>>(), [n3]);
    reach(&mut world, n3, 2);
    rotate(&mut world, Phase::UpdateClients).unwrap();
}

#[test]
fn facts_measured_before_the_row_changed_never_count_though_the_rows_are_equal() {
    let mut world = World::new();
    let [n1, ..] = fleet(&mut world);
    world.enter(HOST, Phase::Init);
    let of_init = world.report_of(1, 2);
    world.report(n1, of_init.clone()).unwrap();
    // Touch it with the prepared authority, or the way back would not ask it for anything.
    world.enter(HOST, Phase::UpdateClients);
    reach(&mut world, n1, 3);
    world.enter(HOST, Phase::Rollback);
    world.request(n1, LeafUse::Both, None).unwrap();
    world.sign();
    let mut old = of_init;
    old.seq = 4;
    world.report(n1, old).unwrap();
    assert!(matches!(lagging(&world, n1), Missing::Stale { .. }));
    let fresh = world.report_of(1, 5);
    world.report(n1, fresh).unwrap();
    assert_eq!(gate::missing(&world.state, HOST, &world.state.nodes[&n1]), Ok(()));
}

#[test]
fn each_fact_of_the_row_is_asked_for_by_itself() {
    let mut world = World::new();
    let [n1, ..] = fleet(&mut world);
    world.enter(HOST, Phase::Init);
    world.enter(HOST, Phase::UpdateClients);
    world.enter(HOST, Phase::UpdateServers);
    world.request(n1, LeafUse::Both, None).unwrap();
    world.sign();
    let (old, good) = (world.ca(HOST, false), world.report_of(1, 2));
    let broken = |edit: &dyn Fn(&mut domain::fact::TypeFacts)| {
        let mut report = good.clone();
        edit(report.authorities.get_mut(&HOST).unwrap());
        let mut world = world.copy();
        world.report(n1, report).unwrap();
        gate::missing(&world.state, HOST, &world.state.nodes[&n1])
    };
    assert_eq!(broken(&|_| {}), Ok(()));
    assert!(matches!(
        broken(&|f| f.trusted.clear()),
        Err(Missing::Trust { .. })
    ));
    assert!(matches!(
        broken(&|f| assert!(f.trusted.remove(&old))),
        Err(Missing::Trust { .. })
    ));
    assert_eq!(
        broken(&|f| f.server_issuer = Some(old)),
        Err(Missing::ServerIssuer)
    );
    assert_eq!(
        broken(&|f| f.client_issuer = Some(old)),
        Err(Missing::ClientIssuer)
    );
    assert_eq!(broken(&|f| f.sessions_on_retiring = true), Err(Missing::Sessions));
    assert!(matches!(
        broken(&|f| f.revision = Position(1)),
        Err(Missing::Stale { .. })
    ));
}

#[test]
fn a_claim_that_the_gateway_does_not_see_is_a_contradiction() {
    let mut world = World::new();
    let [n1, ..] = fleet(&mut world);
    world.enter(HOST, Phase::Init);
    world.enter(HOST, Phase::UpdateClients);
    // It says that it presents the prepared authority, but its connection shows the old certificate.
    let report = world.report_of(1, 2);
    world.report(n1, report).unwrap();
    assert_eq!(lagging(&world, n1), Missing::Contradiction);
}

#[test]
fn force_needs_a_reason_and_the_event_says_who_was_passed_over() {
    let mut world = World::new();
    let [n1, ..] = fleet(&mut world);
    world.enter(HOST, Phase::Init);
    reach(&mut world, n1, 2);
    let forced = Order::Rotate(Rotate {
        force: true,
        ..to(Some(Phase::UpdateClients))
    });
    let refusal = world.decide_because(admin(), forced.clone(), None).unwrap_err();
    assert_eq!(refusal.code, Code::ReasonRequired);
    let decision = world.decide(admin(), forced).unwrap();
    let Fact::RotationPhaseEntered(entered) = &decision.facts[0] else {
        panic!("{decision:?}")
    };
    assert!(entered.forced);
    assert_eq!(
        (
            entered.gate.required,
            entered.gate.reached,
            entered.gate.overridden
        ),
        (3, 1, 2)
    );
    assert_eq!(entered.passed_over, ["n2", "n3"]);
    assert!(entered.passed_over_digest.is_some());
}

#[test]
fn the_answer_names_who_is_cut_off_at_the_end_alone_and_no_consumers() {
    let mut world = World::new();
    let [n1, ..] = fleet(&mut world);
    let add = Order::AddConsumer {
        authority_type: HOST,
        consumer: "etl".parse().unwrap(),
        owner: "data".into(),
        contact: "data@acme.example".into(),
        probe: None,
    };
    world.ask(admin(), add).unwrap();
    world.enter(HOST, Phase::Init);
    let forced = |phase| {
        Order::Rotate(Rotate {
            force: true,
            ..to(Some(phase))
        })
    };
    let mut answered = vec![];
    for (seq, phase) in [Phase::UpdateClients, Phase::UpdateServers, Phase::Standby]
        .into_iter()
        .enumerate()
    {
        reach(&mut world, n1, 10 + seq as u64);
        let Answer::Phase { cut_off, .. } = world.ask(admin(), forced(phase)).unwrap() else {
            panic!("a phase was asked for")
        };
        answered.push(cut_off);
    }
    assert_eq!(answered, [vec![], vec![], vec!["n2".to_owned(), "n3".to_owned()]]);
}

#[test]
fn a_running_member_is_never_passed_over_but_a_stopped_one_is_not_waited_for() {
    let mut world = World::new();
    world.start_gateway(&["cp"], &[]);
    world.enter(HOST, Phase::Init);
    let forced = Rotate {
        force: true,
        ..to(Some(Phase::UpdateClients))
    };
    assert_eq!(
        world.refused(admin(), Order::Rotate(forced.clone())),
        Code::MembersLagging
    );
    let (member, boot) = (world.gateway, world.state.members[&world.gateway].boot.unwrap());
    world
        .ask(Principal::Gateway(member), Order::StopMember { member, boot })
        .unwrap();
    world.ask(admin(), Order::Rotate(forced)).unwrap();
}

#[test]
fn an_excluded_node_is_not_waited_for_in_this_rotation_and_is_again_in_the_next() {
    let mut world = World::new();
    let [n1, n2, n3] = fleet(&mut world);
    world.enter(HOST, Phase::Init);
    for phase in [Phase::Init, Phase::UpdateClients, Phase::UpdateServers] {
        if phase == Phase::Init {
            world.ask(admin(), Order::ExcludeNode { node: n3 }).unwrap();
        } else {
            rotate(&mut world, phase).unwrap();
        }
        reach(&mut world, n1, 10 + phase as u64);
        reach(&mut world, n2, 10 + phase as u64);
    }
    let Answer::Phase { cut_off, .. } = rotate(&mut world, Phase::Standby).unwrap() else {
        panic!("a phase was asked for")
    };
    assert_eq!(cut_off, ["n3"], "the answer says it");
    let ended = world.state.types[&HOST].ended.clone().unwrap();
    assert_eq!(ended.cut_off.into_iter().collect::<Vec<_>>(), [n3]);
    world.enter(HOST, Phase::Init);
    reach(&mut world, n1, 20);
    reach(&mut world, n2, 20);
    assert_eq!(
        rotate(&mut world, Phase::UpdateClients).unwrap_err().code,
        Code::NodesLagging
    );
}

#[test]
fn a_node_that_never_had_a_prepared_certificate_has_nothing_to_roll_back() {
    let mut world = World::new();
    let [n1, n2, n3] = fleet(&mut world);
    world.enter(HOST, Phase::Init);
    world.enter(HOST, Phase::UpdateClients);
    reach(&mut world, n1, 2); // touched
    world.enter(HOST, Phase::Rollback);
    let refusal = rotate(&mut world, Phase::Standby).unwrap_err();
    let waited_for: Vec<_> = refusal.gate.unwrap().lagging.iter().map(|l| l.node).collect();
    assert_eq!(waited_for, [n1], "{n2} and {n3} sleep, but have nothing to undo");
    reach(&mut world, n1, 3);
    rotate(&mut world, Phase::Standby).unwrap();
    let of = &world.state.types[&HOST];
    assert!(of.last_rolled_back.is_some() && of.last_rotated.is_none());
    assert_eq!(of.retired.len(), 1);
}

#[test]
fn a_key_that_comes_after_the_rotation_turned_back_is_never_prepared() {
    let mut world = World::new();
    rotate(&mut world, Phase::Init).unwrap();
    let rotation = world.state.types[&HOST].rotation_id();
    rotate(&mut world, Phase::Rollback).unwrap();
    let key = world.authority_key(2, rotation);
    key_generated(&mut world, &key);
    assert!(world.state.types[&HOST].prepared.is_empty());
    let owed = domain::owed(&world.state, world.now);
    assert!(
        owed.contains(&domain::Duty::Destroy {
            authority_type: HOST,
            authority: key.id
        }),
        "{owed:?}"
    );
}

fn key_generated(world: &mut World, key: &AuthorityKey) {
    let fact = AuthorityKeyGenerated {
        authority_type: HOST,
        key: key.clone(),
    };
    world.append(Principal::System(SystemActor::Signer), fact.into());
}

#[test]
fn a_first_key_is_one_only_where_there_is_none() {
    let mut world = World::new();
    let (before, row) = (world.ca(HOST, false), world.state.types[&HOST].row_position);
    let foreign = world.authority_key(2, None);
    key_generated(&mut world, &foreign);
    let of = &world.state.types[&HOST];
    assert_eq!(
        of.active[&KeyKind::Tls].id,
        before,
        "the authority is not replaced"
    );
    assert_eq!(of.row_position, row, "and nobody is asked to trust another one");
    assert_eq!(of.retired[0].key.id, foreign.id);
}

#[test]
fn a_key_that_the_log_knows_is_not_made_a_second_time() {
    let mut world = World::new();
    rotate(&mut world, Phase::Init).unwrap();
    let rotation = world.state.types[&HOST].rotation_id();
    let prepared = world.authority_key(2, rotation);
    key_generated(&mut world, &prepared);
    let active = world.state.types[&HOST].active[&KeyKind::Tls].clone();
    for key in [prepared, active] {
        key_generated(&mut world, &key);
    }
    let owed = domain::owed(&world.state, world.now);
    let destroys = |duty: &domain::Duty| matches!(duty, domain::Duty::Destroy { .. });
    assert!(!owed.iter().any(destroys), "a key in use is destroyed: {owed:?}");
}

#[test]
fn an_auditor_may_not_rotate_and_a_node_may_not_either() {
    let mut world = World::new();
    let node = world.node("n1");
    let key = world.key();
    let user = "eve".parse().unwrap();
    world
        .ask(
            admin(),
            Order::AddUser {
                user,
                roles: roles(&[RoleName::Auditor]),
                key,
                logins: vec![],
            },
        )
        .unwrap();
    let order = Order::Rotate(to(Some(Phase::Init)));
    for principal in [
        Principal::User("eve".parse().unwrap()),
        Principal::Node(node),
        Principal::Anonymous,
    ] {
        assert_eq!(world.refused(principal, order.clone()), Code::NotPermitted);
    }
    assert_eq!(
        world.ca(HOST, false),
        world.state.types[&HOST].trusted().into_iter().next().unwrap()
    );
    assert_ne!(world.ca(HOST, false), pin(0));
}
