//! Types with keys of several kinds, and of kinds without certificates.

use domain::{
    Duty, Phase, Timestamp,
    authority::{AuthorityKey, AuthorityType, KeyKind},
    command::{Order, Rotate},
    event::AuthorityKeyGenerated,
    gate,
    id::{Principal, RotationId, SpkiPin, SystemActor},
    owed,
    refusal::Code,
    trust::published,
};

use crate::{
    rotations::to,
    world::{World, admin},
};

const SPIFFE: AuthorityType = AuthorityType::Spiffe;

/// A cluster whose SPIFFE authority has both of its keys; the gateway runs.
fn cluster() -> World {
    let mut world = World::new();
    for kind in [KeyKind::Tls, KeyKind::Jwt] {
        made(&mut world, kind, 1, None);
    }
    world
}

fn made(world: &mut World, kind: KeyKind, generation: u32, rotation: Option<RotationId>) -> SpkiPin {
    let key = AuthorityKey {
        kind,
        public_key: "key".into(),
        ..world.authority_key(generation, rotation)
    };
    let (id, authority_type) = (key.id, SPIFFE);
    let fact = AuthorityKeyGenerated { authority_type, key };
    world.append(Principal::System(SystemActor::Signer), fact.into());
    id
}

fn rotate(world: &mut World, phase: Phase) -> Result<(), Code> {
    let order = Order::Rotate(Rotate {
        authority_type: SPIFFE,
        ..to(Some(phase))
    });
    world
        .ask(admin(), order)
        .map(drop)
        .map_err(|refusal| refusal.code)
}

/// Both keys of the rotation.
fn prepare(world: &mut World) -> [SpkiPin; 2] {
    let rotation = world.state.types[&SPIFFE].rotation_id();
    let generation = world.state.types[&SPIFFE].next_generation();
    [KeyKind::Tls, KeyKind::Jwt].map(|kind| made(world, kind, generation, rotation))
}

fn set(world: &World, at: Timestamp) -> Vec<SpkiPin> {
    published(&world.state, SPIFFE, at).map(|key| key.id).collect()
}

#[test]
fn a_rotation_replaces_a_key_of_each_kind_that_there_is_and_waits_for_all_of_them() {
    let mut world = cluster();
    rotate(&mut world, Phase::Init).unwrap();
    let made_for = |world: &World| -> Vec<(KeyKind, u32)> {
        let duties = owed(&world.state, world.now).into_iter();
        let keys = duties.filter_map(|duty| match duty {
            Duty::GenerateKey { kind, generation, .. } => Some((kind, generation)),
            _ => None,
        });
        keys.collect()
    };
    assert_eq!(made_for(&world), [(KeyKind::Tls, 2), (KeyKind::Jwt, 2)]);
    let rotation = world.state.types[&SPIFFE].rotation_id();
    made(&mut world, KeyKind::Tls, 2, rotation);
    assert_eq!(made_for(&world), [(KeyKind::Jwt, 2)], "of one generation");
    let gate = gate::evaluate(&world.state, SPIFFE, Phase::UpdateClients, world.now);
    assert_eq!(gate.keys_missing, [KeyKind::Jwt]);
    assert_eq!(rotate(&mut world, Phase::UpdateClients), Err(Code::KeyMissing));
    // A type that an older version began with one kind is rotated with that one.
    let host = gate::evaluate(&world.state, AuthorityType::Host, Phase::Init, world.now);
    assert!(host.keys_missing.is_empty());
}

#[test]
fn a_type_without_keys_is_refused_in_words() {
    let mut world = World::new();
    assert_eq!(rotate(&mut world, Phase::Init), Err(Code::TypeNotInService));
}

#[test]
fn the_key_set_shows_a_new_key_from_init_on_and_an_old_one_until_its_last_token_is_over() {
    for forward in [true, false] {
        let mut world = cluster();
        let old = world.state.types[&SPIFFE].active[&KeyKind::Jwt].id;
        assert_eq!(set(&world, world.now), [old]);
        rotate(&mut world, Phase::Init).unwrap();
        let [_, new] = prepare(&mut world);
        assert_eq!(set(&world, world.now), [old, new]);
        // The publication time: every reader has looked again before the new key signs.
        let early = rotate(&mut world, Phase::UpdateClients);
        assert!(
            matches!(early, Err(Code::MembersLagging | Code::PublicationTime)),
            "{early:?}"
        );
        let steps: &[Phase] = match forward {
            true => &[Phase::UpdateClients, Phase::UpdateServers, Phase::Standby],
            false => &[Phase::UpdateClients, Phase::Rollback, Phase::Standby],
        };
        for phase in steps {
            world.pass(world.state.settings().jwks_max_age_ms);
            world.enter(SPIFFE, *phase);
        }
        let (stays, goes) = if forward { (new, old) } else { (old, new) };
        let (now, life) = (world.state.time, world.state.settings().jwt_ttl_ms);
        assert_eq!(set(&world, now), [stays, goes], "forward: {forward}");
        assert_eq!(set(&world, now.plus_ms(life - 1)), [stays, goes]);
        assert_eq!(set(&world, now.plus_ms(life)), [stays]);
    }
}

#[test]
fn the_publication_time_begins_when_the_key_is_there_and_not_when_it_was_asked_for() {
    let mut world = cluster();
    let life = world.state.settings().jwks_max_age_ms;
    let until =
        |world: &World| gate::evaluate(&world.state, SPIFFE, Phase::UpdateClients, world.now).publication;
    rotate(&mut world, Phase::Init).unwrap();
    // The signer was away for longer than that.
    world.pass(2 * life);
    prepare(&mut world);
    assert_eq!(until(&world), Some(world.state.time.plus_ms(life)));
    world.pass(life - 1);
    assert!(until(&world).is_some());
    world.pass(1);
    assert_eq!(until(&world), None);
}

#[test]
fn a_key_that_came_too_late_is_in_no_key_set() {
    let mut world = cluster();
    rotate(&mut world, Phase::Init).unwrap();
    let rotation = world.state.types[&SPIFFE].rotation_id();
    world.enter(SPIFFE, Phase::Rollback);
    let late = made(&mut world, KeyKind::Jwt, 2, rotation);
    assert!(!set(&world, world.now).contains(&late));
}
