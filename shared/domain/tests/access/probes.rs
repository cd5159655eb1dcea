//! Probes of external consumers: what was seen is held against the row, by whoever decides and by whoever reads the log.

use std::collections::BTreeSet;

use domain::{
    authority::{AuthorityKey, AuthorityType, KeyKind},
    command::{Expectation, Order},
    event::{AuthorityKeyGenerated, Fact},
    id::{Principal, SpkiPin, SystemActor},
    phase::Phase,
    probe::{Accepted, Presented, ProbeAddress, Sight, Unproven, proves},
    refusal::Code,
    time::DAY_MS,
};

use crate::world::{World, admin, clock, names_of, pin};

use AuthorityType::{Db, Host, Spiffe};
use Phase::{Init, Rollback, UpdateClients, UpdateServers};

/// Registers `billing` of a type, with a probe.
fn add(world: &mut World, authority_type: AuthorityType, probe: Option<&str>) -> Result<(), Code> {
    let order = Order::AddConsumer {
        authority_type,
        consumer: "billing".parse().unwrap(),
        owner: "team billing".into(),
        contact: String::new(),
        probe: probe.map(|at| at.parse().unwrap()),
    };
    world
        .ask(admin(), order)
        .map(drop)
        .map_err(|refusal| refusal.code)
}

fn attest(world: &World, authority_type: AuthorityType, saw: Option<Sight>) -> Order {
    Order::AttestConsumer {
        authority_type,
        consumer: "billing".parse().unwrap(),
        expects: world.state.types[&authority_type].expectation(),
        probed: saw.is_some(),
        saw,
    }
}

fn held_against(world: &World, t: AuthorityType, at: &str, sight: &Sight) -> Result<(), Unproven> {
    let address: ProbeAddress = at.parse().unwrap();
    proves(&world.state, t, &address, sight, world.now)
}

fn by(world: &World, issuer: SpkiPin) -> Presented {
    Presented {
        issuer,
        not_after: world.now.plus_ms(DAY_MS),
    }
}

fn accepts(authorities: &[SpkiPin], others: u32) -> Option<Accepted> {
    let authorities = authorities.iter().copied().collect();
    Some(Accepted { authorities, others })
}

fn tls(accepts: Option<Accepted>, presents: Option<Presented>) -> Sight {
    Sight::Tls { accepts, presents }
}

/// What a TLS server that follows the row shows.
fn as_the_row_says(world: &World) -> Sight {
    let of = &world.state.types[&Db];
    let trusted: Vec<SpkiPin> = of.trusted().into_iter().collect();
    tls(accepts(&trusted, 0), Some(by(world, of.server_issuer().unwrap())))
}

/// A key of a kind that the small cluster has none of.
fn made(world: &mut World, t: AuthorityType, kind: KeyKind) -> SpkiPin {
    let of = world.state.types.get(&t);
    let generation = of.map_or(1, |of| of.next_generation());
    let rotation = of.and_then(|of| of.rotation_id());
    let key = AuthorityKey {
        kind,
        public_key: "key".into(),
        ..world.authority_key(generation, rotation)
    };
    let id = key.id;
    let fact = AuthorityKeyGenerated {
        authority_type: t,
        key,
    };
    world.append(Principal::System(SystemActor::Signer), fact.into());
    id
}

const PG: &str = "tls://pg.example.com:5432";

#[test]
fn only_an_address_at_which_the_type_shows_something_is_registered() {
    let mut world = World::new();
    for at in ["ssh://pg.example.com:22", "http://pg.example.com/keys"] {
        assert_eq!(add(&mut world, Db, Some(at)), Err(Code::BadRequest), "{at}");
    }
    add(&mut world, Db, Some(PG)).unwrap();
    let consumer = world.state.consumers.values().next().unwrap();
    assert_eq!(consumer.probe, Some(PG.parse().unwrap()));
}

#[test]
fn a_tls_server_is_ready_when_its_trust_and_its_certificate_are_those_of_the_row() {
    let mut world = World::new();
    let old = world.ca(Db, false);
    for phase in [Init, UpdateClients, UpdateServers] {
        world.enter(Db, phase);
        let new = world.ca(Db, true);
        let seen = |sight: Sight| held_against(&world, Db, PG, &sight);
        let (right, wrong) = match phase {
            UpdateServers => (new, old),
            _ => (old, new),
        };
        let cert = |issuer| Some(by(&world, issuer));
        assert_eq!(seen(as_the_row_says(&world)), Ok(()), "{phase}");
        // Either alone is enough, for a server that shows no more.
        assert_eq!(seen(tls(accepts(&[old, new], 0), None)), Ok(()), "{phase}");
        assert_eq!(seen(tls(None, cert(right))), Ok(()), "{phase}");
        assert!(matches!(seen(tls(None, None)), Err(Unproven::Nothing(_))));
        // But what is seen must agree.
        assert_eq!(
            seen(tls(accepts(&[old], 0), cert(right))),
            Err(Unproven::Lacks(new))
        );
        assert_eq!(seen(tls(accepts(&[new], 0), None)), Err(Unproven::Lacks(old)));
        let more = accepts(&[old, new, pin(7)], 0);
        assert_eq!(seen(tls(more, cert(right))), Err(Unproven::Extra(pin(7))));
        assert_eq!(seen(tls(accepts(&[old, new], 2), None)), Err(Unproven::Others(2)));
        let other = tls(accepts(&[old, new], 0), cert(wrong));
        let (found, wanted) = (wrong, right);
        match phase {
            // What is signed by hand comes from the new authority already: who was quick is not behind.
            UpdateClients => assert_eq!(seen(other), Ok(())),
            _ => assert_eq!(seen(other), Err(Unproven::Issuer { found, wanted }), "{phase}"),
        }
    }
    world.enter(Db, Rollback);
    assert_eq!(
        held_against(&world, Db, PG, &tls(None, Some(by(&world, old)))),
        Ok(())
    );
}

#[test]
fn a_certificate_that_has_expired_proves_nothing() {
    let mut world = World::new();
    let sight = as_the_row_says(&world);
    world.pass(DAY_MS - 1);
    assert_eq!(held_against(&world, Db, PG, &sight), Ok(()));
    world.pass(1);
    assert_eq!(
        held_against(&world, Db, PG, &sight),
        Err(Unproven::Expired(world.now))
    );
}

#[test]
fn nothing_is_proven_before_the_new_key_is_there() {
    let mut world = World::new();
    add(&mut world, Host, Some(PG)).unwrap();
    let (old, order) = (world.ca(Host, false), crate::rotations::to(Some(Init)));
    world.ask(admin(), Order::Rotate(order)).unwrap();
    // It trusts all that the row names so far, and not yet what the step after this one needs.
    let sight = tls(accepts(&[old], 0), Some(by(&world, old)));
    assert_eq!(held_against(&world, Host, PG, &sight), Err(Unproven::NoKey));
    let early = attest(&world, Host, Some(sight.clone()));
    assert_eq!(world.refused(admin(), early), Code::StaleView);
    world.make_key(Host);
    let new = world.ca(Host, true);
    assert_eq!(held_against(&world, Host, PG, &sight), Err(Unproven::Lacks(new)));
}

#[test]
fn a_host_is_ready_when_each_of_its_certificates_is_signed_by_the_issuer_of_servers() {
    let mut world = World::new();
    let at = "ssh://bastion.example.com:22";
    let old = made(&mut world, Host, KeyKind::Ssh);
    let shown = |world: &World, issuers: &[SpkiPin]| {
        let presents = issuers.iter().map(|issuer| by(world, *issuer)).collect();
        held_against(world, Host, at, &Sight::Ssh { presents })
    };
    assert_eq!(shown(&world, &[old]), Ok(()));
    world.enter(Host, Init);
    let new = made(&mut world, Host, KeyKind::Ssh);
    for phase in [Init, UpdateClients, UpdateServers] {
        if phase != Init {
            world.enter(Host, phase);
        }
        let (found, wanted) = if phase == UpdateServers {
            (old, new)
        } else {
            (new, old)
        };
        assert_eq!(shown(&world, &[wanted, wanted]), Ok(()), "{phase}");
        let wrong = Err(Unproven::Issuer { found, wanted });
        assert_eq!(shown(&world, &[wanted, found]), wrong, "{phase}");
        assert!(matches!(shown(&world, &[]), Err(Unproven::Nothing(_))));
    }
    let tls_key = world.ca(Host, true);
    assert!(
        shown(&world, &[tls_key]).is_err(),
        "a key of another kind signs no host certificate"
    );
}

#[test]
fn a_reader_is_ready_when_it_holds_every_key_that_signs_or_will_sign() {
    let mut world = World::new();
    let at = "http://reader.example/keys";
    let one = made(&mut world, Spiffe, KeyKind::Jwt);
    let holds = |world: &World, keys: &[SpkiPin]| {
        let holds: BTreeSet<SpkiPin> = keys.iter().copied().collect();
        held_against(world, Spiffe, at, &Sight::Jwks { holds, others: 3 })
    };
    assert_eq!(holds(&world, &[one]), Ok(()));
    assert_eq!(holds(&world, &[]), Err(Unproven::Lacks(one)));
    let order = crate::rotations::to(Some(Init));
    let order = domain::command::Rotate {
        authority_type: Spiffe,
        ..order
    };
    world.ask(admin(), Order::Rotate(order)).unwrap();
    let two = made(&mut world, Spiffe, KeyKind::Jwt);
    assert_eq!(holds(&world, &[one]), Err(Unproven::Lacks(two)));
    assert_eq!(holds(&world, &[two]), Err(Unproven::Lacks(one)));
    assert_eq!(holds(&world, &[one, two]), Ok(()));
    assert_eq!(holds(&world, &[one, two, pin(7)]), Err(Unproven::Extra(pin(7))));
    // What was retired may stay for as long as a token of it may live.
    for phase in [UpdateClients, UpdateServers, Phase::Standby] {
        world.enter(Spiffe, phase);
    }
    assert_eq!(holds(&world, &[one, two]), Ok(()));
    assert_eq!(holds(&world, &[two]), Ok(()));
    world.pass(DAY_MS);
    assert_eq!(holds(&world, &[one, two]), Err(Unproven::Extra(one)));
}

#[test]
fn what_was_seen_elsewhere_is_no_proof_here() {
    let world = World::new();
    let sight = as_the_row_says(&world);
    for at in ["ssh://pg.example.com:22", "http://pg.example.com/"] {
        assert_eq!(held_against(&world, Db, at, &sight), Err(Unproven::OtherKind));
    }
}

#[test]
fn the_log_keeps_what_was_seen_and_whoever_looked_says_no_more_than_that() {
    let mut world = World::new();
    add(&mut world, Db, Some(PG)).unwrap();
    world.enter(Db, Init);
    let gateway = Principal::Gateway(world.gateway);
    // A member has no word of its own, and neither has the schedule.
    let word = attest(&world, Db, None);
    assert_eq!(world.refused(gateway.clone(), word.clone()), Code::NotPermitted);
    assert_eq!(world.refused(clock(), word), Code::BadRequest);
    let lacking = tls(accepts(&[world.ca(Db, false)], 0), None);
    let order = attest(&world, Db, Some(lacking));
    assert_eq!(world.refused(gateway.clone(), order.clone()), Code::StaleView);
    assert_eq!(world.refused(admin(), order), Code::StaleView);
    let order = Order::AttestConsumer {
        authority_type: Db,
        consumer: "billing".parse().unwrap(),
        expects: Expectation {
            rotation: world.state.types[&Db].rotation_id(),
            phase: Init,
        },
        probed: true,
        saw: None,
    };
    assert_eq!(world.refused(gateway.clone(), order), Code::BadRequest);

    let saw = as_the_row_says(&world);
    let order = attest(&world, Db, Some(saw.clone()));
    let decision = world.decide(gateway, order).unwrap();
    assert!(
        matches!(&decision.facts[..], [Fact::ConsumerAttested(f)] if f.probed && f.saw.as_ref() == Some(&saw))
    );
    let consumer = world.state.consumers.values().next().unwrap();
    assert!(consumer.probed, "not somebody's word");

    // A person may still say it, or have it looked at.
    world.enter(Db, UpdateClients);
    let word = attest(&world, Db, None);
    let decision = world.decide(admin(), word).unwrap();
    assert!(matches!(&decision.facts[..], [Fact::ConsumerAttested(f)] if !f.probed && f.saw.is_none()));
    world.enter(Db, UpdateServers);
    let order = attest(&world, Db, Some(as_the_row_says(&world)));
    assert_eq!(
        names_of(&world.decide(admin(), order).unwrap()),
        ["consumer.attested"]
    );
}

#[test]
fn nobody_probes_a_consumer_that_is_registered_without_a_probe() {
    let mut world = World::new();
    add(&mut world, Db, None).unwrap();
    world.enter(Db, Init);
    let order = attest(&world, Db, Some(as_the_row_says(&world)));
    let gateway = Principal::Gateway(world.gateway);
    assert_eq!(world.refused(gateway, order), Code::BadRequest);
}
