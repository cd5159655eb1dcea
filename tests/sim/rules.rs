//! Each rule that the product calls necessary, switched off: the simulation must then see something break.

use domain::{
    AuthorityType, Fact, Order, Phase, Position, Principal, Timestamp,
    authority::{AuthorityKey, KeyKind},
    command::{KeyRequest, LaggingPolicy, Rotate},
    event::{AuthorityKeyGenerated, LeafUse},
    rules::Rule,
};

use crate::{
    invariants::{COMPLETES, CONNECTIVITY, GATE, OLD_AUTHORITY, ROLLBACK},
    operator::rotate,
    run::complete,
    world::{FAR, Knobs, MINUTE, SECOND, Word, World, genesis::issue},
};

const HOST: AuthorityType = AuthorityType::Host;

/// The schedule for a rule that random seeds break too seldom; none where they find it soon.
pub fn directed(rule: Rule) -> Option<fn() -> World> {
    Some(match rule {
        Rule::TrustIsEqual => trust_left_over_from_the_rotation_before,
        Rule::MembersAlwaysBind => a_slow_gateway_is_forced_over,
        Rule::SilenceCountsFromStart => a_fresh_orchestrator_has_heard_nobody,
        Rule::InstallOnlyDesiredIssuer => a_certificate_of_the_row_before_arrives_late,
        Rule::KeepProvenAndInFlight => an_ordinary_rotation,
        Rule::JoinAnswerIsCurrent => a_join_is_answered_after_a_whole_rotation,
        Rule::LateKeyIsDestroyed => a_key_comes_after_the_rotation_is_over,
        Rule::GatewayHoldsBeforeHandingOut => a_gateway_starts_while_the_signer_is_away,
        Rule::PolicyNeedsUptime => a_policy_acts_at_once_after_a_long_absence,
        Rule::FactsAreFresh => facts_of_init_still_stand_when_everybody_goes_back,
        Rule::OnlyRolesInUse
        | Rule::SshdsAreCounted
        | Rule::KeysBeforeForwardGates
        | Rule::TimeConditionForward
        | Rule::TimeConditionBack
        | Rule::UntouchedHasReachedRollback
        | Rule::ExclusionEndsWithRotation
        | Rule::StepsFollowOneAnother
        | Rule::NothingIsReinstalled
        | Rule::RevisionsOnlyRise
        | Rule::RenewalFollowsTheRow
        | Rule::HoldBeforeServing
        | Rule::BundleIsDesiredState => return None,
    })
}

/// The invariants that a rule is there for: without it one of these is violated, and not just anything.
pub fn breaks(rule: Rule) -> &'static [&'static str] {
    match rule {
        Rule::TrustIsEqual
        | Rule::SshdsAreCounted
        | Rule::MembersAlwaysBind
        | Rule::SilenceCountsFromStart
        | Rule::KeysBeforeForwardGates
        | Rule::TimeConditionForward
        | Rule::TimeConditionBack
        | Rule::ExclusionEndsWithRotation
        | Rule::StepsFollowOneAnother
        | Rule::PolicyNeedsUptime => &[GATE],
        // Into the standby after a rollback the same gate is the rollback's promise.
        Rule::FactsAreFresh => &[GATE, ROLLBACK],
        Rule::UntouchedHasReachedRollback | Rule::NothingIsReinstalled => &[ROLLBACK],
        Rule::OnlyRolesInUse | Rule::RenewalFollowsTheRow => &[COMPLETES],
        Rule::InstallOnlyDesiredIssuer | Rule::GatewayHoldsBeforeHandingOut => &[CONNECTIVITY],
        Rule::RevisionsOnlyRise | Rule::JoinAnswerIsCurrent | Rule::LateKeyIsDestroyed => &[OLD_AUTHORITY],
        Rule::HoldBeforeServing => &[OLD_AUTHORITY, CONNECTIVITY],
        // A lost key shows where the node is, or in that the rotation waits for it for ever.
        Rule::KeepProvenAndInFlight => &[ROLLBACK, COMPLETES],
        Rule::BundleIsDesiredState => &[OLD_AUTHORITY, CONNECTIVITY, COMPLETES],
    }
}

/// A small cluster in which every node has joined and is proven.
pub fn settled(agents: usize, gateways: usize) -> World {
    let mut world = World::new(1, Knobs::calm(agents, gateways));
    world.trace = Some(vec![]);
    for agent in &mut world.agents {
        // All of them serve, so that every pair can lose its connection.
        agent.uses.insert(HOST, domain::access::Uses::ALL);
    }
    world.run_for(3 * SECOND);
    world.give_tokens();
    world.run_for(2 * MINUTE);
    world
}

/// Asks for a phase every second until it is entered.
pub fn enter(world: &mut World, phase: Phase, force: bool) -> bool {
    for _ in 0..120 {
        if world.violation.is_some() || world.ask(rotate(HOST, Some(phase), force)).is_ok() {
            return world.violation.is_none();
        }
        world.run_for(SECOND);
    }
    false
}

fn an_ordinary_rotation() -> World {
    let mut world = settled(2, 1);
    let entered = enter(&mut world, Phase::Init, false);
    if entered && !complete(&mut world, 30 * MINUTE) {
        world.violate(COMPLETES, "an ordinary rotation does not end");
    }
    world
}

fn facts_of_init_still_stand_when_everybody_goes_back() -> World {
    let mut world = settled(2, 1);
    enter(&mut world, Phase::Init, false);
    enter(&mut world, Phase::UpdateClients, false);
    let prepared = world.truth.types[&HOST].client_issuer();
    // The new certificate is in use, and the node is cut off before anybody hears of it.
    let until = world.now + 2 * MINUTE;
    while world.now < until && world.agents[0].issuers().0 != prepared {
        world.run_for(10);
    }
    world.agents[0].online = false;
    world.run_for(10 * SECOND);
    // What it said in `init` satisfies the row of `rollback`, which is the same.
    enter(&mut world, Phase::Rollback, false);
    world.run_for(MINUTE);
    let _ = world.ask(rotate(HOST, Some(Phase::Standby), false));
    world
}

fn trust_left_over_from_the_rotation_before() -> World {
    let mut world = settled(2, 1);
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
        Phase::Init,
    ] {
        // The next rotation begins before anybody has dropped the first authority.
        enter(&mut world, phase, false);
    }
    let widest = |w: &World| w.agents[0].trusts(HOST).len();
    world.run_while(2 * MINUTE, |w| widest(w) < 3);
    let trusts = world.agents[0].trusts(HOST);
    world.run_while(MINUTE, |w| {
        let passed = w.agents[0].disk.last_passed.as_ref();
        passed.and_then(|g| g.trusted.get(&HOST)) != Some(&trusts)
    });
    // From here on nothing new passes on this node: it keeps trusting all three.
    world.faults_on = true;
    world.agents[0].broken_until = world.now + 60 * MINUTE;
    world.run_for(30 * SECOND);
    let _ = world.ask(rotate(HOST, Some(Phase::UpdateClients), false));
    world
}

fn a_slow_gateway_is_forced_over() -> World {
    let mut world = settled(2, 2);
    world.gateways[1].slow_ms = 3600 * SECOND;
    enter(&mut world, Phase::Init, false);
    world.run_for(MINUTE);
    let _ = world.ask(rotate(HOST, Some(Phase::UpdateClients), true));
    world
}

fn a_fresh_orchestrator_has_heard_nobody() -> World {
    let mut world = settled(2, 2);
    world.gateways[1].slow_ms = 3600 * SECOND;
    world.orchestrators[0].up = false;
    world.run_for(MINUTE);
    world.orchestrator_starts(0);
    world.orchestrator_tick(0);
    enter(&mut world, Phase::Init, false);
    world.run_for(MINUTE);
    let _ = world.ask(rotate(HOST, Some(Phase::UpdateClients), true));
    world
}

fn a_gateway_starts_while_the_signer_is_away() -> World {
    let mut world = settled(2, 2);
    world.gateway_stops(1, true);
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ] {
        enter(&mut world, phase, false);
    }
    world.run_for(2 * MINUTE);
    // It slept through the rotation: nobody accepts the certificates that it has, and it gets no others.
    world.signer_dies();
    world.gateway_starts(1);
    world.run_for(MINUTE);
    world
}

fn a_policy_acts_at_once_after_a_long_absence() -> World {
    let mut world = settled(2, 1);
    // The gateway follows; what the nodes would say is lost, and then nobody is there to write it down.
    world.queue.weather.loss_permille = 1_000;
    let started = world.ask(Order::Rotate(Rotate {
        authority_type: HOST,
        target: None,
        manual: false,
        grace_period_ms: Some(30 * MINUTE as u64),
        on_lagging: Some(LaggingPolicy::Proceed),
        force: false,
        expects: None,
    }));
    assert!(started.is_ok(), "an idle authority can be rotated");
    world.run_for(30 * SECOND);
    world.orchestrators[0].up = false;
    world.queue.weather.loss_permille = 0;
    world.run_for(11 * MINUTE);
    world.orchestrator_starts(0);
    world.orchestrator_tick(0);
    world
}

fn a_certificate_of_the_row_before_arrives_late() -> World {
    let mut world = settled(2, 1);
    enter(&mut world, Phase::Init, false);
    enter(&mut world, Phase::UpdateClients, false);
    world.run_for(2 * MINUTE);
    // The node asks once more, and the signer does not get to it.
    world.signer_dies();
    let node = world.agents[0].disk.node.expect("it joined");
    let prepared = world.truth.types[&HOST].client_issuer().expect("there is one");
    let spki = world.rng.key();
    let key = KeyRequest {
        spki,
        public_key: String::new(),
    };
    let order = Order::RequestCertificate {
        authority_type: HOST,
        usage: LeafUse::Client,
        issuer: Some(prepared),
        key,
        form: KeyKind::Tls,
    };
    let command = world.command(Principal::Node(node), order);
    world.execute(&command);
    let pending = world
        .truth
        .pending
        .values()
        .find(|p| p.granted.spki == spki)
        .cloned()
        .expect("it is authorised");
    // Everybody goes back, with certificates of the active authority.
    enter(&mut world, Phase::Rollback, false);
    world.signer.keys.remove(&prepared);
    world.signer_starts();
    world.run_for(2 * MINUTE);
    // And only now the late one is recorded and pushed to the node, which has kept its key all the time.
    world.agents[0].disk.keys.insert(spki);
    let late = issue(&pending.granted, &mut world.rng);
    let (end, now) = (Position(world.log.events.len() as u64), Timestamp(world.now));
    let _ = world.append(vec![Fact::from(late)], &Word::of_signer(), end, now);
    let shows_prepared = |w: &World| w.agents[0].issuers().0 == Some(prepared);
    world.agents[0].disk.in_flight.push(domain::reconcile::InFlight {
        usage: LeafUse::Client,
        issuer: prepared,
        spki,
    });
    world.run_for(SECOND);
    world.asks_for_news(0);
    world.run_while(2 * MINUTE, |w| !shows_prepared(w));
    let _ = world.ask(rotate(HOST, Some(Phase::Standby), false));
    world.run_for(MINUTE);
    world
}

fn a_join_is_answered_after_a_whole_rotation() -> World {
    let mut world = settled(3, 1);
    // A node was set back; with a new token it joins again on its old data directory.
    let late = 2;
    let a = &mut world.agents[late];
    (a.set_back, a.tampered, a.serving, a.stranded) = (true, true, false, Some("superseded"));
    world.watch.leaves_fleet(late);
    let node = world.agents[late].disk.node.expect("it joined");
    let first = world.truth.nodes[&node].joined;
    world.give_tokens();
    // Its request arrives; the answer does not.
    world.run_while(MINUTE, |w| w.truth.nodes[&node].joined == first);
    world.agents[late].online = false;
    let hostname = world.agents[late].hostname.clone();
    let node = world.truth.nodes.values().find(|n| n.hostname == hostname);
    let node = node.map(|n| n.id).expect("its request has arrived");
    for phase in [
        Phase::Init,
        Phase::UpdateClients,
        Phase::UpdateServers,
        Phase::Standby,
    ] {
        world.run_for(2 * MINUTE);
        enter(&mut world, phase, true);
        if phase == Phase::Init {
            // Nobody waits for it, so that the rotation settles; what it accepts when it is back is judged.
            let excluded = world.ask(Order::ExcludeNode { node });
            assert!(excluded.is_ok(), "a node is excluded from a rotation in progress");
        }
    }
    world.run_for(2 * MINUTE);
    world.agent_stops(late);
    world.agents[late].online = true;
    world.agent_starts(late);
    world.run_for(MINUTE);
    world
}

fn a_key_comes_after_the_rotation_is_over() -> World {
    let mut world = settled(2, 1);
    world.signer_dies();
    enter(&mut world, Phase::Init, false);
    let rotation = world.truth.types[&HOST].rotation_id();
    enter(&mut world, Phase::Rollback, false);
    enter(&mut world, Phase::Standby, false);
    let key = AuthorityKey {
        id: world.rng.key(),
        kind: KeyKind::Tls,
        public_key: String::new(),
        generation: 2,
        certificate: String::new(),
        algorithm: String::new(),
        storage: String::new(),
        not_after: FAR,
        rotation,
        position: Position(0),
    };
    world.signer.keys.insert(key.id);
    let (end, now) = (Position(world.log.events.len() as u64), Timestamp(world.now));
    let generated = AuthorityKeyGenerated {
        authority_type: HOST,
        key,
    };
    let _ = world.append(vec![Fact::from(generated)], &Word::of_signer(), end, now);
    world.signer_starts();
    world.run_for(5 * MINUTE);
    world
}
